"""Labels that came with a corpus: the phone marks of EmoDB (``phones/*.lablaut``, written by ESPS xlabel).

A line is ``START_SECONDS COLOUR LABEL``. A label begins with a SAMPA phone, or with nothing where only the manner of
the phone before changes (``+lar``: creak). ``t``, ``!t`` and ``tasp`` are closure, burst and aspiration of one stop,
``_t`` a closure out of silence, ``(`` a pause and ``.`` the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from affgen.align.phones import SILENCE, from_sampa
from affgen.align.segments import Segment
from affgen.errors import AffgenError, DataError

_LINE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s+-?[0-9]+ ?(.*)")
_STOP = re.compile(r"[_!]?([ptkbdg])(?:asp)?(?:[+-].*)?")
_PAUSE = re.compile(r"[.(_].*")


@dataclass(frozen=True)
class Mark:
    """What one label marks: ``phones`` from ``start_s`` to ``end_s``; two for a vowel with a vocalised r ("i6")."""

    start_s: float
    end_s: float
    phones: tuple[str, ...]


def read_lablaut(path: str | Path) -> list[Mark]:
    """Return the marks of a label file in order of time, pauses as silence, the parts of a stop as one.

    Raises :class:`DataError` for a file that holds no marks, with marks out of order or with an unknown symbol.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    _, head, body = text.partition("\n#")
    marks = list(_marks(body if head else text, path))
    if len(marks) < 2:
        raise DataError(f"{path}: holds no marks; accepted: lines of START COLOUR LABEL after a line '#'")
    return [Mark(start, end, phones) for (start, phones), (end, _) in pairwise(marks)]


def to_segments(marks: Sequence[Mark]) -> list[Segment]:
    """Return one segment for each phone; a mark of two phones is cut in the middle."""
    found = []
    for mark in marks:
        step = (mark.end_s - mark.start_s) / len(mark.phones)
        edges = [mark.start_s + i * step for i in range(len(mark.phones))] + [mark.end_s]
        found += [Segment(edges[i], edges[i + 1], phone) for i, phone in enumerate(mark.phones)]
    return found


def label_file(folder: str | Path, utterance: str) -> Path | None:
    """Return the label file in ``folder`` of the utterance ``emodb-SPEAKER-NAME``, or None."""
    name = utterance.rpartition("-")[2]
    return next((p for p in (Path(folder) / f"{name}{end}.lablaut" for end in ("xx", "")) if p.is_file()), None)


def _marks(body: str, path: Path) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Yield (start, phones) of each phone, parts of a stop as one, and the end as silence."""
    last, stop = -1.0, ""
    for line in body.splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        time, label = float(match[1]), match[2]
        if time < last:
            raise DataError(f"{path}: the mark at {time:g} s comes after one at {last:g} s; accepted: marks in order")
        last = time
        symbol = "" if label[:1].isspace() else label.split()[0] if label.split() else ""
        if not symbol or symbol[0] in "+-" or symbol == "hoe":
            continue
        plosive = _STOP.fullmatch(symbol)
        continued = (bool(plosive) and symbol[0] == "!") or "asp" in symbol or "gas" in symbol
        if symbol == "!" or (continued and stop and (not plosive or _like(plosive[1], stop))):
            continue
        stop = plosive[1] if plosive else ""
        yield time, _phones(symbol, stop, path)


def _like(one: str, other: str) -> bool:
    """Whether two stops have the same place: a "t" may be released as "!d"."""
    return {one, other} in ({"p", "b"}, {"t", "d"}, {"k", "g"}) or one == other


def _phones(symbol: str, stop: str, path: Path) -> tuple[str, ...]:
    if _PAUSE.fullmatch(symbol) and not stop:
        return (SILENCE,)
    try:
        return from_sampa(stop or re.split(r"(?<=.)[+-]", symbol)[0])
    except AffgenError as error:
        raise DataError(f"{path}: {error}") from error
