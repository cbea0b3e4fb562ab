"""Figures for symbolic music: what pieces are made of, how alike two sets are, what was copied from the training set.

Per file after MusPy (Dong et al., "MusPy", ISMIR 2020), per bar after Ji & Yang ("MusER", AAAI 2024), distances between
distributions after Yang & Lerch ("On the evaluation of generative models in music", Neural Computing and Applications
32, 2020). Everything returns plain floats and needs numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from affgen.errors import AffgenError
from affgen.score import Score

STEPS_PER_BEAT = 4
"""The grid on which rhythms count as equal: sixteenth notes."""

# ------------------------------------------------------------------------------------------------- of one piece


def pitch_range(score: Score) -> float:
    """PR: highest minus lowest pitch, in semitones; 0 for a score without notes (MusPy ``pitch_range``)."""
    return _pitch_range(score.arrays()["pitch"])


def pitch_classes(score: Score) -> float:
    """NPC: number of different pitch classes used, 0..12 (MusPy ``n_pitch_classes_used``)."""
    return _pitch_classes(score.arrays()["pitch"])


def polyphony(score: Score) -> float:
    """POLY: mean number of pitches sounding at once over the time in which any sounds (MusPy ``polyphony``).

    MusPy counts on ticks and reads the whole file; here it is the exact integral over beats, which is the same for
    notes on the tick grid. A pitch struck again while it sounds counts once. 0 for a score without notes.
    """
    notes = score.arrays()
    return _polyphony(notes["onset"], notes["onset"] + notes["duration"], notes["pitch"])


def bar_pitch_range(score: Score, bars: np.ndarray) -> float:
    """BPR: pitch range within a bar, mean over the bars in which a note starts; see :func:`_bars` for ``bars``."""
    return _mean(_pitch_range(pitch) for _, _, pitch in _bars(score, bars))


def bar_pitch_classes(score: Score, bars: np.ndarray) -> float:
    """BNPC: pitch classes used within a bar, mean over the bars in which a note starts."""
    return _mean(_pitch_classes(pitch) for _, _, pitch in _bars(score, bars))


def bar_polyphony(score: Score, bars: np.ndarray) -> float:
    """BPOLY: polyphony of the notes that start in a bar, mean over the bars in which a note starts."""
    return _mean(_polyphony(onset, end, pitch) for onset, end, pitch in _bars(score, bars))


def note_density(score: Score) -> float:
    """Notes per second between the first onset and the end of the last note; 0 for a score without notes."""
    notes = score.arrays()
    if not len(notes["onset"]):
        return 0.0
    start, end = score.seconds(notes["onset"].min()), score.seconds((notes["onset"] + notes["duration"]).max())
    return len(notes["onset"]) / float(end - start)


def mean_velocity(score: Score) -> float:
    """Mean MIDI velocity 1..127 of the notes; 0 for a score without notes."""
    return _mean(score.arrays()["velocity"])


def _pitch_range(pitch: np.ndarray) -> float:
    return float(np.ptp(pitch)) if len(pitch) else 0.0


def _pitch_classes(pitch: np.ndarray) -> float:
    return float(len(np.unique(pitch % 12)))


def _polyphony(onset: np.ndarray, end: np.ndarray, pitch: np.ndarray) -> float:
    """Return the sum over pitches of the time each sounds, over the time in which any sounds."""
    sounding = _covered(onset, end)
    return sum(_covered(onset[pitch == p], end[pitch == p]) for p in np.unique(pitch)) / sounding if sounding else 0.0


def _covered(start: np.ndarray, end: np.ndarray) -> float:
    """Return the length of the union of the intervals ``start (N,)`` to ``end (N,)``."""
    order = np.argsort(start)
    start, end = start[order], end[order]
    reach = np.maximum.accumulate(end)
    before = np.concatenate([[-np.inf], reach[:-1]])
    return float(np.sum(np.maximum(end - np.maximum(start, before), 0.0)))


def _bars(score: Score, bars: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return onset, end and pitch of the notes that start in each bar; bars without an onset are left out.

    ``bars (B,)`` are the rising positions of the bar lines in beats. The last one opens a bar as well, which goes on
    to the end of the piece; notes before the first belong to no bar.
    """
    bars = np.asarray(bars, dtype=float)
    if bars.ndim != 1 or not len(bars) or np.any(np.diff(bars) <= 0):
        raise AffgenError(f"bar lines of shape {bars.shape}: they must be a rising list of positions in beats")
    notes = score.arrays()
    index = np.searchsorted(bars, notes["onset"], side="right") - 1
    end = notes["onset"] + notes["duration"]
    return [
        (notes["onset"][index == i], end[index == i], notes["pitch"][index == i]) for i in np.unique(index[index >= 0])
    ]


def _mean(values: Iterable[float]) -> float:
    items = np.fromiter(values, dtype=float)
    return float(items.mean()) if len(items) else 0.0


# ------------------------------------------------------------------------------------------ of sets of numbers


