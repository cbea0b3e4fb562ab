"""Training material of the speaker encoder: features by speaker, varied and gathered into batches by number alone.

A class is a speaker at one speed. Every batch holds different classes, two clips of each, which differ in emotion or
data directory (speech, song) where the speaker has several: what they share is the voice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affgen.datadir import DataDir
from affgen.errors import DataError
from affgen.features import BANDS, FMAX, FMIN, HOP, SAMPLE_RATE
from affgen.speaker.config import SpeakerConfig, VariationConfig

Draw = Callable[[int, int, int], "Batch"]


@dataclass(frozen=True, eq=False)
class Clip:
    """An utterance: ``mel`` (80, T) float16, whose it is, its emotion ("" if not labelled), and its data directory."""

    name: str
    speaker: str
    emotion: str
    folder: str
    mel: np.ndarray

    @property
    def corpus(self) -> str:
        """What stands before the first hyphen of the speaker, as ``affgen data prepare`` names them."""
        return self.speaker.partition("-")[0]


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips of one length, two of each class side by side: ``mel`` (B, 80, T), ``label`` (B,)."""

    mel: Tensor
    label: Tensor
    names: list[str]

    def to(self, device: Any) -> Batch:
        """Return the batch on ``device``."""
        return replace(self, mel=self.mel.to(device), label=self.label.to(device))


def load_clips(folders: Sequence[str | Path]) -> list[Clip]:
    """Return the utterances of data directories with ``utt2spk`` and features, with their ``utt2emo`` if any.

    Raises :class:`DataError` for a directory without these and for an utterance without a speaker.
    """
    from affgen.featuredir import FeatureDir

    clips = []
    for folder in folders:
        data, features = DataDir.read(folder), FeatureDir(folder)
        speakers, emotions = data.tables.get("utt2spk", {}), data.tables.get("utt2emo", {})
        for name in features.utterances:
            if name not in speakers:
                raise DataError(f"{folder}: {name} has no speaker in utt2spk; run 'affgen data fix {folder}'")
            mel = features.features(name).mel.astype(np.float16)
            clips.append(Clip(name, speakers[name], emotions.get(name, ""), str(folder), mel))
    if not clips:
        raise DataError(f"{', '.join(map(str, folders))}: no utterances; accepted: data directories with features")
    return clips


