"""The SPEC grammar: what a user writes after ``--emotion`` and ``--intensity``, and curves over time.

::

    SPEC  := POINT ("," POINT)*                 several points make a curve, linear between them
    POINT := MIX ["@" TIME]
    MIX   := TERM ("+" TERM)*
    TERM  := LABEL[":"WEIGHT] | QUADRANT[":"WEIGHT] | "va:"VALENCE"/"AROUSAL
    TIME  := NUMBER ("s" seconds | "b" bars | "%" of the length)

``happy`` · ``happy:0.6+sad:0.4`` · ``va:0.4/-0.2`` · ``neutral@0s,angry:1@3s`` · ``Q4@0b,Q1@8b``

Weights that sum to less than 1 leave the rest neutral (``happy:0.2`` is a fifth of the way to happy); weights that
sum to
more are relative and normalised (``happy:3+sad:1``). A ``va:`` term has weight 1. Intensity says how strong all of
it is. A curve holds its first and last values outside its points. Bars are
counted from 0: ``8b`` is the beginning of the ninth bar. The first point may leave out its time, which is then 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from affgen.emotion import labels
from affgen.errors import AffgenError

if TYPE_CHECKING:
    import numpy as np

    Positions = Sequence[float] | np.ndarray

MAX_INTENSITY = 1.5
MAX_CHARACTERS = 10_000
MAX_WEIGHT = 1000
MAX_TIME = 1_000_000
UNITS = {"s": "seconds", "b": "bars", "%": "percent of the length"}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE]-?[0-9]+)?")
_TIME_HELP = "accepted: a number of seconds (3s), bars (8b, from 0) or percent of the length (50%)"
_WEIGHT_HELP = f"accepted: a number above 0, at most {MAX_WEIGHT}"
_MIX_HELP = "accepted: LABEL, LABEL:WEIGHT, va:VALENCE/AROUSAL, joined by +"
_INTENSITY_HELP = f"accepted: 0 to {MAX_INTENSITY}, or a curve such as 0.2@0s,1@3s"


@dataclass(frozen=True, slots=True)
class Clock:
    """How long a piece is in seconds and, where it has bars, in bars: lets points in different units be compared.

    The tempo between is taken as constant. Raises :class:`AffgenError` for lengths that are not positive and finite.
    """

    seconds: float
    bars: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("bars", self.bars)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise AffgenError(f"a length of {value} {name}; accepted: a positive number")

    def per_length(self, unit: str) -> float:
        """Return how many of ``unit`` ("s", "b" or "%") make the whole length."""
        if unit == "b" and self.bars is None:
            raise AffgenError("times in bars (b) need something that has bars; use seconds (s) or percent (%)")
        return {"s": self.seconds, "b": self.bars or math.nan, "%": 100.0}[unit]


@dataclass(frozen=True, slots=True)
class Time:
    """A moment: ``value`` >= 0 in ``unit`` "s" (seconds), "b" (bars from 0) or "%" (of the length, at most 100)."""

    value: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise AffgenError(f"time unit {self.unit!r}; {_TIME_HELP}")
        if not 0 <= self.value <= MAX_TIME:
            raise AffgenError(f"time {_text(self.value)}{self.unit}; {_TIME_HELP}, from 0 to {MAX_TIME}")
        if self.unit == "%" and self.value > 100:
            raise AffgenError(f"time {_text(self.value)}%; accepted: 0% to 100%")

    def __str__(self) -> str:
        return f"{_text(self.value)}{self.unit}"


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a mix: a canonical label or quadrant, or ``"va"``; its weight in (0, 1000]; (valence, arousal)."""

    name: str
    weight: float
    va: tuple[float, float]

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MAX_WEIGHT:
            raise AffgenError(f"weight {_text(self.weight)} of {self.name!r}; {_WEIGHT_HELP}")
        if not all(-1 <= x <= 1 for x in self.va):
            raise AffgenError(f"va:{_text(self.va[0])}/{_text(self.va[1])}; accepted: valence and arousal from -1 to 1")

    def __str__(self) -> str:
        if self.name == "va":
            return f"va:{_text(self.va[0])}/{_text(self.va[1])}"
        return self.name if self.weight == 1 else f"{self.name}:{_text(self.weight)}"


@dataclass(frozen=True, slots=True)
class Mix:
    """An emotion at one moment.

    ``weights``: (name, weight) of the labels and quadrants in it, each weight in (0, 1]; they sum to 1, or to less when
    the rest is neutral or was given as a point of the plane, which has no label. ``va``: (valence, arousal) in
    [-1, 1] of all
    of it.
    """

    weights: tuple[tuple[str, float], ...]
    va: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """The terms of a mix as they were written, with their moment (None: constant, or the beginning)."""

    terms: tuple[Term, ...]
    time: Time | None = None

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms if term.name != "va"]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise AffgenError(f"{twice!r} twice in one mix; accepted: each label once, with its whole weight")

    def __str__(self) -> str:
        return "+".join(map(str, self.terms)) + _at(self.time)

    def mix(self) -> Mix:
        """Return the terms read as one mix: weights over 1 in sum are normalised, below 1 the rest is neutral."""
        total = max(1.0, math.fsum(term.weight for term in self.terms))
        shares = [term.weight / total for term in self.terms]
        weights = tuple((t.name, share) for t, share in zip(self.terms, shares, strict=True) if t.name != "va")
        valence, arousal = (
            max(-1.0, min(1.0, math.fsum(share * t.va[i] for t, share in zip(self.terms, shares, strict=True))))
            for i in range(2)
        )
        return Mix(weights, (valence, arousal))


