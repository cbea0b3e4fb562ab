"""Scores of one voice as MusicXML, and the tables of note values and dynamics that its reader shares.

Source: W3C MusicXML 4.0 (https://www.w3.org/2021/06/musicxml40/), score-partwise.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, zip_longest
from operator import attrgetter
from pathlib import Path
from xml.sax.saxutils import escape

from affgen.errors import AffgenError
from affgen.files import atomic_write
from affgen.score import Dynamic, Marker, Meter, Note, Score, Tempo

MAX_BARS = 100_000
SLOWEST, FASTEST = 1.0, 10_000.0
"""Accepted tempos, in quarter notes per minute."""

FORTE = 0.9
"""MusicXML counts loudness in percent of a MIDI velocity of 90: the velocity of one percent."""

NOTE_TYPES = {"maxima": 32.0, "long": 16.0, "breve": 8.0, "whole": 4.0, "half": 2.0, "quarter": 1.0, "eighth": 0.5}
NOTE_TYPES |= {f"{n}th": 4 / n for n in (16, 64, 128, 256, 512, 1024)} | {"32nd": 1 / 8}
"""Length of every undotted note value in quarter-note beats."""

LEVELS = {"pppppp": 1, "ppppp": 5, "pppp": 10, "ppp": 16, "pp": 33, "p": 49, "mp": 64, "mf": 80}
LEVELS |= {"f": 96, "ff": 112, "fff": 126, "ffff": 127, "fffff": 127, "ffffff": 127}
"""MIDI velocity of the dynamics marks, as MuseScore has them."""

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" \
"http://www.musicxml.org/dtds/partwise.dtd">
<score-partwise version="4.0">
<part-list><score-part id="P1"><part-name>Voice</part-name></score-part></part-list>
<part id="P1">
"""
TAIL = "</part>\n</score-partwise>\n"

GRIDS = (48, 10_080)  # divisions of a beat: bars of all meters are whole in both, the second holds fifths and sevenths
STEPS = ("C", "C", "D", "D", "E", "F", "F", "G", "G", "A", "A", "B")
SHARP = (1, 3, 6, 8, 10)
TUPLETS = ((1, 1), (3, 2), (5, 4), (7, 4))
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def write_musicxml(score: Score, path: str | Path) -> None:
    """Write ``score`` to ``path`` (uncompressed) as :func:`musicxml_bytes` has it, whole or not at all.

    Raises :class:`AffgenError` as that does, and where ``path`` cannot be written. Source: W3C MusicXML 4.0.
    """
    atomic_write(path, musicxml_bytes(score))


def musicxml_bytes(score: Score) -> bytes:
    """Return ``score`` as a MusicXML file of one part: notes with lyrics, tempo, meter, dynamics, markers.

    Equal scores give equal bytes, and ``read_musicxml(musicxml_bytes(score)) == score`` for what MusicXML holds
    (controls, texts, phonemes and edits are left out, 480 ticks per beat are read) where positions are multiples of
    1/48 beat or 1/``ticks_per_beat``, dynamics begin at beat 0 without repeating themselves and have at most four
    decimals, and texts have single blanks and no second hyphen at their end. Other positions are rounded to 1/10080.
    Raises :class:`AffgenError` for notes that overlap, pitches below 12, tempos beyond 1..10,000 or 100,000 bars.
    Source: W3C MusicXML 4.0.
    """
    grid = _grid(score)
    directions = deque(_directions(score, grid))
    bars = _bars(score, grid, max(_tick(score.end, grid), directions[-1].at))  # there always is a tempo
    filled = _pieces(_spans(score, grid, bars[-1].stop), bars, grid)
    lines: list[str] = []
    for number, (bar, pieces) in enumerate(zip(bars, filled, strict=True), 1):
        lines.append(f'<measure number="{number}"' + (' implicit="yes">' if bar.cut else ">"))
        lines += _attributes(bar.meter, grid if number == 1 else None)
        for piece in pieces:
            while directions and directions[0].at < piece.stop:
                lines.append(_placed(directions.popleft(), piece.start))
            lines.append(_note(piece))
        if number == len(bars):  # what lies on the last bar line
            lines += [_placed(direction, bar.stop) for direction in directions]
        lines.append("</measure>")
    return (HEAD + "\n".join(lines) + "\n" + TAIL).encode()


def _tick(beat: float, grid: int) -> int:
    return round(beat * grid)


def _grid(score: Score) -> int:
    """Return the divisions of a beat: the first of a few in which every position is whole, else the finest."""
    placed: tuple[Tempo | Meter | Marker | Dynamic, ...]
    placed = (*score.tempos, *score.meters, *score.markers, *score.dynamics)
    beats = {item.beat for item in placed}
    beats |= {beat for note in score.notes for beat in (note.onset, note.end)}
    for grid in (GRIDS[0], math.lcm(GRIDS[0], score.ticks_per_beat)):
        if all(abs(beat * grid - _tick(beat, grid)) < 1e-6 for beat in beats):
            return grid
    return GRIDS[1]


