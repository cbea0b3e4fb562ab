"""The score JSON of the project: everything a :class:`Score` holds, in a text that people can read and change.

One object; what is in brackets may be left out, and no other keys are accepted::

    {
    "format": 1,
    ["ticks_per_beat": 480,]                                   grid of a MIDI file made from it
    ["texts": ["from here"],]                                  remarks on the whole piece
    ["tempos": [{"beat": 0.0, "bpm": 120.0}],]                 quarter notes per minute from that beat on
    ["meters": [{"beat": 0.0, "numerator": 4, "denominator": 4}],]
    "notes": [
      {"onset": 0.0, "duration": 1.0,                          in quarter-note beats from the start: these count
       ["onset_s": 0.0, "duration_s": 0.5,]                    the same in seconds
       "pitch": 60, ["velocity": 80,]                          0..127 (60 is middle C), 1..127
       ["syllable": "hel-",]                                   with a trailing - when its word goes on
       ["phonemes": ["hh", "ah"],]                             what is sung for it
       ["slur": true,]                                         on the further notes of a melisma, and only there
       ["edit": {["cents": 0.0,] ["gain_db": 0.0,] ["shift_s": 0.0,] ["vibrato": 1.0,] ["intensity": 1.0]}]}
    ],
    ["dynamics": [{"beat": 0.0, "level": 64.0}],]              in units of MIDI velocity, linear between two
    ["markers": [{"beat": 0.0, "text": "C_maj"}],]
    ["controls": [{"beat": 0.0, "number": 64, "value": 127}]]  MIDI controllers
    }

Seconds are written for the reader. On reading they must agree with the beats to 1 ms; where "onset" or "duration" is
left out, "onset_s" or "duration_s" takes its place through the tempos. Files are UTF-8.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from affgen.errors import AffgenError
from affgen.files import atomic_write
from affgen.midi import MAX_BYTES, MAX_NOTES
from affgen.score import Control, Dynamic, Edit, Marker, Meter, Note, Score, Tempo

FORMAT = 1
TOLERANCE_S = 1e-3
"""How far the seconds of a note may be from its beats."""

Kind = tuple[str, tuple[type, ...]]
NUMBER: Kind = ("a number", (int, float))
INTEGER: Kind = ("a whole number", (int,))
TEXT: Kind = ("a text", (str,))
FLAG: Kind = ("true or false", (bool,))
LIST: Kind = ("a list", (list,))
OBJECT: Kind = ("an object", (dict,))

_TABLES: dict[str, tuple[type, dict[str, Kind]]] = {
    "tempos": (Tempo, {"beat": NUMBER, "bpm": NUMBER}),
    "meters": (Meter, {"beat": NUMBER, "numerator": INTEGER, "denominator": INTEGER}),
    "dynamics": (Dynamic, {"beat": NUMBER, "level": NUMBER}),
    "markers": (Marker, {"beat": NUMBER, "text": TEXT}),
    "controls": (Control, {"beat": NUMBER, "number": INTEGER, "value": INTEGER}),
}
_SCORE: dict[str, Kind] = {
    "format": INTEGER,
    "ticks_per_beat": INTEGER,
    "texts": LIST,
    "notes": LIST,
    **dict.fromkeys(_TABLES, LIST),
}
_TIMES = ("onset", "duration", "onset_s", "duration_s")
_NOTE: dict[str, Kind] = {
    **dict.fromkeys(_TIMES, NUMBER),
    "pitch": INTEGER,
    "velocity": INTEGER,
    "syllable": TEXT,
    "phonemes": LIST,
    "slur": FLAG,
    "edit": OBJECT,
}
_EDIT: dict[str, Kind] = {field.name: NUMBER for field in fields(Edit)}


def write_score(score: Score, path: str | Path) -> None:
    """Write ``score`` to ``path`` as :func:`score_json` has it, whole or not at all."""
    atomic_write(path, score_json(score))


def score_json(score: Score) -> str:
    """Return ``score`` in the schema of this module: equal scores give equal texts, one note on a line.

    ``parse_score(score_json(score), name) == score`` exactly, but for lone surrogates in texts, which become "?".
    Raises :class:`AffgenError` for a score too large to be read again: above 200,000 notes or 20 MB.
    """
    parts = {
        "format": str(FORMAT),
        "ticks_per_beat": str(int(score.ticks_per_beat)),
        "texts": _dumps([_text(text) for text in score.texts]),
        "tempos": _table("tempos", score.tempos),
        "meters": _table("meters", score.meters),
        "notes": _lines(_note_rows(score)),
        "dynamics": _table("dynamics", score.dynamics),
        "markers": _table("markers", score.markers),
        "controls": _table("controls", score.controls),
    }
    text = "{\n" + ",\n".join(f'"{key}": {value}' for key, value in parts.items()) + "\n}\n"
    if len(score.notes) > MAX_NOTES or len(text.encode()) > MAX_BYTES:
        raise AffgenError(
            f"score of {len(score.notes):,} notes and {len(text) / 1e6:.1f} MB as JSON: accepted are up to "
            f"{MAX_NOTES:,} notes and {MAX_BYTES // 1_000_000} MB; split it"
        )
    return text


def parse_score(text: str, name: str) -> Score:
    """Read a score in the schema of this module; ``name`` is what errors call it.

    Raises :class:`AffgenError` in one line for anything else: no JSON, keys that are not in the schema or missing,
    values of another kind or out of range, seconds that contradict the beats, above 20 MB or 200,000 notes.
    """
    return score_of(load_json(text, name), name)


def score_of(data: Any, name: str) -> Score:
    """Do what :func:`parse_score` does for JSON that :func:`load_json` has read already."""
    try:
        return _score(data)
    except AffgenError as error:
        raise AffgenError(f"{name}: {error}") from None


def slurs(score: Score) -> list[bool]:
    """Say of every note if it goes on with a syllable: it has none and no phonemes, and a note before it has."""
    begin = _first_sung(score.notes)
    return [not _sung(note) and note.onset > begin for note in score.notes]


# --- JSON of any schema ----------------------------------------------------------------------------------------------


def load_text(path: str | Path) -> str:
    """Read a UTF-8 file of at most 20 MB; raises :class:`AffgenError` in one line where that fails."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise AffgenError(f"{path}: no such file; name one that exists") from None
    except OSError as error:
        raise AffgenError(f"{path}: cannot be read ({error.strerror}); name a file") from None
    if len(data) > MAX_BYTES:
        raise AffgenError(f"{path}: is larger than {MAX_BYTES // 1_000_000} MB, the most that is accepted")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AffgenError(f"{path}: byte {error.start} is no UTF-8 text; accepted: files in UTF-8") from None


