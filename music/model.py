"""MusER: a vector-quantised auto-encoder of compound words whose latent is split over the musical elements.

=====================  ======================================================  ==================================
code                   MusER (Ji & Yang, AAAI 2024)                            published size
=====================  ======================================================  ==================================
``encoder``            linear transformer over the rows y, not causal          8 layers, width 128 -> latent 112
``quantise``           vector quantisation, one code per row                   512 codes, moving averages
``reduction``          DR: 16 values of an element -> one per row              4 layers, width 1024, training only
``order_loss``         element regulariser                                     sum over 7 elements, weight 0.1
``global_decoder``     linear transformer over the rows x, heard so far        4 layers, width 256
``fuse``               how z enters it: cross-attention or row by row          cross-attention (``ca``)
``element_decoders``   seven linear transformers, one per element              7 x 2 layers, width 256
``heads``              row type first, the other six given the type            shared 288 -> 256, then own heads
=====================  ======================================================  ==================================

x = rows[:-1] is what has been heard, y = rows[1:] what comes next; both (B, T, 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.layers import Linear, Stack, State, VectorQuantize, sinusoids
from music.config import ELEMENTS, FIELDS, STEPS_PER_BAR, ModelConfig, TokenConfig
from music.elements import Reduction, order_loss, split
from music.tokens import TYPE

KEYS = 25
"""Unknown, then 12 major and 12 minor keys by tonic."""
BARS_LEFT = 10
"""Unknown, then 0..7 and "8 or more" bars after the current one."""
PLACES = 2 + STEPS_PER_BAR
"""Before the first bar, at a bar line, or at one of its sixteenths: the last ``beat`` id that was heard."""


@dataclass
class Conditions:
    """What steers each row: va (B, T, 2) in [-1, 1], 0 where unknown; key, left, place (B, T) ids, 0 where unknown."""

    va: Tensor
    key: Tensor
    left: Tensor
    place: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditions:
        """The same conditions with ``function`` applied to each tensor."""
        return Conditions(*(function(x) for x in (self.va, self.key, self.left, self.place)))


@dataclass
class Batch:
    """Training rows: x, y (B, T, 8) ids, mask (B, T) of valid rows, conditions, and the names of the clips."""

    x: Tensor
    y: Tensor
    mask: Tensor
    conditions: Conditions
    names: list[str]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        conditions = self.conditions.map(lambda t: t.to(device))
        return Batch(self.x.to(device), self.y.to(device), self.mask.to(device), conditions, self.names)


class RowEmbedding(nn.Module):
    """Compound words (..., F) -> concatenated embeddings, each scaled by the square root of its width."""

    def __init__(self, sizes: tuple[int, ...], widths: tuple[int, ...]):
        super().__init__()
        tables = [nn.Embedding(size, width) for size, width in zip(sizes, widths, strict=True)]
        for table in tables:
            nn.init.normal_(table.weight, std=table.embedding_dim**-0.5)
        self.tables = nn.ModuleList(tables)
        self.widths = widths

    def column(self, index: int, ids: Tensor) -> Tensor:
        """Embedding (..., width) of one column's ids (...)."""
        table = self.tables[index]
        return table(ids) * math.sqrt(self.widths[index])

    def forward(self, rows: Tensor, columns: int = len(FIELDS)) -> Tensor:
        """Rows (..., F) of ids -> (..., sum of the widths of the first ``columns`` columns)."""
        return torch.cat([self.column(index, rows[..., index]) for index in range(columns)], dim=-1)


class ConditionEmbedding(nn.Module):
    """Conditions -> (B, T, dim), added to the input of a decoder; all unknown gives the neutral model."""

    def __init__(self, dim: int):
        super().__init__()
        self.emotion = nn.Parameter(torch.randn(3, dim) * 0.5)
        self.key = nn.Embedding(KEYS, dim)
        self.left = nn.Embedding(BARS_LEFT, dim)
        self.place = nn.Embedding(PLACES, dim)
        for table in (self.key, self.left, self.place):
            nn.init.normal_(table.weight, std=0.2)

    def forward(self, conditions: Conditions) -> Tensor:
        """Conditions of (B, T) rows -> (B, T, dim)."""
        va = conditions.va
        emotion = torch.cat([va, va[..., :1] * va[..., 1:]], dim=-1) @ self.emotion
        return emotion + self.key(conditions.key) + self.left(conditions.left) + self.place(conditions.place)


