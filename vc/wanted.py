"""From what a user asks for to a strength of every label at every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from affgen.emotion.labels import QUADRANTS, coordinates
from affgen.emotion.space import NEUTRAL
from affgen.emotion.spec import Clock, Curve, Emotion, Point, Term, require_labels
from affgen.errors import AffgenError

if TYPE_CHECKING:
    from vc.pack import Parts

GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Intensities at which a calibration is written down."""
LARGEST = 1.2
"""Largest sum of the labels that a reference is read as."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Which strength makes a label heard at an intensity: ``strengths`` (E, 7) over :data:`GRID`, rising with it.

    ``reached`` (E,): the judged intensity at the last of them, in units of the natural gap from neutral to strong;
    below 1.5 where a model cannot go further. ``colour`` (E,): by how much a label's coordinates are enlarged for the
    decoder, so that spectra of unseen speakers change as far as those of actors do.
    """

    labels: tuple[str, ...]
    strengths: np.ndarray
    reached: np.ndarray
    colour: np.ndarray

    @classmethod
    def identity(cls, labels: Sequence[str]) -> Calibration:
        """Strength equals intensity: before anything was measured."""
        count = len(labels)
        return cls(tuple(labels), np.tile(GRID, (count, 1)), np.full(count, GRID[-1]), np.ones(count))

    def strength(self, label: str, intensity: np.ndarray) -> np.ndarray:
        """Return the strengths (T,) of ``label`` at intensities (T,) from 0 to 1.5."""
        return np.interp(intensity, GRID, self.strengths[self.labels.index(label)])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` needs besides the labels."""
        return {name: getattr(self, name).astype(np.float32) for name in ("strengths", "reached", "colour")}

    @classmethod
    def from_arrays(cls, labels: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Calibration:
        """Return what :meth:`arrays` came from; raises :class:`AffgenError` for what is no rising map."""
        strengths, reached, colour = (
            np.asarray(arrays[name], np.float64) for name in ("strengths", "reached", "colour")
        )
        shapes = strengths.shape == (len(labels), len(GRID)) and reached.shape == colour.shape == (len(labels),)
        finite = all(np.isfinite(array).all() for array in (strengths, reached, colour))
        if not shapes or not finite or (np.diff(strengths) < 0).any() or (strengths[:, 0] != 0).any():
            raise AffgenError(f"a calibration of shape {strengths.shape} that does not rise from 0 over {GRID}")
        return cls(tuple(labels), strengths, reached, colour)


@dataclass(frozen=True, eq=False)
class Strengths:
    """What is wanted at every frame.

    ``labels`` (T, E - 1) the strength of each label but neutral, ``emotion`` (T, K) as coordinates for the decoder,
    ``asked`` (T,) the intensity; ``anchor`` (E - 1,) and ``origin`` (K,) the emotion that the source has already.
    """

    labels: np.ndarray
    emotion: np.ndarray
    asked: np.ndarray
    anchor: np.ndarray | None
    origin: np.ndarray

    @property
    def change(self) -> bool:
        """Whether anything is to be changed."""
        return bool(self.asked.any()) if self.anchor is not None else bool(self.labels.any() or self.emotion.any())

    def from_source(self, source: str, parts: Parts) -> Strengths:
        """Return the same for a source in emotion ``source``: at intensity i, 1 - i of that is left."""
        if source == NEUTRAL:
            return self
        names = parts.feeling.labels
        anchor = np.zeros(len(names) - 1)
        anchor[names.index(source) - 1] = float(parts.calibration.strength(source, np.array(1.0)))
        origin = anchor @ coloured(parts)
        left = np.clip(1 - self.asked, 0, 1)[:, None]
        return replace(
            self, labels=self.labels + left * anchor, emotion=self.emotion + left * origin, anchor=anchor, origin=origin
        )


def wanted(
    emotion: Emotion, intensity: Curve, parts: Parts, seconds: np.ndarray, clock: Clock | None = None
) -> Strengths:
    """Return what an emotion at an intensity means at the moments ``seconds`` (T,).

    A label of weight w is calibrated as w times the intensity. Points of the plane and quadrants become mixes of the
    two labels whose directions enclose them. Raises :class:`AffgenError` for labels that the model lacks, and for times
    in % of a length where there is no ``clock``.
    """
    names = parts.feeling.labels
    named = Emotion(tuple(_in_labels(point, names) for point in emotion.points))
    require_labels(named, names)
    asked = intensity.sample(seconds, "s", clock)
    weights = named.label_weights(seconds, "s", names[1:], clock)
    columns = [parts.calibration.strength(name, weights[:, k] * asked) for k, name in enumerate(names[1:])]
    strengths = np.stack(columns, axis=1)
    return Strengths(strengths, strengths @ coloured(parts), asked, None, parts.feeling.prototypes[0])


def coloured(parts: Parts) -> np.ndarray:
    """Return the coordinates (E - 1, K) of the labels but neutral at strength 1, as the decoder is told them.

    The first direction is much the same for all emotions, arousal; what tells them apart lies along the others, which
    :attr:`vc.config.VcConfig.identity` enlarges.
    """
    own = np.where(np.arange(parts.feeling.prototypes.shape[1]) > 0, parts.config.identity, 1.0)
    found: np.ndarray = parts.calibration.colour[1:, None] * parts.feeling.prototypes[1:] * own
    return found


def like_reference(
    coordinates: np.ndarray, intensity: Curve, parts: Parts, seconds: np.ndarray, clock: Clock | None = None
) -> Strengths:
    """Return what a reference clip's emotion ``coordinates`` (K,) mean; prosody takes the nearest mix of labels."""
    from scipy.optimize import nnls

    prototypes = parts.feeling.prototypes[1:]
    mix = nnls(prototypes.T.astype(np.float64), coordinates.astype(np.float64))[0]
    far = max(1.0, mix.sum() / LARGEST)
    mix, coordinates = mix / far, coordinates / far
    asked = intensity.sample(seconds, "s", clock)
    columns = [
        share * parts.calibration.strength(name, asked)
        for name, share in zip(parts.feeling.labels[1:], mix, strict=True)
    ]
    scale = np.sum(columns, axis=0) / max(mix.sum(), 1e-6)
    scale = scale * (mix @ parts.calibration.colour[1:]) / max(mix.sum(), 1e-6)
    emotion = scale[:, None] * coordinates
    return Strengths(np.stack(columns, axis=1), emotion, asked, None, parts.feeling.prototypes[0])


def _in_labels(point: Point, labels: Sequence[str]) -> Point:
    """Return ``point`` with its quadrants and points of the plane written as labels."""
    weights: dict[str, float] = {}
    total = max(1.0, sum(term.weight for term in point.terms))
    for term in point.terms:
        parts = _enclosing(term.va, labels) if term.name in ("va", *QUADRANTS) else {term.name: 1.0}
        for name, share in parts.items():
            weights[name] = weights.get(name, 0.0) + share * term.weight / total
    terms = tuple(Term(name, weight, coordinates(name)) for name, weight in weights.items() if weight > 0)
    return replace(point, terms=terms or (Term(NEUTRAL, 1.0, (0.0, 0.0)),))


def _enclosing(va: tuple[float, float], labels: Sequence[str]) -> dict[str, float]:
    """Return weights, at most 1 in sum, of the two labels between whose directions ``va`` lies."""
    radius = float(np.hypot(*va))
    names = [name for name in labels if name != NEUTRAL]
    if radius < 1e-6:
        return {}
    angles = {name: float(np.arctan2(*coordinates(name)[::-1])) for name in names}
    here = float(np.arctan2(va[1], va[0]))
    before = min(names, key=lambda name: (here - angles[name]) % (2 * np.pi))
    after = min(names, key=lambda name: (angles[name] - here) % (2 * np.pi))
    if before == after:
        return {before: min(1.0, radius / float(np.hypot(*coordinates(before))))}
    corners = np.array([coordinates(before), coordinates(after)]).T
    found = np.clip(np.linalg.solve(corners, np.array(va)), 0, None)
    found = found / max(1.0, found.sum())
    return {before: float(found[0]), after: float(found[1])}