def load_json(text: str, name: str) -> Any:
    """Read JSON as RFC 8259 has it, with each key once per object, all of it Unicode, and at most 20 MB.

    Raises :class:`AffgenError` in one line for anything else, deep nesting too.
    """
    try:
        if len(text.encode()) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES // 1_000_000} MB")
        data = json.loads(text, object_pairs_hook=_pairs, parse_int=_whole, parse_constant=_refuse)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        reason = "nested too deeply"
    except UnicodeEncodeError:
        reason = "a text in it holds half of a surrogate pair"
    except ValueError as error:
        reason = str(error)
    else:
        return data
    raise AffgenError(f"{name}: not usable JSON ({reason}); accepted: one JSON value in UTF-8")


def checked(data: Any, accepted: Mapping[str, Kind], what: str, required: Collection[str] = ()) -> dict[str, Any]:
    """Return ``data`` if it is an object with the keys ``accepted`` alone, each of its kind, and all ``required``.

    Raises :class:`AffgenError` that calls it ``what``.
    """
    if not isinstance(data, dict):
        raise AffgenError(f"{what} is {reprlib.repr(data)}; accepted is an object with {', '.join(accepted)}")
    for key, value in data.items():
        if key not in accepted:
            raise AffgenError(f"{what} has the key {reprlib.repr(key)}; accepted are {', '.join(accepted)}")
        kind, types = accepted[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise AffgenError(f"{what} has {key} {reprlib.repr(value)}; accepted is {kind}")
    missing = [key for key in required if key not in data]
    if missing:
        raise AffgenError(f"{what} has no {missing[0]}; accepted is an object with {', '.join(accepted)}")
    return data


def checked_texts(data: list[Any], what: str) -> tuple[str, ...]:
    """Return a list of texts as a tuple; raises :class:`AffgenError` that calls it ``what`` for any other."""
    for item in data:
        if not isinstance(item, str):
            raise AffgenError(f"{what} hold {reprlib.repr(item)}; accepted are texts")
    return tuple(data)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:number]))
        raise ValueError(f"the key {reprlib.repr(twice)} stands twice in one object")
    return data


