"""From a score to what the network reads, one row per phoneme, and the encoder of it.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931) and the page of its first version: tables of phonemes and note pitches are
concatenated, then made one by a linear map, which was found better than adding them.

============================  ==========================  =============================================================
code                          in the paper                here
============================  ==========================  =============================================================
:class:`ScoreFrontEnd`        lyrics, pitch, duration     phones in time by :mod:`svs.timing`: vowels begin on the beat
``phones  pitches``           embedding tables            of :data:`affgen.align.phones.PHONES`, and MIDI 0 (rest)..127
``join``                      concatenate, then linear    beside both: log note duration, slur, place in the syllable
                                                          (open in the paper)
``stack``                     lyric-pitch encoder         ASPP-Transformer blocks
============================  ==========================  =============================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.align.phones import INDEX, PHONES
from affgen.align.segments import FRAME_S
from affgen.errors import AffgenError
from affgen.score import Score
from svs.aspp import Stack
from svs.config import MuseConfig
from svs.text import Sung
from svs.timing import Placed, Role, timeline

ROLES: tuple[Role, ...] = get_args(Role)
PITCHES = 128
_KINDS = {
    **{"phone": np.int64, "midi": np.int64, "note_frames": np.float32, "note": np.int64},
    **{"slur": np.bool_, "role": np.int64, "beat": np.bool_, "start": np.float64},
}


@dataclass(frozen=True, eq=False)
class ScoreInput:
    """A score as the network reads it: ``frames`` of the features in all, and one row per phoneme, each (N,).

    ``phone`` index in :data:`affgen.align.phones.PHONES`, ``midi`` pitch of the note, 0 in rests, ``note_frames``
    length of the note (or the rest) in frames, ``note`` index of the note, -1 in rests, ``slur`` whether the note
    carries on a syllable, ``role`` index in :data:`ROLES`, ``beat`` whether the score says where it starts (vowels and
    rests), ``start`` in frames where it starts if sung as written: it rises from 0 and stays below ``frames``.
    Raises :class:`AffgenError` for columns that do not agree.
    """

    phone: np.ndarray
    midi: np.ndarray
    note_frames: np.ndarray
    note: np.ndarray
    slur: np.ndarray
    role: np.ndarray
    beat: np.ndarray
    start: np.ndarray
    frames: int

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        shapes = {getattr(self, name).shape for name in _KINDS}
        if len(shapes) > 1 or len(self.phone.shape) != 1 or not len(self):
            raise AffgenError(f"score input of shapes {sorted(shapes)}; accepted: one row for each of some phonemes")
        for name, limit in (("phone", len(PHONES)), ("midi", PITCHES), ("role", len(ROLES))):
            if not ((getattr(self, name) >= 0) & (getattr(self, name) < limit)).all():
                raise AffgenError(f"score input: {name} outside 0..{limit - 1}")
        if not (self.start[0] == 0 and (np.diff(self.start) >= 0).all() and self.start[-1] <= self.frames > 0):
            raise AffgenError(f"score input: starts have to rise from 0 to at most {self.frames} frames")
        if not (np.isfinite(self.note_frames) & (self.note_frames >= 0)).all():
            raise AffgenError("score input: note_frames are finite and not below 0")

    def __len__(self) -> int:
        return int(self.phone.shape[0]) if self.phone.ndim else 0

    @property
    def nominal(self) -> np.ndarray:
        """Frames of each phoneme if sung as written, (N,) float64; their sum is ``frames``."""
        return np.diff(self.start, append=float(self.frames))


@dataclass(frozen=True)
class ScoreFrontEnd:
    """A score and its syllables to a :class:`ScoreInput`; ``lengths`` are those of consonants in seconds, as
    :func:`svs.timing.timeline` takes them.
    """

    lengths: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, score: Score, sungs: Sequence[Sung]) -> ScoreInput:
        """Return what ``score`` reads as; raises :class:`AffgenError` for an empty one and as ``timeline`` does."""
        if not score.notes or not sungs:
            raise AffgenError(f"score with {len(score.notes)} notes and {len(sungs)} syllables: nothing to sing")
        return score_input(score, sungs, timeline(score, sungs, self.lengths))


def score_input(score: Score, sungs: Sequence[Sung], placed: Sequence[Placed]) -> ScoreInput:
    """Return the rows of the phones ``placed`` in time, those of ``sungs`` on the notes of ``score``.

    The frames are as many as fit the score to the nearest one. Raises as :class:`ScoreInput` does.
    """
    frames = max(1, round(score.duration_s / FRAME_S))
    held = {note for sung in sungs for note in sung.notes[1:]}
    columns = score.arrays()
    seconds = score.seconds(columns["onset"] + columns["duration"]) - score.seconds(columns["onset"])
    note = np.array([one.note for one in placed])
    rests = np.array([one.end_s - one.start_s for one in placed])
    roles = np.array([ROLES.index(one.role) for one in placed])
    nucleus = roles == ROLES.index("nucleus")
    again = nucleus & np.append(False, nucleus[:-1] & (note[1:] == note[:-1]))  # an offglide: no beat of its own
    return ScoreInput(
        phone=np.array([INDEX[one.phone] for one in placed]),
        midi=np.where(note < 0, 0, columns["pitch"][note]),
        note_frames=np.where(note < 0, rests, seconds[note]) / FRAME_S,
        note=note,
        slur=np.array([one.note in held for one in placed]),
        role=roles,
        beat=(nucleus & ~again) | (roles == ROLES.index("rest")),
        start=np.minimum(np.array([one.start_s for one in placed]) / FRAME_S, frames),
        frames=frames,
    )


@dataclass(frozen=True, eq=False)
class ScoreBatch:
    """Score inputs as tensors (B, N), padded at the end; ``frames`` (B,) float64, ``mask`` (B, N) bool of phonemes."""

    phone: Tensor
    midi: Tensor
    note_frames: Tensor
    note: Tensor
    slur: Tensor
    role: Tensor
    beat: Tensor
    start: Tensor
    frames: Tensor
    mask: Tensor

    @classmethod
    def of(cls, inputs: Sequence[ScoreInput]) -> ScoreBatch:
        """Return ``inputs`` side by side; what pads them is silence in a rest, of no length and after the end."""
        longest = max(len(one) for one in inputs)
        columns = {}
        for name in _KINDS:
            rows = [torch.from_numpy(np.array(getattr(one, name))) for one in inputs]
            fill = [one.frames if name == "start" else -1 if name == "note" else 0 for one in inputs]
            padded = [F.pad(row, (0, longest - len(row)), value=v) for row, v in zip(rows, fill, strict=True)]
            columns[name] = torch.stack(padded)
        counts = torch.tensor([len(one) for one in inputs])
        frames = torch.tensor([one.frames for one in inputs], dtype=torch.float64)
        return cls(**columns, frames=frames, mask=torch.arange(longest) < counts.unsqueeze(1))

    def to(self, device: torch.device) -> ScoreBatch:
        """The same on ``device``."""
        return ScoreBatch(*(getattr(self, one.name).to(device) for one in fields(self)))

    @property
    def nominal(self) -> Tensor:
        """Frames of each phoneme if sung as written, (B, N) float64, 0 where the mask is."""
        return torch.cat([self.start[:, 1:], self.frames.unsqueeze(1)], dim=1) - self.start

    @property
    def span(self) -> Tensor:
        """Which beat each phoneme follows, (B, N) int64: 0 before the first one; a span goes from beat to beat."""
        return self.beat.cumsum(dim=1)


class LyricPitchEncoder(nn.Module):
    """Phonemes with their notes to hidden rows."""

    def __init__(self, config: MuseConfig):
        super().__init__()
        width = config.blocks.width
        self.phones, self.pitches = nn.Embedding(len(PHONES), width), nn.Embedding(PITCHES, width)
        self.join = nn.Linear(2 * width + 2 + len(ROLES), width)
        self.stack = Stack(config.block, config.blocks, config.encoder_layers)

    def forward(self, score: ScoreBatch) -> Tensor:
        """Return h0 (B, N, D), 0 where the mask is."""
        numbers = torch.stack([score.note_frames.log1p(), score.slur.float()], dim=2)
        role = F.one_hot(score.role, len(ROLES)).float()
        x = torch.cat([self.phones(score.phone), self.pitches(score.midi), numbers, role], dim=2)  # (B, N, 2 D + 6)
        return cast(Tensor, self.stack(self.join(x), score.mask))
