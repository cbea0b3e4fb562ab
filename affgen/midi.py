"""Standard MIDI files in and out: every byte is checked against a limit before memory is spent on it.

The reader is our own because the limits must hold inside it (events, notes, ticks, lengths); a general library builds
all messages first, which lets a 20 MB file take gigabytes. What it reads and writes is compared with mido in the tests.
Source: The Complete MIDI 1.0 Detailed Specification, "Standard MIDI Files 1.0" (RP-001).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from affgen.errors import AffgenError
from affgen.files import atomic_write
from affgen.score import MAX_BEATS, Control, Marker, Meter, Note, Score, Tempo

MAX_BYTES = 20_000_000
MAX_EVENTS = 500_000
MAX_NOTES = 200_000
MAX_HOURS = 6

DRUMS = 9  # channel 10 as musicians count
NOTE_OFF, NOTE_ON, CONTROL = 0x80, 0x90, 0xB0
META = 0x100  # added to the type of a meta event, so that one number tells every event apart
TEXT, LYRIC, MARKER, END, TEMPO, METER = META + 0x01, META + 0x05, META + 0x06, META + 0x2F, META + 0x51, META + 0x58
MICROSECONDS = 60_000_000
MAX_VARIABLE = 2**28 - 1  # four bytes of seven bits


class _Damage(Exception):
    """Why the bytes are refused; ``read_midi`` adds the name of the file and what is accepted."""


def read_midi(source: str | Path | bytes) -> Score:
    """Read a Standard MIDI file of type 0 or 1 (a path, or its bytes) into one :class:`Score`.

    Tracks and channels are merged. Drums (channel 10) are left out, notes of no length are dropped, notes never
    closed end with their track, and of overlapping notes of one pitch the first to start is the first to end. A lyric
    goes to the highest note that starts with it, in its own track if there is one; text events at 0 become ``texts``.
    Raises :class:`AffgenError` in one line for anything else: damaged, type 2, SMPTE time, tempo 0, no notes, above
    20 MB, 200,000 notes, 500,000 events, 100,000 beats or six hours.
    """
    name = "MIDI data" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _load(Path(source))
    try:
        return _parse(data)
    except _Damage as damage:
        raise AffgenError(
            f"{name}: not a usable MIDI file ({damage}); accepted: Standard MIDI files of type 0 or 1"
        ) from None


def write_midi(score: Score, path: str | Path) -> None:
    """Write ``score`` to ``path`` as :func:`midi_bytes` has it, whole or not at all."""
    atomic_write(path, midi_bytes(score))


def midi_bytes(score: Score) -> bytes:
    """Return ``score`` as a type 1 file: tempo, meter, markers and texts in one track, notes and controls in another.

    Equal scores give equal bytes, and ``read_midi(midi_bytes(score)) == score`` where positions lie on the tick grid,
    tempos are whole microseconds per beat, the notes of one pitch do not enclose each other, and lyrics have no blanks
    at their ends and sit on the highest notes of a chord. Other positions are rounded to the grid, durations to at
    least one tick; texts are UTF-8. Raises :class:`AffgenError` for a tempo that MIDI cannot hold.
    """
    tracks = [_conductor(score), _performance(score)]
    header = b"MThd" + _integers((6, 4), (1, 2), (len(tracks), 2), (score.ticks_per_beat, 2))
    return header + b"".join(_track(events) for events in tracks)


# --- reading ---------------------------------------------------------------------------------------------------------


def _load(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise AffgenError(f"{path}: no such file; name a MIDI file") from None
    except OSError as error:
        raise AffgenError(f"{path}: cannot be read ({error.strerror}); name a MIDI file") from None


@dataclass
class _Content:
    """What was found so far; times in ticks, each with the number of its track where that matters."""

    notes: list[tuple[int, int, int, int, int]] = field(default_factory=list)  # start, end, pitch, velocity, track
    lyrics: list[tuple[int, int, str]] = field(default_factory=list)  # tick, track, text
    tempos: list[tuple[int, int]] = field(default_factory=list)  # tick, microseconds per beat
    meters: list[tuple[int, int, int]] = field(default_factory=list)  # tick, numerator, exponent of two
    markers: list[tuple[int, str]] = field(default_factory=list)
    controls: list[tuple[int, int, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    events: int = 0
    started: int = 0
    drums: int = 0


def _parse(data: bytes) -> Score:
    ticks_per_beat, chunks = _chunks(data)
    content = _Content()
    for number, (start, stop) in enumerate(chunks):
        _read_track(content, number, _events(data, start, stop, MAX_BEATS * ticks_per_beat))
    if not content.notes:
        raise _Damage("it has no notes" + (" but drums, which are not read" if content.drums else ""))
    try:
        score = _assemble(content, ticks_per_beat)
    except AffgenError as error:
        raise _Damage(str(error)) from None
    if score.duration_s > MAX_HOURS * 3600:
        raise _Damage(f"it lasts {score.duration_s / 3600:,.1f} hours, at most {MAX_HOURS} are read")
    return score


def _chunks(data: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Check the frame of the file; return ticks per beat and (start, stop) of the contents of every track."""
    if not data:
        raise _Damage("it is empty")
    if len(data) > MAX_BYTES:
        raise _Damage(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    if data[:4] != b"MThd":
        raise _Damage("it does not begin with MThd")
    length, kind, tracks, division = (
        int.from_bytes(data[i:j], "big") for i, j in ((4, 8), (8, 10), (10, 12), (12, 14))
    )
    if length < 6 or 8 + length > len(data):
        raise _Damage("its header is cut short")
    if kind > 1:
        raise _Damage(f"it is of type {kind}")
    if division & 0x8000:
        raise _Damage("its time is in SMPTE frames, not in beats")
    if division == 0:
        raise _Damage("it has 0 ticks per beat")
    chunks: list[tuple[int, int]] = []
    at = 8 + length
    while len(chunks) < tracks and at + 8 <= len(data):
        start, stop = at + 8, at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        if stop > len(data):
            raise _Damage(
                f"the chunk at byte {at} is cut short: {stop - start:,} bytes said, {len(data) - start:,} left"
            )
        if data[at : at + 4] == b"MTrk":  # chunks of other kinds are to be skipped
            chunks.append((start, stop))
        at = stop
    if len(chunks) < tracks:
        raise _Damage(f"its header counts {tracks:,} tracks, it holds {len(chunks):,}")
    return division, chunks


def _events(data: bytes, at: int, stop: int, last_tick: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (tick, status, contents) of every event of ``data[at:stop]`` up to the end of the track.

    The status of a meta event is ``META`` plus its type. A status in force survives meta and system events: that is
    against the letter of the standard, but some programs write so and nothing else can be meant.
    """
    tick, running = 0, 0
    while at < stop:
        if data[at] < 0x80:  # most are, and this loop is most of the time
            tick, at = tick + data[at], at + 1
        else:
            delta, at = _variable(data, at, stop)
            tick += delta
        if tick > last_tick:
            raise _Damage(f"an event lies at tick {tick:,}, beyond {MAX_BEATS:,} beats")
        status = data[at] if at < stop else 0
        if status >= 0xF0:
            at += 1
            if status == 0xFF:
                status = META + (data[at] if at < stop else 0)
                at += 1
            elif status not in (0xF0, 0xF7):
                raise _Damage(f"byte {at - 1} is {status:#04x}, which no file may hold")
            size, at = _variable(data, at, stop)
        else:
            if status >= 0x80:
                running = status
                at += 1
            elif not running:
                raise _Damage(f"byte {at} is no event")
            status, size = running, 1 if 0xC0 <= running < 0xE0 else 2
        if at + size > stop:
            raise _Damage(f"the event at byte {at} is cut short")
        yield tick, status, data[at : at + size]
        if status == END:
            return
        at += size


def _variable(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """Read a number of one to four bytes of seven bits; return it and the position after it."""
    value = 0
    for here in range(at, min(at + 4, stop)):
        value = value << 7 | data[here] & 0x7F
        if data[here] < 0x80:
            return value, here + 1
    raise _Damage(f"the number at byte {at} has " + ("no end" if at + 4 > stop else "more than four bytes"))


def _read_track(content: _Content, track: int, events: Iterable[tuple[int, int, bytes]]) -> None:
    """Add what one track holds to ``content``."""
    pending: defaultdict[tuple[int, int], deque[tuple[int, int]]] = defaultdict(deque)
    tick = 0
    for tick, status, data in events:
        content.events += 1
        if content.events > MAX_EVENTS:
            raise _Damage(f"it has more than {MAX_EVENTS:,} events")
        if status >= META:
            _read_meta(content, track, tick, status, data)
            continue
        kind, channel = status & 0xF0, status & 0x0F
        if status >= 0xF0 or kind not in (NOTE_OFF, NOTE_ON, CONTROL):
            continue
        first, second = data[0], min(data[1], 127)  # files with velocities above 127 exist and play
        if first > 127:
            raise _Damage(f"a note or control has the number {first}, above 127")
        if channel == DRUMS:
            content.drums += kind == NOTE_ON
        elif kind == CONTROL:
            content.controls.append((tick, first, second))
        elif kind == NOTE_ON and second:
            content.started += 1
            if content.started > MAX_NOTES:
                raise _Damage(f"it has more than {MAX_NOTES:,} notes")
            pending[channel, first].append((tick, second))
        elif pending[channel, first]:
            start, velocity = pending[channel, first].popleft()
            content.notes.append((start, tick, first, velocity, track))
    for (_, pitch), starts in pending.items():
        content.notes.extend((start, tick, pitch, velocity, track) for start, velocity in starts)


def _read_meta(content: _Content, track: int, tick: int, status: int, data: bytes) -> None:
    """Add one meta event to ``content``; key signatures and all else that a score does not hold pass unread."""
    if status == TEMPO:
        if len(data) != 3 or not any(data):
            raise _Damage(f"its tempo at tick {tick:,} is " + ("0" if len(data) == 3 else "damaged"))
        content.tempos.append((tick, int.from_bytes(data, "big")))
    elif status == METER:
        if len(data) < 2 or data[0] == 0 or data[1] > 6:
            raise _Damage(f"its time signature at tick {tick:,} is damaged")
        content.meters.append((tick, data[0], data[1]))
    elif status == LYRIC and (text := _decode(data)):
        content.lyrics.append((tick, track, text))
    elif status == MARKER:
        content.markers.append((tick, _decode(data)))
    elif status == TEXT and tick == 0:
        content.texts.append(_decode(data))


def _decode(data: bytes) -> str:
    """Text is UTF-8 in files of today and Latin-1 by the standard."""
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return data.decode("latin-1").strip()


def _assemble(content: _Content, ticks_per_beat: int) -> Score:
    notes = [note for note in content.notes if note[1] > note[0]]
    if not notes:
        raise _Damage("it has no notes that last")
    syllables = _syllables(notes, content.lyrics)
    per_beat = ticks_per_beat
    return Score(
        notes=tuple(
            Note(start / per_beat, (end - start) / per_beat, pitch, velocity, syllables.get(index, ""))
            for index, (start, end, pitch, velocity, _) in enumerate(notes)
        ),
        tempos=tuple(Tempo(tick / per_beat, MICROSECONDS / value) for tick, value in content.tempos),
        meters=tuple(Meter(tick / per_beat, top, 2**exponent) for tick, top, exponent in content.meters),
        markers=tuple(Marker(tick / per_beat, text) for tick, text in content.markers),
        controls=tuple(Control(tick / per_beat, number, value) for tick, number, value in content.controls),
        texts=tuple(content.texts),
        ticks_per_beat=ticks_per_beat,
    )


def _syllables(notes: list[tuple[int, int, int, int, int]], lyrics: list[tuple[int, int, str]]) -> dict[int, str]:
    """Give each lyric to a note that starts at its tick: of its own track if possible, the highest free one first."""
    if not lyrics:
        return {}
    starting: defaultdict[int, list[int]] = defaultdict(list)
    for index, note in enumerate(notes):
        starting[note[0]].append(index)
    for indices in starting.values():
        indices.sort(key=lambda index: (-notes[index][2], notes[index][1], notes[index][3]))
    given: dict[int, str] = {}
    for tick, track, text in lyrics:
        free = starting[tick]
        if free:
            choice = next((index for index in free if notes[index][4] == track), free[0])
            free.remove(choice)
            given[choice] = text
    return given


# --- writing ---------------------------------------------------------------------------------------------------------


def _conductor(score: Score) -> list[tuple[int, bytes]]:
    """Events of the first track as (tick, bytes), in order."""
    events = [(0, _meta(TEXT, _encode(text))) for text in score.texts]
    for meter in score.meters:
        exponent = meter.denominator.bit_length() - 1
        data = bytes([meter.numerator, exponent, 24, 8])  # one click per beat, 8 thirty-seconds to the quarter
        events.append((_tick(score, meter.beat), _meta(METER, data)))
    for tempo in score.tempos:
        value = round(MICROSECONDS / tempo.bpm)
        if not 1 <= value < 2**24:
            raise AffgenError(
                f"tempo of {tempo.bpm} beats per minute at beat {tempo.beat}: MIDI holds 3.58 to 60000000"
            )
        events.append((_tick(score, tempo.beat), _meta(TEMPO, _integers((value, 3)))))
    events += [(_tick(score, marker.beat), _meta(MARKER, _encode(marker.text))) for marker in score.markers]
    return sorted(events, key=lambda event: event[0])


def _performance(score: Score) -> list[tuple[int, bytes]]:
    """Events of the second track as (tick, bytes): at one tick the ends, then controls, then syllables and starts."""
    ends, lyrics, starts = [], [], []
    for note in score.notes:
        start = _tick(score, note.onset)
        starts.append((start, bytes([NOTE_ON, note.pitch, note.velocity])))
        ends.append((max(start + 1, _tick(score, note.end)), bytes([NOTE_OFF, note.pitch, 64])))
        if note.lyric:
            lyrics.append((start, -note.pitch, _meta(LYRIC, _encode(note.lyric))))
    controls = [(_tick(score, c.beat), bytes([CONTROL, c.number, c.value])) for c in score.controls]
    syllables = [(tick, data) for tick, _, data in sorted(lyrics, key=lambda lyric: lyric[:2])]
    return sorted([*ends, *controls, *syllables, *starts], key=lambda event: event[0])


def _track(events: list[tuple[int, bytes]]) -> bytes:
    """Join (tick, bytes) to a track chunk that ends with its last event."""
    body = bytearray()
    last = 0
    for tick, data in events:
        body += _variable_bytes(tick - last) + data
        last = tick
    body += b"\0" + _meta(END, b"")
    return b"MTrk" + _integers((len(body), 4)) + bytes(body)


def _tick(score: Score, beats: float) -> int:
    return round(beats * score.ticks_per_beat)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _meta(status: int, data: bytes) -> bytes:
    return bytes([0xFF, status - META]) + _variable_bytes(len(data)) + data


def _integers(*pairs: tuple[int, int]) -> bytes:
    """Join (value, width in bytes) as big-endian integers."""
    return b"".join(value.to_bytes(width, "big") for value, width in pairs)


def _variable_bytes(value: int) -> bytes:
    """Write a number as one to four bytes of seven bits, the highest first."""
    if value > MAX_VARIABLE:
        raise AffgenError(f"{value:,} ticks or bytes in a row: a MIDI file holds at most {MAX_VARIABLE:,}")
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups))
