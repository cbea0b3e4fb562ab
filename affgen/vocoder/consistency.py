"""Bring a wave closer to the mel it was made from, keeping its phases: a few rounds of Griffin-Lim from a good start.

Each round takes the STFT of the front end, scales its magnitudes until their mel is nearer to the one asked for, and
goes back to a wave (Griffin & Lim 1984; with the momentum of Perraudin, Balazs & Sondergaard 2013). From random phases
that takes many rounds and never finds the pulses of a voice; from the phases of the excitation a handful will do. The
magnitudes move by the multiplicative rule of Lee & Seung (2001), so that what the mel cannot tell apart (the harmonics
inside a wide band, all above 8 kHz) stays as the network made it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.features import HOP, N_FFT, mel_filterbank

MOMENTUM = 0.9
STEPS = 2
"""Multiplicative updates of the magnitudes in a round."""
LIMIT = 10.0
"""Largest factor of one update."""


class Consistency(nn.Module):
    """Rounds of projection towards a mel; has no weights."""

    bank: Tensor
    share: Tensor
    outside: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        bank = torch.from_numpy(mel_filterbank().copy())  # (80, bins)
        self.register_buffer("bank", bank, persistent=False)
        total = bank.sum(dim=0)
        self.register_buffer("share", bank.t() / total.clamp(min=1e-8).unsqueeze(1), persistent=False)  # (bins, 80)
        self.share[total <= 1e-6] = 0.0
        self.register_buffer("outside", (total <= 1e-6).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, wave: Tensor, mel: Tensor, rounds: int) -> Tensor:
        """Wave (B, T * HOP) after ``rounds`` rounds towards ``mel`` (B, 80, T), natural log; 0 change nothing."""
        target = torch.exp(mel).transpose(1, 2)  # (B, T, 80)
        before = None
        for _ in range(rounds):
            spectrum = self._analyse(wave)
            ahead = spectrum if before is None else spectrum + MOMENTUM * (spectrum - before)
            before = spectrum
            wave = self._synthesise(ahead * self._factor(ahead, target))
        return wave

    def _factor(self, spectrum: Tensor, target: Tensor) -> Tensor:
        """What the magnitudes of spectrum (B, T, bins) must be multiplied by."""
        start = torch.view_as_real(spectrum).square().sum(-1).add(1e-14).sqrt()
        factor = torch.ones_like(start)
        for _ in range(STEPS):
            ratio = target / ((start * factor) @ self.bank.t()).clamp(min=1e-6)
            factor = factor * (ratio.clamp(1 / LIMIT, LIMIT) @ self.share.t() + self.outside)
        return factor

    def _analyse(self, wave: Tensor) -> Tensor:
        side = (N_FFT - HOP) // 2
        padded = F.pad(wave.unsqueeze(1), (side, side), mode="reflect").squeeze(1)
        return torch.fft.rfft(padded.unfold(-1, N_FFT, HOP) * self.window)  # (B, T, bins)

    def _synthesise(self, spectrum: Tensor) -> Tensor:
        return overlap_add(torch.fft.irfft(spectrum, N_FFT), self.window, HOP)


def overlap_add(frames: Tensor, window: Tensor, hop: int) -> Tensor:
    """Least-squares wave (B, T * hop) of frames (B, T, size): windowed, added, divided by the squared windows' sum.

    ``size`` is a multiple of ``hop``; the outer ``(size - hop) / 2`` samples, which padding brought, are dropped.
    """
    batch, count, size = frames.shape
    side, parts = (size - hop) // 2, size // hop
    pieces = (frames * window).reshape(batch, count, parts, hop)
    weights = (window**2).reshape(parts, hop)
    added = frames.new_zeros(batch, count + parts - 1, hop)
    weight = frames.new_zeros(count + parts - 1, hop)
    for part in range(parts):
        added[:, part : part + count] += pieces[:, :, part]
        weight[part : part + count] += weights[part]
    wave = (added / weight.clamp(min=1e-3)).reshape(batch, -1)
    return wave[:, side : wave.shape[1] - side]
