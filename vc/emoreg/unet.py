"""The score network of EmoReg: DiffVC's two-dimensional U-Net with an emotion in the place of the speaker.

=====================  ======================  =====================================================================
code                   symbol                  where
=====================  ======================  =====================================================================
``x``                  X_t                     diffused mel, EmoReg fig. 3; DiffVC (Popov et al. 2022) eq. (6)
``average``            X-bar                   average voice, the mean of the prior
``time``               t                       0 (mel) to 1 (prior)
``emotion``            e_ir                    the embedding moved by the DVM, EmoReg fig. 3
``reference``          Y_t                     diffused mel of the reference, DiffVC section 3.2, conditioning "wodyn"
``condition``          g_t(Y)                  MLP of t, e_ir (and Y_t) to 128 channels, DiffVC section 3.2
:class:`ScoreUNet`     s_theta(X_t,X-bar,..t)  grad log p_{t|0}(X_t | X_0); U-Net of Ho et al. 2020 and Grad-TTS
:class:`Attention`                             linear attention (Katharopoulos et al. 2020; Shen et al. 2021), its
                                               output scaled by a learned number from 0 (ReZero, Bachlechner et al.)
=====================  ======================  =====================================================================

What the papers leave open or undone, and what is done here:

- DiffVC's normalisation and attention hear the padding at the end of a batch; here they do not, so that an utterance
  gives the same alone and beside a longer one. Where nothing is padded, as in training, nothing differs.
- ``emotion`` may change over time, (B, 256, T): the condition is broadcast over the frames anyway.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.emotion.config import EMBEDDING
from affgen.errors import AffgenError
from vc.emoreg.config import ScoreConfig

HEADS, HEAD_WIDTH, GROUPS = 4, 32, 8
LEVELS = (1, 2, 4)
"""Channels of each resolution, in units of ``dim``; each resolution halves bands and frames."""
MULTIPLE = 2 ** (len(LEVELS) - 1)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that hears valid frames alone; with as many groups as channels, instance normalisation."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (B, C, F, T), ``mask`` (B, 1, 1, T) of valid frames or None if all are."""
        if mask is None:
            return super().forward(x)
        groups = x.float().unflatten(1, (self.num_groups, -1))  # (B, G, C / G, F, T)
        weight = mask.unsqueeze(1).float()
        count = weight.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1) * groups.shape[2] * groups.shape[3]
        centred = groups - (groups * weight).sum(dim=(2, 3, 4), keepdim=True) / count
        variance = (centred**2 * weight).sum(dim=(2, 3, 4), keepdim=True) / count
        y = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2).to(x.dtype)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class Block(nn.Module):
    """Convolution, group normalisation, Mish (Misra 2019)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = GroupNorm(GROUPS, outputs)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B, C, F, T) -> (B, C', F, T), 0 where ``mask`` (B, 1, 1, T) is."""
        return masked(F.mish(self.norm(self.conv(masked(x, mask)), mask)), mask)


