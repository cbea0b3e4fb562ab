"""Training material of the emotion encoder: labelled features, varied and gathered into batches by number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affgen.datadir import DataDir
from affgen.emotion.config import EmotionConfig, VariationConfig
from affgen.emotion.labels import LABELS, resolve
from affgen.errors import DataError

FRAMES_PER_SECOND = 22050 / 256
LONGEST = 300
"""Frames (3.5 s) of a training clip; longer ones are cut to a random part of this length."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A labelled utterance: ``mel (80, T)``, ``f0 (T,)``, the number of its label, intensity (NaN: not labelled)."""

    name: str
    folder: int
    speaker: str
    label: int
    intensity: float
    text: str
    mel: np.ndarray
    f0: np.ndarray


@dataclass(frozen=True, eq=False)
class Batch:
    """``mel (B, 80, T)``, ``f0 (B, T)``, ``mask (B, T)``, ``label (B,)``, ``intensity (B,)`` (NaN: unknown) and
    ``allowed (B, 8)``, the labels of each clip's corpus. The first ``2 * pairs`` are pairs, the stronger first.
    """

    mel: Tensor
    f0: Tensor
    mask: Tensor
    label: Tensor
    intensity: Tensor
    allowed: Tensor
    pairs: int
    names: list[str]

    def to(self, device: Any) -> Batch:
        """Return the batch on ``device``."""
        moved: Any = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def load_clips(folders: Sequence[str | Path], ignore: Sequence[str] = ()) -> list[Clip]:
    """Return the clips of data directories with ``utt2spk``, ``utt2emo`` and features, and their intensities if any.

    ``ignore`` lists ``SPEAKER-PATTERN LABEL``. Raises :class:`DataError` for a directory without these tables and
    for one that names a quadrant.
    """
    from affgen.featuredir import FeatureDir

    clips = []
    for number, folder in enumerate(folders):
        data, features = DataDir.read(folder), FeatureDir(folder)
        speakers, emotions = (_table(data, name) for name in ("utt2spk", "utt2emo"))
        strength, texts = (data.tables.get(name, {}) for name in ("utt2intensity", "text"))
        for name in features.utterances:
            if name not in speakers or name not in emotions:
                raise DataError(f"{folder}: {name} has no speaker or no emotion; run 'affgen data fix {folder}'")
            label = resolve(emotions[name])
            if label not in LABELS:
                raise DataError(f"{folder}/utt2emo: {name} has {label!r}; accepted: {', '.join(LABELS)}")
            if any(_matches(rule, speakers[name], label) for rule in ignore):
                continue
            found = features.features(name)
            level = 0.0 if label == "neutral" else float(strength.get(name, "nan"))
            mel, f0 = found.mel.astype(np.float16), found.f0.astype(np.float32)
            clip = Clip(name, number, speakers[name], LABELS.index(label), level, texts.get(name, ""), mel, f0)
            clips.append(clip)
    if not clips:
        raise DataError(f"{', '.join(map(str, folders))}: no clips; accepted: data directories with features")
    return clips


def _table(data: DataDir, name: str) -> dict[str, str]:
    if name not in data.tables:
        raise DataError(f"{data.path}: has no {name}; the emotion encoder learns from features, utt2spk and utt2emo")
    return data.tables[name]


def _matches(rule: str, speaker: str, label: str) -> bool:
    pattern, _, wanted = rule.partition(" ")
    return wanted == label and fnmatchcase(speaker, pattern)


