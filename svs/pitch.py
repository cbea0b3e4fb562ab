"""F0 around the notes: the statistical pitch predictor of Muse-SVS, and the deterministic one that is its ablation.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931): the variance of pitch is predicted as a function of emotion and intensity,
so that, say, vibrato grows with sadness; the notes stay what the score says. What the statistics are of is not
published: here, of each phoneme's voiced frames, in semitones from the note, never in Hz.

==============================  ==============  ===================================================================
code                            symbol          equation
==============================  ==============  ===================================================================
``mean``                        mu_n            from h_2
``sigma``                       sigma_n         sigma_floor + softplus(.), from h_2
``raw``                         c_t             from frames, the steps of the notes, mu and sigma
:meth:`contour`                 p_t             mu_n + sigma_n (c_t - mean_n c) / std_n c: voiced frames of phoneme n
:func:`statistics_loss`         L_stat          -log N(p_t; mu_n, sigma_n^2), the mean over voiced frames; real mean m
                                                and deviation s suffice: log sigma + ((m - mu)^2 + s^2) / (2 sigma^2)
:func:`f0_of`                   F0              440 * 2 ** ((note_t + p_t - 69) / 12)
==============================  ==============  ===================================================================

In training the contour is standardised to the real mean and deviation, so that each loss has its own target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svs.config import MuseConfig
from svs.variance import ConvPredictor, Frames, average, moments


@dataclass(frozen=True, eq=False)
class Pitch:
    """``contour`` (B, T) in semitones from the note, ``voiced`` (B, T) bool, ``logit`` (B, T) of it."""

    contour: Tensor
    voiced: Tensor
    logit: Tensor


@dataclass(frozen=True, eq=False)
class StatisticalPitch(Pitch):
    """The same with the predicted ``mean`` and ``sigma`` (B, N) of the phonemes, in semitones."""

    mean: Tensor
    sigma: Tensor


@dataclass(frozen=True, eq=False)
class RealPitch:
    """What was measured: ``contour`` (B, T) in semitones from the note, ``voiced`` (B, T) bool where it counts."""

    contour: Tensor
    voiced: Tensor

    @classmethod
    def of(cls, f0: Tensor, frames: Frames) -> RealPitch:
        """Return ``f0`` (B, T) in Hz, 0 where unvoiced, as seen from the notes; rests do not count."""
        voiced = (f0 > 0) & (frames.note > 0) & frames.mask
        contour = 69 + 12 * torch.log2(f0.clamp(min=1) / 440) - frames.note
        return cls(contour.where(voiced, 0.0), voiced)


class StatisticalPitchPredictor(nn.Module):
    """Mean and deviation of each phoneme, and a contour that has them."""

    def __init__(self, config: MuseConfig):
        super().__init__()
        width, self.config = config.blocks.width, config.contours
        self.statistics = ConvPredictor(width, self.config.statistics, 2)
        self.curve = ConvPredictor(width + 3, self.config.contour, 2)

    def forward(
        self,
        rows: Tensor,
        mask: Tensor,
        frames: Frames,
        real: RealPitch | None = None,
        sigma_scale: Tensor | None = None,
    ) -> StatisticalPitch:
        """Return the pitch of ``frames``, those of ``rows`` (B, N, D) with ``mask`` (B, N).

        With ``real`` the contour is given the measured mean and deviation, else the predicted ones, the deviation
        times ``sigma_scale`` (B, N).
        """
        mean, sigma = self.statistics(rows, mask).unbind(dim=2)
        sigma = self.config.sigma_floor + F.softplus(sigma)
        wanted = (mean, sigma if sigma_scale is None else sigma * sigma_scale)
        if real is not None:
            wanted = moments(real.contour, real.voiced.float(), frames, rows.shape[1])[:2]
        told = torch.stack([frames.step, frames.spread(wanted[0]), frames.spread(wanted[1])], dim=2)
        raw, logit = self.curve(torch.cat([frames.hidden, told], dim=2), frames.mask).unbind(dim=2)
        voiced = _voiced(logit, frames) if real is None else real.voiced
        return StatisticalPitch(self.contour(raw, voiced, frames, wanted), voiced, logit, mean, sigma)

    @staticmethod
    def contour(raw: Tensor, voiced: Tensor, frames: Frames, wanted: tuple[Tensor, Tensor]) -> Tensor:
        """Return ``raw`` (B, T) with mean and deviation ``wanted``, (B, N) each, over each phoneme's voiced frames.

        Frames that are not ``voiced`` (B, T) bool come along; a phoneme without any, or with one, stays at its mean.
        """
        mean, deviation, number = moments(raw, voiced.float(), frames, wanted[0].shape[1])
        scale = torch.where(number > 1, wanted[1] / deviation.clamp(min=1e-4), 0.0)
        return (frames.spread(wanted[0]) + frames.spread(scale) * (raw - frames.spread(mean))) * frames.mask

    def losses(self, found: StatisticalPitch, real: RealPitch, frames: Frames) -> dict[str, Tensor]:
        """Return the losses ``statistics``, ``contour`` and ``voicing``."""
        return {"statistics": statistics_loss(found, real, frames)} | _contour_losses(found, real, frames)


class DeterministicPitchPredictor(nn.Module):
    """The ablation: the contour as it comes, as in FastSpeech 2."""

    def __init__(self, config: MuseConfig):
        super().__init__()
        self.curve = ConvPredictor(config.blocks.width + 1, config.contours.contour, 2)

    def forward(
        self,
        rows: Tensor,
        mask: Tensor,
        frames: Frames,
        real: RealPitch | None = None,
        sigma_scale: Tensor | None = None,
    ) -> Pitch:
        """As :meth:`StatisticalPitchPredictor.forward`; ``sigma_scale`` (B, N) acts on what phonemes happen to have."""
        x = torch.cat([frames.hidden, frames.step.unsqueeze(2)], dim=2)
        contour, logit = self.curve(x, frames.mask).unbind(dim=2)
        voiced = _voiced(logit, frames) if real is None else real.voiced
        if sigma_scale is not None:
            middle = frames.spread(moments(contour, voiced.float(), frames, rows.shape[1])[0])
            contour = contour + (frames.spread(sigma_scale) - 1) * (contour - middle) * voiced
        return Pitch(contour, voiced, logit)

    def losses(self, found: Pitch, real: RealPitch, frames: Frames) -> dict[str, Tensor]:
        """Return the losses ``contour`` and ``voicing``."""
        return _contour_losses(found, real, frames)


def statistics_loss(found: StatisticalPitch, real: RealPitch, frames: Frames) -> Tensor:
    """Return the Gaussian negative log-likelihood of the ``real`` voiced frames, less a constant."""
    mean, deviation, number = moments(real.contour, real.voiced.float(), frames, found.mean.shape[1])
    square = (mean - found.mean).square() + deviation.square()
    return average(found.sigma.log() + square / (2 * found.sigma.square()), number)


def vibrato(contour: Tensor, voiced: Tensor, factor: Tensor, window: int) -> Tensor:
    """Return ``contour`` (B, T) with what is quicker than a moving average over ``window`` frames times ``factor``.

    ``voiced`` (B, T) bool, ``factor`` (B, T); 1 leaves a contour as it is.
    """
    weight = voiced.float()
    sums = F.avg_pool1d(torch.stack([contour * weight, weight]), window, 1, window // 2)
    slow = sums[0] / sums[1].clamp(min=1e-6)
    return contour + (factor - 1) * (contour - slow) * weight


def f0_of(contour: Tensor, voiced: Tensor, frames: Frames) -> Tensor:
    """Return F0 (B, T) in Hz, 0 where unvoiced, of ``contour`` (B, T) in semitones from the notes."""
    return torch.where(voiced, 440 * torch.exp2((frames.note + contour - 69) / 12), 0.0)


def _voiced(logit: Tensor, frames: Frames) -> Tensor:
    return (logit > 0) & (frames.note > 0) & frames.mask


def _contour_losses(found: Pitch, real: RealPitch, frames: Frames) -> dict[str, Tensor]:
    voicing = F.binary_cross_entropy_with_logits(found.logit, real.voiced.float(), reduction="none")
    return {
        "contour": average((found.contour - real.contour).abs(), real.voiced),
        "voicing": average(voicing, frames.mask),
    }
