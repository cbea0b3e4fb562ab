"""The decoder over time only: content, F0 and energy, a voice and an emotion to a mel, by flow from an average mel.

==============  =========================================================================  ============================
code            meaning                                                                    in EmoReg / flow matching
==============  =========================================================================  ============================
``average``     regression of the mel on all that is given, from which sampling starts     Xbar, stop-gradient into it
``residual``    y = (x - average) / (residual * deviation): what regression cannot tell
``noisy``       y_t = t y + (1 - t) z, z ~ N(0, 1)                                         x_t, optimal-transport path
``velocity``    v(y_t, t) ~ y - z                                                          Lipman et al. 2023, eq. (23)
``score_of``    the same network as the score of the SDE (:mod:`vc.diffusion`)              s_theta(X_t, Xbar, e, t)
==============  =========================================================================  ============================

One network serves the samplers of the flow and of EmoReg's SDE alike (:func:`vc.diffusion.score_of`).

All signals are levelled (:mod:`vc.content`) and standardised by buffers that :func:`vc.train.fit_scales` sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.features import BANDS
from affgen.layers import ConvNeXt
from vc.config import DecoderConfig

TIMES = 32
"""Frequencies of the time embedding."""


@dataclass(frozen=True)
class Given:
    """What a mel is made from.

    ``content`` (B, C, T), ``ripple`` (B, 80, T) of :func:`vc.content.ripple`, ``energy`` (B, T) log energy of the
    levelled mel, ``pitch`` (B, T) log2 of F0 in Hz without gaps, ``voiced`` (B, T) 0 or 1; ``speaker`` (B, 192),
    ``timbre`` (B, C), ``register`` (B,) median log2 F0 of the speaker's neutral speech; ``emotion`` (B, K, T or 1),
    ``told`` (B,) 1, or 0 where the emotion is hidden.
    """

    content: Tensor
    ripple: Tensor
    energy: Tensor
    pitch: Tensor
    voiced: Tensor
    speaker: Tensor
    timbre: Tensor
    register: Tensor
    emotion: Tensor
    told: Tensor

    def to(self, device: torch.device) -> Given:
        """The same on ``device``."""
        return Given(*(value.to(device) for value in vars(self).values()))


class Decoder(nn.Module):
    """:meth:`average` and :meth:`velocity` make one evaluation; :mod:`vc.diffusion` has the samplers."""

    mel_mean: Tensor
    mel_scale: Tensor
    content_scale: Tensor
    timbre_mean: Tensor
    timbre_scale: Tensor
    mean_blocks: nn.ModuleList
    flow_blocks: nn.ModuleList

    def __init__(self, config: DecoderConfig, emotion: int):
        super().__init__()
        self.config = config
        width, kernel, cepstra, condition = config.width, config.kernel, config.cepstra, config.condition
        for name, size in (("mel_mean", BANDS), ("timbre_mean", cepstra)):
            self.register_buffer(name, torch.zeros(size))
        for name, size in (("mel_scale", BANDS), ("content_scale", cepstra), ("timbre_scale", cepstra)):
            self.register_buffer(name, torch.ones(size))
        self.voice = nn.Sequential(nn.Linear(config.speaker + cepstra + 1, condition), nn.GELU(), nn.Dropout(0.1))
        self.join = nn.Linear(condition, condition)
        self.feeling = nn.Conv1d(emotion, condition, 1)
        self.hidden_feeling = nn.Parameter(torch.zeros(condition, 1))
        self.time = nn.Sequential(nn.Linear(2 * TIMES, condition), nn.GELU(), nn.Linear(condition, condition))
        self.enter = nn.Conv1d(cepstra + BANDS + 3, width, kernel, padding=kernel // 2)
        self.mean_films = nn.ModuleList(nn.Conv1d(condition, 2 * width, 1) for _ in range(config.mean_blocks))
        self.mean_blocks = _blocks(config, config.mean_blocks)
        self.mean_norm = nn.LayerNorm(width)
        self.mean_head = nn.Linear(width, BANDS)
        self.flow_enter = nn.Conv1d(BANDS + width, width, kernel, padding=kernel // 2)
        self.flow_films = nn.ModuleList(nn.Conv1d(condition, 2 * width, 1) for _ in range(config.flow_blocks))
        self.flow_blocks = _blocks(config, config.flow_blocks)
        self.flow_norm = nn.LayerNorm(width)
        self.flow_head = nn.Linear(width, BANDS)
        nn.init.zeros_(self.flow_head.weight)
        nn.init.zeros_(self.flow_head.bias)

    def reach(self, evaluations: int) -> int:
        """Frames on either side that a frame of a mel depends on after so many ``evaluations`` of the velocity."""
        config = self.config
        per_pass = (config.flow_blocks + 1) * (config.kernel // 2)
        return (config.mean_blocks + 1) * (config.kernel // 2) + evaluations * per_pass

    def condition(self, given: Given) -> Tensor:
        """Speaker and emotion joined: (B, condition, T or 1)."""
        timbre = (given.timbre - self.timbre_mean) / self.timbre_scale
        speaker = given.speaker * math.sqrt(self.config.speaker)
        voice = self.voice(torch.cat([speaker, timbre, 2 * (given.register - 7.5).unsqueeze(1)], dim=1))
        told = given.told[:, None, None]
        feeling = told * self.feeling(given.emotion) + (1 - told) * self.hidden_feeling
        return F.gelu(self.join(voice).unsqueeze(2) + feeling)

    def average(self, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        """Average mel in standard units (B, 80, T), hidden frames (B, D, T), and the condition."""
        condition = self.condition(given)
        tracks = torch.stack([given.energy / 2, 2 * (given.pitch - 7.5), given.voiced], dim=1)
        x = self.enter(torch.cat([given.content / self.content_scale[:, None], given.ripple, tracks], dim=1))
        for block, film in zip(self.mean_blocks, self.mean_films, strict=True):
            x = block(x, film(condition))
        return self.mean_head(self.mean_norm(x.transpose(1, 2))).transpose(1, 2), x, condition

    def velocity(self, noisy: Tensor, time: Tensor, hidden: Tensor, condition: Tensor) -> Tensor:
        """Velocity (B, 80, T) of the residual at ``noisy`` (B, 80, T), ``time`` (B,) from 0, noise, to 1."""
        angles = time.unsqueeze(1) * torch.exp(torch.linspace(0, math.log(500), TIMES, device=time.device))
        moment = self.time(torch.cat([angles.sin(), angles.cos()], dim=1)).unsqueeze(2)
        x = self.flow_enter(torch.cat([noisy, hidden], dim=1))
        for block, film in zip(self.flow_blocks, self.flow_films, strict=True):
            x = block(x, film(condition + moment))
        return self.flow_head(self.flow_norm(x.transpose(1, 2))).transpose(1, 2)

    def standard(self, mel: Tensor) -> Tensor:
        """Levelled mel (B, 80, T) in standard units."""
        return (mel - self.mel_mean[:, None]) / self.mel_scale[:, None]

    def finished(self, average: Tensor, residual: Tensor) -> Tensor:
        """Levelled mel (B, 80, T) of an average in standard units and a sampled residual."""
        x = average + self.config.residual * residual
        return x * self.mel_scale[:, None] + self.mel_mean[:, None]

    def losses(self, mel: Tensor, given: Given) -> dict[str, Tensor]:
        """Regression and flow-matching losses for a levelled mel (B, 80, T); draws from torch's generator."""
        target = self.standard(mel)
        average, hidden, condition = self.average(given)
        residual = (target - average.detach()) / self.config.residual
        time = torch.rand(len(mel), device=mel.device)
        noise = torch.randn_like(residual)
        part = time[:, None, None]
        velocity = self.velocity(part * residual + (1 - part) * noise, time, hidden, condition)
        return {
            "average": F.l1_loss(average, target),
            "flow": F.mse_loss(velocity, residual - noise),
        }


def _blocks(config: DecoderConfig, count: int) -> nn.ModuleList:
    return nn.ModuleList(ConvNeXt(config.width, config.hidden, config.kernel, 1 / count) for _ in range(count))
