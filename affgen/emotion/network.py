"""The network of ``affgen-small``: log-mel and F0 to frames, a 256-d embedding, labels, valence, arousal, intensity.

=================  ====================================================================================
part               what it does
=================  ====================================================================================
:func:`prepare`    level of the utterance taken out, silence cut off, F0 in octaves, absolute and relative
:func:`summary`    utterance statistics: spectrum, its movement and modulation, F0
``stem``           two convolutions, four frames to one (46 ms)
``blocks``         dilated residual 1-D convolutions
``pool``           attentive statistics pooling (Okabe et al. 2018): weighted mean and deviation per head
``embed``          both sides, pooled frames and statistics, and the statistics as they are, to 256
=================  ====================================================================================

Every head is linear in the embedding, so that directions in the embedding mean something.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.emotion.config import EMBEDDING, EncoderConfig
from affgen.emotion.labels import LABELS

BANDS = 80
EXTRA = 4  # F0 absolute and relative, voicing, level of the frame
STRIDE = 4
"""Frames of the front end in one frame of the encoder."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CEPSTRA = 20
PARTS = 4
"""Equal parts of the utterance whose course is described."""
STATISTICS = 4 * BANDS + 3 * CEPSTRA + 4 * len(QUANTILES) + 4 + PARTS * (CEPSTRA + 3)
ACTIVE = 4.6  # nepers (40 dB) below the loudest frame: quieter frames do not count for the level


@dataclass(frozen=True, eq=False)
class Heard:
    """Network output: ``frames (B, D, N)``, ``mask (B, N)``, ``embedding (B, 256)``, ``logits (B, 8)``, ``plane
    (B, 2)`` (valence, arousal in [-1, 1]), ``intensity (B, 8)`` (0 neutral to 1 strong, for each label) and, to help
    training, ``helpers``: logits (B, 8) of the frames and of the statistics alone.
    """

    frames: Tensor
    mask: Tensor
    embedding: Tensor
    logits: Tensor
    plane: Tensor
    intensity: Tensor
    helpers: tuple[Tensor, ...]


def level(mel: Tensor, mask: Tensor) -> Tensor:
    """Return the level (B,) in nepers of ``mel (B, 80, T)`` (log magnitudes) over its active frames.

    Adding a constant to ``mel`` (a gain) adds it to the level; ``mask (B, T)`` marks valid frames.
    """
    energy = 0.5 * torch.logsumexp(2 * mel, dim=1)  # (B, T)
    energy = energy.masked_fill(~mask, -torch.inf)
    loudest = energy.amax(dim=1, keepdim=True)
    energy = energy.masked_fill(energy < loudest - ACTIVE, -torch.inf)
    count = energy.isfinite().sum(dim=1)
    return 0.5 * (torch.logsumexp(2 * energy, dim=1) - count.log())


def prepare(mel: Tensor, f0: Tensor, mask: Tensor, depth: float) -> tuple[Tensor, Tensor]:
    """Return (spectrum (B, 80, T), extra (B, 4, T)): what the network hears, the same whatever the gain.

    ``mel (B, 80, T)`` log magnitudes, ``f0 (B, T)`` Hz with 0 for unvoiced, ``mask (B, T)``. Masked frames are 0.
    """
    quiet = -depth
    spectrum = (mel - level(mel, mask)[:, None, None]).clamp(min=quiet)
    loud = 0.5 * torch.logsumexp(2 * spectrum, dim=1)
    voiced = (f0 > 0) & mask
    octaves = torch.log2(f0.clamp(min=40.0) / 160.0)
    middle = torch.nanmedian(octaves.masked_fill(~voiced, torch.nan), dim=1, keepdim=True).values.nan_to_num(0.0)
    extra = torch.stack([octaves * voiced, (octaves - middle) * voiced, voiced.float(), loud / 3 + 1], dim=1)
    valid = mask[:, None]
    return ((spectrum + 4.0) / 2.0) * valid, extra * valid


def summary(spectrum: Tensor, extra: Tensor, mask: Tensor) -> Tensor:
    """Return utterance statistics (B, S) of what :func:`prepare` gives; padding does not count."""
    valid = mask[:, None].float()
    count = valid.sum(dim=2).clamp(min=2)
    both = valid[:, :, 1:] * valid[:, :, :-1]
    mean = (spectrum * valid).sum(dim=2) / count
    spread = _spread(spectrum, valid, count)
    step = (spectrum[:, :, 1:] - spectrum[:, :, :-1]) * both
    moves = step.abs().sum(dim=2) / count
    cepstra = torch.einsum("cb,nbt->nct", _cosines(spectrum), spectrum)
    cepstral_step = (cepstra[:, :, 1:] - cepstra[:, :, :-1]) * both
    weight = extra[:, 2:3] * valid
    voiced_mean = (spectrum * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1)
    parts = [
        *(mean, spread, 4 * moves, voiced_mean),
        *(_mean(cepstra, valid, count), _spread(cepstra, valid, count), cepstral_step.abs().sum(dim=2) / count),
        *(_pitch(extra, mask), _rhythm(extra, mask), _course(cepstra, extra, mask)),
    ]
    return torch.cat(parts, dim=1)


