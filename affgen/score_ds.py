"""Scores as OpenVPI's DiffSinger has them (``.ds``), in and out.

A ``.ds`` file is a JSON list of segments (or one segment), whose values are texts with blanks between the items:

=============  ====================================================================================================
``offset``     where the segment starts, in seconds
``text``       for people; the syllables if there is one per word, else a syllable is named by its phones
``ph_seq``     phones; ``SP`` is silence, ``AP`` a breath
``ph_num``     phones per word: a word is one sung syllable or rest, with the notes it is sung on
``note_seq``   notes such as ``C4``, ``A#3``, ``Db4``, ``C4+12`` (12 cents above) and ``rest``
``note_dur``   their durations in seconds, one after another from ``offset``
``note_slur``  0 where a word starts, 1 on the further notes of a melisma; without it every note is a word
=============  ====================================================================================================

A word starts with its vowel, since that is what falls on the beat, and ends with the consonants that lead in to the
next word: the rest and the syllables "SP", "sh ir", "zh e" have the ``ph_seq`` "SP sh ir zh e" and the ``ph_num`` "2 2
1". The file does not say which of these consonants close one syllable and which open the next: read here, all go to the
next one if that is sung. What is written here says it in ``ph_lead``, the number of phones of each word that stand
before its vowel, and so comes back as it was; other programs pass over a key they do not know. A vowel is a phone whose
name, without a language such as ``en/``, begins with a vowel; where a syllable has none, its last phone.

Curves (``f0_seq`` and the like), ``ph_dur`` and the settings of singers are not kept; of an edit only its cents are.
Source: openvpi/DiffSinger ``inference/ds_variance.py``, openvpi/MakeDiffSinger ``variance-temp-solution/README.md``.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from affgen.errors import AffgenError
from affgen.files import atomic_write
from affgen.midi import MAX_NOTES
from affgen.score import Edit, Note, Score, Tempo
from affgen.score_json import TOLERANCE_S, load_json, slurs

BPM = 120.0
REST, SILENCE, RESTS = "rest", "SP", ("SP", "AP")
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"#": 1, "♯": 1, "b": -1, "♭": -1}
NOTE_NAME = re.compile(r"([A-Ga-g])([#♯b♭]{0,2})(-?\d{1,2})([+-]\d{1,4})?")
VOWELS = frozenset("aeiouɑɐɒæɔəɛɜɚɝɞɘɪɨɯɵøœʊʉʌʏɤ@")  # noqa: RUF001 - these are letters of the IPA
ACCEPTED = "accepted: DiffSinger segments with offset, ph_seq, ph_num, note_seq, note_dur and note_slur"

MICROSECONDS = 1_000_000
JOINED = 1_000  # notes are joined across gaps and overlaps up to this, in microseconds
PHRASE_REST = 500_000  # a rest from here on, in microseconds, starts a new segment
HEAD, TAIL = 250_000, 100_000  # rests before and after a segment: room for the first consonants and the release

Value = TypeVar("Value", int, float)


def parse_ds(text: str, name: str) -> Score:
    """Read a ``.ds`` file as the module says; ``name`` is what errors call it.

    Seconds become beats at 120 beats per minute. Raises :class:`AffgenError` in one line for anything else: no JSON,
    values missing or of lengths that do not fit, names of notes that are none, more than 200,000 notes.
    """
    data = load_json(text, name)
    notes: list[Note] = []
    segments = data if isinstance(data, list) else [data]
    for number, segment in enumerate(segments, 1):
        try:
            notes += _read_segment(segment)
            if len(notes) > MAX_NOTES:
                raise AffgenError(f"more than {MAX_NOTES:,} notes up to here")
        except AffgenError as error:
            raise AffgenError(f"{name}: segment {number}: {error}; {ACCEPTED}") from None
    curves = sum("f0_seq" in segment for segment in segments)
    texts = (f"read from DiffSinger segments, {curves} of them with an F0 curve that was not kept",) if curves else ()
    return Score(tuple(notes), tempos=(Tempo(0.0, BPM),), texts=texts)


def write_ds(score: Score, path: str | Path) -> None:
    """Write ``score`` to ``path`` as :func:`ds_json` has it, whole or not at all; errors name ``path``."""
    try:
        text = ds_json(score)
    except AffgenError as error:
        raise AffgenError(f"{path}: {error}") from None
    atomic_write(path, text)


def ds_json(score: Score) -> str:
    """Return ``score`` as segments of DiffSinger, one per phrase; what sings it finds durations and F0 by itself.

    Times are in seconds, to the microsecond, but for notes nearer than 1 ms, which are joined; rests become ``SP``.
    ``parse_ds`` gives back the notes with their times, pitches, cents, slurs and phonemes, and syllables without
    blanks. Raises :class:`AffgenError` that names the first note without phonemes, that overlaps the one before, or
    that goes on with a syllable after a rest.
    """
    segments = [_segment(phrase) for phrase in _phrases(_voice(score))]
    return json.dumps(segments, ensure_ascii=False, indent=2).encode("utf-8", "replace").decode() + "\n"


def note_name(note: Note) -> str:
    """Name the pitch of ``note`` as ``.ds`` does: middle C is C4; the cents of its edit are put behind."""
    cents = round(note.edit.cents) if note.edit else 0
    return f"{PITCHES[note.pitch % 12]}{note.pitch // 12 - 1}" + (f"{cents:+d}" if cents else "")


def place(score: Score, index: int) -> str:
    """Say which note ``score.notes[index]`` is, for errors: "note 7 (D#4, bar 2)"."""
    note = score.notes[index]
    bar = int(np.searchsorted(score.bar_lines(), note.onset + 1e-6, side="right"))
    return f"note {index + 1} ({note_name(note)}, bar {bar})"


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_segment(segment: Any) -> Iterator[Note]:
    if not isinstance(segment, dict):
        raise AffgenError(f"is {reprlib.repr(segment)}, no object")
    names, durations = _items(segment, "note_seq"), _numbers(segment, "note_dur", float)
    flags = _numbers(segment, "note_slur", int) if "note_slur" in segment else [0] * len(names)
    if not len(names) == len(durations) == len(flags):
        raise AffgenError(f"{len(names)} note_seq, {len(durations)} note_dur, {len(flags)} note_slur, not as many")
    if any(duration < 0 for duration in durations):
        raise AffgenError("note_dur has a duration below 0")
    if set(flags) - {0, 1} or flags[:1] == [1]:
        raise AffgenError("note_slur is not 0 where a word starts and 1 where it goes on")
    starts = [index for index, flag in enumerate(flags) if not flag]
    groups = _groups(segment, len(starts))
    resting = [names[start] == REST or group[0] in RESTS for start, group in zip(starts, groups, strict=True)]
    phones = _syllables(segment, groups, resting)
    texts = _items(segment, "text") if isinstance(segment.get("text"), str) else []
    if len(texts) != len(groups):
        texts = ["".join(_symbol(phone) for phone in syllable) for syllable in phones]
    time, word = _offset(segment), -1
    for name, duration, flag in zip(names, durations, flags, strict=True):
        word += not flag
        start, time = time, time + duration
        if not (resting[word] or name == REST):
            yield _read_note(name, start, time, "" if flag else texts[word], () if flag else phones[word])


def _read_note(name: str, start: float, end: float, lyric: str, phonemes: Sequence[str]) -> Note:
    match = NOTE_NAME.fullmatch(name)
    if not match:
        raise AffgenError(f"note_seq has {reprlib.repr(name)}, no name of a note such as C4, A#3, C4+12 or {REST}")
    letter, accidentals, octave, cents = match.groups()
    pitch = 12 * (int(octave) + 1) + STEPS[letter.upper()] + sum(ACCIDENTALS[sign] for sign in accidentals)
    if -TOLERANCE_S < start < 0:  # a rest of rounded length before the first note
        start = 0.0
    onset = start * BPM / 60
    edit = Edit(cents=int(cents)) if cents else None
    return Note(onset, end * BPM / 60 - onset, pitch, lyric=lyric, phonemes=tuple(phonemes), edit=edit)


def _groups(segment: dict[str, Any], words: int) -> list[list[str]]:
    """Split ``ph_seq`` by ``ph_num``."""
    phones, counts = _items(segment, "ph_seq"), _numbers(segment, "ph_num", int)
    if len(counts) != words:
        raise AffgenError(f"ph_num has {len(counts)} words, the notes that are no slurs are {words}")
    if min(counts, default=1) < 1 or sum(counts) != len(phones):
        raise AffgenError(f"ph_num makes up {sum(counts)} phones with 1 or more each, ph_seq has {len(phones)}")
    ends = np.cumsum([0, *counts]).tolist()
    return [phones[start:end] for start, end in pairwise(ends)]


def _syllables(segment: dict[str, Any], groups: list[list[str]], resting: list[bool]) -> list[list[str]]:
    """Move the phones that lead in to a word to it from the end of the word before; (words) each."""
    if "ph_lead" in segment:
        leads = _numbers(segment, "ph_lead", int)
        room = [1, *map(len, groups[:-1])] if groups else []
        if len(leads) != len(groups) or not all(0 <= lead < most for lead, most in zip(leads, room, strict=True)):
            raise AffgenError("ph_lead does not fit the phones of the words")
    else:
        leads = [0, *(_trailing(group) for group in groups[:-1])]
        leads = [0 if rest else lead for rest, lead in zip(resting, leads, strict=False)]
    syllables = []
    for number, (group, lead) in enumerate(zip(groups, [*leads[1:], 0], strict=False)):
        before = groups[number - 1] if number else []
        syllables.append(before[len(before) - leads[number] :] + group[: len(group) - lead])
    return syllables


def _trailing(group: list[str]) -> int:
    """Count the consonants after the last vowel or rest; what a word starts with is one of them."""
    last = max((index for index, phone in enumerate(group) if _is_vowel(phone) or phone in RESTS), default=0)
    return len(group) - 1 - last


def _offset(segment: dict[str, Any]) -> float:
    """Return where the segment starts; a number, or its text as some programs write it."""
    offsets = _numbers({"offset": str(segment.get("offset", 0.0))}, "offset", float)
    if len(offsets) != 1:
        raise AffgenError(f"offset is {reprlib.repr(segment['offset'])}, no number")
    return offsets[0]


def _items(segment: dict[str, Any], key: str) -> list[str]:
    if not isinstance(segment.get(key), str):
        raise AffgenError(f"{key} is {reprlib.repr(segment[key])}, no text" if key in segment else f"has no {key}")
    items: list[str] = segment[key].split()
    return items


def _numbers(segment: dict[str, Any], key: str, kind: Callable[[str], Value]) -> list[Value]:
    items = _items(segment, key)
    try:
        return [kind(item) for item in items]
    except ValueError:
        raise AffgenError(f"{key} is {reprlib.repr(segment[key])}, not all numbers") from None


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass
class _Sung:
    """A note of the voice, times in microseconds."""

    start: int
    end: int
    note: Note
    slur: bool


@dataclass
class _Word:
    """What has one entry in ``ph_num``: a syllable with its notes as (name, microseconds), or a rest."""

    text: str
    phones: list[str]
    lead: int = 0
    notes: list[tuple[str, int]] = field(default_factory=list)


def _voice(score: Score) -> list[_Sung]:
    """Return the notes as one voice that ``.ds`` can hold; those nearer than a millisecond are joined."""
    columns = score.arrays()
    with np.errstate(all="ignore"):
        starts = np.rint(score.seconds(columns["onset"]) * MICROSECONDS)
        ends = np.rint(score.seconds(columns["onset"] + columns["duration"]) * MICROSECONDS)
    if not np.isfinite(ends).all():
        raise AffgenError("the score has no end in seconds, so slow are its tempos; accepted are tempos that end it")
    voice: list[_Sung] = []
    for index, (note, slur) in enumerate(zip(score.notes, slurs(score), strict=True)):
        start, end = int(starts[index]), int(ends[index])
        gap = start - voice[-1].end if voice else start
        if voice and (gap < -JOINED or start <= voice[-1].start):
            raise AffgenError(f"{place(score, index)} starts before the one before it ends; accepted is one voice")
        if slur and gap > JOINED:
            raise AffgenError(
                f"{place(score, index)} goes on with a syllable after a rest; give it phonemes or no rest"
            )
        if not slur and not note.phonemes:
            raise AffgenError(
                f"{place(score, index)} has no phonemes; accepted are notes with some, and their melismas"
            )
        if any(phone in RESTS or phone.split() != [phone] for phone in note.phonemes):
            raise AffgenError(f"{place(score, index)} has phonemes with blanks, or SP or AP, which are rests")
        if voice and gap <= JOINED:
            voice[-1].end = start
        voice.append(_Sung(start, max(end, start + 1), note, slur))
    return voice


def _phrases(voice: list[_Sung]) -> Iterator[list[_Sung]]:
    phrase: list[_Sung] = []
    for sung in voice:
        if phrase and sung.start - phrase[-1].end >= PHRASE_REST:
            yield phrase
            phrase = []
        phrase.append(sung)
    if phrase:
        yield phrase


def _segment(phrase: list[_Sung]) -> dict[str, Any]:
    at = offset = max(0, phrase[0].start - HEAD)
    words: list[_Word] = []
    for sung in phrase:
        if sung.start > at:
            words.append(_Word(SILENCE, [SILENCE], notes=[(REST, sung.start - at)]))
        if not sung.slur:
            words.append(_word(sung.note, words))
        words[-1].notes.append((note_name(sung.note), sung.end - sung.start))
        at = sung.end
    words.append(_Word(SILENCE, [SILENCE], notes=[(REST, TAIL)]))
    notes = [note for word in words for note in word.notes]
    return {
        "offset": offset / MICROSECONDS,
        "text": " ".join(word.text for word in words),
        "ph_seq": " ".join(phone for word in words for phone in word.phones),
        "ph_num": " ".join(str(len(word.phones)) for word in words),
        "ph_lead": " ".join(str(word.lead) for word in words),
        "note_seq": " ".join(name for name, _ in notes),
        "note_dur": " ".join(f"{duration / MICROSECONDS:.6f}" for _, duration in notes),
        "note_slur": " ".join(str(int(number > 0)) for word in words for number in range(len(word.notes))),
    }


def _word(note: Note, before: list[_Word]) -> _Word:
    """Start a word and put the phones before its vowel at the end of the word ``before``, where there is one."""
    phones = list(note.phonemes)
    vowel = next((index for index, phone in enumerate(phones) if _is_vowel(phone)), len(phones) - 1)
    lead = vowel if before else 0
    if before:
        before[-1].phones += phones[:lead]
    text = "_".join(note.lyric.split()) or "".join(map(_symbol, phones))
    return _Word(text, phones[lead:], lead)


def _symbol(phone: str) -> str:
    return phone.rpartition("/")[2] or phone


def _is_vowel(phone: str) -> bool:
    return _symbol(phone)[:1].lower() in VOWELS
