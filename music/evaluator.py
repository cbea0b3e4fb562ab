"""The judge of emotion in MIDI: which quadrant a piece is heard in, and a continuous valence and arousal.

A forest of extremely randomised trees (Geurts, Ernst & Wehenkel 2006) over :mod:`music.features`, trained on clips with
EMOPIA's quadrant labels (Hung et al. 2021) by :mod:`music.evaluator_train`. Reading a piece needs numpy alone. The
accuracy of the evaluator is part of its model, so that no score it gives need be shown without it.

A piece whose velocities are all alike says nothing about loudness: its velocity features are put at their medians in
the training set, in training as in use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affgen.checkpoint import describe
from affgen.emotion.labels import QUADRANTS
from affgen.errors import AffgenError, ModelError
from affgen.score import Score
from music.features import FEATURE_NAMES, note_table, table_features

TASK = "music-evaluator"
PRETRAINED = Path(__file__).parent / "pretrained" / "evaluator"
LEAF = 255
"""The feature number that marks a leaf."""

MIN_NOTES = 8
"""A window with fewer notes is read from this many notes nearest to its centre."""

WINDOW = 8.0
"""Seconds; the shortest excerpt seen in training, and the length of the windows in every figure given for them."""

AXES = ("quadrant", "arousal", "valence")
"""What accuracies are given for."""

VELOCITIES = np.array([name.startswith("velocity_") for name in FEATURE_NAMES])
SPREAD = FEATURE_NAMES.index("velocity_spread")
POSITIVE = np.array([1.0, -1.0, -1.0, 1.0])  # valence of Q1 Q2 Q3 Q4
AROUSED = np.array([1.0, 1.0, -1.0, -1.0])


@dataclass(frozen=True, eq=False)
class Reading:
    """What is heard in a piece: the likeliest quadrant, valence and arousal in [-1, 1], ``probabilities (4,)``.

    Valence is P(Q1) + P(Q4) - P(Q2) - P(Q3), that is 2 P(positive) - 1, and arousal likewise: 0 means undecided.
    """

    quadrant: str
    valence: float
    arousal: float
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Forest:
    """Decision trees as flat arrays: ``feature threshold branch (nodes,)``, ``leaves (L, 4)``, ``roots (trees,)``.

    A node sends x to the next node if ``x[feature] <= threshold`` and to ``branch`` otherwise; at a leaf ``feature``
    is 255 and ``branch`` the row of ``leaves``. Raises :class:`ModelError` unless every path ends at a leaf.
    """

    feature: np.ndarray
    threshold: np.ndarray
    branch: np.ndarray
    leaves: np.ndarray
    roots: np.ndarray

    def __post_init__(self) -> None:
        nodes, number = np.arange(len(self.feature)), self.feature
        leaf = number == LEAF
        sound = (
            self.threshold.shape == self.branch.shape == nodes.shape
            and self.leaves.ndim == 2
            and self.leaves.shape[1] == len(QUADRANTS)
            and len(self.roots) > 0
            and bool(np.all((self.roots >= 0) & (self.roots < len(nodes))))
            and bool(np.all((number < len(FEATURE_NAMES)) | leaf))
            and bool(np.all((self.branch >= 0) & (self.branch < np.where(leaf, len(self.leaves), len(nodes)))))
            and bool(np.all(leaf | (self.branch > nodes)))  # paths only lead forward: they end
            and bool(leaf[-1])
        )
        if not sound:
            raise ModelError("the trees of the evaluator are damaged; get the model directory again")

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return the mean over trees of the leaves that ``x (M, F)`` falls into, ``(M, 4)``."""
        x = x.astype(np.float32)  # as in training
        rows = np.arange(len(x))[:, None]
        node = np.tile(self.roots, (len(x), 1))  # (M, trees)
        while (inner := self.feature[node] != LEAF).any():
            value = x[rows, np.where(inner, self.feature[node], 0)]
            following = np.where(value <= self.threshold[node], node + 1, self.branch[node])
            node = np.where(inner, following, node)
        return self.leaves[self.branch[node]].astype(float).mean(axis=1)


