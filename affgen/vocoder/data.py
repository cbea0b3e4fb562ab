"""Examples for the vocoder: stretches of packed features with their wave, drawn as a pure function of the index."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from affgen.errors import DataError
from affgen.featuredir import FeatureDir
from affgen.features import FLOOR, HOP
from affgen.vocoder.config import DataConfig
from affgen.vocoder.source import fill_gaps


@dataclass(frozen=True)
class Clip:
    """One utterance in memory: mel (80, T) float16, f0 (T,) without gaps, voiced (T,) 0 or 1, wave (T * 256,) int16."""

    name: str
    mel: np.ndarray
    f0: np.ndarray
    voiced: np.ndarray
    wave: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Examples: mel (B, 80, T), f0 and voiced (B, T), wave (B, T * 256)."""

    mel: Tensor
    f0: Tensor
    voiced: Tensor
    wave: Tensor
    names: list[str]

    def to(self, device: torch.device) -> Batch:
        """The same on ``device``."""
        return Batch(self.mel.to(device), self.f0.to(device), self.voiced.to(device), self.wave.to(device), self.names)


def load_clips(folders: Sequence[str | Path], frames: int) -> list[list[Clip]]:
    """Return the utterances of each data directory; those shorter than ``frames`` are padded with silence.

    Raises :class:`DataError` for directories without packed waves.
    """
    return [[_clip(data, name, frames) for name in data.utterances] for data in map(FeatureDir, folders)]


def _clip(data: FeatureDir, name: str, frames: int) -> Clip:
    found, wave = data.features(name), data.wave(name)
    count = found.mel.shape[1]
    lacking = max(0, frames - count)
    mel = np.pad(found.mel, ((0, 0), (0, lacking)), constant_values=math.log(FLOOR)).astype(np.float16)
    f0 = np.pad(found.f0, (0, lacking))
    wave = np.pad(wave[: count * HOP], (0, (count + lacking) * HOP - min(len(wave), count * HOP)))
    return Clip(name, mel, fill_gaps(f0), (f0 > 0).astype(np.float32), np.round(wave * 32767).astype(np.int16))


def split(corpora: list[list[Clip]], config: DataConfig) -> tuple[list[list[Clip]], list[Clip]]:
    """Keep ``valid_utterances`` for choosing weights, spread over the corpora; the rest is trained on."""
    rng = np.random.default_rng([config.seed, 1])
    kept: list[Clip] = []
    left = []
    share = math.ceil(config.valid_utterances / max(1, len(corpora)))
    for clips in corpora:
        chosen = set(rng.permutation(len(clips))[: min(share, len(clips) // 2)].tolist())
        kept += [clip for i, clip in enumerate(clips) if i in chosen]
        left.append([clip for i, clip in enumerate(clips) if i not in chosen])
    if not any(left):
        raise DataError("no utterances to train the vocoder on")
    return [clips for clips in left if clips], kept[: config.valid_utterances]


def batches(
    corpora: list[list[Clip]], config: DataConfig, batch_size: int, seed: int
) -> Callable[[int, int, int], Batch]:
    """Draw corpora by the square root of their length, their utterances by length, stretches evenly."""
    lengths = [np.array([clip.mel.shape[1] for clip in clips], dtype=float) for clips in corpora]
    roots = np.sqrt([length.sum() for length in lengths])

    def batch(index: int, rank: int, world: int) -> Batch:
        rng = np.random.default_rng([seed, index * world + rank])
        chosen = []
        for corpus in rng.choice(len(corpora), batch_size, p=roots / roots.sum()):
            clip = corpora[corpus][rng.choice(len(lengths[corpus]), p=lengths[corpus] / lengths[corpus].sum())]
            start = int(rng.integers(clip.mel.shape[1] - config.frames + 1))
            chosen.append((clip, start, math.log(10) / 20 * rng.uniform(-config.gain_db, config.gain_db)))
        return collate(chosen, config.frames)

    return batch


def collate(chosen: Sequence[tuple[Clip, int, float]], frames: int) -> Batch:
    """Put stretches (clip, first frame, log gain) of ``frames`` frames into one batch."""
    mels, pitches, voiced, waves = [], [], [], []
    for clip, start, gain in chosen:
        place = slice(start, start + frames)
        wave = clip.wave[start * HOP : (start + frames) * HOP].astype(np.float32) / 32767
        gain = min(gain, -math.log(max(float(np.abs(wave).max()), 1e-4)))  # never beyond full scale
        mels.append(np.maximum(clip.mel[:, place].astype(np.float32) + gain, math.log(FLOOR)))
        pitches.append(clip.f0[place])
        voiced.append(clip.voiced[place])
        waves.append(wave * math.exp(gain))
    parts = [torch.from_numpy(np.stack(part)) for part in (mels, pitches, voiced, waves)]
    return Batch(parts[0], parts[1], parts[2], parts[3], [clip.name for clip, _, _ in chosen])
