"""Fabricated material for tests and toy recipes: pieces, a miniature corpus, and files that no reader may trust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affgen.errors import AffgenError
from affgen.files import atomic_write
from affgen.midi import MAX_BYTES, MAX_EVENTS, MAX_NOTES, midi_bytes, write_midi
from affgen.score import SUSTAIN_PEDAL, Control, Marker, Meter, Note, Score, Tempo

QUADRANTS = ("Q1", "Q2", "Q3", "Q4")
PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = {True: ((0, 4, 5, 3), (0, 3, 4, 0), (0, 5, 3, 4)), False: ((0, 5, 3, 4), (0, 3, 6, 0), (0, 6, 5, 4))}
"""Degrees of the scale, one per bar: for positive valence (in major) and for negative (in minor)."""


def fabricated_score(seed: int, *, bars: int = 8, quadrant: str = "Q1") -> Score:
    """Make up a piano piece of ``bars`` bars in 4/4 whose features follow ``quadrant`` as the literature has it.

    Valence sets the mode (major or minor) and its chords; arousal sets tempo, density, loudness and register. The
    piece lies on the grid of sixteenths, so that it survives a MIDI file unchanged; equal arguments give equal pieces.
    """
    if quadrant not in QUADRANTS or bars < 1:
        raise AffgenError(f"a piece of {bars} bars in {quadrant!r}: accepted are 1 bar or more in Q1, Q2, Q3 or Q4")
    rng = np.random.default_rng([seed, QUADRANTS.index(quadrant)])
    positive, aroused = quadrant in ("Q1", "Q4"), quadrant in ("Q1", "Q2")
    scale, tonic = MAJOR if positive else MINOR, int(rng.integers(12))
    degrees = PROGRESSIONS[positive][rng.integers(len(PROGRESSIONS[positive]))]
    tempo = 60_000_000 / round(60_000_000 / (rng.uniform(120, 150) if aroused else rng.uniform(60, 80)))
    notes: list[Note] = []
    markers: list[Marker] = []
    controls: list[Control] = []
    line = 7 if aroused else 3  # the melody's place, in steps of the scale above its tonic
    for bar in range(bars):
        degree = 0 if bar == bars - 1 else degrees[bar % len(degrees)]
        chord = [tonic + _step(scale, degree + third) for third in (0, 2, 4)]
        markers.append(Marker(4.0 * bar, f"{PITCH_NAMES[chord[0] % 12]}_{_quality(chord)}"))
        controls += [Control(4.0 * bar, SUSTAIN_PEDAL, 127), Control(4.0 * bar + 3.75, SUSTAIN_PEDAL, 0)]
        notes += _left_hand(rng, 4.0 * bar, chord, aroused)
        melody, line = _right_hand(rng, 4.0 * bar, scale, tonic, line, aroused)
        notes += melody
    return Score(
        notes=tuple(notes),
        tempos=(Tempo(0.0, tempo),),
        meters=(Meter(0.0, 4, 4),),
        markers=tuple(markers),
        controls=tuple(controls),
        texts=(f"fabricated by affgen.testing: {quadrant}, seed {seed}",),
    )


def fabricated_emopia(folder: str | Path, *, songs: int, seed: int) -> Path:
    """Make a corpus laid out as EMOPIA is: ``midis/*.mid`` and ``table.tsv`` with file, song, split and quadrant.

    ``songs`` (two at least) go through the quadrants in turn, with two clips of eight bars each; one song in five is
    in the split ``val``, the others in ``train``. Returns ``folder``, which is made if needed.
    """
    if songs < 2:
        raise AffgenError(f"{songs} songs: two at least are needed, one to train on and one to validate with")
    folder = Path(folder)
    (folder / "midis").mkdir(parents=True, exist_ok=True)
    rows = ["file\tsong\tsplit\tquadrant"]
    for number in range(songs):
        quadrant, song = QUADRANTS[number % 4], f"song{number:04d}"
        for clip in range(2):
            file = f"midis/{quadrant}_{song}_{clip}.mid"
            piece = fabricated_score(seed * 100_000 + 2 * number + clip, quadrant=quadrant)
            write_midi(piece, folder / file)
            rows.append(f"{file}\t{song}\t{'val' if number % 5 == 1 else 'train'}\t{quadrant}")
    atomic_write(folder / "table.tsv", "\n".join(rows) + "\n")
    return folder


def damaged_midis(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield (name, contents) of MIDI files that must be refused: cut, flipped, of the wrong kind, or made to exhaust.

    ``rng`` chooses where the files are cut and which bits are flipped.
    """
    sound = midi_bytes(fabricated_score(int(rng.integers(2**31)), bars=2))
    frame = [*range(4), *range(14, 18), 8, 18]  # chunk names, the type, the length of the first track
    flipped = bytearray(sound)
    flipped[int(rng.choice(frame))] ^= 0x80 >> int(rng.integers(2, 4))
    yield "empty", b""
    yield "text", b"these are the notes: C D E\n"
    yield "header only", sound[:14]
    yield "truncated", sound[: int(rng.integers(1, len(sound)))]
    yield "bit-flipped", bytes(flipped)
    yield "random bytes", sound[:22] + rng.bytes(len(sound) - 22)
    yield "type 2", _file(NOTE, kind=2)
    yield "SMPTE time", _file(NOTE, division=0xE728)
    yield "division 0", _file(NOTE, division=0)
    yield "65,535 tracks", _file(NOTE, tracks=65_535)
    yield "chunk of 4 GiB", _file(NOTE, length=2**32 - 1)
    yield "tempo 0", _file(b"\0\xff\x51\x03\0\0\0" + NOTE)
    yield "meter 0/4", _file(b"\0\xff\x58\x04\0\x02\x18\x08" + NOTE)
    yield "no notes", _file(b"\0\xff\x2f\0")
    yield "drums only", _file(b"\0\x99\x24\x40\x60\x89\x24\x40")
    yield "pitch 200", _file(b"\0\x90\xc8\x40\x60\x80\x3c\x40")
    yield "undefined status", _file(b"\0\xf4\0" + NOTE)
    yield "data without status", _file(b"\0\x3c\x40\0" + NOTE)
    yield "delta of 2**28", _file(b"\0\x90\x3c\x40\x81\x80\x80\x80\0\x80\x3c\x40")
    yield "delta of 2**28 - 1", _file(b"\0\x90\x3c\x40\xff\xff\xff\x7f\x80\x3c\x40")
    yield "seven hours", _file(b"\0\xff\x51\x03\xff\xff\xff\0\x90\x3c\x40\xac\x00\x80\x3c\x40", division=3)
    yield "number without end", _file(b"\xff" * 1_000_000)
    yield "too many notes", _file(b"\0\x90\x3c\x40" + b"\1\x3c\x40" * MAX_NOTES)
    yield "too many events", _file(NOTE + b"\0\xc0\1" + b"\0\1" * MAX_EVENTS)
    yield "too large", _file(NOTE) + bytes(MAX_BYTES)


NOTE = b"\0\x90\x3c\x40\x60\x80\x3c\x40"  # middle C, as events of a track


def _file(body: bytes, *, kind: int = 1, tracks: int = 1, division: int = 96, length: int | None = None) -> bytes:
    """Frame ``body`` as a MIDI file of one track, with whatever untruth the other arguments ask for."""
    numbers = b"".join(value.to_bytes(2, "big") for value in (kind, tracks, division))
    size = (len(body) if length is None else length).to_bytes(4, "big")
    return b"MThd\0\0\0\6" + numbers + b"MTrk" + size + body


def _step(scale: tuple[int, ...], step: int) -> int:
    """Semitones from the tonic to ``step`` steps of ``scale`` above it."""
    return 12 * (step // 7) + scale[step % 7]


def _quality(chord: list[int]) -> str:
    return {(4, 7): "maj", (3, 7): "min"}.get((chord[1] - chord[0], chord[2] - chord[0]), "dim")


def _velocity(rng: np.random.Generator, centre: int) -> int:
    return int(np.clip(round(rng.normal(centre, 5)), 1, 127))


def _left_hand(rng: np.random.Generator, start: float, chord: list[int], aroused: bool) -> list[Note]:
    """One bar of accompaniment below middle C: running eighths when aroused, a broken chord in halves when calm."""
    low = [36 + (tone - chord[0]) + chord[0] % 12 for tone in chord]
    if aroused:
        order = (0, 1, 2, 1)
        return [Note(start + i / 2, 0.5, low[order[i % 4]], _velocity(rng, 84)) for i in range(8)]
    bass = Note(start, 4.0, low[0], _velocity(rng, 46))
    return [bass, *(Note(start + 1 + i, 3.0 - i, low[i], _velocity(rng, 42)) for i in (1, 2))]


def _right_hand(
    rng: np.random.Generator, start: float, scale: tuple[int, ...], tonic: int, line: int, aroused: bool
) -> tuple[list[Note], int]:
    """One bar of melody from around middle C that wanders by small steps; return it and the step it has come to."""
    rhythms = ((0.5,) * 8, (0.75, 0.25) * 4, (0.25, 0.25, 0.5) * 4) if aroused else ((2.0, 2.0), (3.0, 1.0), (1.0,) * 4)
    home = 60 + tonic - 12 * (tonic > 6)  # the tonic nearest to middle C
    notes = []
    for duration in rhythms[rng.integers(len(rhythms))]:
        line = int(np.clip(line + rng.integers(-2, 3), *((4, 13) if aroused else (0, 7))))
        notes.append(Note(start, duration, home + _step(scale, line), _velocity(rng, 98 if aroused else 56)))
        start += duration
    return notes, line
