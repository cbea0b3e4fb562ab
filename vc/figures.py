"""Figures of a converter, computed from what was read in its outputs; numpy only, no sound is touched here.

A reading is a plain dictionary that :mod:`vc.evaluate_tools` makes of one sound, with ``utterance`` and ``speaker`` of
its source, ``label`` and ``intensity`` asked for, and what was measured. Strengths are signed projections anchored at
the source; divided by the natural gap, what the same judge hears between neutral and strong clips of the same speakers,
they are in units in which 1 is as strong as the speakers themselves are.

===================  ==============================================================================================
figure               meaning
===================  ==============================================================================================
``spearman``         rank correlation of intensity asked and judged in one utterance; :data:`RESOLUTION` counts as a tie
``monotone``         whether each step up is heard as one, by more than :data:`RESOLUTION`
``range``            judged(1) - judged(0)
``rmse``             root mean square of judged - asked over the intensities
``uniformity``       1 - total variation between the shares of the steps and even ones; 0 where nothing rises
``frechet``          Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, equation 6)
===================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Reading = Mapping[str, Any]
Key = tuple[str, str]
"""Utterance and label: what one curve over intensities belongs to."""

RESOLUTION = 0.01
"""Differences under this share of the natural gap are none: else rounding alone would order a voice made louder."""
DRAWS = 1000
TOP = 1.0
"""The intensity at which what is reached is judged."""


# ------------------------------------------------------------------------------------------------- one curve


def spearman(asked: Sequence[float], judged: Sequence[float], resolution: float = RESOLUTION) -> float:
    """Return the rank correlation of ``asked`` and ``judged``, ties sharing a rank; 0 where one of them is constant."""
    values = np.asarray(judged, dtype=float)
    ranks = [_ranks(np.asarray(asked, dtype=float)), _ranks(np.round((values - values[0]) / resolution))]
    a, b = (rank - rank.mean() for rank in ranks)
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def control(asked: Sequence[float], judged: Sequence[float]) -> dict[str, float]:
    """Return spearman, monotone, range, rmse and uniformity of one curve that begins at 0 and passes :data:`TOP`.

    ``asked`` rises; ``judged`` is in units of the natural gap.
    """
    x, y = np.asarray(asked, dtype=float), np.asarray(judged, dtype=float)
    return {
        "spearman": spearman(asked, judged),
        "monotone": float(bool(np.all(np.diff(y) > RESOLUTION))),
        "range": float(y[x.tolist().index(TOP)] - y[0]),
        "rmse": float(np.sqrt(np.mean((y - x) ** 2))),
        "uniformity": uniformity(asked, judged),
    }


def uniformity(asked: Sequence[float], judged: Sequence[float]) -> float:
    """Return how evenly ``judged`` rises along ``asked``: 1 evenly, 0 in one leap or not at all; never below 0."""
    steps, wanted = np.diff(judged), np.diff(asked)
    if steps.sum() <= RESOLUTION:
        return 0.0
    apart = 0.5 * np.abs(steps / steps.sum() - wanted / wanted.sum()).sum()
    return float(max(0.0, 1 - apart / (1 - wanted.min() / wanted.sum())))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    shared: np.ndarray = (last - (count - 1) / 2)[place]
    return shared


# ----------------------------------------------------------------------------------------------- many readings


def curves(readings: Iterable[Reading]) -> dict[Key, list[Reading]]:
    """Return the readings of each utterance and label by rising intensity."""
    found: dict[Key, list[Reading]] = {}
    for reading in readings:
        found.setdefault((reading["utterance"], reading["label"]), []).append(reading)
    return {key: sorted(rows, key=lambda r: float(r["intensity"])) for key, rows in sorted(found.items())}


def at(readings: Iterable[Reading], intensity: float = TOP) -> list[Reading]:
    """Return the readings at ``intensity``."""
    return [reading for reading in readings if reading["intensity"] == intensity]


def gaps(natural: Iterable[Reading]) -> dict[str, float]:
    """Return the natural gap of each label: the mean strength of the speakers' own strong clips of it."""
    by: dict[str, list[float]] = {}
    for reading in at(natural):
        by.setdefault(reading["label"], []).append(reading["strength"][reading["label"]])
    return {label: float(np.mean(values)) for label, values in sorted(by.items())}