# --- bars and what fills them ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bar:
    start: int
    stop: int
    meter: Meter | None  # where one is given
    cut: bool  # the next meter comes before the bar is full


@dataclass(frozen=True, slots=True)
class _Span:
    """A note, or the silence between two, from ``start`` to ``stop``."""

    start: int
    stop: int
    note: Note | None = None
    lyric: str = ""  # as XML


@dataclass(frozen=True, slots=True)
class _Piece:
    """The part of a span that one sign stands for: ``value`` is its type, dots, notes per normal notes."""

    start: int
    stop: int
    span: _Span
    value: tuple[str, int, int, int] | None
    whole_bar: bool


@dataclass(frozen=True, slots=True)
class _Direction:
    """What is said at a tick: ``sign`` as it is read, ``sound`` as it is played, both XML."""

    at: int
    sign: str
    sound: str = ""


def _bars(score: Score, grid: int, last: int) -> list[_Bar]:
    """Lay out bars by the meters up to ``last``."""
    bars: list[_Bar] = []
    stops = [_tick(meter.beat, grid) for meter in score.meters[1:]]
    for meter, following in zip(score.meters, [*stops, None], strict=True):
        start, length = _tick(meter.beat, grid), round(meter.bar * grid)
        end = max(last, start + 1) if following is None else following
        for at in range(start, end, length):
            stop = at + length if following is None else min(at + length, following)
            bars.append(_Bar(at, stop, meter if at == start else None, stop < at + length))
            if len(bars) > MAX_BARS:
                raise AffgenError(f"a score of more than {MAX_BARS:,} bars; accepted are up to that many")
    return bars


def _spans(score: Score, grid: int, end: int) -> list[_Span]:
    """Put notes and silences in one row from 0 to ``end``."""
    spans: list[_Span] = []
    at = 0
    for number, (note, lyric) in enumerate(zip(score.notes, _lyrics(score.notes), strict=True), 1):
        start = _tick(note.onset, grid)
        if start < at:
            raise AffgenError(
                f"note {number} starts at beat {note.onset:g} before the note before it ends; "
                "accepted for MusicXML: one voice, one note at a time"
            )
        if note.pitch < 12:
            raise AffgenError(f"note {number} has pitch {note.pitch}; accepted for MusicXML: 12..127, C0 to G9")
        if start > at:
            spans.append(_Span(at, start))
        at = max(start + 1, _tick(note.end, grid))
        spans.append(_Span(start, at, note, lyric))
    return [*spans, _Span(at, end)] if end > at else spans


def _lyrics(notes: tuple[Note, ...]) -> Iterator[str]:
    """Yield the lyric of every note as XML: whether its word goes on, and whether further notes are sung to it."""
    inside = False
    for note, following in zip_longest(notes, notes[1:]):
        text = _clean(note.lyric)
        if not text:
            yield ""
            continue
        goes_on = text.endswith("-") and text.strip("-") != ""
        syllabic = ("middle" if goes_on else "end") if inside else ("begin" if goes_on else "single")
        inside = goes_on
        extend = "<extend/>" if following and not _clean(following.lyric) else ""
        text = escape(text[:-1] if goes_on else text)
        yield f'<lyric number="1"><syllabic>{syllabic}</syllabic><text>{text}</text>{extend}</lyric>'


def _clean(text: str) -> str:
    return " ".join(FORBIDDEN.sub("", text).split())


def _pieces(spans: list[_Span], bars: list[_Bar], grid: int) -> Iterator[list[_Piece]]:
    """Yield the signs of every bar: spans cut at bar lines and into values that can be written."""
    values = _values(grid)
    longest_first = sorted((ticks for ticks, value in values.items() if value[1] < 2 and value[2] < 5), reverse=True)
    waiting = deque(spans)
    for bar in bars:
        pieces: list[_Piece] = []
        while waiting and waiting[0].start < bar.stop:
            span = waiting[0]
            at, stop = max(span.start, bar.start), min(span.stop, bar.stop)
            while at < stop:
                left = stop - at
                whole = span.note is None and left == bar.stop - bar.start
                fitting = left if whole or left in values else next((t for t in longest_first if t < left), left)
                pieces.append(_Piece(at, at + fitting, span, None if whole else values.get(fitting), whole))
                at += fitting
            if span.stop > bar.stop:
                break
            waiting.popleft()
        yield pieces


def _values(grid: int) -> dict[int, tuple[str, int, int, int]]:
    """Return what can be written as one sign: ticks -> type, dots, notes per normal notes; the simplest way counts."""
    values: dict[int, tuple[str, int, int, int]] = {}
    for (actual, normal), dots in ((TUPLETS[0], 0), (TUPLETS[0], 1), (TUPLETS[0], 2), *((t, 0) for t in TUPLETS[1:])):
        for name, beats in NOTE_TYPES.items():
            ticks = Fraction(beats) * grid * normal / actual * (2 - Fraction(1, 2**dots))
            if ticks.denominator == 1:
                values.setdefault(int(ticks), (name, dots, actual, normal))
    return values


# --- elements --------------------------------------------------------------------------------------------------------


