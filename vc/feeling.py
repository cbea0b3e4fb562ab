"""Emotions as a few coordinates for the decoder: embeddings on the directions of the DVM, anchored at neutral.

EmoReg gives its decoder the 256-d embedding, that of the source plus i times a direction. Here the decoder is told
what lies along the directions alone, measured from the speaker's own neutral speech: what else moves an embedding,
above all the speaker, never enters. A neutral source is the origin, intensity i of label e is i times its prototype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from affgen.emotion.dvm import DVM
from affgen.emotion.labels import LABELS
from affgen.emotion.space import EmotionSpace
from affgen.errors import AffgenError
from vc.config import FeelingConfig


@dataclass(frozen=True, eq=False)
class Feeling:
    """``labels`` (E), neutral first; ``basis`` (K, 256), ``origin`` (256,); ``prototypes`` (E, K) at intensity 1.

    ``plain`` (E, K) are the plain differences of the labels' means, whoever speaks how strongly: for comparison.
    """

    labels: tuple[str, ...]
    basis: np.ndarray
    origin: np.ndarray
    prototypes: np.ndarray
    plain: np.ndarray

    @classmethod
    def fit(
        cls,
        embeddings: np.ndarray,
        labels: Sequence[str],
        intensities: Sequence[float],
        speakers: Sequence[str],
        config: FeelingConfig,
    ) -> Feeling:
        """Find directions and prototypes of ``embeddings`` (N, 256); arguments as of :meth:`EmotionSpace.fit`.

        Directions come from all clips, prototypes from those of known intensity: 1 is the strongest that is labelled.
        """
        graded = np.flatnonzero(np.isfinite(intensities)).tolist()
        space = EmotionSpace.fit(
            embeddings[graded],
            [labels[k] for k in graded],
            [intensities[k] for k in graded],
            [speakers[k] for k in graded],
        )
        dvm = DVM.fit(embeddings, labels, n_mix=config.mixtures, n_comp=config.rank, speakers=speakers)
        basis = dvm.basis[: config.rank]
        shifts = (space.prototypes - space.prototypes[0]) @ basis.T
        scale = float(np.sqrt(np.mean(shifts[1:] ** 2)))
        order = sorted(range(len(shifts)), key=lambda row: LABELS.index(space.labels[row]))
        found = [str(space.labels[row]) for row in order]
        means = np.stack([embeddings[np.array(labels) == label].mean(axis=0) for label in found])
        arrays = {"basis": basis / scale, "origin": space.prototypes[0], "prototypes": shifts[order] / scale}
        return cls.from_arrays(found, arrays | {"plain": (means - means[0]) @ basis.T / scale})

    def coordinates(self, embeddings: np.ndarray, anchor: np.ndarray | None = None) -> np.ndarray:
        """Return (..., K) of ``embeddings`` (..., 256), 0 at ``anchor``: the speaker's neutral mean if it is known."""
        found: np.ndarray = (embeddings - (self.origin if anchor is None else anchor)) @ self.basis.T
        return found

    def keeping(self, rank: int) -> Feeling:
        """Return the same with the first ``rank`` directions alone; 0: no emotion is told to the decoder."""
        kept = np.arange(len(self.basis)) < rank
        return replace(self, prototypes=self.prototypes * kept)

    def prototype(self, label: str) -> np.ndarray:
        """Return the coordinates (K,) of ``label`` at intensity 1."""
        if label not in self.labels:
            raise AffgenError(f"emotion {label!r}: not in this model; model has: {', '.join(self.labels)}")
        row: np.ndarray = self.prototypes[self.labels.index(label)]
        return row

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` needs besides the labels."""
        return {name: getattr(self, name) for name in ("basis", "origin", "prototypes", "plain")}

    @classmethod
    def from_arrays(cls, labels: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Feeling:
        """Return what :meth:`arrays` came from; raises :class:`AffgenError` for shapes that do not fit."""
        basis, origin, prototypes, plain = (
            np.asarray(arrays[name], dtype=np.float32) for name in ("basis", "origin", "prototypes", "plain")
        )
        rows = (len(labels), len(basis))
        if not all(np.isfinite(array).all() for array in (basis, origin, prototypes, plain)):
            raise AffgenError("emotions with numbers that are not finite")
        if basis.ndim != 2 or origin.shape != basis.shape[1:] or not prototypes.shape == plain.shape == rows:
            raise AffgenError(f"emotions of shapes {basis.shape}, {origin.shape}, {prototypes.shape} do not fit")
        return cls(tuple(labels), basis, origin, prototypes, plain)
