"""Figures of an emotion encoder: accuracy over label sets, and how often the stronger of two clips is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affgen.emotion.labels import LABELS
from affgen.emotion.space import NEUTRAL, EmotionSpace

SIX = ("neutral", "happy", "sad", "angry", "fearful", "surprised")
"""The labels that RAVDESS speech and nEMO share."""


def accuracy(posteriors: np.ndarray, labels: Sequence[str], among: Sequence[str] = LABELS) -> float:
    """Return the share of clips with a label in ``among`` whose likeliest label among these is right.

    ``posteriors (N, 8)`` in the order of LABELS. NaN if no clip has such a label.
    """
    columns = [LABELS.index(name) for name in among]
    rows = [row for row, label in enumerate(labels) if label in among]
    read = posteriors[np.ix_(rows, columns)].argmax(axis=1)
    right = [among[k] == labels[row] for k, row in zip(read, rows, strict=True)]
    return float(np.mean(right)) if right else float("nan")


def merged_accuracy(posteriors: np.ndarray, labels: Sequence[str]) -> float:
    """Return the accuracy over SIX with neutral and calm as one label, whose probabilities are added."""
    table = np.array(posteriors, dtype=float)
    table[:, LABELS.index(NEUTRAL)] += table[:, LABELS.index("calm")]
    return accuracy(table, [NEUTRAL if label == "calm" else label for label in labels], SIX)


def recall(posteriors: np.ndarray, labels: Sequence[str], among: Sequence[str] = LABELS) -> float:
    """Return the mean over labels of :func:`accuracy` within each (unweighted average recall)."""
    shares = [
        accuracy(posteriors[[label == name for label in labels]], [x for x in labels if x == name], [*among])
        for name in among
        if name in labels
    ]
    return float(np.mean(shares))


def neutral_means(embeddings: np.ndarray, labels: Sequence[str], speakers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the mean neutral embedding (D,) of every speaker who has one."""
    names, who = np.array(labels), np.array(speakers)
    plain = names == NEUTRAL
    return {s: embeddings[plain & (who == s)].mean(axis=0) for s in sorted(set(who[plain].tolist()))}


def ordered(
    space: EmotionSpace,
    embeddings: np.ndarray,
    labels: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    anchors: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return how many of ``pairs`` (stronger, weaker) of ``embeddings (N, D)`` are put in order by projection.

    ``anchors (N, D)`` are the speakers' own neutral means. Keys: ``share``, ``pairs``, ``labels`` {label: share}.
    As the two of a pair have one speaker, their anchor cancels within a pair; it matters for ``gap``, the mean
    difference, and ``reach``, the mean projection of the strong clips.
    """
    right: dict[str, list[bool]] = {}
    gaps, reach = [], []
    for strong, weak in pairs:
        label = labels[strong]
        a, b = (
            float(space.project(embeddings[k][None], label, None if anchors is None else anchors[k][None])[0])
            for k in (strong, weak)
        )
        right.setdefault(label, []).append(a > b)
        gaps.append(a - b)
        reach.append(a)
    every = [x for values in right.values() for x in values]
    return {
        "share": float(np.mean(every)) if every else float("nan"),
        "pairs": len(every),
        "labels": {name: float(np.mean(right[name])) for name in sorted(right)},
        "gap": float(np.mean(gaps)) if gaps else float("nan"),
        "reach": float(np.mean(reach)) if reach else float("nan"),
    }
