"""Pseudo-phonemes for speech without text: k-means of the aligner's hidden features, whitened, in smoothed runs.

As discrete units from self-supervised models (Hsu et al. 2021, "HuBERT"; van Niekerk et al. 2022 on soft units), with
the features of a network that was trained to tell phones of three languages instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from affgen.align.config import UnitsConfig
from affgen.errors import AffgenError


@dataclass(frozen=True, eq=False)
class Codebook:
    """``mean`` (C,), ``basis`` (C, D) that whitens, and ``centroids`` (K, D); ``scale`` is their mean squared error."""

    mean: np.ndarray
    basis: np.ndarray
    centroids: np.ndarray
    scale: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return squared distances (T, K) of features (T, C) to the centroids, after whitening."""
        x = (features - self.mean) @ self.basis
        return _squared(x.astype(np.float32), self.centroids)

    def units(self, features: np.ndarray, switch: float, shortest: int) -> np.ndarray:
        """Return the unit of each frame (T,), with a cost for every change and runs shorter than ``shortest`` gone."""
        if not len(features):
            return np.zeros(0, dtype=np.int64)
        return without_short_runs(smoothed(self.distances(features), switch * self.scale), shortest)


def learn(features: np.ndarray, config: UnitsConfig, seed: int = 0) -> Codebook:
    """Return the codebook of features (N, C): principal components of unit variance, k-means++ and Lloyd's algorithm.

    Raises :class:`AffgenError` for fewer frames than units.
    """
    if len(features) < config.count:
        raise AffgenError(f"{len(features)} frames for {config.count} units; give more sound or set units.count")
    rng = np.random.default_rng(seed)
    chosen = features[rng.permutation(len(features))[: config.frames]].astype(np.float64)
    mean = chosen.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((chosen - mean).T))
    kept = np.argsort(values)[::-1][: config.dimensions]
    basis = vectors[:, kept] / np.sqrt(values[kept] + 1e-4 * values.max())
    x = ((chosen - mean) @ basis).astype(np.float32)
    centroids = _spread(x, config.count, rng)
    for _ in range(config.rounds):
        nearest = _squared(x, centroids).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(centroids))
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, x)
        empty = counts == 0
        centroids = sums / np.maximum(counts, 1)[:, None]
        centroids[empty] = x[rng.integers(0, len(x), int(empty.sum()))]
    scale = float(_squared(x, centroids).min(axis=1).mean())
    return Codebook(mean.astype(np.float32), basis.astype(np.float32), centroids.astype(np.float32), scale)


def _spread(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` rows of x (N, D), each drawn with a chance that grows with its distance to those before."""
    sample = x[rng.permutation(len(x))[: max(10_000, 4 * count)]]
    chosen = [sample[rng.integers(len(sample))]]
    nearest = _squared(sample, np.stack(chosen))[:, 0]
    for _ in range(count - 1):
        total = nearest.sum()
        share = nearest / total if total > 0 else None
        chosen.append(sample[rng.choice(len(sample), p=share)])
        nearest = np.minimum(nearest, _squared(sample, chosen[-1][None])[:, 0])
    return np.stack(chosen)


def _squared(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return squared distances (N, K)."""
    product = x @ centroids.T
    return np.maximum((x**2).sum(axis=1)[:, None] - 2 * product + (centroids**2).sum(axis=1), 0).astype(np.float64)


def smoothed(costs: np.ndarray, switch: float) -> np.ndarray:
    """Return the path (T,) of least cost through ``costs`` (T, K), where every change costs ``switch`` (Viterbi)."""
    total = costs[0].copy()
    back = np.zeros(costs.shape, dtype=np.int32)
    stay = np.arange(costs.shape[1])
    for t in range(1, len(costs)):
        best = int(total.argmin())
        change = total > total[best] + switch
        back[t] = np.where(change, best, stay)
        total = np.where(change, total[best] + switch, total) + costs[t]
    path = np.empty(len(costs), dtype=np.int64)
    path[-1] = total.argmin()
    for t in range(len(costs) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def without_short_runs(path: np.ndarray, shortest: int) -> np.ndarray:
    """Return ``path`` (T,) with every run shorter than ``shortest`` frames split between its neighbours."""
    out = path.copy()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(path)) + 1, [len(path)]])
    for start, end in pairwise(edges):
        if end - start >= shortest or end - start == len(path):
            continue
        middle = len(path) if end == len(path) else start if start == 0 else (start + end) // 2
        out[start:middle] = out[start - 1] if start else out[start]
        out[middle:end] = path[end] if end < len(path) else out[start - 1]
    return out