@dataclass(frozen=True, slots=True)
class Emotion:
    """One or more points; made by :func:`parse_emotion`; ``str`` gives a SPEC that parses to an equal object."""

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        _check_order([point.time for point in self.points], str(self))

    def __str__(self) -> str:
        return ",".join(map(str, self.points))

    @property
    def constant(self) -> bool:
        """Whether the emotion is the same throughout."""
        return len(self.points) == 1

    @property
    def names(self) -> tuple[str, ...]:
        """The labels and quadrants that occur, each once, in the order in which they were written."""
        return tuple(dict.fromkeys(t.name for point in self.points for t in point.terms if t.name != "va"))

    def valence_arousal(self, positions: Positions, unit: str, clock: Clock | None = None) -> np.ndarray:
        """Return (N, 2) valence and arousal at ``positions`` (N,), given in ``unit`` "s", "b" or "%".

        ``clock`` is needed when a point has another unit; raises :class:`AffgenError` when it is missing or puts the
        points out of order.
        """
        return _interpolate([p.time for p in self.points], [p.mix().va for p in self.points], positions, unit, clock)

    def label_weights(
        self, positions: Positions, unit: str, names: Sequence[str], clock: Clock | None = None
    ) -> np.ndarray:
        """Return (N, E) weights of ``names`` (E,) at ``positions`` (N,) in ``unit``; as :meth:`valence_arousal`."""
        mixes = [dict(point.mix().weights) for point in self.points]
        table = [[mix.get(name, 0.0) for name in names] for mix in mixes]
        return _interpolate([p.time for p in self.points], table, positions, unit, clock)

    def at(self, position: float, unit: str = "s", clock: Clock | None = None) -> Mix:
        """Return the mix at one position in ``unit``; as :meth:`valence_arousal`."""
        shares = self.label_weights([position], unit, self.names, clock)[0].tolist()
        weights = tuple((name, share) for name, share in zip(self.names, shares, strict=True) if share > 0)
        valence, arousal = self.valence_arousal([position], unit, clock)[0].tolist()
        return Mix(weights, (valence, arousal))


@dataclass(frozen=True, slots=True)
class Curve:
    """An intensity over time: (value in [0, 1.5], moment) points; ``str`` gives text that parses to an equal object."""

    points: tuple[tuple[float, Time | None], ...]

    def __post_init__(self) -> None:
        for value, _ in self.points:
            if not 0 <= value <= MAX_INTENSITY:  # also false for NaN
                raise AffgenError(f"intensity {_text(value)}; {_INTENSITY_HELP}")
        _check_order([time for _, time in self.points], str(self))

    def __str__(self) -> str:
        return ",".join(_text(value) + _at(time) for value, time in self.points)

    @property
    def constant(self) -> bool:
        """Whether the intensity is the same throughout."""
        return len(self.points) == 1

    def sample(self, positions: Positions, unit: str, clock: Clock | None = None) -> np.ndarray:
        """Return (N,) intensities at ``positions`` (N,) in ``unit``; as :meth:`Emotion.valence_arousal`."""
        return _interpolate([t for _, t in self.points], [[v] for v, _ in self.points], positions, unit, clock)[:, 0]

    def at(self, position: float, unit: str = "s", clock: Clock | None = None) -> float:
        """Return the intensity at one position in ``unit``."""
        return float(self.sample([position], unit, clock)[0])


def parse_emotion(spec: str | Emotion) -> Emotion:
    """Read a SPEC (grammar in the module docstring); an :class:`Emotion` is returned as it is.

    Raises :class:`AffgenError`, one line that names what is accepted, for anything outside the grammar.
    """
    if isinstance(spec, Emotion):
        return spec
    pieces = [_split_time(piece) for piece in _pieces(spec, "emotion", f"accepted: {labels.accepted()}")]
    return Emotion(tuple(Point(tuple(_term(t) for t in mix.split("+")), time) for mix, time in pieces))


def parse_intensity(value: str | float | Curve) -> Curve:
    """Read an intensity: a number from 0 to 1.5 or a curve (``0.2@0s,1@3s``); a :class:`Curve` is returned as it is.

    Raises :class:`AffgenError`, one line that names what is accepted.
    """
    if isinstance(value, Curve):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        return Curve(((float(value) + 0.0, None),))
    pieces = [_split_time(piece) for piece in _pieces(value, "intensity", _INTENSITY_HELP)]
    return Curve(tuple((_number(text, f"intensity {text[:40]!r}; {_INTENSITY_HELP}"), time) for text, time in pieces))


