"""Training and checking of the evaluator (:mod:`music.evaluator`); needs scikit-learn, the extra ``eval``.

Every clip is seen in several versions: as played, on a grid of sixteenths at 90 to 150 bpm with the longest note a bar
(generated music), cut to 16 and to 8 seconds, and without dynamics. Figures come from cross-validation in which no song
is on both sides, and from clips held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affgen.checkpoint import save_model
from affgen.datadir import DataDir
from affgen.emotion.labels import QUADRANTS, resolve
from affgen.errors import AffgenError, DataError
from affgen.metrics.music import confusion, spearman
from affgen.score import read_midi
from music.evaluator import (
    AROUSED,
    AXES,
    LEAF,
    POSITIVE,
    TASK,
    VELOCITIES,
    WINDOW,
    Evaluator,
    Forest,
    excerpt,
    fill_flat_dynamics,
)
from music.features import FEATURE_NAMES, note_table, table_features


@dataclass(frozen=True)
class EvaluatorConfig:
    """What training depends on besides the data."""

    trees: int = 200
    leaf: int = 10
    """Fewest training examples in a leaf."""
    share: float = 0.3
    """Share of the features tried at a split."""
    folds: int = 5
    """Parts of the cross-validation."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Clips:
    """Labelled clips: note tables, quadrant numbers ``(N,)`` and songs ``(N,)``."""

    tables: list[np.ndarray]
    quadrants: np.ndarray
    songs: np.ndarray


def train_evaluator(
    train_dir: str | Path,
    out: str | Path,
    *,
    held_out_dir: str | Path | None = None,
    listeners_dir: str | Path | None = None,
    config: EvaluatorConfig | None = None,
) -> Evaluator:
    """Train on the music data directory ``train_dir`` (midi.scp utt2emo utt2spk) and write the model directory ``out``.

    ``held_out_dir`` is another such directory, ``listeners_dir`` one with ``measure_va``; both only add figures.
    Returns the evaluator. Raises :class:`DataError` for data without quadrants or songs, and :class:`AffgenError`
    without scikit-learn.
    """
    config = config or EvaluatorConfig()
    clips = read_clips(train_dir)
    _require_songs(clips, config.folds, train_dir)
    x = _all_versions(clips.tables, config.seed)
    neutral = np.median(x["as played"][:, VELOCITIES], axis=0)
    figures: dict[str, Any] = {"cross_validation": _cross_validate(x, neutral, clips, config)}
    evaluator = Evaluator(_grow(x, neutral, clips.quadrants, config), neutral, figures)
    if held_out_dir is not None:
        figures["held_out"] = held_out_figures(evaluator, read_clips(held_out_dir), seed=config.seed)
    if listeners_dir is not None:
        figures["listeners"] = listener_figures(evaluator, listeners_dir)
    _save(evaluator, len(clips.tables), config, out)
    return evaluator


# -------------------------------------------------------------------------------------------------------- data


def read_clips(folder: str | Path) -> Clips:
    """Read the clips of a music data directory with ``midi.scp``, ``utt2emo`` (quadrants) and ``utt2spk`` (songs)."""
    data = DataDir.read(folder)
    for name in ("midi.scp", "utt2emo", "utt2spk"):
        if name not in data.tables:
            raise DataError(f"{folder}: has no {name}; the evaluator learns from midi.scp, utt2emo and utt2spk (songs)")
        missing = next((key for key in data.utterances if key not in data.tables[name]), None)
        if missing is not None:
            raise DataError(f"{folder}/{name}: has no {missing!r}; run 'affgen data fix {folder}'")
    labels = [resolve(data.tables["utt2emo"][key]) for key in data.utterances]
    wrong = next((label for label in labels if label not in QUADRANTS), None)
    if wrong is not None:
        raise DataError(f"{folder}/utt2emo: has the label {wrong!r}; the evaluator learns {', '.join(QUADRANTS)}")
    return Clips(
        tables=[note_table(read_midi(data.tables["midi.scp"][key])) for key in data.utterances],
        quadrants=np.array([QUADRANTS.index(label) for label in labels]),
        songs=np.array([data.tables["utt2spk"][key] for key in data.utterances]),
    )


