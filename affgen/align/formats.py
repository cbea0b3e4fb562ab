"""Segments in files: CTM (NIST, Kaldi) for many recordings, TextGrid (Praat) for one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from affgen.align.segments import Segment, check_order
from affgen.errors import AffgenError, DataError
from affgen.files import atomic_write

MAX_BYTES = 64 << 20
_INTERVAL = re.compile(
    r"intervals\s*\[\d+\]:\s*xmin\s*=\s*(\S+)\s*xmax\s*=\s*(\S+)\s*text\s*=\s*\"((?:[^\"]|\"\")*)\"", re.DOTALL
)
_TIER = re.compile(r"item\s*\[\d+\]:")
_NAME = re.compile(r"name\s*=\s*\"((?:[^\"]|\"\")*)\"")


def write_ctm(path: str | Path, alignments: Mapping[str, Sequence[Segment]]) -> None:
    """Write lines of ``UTT 1 START LENGTH PHONE`` in seconds, for {utterance: segments}, whole or not at all.

    Raises :class:`AffgenError` for names and phones with blanks and for segments out of order.
    """
    lines = []
    for name, segments in alignments.items():
        check_order(segments, f"{path}: {name}")
        for segment in segments:
            if not all(re.fullmatch(r"\S+", text) for text in (name, segment.phone)):
                raise AffgenError(f"{path}: {name!r} {segment.phone!r}: accepted: names and phones without blanks")
            start, end = round(segment.start_s, 4), round(segment.end_s, 4)  # so that segments still meet when read
            lines.append(f"{name} 1 {start:.4f} {end - start:.4f} {segment.phone}\n")
    atomic_write(path, "".join(lines))


def read_ctm(path: str | Path) -> dict[str, list[Segment]]:
    """Return {utterance: segments} of a CTM file; a column of confidence is passed over.

    Raises :class:`DataError` for a line of another form and for segments out of order.
    """
    found: dict[str, list[Segment]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        where = f"{path} line {number}"
        if len(fields) not in (5, 6):
            raise DataError(f"{where}: {line[:60]!r}; accepted: UTT CHANNEL START LENGTH PHONE")
        start, length = _time(fields[2], where), _time(fields[3], where)
        found.setdefault(fields[0], []).append(Segment(start, start + length, fields[4]))
    for name, segments in found.items():
        check_order([Segment(round(s.start_s, 4), round(s.end_s, 4), s.phone) for s in segments], f"{path}: {name}")
    return found


def write_textgrid(path: str | Path, segments: Sequence[Segment], tier: str = "phones") -> None:
    """Write one interval tier of ``segments``, gaps between them as empty intervals, whole or not at all.

    Silence becomes an empty interval, as Praat and the Montreal Forced Aligner have it. Raises :class:`AffgenError`
    for no segments and for segments out of order.
    """
    check_order(segments, str(path))
    if not segments:
        raise AffgenError(f"{path}: there are no segments to write")
    rows: list[tuple[float, float, str]] = []
    at = 0.0
    for segment in segments:
        if segment.start_s > at + 1e-9:
            rows.append((at, segment.start_s, ""))
        rows.append((segment.start_s, segment.end_s, "" if segment.phone == "sil" else segment.phone))
        at = segment.end_s
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {at:.6f}"]
    lines += ["tiers? <exists>", "size = 1", "item []:", "    item [1]:", '        class = "IntervalTier"']
    lines += [f'        name = "{_quoted(tier)}"', "        xmin = 0", f"        xmax = {at:.6f}"]
    lines.append(f"        intervals: size = {len(rows)}")
    for number, (start, end, phone) in enumerate(rows, 1):
        lines += [f"        intervals [{number}]:", f"            xmin = {start:.6f}", f"            xmax = {end:.6f}"]
        lines.append(f'            text = "{_quoted(phone)}"')
    atomic_write(path, "\n".join(lines) + "\n")


def read_textgrid(path: str | Path, tier: str | None = "phones") -> list[Segment]:
    """Return the intervals of a tier (None: the first) of a TextGrid in Praat's long form; empty ones are ``sil``.

    Raises :class:`DataError` for another format, a tier that is not there, and intervals out of order.
    """
    text = _text(path)
    if "ooTextFile" not in text[:200] or "intervals [" not in text:
        raise DataError(f"{path}: is no TextGrid with intervals; accepted: the long text form that Praat saves")
    parts = _TIER.split(text)[1:]
    names = [match[1] if (match := _NAME.search(part)) else "" for part in parts]
    if tier is not None and tier not in names:
        raise DataError(f"{path}: has no tier {tier!r}; accepted: {', '.join(names)[:200]}")
    part = parts[0 if tier is None else names.index(tier)]
    found = []
    for start, end, label in _INTERVAL.findall(part):
        phone = label.replace('""', '"').strip() or "sil"
        found.append(Segment(_time(start, str(path)), _time(end, str(path)), phone))
    check_order(found, str(path))
    return found


def _text(path: str | Path) -> str:
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes; accepted: up to {MAX_BYTES}")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:  # Praat writes UTF-16 where a label is not ASCII
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text; accepted: UTF-8 or UTF-16 with a byte order mark") from error


def _time(value: str, where: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < math.inf:
        raise DataError(f"{where}: the time {value[:30]!r}; accepted: seconds from 0")
    return found


def _quoted(text: str) -> str:
    return text.replace('"', '""')
