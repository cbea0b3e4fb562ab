"""Where emotions lie among embeddings: prototypes, directions, and how far along one an embedding is.

For a label e with prototype p_e and the neutral prototype p_0, both means over training speakers,

====================  =======================================================================================
``directions[e]``     d_e, along which clips of e differ from neutral ones
``project(x, e, a)``  s_e(x) = <x - a, d_e>, with the anchor a = p_0 or the speaker's own neutral mean
====================  =======================================================================================

so that neutral is 0 and a strong clip of e about 1. The sign is kept: -1 is away from e. A posterior saturates and a
cosine forgets the length; a signed projection orders intensities.

d_e is found by ridge regression of the intensity on x - a over the clips of e and the neutral ones of all speakers
(Fisher's discriminant with shrinkage, where there are but two levels): x moves in many ways that have nothing to do
with e, and a plain difference of means would listen to them as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affgen.errors import AffgenError

NEUTRAL = "neutral"


@dataclass(frozen=True, eq=False)
class EmotionSpace:
    """``labels`` (E), ``prototypes (E, D)`` at intensity 1 (neutral: at 0) and ``directions (E, D)`` (neutral: 0)."""

    labels: tuple[str, ...]
    prototypes: np.ndarray
    directions: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.labels)
        same = self.prototypes.shape == self.directions.shape and self.prototypes.ndim == 2
        if not same or len(self.prototypes) != count or NEUTRAL not in self.labels:
            raise AffgenError(
                f"prototypes {self.prototypes.shape} and directions {self.directions.shape} for {count} labels: "
                "one row of each for every label is needed, neutral among them"
            )

    @classmethod
    def fit(
        cls,
        embeddings: np.ndarray,
        labels: Sequence[str],
        intensities: Sequence[float],
        speakers: Sequence[str],
        *,
        ridge: float = 1.0,
        centred: bool = True,
    ) -> EmotionSpace:
        """Find prototypes and directions of ``embeddings (N, D)``.

        ``intensities`` are 0 to 1 (neutral 0), NaN where unknown: such clips count for prototypes as the middle of
        what is known. ``ridge`` is the shrinkage in units of the mean variance. Every speaker is centred on their own
        neutral mean (``centred``), else on that of all; those without neutral clips are left out. Raises
        :class:`AffgenError` if none is left.
        """
        x, names, level, who = _arrays(embeddings, labels, intensities, speakers)
        neutral = {s: x[(who == s) & (names == NEUTRAL)].mean(axis=0) for s in sorted(set(who[names == NEUTRAL]))}
        if not neutral:
            raise AffgenError("no speaker has neutral clips; directions start from them")
        kept = np.isin(who, sorted(neutral))
        origin = np.mean(list(neutral.values()), axis=0)
        moved = x[kept] - (np.stack([neutral[s] for s in who[kept]]) if centred else origin)
        names, level = names[kept], level[kept]
        found = tuple(sorted(set(names), key=lambda name: (name != NEUTRAL, name)))
        prototypes, directions = np.tile(origin, (len(found), 1)), np.zeros((len(found), x.shape[1]))
        for row, name in enumerate(found[1:], 1):
            own = names == name
            known = level[own][np.isfinite(level[own])]
            steps = np.where(np.isfinite(level[own]), level[own], known.mean() if known.size else 1.0)
            shift = steps @ moved[own] / (steps @ steps)  # least squares of moved on intensity, through neutral
            prototypes[row] = origin + shift
            directions[row] = _direction(moved, names == NEUTRAL, own, steps, shift, ridge)
        return cls(found, prototypes.astype(np.float32), directions.astype(np.float32))

    def index(self, label: str) -> int:
        """Return the row of ``label``; raises :class:`AffgenError` with the labels there are."""
        if label not in self.labels:
            raise AffgenError(f"emotion {label!r}: not in this space; it has: {', '.join(self.labels)}")
        return self.labels.index(label)

    def direction(self, label: str, source: str = NEUTRAL) -> np.ndarray:
        """Return the way (D,) from the prototype of ``source`` to that of ``label``."""
        way: np.ndarray = self.prototypes[self.index(label)] - self.prototypes[self.index(source)]
        return way

    def project(self, embeddings: np.ndarray, label: str, anchor: np.ndarray | None = None) -> np.ndarray:
        """Return how far (N,) ``embeddings (N, D)`` are from ``anchor`` towards ``label``: 0 there, 1 at its prototype.

        ``anchor`` (D,) or (N, D) is the speaker's own neutral mean; by default the neutral prototype.
        """
        base = self.prototypes[self.index(NEUTRAL)] if anchor is None else anchor
        scores: np.ndarray = (np.asarray(embeddings) - base) @ self.directions[self.index(label)]
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` needs besides the labels."""
        return {"prototypes": self.prototypes, "directions": self.directions}

    @classmethod
    def from_arrays(cls, labels: Sequence[str], arrays: Mapping[str, np.ndarray]) -> EmotionSpace:
        """Return the space that :meth:`arrays` came from."""
        return cls(tuple(labels), np.asarray(arrays["prototypes"]), np.asarray(arrays["directions"]))


def _arrays(
    embeddings: np.ndarray, labels: Sequence[str], intensities: Sequence[float], speakers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, names, who = np.asarray(embeddings, dtype=np.float64), np.array(labels), np.array(speakers)
    level = np.asarray(intensities, dtype=np.float64)
    if x.ndim != 2 or not len(x) or not all(len(column) == len(x) for column in (names, level, who)):
        raise AffgenError(f"embeddings of shape {x.shape}: (N, D) with a label, intensity and speaker each is needed")
    if not np.isfinite(x).all():
        raise AffgenError("an embedding that is not finite; accepted: finite numbers")
    return x, names, level, who


def _direction(
    moved: np.ndarray, neutral: np.ndarray, own: np.ndarray, steps: np.ndarray, shift: np.ndarray, ridge: float
) -> np.ndarray:
    """Return d (D,) with <shift, d> = 1: regression of the intensity on ``moved``, shrunk towards ``shift`` itself."""
    rest = np.concatenate([moved[neutral], moved[own] - steps[:, None] * shift])  # what intensity does not explain
    spread = rest.T @ rest / len(rest)
    spread += ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
    way = np.linalg.solve(spread, shift)
    result: np.ndarray = way / (way @ shift)
    return result
