"""Notes, tempo and meter: what a piece or a song is between files, models and sound.

All positions and durations are in quarter-note beats from the start of the piece, whatever the meter. Scores are
immutable values: equal content compares equal, and the same score always writes the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from affgen.errors import AffgenError

if TYPE_CHECKING:
    from affgen.midi import midi_bytes as midi_bytes
    from affgen.midi import read_midi as read_midi
    from affgen.midi import write_midi as write_midi

SUSTAIN_PEDAL = 64
"""Controller number of the sustain pedal; values from 64 up mean pressed (MIDI 1.0)."""

MAX_BEATS = 100_000
"""The longest piece, in quarter-note beats: six hours at 278 beats per minute."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What a user changes about one note: ``cents`` of its pitch, ``gain_db`` of its loudness, ``shift_s`` of its
    onset (later is above 0), ``vibrato``: factor on the extent of its vibrato, ``intensity``: of the emotion, if not
    None in the place of what holds elsewhere. Raises :class:`AffgenError` for values out of range.
    """

    cents: float = 0.0
    gain_db: float = 0.0
    shift_s: float = 0.0
    vibrato: float = 1.0
    intensity: float | None = None

    def __post_init__(self) -> None:
        near = abs(self.cents) <= 1200 and abs(self.gain_db) <= 24 and abs(self.shift_s) <= 1
        if not (near and 0 <= self.vibrato <= 5 and 0 <= (self.intensity or 0.0) <= 1.5):
            raise AffgenError(
                f"edit of {self.cents} cents, {self.gain_db} dB, {self.shift_s} s, vibrato {self.vibrato}, intensity "
                f"{self.intensity}: accepted are +-1200 cents, +-24 dB, +-1 s, vibrato 0..5, intensity 0..1.5"
            )


@dataclass(frozen=True, slots=True)
class Note:
    """One note: ``onset`` and ``duration`` in beats, ``pitch`` 0..127 (60 is middle C), ``velocity`` 1..127.

    ``lyric`` is the syllable that starts here, with a trailing ``-`` when its word goes on, empty on the further
    notes of a melisma; ``phonemes``, if there are any, are what is sung for it; ``edit`` is what a user has set.
    Raises :class:`AffgenError` for values outside these ranges or a duration that is not positive.
    """

    onset: float
    duration: float
    pitch: int
    velocity: int = 80
    lyric: str = ""
    phonemes: tuple[str, ...] = ()
    edit: Edit | None = None

    def __post_init__(self) -> None:
        if not (
            0 <= self.onset <= MAX_BEATS
            and 0 < self.duration <= MAX_BEATS
            and 0 <= self.pitch <= 127
            and 1 <= self.velocity <= 127
        ):
            raise AffgenError(
                f"note of onset {self.onset}, duration {self.duration}, pitch {self.pitch}, velocity {self.velocity}: "
                f"accepted are onset 0..{MAX_BEATS} and duration above 0 in beats, pitch 0..127, velocity 1..127"
            )

    @property
    def end(self) -> float:
        """Where the note stops, in beats."""
        return self.onset + self.duration


@dataclass(frozen=True, slots=True)
class Tempo:
    """``bpm`` quarter notes per minute from ``beat`` on; raises :class:`AffgenError` unless both make sense."""

    beat: float
    bpm: float

    def __post_init__(self) -> None:
        _check_beat(self.beat, "tempo")
        if not 0 < self.bpm < math.inf:
            raise AffgenError(f"tempo of {self.bpm} beats per minute at beat {self.beat}: it must be above 0")


@dataclass(frozen=True, slots=True)
class Meter:
    """Time signature ``numerator``/``denominator`` from ``beat`` on, which starts a bar.

    Raises :class:`AffgenError` unless the numerator is 1..255 and the denominator a power of two up to 64.
    """

    beat: float
    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        _check_beat(self.beat, "meter")
        if not (1 <= self.numerator <= 255 and self.denominator in (1, 2, 4, 8, 16, 32, 64)):
            raise AffgenError(
                f"meter {self.numerator}/{self.denominator} at beat {self.beat}: accepted are 1..255 over 1, 2, 4 .. 64"
            )

    @property
    def bar(self) -> float:
        """Length of one bar in quarter-note beats."""
        return 4.0 * self.numerator / self.denominator


@dataclass(frozen=True, slots=True)
class Marker:
    """A short text at ``beat``: a chord symbol such as ``C_maj``, the name of a section."""

    beat: float
    text: str

    def __post_init__(self) -> None:
        _check_beat(self.beat, "marker")


@dataclass(frozen=True, slots=True)
class Control:
    """Controller ``number`` (64 is the sustain pedal) set to ``value`` at ``beat``; both 0..127."""

    beat: float
    number: int
    value: int

    def __post_init__(self) -> None:
        _check_beat(self.beat, "control")
        if not (0 <= self.number <= 127 and 0 <= self.value <= 127):
            raise AffgenError(f"control {self.number} = {self.value} at beat {self.beat}: both must be 0..127")


@dataclass(frozen=True, slots=True)
class Dynamic:
    """Loudness ``level`` 1..127, in units of MIDI velocity, at ``beat``: linear between two of them, a step where two
    are at one beat. Raises :class:`AffgenError` for values out of range.
    """

    beat: float
    level: float

    def __post_init__(self) -> None:
        _check_beat(self.beat, "dynamic")
        if not 1 <= self.level <= 127:
            raise AffgenError(f"dynamic {self.level} at beat {self.beat}: accepted are levels 1..127")


def _check_beat(beat: float, what: str) -> None:
    if not 0 <= beat <= MAX_BEATS:
        raise AffgenError(f"{what} at beat {beat}: accepted are beats 0..{MAX_BEATS}")


@dataclass(frozen=True, slots=True)
class Score:
    """A piece: ``notes`` with the tempo, meter, markers and controls that go with them.

    Every sequence is put in order on construction: notes by (onset, pitch, duration), the rest by beat; of two
    tempos or meters at one beat the later one counts, and 120 beats per minute and 4/4 hold where none is given.
    ``texts`` are remarks on the whole piece (where it comes from); ``ticks_per_beat`` is the grid of its MIDI file;
    ``dynamics`` say how loud it is to be, if anything does.
    """

    notes: tuple[Note, ...]
    tempos: tuple[Tempo, ...] = (Tempo(0.0, 120.0),)
    meters: tuple[Meter, ...] = (Meter(0.0, 4, 4),)
    markers: tuple[Marker, ...] = ()
    controls: tuple[Control, ...] = ()
    texts: tuple[str, ...] = ()
    ticks_per_beat: int = 480
    dynamics: tuple[Dynamic, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.ticks_per_beat <= 32767:
            raise AffgenError(f"{self.ticks_per_beat} ticks per beat: accepted are 1..32767")
        put = object.__setattr__  # the dataclass is frozen for everyone else
        put(self, "notes", tuple(sorted(self.notes, key=attrgetter("onset", "pitch", "duration", "velocity"))))
        put(self, "tempos", _from_start(self.tempos, Tempo(0.0, 120.0)))
        put(self, "meters", _from_start(self.meters, Meter(0.0, 4, 4)))
        put(self, "markers", tuple(sorted(self.markers, key=attrgetter("beat"))))
        put(self, "controls", tuple(sorted(self.controls, key=attrgetter("beat"))))
        put(self, "texts", tuple(self.texts))
        put(self, "dynamics", tuple(sorted(self.dynamics, key=attrgetter("beat"))))

    @property
    def end(self) -> float:
        """End of the last note in beats; 0 for a score without notes."""
        return max((note.end for note in self.notes), default=0.0)

    @property
    def duration_s(self) -> float:
        """End of the last note in seconds; 0 for a score without notes."""
        return float(self.seconds(self.end))

    def seconds(self, beats: np.ndarray | float) -> np.ndarray:
        """Map ``beats`` (any shape) to seconds through the tempo map; the last tempo goes on for ever."""
        knots, starts, rates = self._tempo_map()
        beats = np.asarray(beats, dtype=np.float64)
        index = np.maximum(np.searchsorted(knots, beats, side="right") - 1, 0)
        return np.asarray(starts[index] + (beats - knots[index]) * rates[index])

    def beats(self, seconds: np.ndarray | float) -> np.ndarray:
        """Map ``seconds`` (any shape) to beats: the inverse of :meth:`seconds`."""
        knots, starts, rates = self._tempo_map()
        seconds = np.asarray(seconds, dtype=np.float64)
        index = np.maximum(np.searchsorted(starts, seconds, side="right") - 1, 0)
        return np.asarray(knots[index] + (seconds - starts[index]) / rates[index])

    def bar_lines(self) -> np.ndarray:
        """Start of every bar in beats, and at the end the bar line at or after the last note: (bars + 1,)."""
        end = max(self.end, 1e-9)
        stops = [meter.beat for meter in self.meters[1:]] + [math.inf]
        lines: list[np.ndarray] = []
        for meter, stop in zip(self.meters, stops, strict=True):
            if meter.beat >= end:
                break
            # a note may end a rounding error beyond a bar line: that opens no further bar
            bars = math.ceil((min(stop, end) - meter.beat) / meter.bar - 1e-6)
            lines.append(meter.beat + meter.bar * np.arange(max(bars, 1)))
            last = min(stop, meter.beat + meter.bar * max(bars, 1))
        return np.append(np.concatenate(lines), last)

    def arrays(self) -> dict[str, np.ndarray]:
        """Notes as columns, each (N,): ``onset``, ``duration`` (beats, float64), ``pitch``, ``velocity`` (int64)."""
        kinds = {"onset": np.float64, "duration": np.float64, "pitch": np.int64, "velocity": np.int64}
        return {key: np.array([getattr(n, key) for n in self.notes], dtype=kind) for key, kind in kinds.items()}

    def _tempo_map(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Beat, second and seconds per beat at every tempo, each (tempos,)."""
        knots = np.array([tempo.beat for tempo in self.tempos])
        rates = 60.0 / np.array([tempo.bpm for tempo in self.tempos])
        starts = np.concatenate([[0.0], np.cumsum(np.diff(knots) * rates[:-1])])
        return knots, starts, rates


Placed = TypeVar("Placed", bound="Tempo | Meter")


def _from_start(items: Iterable[Placed], default: Placed) -> tuple[Placed, ...]:
    """Sort by beat, keep the last of those at one beat, and let ``default`` hold from 0 where nothing does."""
    by_beat: dict[float, Placed] = {item.beat: item for item in sorted(items, key=attrgetter("beat"))}
    return tuple(by_beat.values()) if 0.0 in by_beat else (default, *by_beat.values())


def __getattr__(name: str) -> Any:
    """Offer the MIDI functions here too; loaded on demand, since they need the classes above."""
    if name in ("midi_bytes", "read_midi", "write_midi"):
        from affgen import midi

        return getattr(midi, name)
    raise AttributeError(f"module 'affgen.score' has no attribute {name!r}")
