"""The average voice: what is said, in the voice of nobody, from phone averages and from a network that imitates them.

======================  ====================  ======================================================================
code                    symbol                where
======================  ====================  ======================================================================
:class:`AverageTable`   average phonemes      DiffVC (Popov et al. 2022) section 3.1: each phone of an utterance is
                                              replaced by the average of that phone over the corpus
:meth:`.target`         X-bar, ground truth   what the encoder learns to give
:class:`AverageEncoder` phi                   X-bar = phi(X_0); transformer of Glow-TTS and Grad-TTS and a post-net
:meth:`.losses`         MSE                   DiffVC section 3.1, EmoReg fig. 3 ("Average Phoneme Encoder")
:class:`Attention`      w^K, w^V              relative positions, clipped by a window: Shaw et al. 2018 eq. (3)-(5),
                                              without any beyond the window
======================  ====================  ======================================================================

The average of a phone, in the published recipe, is the mode over its segments, band by band, of their medians over
time, rounded to 0.1. Median and mean are offered beside it (``TargetConfig.statistic``). What no segment covers is
silence, a phone like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.align.phones import SILENCE
from affgen.align.segments import FRAME_S, Segment
from affgen.errors import AffgenError
from affgen.features import BANDS
from vc.emoreg.config import AverageConfig
from vc.emoreg.unet import Block, masked, whole

if TYPE_CHECKING:
    from vc.emoreg.data import AverageBatch

ROUNDING = 10
"""Values are rounded to 1 / ROUNDING before the mode is taken."""
Run = tuple[int, int, str]
"""First frame, the one after the last, and the phone."""


def runs(segments: Sequence[Segment], frames: int) -> list[Run]:
    """Return ``segments`` as runs that fill ``frames`` frames: a frame belongs to what is spoken at its centre.

    Gaps are silence; what is shorter than a frame may vanish; phones may be any symbols.
    """
    found: list[Run] = []
    at = 0
    for segment in segments:
        first, last = (min(frames, max(0, int(np.ceil(t / FRAME_S - 0.5)))) for t in (segment.start_s, segment.end_s))
        if first > at:
            found.append((at, first, SILENCE))
        if last > max(first, at):
            found.append((max(first, at), last, segment.phone))
        at = max(at, last)
    return [*found, (at, frames, SILENCE)] if at < frames else found


@dataclass(frozen=True, eq=False)
class AverageTable:
    """``phones`` (P) in order, their averages ``values`` (P, 80) float32 and how many segments each is of (P,)."""

    phones: tuple[str, ...]
    values: np.ndarray
    counts: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.values.shape, self.counts.shape
        if shapes != ((len(self.phones), BANDS), (len(self.phones),)) or list(self.phones) != sorted(set(self.phones)):
            raise AffgenError(
                f"averages {shapes} of {len(self.phones)} phones; (P, {BANDS}) and (P,), sorted, are needed"
            )

    @classmethod
    def fit(cls, utterances: Iterable[tuple[np.ndarray, Sequence[Run]]], statistic: str = "mode") -> AverageTable:
        """Average over a corpus of (mel (80, T), runs).

        ``statistic`` is ``mode``, ``median`` or ``mean``. Raises :class:`AffgenError` for another one and for a
        corpus without segments.
        """
        if statistic not in STATISTICS:
            raise AffgenError(f"statistic {statistic[:40]!r}; accepted: {', '.join(STATISTICS)}")
        medians: dict[str, list[np.ndarray]] = {}
        for mel, spoken in utterances:
            for first, last, phone in spoken:
                medians.setdefault(phone, []).append(np.median(mel[:, first:last].astype(np.float32), axis=1))
        if not medians:
            raise AffgenError("no segments to average over; accepted: utterances with phones in time")
        names = tuple(sorted(medians))
        values = np.stack([STATISTICS[statistic](np.stack(medians[name])) for name in names])
        return cls(names, values.astype(np.float32), np.array([len(medians[name]) for name in names], dtype=np.int64))

    def index(self, spoken: Sequence[Run]) -> np.ndarray:
        """Return the row of the table for each frame (T,); raises :class:`AffgenError` for a phone it has not."""
        rows = {phone: row for row, phone in enumerate(self.phones)}
        for _, _, phone in spoken:
            if phone not in rows:
                raise AffgenError(f"phone {phone!r}: has no average; there are {' '.join(self.phones)[:300]}")
        found = np.zeros(spoken[-1][1] if spoken else 0, dtype=np.int64)
        for first, last, phone in spoken:
            found[first:last] = rows[phone]
        return found

    def target(self, spoken: Sequence[Run]) -> np.ndarray:
        """Return the averages pasted over their segments, (80, T) float32."""
        pasted: np.ndarray = self.values[self.index(spoken)].T
        return pasted

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` needs besides the phones."""
        return {"values": self.values, "counts": self.counts}

    @classmethod
    def from_arrays(cls, phones: Sequence[str], arrays: Mapping[str, np.ndarray]) -> AverageTable:
        """Return the table that :meth:`arrays` came from; raises :class:`AffgenError` for shapes that do not fit."""
        values, counts = (np.asarray(arrays[name]) for name in ("values", "counts"))
        return cls(tuple(phones), values.astype(np.float32), counts.astype(np.int64))


def _mode(values: np.ndarray) -> np.ndarray:
    """The most frequent value (80,) of each column of ``values`` (N, 80), rounded; the lowest of several."""
    steps = np.rint(values * ROUNDING).astype(np.int64)
    low = int(steps.min())
    width = int(steps.max()) - low + 1
    places = (steps - low) + width * np.arange(steps.shape[1])
    counts = np.bincount(places.ravel(), minlength=width * steps.shape[1]).reshape(-1, width)
    return (counts.argmax(axis=1) + low) / ROUNDING