def overlap(a: np.ndarray, b: np.ndarray, *, points: int = 1000) -> float:
    r"""OA: overlapping area of the distributions of ``a (N,)`` and ``b (M,)``, 0 (apart) to 1 (the same).

    :math:`\int \min(p_a, p_b)` of two Gaussian kernel densities with Scott's bandwidth :math:`\sigma n^{-1/5}`, on
    ``points`` positions that reach three bandwidths beyond all values (Yang & Lerch 2020, section 3.2). A set without
    spread has no density: two such sets overlap fully if equal and not at all otherwise, one beside a spread set
    borrows the other's bandwidth. Raises :class:`AffgenError` for an empty set or values that are not finite.
    """
    a, b = _finite(a, "a"), _finite(b, "b")
    widths = [_scott(a), _scott(b)]
    if max(widths) == 0:
        return float(a[0] == b[0])
    width_a, width_b = (width or max(widths) for width in widths)
    margin = 3.0 * max(width_a, width_b)
    grid = np.linspace(min(a.min(), b.min()) - margin, max(a.max(), b.max()) + margin, points)
    density_a, density_b = _density(a, width_a, grid), _density(b, width_b, grid)
    return float(min(np.minimum(density_a, density_b).sum() * (grid[1] - grid[0]), 1.0))


def _scott(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) * len(values) ** -0.2) if len(values) > 1 else 0.0


def _density(values: np.ndarray, width: float, grid: np.ndarray) -> np.ndarray:
    """Return the Gaussian kernel density of ``values (N,)`` at ``grid (P,)``; equal values are summed once."""
    centres, counts = np.unique(values, return_counts=True)
    total = np.zeros_like(grid)
    for block in range(0, len(centres), 1024):  # bounds the memory to 1024 x P
        offsets = (grid - centres[block : block + 1024, None]) / width
        total += counts[block : block + 1024] @ np.exp(-0.5 * offsets**2)
    return total / (len(values) * width * np.sqrt(2.0 * np.pi))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of ``a (N,)`` and ``b (N,)``, ties at their mean rank; 0 if one is constant.

    Pearson's correlation of the ranks (Spearman 1904). Raises :class:`AffgenError` unless both are finite and equally
    long, with at least two values.
    """
    a, b = _finite(a, "a"), _finite(b, "b")
    if len(a) != len(b) or len(a) < 2:
        raise AffgenError(f"rank correlation of {len(a)} and {len(b)} values: it needs two equally long lists of 2 up")
    ranks_a, ranks_b = _ranks(a) - (len(a) + 1) / 2, _ranks(b) - (len(b) + 1) / 2
    norm = float(np.linalg.norm(ranks_a) * np.linalg.norm(ranks_b))
    return float(np.clip(ranks_a @ ranks_b / norm, -1.0, 1.0)) if norm > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, equal values at the mean of the ranks they share."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[inverse.reshape(-1)]


def silhouette(x: np.ndarray, labels: np.ndarray) -> float:
    r"""Return the mean silhouette of the points ``x (N, D)`` in the clusters ``labels (N,)``, -1 to 1.

    :math:`(b - a) / \max(a, b)` with a the mean Euclidean distance to the own cluster and b that to the nearest other
    one; a point alone in its cluster counts 0 (Rousseeuw 1987). Raises :class:`AffgenError` for fewer than 2 clusters.
    """
    x = np.asarray(x, dtype=float)
    names, own = np.unique(np.asarray(labels), return_inverse=True)
    if x.ndim != 2 or len(x) != len(own) or len(names) < 2:
        raise AffgenError(f"points {x.shape} in {len(names)} clusters: (N, D) with N labels of 2 up are needed")
    member = np.eye(len(names))[own]  # (N, clusters)
    sums = np.empty((len(x), len(names)))
    for i, point in enumerate(x):  # row by row: the (N, N, D) differences would not fit for large N
        sums[i] = np.linalg.norm(x - point, axis=1) @ member
    sizes = member.sum(axis=0)
    rows = np.arange(len(x))
    inside = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    nearest = means.min(axis=1)
    scores = (nearest - inside) / np.maximum(np.maximum(nearest, inside), np.finfo(float).tiny)
    return float(np.mean(np.where(sizes[own] > 1, scores, 0.0)))


def confusion(truth: Sequence[str], said: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return counts ``(E, E)``: rows the true and columns the given labels, in the order of ``names``.

    Raises :class:`AffgenError` for lists of unequal length or a label that is not among ``names``.
    """
    if len(truth) != len(said):
        raise AffgenError(f"{len(truth)} true labels beside {len(said)} given ones: there must be one for one")
    unknown = sorted((set(truth) | set(said)) - set(names))
    if unknown:
        raise AffgenError(f"label {unknown[0]!r} is not one of {', '.join(names)}")
    place = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(table, ([place[t] for t in truth], [place[s] for s in said]), 1)
    return table


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float).reshape(-1)
    if not len(values) or not np.isfinite(values).all():
        raise AffgenError(f"{name}: {len(values)} values, all of which must be finite and of which there must be some")
    return values


