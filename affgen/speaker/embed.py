"""Sound to speaker embedding with a trained model, and the comparison of two embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from affgen.audio import Audio, resample
from affgen.errors import AffgenError
from affgen.features import BANDS, FLOOR, SAMPLE_RATE, log_mel
from affgen.speaker.model import Network
from affgen.speaker.pack import SHIPPED, unpack

WINDOW = 1024
"""Frames (12 s) embedded at once; a longer sound is cut into equal windows, whose embeddings are averaged."""
TOGETHER = 16


class SpeakerEncoder:
    """A trained speaker encoder; holds no state between calls."""

    def __init__(self, network: Network):
        self.network = network.eval()

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None) -> SpeakerEncoder:
        """Load a model directory, by default the shipped one. Raises :class:`ModelError`."""
        return cls(unpack(SHIPPED if model is None else model)[1])

    @property
    def dimension(self) -> int:
        """Width of the embeddings, D."""
        return self.network.config.embedding

    def embed(self, audio: Audio) -> np.ndarray:
        """Return the embedding (D,) float32, of unit length, of a sound of any sample rate.

        Raises :class:`AffgenError` for a sound without voice or shorter than a frame, or samples that are not finite.
        """
        return self.embed_mel(log_mel(resample(audio.samples, audio.sample_rate, SAMPLE_RATE)))

    def embed_mel(self, mel: np.ndarray) -> np.ndarray:
        """Return the embedding (D,) of a log-mel (80, T) in the shared front end; raises as :meth:`embed`."""
        return self.embed_mels([mel])[0]

    def embed_mels(self, mels: Sequence[np.ndarray]) -> np.ndarray:
        """Return the embeddings (N, D) of N log-mels (80, T); none depends on what else is asked for.

        Raises :class:`AffgenError` as :meth:`embed`, with the number of the mel.
        """
        name = "mel {}" if len(mels) > 1 else "the mel"
        parts = [
            (number, part) for number, mel in enumerate(mels) for part in _windows(_checked(mel, name.format(number)))
        ]
        parts.sort(key=lambda pair: pair[1].shape[1])
        sums = np.zeros((len(mels), self.dimension))
        for first in range(0, len(parts), TOGETHER):
            some = parts[first : first + TOGETHER]
            for (number, part), vector in zip(some, self._batch([part for _, part in some]), strict=True):
                sums[number] += vector * part.shape[1]
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-9)).astype(np.float32)

    @torch.inference_mode()
    def _batch(self, mels: Sequence[np.ndarray]) -> np.ndarray:
        device = next(self.network.parameters()).device
        mel = torch.zeros(len(mels), BANDS, max(part.shape[1] for part in mels))
        mask = torch.zeros(len(mels), mel.shape[2], dtype=torch.bool)
        for row, part in enumerate(mels):
            mel[row, :, : part.shape[1]] = torch.from_numpy(np.ascontiguousarray(part))
            mask[row, : part.shape[1]] = True
        return self.network(mel.to(device), mask.to(device)).cpu().double().numpy()


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine, from -1 to 1, of two embeddings (D,); those of one speaker have the larger ones.

    Raises :class:`AffgenError` for other shapes and for a vector that is zero or not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise AffgenError(f"embeddings of shapes {a.shape} and {b.shape}: accepted are two of one shape (D,)")
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not all(0 < norm < np.inf for norm in norms):
        raise AffgenError("an embedding is zero or not finite; accepted are those of SpeakerEncoder")
    return float(np.clip(a @ b / (norms[0] * norms[1]), -1, 1))


def _checked(mel: np.ndarray, name: str) -> np.ndarray:
    mel = np.asarray(mel, dtype=np.float32)
    if mel.ndim != 2 or mel.shape[0] != BANDS or not mel.shape[1]:
        raise AffgenError(f"{name} of shape {mel.shape}: accepted is ({BANDS}, T), T at least 1")
    if not np.isfinite(mel).all():
        raise AffgenError(f"{name} holds values that are not finite")
    if mel.max() <= np.log(FLOOR) + 1e-3:
        raise AffgenError(f"{name} is silence; accepted is sound with a voice in it")
    return mel


def _windows(mel: np.ndarray) -> list[np.ndarray]:
    """Cut (80, T) into as few parts of about equal length as do not exceed :data:`WINDOW` frames."""
    return np.array_split(mel, -(-mel.shape[1] // WINDOW), axis=1)
