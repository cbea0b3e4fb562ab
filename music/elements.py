"""What makes the latent musical: its split over seven elements, its reduction to one value per row, and the
regulariser.

===============  =====================================================  =========================
code             MusER (Ji & Yang, AAAI 2024)                           in words
===============  =====================================================  =========================
``split``        z = [z_1 .. z_7]                                       16 values per element
``Reduction``    DR                                                     one value per row, e_t
``order_loss``   L1(tanh(d (e_jt - e_kt)), sign(x_jt - x_kt))           latent order = musical order
===============  =====================================================  =========================

The loss is the attribute regulariser of AR-VAE (Pati & Lerch, 2020, eq. 4), taken per row over all pairs of a batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affgen.layers import Stack
from music.config import ELEMENTS


def split(latent: Tensor) -> Tensor:
    """(B, T, C) -> (7, B, T, C / 7): the part of each element."""
    return torch.stack(latent.chunk(len(ELEMENTS), dim=-1))


class Reduction(nn.Module):
    """From an element's part of the latent to one value per row.

    ``trans``: the values of a piece, time as channel, go through a transformer and the first token is kept
    (published; needs
    pieces of exactly ``max_rows`` rows). ``mean``: their mean (ablation).
    """

    def __init__(self, mode: Literal["mean", "trans"], max_rows: int, *, layers: int = 4, heads: int = 4):
        super().__init__()
        self.max_rows = max_rows
        self.stack = Stack(max_rows, layers, heads, 4 * max_rows, 0.1) if mode == "trans" else None

    def forward(self, latent: Tensor) -> Tensor:
        """(B, T, C) -> (7, B, T)."""
        parts = split(latent)  # (7, B, T, D)
        if self.stack is None:
            return parts.mean(dim=-1)
        rows = parts.shape[2]
        parts = nn.functional.pad(parts, (0, 0, 0, self.max_rows - rows))
        tokens = parts.flatten(0, 1).transpose(1, 2)  # (7 B, D, max_rows): time as channel
        first = self.stack(tokens, causal=False)[:, 0]
        return first.view(len(ELEMENTS), -1, self.max_rows)[..., :rows]


def order_loss(reduced: Tensor, rows: Tensor, mask: Tensor, *, delta: float = 1.0) -> Tensor:
    """How far the order of the latents of a batch is from the order of its tokens, summed over the elements.

    reduced (7, B, T), rows (B, T, 8) of ids in musical order, mask (B, T) -> (). Pairs in which either row is
    padding do not
    count; the mean runs over pairs of different pieces at the same row.
    """
    values = rows[..., : len(ELEMENTS)].permute(2, 0, 1).to(reduced.dtype)  # (7, B, T)
    latent_order = torch.tanh(delta * (reduced.unsqueeze(2) - reduced.unsqueeze(1)))  # (7, B, B, T)
    token_order = torch.sign(values.unsqueeze(2) - values.unsqueeze(1))
    both = (mask.unsqueeze(0) * mask.unsqueeze(1)).to(reduced.dtype)  # (B, B, T)
    both = both * (1 - torch.eye(len(mask), device=mask.device).unsqueeze(-1))
    distance = (latent_order - token_order).abs() * both
    return distance.sum() / both.sum().clamp(min=1)
