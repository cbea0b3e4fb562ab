"""The excitation of the vocoder: a band-limited pulse train that follows F0, and noise, both of flat spectrum.

Both have the same power per hertz, so that one envelope fits either: white noise of variance 1 spreads its power over
``SAMPLE_RATE / 2``; each harmonic of amplitude a has the power a^2 / 2 for f0 hertz, hence
``a = sqrt(4 f0 / SAMPLE_RATE)``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from affgen.features import HOP, SAMPLE_RATE

TOP = 0.49 * SAMPLE_RATE
"""No harmonic above this frequency, Hz."""
NOISE_BLOCK = 4096


def fill_gaps(f0: np.ndarray) -> np.ndarray:
    """Return f0 (T,) in Hz with linear interpolation where it was 0, the nearest value at the ends, 200 if all is 0."""
    voiced = np.flatnonzero(f0 > 0)
    if not len(voiced):
        return np.full(len(f0), 200.0, np.float32)
    return np.interp(np.arange(len(f0)), voiced, f0[voiced]).astype(np.float32)


def per_sample(values: Tensor) -> Tensor:
    """Interpolate values at frame centres linearly: (B, T) -> (B, T * HOP); constant beyond the outer centres."""
    return torch.nn.functional.interpolate(values.unsqueeze(1), scale_factor=HOP, mode="linear").squeeze(1)


def pulses(f0: Tensor, start: Tensor) -> Tensor:
    """Band-limited pulse train (B, L) of a continuous f0 (B, L) in Hz at each sample.

    ``start`` (B,) is the phase before the first sample, in cycles from 0 to 1. The sum of K cosines is a Dirichlet
    kernel: sum_k cos(2 pi k u) = (sin((2K + 1) pi u) / sin(pi u) - 1) / 2.
    """
    cycles = torch.cumsum(f0.double() / SAMPLE_RATE, dim=1) + start.double().unsqueeze(1)
    phase = (cycles - cycles.round()).to(f0.dtype)  # -0.5 to 0.5
    harmonics = torch.floor(TOP / f0).clamp(min=1)
    sine = torch.sin(math.pi * phase)
    near = sine.abs() < 1e-5
    kernel = torch.sin((2 * harmonics + 1) * math.pi * phase) / torch.where(near, torch.ones_like(sine), sine)
    train = (torch.where(near, 2 * harmonics + 1, kernel) - 1) / 2
    return train * torch.sqrt(4 * f0 / SAMPLE_RATE)


def noise(start: int, count: int, seed: int) -> np.ndarray:
    """Return samples ``start`` to ``start + count`` of an endless white noise of variance 1, (count,) float32.

    A pure function of position and seed, so that a file made in chunks has the noise of the file made whole.
    """
    first, last = start // NOISE_BLOCK, (start + count - 1) // NOISE_BLOCK
    blocks = [
        np.random.default_rng([seed, block]).standard_normal(NOISE_BLOCK, np.float32)
        for block in range(first, last + 1)
    ]
    offset = start - first * NOISE_BLOCK
    return np.concatenate(blocks)[offset : offset + count]