def judged(reading: Reading, gap: Mapping[str, float], label: str | None = None) -> float:
    """Return the strength of ``label`` (default: the one asked for) in natural gaps; NaN where there is no gap."""
    name = reading["label"] if label is None else label
    size = gap.get(name, float("nan"))
    return float(reading["strength"][name] / size) if size > 0 else float("nan")


def values(readings: Sequence[Reading], gap: Mapping[str, float]) -> dict[str, dict[Key, float]]:
    """Return every figure that one utterance and label has by itself: ``{figure: {key: value}}``, NaN left out.

    Figures of the top intensity are probability, accuracy, accuracy_among, and those that a reading holds as plain
    numbers; speaker similarities are named ``speaker.ENCODER.WHAT``, error shares in points ``phones``, ``words``.
    """
    found: dict[str, dict[Key, float]] = {}
    labels = {"neutral", *(reading["label"] for reading in readings)}
    for key, rows in curves(readings).items():
        single: dict[str, float] = {}
        if len(rows) > 1 and rows[0]["intensity"] == 0 and at(rows):
            single |= control([r["intensity"] for r in rows], [judged(r, gap) for r in rows])
        for reading in at(rows):
            single |= _reached(reading, labels) | numbers(reading)
        for name, value in single.items():
            if np.isfinite(value):
                found.setdefault(name, {})[key] = value
    return found


def _reached(reading: Reading, labels: set[str]) -> dict[str, float]:
    chance, label = reading["posterior"], reading["label"]
    among = {name: p for name, p in chance.items() if name in labels}
    return {
        "accuracy": float(max(chance, key=lambda name: chance[name]) == label),
        "accuracy_among": float(max(among, key=lambda name: among[name]) == label),
        "probability": float(chance[label]),
    }


def numbers(reading: Reading) -> dict[str, float]:
    """Return the plain numbers of a reading, groups joined by a dot, and errors as a share in points."""
    flat = dict(reading["numbers"])
    for encoder, likeness in reading["speaker_likeness"].items():
        flat |= {f"speaker.{encoder}.{what}": value for what, value in likeness.items()}
    for name, (wrong, count) in reading["errors"].items():
        flat[name] = 100 * wrong / max(count, 1)
    return {name: float(value) for name, value in flat.items()}