def split(clips: Sequence[Clip], tuning: Sequence[str]) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on and those of the ``tuning`` speakers (patterns)."""
    out = [any(fnmatchcase(clip.speaker, pattern) for pattern in tuning) for clip in clips]
    kept = [[clip for clip, left in zip(clips, out, strict=True) if left is side] for side in (False, True)]
    return kept[0], kept[1]


def voices(clips: Sequence[Clip], rates: Sequence[float]) -> list[tuple[str, float]]:
    """Return the classes: every speaker at every speed."""
    return [(speaker, rate) for speaker in sorted({clip.speaker for clip in clips}) for rate in rates]


def batches(clips: Sequence[Clip], config: SpeakerConfig) -> Draw:
    """Return what :func:`affgen.training.fit` asks for.

    A corpus is drawn as often as the root of its size says, its speakers alike, the true speed twice as often as each
    of the others. Raises :class:`DataError` for fewer classes than half a batch holds.
    """
    classes, variation, size = voices(clips, config.variation.rates), config.variation, config.train.batch_size
    if len(classes) < size // 2 or size % 2:
        raise DataError(f"{len(classes)} voices for batches of {size}; accepted: an even size up to twice the voices")
    share = _shares(clips, classes)
    cells: dict[str, dict[tuple[str, str], list[Clip]]] = {}
    for clip in clips:
        cells.setdefault(clip.speaker, {}).setdefault((clip.folder, clip.emotion), []).append(clip)

    def draw(index: int, rank: int, world: int) -> Batch:
        rng = np.random.default_rng([config.train.seed, index * world + rank])
        frames = round(rng.uniform(*variation.seconds) * SAMPLE_RATE / HOP)
        mels, labels, names = [], [], []
        for label in rng.choice(len(classes), size // 2, replace=False, p=share):
            speaker, rate = classes[label]
            for clip in _two(cells[speaker], rng):
                mels.append(vary(clip.mel, rate, frames, variation, rng))
                labels.append(int(label))
                names.append(clip.name)
        return Batch(torch.from_numpy(np.stack(mels)), torch.tensor(labels), names)

    return draw


def _shares(clips: Sequence[Clip], classes: Sequence[tuple[str, float]]) -> np.ndarray:
    """Probability of each class (speaker, speed)."""
    sizes: dict[str, int] = {}
    for clip in clips:
        sizes[clip.corpus] = sizes.get(clip.corpus, 0) + 1
    corpora = [speaker.partition("-")[0] for speaker, _ in classes]
    weights = np.array([1.0 + (rate == 1.0) for _, rate in classes])
    totals = {corpus: weights[[c == corpus for c in corpora]].sum() for corpus in sizes}
    share = weights * [np.sqrt(sizes[corpus]) / totals[corpus] for corpus in corpora]
    return share / share.sum()


def _two(cells: dict[tuple[str, str], list[Clip]], rng: np.random.Generator) -> list[Clip]:
    """Two clips of a speaker: of two cells where there are two, else two clips where there are two."""
    keys = list(cells)
    if len(keys) > 1:
        return [cells[keys[k]][rng.integers(len(cells[keys[k]]))] for k in rng.choice(len(keys), 2, replace=False)]
    only = cells[keys[0]]
    return [only[k] for k in rng.choice(len(only), 2, replace=len(only) < 2)]


# ------------------------------------------------------------------------------------------------------ variation


def vary(mel: np.ndarray, rate: float, frames: int, config: VariationConfig, rng: np.random.Generator) -> np.ndarray:
    """Return a random stretch (80, ``frames``) float32 of ``mel`` (80, T), at a speed, through a random channel."""
    speed = rate * (1 + rng.uniform(-1, 1) * config.jitter)
    clip = _cut(mel, frames, speed * (1 + rng.uniform(-1, 1) * config.stretch), rng)
    clip = warp(clip, speed) + _curve(rng, config.equaliser)[:, None]
    level = 0.5 * np.log(np.mean(np.sum(np.exp(2 * clip), axis=0)) + 1e-10)
    if rng.random() < 0.5:
        floor = level - rng.uniform(*config.noise) - 2.2 + _curve(rng, 0.5)[:, None]  # 2.2: of 80 bands, each a part
        hiss = rng.standard_normal(clip.shape, dtype=np.float32)
        clip = np.logaddexp(clip, (floor + 0.3 * hiss).astype(np.float32))
    if rng.random() < config.limit:
        clip[int(rng.integers(BANDS * 2 // 3, BANDS)) :] = level - 12.0
    return _mask(clip, level, config, rng)


def _cut(mel: np.ndarray, frames: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """Read ``frames`` frames at ``speed`` from a random place on; a shorter utterance begins anew at its end."""
    length = mel.shape[1]
    span = (frames - 1) * speed
    start = rng.uniform(0, max(0.0, length - 1 - span))
    place = (start + np.arange(frames) * speed) % length
    low = place.astype(int)
    part = (place - low).astype(np.float32)
    return mel[:, low].astype(np.float32) * (1 - part) + mel[:, (low + 1) % length].astype(np.float32) * part


def warp(mel: np.ndarray, speed: float) -> np.ndarray:
    """Return mel (80, T) with every frequency times ``speed``, as playing a sound faster does; edges are repeated."""
    centres = band_centres()
    place = np.interp(centres / speed, centres, np.arange(BANDS))
    low = np.minimum(place.astype(int), BANDS - 2)
    part = (place - low).astype(np.float32)[:, None]
    return mel[low] * (1 - part) + mel[low + 1] * part


@lru_cache(maxsize=1)
def band_centres() -> np.ndarray:
    """Centres in Hz (80,) of the mel bands: where the filters of :func:`affgen.features.mel_filterbank` peak."""
    low, high = (3 * hz / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4) for hz in (FMIN, FMAX))
    mel = np.linspace(low, high, BANDS + 2)[1:-1]
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))


def _curve(rng: np.random.Generator, deviation: float) -> np.ndarray:
    """A smooth random curve over the bands, (80,) float32."""
    place = np.arange(BANDS) / (BANDS - 1)
    waves = [np.cos(np.pi * (k * place + rng.random())) * rng.standard_normal() for k in (1, 2, 3)]
    return np.asarray(deviation * 0.8 * np.sum(waves, axis=0), dtype=np.float32)


def _mask(mel: np.ndarray, level: float, config: VariationConfig, rng: np.random.Generator) -> np.ndarray:
    """Two masks over bands, filled with the mean, and two over frames, filled with silence."""
    middle = mel.mean()
    for _ in range(2):
        width = int(rng.integers(config.bands + 1))
        start = int(rng.integers(BANDS - width + 1))
        mel[start : start + width] = middle
        width = int(rng.integers(min(config.frames, mel.shape[1] // 5) + 1))
        start = int(rng.integers(mel.shape[1] - width + 1))
        mel[:, start : start + width] = level - 12.0
    return mel.astype(np.float32)
