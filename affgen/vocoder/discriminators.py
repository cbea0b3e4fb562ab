"""Multi-period discriminators (Kong et al. 2020) and multi-resolution ones on spectrograms (Jang et al. 2021)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from affgen.vocoder.config import DiscriminatorConfig
from affgen.vocoder.losses import Judgement

SLOPE = 0.1


class PeriodDiscriminator(nn.Module):
    """Sees the wave folded into columns of one period, so that equal phases lie side by side."""

    def __init__(self, period: int, channels: tuple[int, ...]):
        super().__init__()
        self.period = period
        sizes = (1, *channels)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0))) for a, b in pairwise(sizes)
        )
        self.score = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score map and features of wave (B, L)."""
        x = F.pad(wave, (0, -wave.shape[1] % self.period), mode="reflect")
        x = x.reshape(len(x), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.score(x), features


class ResolutionDiscriminator(nn.Module):
    """Sees the log magnitude of one STFT as a picture."""

    window: Tensor

    def __init__(self, n_fft: int, channels: int):
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        shapes = [(1, (1, 1)), (channels, (2, 1)), (channels, (2, 2)), (channels, (2, 2))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(inputs, channels, 3, stride, padding=1)) for inputs, stride in shapes
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score map and features of wave (B, L)."""
        spectrum = torch.stft(wave, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)
        power = torch.view_as_real(spectrum).pow(2).sum(-1)
        x = (0.5 * torch.log(power + 1e-8)).unsqueeze(1) / 4
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.score(x), features


class Discriminators(nn.Module):
    """All of them."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.parts = nn.ModuleList(
            [PeriodDiscriminator(period, config.period_channels) for period in config.periods]
            + [ResolutionDiscriminator(n_fft, config.resolution_channels) for n_fft in config.resolutions]
        )

    def forward(self, wave: Tensor) -> Judgement:
        """What each thinks of wave (B, L)."""
        return [part(wave) for part in self.parts]