# ------------------------------------------------------------------------------------------------- of copying


def longest_verbatim_run(piece: Score, corpus: Sequence[Score] | VerbatimIndex, *, mode: str = "pitch") -> int:
    """Return how many consecutive notes of ``piece`` are those of some piece in ``corpus``, at the longest stretch.

    Notes are taken in the order of their onsets, then of their pitches. ``mode="pitch"`` compares pitches alone,
    ``mode="rhythm"`` also the time from note to note in whole sixteenths (scores on another grid are rounded to it).
    0 if not even one pitch is shared. Exact. For many pieces make one :class:`VerbatimIndex` and give it as
    ``corpus``; the index then decides the mode. Raises :class:`AffgenError` for any other mode.
    """
    index = corpus if isinstance(corpus, VerbatimIndex) else VerbatimIndex(corpus, mode=mode)
    return index.longest_run(piece)


class VerbatimIndex:
    """All stretches of notes in a corpus, for :func:`longest_verbatim_run`.

    Every stretch of 2^k symbols has a rank among those of its length, and a stretch of any length between 2^k and
    2^(k+1) is the pair of ranks of its first and its last 2^k symbols, as in the prefix-doubling construction of a
    suffix array (Manber & Myers 1993). Ranks of symbols that differ differ, so no match needs to be verified.
    """

    def __init__(self, corpus: Sequence[Score], *, mode: str = "pitch") -> None:
        if mode not in ("pitch", "rhythm"):
            raise AffgenError(f"mode {mode!r}: accepted are 'pitch' and 'rhythm'")
        self._rhythm = mode == "rhythm"
        self._pitches = np.unique(np.concatenate([[-1], *(score.arrays()["pitch"] for score in corpus)]))
        pieces = [self._symbols(score) for score in corpus]
        symbols = np.concatenate([np.zeros(0, dtype=np.int64), *pieces])
        self._room = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(len(p), 0, -1) for p in pieces)])
        self._alphabet = np.unique(symbols)
        self._levels = [np.searchsorted(self._alphabet, symbols)]
        self._tables: dict[int, np.ndarray] = {}

    def longest_run(self, piece: Score) -> int:
        """Return the length in notes of the longest stretch of ``piece`` that is in the corpus."""
        run = self._longest(_find(self._alphabet, self._symbols(piece)))
        if not self._rhythm:
            return run
        # a step joins two notes; without a common step one note may still be shared
        return run + 1 if run else int(np.isin(piece.arrays()["pitch"], self._pitches).any())

    def _symbols(self, score: Score) -> np.ndarray:
        """Return one number per note (its pitch), or per step to the next note (both pitches and the sixteenths)."""
        notes = score.arrays()
        pitch = notes["pitch"]
        if not self._rhythm:
            return pitch
        steps = np.diff(np.floor(notes["onset"] * STEPS_PER_BEAT + 0.5).astype(np.int64))
        return (steps * 128 + pitch[:-1]) * 128 + pitch[1:]

    def _longest(self, ranks: np.ndarray) -> int:
        """Return the longest stretch of ``ranks (N,)``, symbols of the piece as ranks in the corpus, -1 for unknown."""
        if not (ranks >= 0).any():
            return 0
        level = 0
        while len(longer := self._lookup(ranks, level, 2 ** (level + 1))) and (longer >= 0).any():
            ranks, level = longer, level + 1
        low, high = 2**level, 2 ** (level + 1)  # a stretch of `low` is there, none of `high`
        while high - low > 1:
            middle = (low + high) // 2
            if (self._lookup(ranks, level, middle) >= 0).any():
                low = middle
            else:
                high = middle
        return low

    def _lookup(self, ranks: np.ndarray, level: int, length: int) -> np.ndarray:
        """Return the ranks of stretches of ``length`` in a piece, given those of 2^level symbols; -1 for unknown."""
        shift = length - 2**level
        first, last = ranks[: max(len(ranks) - shift, 0)], ranks[shift:]
        pairs = np.where((first >= 0) & (last >= 0), first * (len(self._room) + 1) + last, -1)
        return _find(self._table(level, length), pairs)

    def _table(self, level: int, length: int) -> np.ndarray:
        """Return the sorted pairs that stand for all stretches of ``length`` in the corpus."""
        if length not in self._tables:
            starts = np.flatnonzero(self._room >= length)
            ranks = self._levels[level]
            pairs = ranks[starts] * (len(self._room) + 1) + ranks[starts + length - 2**level]
            self._tables[length], inverse = np.unique(pairs, return_inverse=True)
            if length == 2 ** (level + 1) and len(self._levels) == level + 1:
                following = np.full(len(self._room), -1, dtype=np.int64)
                following[starts] = inverse.reshape(-1)
                self._levels.append(following)
        return self._tables[length]


def _find(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the places of ``values`` in the sorted ``table``, -1 for those that are not in it."""
    if not len(table):
        return np.full(len(values), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[place] == values, place, -1)