def _mean(x: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    return (x * valid).sum(dim=2) / count


def _spread(x: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    centred = (x - _mean(x, valid, count)[:, :, None]) * valid
    return ((centred**2).sum(dim=2) / count + 1e-6).sqrt()


def _cosines(like: Tensor) -> Tensor:
    """The first cepstral cosines (20, 80) of the type-II transform, without the constant."""
    order = torch.arange(1, CEPSTRA + 1, device=like.device, dtype=like.dtype)[:, None]
    place = torch.arange(BANDS, device=like.device, dtype=like.dtype)[None] + 0.5
    return torch.cos(torch.pi * order * place / BANDS) / 9.0


def _pitch(extra: Tensor, mask: Tensor) -> Tensor:
    """Quantiles of F0 and its slope, share and number of voiced stretches: (B, 5 + 5 + 4)."""
    octaves, voiced = extra[:, 0], extra[:, 2] > 0
    seen = octaves.masked_fill(~voiced, torch.nan)
    points = torch.tensor(QUANTILES, device=extra.device, dtype=extra.dtype)
    height = torch.nanquantile(seen, points, dim=1).T.nan_to_num(0.0)  # (B, 5)
    slope = 10 * (seen[:, 1:] - seen[:, :-1])
    slopes = torch.nanquantile(slope, points, dim=1).T.nan_to_num(0.0).clamp(-3, 3)
    length = mask.sum(dim=1).clamp(min=2).float()
    share = voiced.sum(dim=1) / length
    starts = (voiced[:, 1:] & ~voiced[:, :-1]).sum(dim=1) / length * 20
    spread = torch.stack([height[:, 4] - height[:, 0], height[:, 3] - height[:, 1], share, starts], dim=1)
    return torch.cat([height, slopes, spread], dim=1)


def _rhythm(extra: Tensor, mask: Tensor) -> Tensor:
    """Quantiles of the level of frames and its modulation at 1 to 16 Hz: (B, 5 + 5)."""
    loud = extra[:, 3].masked_fill(~mask, torch.nan)
    points = torch.tensor(QUANTILES, device=extra.device, dtype=extra.dtype)
    steps = torch.nanquantile(loud, points, dim=1).T.nan_to_num(0.0)
    middle = loud.nanmean(dim=1, keepdim=True)
    wave = (loud - middle).nan_to_num(0.0)
    power = torch.fft.rfft(wave, n=max(1024, wave.shape[1]), dim=1).abs() ** 2
    rate = 22050 / 256
    edges = [round(hz / rate * 2 * (power.shape[1] - 1)) for hz in (1, 2, 4, 6, 9, 16)]
    bands = torch.stack([power[:, a:b].sum(dim=1) for a, b in pairwise(edges)], dim=1)
    return torch.cat([steps, (bands / mask.sum(dim=1, keepdim=True) / 50 + 1e-4).log() / 2], dim=1)


def _course(cepstra: Tensor, extra: Tensor, mask: Tensor) -> Tensor:
    """How spectrum, F0, voicing and level of each part differ from those of the whole: (B, 4 * 23)."""
    place = torch.arange(mask.shape[1], device=mask.device) * PARTS // mask.sum(dim=1, keepdim=True).clamp(min=1)
    inside = F.one_hot(place.clamp(max=PARTS - 1), PARTS).float() * mask[:, :, None]  # (B, T, P)
    whole = mask[:, :, None].float()
    voiced = extra[:, 2:3]
    parts = []
    for values, weight in ((cepstra, None), (extra[:, 3:4], None), (voiced, None), (extra[:, 1:2], voiced)):
        shares = [w if weight is None else w * weight.transpose(1, 2) for w in (inside, whole)]
        means = [torch.bmm(values, w) / w.sum(dim=1, keepdim=True).clamp(min=1) for w in shares]
        parts.append((means[0] - means[1]).flatten(1))
    return torch.cat(parts, dim=1)


class Network(nn.Module):
    """The trainable part; :meth:`forward` takes padded features of the front end."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        width, hidden = config.width, EMBEDDING
        self.stem = nn.ModuleList([nn.Conv1d(BANDS + EXTRA, width, 5, 2, 2), nn.Conv1d(width, width, 5, 2, 2)])
        self.blocks = nn.ModuleList(Residual(width, 2 ** (i % 4), config.dropout / 2) for i in range(config.blocks))
        self.attention = nn.Conv1d(width, config.heads, 1)
        self.scale = nn.BatchNorm1d(STATISTICS, affine=False)
        self.heard = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(2 * config.heads * width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.counted = nn.Sequential(
            nn.Dropout(config.dropout / 2), nn.Linear(STATISTICS, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.drop = nn.Dropout(config.dropout)
        self.embed = nn.Linear(2 * hidden + STATISTICS, EMBEDDING)
        self.label = nn.Linear(EMBEDDING, len(LABELS))
        self.plane = nn.Linear(EMBEDDING, 2)
        self.intensity = nn.Linear(EMBEDDING, len(LABELS))
        self.helpers = nn.ModuleList(nn.Linear(hidden, len(LABELS)) for _ in range(2))

    def forward(self, mel: Tensor, f0: Tensor, mask: Tensor) -> Heard:
        """``mel (B, 80, T)`` log magnitudes, ``f0 (B, T)`` Hz, ``mask (B, T)`` of valid frames, any gain."""
        spectrum, extra = prepare(mel, f0, mask, self.config.depth)
        frames, valid = self._frames(spectrum, extra, mask)
        facts = self._scaled(spectrum, extra, mask)
        sides = [self.drop(self.heard(self._pool(frames, valid))), self.drop(self.counted(facts))]
        embedding = self.embed(torch.cat([*sides, self.drop(facts)], dim=1))
        return Heard(
            frames,
            valid,
            embedding,
            self.label(embedding),
            torch.tanh(self.plane(embedding)),
            self.intensity(embedding),
            tuple(head(side) for head, side in zip(self.helpers, sides, strict=True)),
        )

    def facts(self, mel: Tensor, f0: Tensor, mask: Tensor) -> Tensor:
        """Return the utterance statistics (B, S) as the network sees them, scaled; arguments as of :meth:`forward`."""
        return self._scaled(*prepare(mel, f0, mask, self.config.depth), mask)

    def _scaled(self, spectrum: Tensor, extra: Tensor, mask: Tensor) -> Tensor:
        scaled: Tensor = self.scale(summary(spectrum, extra, mask)).clamp(-5, 5)
        return scaled

    def _frames(self, spectrum: Tensor, extra: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames (B, D, N) at a quarter of the rate, and which are valid (B, N)."""
        if self.training:
            spectrum = _hide(spectrum, self.config.hide)
        x = torch.cat([spectrum, extra], dim=1)
        for layer in self.stem:
            mask = mask[:, ::2]
            x = F.relu(layer(x)) * mask[:, None]
        for block in self.blocks:
            x = block(x, mask)
        return x, mask

    def _pool(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Attentive statistics (B, 2 * heads * D) of ``frames (B, D, N)``."""
        score = self.attention(frames).masked_fill(~mask[:, None], -torch.inf)
        weight = score.softmax(dim=2)  # (B, H, N)
        mean = torch.einsum("bhn,bdn->bhd", weight, frames)
        square = torch.einsum("bhn,bdn->bhd", weight, frames**2)
        return torch.cat([mean, (square - mean**2).clamp(min=1e-5).sqrt()], dim=1).flatten(1)


def _hide(spectrum: Tensor, widest: tuple[int, int]) -> Tensor:
    """Hide up to two ranges of bands and of frames of each clip (SpecAugment, Park et al. 2019)."""
    batch, device = len(spectrum), spectrum.device
    for axis, limit in ((1, widest[0]), (2, widest[1])):
        size = spectrum.shape[axis]
        for _ in range(2):
            start = (torch.rand(batch, 1, device=device) * size).long()
            width = (torch.rand(batch, 1, device=device) * (limit + 1)).long()
            place = torch.arange(size, device=device)
            kept = (place < start) | (place >= start + width)  # (B, size)
            spectrum = spectrum * (kept[:, :, None] if axis == 1 else kept[:, None])
    return spectrum


class Residual(nn.Module):
    """Layer normalisation over channels, a dilated convolution, a pointwise one; added to the input."""

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, D, N), mask (B, N) -> the same shape."""
        y = self.norm(x.transpose(1, 2)).transpose(1, 2) * mask[:, None]
        y = self.out(self.drop(F.gelu(self.conv(y))))
        return (x + y) * mask[:, None]
