"""The acoustic model of the aligner: log-mel to phones, frame by frame; silence is the blank of CTC."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.align.config import NetworkConfig
from affgen.align.phones import PHONES
from affgen.features import BANDS


class ChannelNorm(nn.Module):
    """Layer normalisation of x (B, C, T) over the channels of each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, T) normalised."""
        centred = x - x.mean(dim=1, keepdim=True)
        power = centred.square().mean(dim=1, keepdim=True)
        return centred * (power + 1e-5).rsqrt() * self.scale[:, None] + self.shift[:, None]


class Block(nn.Module):
    """Residual block: normalise, three taps apart by the dilation, ReLU, one tap."""

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__()
        self.norm = ChannelNorm(width)
        self.wide = nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation)
        self.narrow = nn.Conv1d(width, width, 1)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (B, C, T) with what the block adds; ``mask`` (B, 1, T) is 1 on frames that are there."""
        hidden = F.relu(self.wide(self.norm(x) * mask))
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout, self.training)
        return x + self.narrow(hidden) * mask


class Network(nn.Module):
    """Log-mel to hidden features and logits; a batch gives what each recording alone gives."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.stem = nn.Conv1d(BANDS, config.width, 5, padding=2)
        self.blocks = nn.ModuleList(Block(config.width, d, config.dropout) for d in config.dilations)
        self.norm = ChannelNorm(config.width)
        self.head = nn.Conv1d(config.width, len(PHONES), 1)

    def hidden(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Return the features (B, C, T) before the last layer of mel (B, 80, T); ``mask`` (B, T) is bool."""
        there = mask[:, None].to(mel.dtype)
        x = self.stem(normalise(mel, mask, self.config) * there) * there
        for block in self.blocks:
            x = block(x, there)
        return self.norm(x)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, T, V) over :data:`affgen.align.phones.PHONES`."""
        return self.head(self.hidden(mel, mask)).transpose(1, 2)


def normalise(mel: Tensor, mask: Tensor, config: NetworkConfig) -> Tensor:
    """Return mel (B, 80, T) without the level of its recording and without the mean spectrum of its voice."""
    there = mask[:, None]
    frames = 0.5 * torch.logsumexp(2 * mel, dim=1, keepdim=True)
    count = there.sum(dim=2, keepdim=True).clamp_min(1)
    power = 2 * frames.masked_fill(~there, -torch.inf)
    level = 0.5 * (torch.logsumexp(power, dim=2, keepdim=True) - count.log())
    x = (mel - level).clamp_min(-config.depth - 3)
    voice = (there & (frames > level - config.gate)).to(mel.dtype)
    mean = (x * voice).sum(dim=2, keepdim=True) / voice.sum(dim=2, keepdim=True).clamp_min(1)
    return (x - mean).clamp(-config.depth, config.depth) / 2
