"""How far boundaries are from those that people marked, and how alike two alignments and two labellings are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from affgen.align.marks import Mark
from affgen.align.phones import CLASS_OF, CLASSES, SILENCE
from affgen.align.segments import Segment, spoken

_STOP = CLASSES.index("stop")


@dataclass(frozen=True)
class Boundary:
    """A boundary that was marked: the phones around it, and how much later (seconds) it was found."""

    before: str
    after: str
    late_s: float


def compare(marks: Sequence[Mark], segments: Sequence[Segment]) -> list[Boundary]:
    """Return the boundaries of ``marks`` that ``segments`` have too.

    Where the phones differ, those of the longest common runs are compared. Left out are the middle of a mark of two
    phones, and where a stop begins after silence: nobody hears its closure.
    """
    phones = [phone for mark in marks if mark.phones != (SILENCE,) for phone in mark.phones]
    found = spoken(segments)
    match = _matched(phones, [segment.phone for segment in found])
    out: list[Boundary] = []
    index, before = 0, SILENCE
    for number, mark in enumerate(marks):
        if mark.phones == (SILENCE,):
            before = SILENCE
            continue
        here = match.get(index)
        audible = before != SILENCE or CLASS_OF[mark.phones[0]] != _STOP
        joined = before == SILENCE or (here is not None and match.get(index - 1) == here - 1)
        if here is not None and audible and joined:
            out.append(Boundary(before, mark.phones[0], found[here].start_s - mark.start_s))
        index += len(mark.phones)
        before = mark.phones[-1]
        last, end = match.get(index - 1), number + 1 == len(marks) or marks[number + 1].phones == (SILENCE,)
        if end and last is not None:
            out.append(Boundary(before, SILENCE, found[last].end_s - mark.end_s))
    return out


def agreement(one: Sequence[Segment], other: Sequence[Segment]) -> list[Boundary]:
    """Return how much later ``other`` has the boundaries of ``one``, over the phones that both have."""
    return compare([Mark(segment.start_s, segment.end_s, (segment.phone,)) for segment in one], other)


def _matched(phones: list[str], others: list[str]) -> dict[int, int]:
    """Return {index in phones: index in others} of what both have in the same order."""
    blocks = SequenceMatcher(None, phones, others, autojunk=False).get_matching_blocks()
    return {block.a + i: block.b + i for block in blocks for i in range(block.size)}


def summary(boundaries: Iterable[Boundary]) -> dict[str, Any]:
    """Return count, median, 95 % and mean of the error in ms, its median with sign, and shares within 10, 20, 50 ms."""
    late = 1000 * np.array([boundary.late_s for boundary in boundaries])
    if not len(late):
        return {"count": 0}
    size = np.abs(late)
    return {
        "count": len(late),
        "median_ms": float(np.median(size)),
        "p95_ms": float(np.percentile(size, 95)),
        "mean_ms": float(size.mean()),
        "late_ms": float(np.median(late)),
        **{f"within_{ms}_ms": float((size <= ms).mean()) for ms in (10, 20, 50)},
    }


def by_class(boundaries: Sequence[Boundary]) -> dict[str, dict[str, Any]]:
    """Return :func:`summary` for each pair of classes, as in "vowel > stop"."""
    groups: dict[str, list[Boundary]] = {}
    for boundary in boundaries:
        names = (CLASSES[CLASS_OF[phone]] for phone in (boundary.before, boundary.after))
        groups.setdefault(" > ".join(names), []).append(boundary)
    return {name: summary(groups[name]) for name in sorted(groups)}


def offsets(boundaries: Sequence[Boundary], weight: float = 20.0) -> np.ndarray:
    """Return the median lateness (5, 5) in seconds by the classes before and after, drawn to 0 where there are few."""
    table = np.zeros((len(CLASSES), len(CLASSES)))
    groups: dict[tuple[int, int], list[float]] = {}
    for boundary in boundaries:
        groups.setdefault((CLASS_OF[boundary.before], CLASS_OF[boundary.after]), []).append(boundary.late_s)
    for place, late in groups.items():
        table[place] = np.median(late) * len(late) / (len(late) + weight)
    return table


def purity(units: np.ndarray, phones: np.ndarray) -> dict[str, float]:
    """Return how well ``units`` (N,) tell ``phones`` (N,), both numbers of a class for each frame.

    ``purity`` is the share of frames whose phone is the commonest of their unit, ``inverse`` the share whose unit is
    the commonest of their phone, and ``nmi`` the mutual information over the mean of the two entropies.
    """
    table = np.zeros((units.max() + 1, phones.max() + 1))
    np.add.at(table, (units, phones), 1)
    share = table / table.sum()
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    there = share > 0
    mutual = float((share[there] * np.log(share[there] / np.outer(rows, columns)[there])).sum())
    entropy = [-float((p[p > 0] * np.log(p[p > 0])).sum()) for p in (rows, columns)]
    return {
        "purity": float(share.max(axis=1).sum()),
        "inverse": float(share.max(axis=0).sum()),
        "nmi": 2 * mutual / max(sum(entropy), 1e-12),
    }
