"""ESPnet's ``score.json`` of singing (recipes ``svs1``), in.

One utterance, or an object of several by name::

    {"tempo": 120, "item_list": ["st", "et", "lyric", "midi", "phns"],
     "note": [[0.0, 0.5, "sh_ir", 60, "sh_ir"], [0.5, 1.0, "—", 62, "ir"], [1.0, 1.2, "P", 0, "P"]]}

``item_list`` names the items of every note: start and end in seconds, syllable, MIDI number, and phones joined by "_".
MIDI numbers of 0 or below are rests; the syllable "—" goes on with the one before, and its phones only say so again.
Source: espnet/espnet ``espnet2/fileio/score_scp.py`` and ``egs2/*/svs1/local``.
"""

from __future__ import annotations

import reprlib
from typing import Any

from affgen.errors import AffgenError
from affgen.midi import MAX_NOTES
from affgen.score import Marker, Note, Score, Tempo
from affgen.score_json import INTEGER, LIST, NUMBER, TEXT, Kind, checked, checked_texts, load_json

ITEMS: dict[str, Kind] = {"st": NUMBER, "et": NUMBER, "lyric": TEXT, "midi": INTEGER, "phns": TEXT, "phn": TEXT}
USUAL = ["st", "et", "lyric", "midi", "phns"]
NEEDED = ("st", "et", "midi")
MELISMA = ("—", "ー")
ACCEPTED = 'accepted: {"tempo": BPM, "item_list": ["st", "et", "lyric", "midi", "phns"], "note": [[...], ...]}'


def parse_espnet(text: str, name: str) -> Score:
    """Read ESPnet's JSON as the module says; ``name`` is what errors call it.

    Utterances follow each other in the order of the file, each from the last end of the one before, with a marker of
    its name and its tempo. Raises :class:`AffgenError` in one line for anything else, or above 200,000 notes.
    """
    return espnet_score(load_json(text, name), name)


def is_espnet(data: Any) -> bool:
    """Tell by its keys whether JSON is ESPnet's."""
    return isinstance(data, dict) and ("note" in data or (bool(data) and all(map(_is_utterance, data.values()))))


def espnet_score(data: Any, name: str) -> Score:
    """Do what :func:`parse_espnet` does for JSON that is read already."""
    if not is_espnet(data):
        raise AffgenError(f"{name}: no score of ESPnet; {ACCEPTED}, or an object of such by name")
    utterances = {"": data} if "note" in data else data
    notes: list[Note] = []
    tempos: list[Tempo] = []
    markers: list[Marker] = []
    beat = 0.0
    for key, utterance in utterances.items():
        try:
            tempo, rows = _rows(utterance)
            tempos.append(Tempo(beat, tempo))
            markers += [Marker(beat, key)] if key else []
            notes += [_note(row, beat, tempo) for row in rows if row["midi"] > 0]
        except AffgenError as error:
            where = f"{name}: utterance {reprlib.repr(key)}" if key else name
            raise AffgenError(f"{where}: {error}; {ACCEPTED}") from None
        beat += max((row["et"] for row in rows), default=0.0) * tempo / 60
    if len(notes) > MAX_NOTES:
        raise AffgenError(f"{name}: has {len(notes):,} notes; accepted are up to {MAX_NOTES:,}")
    return Score(tuple(notes), tempos=tuple(tempos), markers=tuple(markers))


def _is_utterance(data: Any) -> bool:
    return isinstance(data, dict) and "note" in data


def _rows(utterance: dict[str, Any]) -> tuple[float, list[dict[str, Any]]]:
    """Return the tempo and the notes by the names of their items."""
    known = {key: value for key, value in utterance.items() if key in ("tempo", "item_list", "note")}
    checked(known, {"tempo": NUMBER, "item_list": LIST, "note": LIST}, "it", required=("tempo", "note"))
    names = checked_texts(known.get("item_list", USUAL), "the items of item_list")
    rows = []
    for number, values in enumerate(known["note"], 1):
        if not isinstance(values, list) or len(values) != len(names):
            raise AffgenError(f"note {number} is {reprlib.repr(values)}, not {len(names)} items as item_list has")
        rows.append(checked(dict(zip(names, values, strict=True)), ITEMS, f"note {number}", required=NEEDED))
    return float(known["tempo"]), rows


def _note(row: dict[str, Any], beat: float, tempo: float) -> Note:
    onset = row["st"] * tempo / 60
    duration = row["et"] * tempo / 60 - onset
    lyric = row.get("lyric", "")
    if lyric in MELISMA:
        return Note(beat + onset, duration, row["midi"])
    phones = row.get("phns", row.get("phn", ""))
    phonemes = tuple(phone for phone in phones.split("_") if phone)
    return Note(beat + onset, duration, row["midi"], lyric=lyric, phonemes=phonemes)
