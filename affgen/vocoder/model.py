"""The vocoder: mel and F0 to wave by filtering an excitation in the short-time Fourier domain.

Vocos (Siuzdak 2024) showed that a ConvNeXt over frames with an inverse STFT at its end gives the quality of up-sampling
vocoders at a tenth of their cost. It has to invent a phase for every bin and frame, which takes long to learn. Here the
phase comes from an excitation of known F0, as in source-filter vocoders (Wang et al. 2019, NSF; Liu et al. 2020, neural
homomorphic vocoder): the network predicts, for each frame and bin, a complex filter for the pulses and a real one for
the noise.

===================  ==================================================================================
``envelope``         log magnitude that the mel itself implies, the filter's starting point
``pulse_filter``     exp(envelope + a + i b), a and b predicted
``noise_filter``     exp(envelope + c), c predicted
output               iSTFT(STFT(pulses) pulse_filter + STFT(noise) noise_filter), then a few rounds of
                     :class:`affgen.vocoder.consistency.Consistency` towards the mel
===================  ==================================================================================
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.features import BANDS, FMAX, HOP, SAMPLE_RATE
from affgen.layers import ConvNeXt
from affgen.vocoder.config import GeneratorConfig
from affgen.vocoder.consistency import Consistency, overlap_add
from affgen.vocoder.source import per_sample, pulses

MEL_GAIN = 0.21
"""Log gain by which noise of variance 1 must be scaled so that its log-mel is 0: ln(21.53 / sqrt(384) / 0.886)."""
RANGE = 12.0
"""Filters stay within exp(+-RANGE) of the envelope."""


class Generator(nn.Module):
    """Mel (B, 80, T) and F0 to wave (B, T * 256)."""

    to_bins: Tensor
    window: Tensor
    blocks: nn.ModuleList

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        self.hop = config.n_fft // 4
        self.bins = config.n_fft // 2 + 1
        self.steps = HOP // self.hop  # synthesis frames per frame of the mel
        self.enter = nn.Conv1d(BANDS + 2, config.width, config.kernel, padding=config.kernel // 2)
        self.enter_norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.width, config.hidden, config.kernel, 1 / config.blocks) for _ in range(config.blocks)
        )
        self.leave_norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, self.steps * 3 * self.bins)
        nn.init.normal_(self.leave.weight, std=0.01)
        nn.init.zeros_(self.leave.bias)
        self.register_buffer("to_bins", torch.from_numpy(_bands_to_bins(config.n_fft)), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.consistency = Consistency()

    def filters(self, mel: Tensor, f0: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor]:
        """Filters for pulses (complex) and noise (real), each (B, bins, T'), T' synthesis frames.

        ``mel`` (B, 80, T) natural log, ``f0`` (B, T) in Hz without gaps, ``voiced`` (B, T) 0 or 1.
        """
        pitch = torch.log2(f0 / 220.0)
        x = torch.cat([(mel + 5.0) / 3.0, pitch.unsqueeze(1), voiced.unsqueeze(1)], dim=1)
        x = self.enter_norm(self.enter(x).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        y = self.leave(self.leave_norm(x.transpose(1, 2)))  # (B, T, steps * 3 * bins)
        batch, frames, _ = y.shape
        y = y.reshape(batch, frames * self.steps, 3, self.bins).permute(2, 0, 3, 1)  # (3, B, bins, T')
        envelope = F.interpolate(self.to_bins @ mel, scale_factor=self.steps, mode="linear") + MEL_GAIN
        size = envelope + RANGE * torch.tanh(y[:2] / RANGE)
        return torch.polar(torch.exp(size[0]), y[2]), torch.exp(size[1])

    def forward(self, mel: Tensor, f0: Tensor, voiced: Tensor, draws: int = 1, rounds: int = 0) -> Tensor:
        """Wave (draws, B, T * 256): the filters are computed once, each draw has its own noise and first phase.

        ``mel`` (B, 80, T), ``f0`` (B, T) without gaps, ``voiced`` (B, T) 0 or 1; torch's generator decides the draws,
        ``rounds`` of projection follow.
        """
        pulse_filter, noise_filter = self.filters(mel, f0, voiced)
        batch, frames = f0.shape
        shape = (draws * batch, frames * HOP)
        tone = pulses(per_sample(f0).repeat(draws, 1), torch.rand(shape[0], device=mel.device))
        tone = tone * self.gate(voiced).repeat(draws, 1)
        hiss = torch.randn(shape, device=mel.device)
        waves = [
            self.sound(pulse_filter, noise_filter, t, h, mel, rounds)
            for t, h in zip(tone.split(batch), hiss.split(batch), strict=True)
        ]
        return torch.stack(waves)

    def sound(
        self, pulse_filter: Tensor, noise_filter: Tensor, tone: Tensor, hiss: Tensor, mel: Tensor, rounds: int
    ) -> Tensor:
        """Filter the excitation, pulses ``tone`` and noise ``hiss`` (B, T * HOP), and refine the wave it gives."""
        wave = self.inverse(pulse_filter * self.spectrum(tone) + noise_filter * self.spectrum(hiss))
        return self.consistency(wave, mel, rounds)

    def gate(self, voiced: Tensor) -> Tensor:
        """Where pulses may sound, per sample: voiced (B, T) -> (B, T * HOP), lengthened by ``dilate`` frames."""
        reach = self.config.dilate
        wide = F.max_pool1d(voiced.unsqueeze(1), 2 * reach + 1, 1, reach).squeeze(1)
        return per_sample(wide)

    def spectrum(self, wave: Tensor) -> Tensor:
        """STFT whose frame s is centred on sample s * hop + hop / 2: (B, T * HOP) -> (B, bins, T')."""
        side = (self.config.n_fft - self.hop) // 2
        wave = F.pad(wave, (side, side))
        return torch.stft(wave, self.config.n_fft, self.hop, window=self.window, center=False, return_complex=True)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Least-squares inverse of :meth:`spectrum`: (B, bins, T') -> (B, T * HOP)."""
        return overlap_add(torch.fft.irfft(spectrum.transpose(1, 2), self.config.n_fft), self.window, self.hop)


def _bands_to_bins(n_fft: int) -> np.ndarray:
    """Matrix (bins, 80) that interpolates log-mel bands at the frequencies of the bins, constant beyond the ends."""
    knee, step = (
        15.0,
        math.log(6.4) / 27,
    )  # the mel scale of Slaney: linear to 1 kHz, 200/3 Hz per mel, then logarithmic
    top = knee + math.log(FMAX / 1000) / step
    mels = np.linspace(0, top, BANDS + 2)[1:-1]
    frequencies = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    place = np.where(frequencies < 1000, frequencies * 3 / 200, knee + np.log(np.maximum(frequencies, 1) / 1000) / step)
    position = np.interp(place, mels, np.arange(BANDS))
    matrix = np.zeros((len(frequencies), BANDS), np.float32)
    low = np.floor(position).astype(int).clip(0, BANDS - 2)
    rows = np.arange(len(frequencies))
    matrix[rows, low] = 1 - (position - low)
    matrix[rows, low + 1] += position - low
    return matrix
