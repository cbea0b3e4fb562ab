"""Durations: the context-aware residual predictor, its ablation, and one that cannot drift.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931) predicts a duration residual in context so that the errors of phonemes do
not add up and the voice stays with its accompaniment; how is not published. With a_n the frames the score gives to
phoneme n (:mod:`svs.timing`) and c_n what a network hears around it:

============  ====================================================================================================
mode          frames d_n of phoneme n
============  ====================================================================================================
``plain``     exp f(c_n), as in FastSpeech: errors add up (ablation)
``residual``  a_n exp f(c_n, a_n, s_n), s_n = sum over m < n of (d_m - a_m): what has gone wrong so far is an input, so
              that it can be made good; the sums of real singers in training, its own in singing
``boundary``  beat b_k of the score moves to b_k + l_k tanh f(c), and between two beats phonemes share what there is:
              softmax of log a_n + g(c_n, a_n). Not in the paper
============  ====================================================================================================

In mode ``boundary`` l_k is at most ``bound_s`` and leaves every phoneme a frame where the score does, beats keep their
order, and the whole has as many frames as the score: by construction, whatever the weights are.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.align.segments import FRAME_S
from svs.config import MuseConfig
from svs.front import ScoreBatch
from svs.variance import ConvPredictor, average

LEAST = 0.1
"""Frames that a phoneme counts as having where the score leaves it less."""
STEEPEST = 3.0
"""Most that the logarithm of a duration moves from the score's: a factor of 20."""
LONGEST = 9.0
"""Largest logarithm of a duration in mode ``plain``: 94 s."""
NEAR = 10.0
"""Frames up to which a network reads accumulated residuals as they are; beyond, their logarithm."""


class ContextAwareResidualDurationPredictor(nn.Module):
    """Rows of phonemes to frames, in the mode ``config.duration``."""

    def __init__(self, config: MuseConfig):
        super().__init__()
        self.mode, self.bound = config.duration, config.durations.bound_s / FRAME_S
        hidden = config.durations.context.hidden
        self.context = ConvPredictor(config.blocks.width, config.durations.context, hidden)
        told = {"plain": 0, "boundary": 1, "residual": 2}[self.mode]
        self.head = nn.Sequential(nn.Linear(hidden + told, hidden), nn.GELU())
        self.out = nn.Linear(hidden, 2 if self.mode == "boundary" else 1)

    def forward(self, rows: Tensor, score: ScoreBatch, durations: Tensor | None = None) -> Tensor:
        """Return the frames (B, N) float64 of ``rows`` (B, N, D), not yet whole ones, 0 where the mask is.

        Mode ``residual`` is told what has accumulated by the real ``durations`` (B, N), or else by its own.
        """
        context = self.context(rows, score.mask)
        if self.mode == "plain":
            made = self._head(context)[..., 0].clamp(max=LONGEST).exp()
        elif self.mode == "boundary":
            made = between(*self._bounded(context, score), score)
        elif durations is None:
            made = self._step_by_step(context, score)
        else:
            residual = (durations - score.nominal).cumsum(dim=1)
            before = F.pad(residual, (1, -1))
            made = self._scaled(context, score.nominal, before)
        return made * score.mask

    def whole(self, rows: Tensor, score: ScoreBatch) -> Tensor:
        """Return whole frames (B, N) int64 of ``rows`` (B, N, D), 0 where the mask is.

        In mode ``boundary`` each row sums to the frames of the score; in the others to at least 1.
        """
        if self.mode == "boundary":
            return whole_between(*self._bounded(self.context(rows, score.mask), score), score)
        ends = self(rows, score).cumsum(dim=1).round().clamp(min=1)  # rounding errors do not add up
        return F.pad(ends, (1, 0)).diff(dim=1).long()

    def losses(self, made: Tensor, durations: Tensor, score: ScoreBatch) -> dict[str, Tensor]:
        """Return what ``made`` (B, N) misses of ``durations`` (B, N): per phoneme, from beat to beat, and onsets."""
        real = durations.to(made.dtype)
        spans = (span_sums(made, score).log1p() - span_sums(real, score).log1p()).abs()
        onsets = (made - real).cumsum(dim=1)[:, :-1]
        return {
            "duration": average((made.log1p() - real.log1p()).abs(), score.mask).float(),
            "beat": average(spans, span_sums(score.mask, score) > 0).float(),
            "onset": average(FRAME_S * onsets.abs(), score.mask[:, 1:]).float(),
        }

    def _head(self, context: Tensor, *told: Tensor) -> Tensor:
        """Context (..., C) and what else is told (...) to outputs (..., outputs) float64."""
        more = [value.to(context.dtype).unsqueeze(-1) for value in told]
        return cast(Tensor, self.out(self.head(torch.cat([context, *more], dim=-1))).double())

    def _scaled(self, context: Tensor, nominal: Tensor, before: Tensor) -> Tensor:
        """Frames of mode ``residual``: context (..., C), nominal frames and residual before (...) -> (...)."""
        shift = self._head(context, nominal.log1p(), torch.asinh(before / NEAR))[..., 0]
        return nominal.clamp(min=LEAST) * (STEEPEST * torch.tanh(shift / STEEPEST)).exp()

    def _step_by_step(self, context: Tensor, score: ScoreBatch) -> Tensor:
        nominal = score.nominal
        before = torch.zeros_like(nominal[:, 0])
        made = []
        for n in range(context.shape[1]):
            made.append(self._scaled(context[:, n], nominal[:, n], before))
            before = before + made[-1] - nominal[:, n]
        return torch.stack(made, dim=1)

    def _bounded(self, context: Tensor, score: ScoreBatch) -> tuple[Tensor, Tensor]:
        """Beats (B, N + 2) as :func:`beat_table` has them, and the share (B, N) of its span before each phoneme."""
        deviation, logit = self._head(context, score.nominal.log1p()).unbind(dim=2)
        moved = score.start + room(score, self.bound) * torch.tanh(deviation)
        shares = span_softmax(logit + score.nominal.clamp(min=LEAST).log(), score)
        before = shares.cumsum(dim=1) - shares
        before = (before - before.gather(1, first_of_span(score))).clamp(0, 1)
        return beat_table(moved, score), before


