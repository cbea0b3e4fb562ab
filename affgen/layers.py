"""Layers that generators share: linear attention in three equal forms, transformer blocks, ConvNeXt, quantisation.

Notation (Katharopoulos et al., "Transformers are RNNs", ICML 2020, with phi(x) = elu(x) + 1):

============  =========================================  ==========
code          paper                                      equation
============  =========================================  ==========
``parallel``  softmax replaced by phi(Q) phi(K)^T, mask  (4)-(7)
``chunked``   the same sums, one block of rows at a time (8)-(11)
``step``      S_i = S_{i-1} + phi(K_i) V_i^T, Z_i        (16)-(20)
============  =========================================  ==========

Shapes: B batch, H heads, T rows, D width per head, G groups (independent networks run as one batched product).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6
State = tuple[Tensor, Tensor]
"""Running sums of causal linear attention: phi(K) V^T (B, H, D, D) and phi(K) (B, H, D)."""


def feature_map(x: Tensor) -> Tensor:
    """phi(x) = elu(x) + 1, positive everywhere."""
    return F.elu(x) + 1


def full_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Non-causal linear attention. q, k, v (B, H, T, D), k and v possibly of another length; mask (B, T) of valid
    keys.
    """
    q, k = feature_map(q), feature_map(k)
    if mask is not None:
        k = k * mask[:, None, :, None]
    context = k.transpose(-1, -2) @ v  # (B, H, D, D)
    norm = q @ k.sum(dim=2).unsqueeze(-1)  # (B, H, T, 1)
    return (q @ context) / (norm + EPSILON)


def causal_parallel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal linear attention through the T x T matrix. q, k, v (B, H, T, D) -> (B, H, T, D)."""
    scores = (feature_map(q) @ feature_map(k).transpose(-1, -2)).tril()
    return (scores @ v) / (scores.sum(dim=-1, keepdim=True) + EPSILON)


def causal_chunked(
    q: Tensor, k: Tensor, v: Tensor, chunk: int = 64, state: State | None = None
) -> tuple[Tensor, State]:
    """Causal linear attention block by block: linear in T. Returns the output and the state after the last row."""
    q, k = feature_map(q), feature_map(k)
    sums, norm = state if state is not None else empty_state(q)
    outputs = []
    for start in range(0, q.shape[2], chunk):
        rows = slice(start, start + chunk)
        qc, kc, vc = q[:, :, rows], k[:, :, rows], v[:, :, rows]
        scores = (qc @ kc.transpose(-1, -2)).tril()
        above = scores @ vc + qc @ sums
        below = scores.sum(dim=-1, keepdim=True) + qc @ norm.unsqueeze(-1)
        outputs.append(above / (below + EPSILON))
        sums = sums + kc.transpose(-1, -2) @ vc
        norm = norm + kc.sum(dim=2)
    return torch.cat(outputs, dim=2), (sums, norm)


def causal_step(q: Tensor, k: Tensor, v: Tensor, state: State) -> tuple[Tensor, State]:
    """One row of causal linear attention; q, k, v (B, H, D). Constant time and memory whatever came before."""
    q, k = feature_map(q), feature_map(k)
    sums = torch.addcmul(state[0], k.unsqueeze(-1), v.unsqueeze(-2))
    norm = state[1] + k
    above = (q.unsqueeze(-2) @ sums).squeeze(-2)
    return above / ((q * norm).sum(dim=-1, keepdim=True) + EPSILON), (sums, norm)


def empty_state(like: Tensor) -> State:
    """The state before the first row, for heads shaped like ``like`` (B, H, ..., D)."""
    batch, heads, width = like.shape[0], like.shape[1], like.shape[-1]
    return like.new_zeros(batch, heads, width, width), like.new_zeros(batch, heads, width)


class Linear(nn.Module):
    """Affine map, for ``groups`` independent networks at once: (G, ..., inputs) -> (G, ..., outputs); no G axis if
    None.
    """

    def __init__(self, inputs: int, outputs: int, groups: int | None = None):
        super().__init__()
        shape = () if groups is None else (groups,)
        self.weight = nn.Parameter(torch.empty(*shape, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(*shape, outputs))
        bound = math.sqrt(6 / (inputs + outputs))  # Xavier uniform
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), with a leading G if there are groups."""
        if self.weight.dim() == 2:
            return F.linear(x, self.weight, self.bias)
        flat = x.reshape(x.shape[0], -1, x.shape[-1])  # (G, M, inputs)
        out = torch.baddbmm(self.bias.unsqueeze(1), flat, self.weight.transpose(1, 2))
        return out.reshape(*x.shape[:-1], out.shape[-1])


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, with its own scale and shift for each of ``groups`` networks."""

    def __init__(self, width: int, groups: int | None = None):
        super().__init__()
        shape = (width,) if groups is None else (groups, width)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x (..., C), with a leading G if there are groups."""
        if self.weight.dim() == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        shape = (len(self.weight), *(1,) * (x.dim() - 2), x.shape[-1])
        return F.layer_norm(x, x.shape[-1:]) * self.weight.view(shape) + self.bias.view(shape)


