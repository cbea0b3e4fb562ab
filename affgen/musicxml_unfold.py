"""The bars of a MusicXML song in the order they are sung, and the score they make.

Positions are counted in ticks so fine that the divisions of all common programs are whole numbers of them.
Source: W3C MusicXML 4.0 (https://www.w3.org/2021/06/musicxml40/): barlines, repeats, endings and ``<sound>``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter

from affgen.musicxml_file import Damage
from affgen.musicxml_write import LEVELS, MAX_BARS
from affgen.score import MAX_BEATS, Dynamic, Marker, Meter, Note, Score, Tempo

TICKS = 2**10 * 3**3 * 5**2 * 7 * 11  # of a quarter-note beat
SLACK = TICKS // 100  # two notes may overlap so little: durations are rounded by some programs
MAX_NOTES = 200_000

MF = float(LEVELS["mf"])  # how loud it is where nothing is said
UNMARKED_TEMPO = 120.0
WEDGE_STEP = 16.0  # what a wedge changes if no mark says so: about one mark
WEDGE_REACH = TICKS  # how far behind the end of a wedge the mark may stand that it leads to
STOP, MARK, CRESCENDO, DIMINUENDO = range(4)  # what is said of loudness, in the order it counts at one tick

Said = tuple[int, int, float]  # tick, kind, level of a mark
Syllables = dict[int, str]  # by verse


@dataclass(slots=True)
class BarNote:
    """A note as it stands in its bar: ``start`` and ``length`` in ticks, ``name`` for messages."""

    start: int
    length: int
    pitch: int
    velocity: int
    lyrics: Syllables
    ties: bool  # to the note after it
    name: str


@dataclass(slots=True)
class Bar:
    """What all parts together say of a bar; positions in ticks from its start."""

    length: int = 0  # of the longest part that sounds in it
    silence: int = 0  # of the shortest that does not: some programs write rests longer than their bar
    meter: tuple[int, int] = (4, 4)
    metered: bool = False  # a meter is written in this bar
    tempo: float = UNMARKED_TEMPO  # in force at its start
    tempos: dict[int, float] = field(default_factory=dict)
    markers: dict[tuple[int, str], None] = field(default_factory=dict)  # an ordered set: every part may repeat them
    forward: bool = False
    times: int = 0  # how often a section is sung that ends here
    endings: frozenset[int] = frozenset()
    last_ending: int = 0  # of the row of endings it belongs to
    signs: dict[str, str] = field(default_factory=dict)  # dacapo, segno, coda ...: the label


@dataclass(slots=True)
class Line:
    """One voice: its notes, and what is said of its loudness as (tick, kind, level), by bar."""

    notes: dict[int, list[BarNote]]
    loudness: dict[int, list[Said]]

    def verse(self) -> int | None:
        """Return the number of the first verse; None if there are no lyrics."""
        return min((verse for bar in self.notes.values() for note in bar for verse in note.lyrics), default=None)


def unfold(bars: list[Bar], line: Line) -> Score:
    """Put the bars of ``line`` in the order they are sung and return their score, 480 ticks per beat.

    Raises :class:`Damage` for notes at once, no notes, and what comes to too many bars, notes or beats.
    """
    _carry(bars)
    at, since, meter, tempo = 0, 0, (0, 0), UNMARKED_TEMPO
    meters: list[Meter] = []
    tempos: list[Tempo] = []
    markers: list[Marker] = []
    notes: list[tuple[int, BarNote]] = []
    loudness: list[Said] = []
    for index in _order(bars):
        bar = bars[index]
        end = at + bar.length  # what is said with an offset counts within its bar
        if end > MAX_BEATS * TICKS:
            raise Damage("it is too long with its repeats", f"up to {MAX_BEATS:,} beats")
        if bar.metered or bar.meter != meter or (at - since) % _ticks(bar.meter):
            since, meter = at, bar.meter
            meters.append(Meter(at / TICKS, *meter))
        if bar.tempo != tempo:  # a jump undoes what came since
            tempos.append(Tempo(at / TICKS, bar.tempo))
        tempos += [Tempo(min(at + tick, end) / TICKS, bpm) for tick, bpm in bar.tempos.items()]
        tempo = _tempo_after(bar)
        markers += [Marker(min(at + tick, end) / TICKS, text) for tick, text in bar.markers]
        notes += [(at + note.start, note) for note in sorted(line.notes.get(index, ()), key=attrgetter("start"))]
        loudness += [(min(at + tick, end), kind, level) for tick, kind, level in line.loudness.get(index, ())]
        at = end
        if max(len(tempos), len(markers), len(notes), len(loudness)) > MAX_NOTES:
            raise Damage("it has too much in its repeats", f"up to {MAX_NOTES:,} notes and as many signs")
    dynamics = tuple(Dynamic(tick / TICKS, level) for tick, level in _levels(loudness))
    return Score(tuple(_join(notes, line.verse())), tuple(tempos), tuple(meters), tuple(markers), dynamics=dynamics)


def _tempo_after(bar: Bar) -> float:
    return bar.tempos[max(bar.tempos)] if bar.tempos else bar.tempo


def _carry(bars: list[Bar]) -> None:
    """Say in every bar what holds there from bars before it, and which endings belong together."""
    meter, tempo = (4, 4), UNMARKED_TEMPO
    for bar in bars:
        meter = bar.meter = bar.meter if bar.metered else meter
        bar.length = bar.length or bar.silence or _ticks(meter)
        bar.tempo = tempo
        tempo = _tempo_after(bar)
    for numbered, group in groupby(bars, key=lambda bar: bool(bar.endings)):
        row = list(group) if numbered else []
        last = max((max(bar.endings) for bar in row), default=0)
        for bar in row:
            bar.last_ending = last


def _ticks(meter: tuple[int, int]) -> int:
    return 4 * TICKS * meter[0] // meter[1]


def _order(bars: list[Bar]) -> list[int]:
    """Return the numbers of the bars as they are sung.

    After a D.C. or D.S. no section is repeated and of endings the last is sung, as musicians have it; every such mark
    counts once.
    """
    places: dict[tuple[str, str | None], int] = {}  # of signs by label, and of the first of each kind
    for index, bar in enumerate(bars):
        for sign, label in bar.signs.items():
            places.setdefault((sign, label), index)
            places.setdefault((sign, None), index)
    order: list[int] = []
    jumps: set[int] = set()
    at, begin, turn = 0, 0, 1  # the section that may be repeated begins at `begin`
    for _ in range(MAX_BARS + 1):
        if at >= len(bars):
            return order
        bar = bars[at]
        if at > begin and (bar.forward or (bars[at - 1].endings and not bar.endings)):
            begin, turn = at, 1
        if bar.endings and (bar.last_ending if jumps else turn) not in bar.endings:
            at += 1
            continue
        order.append(at)
        coda = _place(places, bar, "tocoda", "coda") if jumps else 0
        if bar.times and not jumps and turn < max(bar.times, bar.last_ending):
            at, turn = begin, turn + 1
        elif jumps and "fine" in bar.signs:
            return order
        elif coda > at:
            at = coda
        elif at not in jumps and ("dacapo" in bar.signs or "dalsegno" in bar.signs):
            jumps.add(at)
            at = _place(places, bar, "dalsegno", "segno")
        else:
            at += 1
            if bar.times:
                begin, turn = at, 1
    raise Damage("it is too long with its repeats", f"up to {MAX_BARS:,} bars")


def _place(places: dict[tuple[str, str | None], int], bar: Bar, sign: str, aim: str) -> int:
    """Return the bar that ``sign`` of ``bar`` points to: the ``aim`` of its label or else the first; 0 for none."""
    if sign not in bar.signs:
        return 0
    return places.get((aim, bar.signs[sign]), places.get((aim, None), 0))


def _join(placed: list[tuple[int, BarNote]], verse: int | None) -> list[Note]:
    """Make notes of bar notes in order, one of those that are tied; one with a syllable of its own stays apart."""
    spans: list[tuple[int, int, BarNote]] = []
    ties = False
    for at, note in placed:
        start, end, first = spans[-1] if spans else (-1, 0, note)
        if at < end - SLACK or at <= start:
            raise Damage(f"{note.name} sounds together with another", "one note at a time, as a voice sings")
        if ties and note.pitch == first.pitch and verse not in note.lyrics and at <= end + SLACK:
            spans[-1] = start, at + note.length, first
        else:
            if spans:
                spans[-1] = start, min(end, at), first
            spans.append((at, at + note.length, note))
        ties = note.ties
    if not spans:
        raise Damage("it has no notes to sing")
    return [
        Note(start / TICKS, (end - start) / TICKS, first.pitch, first.velocity, first.lyrics.get(verse or 0, ""))
        for start, end, first in spans
    ]


def _levels(said: list[Said]) -> list[tuple[int, float]]:
    """Turn marks and wedges into (tick, level): a mark is a step, a wedge leads to the mark that follows it."""
    said = sorted(said, key=itemgetter(0, 1))
    # for each of them: the next mark, and whether the next wedge that is spoken of is one that ends
    ahead: list[tuple[tuple[int, float] | None, bool]] = []
    mark: tuple[int, float] | None = None
    ends = False
    for tick, kind, level in reversed(said):
        ahead.append((mark, ends))
        mark, ends = ((tick, level), ends) if kind == MARK else (mark, kind == STOP)
    points: list[tuple[int, float]] = []
    now, wedge = MF, 0  # the level, and 1 or -1 within a wedge
    for (tick, kind, level), (mark, ends) in zip(said, reversed(ahead), strict=True):
        if kind == MARK:
            if not wedge and level != now and (tick or points):
                points.append((tick, now))  # a step: until here it was as before
            now, wedge = level, wedge if ends else 0
        else:
            if wedge and mark and mark[0] <= tick + WEDGE_REACH and (mark[1] - now) * wedge > 0:
                now = mark[1]
            elif wedge:
                now = min(max(now + wedge * WEDGE_STEP, 1.0), 127.0)
            elif kind == STOP:
                continue
            wedge = {STOP: 0, CRESCENDO: 1, DIMINUENDO: -1}[kind]
        points.append((tick, now))
    return [point for point, _ in groupby(points)]
