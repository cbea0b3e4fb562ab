"""Training material of the aligner: utterances with their phones, and batches as a function of their number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affgen.align.config import AlignerConfig
from affgen.align.lexicon import pronounce
from affgen.align.marks import Mark, label_file, read_lablaut
from affgen.align.phones import CLASS_OF, INDEX, PHONES, SILENCE
from affgen.datadir import DataDir
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FeatureDir

Draw = Callable[[int, int, int], "Batch"]
UNKNOWN = -1
"""Label of a frame that is not trained on."""
_WEIGHTS = np.array([0.0, 1.3, 1.0, 1.0, 0.8])
"""Length of a phone of each class in a flat start, against each other."""


@dataclass(frozen=True, eq=False)
class Item:
    """An utterance: ``mel`` (80, T) float16, its ``phones`` without silence, and ``labels`` (T,) of its frames."""

    name: str
    mel: np.ndarray
    phones: tuple[str, ...]
    labels: np.ndarray
    marks: tuple[Mark, ...] | None = None
    """What a person has marked, where it may be used."""


@dataclass(frozen=True, eq=False)
class Batch:
    """``mel`` (B, 80, T), ``mask`` (B, T), ``targets`` (B, L) padded with 0, ``counts`` (B,), ``labels`` (B, T)."""

    mel: Tensor
    mask: Tensor
    targets: Tensor
    counts: Tensor
    labels: Tensor
    names: list[str]

    def to(self, device: Any) -> Batch:
        """Return the batch on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("mel", "mask", "targets", "counts", "labels")}
        return replace(self, **moved)


def load_items(
    folders: Sequence[tuple[str, str | Path]], config: AlignerConfig, labels: str | Path | None = None, seed: int = 0
) -> tuple[list[Item], dict[str, str]]:
    """Return the utterances of (language, data directory) pairs, and why others were left out: {name: reason}.

    The phones are those of the text, or where the folder ``labels`` holds label files those of the labels. At most
    ``config.cap`` of a directory are drawn. Raises :class:`DataError` for a directory without text and labels.
    """
    items: list[Item] = []
    dropped: dict[str, str] = {}
    for language, folder in folders:
        features, texts = FeatureDir(folder), DataDir.read(folder).tables.get("text", {})
        names = np.random.default_rng(seed).permutation(np.array(features.utterances, dtype=object))
        for name in sorted(names[: config.cap]):
            mel = features.features(name).mel.astype(np.float16)
            try:
                items.append(_item(name, mel, texts.get(name), language, labels, config.marks))
            except AffgenError as error:
                dropped[name] = str(error)
    if not items:
        raise DataError(f"{folders}: no utterance can be used ({next(iter(dropped.values()), 'there are none')})")
    return items, dropped


def _item(name: str, mel: np.ndarray, text: str | None, language: str, labels: Any, marks: bool) -> Item:
    file = label_file(labels, name) if labels else None
    if file:
        found = tuple(read_lablaut(file))
        phones = tuple(phone for mark in found for phone in mark.phones if phone != SILENCE)
        return Item(name, mel, phones, flat(mel, phones), found if marks else None)
    if not text:
        raise DataError(f"{name}: has no text")
    phones = tuple(phone for word in pronounce(text, language) for phone in word.phones)
    return Item(name, mel, phones, flat(mel, phones))


def loud(mel: np.ndarray, below: float = 4.5) -> tuple[int, int]:
    """Return the first frame and the one after the last not further than ``below`` nepers under the loudest ones."""
    level = 0.5 * np.logaddexp.reduce(2 * mel.astype(np.float32), axis=0)
    found = np.flatnonzero(level > np.percentile(level, 98) - below)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, mel.shape[1])


