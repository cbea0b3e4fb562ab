"""What the predictors share, the length regulator, and the energy.

=========================  ===============================  ============================================================
code                       in the papers                    equation
=========================  ===============================  ============================================================
:class:`ConvPredictor`     variance predictor               FastSpeech 2 (Ren et al. 2021), section 2.3
:class:`LengthRegulator`   length regulator                 FastSpeech (Ren et al. 2019), eq. (2): row n, d_n times;
                                                            with the note's pitch and the place inside the note
:class:`ScalarEmbedding`   F0 and energy embeddings         sines and cosines of the value, then linear; FastSpeech 2
                                                            has tables of 256 steps, Muse-SVS is silent
:class:`EnergyPredictor`   energy predictor (Muse-SVS)      e_t = level of the phoneme + curve over frames; open there
=========================  ===============================  ============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.layers import sinusoids
from svs.config import PredictorConfig
from svs.front import ScoreBatch

MIDDLE = 60.0
"""MIDI pitch from which pitches are counted where a network reads them as numbers."""


class ConvPredictor(nn.Module):
    """Convolutions over rows, each with rectifier, layer normalisation and dropout, and a linear end."""

    def __init__(self, inputs: int, config: PredictorConfig, outputs: int):
        super().__init__()
        sizes = [inputs, *[config.hidden] * config.layers]
        self.convs = nn.ModuleList(
            nn.Conv1d(a, config.hidden, config.kernel, padding=config.kernel // 2) for a in sizes[:-1]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in self.convs)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, C), ``mask`` (B, T) bool -> (B, T, outputs) float32, 0 where the mask is."""
        valid = mask.unsqueeze(2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.dropout(norm(F.relu(conv((x * valid).transpose(1, 2)).transpose(1, 2))))
        return cast(Tensor, self.out(x).float() * valid)


class ScalarEmbedding(nn.Module):
    """A number to a vector: ``rate`` is the reciprocal of the least difference that matters, in radians."""

    def __init__(self, width: int, rate: float):
        super().__init__()
        self.width, self.rate = width, rate
        self.out = nn.Linear(width, width)

    def forward(self, value: Tensor) -> Tensor:
        """``value`` (B, T) -> (B, T, D)."""
        return cast(Tensor, self.out(sinusoids(value * self.rate, self.width)))


@dataclass(frozen=True, eq=False)
class Frames:
    """Rows over frames: ``hidden`` (B, T, D), ``index`` (B, T) of the phoneme, ``mask`` (B, T) bool of valid frames,
    ``note`` (B, T) MIDI pitch, 0 in rests, ``position`` (B, T) inside the note, from 0 to 1.
    """

    hidden: Tensor
    index: Tensor
    mask: Tensor
    note: Tensor
    position: Tensor

    def spread(self, rows: Tensor) -> Tensor:
        """Return what each frame has of ``rows`` (B, N), (B, T)."""
        return rows.gather(1, self.index)

    @property
    def step(self) -> Tensor:
        """The curve of the notes as numbers for a network, (B, T): octaves from middle C, 0 in rests."""
        return torch.where(self.note > 0, (self.note - MIDDLE) / 12, 0.0)


class LengthRegulator(nn.Module):
    """Phonemes to frames, which know the pitch of their note and where inside it they are."""

    def __init__(self, width: int):
        super().__init__()
        self.pitch, self.position = ScalarEmbedding(width, 2.0), ScalarEmbedding(width, 20.0)

    def forward(self, rows: Tensor, score: ScoreBatch, durations: Tensor) -> Frames:
        """Repeat ``rows`` (B, N, D) by ``durations`` (B, N) int64 in frames, 0 where the mask is."""
        frames = placed(score, durations)
        hidden = rows.gather(1, frames.index.unsqueeze(2).expand(-1, -1, rows.shape[2]))
        sounds = (frames.note > 0).unsqueeze(2)
        hidden = hidden + sounds * (self.pitch(frames.note) + self.position(frames.position))
        return Frames(hidden * frames.mask.unsqueeze(2), frames.index, frames.mask, frames.note, frames.position)


def placed(score: ScoreBatch, durations: Tensor) -> Frames:
    """Return the frames of ``durations`` (B, N) int64 without content: ``hidden`` is (B, T, 0)."""
    ends = durations.cumsum(dim=1)
    time = torch.arange(int(ends[:, -1].max()), device=durations.device).expand(len(ends), -1)
    mask = time < ends[:, -1:]
    index = torch.searchsorted(ends, time.contiguous(), right=True).clamp(max=ends.shape[1] - 1)
    # Phonemes of a note follow each other: a run of equal notes is one note, or one rest.
    run = torch.cat([score.note[:, :1] * 0, (score.note.diff(dim=1) != 0).long().cumsum(dim=1)], dim=1)
    lengths = torch.zeros_like(durations).scatter_add(1, run, durations)
    starts = lengths.cumsum(dim=1) - lengths
    mine = run.gather(1, index)
    position = (time - starts.gather(1, mine) + 0.5) / lengths.gather(1, mine).clamp(min=1)
    note = score.midi.gather(1, index) * mask
    return Frames(torch.zeros(*time.shape, 0, device=time.device), index, mask, note.float(), position.float() * mask)


def moments(x: Tensor, weight: Tensor, frames: Frames, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, deviation and number of the frames ``x`` (B, T) of each of ``count`` phonemes, (B, N) each.

    Frames count by ``weight`` (B, T), 0 or 1; a phoneme without any has mean and deviation 0.
    """
    empty = x.new_zeros(len(x), count)
    number = empty.scatter_add(1, frames.index, weight)
    mean = empty.scatter_add(1, frames.index, x * weight) / number.clamp(min=1)
    square = (x - frames.spread(mean)).square() * weight
    variance = empty.scatter_add(1, frames.index, square) / number.clamp(min=1)
    return mean, torch.sqrt(variance + 1e-8) * (number > 0), number


def average(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``x`` over the places of its shape where ``mask``, bool or weights, is; 0 if there are none.

    ``mask`` has the shape of ``x`` or fits it.
    """
    weight = mask.to(x.dtype).expand_as(x)
    return (x * weight).sum() / weight.sum().clamp(min=1)


class EnergyPredictor(nn.Module):
    """The level of each phoneme and a curve over frames around it, in standard units of the log energy."""

    def __init__(self, width: int, config: PredictorConfig):
        super().__init__()
        self.level, self.curve = ConvPredictor(width, config, 1), ConvPredictor(width, config, 1)

    def forward(self, rows: Tensor, mask: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
        """``rows`` (B, N, D), ``mask`` (B, N) -> levels (B, N) and energy (B, T), 0 where the masks are."""
        level = self.level(rows, mask).squeeze(2)
        curve = self.curve(frames.hidden, frames.mask).squeeze(2)
        return level, (frames.spread(level) + curve) * frames.mask

    def loss(self, found: tuple[Tensor, Tensor], energy: Tensor, frames: Frames) -> Tensor:
        """Return the distance of levels and frames ``found`` to a measured ``energy`` (B, T)."""
        level, made = found
        mean, _, number = moments(energy, frames.mask.float(), frames, level.shape[1])
        return average((level - mean).abs(), number > 0) + average((made - energy).abs(), frames.mask)
