"""The first alignment, from nothing but the order of the phones: a hidden Markov model trained by Viterbi.

Each phone has two states in a row, each state a mixture of Gaussians over cepstra, whose components double from 1 as
the alignment gets better; silence is one state at both ends and, at a cost, between any two phones. This is the flat
start of monophone models (Young et al., "The HTK Book", 3.4, sections 3.2 and 8). It takes a minute for an hour of
speech, where CTC from random weights takes hours to leave its plateau of blanks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from affgen.align.material import Item
from affgen.align.phones import INDEX, PHONES

STATES = 2
COEFFICIENTS = 13
_PLAN = (1, 1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8)
"""Components of each state, round by round."""
_PAUSE_COST = 15.0
_FLOOR = 0.05
"""Smallest variance, as a share of the variance over everything."""


def bootstrap(items: Sequence[Item], repeats: int = 8) -> list[Item]:
    """Return the items with labels from the last of a row of alignments; the first spreads the phones evenly.

    The model is fitted to at most ``repeats`` items of the same phones: a sentence that a corpus repeats a thousand
    times would be cut the same wrong way in each, and the model would believe it.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    fitted = []
    for item in items:
        seen[item.phones] += 1
        if seen[item.phones] <= repeats:
            fitted.append(item)
    features = [cepstra(item.mel) for item in fitted]
    chains = [_chain(item.phones) for item in fitted]
    states = [_halves(item.labels) for item in fitted]
    rng = np.random.default_rng(0)
    model: np.ndarray | None = None
    x = np.concatenate(features)
    for components in _PLAN:
        owner = np.concatenate(states)
        model = _fit(x, owner, components, model, rng)
        states = [_viterbi(_loglik(f, model), chain) for f, chain in zip(features, chains, strict=True)]
    if model is None:
        return list(items)
    return [
        replace(item, labels=_viterbi(_loglik(cepstra(item.mel), model), _chain(item.phones)) // STATES)
        for item in items
    ]


def cepstra(mel: np.ndarray) -> np.ndarray:
    """Return cepstra of mel (80, T) with their first and second slopes, of mean 0 and variance 1, (T, 39) float32."""
    from scipy.fft import dct

    x = dct(mel.astype(np.float32), axis=0, norm="ortho")[:COEFFICIENTS].T
    slope = _slope(x)
    x = np.concatenate([x, slope, _slope(slope)], axis=1)
    return ((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3)).astype(np.float32)


def _slope(x: np.ndarray) -> np.ndarray:
    """Slopes of a line through five frames."""
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    return (2 * padded[4:] + padded[3:-1] - padded[1:-3] - 2 * padded[:-4]) / 10


def _chain(phones: Sequence[str]) -> np.ndarray:
    """Return the states to go through: silence, then two for each phone and silence after each."""
    chain = [0]
    for phone in phones:
        chain += [STATES * INDEX[phone] + i for i in range(STATES)] + [0]
    return np.array(chain, dtype=np.int64)


def _halves(labels: np.ndarray) -> np.ndarray:
    """Return the states (T,) of labels (T,): the halves of each run."""
    out = STATES * labels
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
    for start, end in pairwise(edges):
        if labels[start]:
            out[(start + end) // 2 : end] += 1
    return out


def _fit(
    x: np.ndarray, owner: np.ndarray, components: int, model: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Return mean, variance and log-weight of every component: (S, M, 2 D + 1) float32."""
    count, width = STATES * len(PHONES), x.shape[1]
    everything = np.concatenate([x.mean(axis=0), x.var(axis=0), [0.0]])
    out = np.tile(everything, (count, components, 1)).astype(np.float32)
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(count + 1))
    for state in range(count):
        own = x[order[edges[state] : edges[state + 1]]]
        if len(own) < 2 * components:
            if model is not None:
                out[state] = np.repeat(model[state], components // model.shape[1], axis=0)
            continue
        nearest = _components(own, components, None if model is None else model[state], rng)
        for component in range(components):
            part = own[nearest == component]
            part = part if len(part) >= 2 else own
            out[state, component, :width] = part.mean(axis=0)
            out[state, component, width:-1] = np.maximum(part.var(axis=0), _FLOOR * everything[width:-1])
            out[state, component, -1] = np.log(len(part) / len(own))
    return out


def _components(own: np.ndarray, components: int, before: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return the component of each of a state's frames (n,): those of before, each split in two where asked."""
    if components == 1 or before is None:
        return np.zeros(len(own), dtype=np.int64)
    if before.shape[0] < components:
        width = own.shape[1]
        before = np.repeat(before, components // before.shape[0], axis=0)
        before[:, :width] += 0.2 * np.sqrt(before[:, width:-1]) * rng.standard_normal((len(before), width))
    return _loglik_parts(own, before).argmax(axis=1)


def _loglik_parts(x: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the log-likelihood (T, N) of x (T, D) under Gaussians (N, 2 D + 1)."""
    width = x.shape[1]
    mean, variance, weight = parts[:, :width], parts[:, width:-1], parts[:, -1]
    constant = weight - 0.5 * (np.log(variance).sum(axis=1) + (mean**2 / variance).sum(axis=1))
    return constant + x @ (mean / variance).T - 0.5 * (x**2) @ (1 / variance).T


def _loglik(x: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return the log-likelihood (T, S) of each state, that of its best component."""
    states, components, width = model.shape
    parts = _loglik_parts(x, model.swapaxes(0, 1).reshape(-1, width)).reshape(len(x), components, states)
    return parts.max(axis=1)  # over the middle axis, which is many times faster than over the last


def _viterbi(loglik: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Return the states (T,) of the best way through ``chain``, in which every silence may be passed over."""
    from affgen.align.kernels import best_way

    silent = chain == 0
    enter = np.where(silent, -_PAUSE_COST, 0.0)
    enter[-1] = 0.0
    return chain[best_way(np.ascontiguousarray(loglik[:, chain], dtype=np.float64), silent, enter)]
