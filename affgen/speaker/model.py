"""The network of the speaker encoder: a small ECAPA-TDNN over a two-dimensional stem.

==================  ====================================================  =============================
code                paper                                                 source
==================  ====================================================  =============================
``stem``            convolutional front end over bands and frames         Thienpondt et al. 2021, 2.1
``Block``           dilated convolution, squeeze-excitation, residual     Desplanques et al. 2020, 3.2
``gather``          aggregation of the blocks' outputs                    Desplanques et al. 2020, 3.3
``AttentivePool``   attentive statistics, one attention for each channel  Desplanques et al. 2020, 3.1
==================  ====================================================  =============================

What differs: far smaller (1.3 M parameters against 6 to 15 M); one convolution for Res2Net's eight; layer in place of
batch normalisation over frames, so that padding changes nothing. Batch normalisation stays where the frames are gone:
without it all embeddings begin alike, and much of the training goes into moving them apart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.features import BANDS, FLOOR
from affgen.speaker.config import EncoderConfig

EPSILON = 1e-6
RELATIVE_GATE = 0.1
"""Frames 10 dB below the mean power do not count for the level, as in BS.1770."""


class Network(nn.Module):
    """Log-mel to an embedding of unit length."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        first, second, third = config.stem
        self.stem = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=(2, stride), padding=1)
            for inputs, outputs, stride in ((1, first, 2), (first, second, 2), (second, third, 1))
        )
        width = config.width
        self.enter = nn.Linear(third * (BANDS // 8), width)
        self.blocks = nn.ModuleList(Block(width, config.squeeze, 1 + i % 4) for i in range(config.blocks))
        self.gather = nn.Linear(config.blocks * width, 2 * width)
        self.pool = AttentivePool(2 * width, config.squeeze)
        self.norm = nn.BatchNorm1d(4 * width, momentum=0.05)
        self.drop = nn.Dropout(config.dropout)
        self.leave = nn.Linear(4 * width, config.embedding)
        self.centre = nn.BatchNorm1d(config.embedding, momentum=0.05)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Mel (B, 80, T), natural log, and mask (B, T) of frames that are there -> embeddings (B, D)."""
        x, voice = self.hear(mel, mask)
        x, whole = x.unsqueeze(1), bool(mask.all())  # (B, 1, 80, T)
        for layer in self.stem:
            stride = int(layer.stride[1])  # type: ignore[index]
            mask, voice = mask[:, ::stride], voice[:, ::stride]
            x = F.relu(layer(x))
            if not whole:
                x = x * mask[:, None, None]
        voice = torch.where(voice.any(dim=1, keepdim=True), voice, mask)  # the steps may have left none
        x = self.enter(x.flatten(1, 2).transpose(1, 2))  # (B, T / 4, C)
        outputs = []
        for block in self.blocks:
            x = block(x, mask, voice)
            outputs.append(x)
        pooled = self.pool(F.gelu(self.gather(torch.cat(outputs, dim=-1))), voice)
        return F.normalize(self.centre(self.leave(self.drop(self.norm(pooled)))), dim=-1)

    def hear(self, mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Level or band means taken off and silence cut: mel (B, 80, T), and voice (B, T), the frames to pool."""
        power = torch.exp(2 * mel).sum(dim=1) * mask  # (B, T)
        mean = power.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
        loud = mask * (power > RELATIVE_GATE * mean)
        level = (power * loud).sum(dim=1, keepdim=True) / loud.sum(dim=1, keepdim=True).clamp(min=1)
        level = 0.5 * torch.log(level.clamp(min=FLOOR**2))  # (B, 1)
        voice = mask & (0.5 * torch.log(power.clamp(min=FLOOR**4)) >= level - self.config.gate)
        x = (mel - level[:, None]).clamp(min=-self.config.depth) + self.config.depth / 2
        if self.config.normalise == "bands":
            x = x - masked_mean(x.transpose(1, 2), voice)[:, :, None]
        return x * mask[:, None] * 0.5, voice


class Block(nn.Module):
    """Residual block: normalise, dilated convolution over frames, gate each channel by the whole voice."""

    def __init__(self, width: int, squeeze: int, dilation: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(width, width)
        self.squeeze = nn.Linear(width, squeeze)
        self.excite = nn.Linear(squeeze, width)

    def forward(self, x: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
        """(B, T, C) -> the same; ``mask`` (B, T) is what is there, ``voice`` (B, T) what is heard."""
        y = (self.norm(x) * mask[..., None]).transpose(1, 2)
        y = self.mix(F.gelu(self.spread(y)).transpose(1, 2))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(masked_mean(y, voice)))))
        return x + y * gate[:, None]


class AttentivePool(nn.Module):
    """Mean and standard deviation over frames, weighted by an attention that sees frame and utterance."""

    def __init__(self, width: int, squeeze: int):
        super().__init__()
        self.frame = nn.Linear(width, squeeze)
        self.whole = nn.Linear(2 * width, squeeze, bias=False)
        self.score = nn.Linear(squeeze, width)

    def forward(self, x: Tensor, voice: Tensor) -> Tensor:
        """(B, T, C) and voice (B, T) -> (B, 2 C)."""
        flat = voice[..., None] / voice.sum(dim=1).clamp(min=1)[:, None, None]
        around = self.whole(statistics(x, flat))
        score = self.score(torch.tanh(self.frame(x) + around[:, None]))
        score = score.masked_fill(~voice[..., None], -1e4)
        return statistics(x, score.softmax(dim=1))


def statistics(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean and standard deviation over frames: x and weight (B, T, C) -> (B, 2 C)."""
    mean = (x * weight).sum(dim=1)
    spread = ((x - mean[:, None]) ** 2 * weight).sum(dim=1)
    return torch.cat([mean, (spread + EPSILON).sqrt()], dim=-1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (B, T, C) over the frames in mask (B, T): (B, C)."""
    return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