class Residual(nn.Module):
    """Two blocks, told the time in between, beside a straight way."""

    def __init__(self, inputs: int, outputs: int, times: int):
        super().__init__()
        self.time = nn.Linear(times, outputs)
        self.first, self.second = Block(inputs, outputs), Block(outputs, outputs)
        self.straight = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B, C, F, T), ``time`` (B, times) -> (B, C', F, T)."""
        y = self.first(x, mask) + self.time(F.mish(time))[:, :, None, None]
        return cast(Tensor, self.second(y, mask) + self.straight(masked(x, mask)))


class Attention(nn.Module):
    """Linear attention over all places of the picture, added with a learned weight that begins at 0."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Conv2d(width, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.out = nn.Conv2d(HEADS * HEAD_WIDTH, width, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B, C, F, T) -> the same shape."""
        q, k, v = self.qkv(x).unflatten(1, (3, HEADS, HEAD_WIDTH)).unbind(1)  # (B, H, D, F, T)
        if mask is not None:
            k = k.masked_fill(mask.unsqueeze(1) == 0, torch.finfo(k.dtype).min)
        weights = k.flatten(3).softmax(dim=3)  # over places
        context = weights @ v.flatten(3).transpose(2, 3)  # (B, H, D, D)
        heard = (context.transpose(2, 3) @ q.flatten(3)).reshape(len(x), HEADS * HEAD_WIDTH, *x.shape[2:])
        return cast(Tensor, x + self.scale * self.out(heard))


class Stage(nn.Module):
    """What every resolution has, on the way down and up: two residual blocks and attention."""

    def __init__(self, inputs: int, outputs: int, times: int):
        super().__init__()
        self.first, self.second = Residual(inputs, outputs, times), Residual(outputs, outputs, times)
        self.attention = Attention(outputs)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B, C, F, T) -> (B, C', F, T)."""
        return cast(Tensor, self.attention(self.second(self.first(x, time, mask), time, mask), mask))


class Bottom(Stage):
    """The lowest resolution between down and up: attention comes between the two residual blocks."""

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B, C, F, T) -> the same shape."""
        return cast(Tensor, self.second(self.attention(self.first(x, time, mask), mask), time, mask))


class Gated(nn.Module):
    """Convolution, instance normalisation, gated linear unit."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, 3, padding=1)
        self.norm = GroupNorm(2 * outputs, 2 * outputs)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B, C, F, T) -> (B, C', F, T)."""
        return F.glu(self.norm(self.conv(masked(x, mask)), mask), dim=1)


class ReferenceBlock(nn.Module):
    """A diffused reference mel to a vector: gated convolutions and the mean over all valid places."""

    def __init__(self, width: int, times: int):
        super().__init__()
        base = width // 4
        self.gated = nn.ModuleList(
            Gated(a * base if a else 1, b * base) for a, b in ((0, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4))
        )
        self.times = nn.ModuleList(nn.Linear(times, n * base) for n in (1, 2))
        self.out = nn.Conv2d(4 * base, width, 1)

    def forward(self, reference: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """``reference`` (B, 80, R), ``time`` (B, times), ``mask`` (B, 1, 1, R) -> (B, width)."""
        y = reference.unsqueeze(1)
        for number, gated in enumerate(self.gated):
            y = gated(y, mask)
            if number in (1, 3):
                y = y + self.times[number // 2](F.mish(time))[:, :, None, None]
        y = self.out(masked(y, mask))
        if mask is None:
            return cast(Tensor, y.mean(dim=(2, 3)))
        return cast(Tensor, (y * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)).clamp(min=1) * y.shape[2]))


class ScoreUNet(nn.Module):
    """The score of the diffused mel given the average voice, the emotion and, if ``config.reference``, a reference."""

    def __init__(self, config: ScoreConfig):
        super().__init__()
        self.config = config
        dim, width = config.dim, config.condition
        self.time = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))
        self.reference = ReferenceBlock(width, dim) if config.reference else None
        given = dim + EMBEDDING + (width if config.reference else 0)
        self.condition = nn.Sequential(nn.Linear(given, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        sizes = [level * dim for level in LEVELS]
        inputs = [2 + width, *sizes[:-1]]
        self.downs = nn.ModuleList(Stage(a, b, dim) for a, b in zip(inputs, sizes, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(size, size, 3, stride=2, padding=1) for size in sizes[:-1])
        self.bottom = Bottom(sizes[-1], sizes[-1], dim)
        rising = list(zip(sizes[::-1], sizes[-2::-1], strict=False))
        self.ups = nn.ModuleList(Stage(2 * a, b, dim) for a, b in rising)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, b, 4, stride=2, padding=1) for _, b in rising)
        self.last = Block(dim, dim)
        self.out = nn.Conv2d(dim, 1, 1)

    def forward(
        self,
        x: Tensor,
        average: Tensor,
        time: Tensor,
        emotion: Tensor,
        mask: Tensor,
        *,
        reference: Tensor | None = None,
        reference_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the score (B, 80, T), 0 where ``mask`` is.

        ``x`` and ``average`` (B, 80, T) of any T, ``time`` (B,) in 0..1, ``emotion`` (B, 256) or (B, 256, T),
        ``mask`` (B, 1, T) of valid frames; ``reference`` (B, 80, R) diffused to ``time`` and its ``reference_mask``
        (B, 1, R), both needed if ``config.reference`` (else :class:`AffgenError`) and ignored otherwise.
        """
        frames = x.shape[2]
        short = -frames % MULTIPLE
        waves = sinusoids(time, self.config.dim)
        moment = self.time(waves)
        given = emotion if emotion.dim() == 3 else emotion.unsqueeze(2)
        condition = self._condition(waves, moment, given, reference, reference_mask)  # (B, C, T or 1)
        if condition.shape[2] == frames:
            condition = F.pad(condition, (0, short))
        picture = F.pad(torch.stack([average, x], dim=1), (0, short))  # (B, 2, 80, T')
        condition = condition.unsqueeze(2).expand(-1, -1, *picture.shape[2:])
        score = self._network(torch.cat([picture, condition], dim=1), moment, whole(F.pad(mask, (0, short))))
        return score[:, :, :frames] * mask

    def _condition(
        self, waves: Tensor, moment: Tensor, emotion: Tensor, reference: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        parts = [waves]
        if self.reference is not None:
            if reference is None or mask is None:
                raise AffgenError("this score network has a reference block; give it a reference and its mask")
            parts.append(self.reference(reference, moment, whole(mask)))
        common = torch.cat(parts, dim=1).unsqueeze(2).expand(-1, -1, emotion.shape[2])
        return cast(Tensor, self.condition(torch.cat([common, emotion], dim=1).transpose(1, 2)).transpose(1, 2))

    def _network(self, y: Tensor, moment: Tensor, mask: Tensor | None) -> Tensor:
        """Picture (B, 2 + C, 80, T') to score (B, 80, T'); ``mask`` (B, 1, 1, T') or None."""
        masks = [mask if mask is None else mask[..., :: 2**level] for level in range(len(LEVELS))]
        kept = []
        for level, stage in enumerate(self.downs):
            y = stage(y, moment, masks[level])
            kept.append(y)
            if level < len(self.shrink):
                y = self.shrink[level](masked(y, masks[level]))
        y = self.bottom(y, moment, masks[-1])
        for level, stage, grow in zip(range(len(LEVELS) - 1, 0, -1), self.ups, self.grow, strict=True):
            y = stage(torch.cat([y, kept[level]], dim=1), moment, masks[level])
            y = grow(masked(y, masks[level]))
        return cast(Tensor, self.out(self.last(y, mask)).squeeze(1))


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``x`` (B, C, F, T) with 0 where ``mask`` (B, 1, 1, T) is 0; None hides nothing."""
    return x if mask is None else x * mask


def whole(mask: Tensor) -> Tensor | None:
    """Return ``mask`` (B, 1, T) for pictures, (B, 1, 1, T), or None if it hides nothing: that way is quicker."""
    return None if bool(mask.all()) else mask.unsqueeze(2)


def sinusoids(time: Tensor, width: int) -> Tensor:
    """Return sines and cosines (B, width) of 1000 ``time`` (B,) at wavelengths from 1 to 10,000 (radians)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=time.device) * (-math.log(10_000) / (half - 1)))
    angles = 1000 * time.float().unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