def _whole(digits: str) -> int | float:
    """Read a whole number: beyond 64 bits as a float, since the time for longer ones grows with their square."""
    return int(digits) if len(digits) < 20 else float(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


# --- reading ---------------------------------------------------------------------------------------------------------


def _score(data: Any) -> Score:
    top = checked(data, _SCORE, "the score", required=("format", "notes"))
    if top["format"] != FORMAT:
        raise AffgenError(f"the score is of format {top['format']}; accepted is {FORMAT}")
    tempos = tuple(_items(top, "tempos"))
    return Score(
        notes=_notes(top["notes"], Score((), tempos=tempos)),
        tempos=tempos,
        meters=tuple(_items(top, "meters")),
        markers=tuple(_items(top, "markers")),
        controls=tuple(_items(top, "controls")),
        texts=checked_texts(top.get("texts", []), "texts"),
        ticks_per_beat=top.get("ticks_per_beat", Score.__dataclass_fields__["ticks_per_beat"].default),
        dynamics=tuple(_items(top, "dynamics")),
    )


def _items(top: dict[str, Any], table: str) -> Iterator[Any]:
    make, accepted = _TABLES[table]
    for number, row in enumerate(top.get(table, []), 1):
        yield make(**checked(row, accepted, f"item {number} of {table}", required=accepted))


def _notes(rows: list[Any], clock: Score) -> tuple[Note, ...]:
    """Make the notes of ``rows``; ``clock`` has the tempos."""
    if len(rows) > MAX_NOTES:
        raise AffgenError(f"the score has {len(rows):,} notes; accepted are up to {MAX_NOTES:,}")
    for number, row in enumerate(rows, 1):
        checked(row, _NOTE, f"note {number}", required=("pitch",))
        for key in ("onset", "duration"):
            if key not in row and f"{key}_s" not in row:
                raise AffgenError(f"note {number} has neither {key} (beats) nor {key}_s (seconds); one is needed")
    notes = tuple(
        _note(number, row, onset, duration)
        for number, (row, onset, duration) in enumerate(zip(rows, *_beats(rows, clock), strict=True), 1)
    )
    begin = _first_sung(notes)
    for number, (row, note) in enumerate(zip(rows, notes, strict=True), 1):
        if row.get("slur") and (_sung(note) or note.onset <= begin):
            why = "has a syllable or phonemes of its own" if _sung(note) else "follows no note with a syllable"
            raise AffgenError(f"note {number} is a slur, but {why}; accepted are the further notes of a melisma")
    return notes


def _beats(rows: list[dict[str, Any]], clock: Score) -> tuple[list[float], list[float]]:
    """Return onsets and durations in beats, from seconds where there are no beats; check them where there are both."""
    onset, duration, onset_s, duration_s = (
        np.array([row.get(key, math.nan) for row in rows], dtype=np.float64) for key in _TIMES
    )
    with np.errstate(all="ignore"):  # what overflows is refused as a note out of range
        onset = np.where(np.isnan(onset), clock.beats(onset_s), onset)
        start_s = clock.seconds(onset)
        duration = np.where(np.isnan(duration), clock.beats(start_s + duration_s) - onset, duration)
        spent_s = clock.seconds(onset + duration) - start_s
        for key, given, found in (("onset", onset_s, start_s), ("duration", duration_s, spent_s)):
            for index in np.flatnonzero(np.abs(given - found) > TOLERANCE_S)[:1]:
                raise AffgenError(
                    f"note {index + 1} has {key}_s {given[index]:g}, but its beats are {found[index]:g} s by the "
                    f"tempos; accepted is an agreement to {TOLERANCE_S * 1000:g} ms, or one of the two alone"
                )
    return onset.tolist(), duration.tolist()


def _note(number: int, row: dict[str, Any], onset: float, duration: float) -> Note:
    edit = checked(row.get("edit", {}), _EDIT, f"the edit of note {number}")
    try:
        return Note(
            onset=onset,
            duration=duration,
            pitch=row["pitch"],
            velocity=row.get("velocity", 80),
            lyric=row.get("syllable", ""),
            phonemes=checked_texts(row.get("phonemes", []), "its phonemes"),
            edit=Edit(**edit) if "edit" in row else None,
        )
    except AffgenError as error:
        raise AffgenError(f"note {number}: {error}") from None


def _sung(note: Note) -> bool:
    return bool(note.lyric or note.phonemes)


def _first_sung(notes: Iterable[Note]) -> float:
    return min((note.onset for note in notes if _sung(note)), default=math.inf)


# --- writing ---------------------------------------------------------------------------------------------------------


def _note_rows(score: Score) -> Iterator[dict[str, Any]]:
    columns = score.arrays()
    with np.errstate(all="ignore"):
        starts = score.seconds(columns["onset"])
        spans = score.seconds(columns["onset"] + columns["duration"]) - starts
    for note, slur, start_s, span_s in zip(score.notes, slurs(score), starts.tolist(), spans.tolist(), strict=True):
        row: dict[str, Any] = {"onset": _real(note.onset), "duration": _real(note.duration)}
        for key, value in (("onset_s", start_s), ("duration_s", span_s)):
            if math.isfinite(value):  # at tempos near 0 it may not be
                row[key] = _real(round(value, 6))
        row |= {"pitch": int(note.pitch), "velocity": int(note.velocity)}
        if note.lyric:
            row["syllable"] = _text(note.lyric)
        if note.phonemes:
            row["phonemes"] = [_text(phoneme) for phoneme in note.phonemes]
        if slur:
            row["slur"] = True
        if note.edit is not None:
            changed = {field.name: getattr(note.edit, field.name) for field in fields(Edit)}
            defaults = {field.name: field.default for field in fields(Edit)}
            row["edit"] = {key: _real(value) for key, value in changed.items() if value != defaults[key]}
        yield row


def _table(table: str, items: Iterable[Any]) -> str:
    writers: dict[Kind, Callable[[Any], Any]] = {NUMBER: _real, INTEGER: int, TEXT: _text}
    accepted = _TABLES[table][1]
    return _lines({key: writers[kind](getattr(item, key)) for key, kind in accepted.items()} for item in items)


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    lines = ",\n".join(f"  {_dumps(row)}" for row in rows)
    return f"[\n{lines}\n]" if lines else "[]"


def _dumps(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _real(value: float) -> float:
    """Make 1 and 1.0, 0.0 and -0.0 the same in the text, as they are in a comparison."""
    return float(value) + 0.0


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
