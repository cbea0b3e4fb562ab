"""Log-mel to wave without a model: magnitudes that explain the mel, then phases that agree with each other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from affgen.errors import AffgenError
from affgen.features import BANDS, HOP, N_FFT, mel_filterbank

MOMENTUM = 0.99
UPDATES = 100
"""Multiplicative updates of the magnitudes."""


def griffin_lim(mel: np.ndarray, iterations: int = 60, seed: int = 0, *, momentum: float = MOMENTUM) -> np.ndarray:
    """Return the wave (T * 256,) float32 at 22,050 Hz of a log-mel (80, T) as :mod:`affgen.features` makes it.

    The fast algorithm of Perraudin, Balazs & Søndergaard (2013) from random phases; a momentum of 0 is that of Griffin
    & Lim (1984). Equal arguments give equal samples. Raises :class:`AffgenError` for another shape, values that are
    not finite, iterations below 0 and a momentum outside 0..1.2, beyond which it does not converge.
    """
    if mel.ndim != 2 or mel.shape[0] != BANDS or not mel.shape[1]:
        raise AffgenError(f"mel {mel.shape}: accepted is ({BANDS}, T), T at least 1")
    if not np.isfinite(mel).all() or iterations < 0 or not 0 <= momentum <= 1.2:
        raise AffgenError("accepted are a finite mel, iterations from 0 on and a momentum of 0 to 1.2")
    magnitude = linear(torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32)).exp().T)
    turns = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.polar(magnitude, 2 * torch.pi * turns)
    before = torch.zeros_like(spectrum)
    for _ in range(iterations):
        consistent = _frames(_overlap_add(spectrum))
        ahead = consistent + momentum * (consistent - before)
        spectrum = magnitude * ahead / ahead.abs().clamp(min=1e-12)
        before = consistent
    margin = (N_FFT - HOP) // 2
    return _overlap_add(spectrum)[margin:-margin].clamp(-1, 1).numpy()


def linear(mel: Tensor) -> Tensor:
    """Magnitudes (T, 513) whose mel is ``mel`` (T, 80), both linear: smooth ones, since there is no one answer.

    Non-negative least squares by multiplicative updates (Lee & Seung 2001), which keep the smoothness of where they
    start: each bin takes the bands that it belongs to. Bins above the mel's range are 0.
    """
    bank = torch.from_numpy(mel_filterbank().copy())
    share = bank / bank.sum(1, keepdim=True)
    found = mel @ (share / share.sum(0, keepdim=True).clamp(min=1e-8) / bank.sum(1, keepdim=True))
    up = mel @ bank
    for _ in range(UPDATES):
        found = found * up / (found @ bank.T @ bank).clamp(min=1e-12)
    return found


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(N_FFT)


def _frames(wave: Tensor) -> Tensor:
    """Spectra (T, 513) of a wave (T * 256 + 768,) that is mirrored already, or never was cut."""
    return torch.fft.rfft(wave.unfold(0, N_FFT, HOP) * _window())


def _overlap_add(spectrum: Tensor) -> Tensor:
    """The wave (T * 256 + 768,) whose spectra come nearest to ``spectrum`` (T, 513) (Griffin & Lim 1984, eq. 6)."""
    pieces = (torch.fft.irfft(spectrum, N_FFT) * _window()).view(len(spectrum), N_FFT // HOP, HOP)
    weights = (_window() ** 2).view(1, N_FFT // HOP, HOP).expand_as(pieces)
    return (_stack(pieces) / _stack(weights).clamp(min=1e-3)).flatten()


def _stack(pieces: Tensor) -> Tensor:
    """Add pieces (T, 4, 256) that begin 256 samples after each other: (T + 3, 256)."""
    count, parts, _ = pieces.shape
    total = pieces.new_zeros(count + parts - 1, HOP)
    for part in range(parts):
        total[part : part + count] += pieces[:, part]
    return total