def flat(mel: np.ndarray, phones: Sequence[str]) -> np.ndarray:
    """Return labels (T,) with the phones spread over the loud part by their usual length, silence around them.

    Raises :class:`AffgenError` for fewer frames than phones.
    """
    if mel.shape[1] < 2 * len(phones):
        raise AffgenError(f"{mel.shape[1]} frames for {len(phones)} phones; at least two for each are needed")
    start, end = loud(mel)
    if end - start < 2 * len(phones):
        start, end = 0, mel.shape[1]
    length = np.cumsum([0.0] + [_WEIGHTS[CLASS_OF[phone]] for phone in phones])
    edges = start + length / length[-1] * (end - start)
    labels = np.zeros(mel.shape[1], dtype=np.int64)
    for first, last, phone in zip(edges[:-1], edges[1:], phones, strict=True):
        labels[int(np.ceil(first - 0.5)) : int(np.ceil(last - 0.5))] = INDEX[phone]
    return labels


def batches(items: Sequence[Item], config: AlignerConfig, frames: int, seed: int, *, vary: bool = True) -> Draw:
    """Return what :func:`affgen.training.fit` asks for: batches of about ``frames`` frames, alike in length.

    Every utterance comes once in each pass through the items.
    """
    lengths = np.array([item.mel.shape[1] for item in items])
    count = max(1, round(lengths.sum() / frames))
    passes: dict[int, list[np.ndarray]] = {}

    def parts(number: int) -> list[np.ndarray]:
        if number not in passes:
            rng = np.random.default_rng([seed, number])
            order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(items)), kind="stable")
            which = np.minimum(np.cumsum(lengths[order]) * count // max(1, lengths.sum()), count - 1)
            found = [part for part in (order[which == i] for i in range(count)) if len(part)]
            passes.clear()
            passes[number] = [found[i % len(found)] for i in rng.permutation(count)]
        return passes[number]

    def draw(index: int, rank: int, world: int) -> Batch:
        position = index * world + rank
        part = parts(position // count)[position % count]
        rng = np.random.default_rng([seed, 1, position])
        return collate([items[i] for i in part], config, rng if vary else None)

    return draw


def collate(items: Sequence[Item], config: AlignerConfig, rng: np.random.Generator | None = None) -> Batch:
    """Return a batch of ``items``, padded at the end; varied where ``rng`` is given."""
    longest, most = max(item.mel.shape[1] for item in items), max(len(item.phones) for item in items)
    mel = torch.full((len(items), 80, longest), -11.5)
    mask = torch.zeros(len(items), longest, dtype=torch.bool)
    targets = torch.zeros(len(items), most, dtype=torch.long)
    labels = torch.full((len(items), longest), UNKNOWN)
    for i, item in enumerate(items):
        length = item.mel.shape[1]
        values = item.mel.astype(np.float32)
        mel[i, :, :length] = torch.from_numpy(_varied(values, config, rng) if rng else values)
        mask[i, :length] = True
        targets[i, : len(item.phones)] = torch.tensor([INDEX[phone] for phone in item.phones])
        labels[i, :length] = torch.from_numpy(item.labels)
    counts = torch.tensor([len(item.phones) for item in items])
    return Batch(mel, mask, targets, counts, labels, [item.name for item in items])


def _varied(mel: np.ndarray, config: AlignerConfig, rng: np.random.Generator) -> np.ndarray:
    """Return mel (80, T) through a smooth random filter and with two masked stretches of bands."""
    knots = rng.normal(0, config.equaliser, 6)
    out = mel + np.interp(np.arange(80), np.linspace(0, 79, 6), knots)[:, None].astype(np.float32)
    for _ in range(2):
        width = int(rng.integers(0, config.bands + 1))
        start = int(rng.integers(0, 80 - width + 1))
        out[start : start + width] = out.mean()
    return out


def prior_of(items: Sequence[Item]) -> np.ndarray:
    """Return the share of frames of each phone, (V,), none of them 0."""
    counts = np.ones(len(PHONES))
    for item in items:
        counts += np.bincount(item.labels[item.labels >= 0], minlength=len(PHONES))
    return counts / counts.sum()