class Evaluator:
    """Reads the emotion of scores; :meth:`from_pretrained` gives the one shipped in the package."""

    def __init__(self, forest: Forest, neutral: np.ndarray, figures: Mapping[str, Any]) -> None:
        """Take the trees, the velocity features ``neutral (V,)`` of music without dynamics, and what it scored."""
        self.forest = forest
        self.neutral = neutral
        self.figures = figures

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> Evaluator:
        """Load the model directory ``folder`` (default: the shipped one), without torch.

        Raises :class:`ModelError` for a directory that is missing, damaged, or not of an evaluator of this version.
        """
        folder = PRETRAINED if folder is None else Path(folder)
        config, arrays = _load(folder)
        names = {"feature", "threshold", "branch", "leaves", "roots", "neutral"}
        if config.get("features") != list(FEATURE_NAMES) or set(arrays) != names:
            raise ModelError(f"{folder}: the evaluator is of another version of affgen; train it again")
        neutral = arrays.pop("neutral")
        if neutral.shape != (int(VELOCITIES.sum()),):
            raise ModelError(f"{folder}: neutral velocities of shape {neutral.shape}; the model is damaged")
        return cls(Forest(**arrays), neutral, config.get("figures", {}))

    def read(self, score: Score) -> Reading:
        """Read a whole piece; raises :class:`AffgenError` for a score without notes."""
        return self.read_table(_require_notes(note_table(score)))

    def read_table(self, table: np.ndarray) -> Reading:
        """Read notes given as :func:`music.features.note_table` has them, ``(N, 4)``."""
        chances = self.probabilities(table_features(table)[None])[0]
        return Reading(
            quadrant=QUADRANTS[int(np.argmax(chances))],
            valence=float(chances @ POSITIVE),
            arousal=float(chances @ AROUSED),
            probabilities=chances,
        )

    def trajectory(self, score: Score, windows: np.ndarray) -> np.ndarray:
        """Read valence and arousal ``(N, 2)`` in each of ``windows (N, 2)``, start and end in seconds.

        A window holds the notes that start in it; one with fewer than 8 is read from the 8 notes nearest to its
        centre. 8 seconds is the shortest excerpt seen in training; shorter windows are noisier than the stated
        accuracy. Raises :class:`AffgenError` for a score without notes or windows that do not run forward.
        """
        windows = np.asarray(windows, dtype=float)
        if windows.ndim != 2 or windows.shape[1] != 2 or not np.all(windows[:, 0] < windows[:, 1]):
            raise AffgenError(f"windows of shape {windows.shape}: (N, 2) with each start before its end is needed")
        table = _require_notes(note_table(score))
        x = np.array([table_features(excerpt(table, *window)) for window in windows]).reshape(-1, len(FEATURE_NAMES))
        return self.probabilities(x) @ np.stack([POSITIVE, AROUSED], axis=1)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities ``(M, 4)`` of Q1 to Q4 for the features ``x (M, F)`` of M pieces."""
        return self.forest.probabilities(fill_flat_dynamics(x, self.neutral))

    @property
    def card_line(self) -> str:
        """How far to trust this evaluator, in one line to print beside its readings."""
        tried, part = self.figures["cross_validation"], self.figures.get("held_out")
        if part is None:
            return f"evaluator: {_parts(tried)} in cross-validation over {tried['clips']} clips"
        return (
            f"evaluator: {_parts(part)} on {part['clips']} held-out clips; "
            f"{_parts(tried)} in cross-validation over {tried['clips']}"
        )


def excerpt(table: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the notes of ``table (N, 4)`` that start from ``start`` up to ``end`` seconds, or the 8 nearest ones."""
    inside = (table[:, 0] >= start) & (table[:, 0] < end)
    if inside.sum() >= min(MIN_NOTES, len(table)):
        return table[inside]
    nearest = np.argsort(np.abs(table[:, 0] - (start + end) / 2), kind="stable")[:MIN_NOTES]
    return table[np.sort(nearest)]


def _require_notes(table: np.ndarray) -> np.ndarray:
    if not len(table):
        raise AffgenError("the score has no notes; an emotion can be read from one note or more")
    return table


def fill_flat_dynamics(x: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Put ``neutral (V,)`` in the velocity columns of the rows of ``x (M, F)`` whose velocities are all alike."""
    row = np.zeros(len(FEATURE_NAMES))
    row[VELOCITIES] = neutral
    flat = x[:, SPREAD] < 1.0
    return np.where(flat[:, None] & VELOCITIES, row, x)


def _parts(figures: Mapping[str, Any]) -> str:
    accuracies = figures["as played"]
    return " / ".join(f"{accuracies[axis]:.2f}".removeprefix("0") + f" {axis}" for axis in AXES)


def _load(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return config and arrays of a model directory as numpy has them: importing torch would cost a second.

    ``describe`` has checked the form of every file by the time the weights are opened.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    about = describe(folder)
    if about["task"] != TASK:
        raise ModelError(f"{folder}: is a model for {about['task']!r}; one for {TASK!r} is needed")
    data = (folder / "model.safetensors").read_bytes()
    listed = json.loads((folder / "config.json").read_bytes())["files"]["model.safetensors"]
    if hashlib.sha256(data).hexdigest() != listed:
        raise ModelError(f"{folder / 'model.safetensors'}: SHA-256 differs from config.json; the file is damaged")
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / 'model.safetensors'}: is not a safetensors file") from error
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ModelError(f"{folder / 'model.safetensors'}: holds values that are not finite")
    return about["config"], arrays
