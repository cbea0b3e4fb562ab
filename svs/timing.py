"""When each phone sounds: vowels on the beat, consonants in what is left of the notes and rests around it.

The vowel of a syllable begins with its note, and the consonants before it are sung ahead of the beat, as singers do it
(Sundberg and Bauer-Huppmann, "When does a sung tone start?", Journal of Voice 21, 2007): first in the rest before the
note, then in at most 40 % of the note before. Consonants after the vowel end the last note of the syllable and take at
most 40 % of it. Where the room is short they are squeezed, those before the vowel to no less than half; what is then
missing, as on a note at the very start, they take from at most 40 % of their own note, and the vowel comes late.

Syllables that share a note get equal parts of it. A note that overlaps the next one is cut where that starts, and a gap
of less than a millisecond is no rest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from affgen.align.phones import CLASS_OF, CLASSES, SILENCE
from affgen.errors import AffgenError
from affgen.score import Score
from svs.syllables import Phones
from svs.text import Sung

Role = Literal["onset", "nucleus", "coda", "rest"]

SHARE = 0.4
"""Most of a note that the consonants of one side take."""
SQUEEZE = 0.5
"""Least part of their length that consonants before a vowel get before the vowel comes late."""
SHORTEST_REST_S = 0.001
CLASS_LENGTHS = {"vowel": 0.08, "stop": 0.08, "fricative": 0.1, "sonorant": 0.07}
"""Seconds of a phone that no length is given for (for a vowel: an offglide); round figures, not measured."""


@dataclass(frozen=True)
class Placed:
    """A phone from ``start_s`` to ``end_s`` in seconds, the index of its note (-1 in rests), and its part there."""

    phone: str
    start_s: float
    end_s: float
    note: int
    role: Role


Row = Sequence[tuple[str, Role]]


@dataclass
class _Slot:
    """A note, or one syllable's part of it, in seconds, with the phones that come before and after its vowel."""

    start: float
    end: float
    note: int
    head: Row
    vowel: str
    tail: Row
    lead: float = 0.0  # where the head begins
    beat: float = 0.0  # where the vowel begins


def consonants_before(sung: Sung, lengths: Mapping[str, float] | None = None) -> float:
    """Return how many seconds the consonants of ``sung`` want before its vowel.

    ``lengths`` are those of phones in seconds; raises :class:`AffgenError` for one that is not above 0.
    """
    return _total(_row("onset", sung.onset), lengths or {})


def timeline(score: Score, sungs: Sequence[Sung], lengths: Mapping[str, float]) -> list[Placed]:
    """Return every phone of ``sungs`` in time, without gaps from 0 to the end of ``score``; rests are silence.

    ``lengths`` are those of consonants in seconds, those it lacks by :data:`CLASS_LENGTHS`. A vowel is placed anew for
    every note it is sung on. Raises :class:`AffgenError` for a length that is not above 0, and syllables that are not
    in the order of the notes.
    """
    slots = list(_slots(score, sungs))
    _lead_in(slots, lengths)
    total = score.duration_s
    placed: list[Placed] = []
    now = 0.0
    ends = [*(slot.lead for slot in slots), total][1:]
    for slot, until in zip(slots, ends, strict=True):
        if now < slot.lead:
            placed.append(Placed(SILENCE, now, slot.lead, -1, "rest"))
        now = min(slot.end, until)
        placed += _placed(slot, now, lengths)
    if now < total:
        placed.append(Placed(SILENCE, now, total, -1, "rest"))
    return placed


def _slots(score: Score, sungs: Sequence[Sung]) -> Iterator[_Slot]:
    """Yield the notes in time, one slot for each syllable on them."""
    order = [note for sung in sungs for note in sung.notes]
    if order != sorted(order) or any(not 0 <= note < len(score.notes) for note in order):
        raise AffgenError("syllables are not in the order of the notes; take them as svs.text.sung returns them")
    starts = score.seconds(np.array([note.onset for note in score.notes]))
    ends = score.seconds(np.array([note.end for note in score.notes]))
    limits = np.append(starts[1:], score.duration_s)
    ends = np.where(limits - ends < SHORTEST_REST_S, limits, ends)
    sharing = Counter(order)
    taken: Counter[int] = Counter()
    for sung in sungs:
        for note in sung.notes:
            edges = np.linspace(starts[note], ends[note], sharing[note] + 1)
            start, end = (float(edge) for edge in edges[taken[note] : taken[note] + 2])
            taken[note] += 1
            head = _row("onset", sung.onset) if note == sung.notes[0] else []
            tail = _row("nucleus", sung.nucleus[1:]) + _row("coda", sung.coda) if note == sung.notes[-1] else []
            yield _Slot(start, end, note, head, sung.nucleus[0], tail)


def _row(role: Role, phones: Phones) -> list[tuple[str, Role]]:
    return [(phone, role) for phone in phones]


def _lead_in(slots: Sequence[_Slot], lengths: Mapping[str, float]) -> None:
    """Set where the head and the vowel of every slot begin."""
    free, spare = 0.0, 0.0  # end of the slot before, and what may be taken of it
    for slot in slots:
        want = _total(slot.head, lengths)
        before = min(want, slot.start - free + spare)
        late = min(max(SQUEEZE * want - before, 0.0), SHARE * (slot.end - slot.start))
        slot.lead, slot.beat = slot.start - before, slot.start + late
        free, spare = slot.end, SHARE * (slot.end - slot.beat)


def _placed(slot: _Slot, stop: float, lengths: Mapping[str, float]) -> Iterator[Placed]:
    """Yield the phones of ``slot``, which sounds until ``stop``."""
    close = stop - min(_total(slot.tail, lengths), SHARE * (slot.end - slot.beat))
    vowel = _row("nucleus", (slot.vowel,))
    for row, start, end in ((slot.head, slot.lead, slot.beat), (vowel, slot.beat, close), (slot.tail, close, stop)):
        now = start
        for number, (phone, role) in enumerate(row, 1):
            share = _total(row[:number], lengths) / _total(row, lengths)
            edge = min(end, start + (end - start) * share) if number < len(row) else end
            yield Placed(phone, now, edge, slot.note, role)
            now = edge


def _length(phone: str, lengths: Mapping[str, float]) -> float:
    length = lengths.get(phone, CLASS_LENGTHS.get(CLASSES[CLASS_OF[phone]], 0.0))
    if not 0 < length < math.inf:
        raise AffgenError(f"length of {phone!r} is {length} s; accepted are lengths above 0")
    return length


def _total(row: Row, lengths: Mapping[str, float]) -> float:
    return sum(_length(phone, lengths) for phone, _ in row)
