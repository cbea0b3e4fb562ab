"""The fit of :class:`vc.prosody.Prosody` to what changed between twins.

1. How far the range of F0 forgets the source's own (``pull``) is one regression for all labels.
2. Twins become cells: the median change for each speaker, label and intensity, so that a speaker counts once.
3. Where a data directory tells no intensity, it gets the one at which its changes of pitch are most like those known.
4. Each label and control has two knots, at strength 0.5 and 1, found by least squares with Huber's weights (1964);
   their ratio, shrunk to that of all labels as far as it is noise, is ``half``.
5. What an octave of register adds is kept as far as it exceeds twice its standard error (a positive-part estimate
   after James and Stein 1961).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from affgen.emotion.labels import LABELS
from affgen.errors import DataError
from vc.prosody import NAMES, Prosody, response
from vc.prosody_config import HALF
from vc.twins import Changes

STRENGTHS = np.arange(0.3, 1.001, 0.05)
"""What the intensity of a data directory without any may be."""
LEVELLED = 0.35
"""Nepers: where labels change the level by less on average, the recordings were levelled and tell nothing of it."""
USUAL_TWINS = 4.0
"""A cell of this many twins weighs half of one of many."""
HUBER = 1.5
IRRELEVANT = 4.0
"""Square of the t value up to which register is taken to have no influence."""

PITCH, RANGE, GAIN = (NAMES.index(name) for name in ("pitch", "range", "gain"))


@dataclass(frozen=True)
class Cells:
    """N medians over twins: ``values`` (N, C), NaN where unknown, at ``strength`` (N,), NaN where not told."""

    folder: np.ndarray
    label: np.ndarray
    strength: np.ndarray
    values: np.ndarray
    register: np.ndarray
    weight: np.ndarray


def fitted(changes: Changes) -> Prosody:
    """Return the model of ``changes``; its labels are those of :data:`affgen.emotion.labels.LABELS` that occur.

    Raises :class:`DataError` if no twin has a known intensity.
    """
    if not np.isfinite(changes.intensity).any():
        raise DataError("no neutral-emotional twins of known intensity; the utt2intensity of the data tells it")
    spread = float(np.median(changes.spread))
    pull = _pull(changes, spread)
    cells = _told(_cells(changes, spread, pull))
    registers = np.unique(cells.register)
    middle = float(np.median(registers))
    labels = tuple(name for name in LABELS if name in cells.label)
    shape = (len(labels), len(NAMES))
    offset, by_register, half = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for c in range(len(NAMES)):
        half[:, c] = _halves(cells, labels, c)
        for e, label in enumerate(labels):
            offset[e, c], by_register[e, c] = _line(cells, cells.label == label, c, half[e, c], middle)
    centre = np.array([middle, registers[0], registers[-1], spread])
    return Prosody(labels, offset, by_register, half, np.array(pull), centre)


def _pull(changes: Changes, spread: float) -> float:
    """Return what is taken off the log range ratio for each unit of log spread that the source is above the middle."""
    groups = np.array(
        [f"{f}/{n}/{i}" for f, n, i in zip(changes.folder, changes.label, changes.intensity, strict=True)]
    )
    y = changes.values[:, RANGE].copy()
    for group in np.unique(groups):
        y[groups == group] -= np.median(y[groups == group])
    x = np.clip(changes.spread - spread, -1, 1)
    return float(np.clip(-(x @ y) / max(x @ x, 1e-9), 0, 1))


def _cells(changes: Changes, spread: float, pull: float) -> Cells:
    values = changes.values.copy()
    values[:, RANGE] += pull * np.clip(changes.spread - spread, -1, 1)
    keys = list(
        zip(changes.folder, changes.speaker, changes.label, np.nan_to_num(changes.intensity, nan=-1), strict=True)
    )
    rows: dict[tuple, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    middles = np.array([np.median(values[own], axis=0) for own in rows.values()])
    whose = {name: np.median(changes.register[changes.speaker == name]) for name in np.unique(changes.speaker)}
    folder = np.array([key[0] for key in rows])
    for name in np.unique(folder):
        if np.abs(middles[folder == name, GAIN]).mean() < LEVELLED:
            middles[folder == name, GAIN] = np.nan
    return Cells(
        folder,
        np.array([key[2] for key in rows]),
        np.array([np.nan if key[3] < 0 else key[3] for key in rows]),
        middles,
        np.array([whose[key[1]] for key in rows]),
        np.array([len(own) / (len(own) + USUAL_TWINS) for own in rows.values()]),
    )


def _told(cells: Cells) -> Cells:
    """Return ``cells`` with a strength for each folder that has none: where its F0 fits the labels best."""
    strength = cells.strength.copy()
    known = np.isfinite(cells.strength)
    for folder in np.unique(cells.folder[~known]):
        own = ~known & (cells.folder == folder)
        misfit = np.zeros(len(STRENGTHS))
        for label in sorted(set(cells.label[own]) & set(cells.label[known])):
            here, there = own & (cells.label == label), known & (cells.label == label)
            knots = _solve(_knots(cells.strength[there]), cells.values[there, PITCH], cells.weight[there])[0]
            misfit += (_knots(STRENGTHS) @ knots - np.median(cells.values[here, PITCH])) ** 2
        strength[own] = STRENGTHS[np.argmin(misfit)]
    return replace(cells, strength=strength)


def _knots(strength: np.ndarray) -> np.ndarray:
    """Return the weights (N, 2) of what happens at 0.5 and at 1 in what happens at ``strength`` (N,)."""
    one = np.clip(2 * strength - 1, 0, 1)
    return np.stack([np.minimum(2 * strength, 1) - one, one], axis=1)


def _halves(cells: Cells, labels: tuple[str, ...], c: int) -> np.ndarray:
    """Return the share (E,) of control ``c`` that is reached at strength 0.5."""
    found = []
    for label in labels:
        own = cells.label == label
        (half, one), errors = _solve(_knots(cells.strength[own]), cells.values[own, c], cells.weight[own])
        found.append((half * one, one**2, 2 * errors[1] ** 2))
    product, square, noise = np.array(found).T
    shared = np.clip(product.sum() / max(square.sum(), 1e-9), *HALF)
    return np.clip((product + noise * shared) / (square + noise + 1e-9), *HALF)


def _line(cells: Cells, own: np.ndarray, c: int, half: float, middle: float) -> tuple[float, float]:
    """Return what control ``c`` does at strength 1 in the middle register, and what an octave of register adds."""
    g = response(cells.strength[own], np.array(half))
    y, weight = cells.values[own, c], cells.weight[own]
    x = np.stack([g, g * (cells.register[own] - middle)], axis=1)
    (_, slope), errors = _solve(x, y, weight)
    slope *= max(0.0, 1 - IRRELEVANT * errors[1] ** 2 / max(slope**2, 1e-12))
    (offset,), _ = _solve(x[:, :1], y - slope * x[:, 1], weight)
    return float(offset), float(slope)


def _solve(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (K,) of ``x`` (N, K) for ``y`` (N,) and their standard errors; rows with NaN do not count."""
    told = np.isfinite(y)
    x, y, weight = x[told], y[told], weight[told]
    if not len(y):
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    huber = np.ones(len(y))
    for _ in range(10):
        use = weight * huber
        gram = (x * use[:, None]).T @ x + 1e-4 * np.eye(x.shape[1])
        found = np.linalg.solve(gram, (x * use[:, None]).T @ y)
        off = np.abs(y - x @ found)
        huber = np.minimum(1, np.maximum(HUBER * 1.4826 * np.median(off), 1e-6) / np.maximum(off, 1e-9))
    variance = (use * off**2).sum() / max(len(y) - x.shape[1], 1)
    return found, np.sqrt(np.diag(np.linalg.inv(gram)) * variance)
