"""The prior: an auto-regressive linear transformer over the codes of a piece, steered by emotion.

Published: codes and emotions share one vocabulary, the emotion is the first token, 8 layers of width 256, logits
divided by
0.3. With ``context="rows"`` it also hears the rows decoded so far, which the interleaved decoding of
:mod:`music.decode`
makes available, and with ``conditioning="rows"`` valence and arousal at every row instead of a first token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.layers import Linear, Stack, State, sinusoids
from music.config import FIELDS, PriorConfig, TokenConfig
from music.model import ConditionEmbedding, Conditions, RowEmbedding

EMOTION_TOKENS = 5
"""Unknown and Q1..Q4, after the codes in the prior's vocabulary."""


class Prior(nn.Module):
    """p(code_t | codes before t, [rows before t], emotion)."""

    def __init__(self, config: PriorConfig, codes: int, tokens: TokenConfig, widths: tuple[int, ...]):
        super().__init__()
        self.config, self.codes = config, codes
        self.embedding = nn.Embedding(codes + EMOTION_TOKENS, config.dim)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.inner = Linear(config.dim, config.dim)
        self.rows = RowEmbedding(tokens.sizes(), widths) if config.context == "rows" else None
        self.rows_in = Linear(sum(widths), config.dim) if config.context == "rows" else None
        self.conditions = ConditionEmbedding(config.dim) if config.conditioning == "rows" else None
        self.stack = Stack(config.dim, config.layers, config.heads, config.feed_forward * config.dim, config.dropout)
        self.head = Linear(config.dim, codes)

    def losses(self, codes: Tensor, x: Tensor, mask: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """``nll`` () of codes (B, T) given rows x (B, T, 8), mask (B, T) and conditions; ``accuracy`` () for the
        log.
        """
        heard = torch.cat([self.first_token(x[:, 0]).unsqueeze(1), codes[:, :-1]], dim=1)
        h = self._input(heard, x, conditions)
        logits = self.head(self.stack(h, causal=True)).float() / self.config.temperature
        nll = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        hits = (logits.argmax(dim=-1) == codes).float()
        count = mask.sum().clamp(min=1)
        return {"nll": (nll * mask).sum() / count, "accuracy": (hits * mask).sum() / count}

    def first_token(self, row: Tensor) -> Tensor:
        """Prefix ids (B,) for emotion rows (B, 8)."""
        return self.codes + row[:, len(FIELDS) - 1]

    def prime(self, heard: Tensor, x: Tensor, conditions: Conditions) -> list[State]:
        """Running sums after the codes heard (B, T), prefix first, and rows x (B, T, 8)."""
        return self.stack.prime(self._input(heard, x, conditions))[1]

    def _input(self, code: Tensor, row: Tensor, conditions: Conditions) -> Tensor:
        h = self.inner(self.embedding(code))
        if self.rows is not None:
            h = h + self.rows_in(self.rows(row))  # type: ignore[misc]
        if self.conditions is not None:
            h = h + self.conditions(conditions)
        if self.config.positions:
            h = h + sinusoids(torch.arange(h.shape[-2], device=h.device), h.shape[-1]).to(h.dtype)
        return h
