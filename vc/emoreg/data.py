"""Training material of EmoReg: utterances, what is spoken when, what they feel like, and stretches of them.

Nothing here is parallel: the decoder learns to give back the utterance it is told the emotion of, and conversion tells
it another one (EmoReg fig. 3). A batch is a pure function of its number. Mels are used as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from affgen.align.formats import read_ctm, read_textgrid
from affgen.align.segments import Segment
from affgen.datadir import DataDir
from affgen.emotion.labels import LABELS, resolve
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FeatureDir
from affgen.features import BANDS, SAMPLE_RATE
from vc.emoreg.average import AverageTable, Run, runs
from vc.emoreg.config import DataConfig, TargetConfig

if TYPE_CHECKING:
    from affgen.emotion.encoder import Encoder

CTM, TEXTGRIDS = "phones.ctm", "textgrids"
UNKNOWN = "spn"
"""What the Montreal Forced Aligner writes for a word it does not know; DiffVC leaves such utterances out."""

logger = logging.getLogger(__name__)
BatchT = TypeVar("BatchT", bound="Batch")


@dataclass(frozen=True, eq=False)
class Clip:
    """An utterance: ``mel`` (80, T) float16; ``rows`` (T,) of the table of averages and ``embedding`` (256,), both
    empty until they are known; ``folder`` is its data directory.
    """

    name: str
    folder: str
    speaker: str
    label: str
    mel: np.ndarray
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    embedding: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Batch:
    """``mel`` (B, 80, T), 0 beyond the end of a short utterance, and ``mask`` (B, 1, T) of what is not."""

    names: list[str]
    mel: Tensor
    mask: Tensor

    def to(self: BatchT, device: Any) -> BatchT:
        """Return the batch on ``device``."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        moved: Any = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class AverageBatch(Batch):
    """With ``average`` (B, 80, T), the averages of the phones."""

    average: Tensor


@dataclass(frozen=True, eq=False)
class ScoreBatch(Batch):
    """With ``emotion`` (B, 256), the embedding of each utterance, and another stretch of it: ``reference``
    (B, 80, T) and ``reference_mask`` (B, 1, T).
    """

    emotion: Tensor
    reference: Tensor
    reference_mask: Tensor


# --------------------------------------------------------------------------------------------------------- loading


def load_clips(folders: Sequence[str | Path], config: DataConfig) -> list[Clip]:
    """Return the utterances of data directories with features, ``utt2spk`` and ``utt2emo``, speakers left out apart.

    Raises :class:`DataError` for a directory without these tables, an emotion that is no label, and if none is left.
    """
    clips = [clip for folder in folders for clip in _read(Path(folder))]
    kept = [clip for clip in clips if not any(fnmatchcase(clip.speaker, pattern) for pattern in config.leave_out)]
    if not kept:
        raise DataError(f"{', '.join(map(str, folders))}: no utterances of speakers other than data.leave_out")
    return kept


def _read(folder: Path) -> list[Clip]:
    data, features = DataDir.read(folder), FeatureDir(folder)
    for table in ("utt2spk", "utt2emo"):
        if table not in data.tables:
            raise DataError(f"{folder}: has no {table}; EmoReg learns from features, utt2spk and utt2emo")
    clips = []
    for name in features.utterances:
        if name not in data.tables["utt2spk"] or name not in data.tables["utt2emo"]:
            raise DataError(f"{folder}: {name} has no speaker or no emotion; run 'affgen data fix {folder}'")
        label = resolve(data.tables["utt2emo"][name])
        if label not in LABELS:
            raise DataError(f"{folder / 'utt2emo'}: {name} has {label!r}; accepted: {', '.join(LABELS)}")
        mel = features.features(name).mel.astype(np.float16)
        clips.append(Clip(name, str(folder), data.tables["utt2spk"][name], label, mel))
    return clips