def _median(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(values, axis=0))


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.mean(axis=0))


STATISTICS = {"mode": _mode, "median": _median, "mean": _mean}
"""Segments (N, 80) of a phone -> its average (80,)."""


# ----------------------------------------------------------------------------------------------------- the encoder


class Norm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, T)."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x`` (B, C, T)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Prenet(nn.Module):
    """Convolutions with much dropout; their output is added through a map that begins at 0."""

    def __init__(self, config: AverageConfig):
        super().__init__()
        width, kernel = config.channels, config.prenet_kernel
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2) for _ in range(config.prenet_layers)
        )
        self.norms = nn.ModuleList(Norm(width) for _ in range(config.prenet_layers))
        self.out = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))
        self.dropout = nn.Dropout(config.prenet_dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, D, T), ``mask`` (B, 1, T) -> the same shape."""
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = self.dropout(F.relu(norm(conv(y * mask))))
        return (x + self.out(y)) * mask


class Attention(nn.Module):
    """Self-attention that knows how far apart two frames are if that is no more than ``window`` frames."""

    def __init__(self, width: int, heads: int, window: int, dropout: float):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.out = nn.Conv1d(width, width, 1)
        shape, spread = (2 * window + 1, width // heads), (width // heads) ** -0.5
        self.keys, self.values = (nn.Parameter(torch.randn(shape) * spread) for _ in range(2))  # shared by the heads
        self.dropout = nn.Dropout(dropout)
        for layer in self.qkv:
            nn.init.xavier_uniform_(cast(nn.Conv1d, layer).weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, D, T), ``mask`` (B, 1, T) -> (B, D, T)."""
        q, k, v = (layer(x).unflatten(1, (self.heads, -1)).transpose(2, 3) for layer in self.qkv)  # (B, H, T, D / H)
        places, inside = self._around(x.shape[2], x.device)
        places = places.expand(*q.shape[:3], -1)
        near = (q @ self.keys.T).to(q.dtype) * inside.to(q.dtype)  # (B, H, T, 2 W + 1)
        scores = (q @ k.transpose(2, 3)).scatter_add(3, places, near) * q.shape[3] ** -0.5
        weights = self.dropout(scores.masked_fill(mask.unsqueeze(1) == 0, -1e4).softmax(dim=3))
        heard = weights @ v + (weights.gather(3, places) * inside) @ self.values
        return cast(Tensor, self.out(heard.transpose(2, 3).flatten(1, 2)))

    def _around(self, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The frames up to ``window`` before and after each, (T, 2 W + 1), and whether there are such frames."""
        steps = torch.arange(-self.window, self.window + 1, device=device)
        places = torch.arange(frames, device=device).unsqueeze(1) + steps
        inside = (places >= 0) & (places < frames)
        return places.clamp(0, frames - 1), inside


class Layer(nn.Module):
    """Attention and a convolutional feed-forward part, each with normalisation after it."""

    def __init__(self, config: AverageConfig):
        super().__init__()
        width, kernel = config.channels, config.kernel
        self.attention = Attention(width, config.heads, config.window, config.dropout)
        self.rise = nn.Conv1d(width, config.filters, kernel, padding=kernel // 2)
        self.fall = nn.Conv1d(config.filters, width, kernel, padding=kernel // 2)
        self.norms = nn.ModuleList(Norm(width) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, D, T), ``mask`` (B, 1, T) -> (B, D, T), 0 where the mask is."""
        x = self.norms[0](x + self.dropout(self.attention(x, mask)))
        y = self.dropout(F.relu(self.rise(x * mask)))
        return cast(Tensor, self.norms[1](x + self.dropout(self.fall(y * mask) * mask)) * mask)


class PostNet(nn.Module):
    """Two-dimensional convolutions over the whole mel."""

    def __init__(self, width: int):
        super().__init__()
        self.enter, self.out = nn.Conv2d(1, width, 1), nn.Conv2d(width, 1, 1)
        self.first, self.second = Block(width, width, 7), Block(width, width, 7)
        self.straight = nn.Conv2d(width, width, 1)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """``mel`` (B, 80, T), ``mask`` (B, 1, T) -> (B, 80, T)."""
        hidden = whole(mask)
        x = masked(self.enter(masked(mel.unsqueeze(1), hidden)), hidden)
        y = self.second(self.first(x, hidden), hidden) + self.straight(x)
        return cast(Tensor, self.out(y).squeeze(1) * mask)


class AverageEncoder(nn.Module):
    """A mel to its average voice."""

    def __init__(self, config: AverageConfig):
        super().__init__()
        self.enter = nn.Conv1d(BANDS, config.channels, 1)
        self.prenet = Prenet(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.leave = nn.Conv1d(config.channels, BANDS, 1)
        self.postnet = PostNet(config.postnet)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """``mel`` (B, 80, T), ``mask`` (B, 1, T) of valid frames -> average voice (B, 80, T), 0 where the mask is."""
        x = self.prenet(self.enter(mel * mask), mask)
        for layer in self.layers:
            x = layer(x, mask)
        return cast(Tensor, self.postnet(self.leave(x), mask))

    def losses(self, batch: AverageBatch) -> dict[str, Tensor]:
        """The squared distance to the pasted averages, per band and valid frame."""
        missed = (self(batch.mel, batch.mask) - batch.average) ** 2 * batch.mask
        return {"average": missed.sum() / (batch.mask.sum() * BANDS)}