def require_labels(emotion: Emotion, available: Sequence[str], where: str = "this model") -> None:
    """Raise :class:`AffgenError` unless ``available`` has every label and quadrant that ``emotion`` names.

    Points of the plane (``va:``) name none and pass.
    """
    lacking = [name for name in emotion.names if name not in available]
    if lacking:
        raise AffgenError(f"emotion {', '.join(lacking)}: not in {where}; model has: {', '.join(available)}")


def _pieces(text: object, what: str, accepted: str) -> list[str]:
    """Split at commas after the checks that hold for every kind of curve."""
    if not isinstance(text, str):
        raise AffgenError(f"{what} {str(text)[:40]!r}: is not text; {accepted}")
    if len(text) > MAX_CHARACTERS:
        raise AffgenError(f"{what}: {len(text)} characters; accepted: at most {MAX_CHARACTERS}")
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(pieces):
        raise AffgenError(f"{what} {text[:60]!r}: has an empty point; {accepted}")
    return pieces


def _split_time(piece: str) -> tuple[str, Time | None]:
    """Split ``VALUE[@TIME]``."""
    value, at, time = (part.strip() for part in piece.partition("@"))
    if not at:
        return value, None
    if time[-1:] not in UNITS or not time[-1:]:
        raise AffgenError(f"time {time[:40]!r} in {piece[:60]!r}; {_TIME_HELP}")
    return value, Time(_number(time[:-1], f"time {time[:40]!r} in {piece[:60]!r}; {_TIME_HELP}"), time[-1])


def _term(text: str) -> Term:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not name:
        raise AffgenError(f"emotion: an empty term; {_MIX_HELP}; labels: {labels.accepted()}")
    if name.lower() == "va":
        valence, _, arousal = value.partition("/")
        problem = f"{text.strip()[:40]!r}; accepted: va:VALENCE/AROUSAL, each from -1 to 1, such as va:0.4/-0.2"
        return Term("va", 1.0, (_number(valence, problem), _number(arousal, problem)))
    name = labels.resolve(name)
    weight = _number(value, f"weight in {text.strip()[:40]!r}; {_WEIGHT_HELP}") if colon else 1.0
    return Term(name, weight, labels.coordinates(name))


def _number(text: str, problem: str) -> float:
    """Read a plain decimal number: unlike ``float``, neither nan, inf, underscores nor digits of other scripts."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise AffgenError(problem)
    return float(text) + 0.0  # -0.0 becomes 0.0, so that equal objects print alike


def _text(value: float) -> str:
    """Return the shortest text that reads back to ``value``, without the ``+`` of exponents, which joins terms."""
    return repr(float(value)).removesuffix(".0").replace("e+", "e")


def _at(time: Time | None) -> str:
    return "" if time is None else f"@{time}"


def _check_order(times: Sequence[Time | None], spec: str) -> None:
    """Refuse points that are out of order whatever the length; a mixture of units is checked by :func:`_moments`."""
    if not times:
        raise AffgenError("a curve without points; accepted: at least one")
    latest: dict[str, float] = {} if times[0] is None else {times[0].unit: times[0].value}
    for time in times[1:]:
        if time is None:
            raise AffgenError(f"{spec[:60]!r}: a later point without a time; write each as VALUE@TIME; {_TIME_HELP}")
        if time.value <= latest.get(time.unit, 0.0):  # no later point can be at the beginning, whatever its unit
            raise AffgenError(f"{spec[:60]!r}: the point at {time} is not after the one before it; sort the times")
        latest[time.unit] = time.value


def _moments(times: Sequence[Time | None], unit: str, clock: Clock | None) -> list[float]:
    """Return the times of the points in ``unit``, increasing."""
    moments = []
    for time in times:
        if time is None or time.value == 0:
            moments.append(0.0)
        elif time.unit == unit:
            moments.append(time.value)
        elif clock is None:
            raise AffgenError(f"time {time}: cannot be placed in {UNITS[unit]} here; write the times in {unit!r}")
        else:
            moments.append(time.value / clock.per_length(time.unit) * clock.per_length(unit))
    for earlier, later, time in zip(moments, moments[1:], times[1:], strict=False):
        if later <= earlier:
            raise AffgenError(f"time {time}: is not after the point before it at this length; sort the times")
    return moments


def _interpolate(
    times: Sequence[Time | None],
    values: Sequence[Sequence[float]],
    positions: Positions,
    unit: str,
    clock: Clock | None,
) -> np.ndarray:
    """Return (N, C) values at ``positions`` (N,), linear between the points, held outside them."""
    import numpy as np

    where = np.asarray(positions, dtype=np.float64)
    if unit not in UNITS:
        raise AffgenError(f"time unit {unit!r}; accepted: s, b or %")
    if not np.isfinite(where).all():
        raise AffgenError("a position that is not a finite number; accepted: seconds, bars or percent")
    table = np.asarray(values, dtype=np.float64).reshape(len(times), -1)  # (points, C)
    if len(times) == 1:
        return np.broadcast_to(table, (where.size, table.shape[1])).copy()
    moments = _moments(times, unit, clock)
    return np.stack([np.interp(where, moments, column) for column in table.T], axis=1).reshape(where.size, -1)
