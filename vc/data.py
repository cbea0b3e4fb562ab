"""Training material of the decoder: levelled utterances, what is known of their speakers, and examples of them.

An example is a stretch of an utterance. Its content is often that of a *neutral* utterance of the same speaker and
sentence, warped in time onto it: what an emotion does to the spectrum, beyond its mean, is then left to the decoder.
Speaker, timbre and register come from a neutral utterance as well, as they do when a neutral recording is converted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affgen.datadir import DataDir
from affgen.emotion.labels import resolve
from affgen.emotion.space import NEUTRAL
from affgen.errors import DataError
from affgen.featuredir import FeatureDir
from affgen.features import Features
from affgen.speaker.data import warp
from affgen.vocoder.source import fill_gaps
from vc import content
from vc.config import DataConfig, VcConfig
from vc.content import between
from vc.model import Given
from vc.twins import align, find, partners

SILENT = -9.0
"""An utterance whose loudest frame has less log energy is silence."""


@dataclass(frozen=True, eq=False)
class Clip:
    """An utterance: levelled ``mel`` (80, T) float16, ``f0`` (T,) with 0 for unvoiced, levelled ``energy`` (T,).

    ``speaker_vector`` (192,), ``timbre`` (C,), ``register`` (median log2 F0), ``emotion`` (K,) its own coordinates,
    ``intensity`` from 0, neutral, to 1, strong (NaN: not labelled).
    """

    name: str
    folder: str
    speaker: str
    label: str
    intensity: float
    mel: np.ndarray
    f0: np.ndarray
    energy: np.ndarray
    speaker_vector: np.ndarray
    timbre: np.ndarray
    register: float
    emotion: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Levelled mels (B, 80, T) and what they are to be made from."""

    mel: Tensor
    given: Given
    names: list[str]

    def to(self, device: Any) -> Batch:
        """Return the batch on ``device``."""
        return replace(self, mel=self.mel.to(device), given=self.given.to(device))


