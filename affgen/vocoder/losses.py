"""What the vocoder is trained on: the spectral energy distance, and the least-squares game of the discriminators.

A generator with noise in it cannot match its target sample by sample, and an ordinary spectral distance is smallest for
too little noise (a buzz). The generalised energy distance (Gritsenko et al. 2020, "A spectral energy distance for
parallel speech synthesis", eq. 3) adds the distance of two draws y, y' of the output with a negative sign,

    2 E d(x, y) - E d(y, y'),

and is smallest when outputs are distributed as the targets are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from affgen.features import SAMPLE_RATE

WINDOWS = (2048, 1024, 512, 256, 128)
FLOOR = 1e-4
"""Magnitudes below this (of a Hann-windowed frame, full scale 1) do not count."""


class SpectralDistance(nn.Module):
    """Distance of two waves: log and linear magnitudes at several resolutions, low frequencies weighing more."""

    def __init__(self, windows: Sequence[int] = WINDOWS):
        super().__init__()
        self.windows = tuple(windows)
        for size in self.windows:
            frequency = torch.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
            weight = 1 / (frequency + 700)  # the slope of the mel scale: as many nats per mel everywhere
            weight = weight / weight.mean() + 0.2
            self.register_buffer(f"weight_{size}", (weight / weight.mean()).reshape(-1, 1), persistent=False)
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def spectra(self, wave: Tensor) -> list[Tensor]:
        """Magnitudes (B, bins, frames) of wave (B, L) at each resolution."""
        made = []
        for size in self.windows:
            window = getattr(self, f"window_{size}")
            spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True)
            made.append(torch.view_as_real(spectrum).pow(2).sum(-1).add(1e-10).sqrt())
        return made

    def forward(self, a: Sequence[Tensor], b: Sequence[Tensor], level: Sequence[Tensor]) -> Tensor:
        """Distance (scalar) of spectra a and b; ``level`` (B, 1, 1) per resolution makes linear magnitudes relative."""
        total = a[0].new_zeros(())
        for size, one, other, scale in zip(self.windows, a, b, level, strict=True):
            weight = getattr(self, f"weight_{size}")
            ratio = ((one + FLOOR).log() - (other + FLOOR).log()).square()
            logarithmic = (weight * ratio).mean(dim=1).add(1e-6).sqrt().mean()  # Euclidean over bins, as in eq. 3
            linear = (weight * (one - other).abs() / scale).mean()
            total = total + logarithmic + linear
        return total / len(self.windows)


def energy_distance(distance: SpectralDistance, target: Tensor, first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Attraction and repulsion of the energy distance for waves (B, L): target and two draws of the output."""
    x, y, z = distance.spectra(target), distance.spectra(first), distance.spectra(second)
    level = [s.mean(dim=(1, 2), keepdim=True) + FLOOR for s in x]
    return {
        "attraction": distance(x, y, level) + distance(x, z, level),
        "repulsion": -distance(y, z, level),
    }


Judgement = list[tuple[Tensor, list[Tensor]]]
"""Of each discriminator: its scores and the features that led to them."""


def discriminator_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Least squares (Mao et al. 2017): real to 1, fake to 0; the mean over discriminators."""
    terms = [(1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def adversarial_loss(fake: Judgement) -> Tensor:
    """What the generator adds: fake to 1."""
    return torch.stack([(1 - score).square().mean() for score, _ in fake]).mean()


def matching_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Feature matching (Larsen et al. 2016; Kumar et al. 2019), relative to the size of the real features."""
    terms = [
        (one.detach() - other).abs().mean() / one.detach().abs().mean().clamp(min=1e-3)
        for (_, reals), (_, fakes) in zip(real, fake, strict=True)
        for one, other in zip(reals, fakes, strict=True)
    ]
    return torch.stack(terms).mean()
