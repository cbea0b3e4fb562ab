"""Discriminators of stretches of the mel, and the training of singer and discriminators as two players.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931) is trained adversarially; how is not published. XiaoiceSing 2 (Chunhui et
al. 2022, arXiv 2210.14666) judges stretches of several lengths in several frequency bands; the losses are those of the
vocoder's game: least squares and feature matching (:mod:`affgen.vocoder.losses`).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from affgen.vocoder.discriminators import SLOPE
from affgen.vocoder.losses import Judgement, adversarial_loss, discriminator_loss, matching_loss
from affgen.vocoder.train import frozen
from svs.config import AdversaryConfig
from svs.model import MuseSVS, SingingBatch


class SegmentDiscriminator(nn.Module):
    """Sees some bands of a stretch as a picture."""

    def __init__(self, config: AdversaryConfig, band: tuple[int, int]):
        super().__init__()
        self.band, channels = slice(*band), config.channels
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(channels if number else 1, channels, 3, 2 if number else 1, padding=1))
            for number in range(config.layers)
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, mel: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score map and features of a stretch (B, 80, T)."""
        x = mel[:, self.band].unsqueeze(1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.score(x), features


class MelDiscriminators(nn.Module):
    """One for every length and band."""

    def __init__(self, config: AdversaryConfig):
        super().__init__()
        self.segments = config.segments
        self.parts = nn.ModuleList(
            nn.ModuleList(SegmentDiscriminator(config, band) for band in config.bands) for _ in config.segments
        )

    def places(self, mask: Tensor) -> list[Tensor]:
        """Draw where the stretches of each length begin, (B,) each, inside the valid frames of ``mask`` (B, T) bool."""
        counts = mask.sum(dim=1)
        return [
            (torch.rand(len(mask), device=mask.device) * (counts - size + 1).clamp(min=1)).long()
            for size in self.segments
        ]

    def forward(self, mel: Tensor, places: list[Tensor]) -> Judgement:
        """Return what each thinks of its stretch of ``mel`` (B, 80, T), which begins at its one of ``places``.

        A recording shorter than a stretch is followed by zeros.
        """
        judged: Judgement = []
        for size, starts, parts in zip(self.segments, places, self.parts, strict=True):
            longer = F.pad(mel, (0, size))
            index = starts.unsqueeze(1) + torch.arange(size, device=mel.device)  # (B, size)
            stretch = longer.gather(2, index.unsqueeze(1).expand(-1, mel.shape[1], -1))
            judged += [part(stretch) for part in cast(nn.ModuleList, parts)]
        return judged


class AdversarialTask(nn.Module):
    """The singer and its discriminators, two players in one step."""

    def __init__(self, singer: MuseSVS):
        super().__init__()
        self.singer, self.discriminators = singer, MelDiscriminators(singer.config.adversary)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses by name, as :func:`affgen.training.fit` takes them."""
        config = self.singer.config
        return config.weights | {"adversarial": config.adversary.adversarial, "matching": config.adversary.matching}

    def players(self) -> tuple[nn.Module, nn.Module]:
        """Parts whose gradients are clipped apart; asked for by :func:`affgen.training.fit`."""
        return self.singer, self.discriminators

    def losses(self, batch: SingingBatch) -> dict[str, Tensor]:
        """Return the losses of the singer with its part in the game, and that of the discriminators."""
        losses, made, frames = self.singer.taught(batch)
        real = self.singer.standard(batch.mel) * frames.mask.unsqueeze(1)
        places = self.discriminators.places(frames.mask)
        known, caught = self.discriminators(real, places), self.discriminators(made.detach(), places)
        with frozen(self.discriminators):
            judged = self.discriminators(made, places)
        losses["adversarial"] = adversarial_loss(judged)
        losses["matching"] = matching_loss(known, judged)
        losses["discriminators"] = discriminator_loss(known, caught)
        return losses
