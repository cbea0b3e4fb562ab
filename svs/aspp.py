"""Transformer blocks with atrous spatial pyramid pooling, and FastSpeech's, which are the ablation.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931) names its block "ASPP-Transformer", for "broad contexts"; its inside is not
published. ASPP is that of DeepLab (Chen et al. 2017, arXiv 1706.05587, section 3.3) over time only, in a pre-norm
Transformer (Xiong et al. 2020).

=============================  =====================================  ==============================================
code                           symbol                                 equation
=============================  =====================================  ==============================================
:class:`Attention`             MHSA                                   softmax(q k^T / sqrt(d)) v over valid keys
``point``                      1 x 1 branch                           W_1 x_t
``dilated``                    branches of 3 taps, rates r            sum_k W_k x_(t + k r), k = -1, 0, 1
``average``                    image pooling                          W_g mean_t x_t over valid frames
:class:`ASPP`                  concat, then 1 x 1                     W_o gelu([all branches])
:class:`ASPPTransformerBlock`  place ``ffn``                          x + MHSA(LN x); then x + ASPP(LN x)
..                             place ``parallel``                     x + MHSA(LN x) + ASPP(LN x); then x + FFN(LN x)
..                             place ``after``                        x + MHSA(LN x); x + FFN(LN x); x + ASPP(LN x)
:class:`FFTBlock`              FastSpeech (Ren et al. 2019), pre-norm  x + MHSA(LN x); then x + FFN(LN x)
=============================  =====================================  ==============================================

Nothing hears padding: a row gives the same alone and beside longer ones. No normalisation stands inside the branches,
DeepLab's is over batches: a batch must not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.layers import sinusoids
from svs.config import BlockConfig


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: BlockConfig):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv, self.out = nn.Linear(config.width, 3 * config.width), nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, D), ``mask`` (B, T) bool of valid rows, at least one in each -> (B, T, D)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, D / H)
        dropout = self.dropout if self.training else 0.0
        heard = F.scaled_dot_product_attention(q, k, v, mask[:, None, None], dropout)
        return cast(Tensor, self.out(heard.transpose(1, 2).flatten(2)))


class ASPP(nn.Module):
    """Pyramid of dilated convolutions, one tap, and the mean over all valid frames, joined."""

    def __init__(self, config: BlockConfig):
        super().__init__()
        width, branch = config.width, config.branch
        self.point = nn.Linear(width, branch)
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, branch, 3, padding=rate, dilation=rate) for rate in config.dilations
        )
        self.average = nn.Linear(width, branch)
        self.join = nn.Linear((2 + len(config.dilations)) * branch, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, D), ``mask`` (B, T) bool -> (B, T, D)."""
        valid = mask.unsqueeze(2).to(x.dtype)
        x = x * valid
        average = self.average(x.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1))  # (B, 1, C)
        rows = x.transpose(1, 2)
        branches = [self.point(x), *(conv(rows).transpose(1, 2) for conv in self.dilated)]
        return cast(Tensor, self.join(F.gelu(torch.cat([*branches, average.expand_as(branches[0])], dim=2))))


class FeedForward(nn.Module):
    """FastSpeech's feed-forward part: a convolution to many channels and one tap back."""

    def __init__(self, config: BlockConfig):
        super().__init__()
        self.rise = nn.Conv1d(config.width, config.hidden, config.kernel, padding=config.kernel // 2)
        self.fall = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, D), ``mask`` (B, T) bool -> (B, T, D)."""
        risen = self.rise((x * mask.unsqueeze(2)).transpose(1, 2))
        return cast(Tensor, self.fall(F.gelu(risen).transpose(1, 2)))


class Block(nn.Module):
    """Residual stages; the parts of one stage hear the same normalised input and are summed."""

    def __init__(self, config: BlockConfig, stages: Sequence[Sequence[nn.Module]]):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in stages)
        self.stages = nn.ModuleList(nn.ModuleList(parts) for parts in stages)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, D), ``mask`` (B, T) bool -> (B, T, D)."""
        for norm, parts in zip(self.norms, self.stages, strict=True):
            y = norm(x)
            for part in cast(nn.ModuleList, parts):
                x = x + self.dropout(part(y, mask))
        return x


class ASPPTransformerBlock(Block):
    """Self-attention and the pyramid, which stands where ``config.place`` says."""

    def __init__(self, config: BlockConfig):
        attention, pyramid = Attention(config), ASPP(config)
        if config.place == "ffn":
            super().__init__(config, [[attention], [pyramid]])
        elif config.place == "parallel":
            super().__init__(config, [[attention, pyramid], [FeedForward(config)]])
        else:
            super().__init__(config, [[attention], [FeedForward(config)], [pyramid]])


class FFTBlock(Block):
    """Self-attention and the feed-forward part of FastSpeech."""

    def __init__(self, config: BlockConfig):
        super().__init__(config, [[Attention(config)], [FeedForward(config)]])


class Stack(nn.Module):
    """Blocks one after another over rows that know their place, and a final normalisation."""

    def __init__(self, kind: Literal["aspp", "fft"], config: BlockConfig, layers: int):
        super().__init__()
        block = ASPPTransformerBlock if kind == "aspp" else FFTBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, D), ``mask`` (B, T) bool -> (B, T, D), 0 where the mask is."""
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2])
        for block in self.blocks:
            x = block(x, mask)
        return cast(Tensor, self.norm(x) * mask.unsqueeze(2))