def split(clips: Sequence[Clip], config: DataConfig) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on and those to choose weights by: at most half of all; without any, the former."""
    order = np.random.default_rng([config.seed, 1]).permutation(len(clips))
    kept = set(order[: min(config.valid_utterances, len(clips) // 2)].tolist())
    training = [clip for number, clip in enumerate(clips) if number not in kept]
    return training, [clip for number, clip in enumerate(clips) if number in kept] or training[:1]


def spoken(clips: Sequence[Clip], config: TargetConfig) -> list[list[Run] | None]:
    """Return what is spoken when in each clip; None where that is not known or not all of it.

    Raises :class:`DataError` for a directory without alignments, and if nothing at all is known.
    """
    find: Callable[[Clip], list[Segment] | None]
    if config.phones == "units":
        from affgen.align.aligner import Aligner

        aligner = Aligner.from_pretrained()

        def find(clip: Clip) -> list[Segment] | None:
            return aligner.unit_segments(clip.mel.astype(np.float32))
    elif config.phones == "ctm":
        tables = {folder: read_ctm(_present(Path(folder) / CTM, folder)) for folder in {c.folder for c in clips}}

        def find(clip: Clip) -> list[Segment] | None:
            return tables[clip.folder].get(clip.name)
    else:
        places = {folder: _present(Path(folder) / TEXTGRIDS, folder) for folder in {c.folder for c in clips}}

        def find(clip: Clip) -> list[Segment] | None:
            file = places[clip.folder] / f"{clip.name.replace('/', '_')}.TextGrid"
            return read_textgrid(file, config.tier) if file.is_file() else None

    found = [_usable(find(clip), clip) for clip in clips]
    unknown = sum(part is None for part in found)
    if unknown == len(found):
        raise DataError(f"{clips[0].folder}: none of its utterances is aligned; the names there are of other data")
    if unknown:
        logger.warning("%d of %d utterances are not (wholly) aligned and left out", unknown, len(found))
    return found


def _usable(segments: list[Segment] | None, clip: Clip) -> list[Run] | None:
    if not segments or any(segment.phone == UNKNOWN for segment in segments):
        return None
    return runs(segments, clip.mel.shape[1])


def _present(path: Path, folder: str) -> Path:
    if not path.exists():
        raise DataError(
            f"{path}: does not exist; run 'affgen data align {folder}' (for TextGrids with --textgrids {folder}/"
            f"{TEXTGRIDS}), or set target.phones=units, which needs no text"
        )
    return path


def average_table(clips: Sequence[Clip], found: Sequence[list[Run] | None], statistic: str) -> AverageTable:
    """Return the averages of the phones of ``clips`` by what is :func:`spoken` in them."""
    known = ((clip.mel, part) for clip, part in zip(clips, found, strict=True) if part is not None)
    return AverageTable.fit(known, statistic)


def with_rows(clips: Sequence[Clip], found: Sequence[list[Run] | None], table: AverageTable) -> list[Clip]:
    """Return the clips of which is known what is spoken, with their rows of the table."""
    pairs = zip(clips, found, strict=True)
    return [replace(clip, rows=table.index(part)) for clip, part in pairs if part is not None]


def embed(clips: Sequence[Clip], encoder: Encoder) -> np.ndarray:
    """Return the embeddings (N, 256) float32 of ``clips``; all but ``affgen-small`` need features with waves.

    Raises :class:`AffgenError` with the name of an utterance that cannot be read, such as a silent one.
    """
    from affgen.audio import Audio
    from affgen.emotion.encoder import EmotionEncoder

    opened = {folder: FeatureDir(folder) for folder in {clip.folder for clip in clips}}
    out = []
    for clip in clips:
        features = opened[clip.folder]
        try:
            if isinstance(encoder, EmotionEncoder):
                read = encoder.read(features.features(clip.name))
            else:
                read = encoder.encode(Audio(features.wave(clip.name), SAMPLE_RATE))
        except AffgenError as error:
            raise DataError(f"{clip.folder}: {clip.name}: {error}") from error
        out.append(read.embedding)
    return np.stack(out).astype(np.float32)


# --------------------------------------------------------------------------------------------------------- batches


def average_batches(
    clips: Sequence[Clip], table: AverageTable, config: DataConfig, batch_size: int, seed: int
) -> Callable[[int, int, int], AverageBatch]:
    """Draw utterances and stretches of them evenly, with the averages of their phones."""

    def batch(index: int, rank: int, world: int) -> AverageBatch:
        rng = np.random.default_rng([seed, index * world + rank])
        chosen = [clips[k] for k in rng.integers(len(clips), size=batch_size)]
        return average_batch(chosen, table, config.frames, rng)

    return batch


def average_batch(clips: Sequence[Clip], table: AverageTable, frames: int, rng: np.random.Generator) -> AverageBatch:
    """Return a stretch of each of ``clips``, drawn by ``rng``, as a batch."""
    places = [_stretch(clip, frames, rng) for clip in clips]
    mel, mask = _padded([clip.mel[:, place] for clip, place in zip(clips, places, strict=True)], frames)
    averages = [table.values[clip.rows[place]].T for clip, place in zip(clips, places, strict=True)]
    return AverageBatch([clip.name for clip in clips], mel, mask, _padded(averages, frames)[0])


def score_batches(
    clips: Sequence[Clip], config: DataConfig, batch_size: int, seed: int
) -> Callable[[int, int, int], ScoreBatch]:
    """Draw utterances and two stretches of each evenly, with the embeddings of the whole."""

    def batch(index: int, rank: int, world: int) -> ScoreBatch:
        rng = np.random.default_rng([seed, index * world + rank])
        return score_batch([clips[k] for k in rng.integers(len(clips), size=batch_size)], config.frames, rng)

    return batch


def score_batch(clips: Sequence[Clip], frames: int, rng: np.random.Generator) -> ScoreBatch:
    """Return two stretches of each of ``clips``, drawn by ``rng``, as a batch."""
    mel, mask = _padded([clip.mel[:, _stretch(clip, frames, rng)] for clip in clips], frames)
    reference = _padded([clip.mel[:, _stretch(clip, frames, rng)] for clip in clips], frames)
    emotion = torch.from_numpy(np.stack([clip.embedding for clip in clips]))
    return ScoreBatch([clip.name for clip in clips], mel, mask, emotion, *reference)


def _stretch(clip: Clip, frames: int, rng: np.random.Generator) -> slice:
    start = int(rng.integers(max(0, clip.mel.shape[1] - frames) + 1))
    return slice(start, start + frames)


def _padded(mels: Sequence[np.ndarray], frames: int) -> tuple[Tensor, Tensor]:
    """Return mels (80, T) as one (B, 80, ``frames``) and what is valid in it, (B, 1, ``frames``)."""
    mel, mask = np.zeros((len(mels), BANDS, frames), np.float32), np.zeros((len(mels), 1, frames), np.float32)
    for row, part in enumerate(mels):
        mel[row, :, : part.shape[1]], mask[row, :, : part.shape[1]] = part, 1
    return torch.from_numpy(mel), torch.from_numpy(mask)
