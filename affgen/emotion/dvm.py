"""The directional vector model (DVM) of EmoReg: which way, in the space of embeddings, an emotion lies.

EmoReg (Gudmalwar et al., AAAI 2025, arXiv 2412.20359), figure 3:

==========================  ==========================  ==========================================================
code                        in the paper                meaning
==========================  ==========================  ==========================================================
``means``                   local means of a GMM        where the clips of an emotion gather
``basis``, ``rank``         PCA, PCA^-1                 axes of the differences between local means
:meth:`DVM.direction`       e_d = PCA^-1(PCA(e_r-e_s))  reference mode: towards a clip
:meth:`DVM.direction_to`    --                          prototype mode: towards a label, no clip needed
:meth:`DVM.apply`           e_ir = e_s + i e_d          intensity i, which may change from frame to frame
:meth:`DVM.push`            --                          beyond i = 1 along the axis all emotions share
:meth:`DVM.ablated`         w/o DVM                     mode ``none``: plain differences
==========================  ==========================  ==========================================================

The paper does not say how PCA and GMM meet. Read here: PCA of all differences (local mean of an emotion - local mean of
neutral), so that only what tells emotions from neutral passes. It leaves open the number of mixtures (``n_mix``), of
components (``n_comp``) and whether PCA is centred (``centred``). By default it is not: then PCA is linear and no
difference gives no direction, while centred PCA moves even e_r = e_s by the part of the mean it cannot express.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from affgen.emotion.space import NEUTRAL
from affgen.errors import AffgenError

_ROUNDS = 100
_TOLERANCE = 1e-5
_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class DVM:
    """What :meth:`fit` found.

    ``labels`` (E), neutral first; ``means`` (E, M, D) local means and ``weights`` (E, M) their shares; ``basis``
    (D, D) orthonormal rows, those that explain the differences first; ``variances`` (D,) mean square of the differences
    along each; ``centre`` (D,) of the PCA, zeros unless centred; ``rank`` rows of the basis in use.
    """

    labels: tuple[str, ...]
    means: np.ndarray
    weights: np.ndarray
    basis: np.ndarray
    variances: np.ndarray
    centre: np.ndarray
    rank: int

    def __post_init__(self) -> None:
        width, count = len(self.basis), len(self.labels)
        fits = (
            self.means.ndim == 3
            and (self.means.shape[0], self.means.shape[2]) == (count, width)
            and self.weights.shape == self.means.shape[:2]
            and self.basis.shape == (width, width)
            and self.variances.shape == self.centre.shape == (width,)
        )
        if not fits or NEUTRAL not in self.labels:
            raise AffgenError(
                f"DVM: means {self.means.shape}, weights {self.weights.shape} and basis {self.basis.shape} do not fit "
                f"{count} labels; needed are (E, M, D), (E, M) and (D, D), neutral among the labels"
            )
        if not 1 <= self.rank <= width:
            raise AffgenError(f"DVM: {self.rank} components; accepted: 1 to {width}")

    @classmethod
    def fit(
        cls,
        embeddings: np.ndarray,
        labels: Sequence[str],
        *,
        n_mix: int = 1,
        n_comp: int | float | None = None,
        speakers: Sequence[str] | None = None,
        centred: bool = False,
        seed: int = 0,
    ) -> DVM:
        """Find local means and the axes of their differences from ``embeddings`` (N, D) with a label each.

        ``n_mix`` local means per emotion; ``n_comp`` as for :meth:`keeping`. With ``speakers`` (N) every embedding is
        first measured from the neutral mean of its speaker, so that differences of voices are no directions; clips of
        speakers without a neutral one are left out. Equal input and ``seed`` give equal bytes. Raises
        :class:`AffgenError` if neutral or any other emotion is missing, or has fewer clips than ``n_mix``.
        """
        x, names = _checked(embeddings, labels)
        if speakers is not None:
            x, names = _anchored(x, names, speakers)
        found = tuple(sorted(set(names.tolist()), key=lambda name: (name != NEUTRAL, name)))
        if NEUTRAL not in found or len(found) < 2:
            raise AffgenError(f"emotions {', '.join(found) or 'none'}; needed are neutral and at least one other")
        parts = [
            _mixture(x[names == name], n_mix, np.random.default_rng([seed, k]), name) for k, name in enumerate(found)
        ]
        means, weights = np.stack([m for m, _ in parts]), np.stack([w for _, w in parts])
        differences = (means[1:, :, None] - means[0][None, None]).reshape(-1, x.shape[1])
        centre = differences.mean(axis=0) if centred else np.zeros(x.shape[1])
        basis, variances = _axes(differences - centre, x)
        means, weights, basis, variances, centre = (
            part.astype(np.float32) for part in (means, weights, basis, variances, centre)
        )
        return cls(found, means, weights, basis, variances, centre, len(basis)).keeping(n_comp)

    # ------------------------------------------------------------------------------------------ which components

    def keeping(self, n_comp: int | float | None) -> DVM:
        """Return the same model with ``n_comp`` components: a count, or the share of variance to explain, in (0, 1).

        None keeps all D: then every difference passes as it is, which is the paper's ablation without DVM. Raises
        :class:`AffgenError` for anything else.
        """
        if n_comp is None:
            return replace(self, rank=len(self.basis))
        if isinstance(n_comp, int) and not isinstance(n_comp, bool):
            return replace(self, rank=n_comp)
        if isinstance(n_comp, float) and 0 < n_comp < 1:
            shares = np.cumsum(self.variances, dtype=np.float64) / np.sum(self.variances, dtype=np.float64)
            return replace(self, rank=int(np.searchsorted(shares, n_comp)) + 1)
        raise AffgenError(f"n_comp {n_comp!r}; accepted: a count of components, a share of variance in (0, 1), or null")

    def ablated(self) -> DVM:
        """Return the ablation ``none``: directions are plain differences, whatever was kept before."""
        return self.keeping(None)

    def project(self, vectors: np.ndarray, rank: int | None = None) -> np.ndarray:
        """Return PCA^-1(PCA(``vectors``)) (..., D) with the first ``rank`` axes (default: those in use)."""
        rank = self.rank if rank is None else rank
        if not 1 <= rank <= len(self.basis):
            raise AffgenError(f"DVM: rank {rank}; accepted: 1 to {len(self.basis)}")
        x = self._vectors(vectors)
        if rank == len(self.basis):
            return x  # exactly; the detour over the axes would round
        kept = self.basis[:rank]
        projected: np.ndarray = (x - self.centre) @ kept.T @ kept + self.centre
        return projected

    # ---------------------------------------------------------------------------------------------- directions

    def direction(self, e_s: np.ndarray, e_r: np.ndarray) -> np.ndarray:
        """Return e_d (..., D), the way from ``e_s`` to ``e_r`` (..., D) along the axes in use: reference mode."""
        return self.project(self._vectors(e_r) - self._vectors(e_s))

    def prototype(self, label: str) -> np.ndarray:
        """Return the mean (D,) of ``label``; with speakers in the fit, measured from the speaker's neutral mean.

        Raises :class:`AffgenError` with the labels there are.
        """
        if label not in self.labels:
            raise AffgenError(f"emotion {label!r}: not in this DVM; it has: {', '.join(self.labels)}")
        row = self.labels.index(label)
        mean: np.ndarray = self.weights[row] @ self.means[row]
        return mean

    def direction_to(self, label: str, source: str = NEUTRAL) -> np.ndarray:
        """Return e_d (D,), the way from the mean of ``source`` to that of ``label``: prototype mode, no reference."""
        return self.project(self.prototype(label) - self.prototype(source))

    def apply(self, e_s: np.ndarray, direction: np.ndarray, i: float | np.ndarray) -> np.ndarray:
        """Return e_ir = e_s + i e_d for ``e_s`` and ``direction`` (..., D); i = 0 gives ``e_s`` bit for bit.

        The axes of ``i`` are the leading axes of the result, D is the last: a scalar for all; (B,) with ``e_s`` (B, D)
        for each item, giving (B, D); (T,) with ``e_s`` (D,), or (B, T) with (B, D), for each frame, giving (T, D) and
        (B, T, D). Raises :class:`AffgenError` for shapes that do not fit.
        """
        e_s, direction, level = self._vectors(e_s), self._vectors(direction), _level(i)
        return _ahead(e_s, level) + level[..., None] * _ahead(direction, level)

    def push(
        self, e_s: np.ndarray, difference: np.ndarray, i: float | np.ndarray, *, which: int = 3, shared: int = 1
    ) -> np.ndarray:
        """Return e_s + P3(e_d) + (i - 1) P1(e_d): the emotion in full, its intensity along the first axis alone.

        For i from 1 up, where it goes on from :meth:`apply` with rank 3; at i = 0 it is not ``e_s``. The first axis,
        shared by the emotions and close to arousal, extrapolates best; more are needed to tell emotions apart.
        ``difference`` (..., D) is plain, e_r - e_s; ``which`` and ``shared`` are the two ranks; shapes as in
        :meth:`apply`.
        """
        e_s, full, level = self._vectors(e_s), self.project(difference, min(which, len(self.basis))), _level(i)
        strong = self.project(difference, min(shared, len(self.basis)))
        return _ahead(e_s, level) + _ahead(full, level) + (level - 1)[..., None] * _ahead(strong, level)

    def _vectors(self, values: np.ndarray) -> np.ndarray:
        x = np.asarray(values)
        if x.ndim < 1 or x.shape[-1] != len(self.basis) or not np.isfinite(x).all():
            raise AffgenError(f"embedding of shape {x.shape}; accepted: (..., {len(self.basis)}), finite numbers")
        return x

    # -------------------------------------------------------------------------------------------------- files

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` needs besides the labels."""
        names = ("means", "weights", "basis", "variances", "centre")
        return {**{name: getattr(self, name) for name in names}, "rank": np.array([self.rank], dtype=np.int64)}

    @classmethod
    def from_arrays(cls, labels: Sequence[str], arrays: Mapping[str, np.ndarray]) -> DVM:
        """Return the model that :meth:`arrays` came from; raises :class:`AffgenError` for what does not fit."""
        names = ("means", "weights", "basis", "variances", "centre")
        missing = [name for name in (*names, "rank") if name not in arrays]
        if missing:
            raise AffgenError(f"DVM: no array {missing[0]!r}; needed are {', '.join(names)} and rank")
        rank = np.asarray(arrays["rank"]).reshape(-1)
        if len(rank) != 1:
            raise AffgenError(f"DVM: {len(rank)} ranks; needed is one")
        means, weights, basis, variances, centre = (np.asarray(arrays[name], dtype=np.float32) for name in names)
        return cls(tuple(labels), means, weights, basis, variances, centre, int(rank[0]))


