"""One door for scores of every format: the ending of the file says which reader takes it.

Syllables of a text file can be set on the notes. In it, blanks part syllables and ``-`` joins those of a word; ``_``
goes on with the syllable before on one more note::

    hel-lo world _ _ a-gain

Projects of singing editors (``.svp .ust .ustx .vsqx .vpr .ccs .ufdata`` and more) are read through the optional package
libresvip (https://github.com/SoulMelody/LibreSVIP, MIT): notes, syllables, tempos and meters of the first track with
notes. Its "-" and "+" (the same syllable, the next syllable of a word, on one more note) have no syllable here.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from affgen.errors import AffgenError
from affgen.midi import MAX_BYTES, MAX_HOURS, MAX_NOTES
from affgen.score import Meter, Note, Score, Tempo

LIBRESVIP_TICKS = 480  # per quarter note, in libresvip's model whatever the format
LIBRESVIP_CURVES = ("import_pitch", "import_volume", "import_breath", "import_gender", "import_strength")
CONTINUED = ("-", "+")


def read_score(path: str | Path, *, lyrics: str | Path | None = None) -> Score:
    """Read the score ``path``, by its ending, and set the syllables of the text file ``lyrics``, if one is given.

    Accepted are MusicXML, MIDI, the JSON of :mod:`affgen.score_json`, ESPnet's, DiffSinger's ``.ds``, and what the
    optional package libresvip reads. Raises :class:`AffgenError` in one line for anything else, for scores without
    notes or longer than six hours, and where there are fewer or more syllables than notes.
    """
    ending = Path(path).suffix.lower()
    score = READERS[ending](str(path)) if ending in READERS else _read_foreign(str(path), ending)
    if not score.notes:
        raise AffgenError(f"{path}: has no notes; accepted are scores with some")
    with np.errstate(all="ignore"):  # the slowest of tempos overflow
        hours = score.duration_s / 3600
    if not hours <= MAX_HOURS:
        raise AffgenError(f"{path}: lasts {hours:,.1f} hours; accepted are up to {MAX_HOURS}")
    return score if lyrics is None else _with_lyrics(score, str(lyrics))


def _read_musicxml(path: str) -> Score:
    from affgen.musicxml import read_musicxml

    return read_musicxml(path)


def _read_midi(path: str) -> Score:
    from affgen.midi import read_midi

    return read_midi(path)


def _read_json(path: str) -> Score:
    from affgen.score_espnet import espnet_score, is_espnet
    from affgen.score_json import load_json, load_text, score_of

    data = load_json(load_text(path), path)
    return espnet_score(data, path) if is_espnet(data) else score_of(data, path)


def _read_ds(path: str) -> Score:
    from affgen.score_ds import parse_ds
    from affgen.score_json import load_text

    return parse_ds(load_text(path), path)


READERS: dict[str, Callable[[str], Score]] = {
    **dict.fromkeys((".musicxml", ".xml", ".mxl"), _read_musicxml),
    **dict.fromkeys((".mid", ".midi"), _read_midi),
    ".json": _read_json,
    ".ds": _read_ds,
}


# --- syllables -------------------------------------------------------------------------------------------------------


def _with_lyrics(score: Score, path: str) -> Score:
    """Set the syllables of the file ``path`` on the notes in order, in chords on the highest; old phonemes go."""
    from affgen.score_ds import place
    from affgen.score_json import load_text

    syllables = split_syllables(load_text(path))
    if syllables[:1] == [""]:
        raise AffgenError(f"{path}: starts with _, which goes on with the syllable before; start with a syllable")
    last = {note.onset: index for index, note in enumerate(score.notes)}  # the highest note stands last in a chord
    counts = f"{len(syllables)} syllables (each _ counts) for {len(last)} notes"
    if len(syllables) < len(last):
        missing = place(score, list(last.values())[len(syllables)])
        raise AffgenError(f"{path}: {counts}: {missing} has none; give one to every note, or _ to go on")
    if len(syllables) > len(last):
        over = reprlib.repr(syllables[len(last)] or "_")
        raise AffgenError(f"{path}: {counts}: {over} is the first left over; give one to every note")
    notes = [replace(note, lyric="", phonemes=()) for note in score.notes]
    for index, syllable in zip(last.values(), syllables, strict=True):
        notes[index] = replace(notes[index], lyric=syllable)
    return replace(score, notes=tuple(notes))


def split_syllables(text: str) -> list[str]:
    """Return the syllables of ``text``, with a trailing ``-`` where the word goes on, and "" for every ``_``."""
    text = re.sub(r"_[\s-]*", " _ ", text.lstrip("-\t\n\r\f\v "))
    text = re.sub(r"\s*-[\s-]*", "- ", text)
    return ["" if item == "_" else item for item in text.split()]


# --- projects of singing editors -------------------------------------------------------------------------------------


def _read_foreign(path: str, ending: str) -> Score:
    """Read ``path`` through libresvip, if that is installed and knows its ending."""
    own = f"accepted: {' '.join(READERS)}"
    try:
        from libresvip.extension.manager import get_supported_suffixes, get_svs_plugin_by_suffix
    except ImportError:
        raise AffgenError(
            f"{path}: the ending {ending or 'that is missing'} is not read here; {own}, and with libresvip "
            "(pip install 'affgen[scores]') also .svp .ust .ustx .vsqx .vpr .ccs .ufdata and more"
        ) from None
    plugin = get_svs_plugin_by_suffix(ending[1:])
    if plugin is None:
        others = " ".join(f".{suffix}" for suffix in get_supported_suffixes() if f".{suffix}" not in READERS)
        raise AffgenError(f"{path}: the ending {ending or 'that is missing'} is not read here; {own} {others}")
    if not Path(path).is_file():
        raise AffgenError(f"{path}: no such file; name one that exists")
    if Path(path).stat().st_size > MAX_BYTES:
        raise AffgenError(f"{path}: is larger than {MAX_BYTES // 1_000_000} MB, the most that is accepted")
    try:
        return _from_libresvip(plugin.load(Path(path), dict.fromkeys(LIBRESVIP_CURVES, False)))
    except Exception as error:  # what its many parsers raise on a damaged file is anything
        reason = " ".join(str(error).split())[:100]
        raise AffgenError(
            f"{path}: libresvip cannot read it ({type(error).__name__}: {reason}); export it again, or as one of: "
            f"{' '.join(READERS)}"
        ) from None


def _from_libresvip(project: Any) -> Score:
    """Convert libresvip's ``Project``: the first track with notes; its positions are in ticks."""
    voices = [track.note_list for track in project.track_list if getattr(track, "note_list", None)]
    sung = voices[0] if voices else []
    if len(sung) > MAX_NOTES:
        raise AffgenError(f"{len(sung):,} notes, accepted are up to {MAX_NOTES:,}")
    per = LIBRESVIP_TICKS
    return Score(
        notes=tuple(
            Note(
                note.start_pos / per,
                note.length / per,
                note.key_number,
                lyric="" if note.lyric in CONTINUED else note.lyric,
            )
            for note in sung
        ),
        tempos=tuple(Tempo(max(tempo.position, 0) / per, tempo.bpm) for tempo in project.song_tempo_list),
        meters=_meters(sorted(project.time_signature_list, key=lambda meter: meter.bar_index)),
    )


def _meters(signatures: Sequence[Any]) -> tuple[Meter, ...]:
    """Place time signatures, which libresvip counts in bars, at beats."""
    meters = [Meter(0.0, item.numerator, item.denominator) for item in signatures[:1]]
    for before, item in pairwise(signatures):
        beat = meters[-1].beat + (item.bar_index - before.bar_index) * meters[-1].bar
        meters.append(Meter(beat, item.numerator, item.denominator))
    return tuple(meters)