def between(beats: Tensor, before: Tensor, score: ScoreBatch) -> Tensor:
    """Return frames (B, N): of each span ``before`` (B, N) passes before a phoneme; ``beats`` (B, N + 2)."""
    low, high = beats.gather(1, score.span), beats.gather(1, score.span + 1)
    return _lengths(low + before * (high - low), score)


def whole_between(beats: Tensor, before: Tensor, score: ScoreBatch) -> Tensor:
    """Return :func:`between` in whole frames (B, N) int64, one or more for each phoneme of a span that has as many."""
    beats = beats.round()
    low, high = beats.gather(1, score.span), beats.gather(1, score.span + 1)
    count = span_sums(score.mask, score).gather(1, score.span)
    least = (high - low >= count).to(beats.dtype)
    number = torch.arange(before.shape[1], device=before.device) - first_of_span(score)
    return _lengths(low + least * number + (before * (high - low - least * count)).round(), score).long()


def beat_table(values: Tensor, score: ScoreBatch) -> Tensor:
    """Return where spans begin, (B, N + 2): 0, then ``values`` (B, N) of the beats, then the frames of the score."""
    spare = values.shape[1] + 2  # where the values of what is no beat go
    table = score.frames.unsqueeze(1).expand(-1, spare + 1).clone()
    table[:, 0] = 0
    return table.scatter(1, torch.where(score.beat, score.span, spare), values)[:, :spare]


def span_sums(values: Tensor, score: ScoreBatch) -> Tensor:
    """Return the sums (B, N + 1) float64 of ``values`` (B, N) over each span."""
    empty = torch.zeros(len(values), values.shape[1] + 1, dtype=torch.float64, device=values.device)
    return empty.scatter_add(1, score.span, values.double())


def first_of_span(score: ScoreBatch) -> Tensor:
    """Return the index of the first phoneme of each one's span, (B, N) int64."""
    places = torch.arange(score.beat.shape[1], device=score.beat.device)
    return torch.where(score.beat, places, 0).cummax(dim=1).values


def room(score: ScoreBatch, bound: float) -> Tensor:
    """Return by how many frames each beat may move, (B, N): up to ``bound`` after rounding, and less where a span on
    either side would be left with fewer frames than phonemes.
    """
    spans = beat_table(score.start, score).diff(dim=1)  # (B, N + 1)
    slack = (spans - span_sums(score.mask, score) - 1).clamp(min=0) / 2
    near = torch.minimum(slack.gather(1, score.span), slack.gather(1, (score.span - 1).clamp(min=0)))
    return near.clamp(max=bound - 0.5)


def span_softmax(logits: Tensor, score: ScoreBatch) -> Tensor:
    """Return the shares (B, N) that phonemes have of their span: softmax of ``logits`` (B, N) float64 inside it."""
    logits = logits.masked_fill(~score.mask, -torch.inf)
    peak = torch.full_like(span_sums(logits, score), -torch.inf)
    peak = peak.scatter_reduce(1, score.span, logits.detach(), "amax")
    weights = (logits - peak.gather(1, score.span)).exp()
    return weights / span_sums(weights, score).gather(1, score.span).clamp(min=1e-300)


def _lengths(starts: Tensor, score: ScoreBatch) -> Tensor:
    """Frames (B, N) from each start (B, N) to the next one, the last one to the end of the score."""
    end = score.frames.unsqueeze(1)
    return torch.cat([torch.where(score.mask, starts, end), end], dim=1).diff(dim=1)