def pairs(clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """Return (stronger, weaker) positions of clips alike in speaker, label, words and repetition, but not intensity.

    Where several clips share speaker, label and words, the n-th of the one level goes with the n-th of the other.
    """
    groups: dict[tuple[int, str, int, str], dict[float, list[int]]] = {}
    for position, clip in enumerate(clips):
        if clip.label and np.isfinite(clip.intensity):
            levels = groups.setdefault((clip.folder, clip.speaker, clip.label, clip.text), {})
            levels.setdefault(clip.intensity, []).append(position)
    found = []
    for levels in groups.values():
        order = sorted(levels)
        for weak, strong in pairwise(order):
            found += [(b, a) for a, b in zip(levels[weak], levels[strong], strict=False)]
    return found


def batches(clips: Sequence[Clip], config: EmotionConfig, *, varied: bool = True) -> Callable[[int, int, int], Batch]:
    """Return what :func:`affgen.training.fit` asks for: half of each batch are pairs, if there are any.

    The rest draws a directory by the root of its size, then a label, then a clip. ``varied``: as :func:`vary` does.
    """
    twins = pairs(clips)
    cells: dict[int, dict[int, list[int]]] = {}
    for position, clip in enumerate(clips):
        cells.setdefault(clip.folder, {}).setdefault(clip.label, []).append(position)
    folders = sorted(cells)
    share = np.sqrt([sum(map(len, cells[f].values())) for f in folders])
    allowed = {f: [label in cells[f] for label in range(len(LABELS))] for f in folders}
    size = config.train.batch_size

    def draw(index: int, rank: int, world: int) -> Batch:
        rng = np.random.default_rng([config.train.seed, index * world + rank])
        count = size // 4 if twins else 0
        chosen = [p for k in rng.integers(len(twins), size=count) for p in twins[k]] if count else []
        for folder in rng.choice(folders, size=size - len(chosen), p=share / share.sum()):
            positions = cells[folder][rng.choice(sorted(cells[folder]))]
            chosen.append(int(rng.choice(positions)))
        features = [vary(clips[p], config.variation, rng) if varied else plain(clips[p]) for p in chosen]
        return collate([clips[p] for p in chosen], features, [allowed[clips[p].folder] for p in chosen], count)

    return draw


def collate(
    clips: Sequence[Clip],
    features: Sequence[tuple[np.ndarray, np.ndarray]],
    allowed: Sequence[Sequence[bool]],
    count: int = 0,
) -> Batch:
    """Return clips with their ``features`` (mel (80, T), f0 (T,)) as one padded batch."""
    longest = max(mel.shape[1] for mel, _ in features)
    mel = np.zeros((len(clips), len(features[0][0]), longest), np.float32)
    f0, mask = np.zeros((len(clips), longest), np.float32), np.zeros((len(clips), longest), bool)
    for row, (spectrum, pitch) in enumerate(features):
        length = spectrum.shape[1]
        mel[row, :, :length], f0[row, :length], mask[row, :length] = spectrum, pitch, True
    return Batch(
        torch.from_numpy(mel),
        torch.from_numpy(f0),
        torch.from_numpy(mask),
        torch.tensor([clip.label for clip in clips]),
        torch.tensor([clip.intensity for clip in clips], dtype=torch.float32),
        torch.tensor(np.array(allowed, dtype=bool)),
        count,
        [clip.name for clip in clips],
    )


# ------------------------------------------------------------------------------------------------------ variation


def vary(clip: Clip, config: VariationConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return ``mel (80, T')`` and ``f0 (T',)`` of a clip as another voice in another room might have given it."""
    mel, f0 = _cut(clip.mel.astype(np.float32), clip.f0, config, rng)
    mel, f0 = _stretch(mel, f0, 1 + rng.uniform(-1, 1) * config.stretch)
    mel = _warp(mel, 1 + rng.uniform(-1, 1) * config.warp)
    f0 = f0 * np.float32(2 ** (rng.uniform(-1, 1) * config.semitones / 12))
    mel = mel + _curve(rng, config.equaliser)[:, None]
    level = 0.5 * np.log(np.mean(np.sum(np.exp(2 * mel), axis=0)) + 1e-10)
    if rng.random() < 0.5:
        floor = level - rng.uniform(*config.noise) - 2.2 + _curve(rng, 0.5)[:, None]  # 2.2: of 80 bands, each a part
        mel = np.logaddexp(mel, floor + 0.3 * rng.standard_normal(mel.shape))
    if rng.random() < config.drop_f0:
        f0 = np.zeros_like(f0)
    return mel.astype(np.float32), f0.astype(np.float32)


def plain(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Return mel and f0 of a clip as they are, float32."""
    return clip.mel.astype(np.float32), clip.f0


def _cut(
    mel: np.ndarray, f0: np.ndarray, config: VariationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    length, shortest = mel.shape[1], int(config.shortest * FRAMES_PER_SECOND)
    wanted = min(length, LONGEST)
    if rng.random() < 0.25 and wanted > shortest:
        wanted = int(rng.integers(shortest, wanted + 1))
    start = int(rng.integers(length - wanted + 1))
    return mel[:, start : start + wanted], f0[start : start + wanted]


def _stretch(mel: np.ndarray, f0: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Read the frames ``rate`` times as fast; F0 is taken from the nearest frame, so that no voicing is made up."""
    length = mel.shape[1]
    place = np.linspace(0, length - 1, max(8, round(length / rate)))
    low = np.minimum(place.astype(int), length - 2) if length > 1 else np.zeros(len(place), int)
    part = (place - low).astype(np.float32)
    high = np.minimum(low + 1, length - 1)
    return mel[:, low] * (1 - part) + mel[:, high] * part, f0[np.rint(place).astype(int)]


def _warp(mel: np.ndarray, scale: float) -> np.ndarray:
    place = np.clip(np.arange(80) * scale, 0, 79)
    low = np.minimum(place.astype(int), 78)
    part = (place - low).astype(np.float32)[:, None]
    return mel[low] * (1 - part) + mel[low + 1] * part


def _curve(rng: np.random.Generator, deviation: float) -> np.ndarray:
    """A smooth random curve over the 80 bands."""
    place = np.arange(80) / 79
    waves = [np.cos(np.pi * (k * place + rng.random())) * rng.standard_normal() for k in (1, 2, 3)]
    return np.asarray(deviation * sum(waves) * 0.8, dtype=np.float32)
