"""MusicXML songs in and out: what a voice sings, with its syllables, dynamics and repeats, as a :class:`Score`.

The reader is our own because no library has all that a singer needs (syllables, melismas, dynamics, repeats unfolded)
and because the limits must hold inside it: it takes one bar at a time and keeps nothing but what it reads of it.
Source: W3C MusicXML 4.0 (https://www.w3.org/2021/06/musicxml40/), score-partwise.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder

from affgen.errors import AffgenError
from affgen.musicxml_file import Damage, feed_score, load, shown
from affgen.musicxml_unfold import (
    CRESCENDO,
    DIMINUENDO,
    MARK,
    MAX_NOTES,
    STOP,
    TICKS,
    Bar,
    BarNote,
    Line,
    Said,
    Syllables,
    unfold,
)
from affgen.musicxml_write import FASTEST, FORTE, LEVELS, MAX_BARS, NOTE_TYPES, SLOWEST
from affgen.musicxml_write import musicxml_bytes as musicxml_bytes
from affgen.musicxml_write import write_musicxml as write_musicxml
from affgen.score import MAX_BEATS, Score

MAX_HOURS = 6
MAX_PARTS = 500
MAX_DEPTH = 100
MAX_BAR_ELEMENTS = 100_000

# marks that begin with an accent of one note: the level that comes after it
LEVEL_OF = LEVELS | {"fp": LEVELS["p"], "sfp": LEVELS["p"], "sfpp": LEVELS["pp"], "pf": LEVELS["f"], "n": 1}
WEDGES = {"crescendo": CRESCENDO, "diminuendo": DIMINUENDO, "stop": STOP}
SIGNS = ("dacapo", "dalsegno", "segno", "tocoda", "coda", "fine")
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

OUTER = ("score-partwise", "part", "measure")
READ = {
    *("note", "chord", "grace", "cue", "rest", "pitch", "step", "alter", "octave", "duration", "tie", "voice", "staff"),
    *("notations", "tied", "lyric", "syllabic", "text", "backup", "forward", "attributes", "divisions", "time"),
    *("beats", "beat-type", "transpose", "chromatic", "octave-change", "barline", "repeat", "ending", "direction"),
    *("direction-type", "offset", "sound", "metronome", "beat-unit", "beat-unit-dot", "per-minute", "rehearsal"),
    *("wedge", "dynamics", *LEVEL_OF),
}


def read_musicxml(source: str | Path | bytes, part: int | None = None) -> Score:
    """Read one voice of a MusicXML file (a path, or its bytes; compressed or not) into a :class:`Score`.

    ``part`` counts from 1; without it the first part with lyrics is read, or the first with notes where nobody sings.
    Of a part the first voice with lyrics is read, of lyrics the first verse there is. Tied notes become one; grace
    notes, cue notes and notes without pitch are left out; pitches are as they sound; repeats, endings, D.C., D.S., Fine
    and Coda are unfolded. Marks and wedges become ``dynamics`` (mf where nothing is said), rehearsal marks ``markers``.
    Raises :class:`AffgenError` in one line for anything else: damaged, by time instead of by parts, with a document
    type of its own, no notes, two notes at once, above 20 MB (unzipped 50 MB), 200,000 notes, 100,000 bars sung,
    100,000 beats or six hours. Source: W3C MusicXML 4.0.
    """
    name = "MusicXML data" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else load(Path(source))
    try:
        song = _Song()
        feed_score(data, _Bars(song))
        score = unfold(song.bars, song.line(part))
        if not score.duration_s <= MAX_HOURS * 3600:
            raise Damage(f"it lasts {score.duration_s / 3600:,.1f} hours", f"up to {MAX_HOURS} hours")
        return score
    except (Damage, AffgenError) as error:
        raise AffgenError(f"{name}: {error}") from None


class _Bars:
    """Builds one bar at a time for ``song`` to read; elements that are not read are not kept."""

    def __init__(self, song: _Song) -> None:
        self.song, self.builder = song, TreeBuilder()
        self.depth = self.skipped = self.kept = 0

    def start(self, tag: str, attributes: dict[str, str], /) -> None:
        """Open a part or a bar, or keep an element of a bar."""
        outside = self.depth < len(OUTER)
        if self.skipped or (tag != OUTER[self.depth] if outside else tag not in READ):
            if not self.depth:
                raise Damage(f"its root is {shown(tag)}", f"{OUTER[0]}, a score by parts")
            self.skipped += 1
            if self.skipped > MAX_DEPTH:
                raise Damage(f"its elements lie more than {MAX_DEPTH} deep in each other")
            return
        self.depth += 1
        if tag == "part":
            self.song.parts.append(_Part())
            if len(self.song.parts) > MAX_PARTS:
                raise Damage(f"it has more than {MAX_PARTS} parts")
        elif tag == "measure":
            self.builder, self.kept = TreeBuilder(), 0
        self.kept += 1
        if self.kept > MAX_BAR_ELEMENTS:
            raise Damage(f"bar {self.song.parts[-1].bars + 1} has more than {MAX_BAR_ELEMENTS:,} elements")
        if self.depth >= len(OUTER):
            self.builder.start(tag, attributes)

    def end(self, tag: str, /) -> None:
        """Close an element; a bar that is whole is read."""
        if self.skipped:
            self.skipped -= 1
            return
        if self.depth >= len(OUTER):
            self.builder.end(tag)
        if self.depth == len(OUTER):
            self.song.read(self.builder.close())
        self.depth -= 1

    def data(self, text: str, /) -> None:
        """Keep the text of what is kept."""
        if self.depth > len(OUTER) and not self.skipped:
            self.builder.data(text)


@dataclass(slots=True)
class _Part:
    """What was read of a part so far: its voices, and what its next bar begins with."""

    voices: dict[tuple[str, str], dict[int, list[BarNote]]] = field(default_factory=dict)
    loudness: dict[int, list[Said]] = field(default_factory=dict)
    bars: int = 0
    divisions: float = 0.0  # not given yet
    transpose: int = 0
    endings: frozenset[int] = frozenset()
    graces: dict[tuple[str, str], Syllables] = field(default_factory=dict)  # of grace notes, for the next note


class _Song:
    """All that was read: the bars, which the parts have in common, and the parts."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []
        self.parts: list[_Part] = []
        self.notes = 0

    def read(self, element: Element) -> None:
        """Add the next bar of the last part."""
        part = self.parts[-1]
        if part.bars == len(self.bars):
            self.bars.append(Bar())
        reader = _BarReader(part, self.bars[part.bars])
        part.bars += 1
        reader.read(element)
        self.notes += reader.notes
        if self.notes > MAX_NOTES or part.bars > MAX_BARS:
            raise Damage("it is too long", f"up to {MAX_NOTES:,} notes and {MAX_BARS:,} bars")

    def line(self, number: int | None) -> Line:
        """Return the voice to sing: of part ``number`` from 1, or of the first part that has lyrics."""
        if number is not None and not 1 <= number <= len(self.parts):
            raise Damage(f"part {number} is not among its {len(self.parts)}", f"parts 1 to {len(self.parts)}")
        parts = self.parts if number is None else [self.parts[number - 1]]
        lines = [Line(voice, part.loudness) for part in parts for voice in part.voices.values()]
        if not lines:
            raise Damage("it has no notes to sing")
        return next((line for line in lines if line.verse() is not None), lines[0])