def _attributes(meter: Meter | None, grid: int | None) -> list[str]:
    """Return the attributes of a bar, if it has any; ``grid`` is None but in the first."""
    time = clef = head = ""
    if meter is not None:
        time = f"<time><beats>{meter.numerator}</beats><beat-type>{meter.denominator}</beat-type></time>"
    if grid is not None:
        head = f"<divisions>{grid}</divisions><key><fifths>0</fifths></key>"
        clef = "<clef><sign>G</sign><line>2</line></clef>"
    return [f"<attributes>{head}{time}{clef}</attributes>"] if head or time else []


def _note(piece: _Piece) -> str:
    """Write one sign: a rest, a note, or a part of one with its ties."""
    note, span = piece.span.note, piece.span
    duration = f"<duration>{piece.stop - piece.start}</duration>"
    value = ""
    if piece.value is not None:
        name, dots, actual, normal = piece.value
        value = f"<type>{name}</type>" + "<dot/>" * dots
        if actual != normal:
            value += f"<time-modification><actual-notes>{actual}</actual-notes>"
            value += f"<normal-notes>{normal}</normal-notes></time-modification>"
    if note is None:
        rest = '<rest measure="yes"/>' if piece.whole_bar else "<rest/>"
        return f"<note>{rest}{duration}<voice>1</voice>{value}</note>"
    octave, step = divmod(note.pitch, 12)
    alter = "<alter>1</alter>" if step in SHARP else ""
    pitch = f"<pitch><step>{STEPS[step]}</step>{alter}<octave>{octave - 1}</octave></pitch>"
    kinds = ["stop"] * (piece.start > span.start) + ["start"] * (piece.stop < span.stop)
    ties = "".join(f'<tie type="{kind}"/>' for kind in kinds)
    tied = "".join(f'<tied type="{kind}"/>' for kind in kinds)
    notations = f"<notations>{tied}</notations>" if tied else ""
    lyric = span.lyric if piece.start == span.start else ""
    loud = "" if note.velocity == LEVELS["mf"] else f' dynamics="{_decimal(round(note.velocity / FORTE, 6))}"'
    return f"<note{loud}>{pitch}{duration}{ties}<voice>1</voice>{value}{notations}{lyric}</note>"


def _directions(score: Score, grid: int) -> list[_Direction]:
    """Return tempos, markers and dynamics in the order of their ticks."""
    found: list[_Direction] = []
    for tempo in score.tempos:
        if not SLOWEST <= tempo.bpm <= FASTEST:
            raise AffgenError(
                f"tempo of {tempo.bpm} beats per minute at beat {tempo.beat:g}; "
                f"accepted for MusicXML: {SLOWEST:g} to {FASTEST:g}"
            )
        bpm = _decimal(tempo.bpm)
        sign = f"<metronome><beat-unit>quarter</beat-unit><per-minute>{bpm}</per-minute></metronome>"
        found.append(_Direction(_tick(tempo.beat, grid), sign, f'<sound tempo="{bpm}"/>'))
    for marker in score.markers:
        if text := _clean(marker.text):
            found.append(_Direction(_tick(marker.beat, grid), f"<rehearsal>{escape(text)}</rehearsal>"))
    return sorted([*found, *_dynamics(score.dynamics, grid)], key=attrgetter("at"))


def _dynamics(points: tuple[Dynamic, ...], grid: int) -> Iterator[_Direction]:
    """Yield marks and wedges: what a mark says by itself, that the level before it held, is not said twice."""
    if points and points[0].beat > 0:
        points = (Dynamic(0.0, points[0].level), *points)
    levels = [point.level for point in points]
    ticks = [_tick(point.beat, grid) for point in points]
    wedged = [j > i and a != b for (i, j), (a, b) in zip(pairwise(ticks), pairwise(levels), strict=True)]
    for index, (at, level) in enumerate(zip(ticks, levels, strict=True)):
        if index and wedged[index - 1]:
            yield _Direction(at, '<wedge type="stop"/>')
        following = levels[index + 1] if index + 1 < len(levels) else level
        implied = index > 0 and levels[index - 1] == level != following and ticks[index + 1] == at
        if not implied:
            sign = min(LEVELS, key=lambda name: abs(LEVELS[name] - level))
            sound = f'<sound dynamics="{_decimal(round(level / FORTE, 6))}"/>'
            yield _Direction(at, f"<dynamics><{sign}/></dynamics>", sound)
        if index < len(wedged) and wedged[index]:
            yield _Direction(at, f'<wedge type="{"crescendo" if following > level else "diminuendo"}"/>')


def _placed(direction: _Direction, at: int) -> str:
    """Write a direction that stands at ``at`` and holds from its own tick on."""
    offset = f'<offset sound="yes">{direction.at - at}</offset>' if direction.at > at else ""
    return f"<direction><direction-type>{direction.sign}</direction-type>{offset}{direction.sound}</direction>"


def _decimal(value: float) -> str:
    """Write equal numbers alike, whether they are whole numbers or not."""
    return repr(float(value)).removesuffix(".0")
