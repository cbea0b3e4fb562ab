"""Features of a data directory, packed: ``DIR/features/index.tsv`` and shards ``NNNNN.safetensors``, read by need.

A line of the index is ``UTT SHARD FRAMES`` between tabs. A shard holds for each utterance ``UTT/mel`` float16 (80, T),
``UTT/f0`` float32 (T,), ``UTT/energy`` float32 (T,) and perhaps ``UTT/wave`` int16 (L,) at 22,050 Hz; the key
"affgen" of its header is a JSON object. A GPU that reads these decodes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affgen.errors import AffgenError, DataError
from affgen.files import atomic_path, atomic_write

if TYPE_CHECKING:
    from affgen.features import Features

FOLDER, INDEX, FAILURES = "features", "index.tsv", "failures.tsv"
SHARD_NAME = re.compile(r"[0-9]{5}\.safetensors")
WAVE_SCALE = 32_767.0
"""Stored value of a sample at full scale."""

_HEADER_LIMIT = 8 << 20  # bytes of a header


class FeatureDir:
    """The features of the data directory ``path``; shards are mapped into memory when first asked for.

    May be sent to worker processes: each maps the shards for itself. Raises :class:`DataError` for a folder without
    features and for an index that is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._shards: dict[str, str] = {}
        self._opened: dict[str, Any] = {}
        self.frames: dict[str, int] = {}
        """Frames T of each utterance, in the order of the C locale."""
        index = self.path / FOLDER / INDEX
        try:
            lines = index.read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{index}: cannot be read; run 'affgen data features {self.path}'") from error
        for line in lines:
            fields = line.split("\t")
            if len(fields) != 3 or not SHARD_NAME.fullmatch(fields[1]) or not re.fullmatch("[0-9]{1,9}", fields[2]):
                raise DataError(f"{index}: {line[:60]!r}; accepted: UTT, NNNNN.safetensors and FRAMES between tabs")
            self._shards[fields[0]], self.frames[fields[0]] = fields[1], int(fields[2])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # a mapped file is of one process

    def __len__(self) -> int:
        return len(self.frames)

    def __contains__(self, utterance: object) -> bool:
        return utterance in self.frames

    @property
    def utterances(self) -> tuple[str, ...]:
        """The utterances that have features, in the order of the C locale."""
        return tuple(self.frames)

    def features(self, utterance: str) -> Features:
        """Return the features of an utterance: mel (80, T), f0 (T,) in Hz and energy (T,), all float32.

        Raises :class:`DataError` for an utterance that is not here and for a damaged shard.
        """
        from affgen.features import Features

        mel, f0, energy = (self._tensor(utterance, name) for name in ("mel", "f0", "energy"))
        length = self.frames[utterance]
        if mel.shape[-1:] != (length,) or mel.ndim != 2 or f0.shape != (length,) or energy.shape != (length,):
            raise DataError(f"{self._file(utterance)}: {utterance}: has other frames than the index; extract again")
        return Features(mel.astype(np.float32), f0.astype(np.float32), energy.astype(np.float32))

    def wave(self, utterance: str) -> np.ndarray:
        """Return the sound of an utterance, float32 (L,) at 22,050 Hz.

        Raises :class:`DataError` for an utterance that is not here or was extracted without ``--waves``.
        """
        return self._tensor(utterance, "wave").astype(np.float32) / np.float32(WAVE_SCALE)

    def _file(self, utterance: str) -> Path:
        if utterance not in self._shards:
            raise DataError(f"{self.path / FOLDER}: has no utterance {utterance[:80]!r}; extract the features again")
        return self.path / FOLDER / self._shards[utterance]

    def _tensor(self, utterance: str, name: str) -> np.ndarray:
        from safetensors import SafetensorError, safe_open

        file = self._file(utterance)
        try:
            if file.name not in self._opened:
                self._opened[file.name] = safe_open(file, framework="numpy")
            return self._opened[file.name].get_tensor(f"{utterance}/{name}")
        except (SafetensorError, OSError) as error:
            if name == "wave" and "not contain" in str(error):
                raise DataError(f"{file}: holds no sound; extract the features with --waves") from error
            raise DataError(f"{file}: {utterance}/{name}: cannot be read; extract the features again") from error


def write_shard(path: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a shard, whole or not at all, with ``about`` as JSON in its header; equal input gives equal bytes.

    Raises :class:`AffgenError` when the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    header = {"affgen": json.dumps(about, sort_keys=True, separators=(",", ":"))}
    try:
        with atomic_path(path) as temporary:
            save_file(dict(tensors), str(temporary), metadata=header)
    except (OSError, SafetensorError) as error:
        raise AffgenError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error


def read_about(path: Path) -> dict[str, Any]:
    """Return the JSON object in the header of a shard; an empty one if there is no such file or it is damaged.

    Only the header is read: of a file that was renamed into place the rest is as whole as the header.
    """
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length <= _HEADER_LIMIT else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        about = json.loads(header["__metadata__"]["affgen"])
        whole = path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return {}
    return about if whole and isinstance(about, dict) else {}


def write_index(folder: Path, entries: Mapping[str, tuple[str, int]]) -> None:
    """Write ``index.tsv`` of {utterance: (shard, frames)}."""
    atomic_write(folder / INDEX, "".join(f"{key}\t{shard}\t{frames}\n" for key, (shard, frames) in entries.items()))