def _level(i: float | np.ndarray) -> np.ndarray:
    level = np.asarray(i)
    level = level if level.dtype == np.float32 else level.astype(np.float64)
    if not np.isfinite(level).all():
        raise AffgenError("intensity that is not finite; accepted: finite numbers")
    return level


def _ahead(x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return ``x`` (..., D) with axes of length 1 before D for the frames that only ``level`` has; check the rest."""
    shared = min(x.ndim - 1, level.ndim)
    if any(1 not in sizes and len(set(sizes)) > 1 for sizes in zip(x.shape[:shared], level.shape, strict=False)):
        raise AffgenError(f"intensity of shape {level.shape} for embeddings {x.shape}: their leading axes must agree")
    return x.reshape(*x.shape[:-1], *[1] * (level.ndim - shared), x.shape[-1])


def _checked(embeddings: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    x, names = np.asarray(embeddings, dtype=np.float64), np.array(labels)
    if x.ndim != 2 or not x.size or len(names) != len(x):
        raise AffgenError(f"embeddings of shape {x.shape} with {len(names)} labels: (N, D) with a label each is needed")
    if not np.isfinite(x).all():
        raise AffgenError("an embedding that is not finite; accepted: finite numbers")
    return x, names


def _anchored(x: np.ndarray, names: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the clips of speakers with neutral ones, measured from each speaker's neutral mean."""
    who = np.array(speakers)
    if len(who) != len(x):
        raise AffgenError(f"{len(who)} speakers for {len(x)} embeddings: one each is needed")
    neutral = {s: x[(who == s) & (names == NEUTRAL)].mean(axis=0) for s in sorted(set(who[names == NEUTRAL]))}
    if not neutral:
        raise AffgenError("no speaker has neutral clips; directions start from them")
    kept = np.isin(who, sorted(neutral))
    return x[kept] - np.stack([neutral[s] for s in who[kept]]), names[kept]


def _axes(differences: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return orthonormal rows (D, D), axes of ``differences`` (K, D) first, and the mean square (D,) along each.

    A handful of differences spans few of the D axes. The others follow as the principal axes of what is left of the
    embeddings ``x`` (N, D): the completion is then a matter of the data, not of a linear-algebra library.
    """
    _, lengths, rows = np.linalg.svd(differences, full_matrices=False)
    spanned = int(np.sum(lengths > lengths[0] * 1e-9))
    if not lengths[0] > 0:
        raise AffgenError("the emotions' means are equal to the neutral one; no direction can be found")
    first = rows[:spanned]
    rest = x - x.mean(axis=0)
    rest = rest - rest @ first.T @ first
    # Axes of the span get negative variance here, so that they come last and are cut off.
    spread = rest.T @ rest / len(rest) - (1 + np.square(rest).sum()) * first.T @ first
    others = np.linalg.eigh(spread)[1].T[::-1][: x.shape[1] - spanned]
    basis = np.concatenate([first, others])
    # The sign of an axis is arbitrary: the largest entry is made positive, so that fits can be compared.
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1)
    variances = np.zeros(x.shape[1])
    variances[:spanned] = lengths[:spanned] ** 2 / len(differences)
    return basis * np.where(largest < 0, -1.0, 1.0), variances


# ------------------------------------------------------------------------------------------------ local means


def _mixture(x: np.ndarray, count: int, rng: np.random.Generator, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return means (M, D), largest share first, and shares (M,) of a Gaussian mixture fitted to ``x`` (N, D).

    Expectation-maximisation with diagonal covariances, started by k-means++. Variances are kept above a thousandth of
    the data's mean variance: with as many axes as clips a component could close in on a single clip.
    """
    if not 1 <= count <= len(x):
        raise AffgenError(f"emotion {label!r}: {len(x)} clips for {count} local means; accepted: n_mix 1 to {len(x)}")
    shift = x.mean(axis=0)
    x = x - shift  # about 0, where the squares below cancel least
    floor = _FLOOR * float(np.square(x).mean()) + 1e-12
    means = _lloyd(x, _scattered(x, count, rng))
    share = np.eye(count)[_distances(x, means).argmin(axis=1)]
    last = -np.inf
    for _ in range(_ROUNDS):
        total = share.sum(axis=0) + 1e-9
        means = share.T @ x / total[:, None]
        variances = np.maximum(share.T @ x**2 / total[:, None] - means**2, floor)
        share, likelihood = _responsibilities(x, means, variances, total / len(x))
        if likelihood - last < _TOLERANCE * abs(likelihood):
            break
        last = likelihood
    # Shares and means of one and the same assignment, so that sum_k share_k mean_k is the mean of all clips.
    total = share.sum(axis=0)
    means = share.T @ x / np.maximum(total, 1e-9)[:, None]
    order = np.argsort(-total, kind="stable")
    return means[order] + shift, total[order] / len(x)


def _responsibilities(
    x: np.ndarray, means: np.ndarray, variances: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return p(k | x) (N, M) and the mean log-likelihood."""
    square = x**2 @ (1 / variances).T - 2 * x @ (means / variances).T + (means**2 / variances).sum(axis=1)
    joint = np.log(shares) - 0.5 * (square + np.log(2 * np.pi * variances).sum(axis=1))
    top = joint.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True))
    return np.exp(joint - total), float(total.mean())


def _distances(x: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return squared distances (N, M)."""
    squares: np.ndarray = np.square(x).sum(axis=1)[:, None] - 2 * x @ means.T + np.square(means).sum(axis=1)
    return np.maximum(squares, 0)


def _scattered(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` rows of ``x``, each drawn by its squared distance to those before: k-means++."""
    chosen = [int(rng.integers(len(x)))]
    while len(chosen) < count:
        nearest = _distances(x, x[chosen]).min(axis=1)
        nearest[chosen] = 0
        total = float(nearest.sum())
        free = np.setdiff1d(np.arange(len(x)), chosen)
        chosen.append(int(rng.choice(len(x), p=nearest / total) if total > 0 else rng.choice(free)))
    return x[chosen]


def _lloyd(x: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return ``means`` (M, D) after a few rounds of k-means; one that loses all its points stays where it is."""
    for _ in range(20):
        own = np.eye(len(means))[_distances(x, means).argmin(axis=1)]
        total = own.sum(axis=0)
        means = np.where(total[:, None] > 0, own.T @ x / np.maximum(total, 1)[:, None], means)
    return means