def interval(
    value_of: Mapping[Key, float], speaker_of: Mapping[str, str], *, median: bool = False, seed: int = 0
) -> dict[str, float]:
    """Return the mean or ``median`` as ``value``, and ``low`` and ``high`` of its 95 % interval by bootstrap.

    Speakers are drawn, then their utterances, with all labels of an utterance together. NaN where there are no values.
    """
    if not value_of:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "count": 0}
    utterances = sorted({utterance for utterance, _ in value_of})
    times = _drawn([speaker_of[name] for name in utterances], np.random.default_rng(seed))  # (DRAWS, U)
    place = {name: k for k, name in enumerate(utterances)}
    every = np.array(list(value_of.values()))
    weight = times[:, [place[utterance] for utterance, _ in value_of]]  # (DRAWS, N)
    if median:
        order = np.argsort(every, kind="stable")
        summed = np.cumsum(weight[:, order], axis=1)
        drawn = every[order][(summed >= summed[:, -1:] / 2).argmax(axis=1)]
    else:
        drawn = weight @ every / weight.sum(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    value = float(np.median(every) if median else every.mean())
    return {"value": value, "low": float(low), "high": float(high), "count": len(every)}


def _drawn(speakers: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return how often each utterance (U,) is drawn, (DRAWS, U), by drawing speakers and then utterances of each."""
    names, owner = np.unique(speakers, return_inverse=True)
    often = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)  # (DRAWS, S)
    times = np.zeros((DRAWS, len(speakers)))
    for k in range(len(names)):
        own = np.flatnonzero(owner == k)
        times[:, own] = rng.multinomial(often[:, k] * len(own), np.full(len(own), 1 / len(own)))
    return times


def paired(
    one: Mapping[Key, float], other: Mapping[Key, float], speaker_of: Mapping[str, str], *, seed: int = 0
) -> dict[str, float]:
    """Return the mean of ``one`` - ``other`` over what both have, with its interval as :func:`interval` gives it."""
    both = {key: one[key] - other[key] for key in one if key in other}
    return interval(both, speaker_of, seed=seed)


def by_label(value_of: Mapping[Key, float]) -> dict[str, float]:
    """Return the mean of each label."""
    found: dict[str, list[float]] = {}
    for (_, label), value in sorted(value_of.items()):
        found.setdefault(label, []).append(value)
    return {label: float(np.mean(each)) for label, each in found.items()}


def confusion(readings: Sequence[Reading]) -> dict[str, dict[str, int]]:
    """Return how often each label asked for at the top was read as which."""
    table: dict[str, dict[str, int]] = {}
    for reading in at(readings):
        chance = reading["posterior"]
        read = max(chance, key=lambda name: chance[name])
        row = table.setdefault(reading["label"], {})
        row[read] = row.get(read, 0) + 1
    return table


def leakage(readings: Sequence[Reading], gap: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return ``{asked: {heard: strength in natural gaps of heard}}`` at the top."""
    table: dict[str, dict[str, list[float]]] = {}
    for reading in at(readings):
        row = table.setdefault(reading["label"], {})
        for label in gap:
            row.setdefault(label, []).append(judged(reading, gap, label))
    return {label: {name: float(np.mean(v)) for name, v in row.items()} for label, row in sorted(table.items())}


def off_target(leak: Mapping[str, Mapping[str, float]], natural: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return how far directions not asked for move: ``drift``, their mean, and ``excess`` over the speakers' own.

    Emotions share arousal, so strong natural clips move along each other's directions too; ``excess`` is the mean
    absolute difference from that.
    """
    cells = [(row[name], natural[label][name]) for label, row in leak.items() if label in natural
             for name in row if name != label]  # fmt: skip
    if not cells:
        return {"drift": float("nan"), "excess": float("nan")}
    found, own = np.array(cells).T
    return {"drift": float(found.mean()), "excess": float(np.abs(found - own).mean())}


def along(readings: Sequence[Reading], of: Callable[[Reading], float]) -> dict[str, float]:
    """Return the mean of ``of`` at each intensity, which is written as text."""
    levels = sorted({float(reading["intensity"]) for reading in readings})
    return {f"{level:g}": float(np.mean([of(r) for r in at(readings, level)])) for level in levels}


# ------------------------------------------------------------------------------------------------ distributions


def moments(frames: np.ndarray) -> dict[str, Any]:
    """Return count, sum and upper half of the summed squares of ``frames`` (D, T), which add up over sounds."""
    square = frames @ frames.T
    upper = square[np.triu_indices(len(square))]
    return {"count": frames.shape[1], "sum": _short(frames.sum(axis=1)), "squares": _short(upper)}


def frechet(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """Return |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the frames behind two lists of moments; NaN if none."""
    if not one or not other:
        return float("nan")
    return _distance(_gaussian(_stacked(one)), _gaussian(_stacked(other)))


def frechet_interval(
    readings: Sequence[Reading], real: Mapping[str, Sequence[Mapping[str, Any]]], *, draws: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Return the mean over labels of :func:`frechet` between readings at the top and ``real`` clips of the label.

    The interval draws the readings, not the real clips: it says what other sources of these speakers would change.
    It is shifted by the bias that drawing with replacement brings in, so that it lies about the value.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for reading in at(readings):
        if reading["label"] in real:
            groups.setdefault(reading["label"], []).append(reading["moments"])
    if not groups:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "labels": {}}
    rng = np.random.default_rng(seed)
    each: dict[str, float] = {}
    drawn = np.zeros(draws)
    for label, rows in sorted(groups.items()):
        own, theirs = _stacked(rows), _gaussian(_stacked(real[label]))
        each[label] = _distance(_gaussian(own), theirs)
        for k in range(draws):
            again = rng.integers(len(rows), size=len(rows))
            drawn[k] += _distance(_gaussian([part[again] for part in own]), theirs) / len(groups)
    value = float(np.mean(list(each.values())))
    low, high = np.maximum(np.quantile(drawn, (0.025, 0.975)) - drawn.mean() + value, 0)
    return {"value": value, "low": float(low), "high": float(high), "labels": each}


def oddness(readings: Sequence[Reading], natural: Sequence[Reading], names: Sequence[str]) -> dict[str, Any]:
    """Return how many standard deviations of real strong clips the mean of each of ``names`` is off, and their mean.

    By label, then averaged: ``value`` is the mean of the absolute differences, ``names`` those with sign.
    """
    table: dict[str, list[float]] = {name: [] for name in names}
    labels = sorted({r["label"] for r in at(readings)} & {r["label"] for r in at(natural)})
    size: list[float] = []
    for label in labels:
        ours, theirs = ([numbers(r) for r in at(rows) if r["label"] == label] for rows in (readings, natural))
        for name in names:
            mine, real = (_finite([row[name] for row in rows]) for rows in (ours, theirs))
            if len(mine) and len(real) > 1 and real.std() > 0:
                table[name].append(float((mine.mean() - real.mean()) / real.std(ddof=1)))
                size.append(abs(table[name][-1]))
    mean = {name: float(np.mean(each)) for name, each in table.items() if each}
    return {"value": float(np.mean(size)) if size else float("nan"), "names": mean}


def _stacked(parts: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    """Return counts (N,), sums (N, D) and squares (N, D (D + 1) / 2) of N sounds."""
    return [np.array([part[name] for part in parts], dtype=float) for name in ("count", "sum", "squares")]


def _gaussian(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (D,) and covariance (D, D) of all sounds together."""
    count, total, squares = (part.sum(axis=0) for part in parts)
    mean = total / count
    spread = np.zeros((len(mean), len(mean)))
    spread[np.triu_indices(len(mean))] = squares / count
    return mean, spread + np.triu(spread, 1).T - np.outer(mean, mean)


def _distance(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    (mean, spread), (mean2, spread2) = one, other
    root = _root(spread)
    cross = np.linalg.eigvalsh(root @ spread2 @ root)
    trace = np.trace(spread) + np.trace(spread2) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(max(0.0, (mean - mean2) @ (mean - mean2) + trace))


def _root(matrix: np.ndarray) -> np.ndarray:
    size, axes = np.linalg.eigh(matrix)
    root: np.ndarray = (axes * np.sqrt(np.maximum(size, 0))) @ axes.T
    return root


def _short(numbers: np.ndarray) -> list[float]:
    """Seven digits: what a file needs to hold."""
    return [float(f"{value:.7g}") for value in numbers]


def _finite(numbers: Sequence[float]) -> np.ndarray:
    found = np.asarray(numbers, dtype=float)
    return found[np.isfinite(found)]


# ----------------------------------------------------------------------------------------------------- symbols


def edits(reference: Sequence[str], found: Sequence[str]) -> int:
    """Return the fewest substitutions, insertions and deletions between two rows of symbols (Levenshtein 1966)."""
    row = list(range(len(found) + 1))
    for i, symbol in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (symbol != other))
    return row[-1]