def split(clips: Sequence[Clip], config: DataConfig) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on and those of the speakers left out (patterns), or every tenth if there are none."""
    out = [any(fnmatchcase(clip.speaker, pattern) for pattern in config.leave_out) for clip in clips]
    training = [clip for clip, left in zip(clips, out, strict=True) if not left]
    tuning = [clip for clip, left in zip(clips, out, strict=True) if left] or list(clips[::10])
    if not training:
        raise DataError("no utterances to train on; accepted: data directories of other speakers than data.leave_out")
    rng = np.random.default_rng([config.seed, 2])
    return training, [tuning[i] for i in rng.permutation(len(tuning))[: config.valid_utterances]]


Twins = Mapping[str, Sequence[tuple[Clip, np.ndarray]]]
"""Of an emotional clip: neutral clips of the same speaker and sentence, and the place (T,) of its frames in them."""


def twins_of(clips: Sequence[Clip], folders: Sequence[str | Path]) -> Twins:
    """Align every emotional clip with the neutral ones that say the same."""
    named = {clip.name: clip for clip in clips}
    found: dict[str, list[tuple[Clip, np.ndarray]]] = {}
    for twin in find(folders):
        if twin.neutral in named and twin.emotional in named:
            neutral, moved = named[twin.neutral], named[twin.emotional]
            path = align(_features(moved), _features(neutral))
            places = partners(path, moved.mel.shape[1])
            known = np.flatnonzero(np.isfinite(places))
            places = np.interp(np.arange(len(places)), known, places[known])
            found.setdefault(moved.name, []).append((neutral, places.astype(np.float32)))
    return found


def _features(clip: Clip) -> Features:
    return Features(clip.mel.astype(np.float32), clip.f0, np.exp(clip.energy))


def batches(
    clips: Sequence[Clip], prototypes: dict[str, np.ndarray], twins: Twins, config: VcConfig
) -> Callable[[int, int, int], Batch]:
    """Draw directories by the square root of their size, those with emotions twice as often, then a speaker, a clip."""
    folders: dict[str, dict[str, list[Clip]]] = {}
    for clip in clips:
        folders.setdefault(clip.folder, {}).setdefault(clip.speaker, []).append(clip)
    names = list(folders)
    shares = np.array([_share([c for cs in folders[name].values() for c in cs]) for name in names])
    anchors = neutral_clips(clips)

    def batch(index: int, rank: int, world: int) -> Batch:
        rng = np.random.default_rng([config.train.seed, index * world + rank])
        chosen = []
        for k in rng.choice(len(names), config.train.batch_size, p=shares / shares.sum()):
            speakers = list(folders[names[k]].values())
            clips_of = speakers[rng.integers(len(speakers))]
            clip = clips_of[rng.integers(len(clips_of))]
            neutral = anchors.get((clip.folder, clip.speaker))
            chosen.append(example(clip, neutral, twins.get(clip.name), prototypes, config.data, rng))
        return collate(chosen, config.data.frames)

    return batch


def _share(clips: Sequence[Clip]) -> float:
    frames = sum(clip.mel.shape[1] for clip in clips)
    return float(np.sqrt(frames)) * (2 if any(clip.label != NEUTRAL for clip in clips) else 1)


def neutral_clips(clips: Sequence[Clip]) -> dict[tuple[str, str], list[Clip]]:
    """Return the neutral clips of each (folder, speaker) that has any."""
    found: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        if clip.label == NEUTRAL:
            found.setdefault((clip.folder, clip.speaker), []).append(clip)
    return found


Example = tuple[Clip, Clip, slice, np.ndarray, np.ndarray, float]
"""Clip, the clip that tells the speaker, frames, content (C, T), emotion (K,), whether the emotion is told."""


def example(
    clip: Clip,
    neutral: Sequence[Clip] | None,
    twins: Sequence[tuple[Clip, np.ndarray]] | None,
    prototypes: dict[str, np.ndarray],
    config: DataConfig,
    rng: np.random.Generator,
) -> Example:
    """Draw a stretch of ``clip`` and vary what it is made from."""
    start = int(rng.integers(max(1, clip.mel.shape[1] - config.frames + 1)))
    frames = slice(start, start + config.frames)
    speed = float(np.exp(rng.uniform(-config.warp, config.warp)))
    other = clip
    if twins and rng.random() < config.twin_content:
        other, places = twins[int(rng.integers(len(twins)))]
        spoken = between(spoken_of(other, speed), places[frames])
    else:
        spoken = spoken_of(clip, speed)[:, frames]
        if neutral and not (clip.label == NEUTRAL and rng.random() < config.own_timbre):
            other = neutral[int(rng.integers(len(neutral)))]
    spoken = spoken + config.noise * spoken.std(axis=1, keepdims=True) * rng.standard_normal(spoken.shape)
    emotion = clip.emotion
    if np.isfinite(clip.intensity):
        share = rng.random()  # what is asked for later is a prototype, what clips are is not
        emotion = (1 - share) * emotion + share * clip.intensity * prototypes[clip.label]
    return clip, other, frames, spoken, emotion, float(rng.random() >= config.drop_emotion)


def spoken_of(clip: Clip, speed: float = 1.0) -> np.ndarray:
    """Return the content (C, T) of a clip whose frequencies are times ``speed``."""
    mel = clip.mel.astype(np.float32)
    values = content.cepstra(mel if speed == 1 else warp(mel, speed), clip.f0 * speed, len(clip.timbre))
    return values - content.timbre(values, clip.energy)[:, None]


def collate(chosen: Sequence[Example], frames: int) -> Batch:
    """Stack examples; those shorter than ``frames`` end in silence."""
    mels, rows = [], []
    for clip, other, place, spoken, emotion, told in chosen:
        short = max(0, frames - spoken.shape[1])
        mel = clip.mel[:, place].astype(np.float32)
        mels.append(np.pad(mel, ((0, 0), (0, short)), constant_values=content.FLOOR))
        quiet = content.FLOOR + 0.5 * np.log(len(mel))  # log energy of a frame whose bands are all at the floor
        rows.append(
            (
                np.pad(spoken, ((0, 0), (0, short))),
                np.pad(content.ripple(clip.f0[place]), ((0, 0), (0, short))),
                np.pad(clip.energy[place], (0, short), constant_values=quiet),
                np.pad(np.log2(fill_gaps(clip.f0)[place]), (0, short), mode="edge"),
                np.pad(clip.f0[place] > 0, (0, short)),
                *(other.speaker_vector, other.timbre, other.register, emotion[:, None], told),
            )
        )
    columns = [torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*rows, strict=True)]
    return Batch(torch.from_numpy(np.stack(mels)), Given(*columns), [clip.name for clip, *_ in chosen])


# --------------------------------------------------------------------------------------------------------- loading


def load_clips(folders: Sequence[str | Path], cepstra: int) -> list[Clip]:
    """Return the utterances of data directories with features, ``utt2spk`` and ``utt2emo``; ``emotion`` is still the
    embedding (256,) of the shipped encoder.

    Silent utterances are left out. Raises :class:`DataError` for a directory without these tables.
    """
    from affgen.emotion.encoder import EmotionEncoder
    from affgen.speaker import SpeakerEncoder

    emotions, speakers = EmotionEncoder.from_pretrained(), SpeakerEncoder.from_pretrained()
    clips = [clip for folder in folders for clip in _read(str(folder), cepstra)]
    if not clips:
        raise DataError(f"{', '.join(map(str, folders))}: no utterances; accepted: data directories with features")
    vectors = speakers.embed_mels([clip.mel.astype(np.float32) for clip in clips])
    return [
        replace(
            clip,
            speaker_vector=vector,
            emotion=emotions.read(_features(clip)).embedding,
        )
        for clip, vector in zip(clips, vectors, strict=True)
    ]


def _read(folder: str, cepstra: int) -> list[Clip]:
    data, features = DataDir.read(folder), FeatureDir(folder)
    for name in ("utt2spk", "utt2emo"):
        if name not in data.tables:
            raise DataError(f"{folder}: has no {name}; the converter learns from features, utt2spk and utt2emo")
    clips, nothing = [], np.zeros(0, np.float32)
    for name in features.utterances:
        if name not in data.tables["utt2spk"] or name not in data.tables["utt2emo"]:
            raise DataError(f"{folder}: {name} has no speaker or no emotion; run 'affgen data fix {folder}'")
        found = features.features(name)
        energy = content.log_energy(found.mel)
        if energy.max() < SILENT:
            continue
        level = content.level(energy)
        mel = content.levelled(found.mel, level)
        energy = content.log_energy(mel)
        label = resolve(data.tables["utt2emo"][name])
        intensity = 0.0 if label == NEUTRAL else float(data.tables.get("utt2intensity", {}).get(name, "nan"))
        timbre = content.timbre(content.cepstra(mel, found.f0, cepstra), energy)
        register = content.register(found.f0)
        speaker = data.tables["utt2spk"][name]
        clips.append(
            Clip(
                *(name, folder, speaker, label, intensity, mel.astype(np.float16), found.f0, energy),
                *(nothing, timbre, register, nothing),
            )
        )
    return clips