class _BarReader:
    """Reads one bar of one part; the cursor is where the next note begins, in ticks from the start of the bar."""

    def __init__(self, part: _Part, bar: Bar) -> None:
        self.part, self.bar, self.index = part, bar, part.bars
        self.cursor = self.before = self.longest = self.notes = 0
        self.sounds = False
        self.name = f"bar {self.index + 1}"

    def read(self, element: Element) -> None:
        """Read all that the bar holds, in order."""
        self.bar.endings = self.part.endings or self.bar.endings
        for child in element:
            match child.tag:
                case "note":
                    self.note(child)
                case "backup":
                    self.cursor = max(0, self.cursor - self.ticks(child, self.name))
                case "forward":
                    self.move(self.ticks(child, self.name))
                case "attributes":
                    self.attributes(child)
                case "direction":
                    self.direction(child)
                case "sound":
                    self.sound(child.attrib, self.cursor)
                case "barline":
                    self.barline(child)
        if self.sounds:
            self.bar.length = max(self.bar.length, self.longest)
        elif self.longest:
            self.bar.silence = min(self.bar.silence or self.longest, self.longest)

    def move(self, ticks: int) -> None:
        """Put the cursor on; a bar is as long as its longest voice."""
        self.cursor += ticks
        self.longest = max(self.longest, self.cursor)

    def ticks(self, element: Element, name: str, tag: str = "duration", low: float = 0.0) -> int:
        """Return the duration, or what ``tag`` names, of ``element`` in ticks."""
        value = _number(element.findtext(tag), f"{name}: its {tag}", low, 1e9)
        if not self.part.divisions:
            raise Damage(f"{name}: its {tag} comes before any <divisions>", "divisions of a beat in the first bar")
        ticks = round(value * TICKS / self.part.divisions)
        if ticks > MAX_BEATS * TICKS:
            raise Damage(f"{name}: its {tag} is {ticks / TICKS:,.0f} beats", f"up to {MAX_BEATS:,} beats")
        return ticks

    def note(self, element: Element) -> None:
        """Read a note or a rest; what is not sung moves the cursor only."""
        has = {child.tag: child for child in reversed(element)}
        key = element.findtext("voice", "1").strip(), element.findtext("staff", "1").strip()
        notes = self.part.voices.get(key, {}).get(self.index, [])
        name = f"{self.name}, note {len(notes) + 1}"
        if "grace" in has:
            self.part.graces[key] = _syllables(element) or self.part.graces.get(key, {})
            return
        length = self.ticks(element, name)
        if "chord" not in has:
            self.before = self.cursor
            self.move(length)
            self.sounds = self.sounds or "rest" not in has
        kinds = {tie.get("type") for tie in element.iterfind("tie")}
        for notations in element.iterfind("notations"):
            kinds |= {tied.get("type") for tied in notations.iterfind("tied")}
            self.marks(notations, self.before)
        if "pitch" not in has or "cue" in has or not length:
            return
        of_grace = self.part.graces.pop(key, {})
        notes.append(
            BarNote(
                start=self.before,
                length=length,
                pitch=self.pitch(has["pitch"], name),
                velocity=round(_level(element.get("dynamics"), name)),
                lyrics=_syllables(element) or of_grace,
                ties="start" in kinds,
                name=name,
            )
        )
        self.part.voices.setdefault(key, {})[self.index] = notes
        self.notes += 1

    def pitch(self, element: Element, name: str) -> int:
        """Return the pitch as it sounds; quarter tones are rounded."""
        step = element.findtext("step", "").strip()
        if step not in SEMITONES:
            raise Damage(f"{name}: its step is {shown(step)}", "A to G")
        alter = round(_number(element.findtext("alter", "0"), f"{name}: its alter", -12, 12))
        octave = round(_number(element.findtext("octave"), f"{name}: its octave", -1, 10))
        pitch = 12 * (octave + 1) + SEMITONES[step] + alter + self.part.transpose
        if not 0 <= pitch <= 127:
            raise Damage(f"{name}: its pitch is {pitch}", "0 to 127, where 60 is middle C")
        return pitch

    def attributes(self, element: Element) -> None:
        """Read divisions, time signature and transposition."""
        if (divisions := element.findtext("divisions")) is not None:
            self.part.divisions = _number(divisions, f"{self.name}: its divisions", 1e-3, 1e6)
        for transpose in element.iterfind("transpose"):
            semitones = _number(transpose.findtext("chromatic", "0"), f"{self.name}: its transposition", -60, 60)
            octaves = _number(transpose.findtext("octave-change", "0"), f"{self.name}: its transposition", -5, 5)
            self.part.transpose = round(semitones) + 12 * round(octaves)
        if (time := element.find("time")) is not None and time.find("beats") is not None:
            self.bar.meter, self.bar.metered = self.meter(time), True

    def meter(self, time: Element) -> tuple[int, int]:
        """Return the sum of a time signature, which may be written 3+2/8 or 3/8 + 1/4."""
        counts = [sum(map(int, re.findall(r"\d{1,3}", beats.text or ""))) for beats in time.iterfind("beats")]
        units = [int(_number(unit.text, f"{self.name}: its beat type", 1, 64)) for unit in time.iterfind("beat-type")]
        if len(counts) == len(units) and all(unit & (unit - 1) == 0 for unit in units):
            finest = max(units)
            beats = sum(count * finest // unit for count, unit in zip(counts, units, strict=True))
            if 1 <= beats <= 255:
                return beats, finest
        raise Damage(f"{self.name}: its time signature is {shown(f'{counts}/{units}')}", "1..255 over 1, 2, 4 .. 64")

    def direction(self, element: Element) -> None:
        """Read tempo, marks, wedges and rehearsal marks; what ``<sound>`` says counts for more than what is shown."""
        at = self.cursor
        if (offset := element.find("offset")) is not None and offset.get("sound") == "yes":
            at = max(0, at + self.ticks(element, self.name, "offset", -1e9))
        told = {} if (sound := element.find("sound")) is None else sound.attrib
        kinds = element.findall("direction-type")
        # programs write the loudness of one accent, such as sf, as if it held from there on
        steady = all(len(marks) and marks[0].tag in LEVELS for kind in kinds for marks in kind.iterfind("dynamics"))
        loud = steady and not told.get("dynamics", "-").startswith("-")  # -1 stands for none in some files
        self.sound(told if loud else {key: told[key] for key in told if key != "dynamics"}, at)
        for kind in kinds:
            if not loud:
                self.marks(kind, at)
            for wedge in kind.iterfind("wedge"):
                if (sign := WEDGES.get(wedge.get("type", ""))) is not None:
                    self.say(at, sign)
            for metronome in kind.iterfind("metronome"):
                if bpm := _metronome(metronome):
                    self.tempo(at, bpm)
            for rehearsal in kind.iterfind("rehearsal"):
                if text := _words(rehearsal):
                    self.bar.markers[at, text] = None

    def sound(self, told: dict[str, str], at: int) -> None:
        """Read what is to be played: tempo, loudness, and where to go on."""
        if "tempo" in told:
            self.tempo(at, told["tempo"])
        if "dynamics" in told:
            self.say(at, MARK, _level(told["dynamics"], self.name))
        self.bar.signs.update({sign: told[sign] for sign in SIGNS if told.get(sign, "no") != "no"})

    def tempo(self, at: int, bpm: str) -> None:
        """Note a tempo; of several at one place the first counts: of ``<sound>``, and of the upper part."""
        self.bar.tempos.setdefault(at, _number(bpm, f"{self.name}: its tempo", SLOWEST, FASTEST))

    def marks(self, element: Element, at: int) -> None:
        """Note the dynamics marks in ``element``; accents of one note, such as sf, are no levels."""
        for dynamics in element.iterfind("dynamics"):
            for mark in dynamics:
                if mark.tag in LEVEL_OF:
                    self.say(at, MARK, LEVEL_OF[mark.tag])

    def say(self, at: int, kind: int, level: float = 0.0) -> None:
        """Note a mark, or the begin or end of a wedge."""
        self.part.loudness.setdefault(self.index, []).append((at, kind, level))

    def barline(self, element: Element) -> None:
        """Read repeats and endings."""
        for ending in element.iterfind("ending"):
            numbers = frozenset(map(int, re.findall(r"\d{1,2}", ending.get("number", ""))))
            self.part.endings = numbers if ending.get("type") == "start" else frozenset()
            self.bar.endings = self.part.endings or self.bar.endings
        for repeat in element.iterfind("repeat"):
            if repeat.get("direction") == "forward":
                self.bar.forward = True
            else:
                self.part.endings = frozenset()
                times = _number(repeat.get("times", "2"), f"{self.name}: the times of its repeat", 1, MAX_BARS)
                self.bar.times = max(self.bar.times, int(times))


def _syllables(note: Element) -> Syllables:
    """Return the syllables that begin at ``note`` by verse, each with a hyphen if its word goes on."""
    found: Syllables = {}
    for lyric in note.iterfind("lyric"):
        # the standard leaves the form of the number open: "1" is usual, "part1verse1" is found too
        verse = re.search(r"\d{1,6}$", lyric.get("number", "1"))
        text = " ".join(filter(None, map(_words, lyric.iterfind("text"))))
        syllabics = [syllabic.text for syllabic in lyric.iterfind("syllabic")]
        goes_on = bool(syllabics) and syllabics[-1] in ("begin", "middle")
        if text:
            found.setdefault(int(verse[0]) if verse else 1, text + "-" if goes_on and text[-1] != "-" else text)
    return found


def _words(element: Element) -> str:
    return " ".join((element.text or "").split())


def _metronome(element: Element) -> str:
    """Return quarter notes per minute, or nothing if it equates two note values or gives no number."""
    units = [NOTE_TYPES.get(_words(unit), 0.0) for unit in element.iterfind("beat-unit")]
    number = re.search(r"\d{1,9}(\.\d{1,9})?", element.findtext("per-minute", ""))
    if len(units) != 1 or number is None:
        return ""
    dots = len(element.findall("beat-unit-dot"))
    return repr(float(number[0]) * units[0] * (2 - 0.5**dots))


def _level(percent: str | None, name: str) -> float:
    """Return a MIDI velocity for a loudness in percent of forte, mf for none and for less than none."""
    if percent is None or percent.startswith("-"):
        return LEVELS["mf"]
    return min(max(round(_number(percent, f"{name}: its loudness", 0, 1000) * FORTE, 4), 1.0), 127.0)


def _number(text: str | None, what: str, low: float, high: float) -> float:
    """Return the number that ``text`` is; raises :class:`Damage` unless it is from ``low`` to ``high``."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise Damage(f"{what} is {shown(text)}", f"{low:,.10g} to {high:,.10g}")
    return value