class MusER(nn.Module):
    """The VQ-VAE. ``losses`` trains it, ``codes`` reads pieces; :mod:`music.recurrent` decodes row by row."""

    def __init__(self, config: ModelConfig, tokens: TokenConfig):
        super().__init__()
        self.config, sizes, widths = config, tokens.sizes(), config.embeddings
        part = config.latent // len(ELEMENTS)
        self.embedding = RowEmbedding(sizes, widths)
        self.encoder_in = Linear(sum(widths[:-1]), config.encoder_dim)
        hidden = config.feed_forward
        self.encoder = Stack(
            config.encoder_dim, config.encoder_layers, config.encoder_heads, hidden * config.encoder_dim, config.dropout
        )
        self.encoder_out = Linear(config.encoder_dim, config.latent)
        self.quantise = VectorQuantize(
            config.codes, config.latent, decay=config.decay, restart_below=config.restart_below
        )  # fmt: skip
        self.reduction = Reduction(config.reduction, config.max_rows) if config.reduction != "none" else None
        width = config.dim if config.decoder != "E" else config.element_dim
        self.conditions = ConditionEmbedding(width) if config.conditioning == "rows" else None

        has_global, has_elements = config.decoder != "E", config.decoder != "G"
        cross = config.fusion == "ca"
        self.decoder_in = Linear(sum(widths) + (0 if cross or not has_global else config.latent), width)
        self.global_decoder = self.memory_in = None
        if has_global:
            self.memory_in = Linear(config.latent, config.dim) if cross else None
            self.global_decoder = Stack(
                config.dim, config.layers, config.heads, hidden * config.dim, config.dropout, cross=cross
            )
        self.element_decoders = None
        if has_elements:
            width, groups = config.element_dim, len(ELEMENTS)
            self.narrow = Linear(config.dim, width) if has_global and width != config.dim else None
            self.latent_in = Linear(part, width)
            self.element_decoders = Stack(
                width, config.element_layers, config.element_heads, hidden * width, config.dropout, groups=groups
            )
        self.given_type = Linear(width + widths[TYPE], width)
        self.heads = nn.ModuleList(Linear(width, size) for size in sizes[: len(ELEMENTS)])

    # --- encoding -------------------------------------------------------------------------------------------------

    def encode(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Latents (B, T, C) of rows (B, T, 8) before quantisation; mask (B, T)."""
        x = self.encoder_in(self.embedding(rows, len(ELEMENTS)))
        x = x + self._positions(x)
        return self.encoder_out(self.encoder(x, causal=False, mask=mask))

    def codes(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Code ids (B, T) of rows (B, T, 8)."""
        return self.quantise.nearest(self.encode(rows, mask).float())

    # --- training -------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named losses, each (): ``nll`` (mean of seven), ``vq``, ``reg``, and the seven parts as ``nll_*`` for
        the log.
        """
        encoded = self.encode(batch.y, batch.mask)
        latent, _, commitment = self._bottleneck(encoded, batch.mask)
        hidden = self.hidden(batch.x, latent, batch.mask, batch.conditions)
        logits = self.logits(hidden, batch.y[..., TYPE])
        lengths = batch.mask.sum(dim=1).clamp(min=1)
        losses = {}
        for name, scores, target in zip(ELEMENTS, logits, batch.y.unbind(-1), strict=False):
            nll = F.cross_entropy(scores.float().transpose(1, 2), target, reduction="none") * batch.mask
            losses[f"nll_{name}"] = (nll.sum(dim=1) / lengths).mean()
        losses["nll"] = torch.stack(list(losses.values())).mean()
        losses["vq"] = self.config.commitment * commitment
        if self.reduction is not None:
            seen = latent if self.config.regularise == "quantised" else encoded
            losses["reg"] = order_loss(self.reduction(seen.float()), batch.y, batch.mask)
        return losses

    def loss_weights(self) -> dict[str, float]:
        """Weights of the named losses; the parts of the likelihood are only logged."""
        config = self.config
        weights = {f"nll_{name}": 0.0 for name in ELEMENTS} | {"nll": config.nll_weight, "vq": config.vq_weight}
        return weights if self.reduction is None else weights | {"reg": config.reg_weight}

    def hidden(self, x: Tensor, latent: Tensor, mask: Tensor, conditions: Conditions) -> Tensor:
        """Features (7, B, T, D) before the heads, for heard rows x (B, T, 8) and latents (B, T, C) of the rows to
        come.
        """
        memory = self.memory_in(latent) if self.memory_in is not None else None
        h = self._input(x, latent, conditions)
        if self.global_decoder is not None:
            h = self.global_decoder(h, causal=True, memory=memory, memory_mask=mask)
        if self.element_decoders is None:
            return h.expand(len(ELEMENTS), *h.shape)
        return self.element_decoders(self._element_input(h, latent), causal=True)

    def logits(self, hidden: Tensor, kind: Tensor) -> list[Tensor]:
        """Scores of the seven columns, each (..., size), given the row type (...) for all but the type itself."""
        return [
            self.type_logits(hidden) if index == TYPE else self.head(index, hidden[index], kind)
            for index in range(len(ELEMENTS))
        ]

    def type_logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., 4) of the row type from features (7, ..., D)."""
        return self.heads[TYPE](hidden[TYPE])

    def head(self, index: int, hidden: Tensor, kind: Tensor) -> Tensor:
        """Scores of one column from its features (..., D) and the row type (...)."""
        given = torch.cat([hidden, self.embedding.column(TYPE, kind)], dim=-1)
        return self.heads[index](self.given_type(given))

    def prime(self, x: Tensor, latent: Tensor, conditions: Conditions) -> list[list[State]]:
        """Running sums of each decoder after the heard rows x (B, T, 8) with latents (B, T, C): where row by row
        decoding goes on.

        Not for ``fusion="ca"``, whose latents are those of the whole piece.
        """
        stacks = []
        h = self._input(x, latent, conditions)
        if self.global_decoder is not None:
            h, states = self.global_decoder.prime(h)
            stacks.append(states)
        if self.element_decoders is not None:
            stacks.append(self.element_decoders.prime(self._element_input(h, latent))[1])
        return stacks

    def contexts(self, latent: Tensor) -> list[State]:
        """Sums over the latents (B, T, C) of a whole piece that each global layer attends to with ``fusion="ca"``."""
        memory = self.memory_in(latent)  # type: ignore[misc]
        blocks: Any = self.global_decoder.blocks  # type: ignore[union-attr]
        return [block.context(memory) for block in blocks]

    # --- parts ----------------------------------------------------------------------------------------------------

    def _bottleneck(self, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        if self.config.bottleneck == "none":
            return encoded, None, encoded.new_zeros(())
        return self.quantise(encoded, mask)

    def _input(self, x: Tensor, latent: Tensor, conditions: Conditions) -> Tensor:
        """Input (B, T, D) of the first decoder."""
        h = self.embedding(x)
        if self.global_decoder is not None and self.config.fusion == "concat":
            h = torch.cat([h, latent.to(h.dtype)], dim=-1)
        h = self.decoder_in(h)
        if self.conditions is not None:
            h = h + self.conditions(conditions)
        return h + self._positions(h)

    def _element_input(self, h: Tensor, latent: Tensor) -> Tensor:
        """Input (7, B, T, D) of the element decoders: what was heard, and each element's part of the latent."""
        if self.narrow is not None:
            h = self.narrow(h)
        h = h + self.latent_in(split(latent).to(h.dtype))
        return h + self._positions(h)

    def _positions(self, like: Tensor) -> Tensor | float:
        """Sinusoids (T, D) for (..., T, D)."""
        if not self.config.positions:
            return 0.0
        return sinusoids(torch.arange(like.shape[-2], device=like.device), like.shape[-1]).to(like.dtype)
