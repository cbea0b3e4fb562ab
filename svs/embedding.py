"""Singer, emotion and intensity in one space: the conditional residual joint embedding, and the additive ablation.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931): attributes and their relations in one joint embedding, and an embedding
space that is linear in intensity, so that levels between and beyond the trained ones can be had. That an attribute is
the residual it makes of a phoneme comes from UniTTS (Kim et al. 2021, arXiv 2106.11171). Sizes, and how the joint table
is factored, are not published.

===================  ===========  ============================================================================
code                 symbol       equation
===================  ===========  ============================================================================
``h0``               h_0          output of the lyric-pitch encoder
``h1``               h_1          h_0 + r_s(h_0, U_s)
:meth:`joint`        J[s, e]      U_s + V_e + W (U_s * V_e): the relation is learned where a singer has data in an
                                  emotion; a singer who has none borrows V_e
:meth:`direction`    d            r(h_1, J[s, e]) - r(h_1, J[s, neutral])
:meth:`forward`      h_2          h_1 + i d
===================  ===========  ============================================================================

Intensity 0 is neutral to the bit, and so is the emotion neutral at any intensity.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from svs.config import MuseConfig


class Residual(nn.Module):
    """What an attribute changes of a phoneme: r(h, a), without a last bias: no difference would hear it."""

    def __init__(self, width: int, attribute: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width + attribute, hidden), nn.GELU(), nn.Linear(hidden, width, bias=False))

    def forward(self, h: Tensor, attribute: Tensor) -> Tensor:
        """``h`` (B, N, D), ``attribute`` (B, R) -> (B, N, D)."""
        spread = attribute.unsqueeze(1).expand(-1, h.shape[1], -1)
        return cast(Tensor, self.net(torch.cat([h, spread], dim=2)))


class UnifiedJointEmbedding(nn.Module):
    """The published idea; emotion 0 is neutral."""

    def __init__(self, config: MuseConfig):
        super().__init__()
        width, rank, hidden = config.blocks.width, config.joint.rank, config.joint.hidden
        self.singers = nn.Embedding(len(config.singers), rank)
        self.emotions = nn.Embedding(len(config.emotions), rank)
        self.relation = nn.Linear(rank, rank, bias=False)
        self.of_singer, self.of_joint = Residual(width, rank, hidden), Residual(width, rank, hidden)

    def joint(self, singer: Tensor, emotion: Tensor) -> Tensor:
        """Return J[s, e] (B, R) of ``singer`` and ``emotion`` (B,) int64."""
        u, v = self.singers(singer), self.emotions(emotion)
        return cast(Tensor, u + v + self.relation(u * v))

    def direction(self, h1: Tensor, singer: Tensor, emotion: Tensor) -> Tensor:
        """Return what intensity 1 adds to ``h1`` (B, N, D), the same shape; ``singer``, ``emotion`` (B,) int64."""
        neutral = torch.zeros_like(emotion)
        there, here = self.joint(singer, emotion), self.joint(singer, neutral)
        return cast(Tensor, self.of_joint(h1, there) - self.of_joint(h1, here))

    def forward(self, h0: Tensor, singer: Tensor, emotion: Tensor, intensity: Tensor) -> Tensor:
        """``h0`` (B, N, D), ``singer`` and ``emotion`` (B,) int64, ``intensity`` (B,) or (B, N) -> h2 (B, N, D)."""
        h1 = h0 + self.of_singer(h0, self.singers(singer))
        return h1 + _level(intensity) * self.direction(h1, singer, emotion)


class AdditiveEmbedding(nn.Module):
    """The ablation: h_0 + S_s + i (E_e - E_neutral), the same for every phoneme and singer."""

    def __init__(self, config: MuseConfig):
        super().__init__()
        self.singers = nn.Embedding(len(config.singers), config.blocks.width)
        self.emotions = nn.Embedding(len(config.emotions), config.blocks.width)

    def forward(self, h0: Tensor, singer: Tensor, emotion: Tensor, intensity: Tensor) -> Tensor:
        """As :meth:`UnifiedJointEmbedding.forward`."""
        direction = self.emotions(emotion) - self.emotions(torch.zeros_like(emotion))
        return h0 + self.singers(singer).unsqueeze(1) + _level(intensity) * direction.unsqueeze(1)


def _level(intensity: Tensor) -> Tensor:
    """Intensity (B,) or (B, N) as (B, 1 or N, 1)."""
    return intensity.reshape(len(intensity), -1, 1)
