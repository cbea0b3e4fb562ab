"""Mel and F0 to wave with a trained model, in chunks whose joints cannot be told from one pass over the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from affgen.errors import AffgenError
from affgen.features import BANDS, HOP, SAMPLE_RATE
from affgen.vocoder.model import Generator
from affgen.vocoder.pack import SHIPPED, unpack
from affgen.vocoder.source import fill_gaps, noise, per_sample, pulses

CHUNK = 1024
"""Frames synthesised at once, about 12 s."""


class Vocoder:
    """A trained vocoder; holds no state between calls."""

    def __init__(self, generator: Generator):
        self.generator = generator.eval()

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None) -> Vocoder:
        """Load a model directory, by default the shipped one. Raises :class:`ModelError`."""
        return cls(unpack(SHIPPED if model is None else model)[1])

    def synthesize(self, mel: np.ndarray, f0: np.ndarray, *, seed: int = 0, chunk: int = CHUNK) -> np.ndarray:
        """Return the wave (T * 256,) float32 at 22,050 Hz of mel (80, T), natural log, and f0 (T,), 0 = unvoiced.

        Equal arguments give equal samples; another ``chunk`` gives the same to about 1e-5. Raises
        :class:`AffgenError` for other shapes and for values that are not finite.
        """
        return np.concatenate(list(self.stream(mel, f0, seed=seed, chunk=chunk)))

    def stream(self, mel: np.ndarray, f0: np.ndarray, *, seed: int = 0, chunk: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield the wave of :meth:`synthesize` piece by piece, ``chunk`` frames each, so that memory stays bounded."""
        _check(mel, f0, chunk)
        total, context = len(f0), self.generator.config.context
        pitch = fill_gaps(f0)
        starts = start_phases(pitch)
        voiced = (f0 > 0).astype(np.float32)
        for first in range(0, total, chunk):
            last = min(first + chunk, total)
            low, high = max(0, first - context), min(total, last + context)
            around = np.pad(pitch, 1, mode="edge")[low : high + 2]
            wave = self.piece(mel[:, low:high], around, voiced[low:high], phase=starts[low], first=low, seed=seed)
            yield wave[(first - low) * HOP : (last - low) * HOP]

    @torch.inference_mode()
    def piece(
        self, mel: np.ndarray, around: np.ndarray, voiced: np.ndarray, *, phase: float, first: int, seed: int = 0
    ) -> np.ndarray:
        """Return the wave (t * 256,) of frames ``first`` and on of something longer, ``mel`` (80, t).

        ``around`` (t + 2,) is F0 without gaps, with one frame more on each side, for the interpolation; ``voiced``
        (t,) 0 or 1; ``phase`` the cycles, 0 to 1, at which the first frame begins (:func:`start_phases`).
        """
        generator = self.generator
        hertz = per_sample(torch.from_numpy(around).unsqueeze(0))[:, HOP:-HOP]
        gate = torch.from_numpy(voiced).unsqueeze(0)
        tone = pulses(hertz, torch.tensor([phase], dtype=torch.float64))
        tone = tone * generator.gate(gate)
        hiss = torch.from_numpy(noise(first * HOP, mel.shape[1] * HOP, seed)).unsqueeze(0)
        frames = torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32)).unsqueeze(0)
        for_pulses, for_noise = generator.filters(frames, torch.from_numpy(around[1:-1]).unsqueeze(0), gate)
        wave = generator.sound(for_pulses, for_noise, tone, hiss, frames, generator.config.rounds)
        return wave[0].clamp(-1, 1).numpy()


def start_phases(f0: np.ndarray) -> np.ndarray:
    """Phase in cycles (0 to 1) at which each frame begins, for f0 (T,) without gaps: (T,) float64.

    The linear interpolation of :func:`per_sample` sums to 1/8, 3/4 and 1/8 of the frame before, itself and the next.
    """
    padded = np.pad(f0.astype(np.float64), 1, mode="edge")
    cycles = (padded[:-2] + 6 * padded[1:-1] + padded[2:]) / 8 * HOP / SAMPLE_RATE
    return np.concatenate([[0.0], np.cumsum(cycles)[:-1]]) % 1


def _check(mel: np.ndarray, f0: np.ndarray, chunk: int) -> None:
    if mel.ndim != 2 or mel.shape[0] != BANDS or f0.shape != mel.shape[1:] or not len(f0):
        raise AffgenError(f"mel {mel.shape} and f0 {f0.shape}: accepted are ({BANDS}, T) and (T,), T at least 1")
    if not (np.isfinite(mel).all() and np.isfinite(f0).all() and (f0 >= 0).all() and (f0 < SAMPLE_RATE / 4).all()):
        raise AffgenError(f"mel and f0 must be finite, f0 from 0 to {SAMPLE_RATE / 4:g} Hz")
    if chunk < 1:
        raise AffgenError(f"chunk of {chunk} frames; accepted: 1 or more")