class Block(nn.Module):
    """Post-norm transformer block with linear attention: self-attention, optional cross-attention, GELU feed-forward.

    x (B, T, C) or, with ``groups``, (G, B, T, C).
    """

    def __init__(
        self, dim: int, heads: int, hidden: int, dropout: float, *, groups: int | None = None, cross: bool = False
    ):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout) if dropout else nn.Identity()
        self.qkv = nn.ModuleList(Linear(dim, dim, groups) for _ in range(3))
        self.out = Linear(dim, dim, groups)
        self.cross_qkv = nn.ModuleList(Linear(dim, dim, groups) for _ in range(3)) if cross else None
        self.cross_out = Linear(dim, dim, groups) if cross else None
        self.inner, self.outer = Linear(dim, hidden, groups), Linear(hidden, dim, groups)
        self.norms = nn.ModuleList(LayerNorm(dim, groups) for _ in range(3 if cross else 2))

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """All rows at once. mask (B, T) marks valid rows (non-causal only); memory (B, M, C) with memory_mask (B,
        M).
        """
        return self.prime(x, causal=causal, mask=mask, memory=memory, memory_mask=memory_mask)[0]

    def prime(
        self,
        x: Tensor,
        *,
        causal: bool = True,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, State | None]:
        """As :meth:`forward`, and (if causal) the state after the last row, from which decoding row by row goes on."""
        q, k, v = (self._split(layer(x)) for layer in self.qkv)
        if causal:
            heard, state = causal_chunked(q, k, v)
        else:
            heard, state = full_attention(q, k, v, mask), None
        x = self.norms[0](x + self.drop(self.out(self._merge(heard, x.shape))))
        if self.cross_qkv is not None and memory is not None:
            q, k, v = (self._split(layer(y)) for layer, y in zip(self.cross_qkv, (x, memory, memory), strict=True))
            x = self.norms[1](x + self.drop(self.cross_out(self._merge(full_attention(q, k, v, memory_mask), x.shape))))  # type: ignore[misc]
        return self._feed_forward(x), state

    def context(self, memory: Tensor, mask: Tensor | None = None) -> State:
        """Sums over a memory (B, M, C) for decoding row by row: computed once per piece."""
        k, v = (self._split(layer(memory)) for layer in self.cross_qkv[1:])  # type: ignore[index]
        k = feature_map(k) if mask is None else feature_map(k) * mask[:, None, :, None]
        return k.transpose(-1, -2) @ v, k.sum(dim=2)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.norms[-1](x + self.drop(self.outer(self.drop(F.gelu(self.inner(x))))))

    def _split(self, x: Tensor) -> Tensor:
        """(..., T, C) -> (B, H, T, D), groups folded into the batch."""
        x = x.reshape(-1, x.shape[-2], self.heads, x.shape[-1] // self.heads)
        return x.transpose(1, 2)

    def _merge(self, x: Tensor, shape: torch.Size) -> Tensor:
        return x.transpose(1, 2).reshape(shape)


class Stack(nn.Module):
    """Blocks one after another and a final normalisation."""

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        hidden: int,
        dropout: float,
        *,
        groups: int | None = None,
        cross: bool = False,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, hidden, dropout, groups=groups, cross=cross) for _ in range(layers)
        )
        self.norm = LayerNorm(dim, groups)

    def forward(self, x: Tensor, *, causal: bool, **masks: Tensor | None) -> Tensor:
        """x (B, T, C) or (G, B, T, C) -> the same shape; see :meth:`Block.forward`."""
        for block in self.blocks:
            x = block(x, causal=causal, **masks)
        return self.norm(x)

    def prime(self, x: Tensor, **masks: Tensor | None) -> tuple[Tensor, list[State]]:
        """Causal rows at once, and the states of all layers after the last row."""
        states = []
        block: Any
        for block in self.blocks:
            x, state = block.prime(x, **masks)
            states.append(state)
        return self.norm(x), states