def _require_songs(clips: Clips, folds: int, folder: str | Path) -> None:
    for number, name in enumerate(QUADRANTS):
        songs = len(set(clips.songs[clips.quadrants == number]))
        if songs < folds:
            raise DataError(f"{folder}: {songs} songs in {name}; {folds} or more are needed, one for each fold")


def _all_versions(tables: Sequence[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return the features ``(N, F)`` of every version of ``tables``."""
    versions = {}
    for number, (name, make) in enumerate(VERSIONS.items()):
        rng = np.random.default_rng([seed, number])
        versions[name] = np.stack([table_features(make(table, rng)) for table in tables])
    return versions


def _as_played(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return table


def _on_grid(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put ``table (N, 4)`` on sixteenths of a random tempo and phase, with velocities in steps of 4."""
    step = 15.0 / rng.uniform(90.0, 150.0)  # seconds in a sixteenth
    shift = rng.uniform(0.0, step)
    first = np.round((table[:, 0] + shift) / step)
    length = np.clip(np.round((table[:, 0] + table[:, 1] + shift) / step) - first, 1, 16)
    velocity = np.clip(4.0 * np.round(table[:, 3] / 4.0), 4.0, 124.0)
    _, kept = np.unique(np.stack([first, table[:, 2]], axis=1), axis=0, return_index=True)
    return np.stack([first * step, length * step, table[:, 2], velocity], axis=1)[kept]


def _cut(table: np.ndarray, rng: np.random.Generator, seconds: float) -> np.ndarray:
    start = rng.uniform(table[0, 0], max(table[0, 0], table[-1, 0] - seconds) + 1e-9)
    return excerpt(table, start, start + seconds)


def _flat(table: np.ndarray) -> np.ndarray:
    return np.column_stack([table[:, :3], np.full(len(table), 64.0)])


BY_SONG = "as played, each song alike"

Version = Callable[[np.ndarray, np.random.Generator], np.ndarray]
VERSIONS: Mapping[str, Version] = {
    "as played": _as_played,
    "on the grid": _on_grid,
    "8 s on the grid": lambda table, rng: _on_grid(_cut(table, rng, WINDOW), rng),
    "16 s": lambda table, rng: _cut(table, rng, 2 * WINDOW),
    "without dynamics": lambda table, rng: _flat(_on_grid(table, rng)),
    "16 s without dynamics": lambda table, rng: _flat(_cut(table, rng, 2 * WINDOW)),
}


# ---------------------------------------------------------------------------------------------------- training


def _grow(x: Mapping[str, np.ndarray], neutral: np.ndarray, quadrants: np.ndarray, config: EvaluatorConfig) -> Forest:
    """Train the trees on every version in ``x`` of clips of ``quadrants (N,)``."""
    try:
        from sklearn.ensemble import ExtraTreesClassifier
    except ImportError as error:
        raise AffgenError("training the evaluator needs scikit-learn: pip install 'affgen[eval]'") from error
    model = ExtraTreesClassifier(
        config.trees,
        min_samples_leaf=config.leaf,
        max_features=config.share,
        class_weight="balanced",
        random_state=config.seed,
    )
    rows = fill_flat_dynamics(np.concatenate(list(x.values())), neutral)
    model.fit(rows, np.tile(quadrants, len(x)))
    return _flatten([tree.tree_ for tree in model.estimators_])


def _flatten(trees: Sequence[Any]) -> Forest:
    """Lay scikit-learn's trees end to end; they are stored depth first, so a left child follows its parent."""
    feature, threshold, branch, leaves, roots = [], [], [], [], []
    nodes = rows = 0
    for tree in trees:
        leaf = tree.children_left < 0
        shares = tree.value[leaf, 0]
        feature.append(np.where(leaf, LEAF, tree.feature))
        threshold.append(np.where(leaf, 0.0, tree.threshold))
        branch.append(np.where(leaf, rows + np.cumsum(leaf) - 1, nodes + tree.children_right))
        leaves.append(shares / shares.sum(axis=1, keepdims=True))
        roots.append(nodes)
        nodes += tree.node_count
        rows += int(leaf.sum())
    return Forest(
        feature=np.concatenate(feature).astype(np.uint8),
        threshold=np.concatenate(threshold).astype(np.float32),
        branch=np.concatenate(branch).astype(np.int32),
        leaves=np.concatenate(leaves).astype(np.float16),
        roots=np.array(roots, dtype=np.int32),
    )


def _cross_validate(
    x: Mapping[str, np.ndarray], neutral: np.ndarray, clips: Clips, config: EvaluatorConfig
) -> dict[str, Any]:
    """Return accuracies per version over ``config.folds`` folds; no song is trained on and judged at once."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise AffgenError("training the evaluator needs scikit-learn: pip install 'affgen[eval]'") from error
    folds = StratifiedGroupKFold(config.folds, shuffle=True, random_state=config.seed)
    chances = {name: np.zeros((len(rows), len(QUADRANTS))) for name, rows in x.items()}
    for kept, left in folds.split(clips.quadrants, clips.quadrants, clips.songs):
        forest = _grow({name: rows[kept] for name, rows in x.items()}, neutral, clips.quadrants[kept], config)
        for name, rows in x.items():
            chances[name][left] = Evaluator(forest, neutral, {}).probabilities(rows[left])
    return _accuracies(chances, clips)


# ----------------------------------------------------------------------------------------------------- figures


def accuracy(chances: np.ndarray, quadrants: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """Return the shares of ``quadrants (N,)`` (0 to 3) and of their arousal and valence signs read right.

    ``chances (N, 4)`` are probabilities; the sign of an axis is that of its reading, not of the likeliest quadrant.
    ``weights (N,)`` say how much each clip counts; all count alike by default.
    """
    return {
        "quadrant": float(np.average(chances.argmax(axis=1) == quadrants, weights=weights)),
        "arousal": float(np.average((chances @ AROUSED >= 0) == (AROUSED[quadrants] > 0), weights=weights)),
        "valence": float(np.average((chances @ POSITIVE >= 0) == (POSITIVE[quadrants] > 0), weights=weights)),
    }


def held_out_figures(evaluator: Evaluator, clips: Clips, *, seed: int) -> dict[str, Any]:
    """Return accuracies on held-out ``clips`` in every version, and the confusion (rows true) as played."""
    chances = {name: evaluator.probabilities(rows) for name, rows in _all_versions(clips.tables, seed).items()}
    read = [QUADRANTS[i] for i in chances["as played"].argmax(axis=1)]
    table = confusion([QUADRANTS[i] for i in clips.quadrants], read, QUADRANTS)
    return {**_accuracies(chances, clips), "confusion": table.tolist()}


def _accuracies(chances: Mapping[str, np.ndarray], clips: Clips) -> dict[str, Any]:
    """Return the accuracy in every version, and as played with each song counted alike, however many clips it gave."""
    _, song, sizes = np.unique(clips.songs, return_inverse=True, return_counts=True)
    figures: dict[str, Any] = {"clips": len(clips.songs), "songs": len(sizes), "largest_song": int(sizes.max())}
    figures.update({name: accuracy(values, clips.quadrants) for name, values in chances.items()})
    figures[BY_SONG] = accuracy(chances["as played"], clips.quadrants, 1.0 / sizes[song])
    return figures


def listener_figures(evaluator: Evaluator, folder: str | Path) -> dict[str, Any]:
    """Return Spearman's correlations with the listeners of a data directory with ``measure_va``.

    ``pieces``: readings of whole pieces against the means over their measures. ``measures``: readings of the 8 s
    around each measure, all measures pooled. ``within``: the same within each piece, mean over the pieces. Measures
    divide the piece into equal times, since meters are not reliable in such files.
    """
    data = DataDir.read(folder)
    if "measure_va" not in data.tables:
        raise DataError(f"{folder}: has no measure_va (valence and arousal of listeners for each measure)")
    whole, read, heard = [], [], []
    for key, line in data.tables["measure_va"].items():
        score = read_midi(data.tables["midi.scp"][key])
        heard.append(np.array([[float(number) for number in pair.split("/")] for pair in line.split()]))  # (M, 2)
        centres = (np.arange(len(heard[-1])) + 0.5) * score.duration_s / len(heard[-1])
        read.append(evaluator.trajectory(score, np.stack([centres - WINDOW / 2, centres + WINDOW / 2], axis=1)))
        reading = evaluator.read(score)
        whole.append((reading.valence, reading.arousal))
    means = np.array([values.mean(axis=0) for values in heard])
    figures: dict[str, Any] = {"number": len(heard), "number_of_measures": sum(map(len, heard))}
    for axis, name in enumerate(("valence", "arousal")):
        figures[name] = {
            "pieces": spearman(np.array(whole)[:, axis], means[:, axis]),
            "measures": spearman(np.concatenate(read)[:, axis], np.concatenate(heard)[:, axis]),
            "within": float(np.mean([spearman(r[:, axis], h[:, axis]) for r, h in zip(read, heard, strict=True)])),
        }
    return figures


# ------------------------------------------------------------------------------------------------------ saving


def _save(evaluator: Evaluator, clips: int, config: EvaluatorConfig, out: str | Path) -> None:
    import torch

    arrays = {name: getattr(evaluator.forest, name) for name in Forest.__dataclass_fields__}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors["neutral"] = torch.from_numpy(evaluator.neutral)
    about = {
        "features": list(FEATURE_NAMES),
        "quadrants": list(QUADRANTS),
        "training": {**asdict(config), "clips": clips, "versions": list(VERSIONS)},
        "figures": evaluator.figures,
    }
    save_model(out, about, tensors, _card(evaluator, clips), task=TASK)


def _card(evaluator: Evaluator, clips: int) -> str:
    rows = []
    for name, title in (("cross_validation", "cross-validation by song"), ("held_out", "held out")):
        part = evaluator.figures.get(name, {})
        for version in (version for version in ("as played", BY_SONG, *VERSIONS) if version in part):
            values = " | ".join(f"{part[version][axis]:.3f}" for axis in AXES)
            row = f"| {title}, {version} | {part['clips']} of {part['songs']} | {values} |"
            rows += [row] if row not in rows else []
    return CARD.format(
        line=evaluator.card_line,
        clips=clips,
        features=len(FEATURE_NAMES),
        trees=len(evaluator.forest.roots),
        rows="\n".join(rows),
        caution=_caution(evaluator.figures.get("held_out")),
        listeners=_listeners_text(evaluator.figures.get("listeners")),
    )


def _caution(figures: Mapping[str, Any] | None) -> str:
    """Say so if one song makes up a good part of the held-out clips."""
    if figures is None or figures["largest_song"] < 0.1 * figures["clips"]:
        return ""
    return (
        f"{figures['largest_song']} of the {figures['clips']} held-out clips come from one song (one recording), so "
        "that these figures vary far more than their number suggests.\n\n"
    )


def _listeners_text(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "Agreement with continuous ratings was not measured."
    rows = [
        f"| {axis} | {figures[axis]['pieces']:.2f} | {figures[axis]['measures']:.2f} | {figures[axis]['within']:.2f} |"
        for axis in ("valence", "arousal")
    ]
    head = (
        f"Spearman's correlation with the mean ratings of about 30 listeners, {figures['number']} pieces and "
        f"{figures['number_of_measures']} measures of VGMIDI, none of which was trained on (readings of 8 s around "
        "each measure; most of these pieces have no dynamics):"
    )
    table = "| axis | whole pieces | all measures | measures within a piece |\n|---|---|---|---|\n" + "\n".join(rows)
    return f"{head}\n\n{table}"


CARD = """# Evaluator of emotion in piano MIDI

{line}

Task: reads the quadrant (Q1 +V+A, Q2 -V+A, Q3 -V-A, Q4 +V-A) and a continuous valence and arousal from notes.
Method: {trees} extremely randomised trees over {features} features of the notes, see `music/features.py`. The task,
the labels and the reference accuracies are those of EMOPIA (Hung et al., ISMIR 2021); the method is this project's.

Data: {clips} clips of the training split of EMOPIA, CC BY-NC-SA 4.0. Licence of the weights: CC BY-NC-SA 4.0,
non-commercial.

| accuracy | clips of songs | quadrant | arousal | valence |
|---|---|---|---|---|
{rows}

{caution}{listeners}

Intended use: to judge and compare pieces of pop piano of 8 seconds and more, always beside the accuracy above. It
hears what annotators of pop piano agreed on; it says nothing of what one listener feels, and valence is its weak side.
A generator must not be tuned against it and then judged by it.

Made by:

    affgen data prepare emopia EMOPIA data/emopia
    affgen data prepare vgmidi VGMIDI data/vgmidi
    python -c "from music.evaluator_train import train_evaluator as t; t('data/emopia/train', 'exp/evaluator', \
held_out_dir='data/emopia/val', listeners_dir='data/vgmidi/eval')"
"""