class ConvNeXt(nn.Module):
    """One-dimensional ConvNeXt block (Liu et al. 2022): depth-wise over frames, then position-wise, residual."""

    def __init__(self, width: int, hidden: int, kernel: int, scale: float):
        super().__init__()
        self.spread = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.rise = nn.Linear(width, hidden)
        self.fall = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        """X (B, D, T) to the same shape; ``film`` (B, 2 D, T or 1) scales and shifts it inside (Perez et al. 2018)."""
        y = self.norm(self.spread(x).transpose(1, 2))  # (B, T, D)
        if film is not None:
            scale, shift = film.transpose(1, 2).chunk(2, dim=2)
            y = y * (1 + scale) + shift
        return x + (self.scale * self.fall(F.gelu(self.rise(y)))).transpose(1, 2)


class VectorQuantize(nn.Module):
    """Nearest-code quantisation with codes learned by exponential moving averages, in training only.

    van den Oord et al. (2017), eq. (3) and appendix A.1; dead codes are re-drawn from the batch (Jukebox, 2020,
    section 3.1).
    """

    def __init__(self, codes: int, width: int, *, decay: float = 0.99, restart_below: float = 0.0):
        super().__init__()
        self.decay, self.restart_below = decay, restart_below
        bound = math.sqrt(6 / (codes + width))
        self.register_buffer("codebook", torch.empty(codes, width).uniform_(-bound, bound))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codebook.clone())
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C), mask (B, T) of valid rows -> straight-through codes (B, T, C), ids (B, T), commitment loss ().

        Masked rows are quantised too, but neither counted nor learned from.
        """
        x = x.float()
        ids = self.nearest(x)
        quantised = F.embedding(ids, self.codebook)
        commitment = ((x - quantised.detach()) ** 2).mean(dim=-1)
        loss = (commitment * mask).sum() / mask.sum().clamp(min=1)
        if self.training:
            self._learn(x.detach()[mask.bool()], ids[mask.bool()])
        return x + (quantised - x).detach(), ids, loss

    def nearest(self, x: Tensor) -> Tensor:
        """Ids (...) of the closest codes to x (..., C)."""
        distance = (self.codebook**2).sum(dim=1) - 2 * x @ self.codebook.T
        return distance.argmin(dim=-1)

    def perplexity(self) -> Tensor:
        """Effective number of codes in use, from the moving counts: between 1 and the size of the codebook."""
        share = self.counts / self.counts.sum().clamp(min=EPSILON)
        return torch.exp(-(share * share.clamp(min=1e-10).log()).sum())

    @torch.no_grad()
    def _learn(self, x: Tensor, ids: Tensor) -> None:
        hits = torch.bincount(ids, minlength=len(self.codebook)).to(x.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, ids, x)
        self.counts.lerp_(hits, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.codebook.copy_(self.sums / (self.counts.unsqueeze(1) + 1e-5))
        dead = self.counts < self.restart_below
        if self.restart_below and len(x) and bool(dead.any()):
            fresh = x[torch.randint(len(x), (int(dead.sum()),), device=x.device)]
            grace = 2 * self.restart_below  # long enough to find users before it counts as dead again
            self.codebook[dead], self.sums[dead], self.counts[dead] = fresh, grace * fresh, grace


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sinusoidal codes (..., width) of positions (...), Vaswani et al. (2017), section 3.5."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angles = positions.unsqueeze(-1).float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]
