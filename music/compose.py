"""The facade of the package: one object that composes, continues and transfers, steered by an emotion.

Every call with the same arguments and seed gives the same notes; nothing is remembered between calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from affgen import __version__
from affgen.audio import Audio
from affgen.emotion.spec import Clock, Curve, Emotion, parse_emotion, parse_intensity
from affgen.errors import AffgenError
from affgen.score import SUSTAIN_PEDAL, Control, Score, write_midi
from music.beats import Alignment, align
from music.config import MusicConfig, TokenConfig
from music.decode import Request, bars_in, decode
from music.keys import UNKNOWN, estimate_key, parse_key
from music.model import MusER
from music.pack import unpack
from music.prior import Prior
from music.recurrent import prepare
from music.render import render
from music.steering import quadrant_token, steering
from music.tokens import (
    BEATS_PER_BAR,
    FIRST_TEMPO,
    STEPS_PER_BAR,
    Grid,
    bar_row,
    grid_from_rows,
    rows_from_grid,
    score_from_grid,
    tempo_bin,
)

DEFAULT_BARS = 16
MOST_BARS = 512
MOST_SECONDS = 1800.0
SHIPPED = Path(__file__).parent / "pretrained" / "emopia"


@dataclass(frozen=True)
class Piece:
    """A composed piece: its score, on which grid, and what it was asked to be."""

    score: Score
    grid: Grid
    emotion: Emotion
    intensity: Curve
    seed: int
    lines: tuple[float, ...] | None = None
    """Bar lines of the grid (bars + 1,) in beats of the score, where they are not every fourth beat from the first."""

    @property
    def tempo(self) -> float:
        """Beats per minute at the beginning."""
        return self.score.tempos[0].bpm

    def save(self, path: str | Path) -> None:
        """Write a MIDI file, whole or not at all."""
        write_midi(self.score, path)

    def render(self, *, sample_rate: int = 22_050) -> Audio:
        """The piece as sound; see :func:`music.render.render`."""
        return render(self.score, sample_rate=sample_rate)

    def asked(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in bars (N,) and the valence and arousal (N, 2) asked for there, scaled by the intensity up to
        1.
        """
        positions = np.arange(self.grid.bars) + 0.5
        clock = Clock(float((60 / self.grid.tempos).sum()), self.grid.bars)
        va = self.emotion.valence_arousal(positions, "b", clock)
        return positions, va * np.minimum(self.intensity.sample(positions, "b", clock), 1.0)[:, None]


class Composer:
    """Composes piano music with an emotion; made by :meth:`from_pretrained`."""

    def __init__(self, config: MusicConfig, model: MusER, prior: Prior, name: str = "music"):
        self.config, self.model, self.prior, self.name = config, model, prior, name
        self._fast = prepare(model, prior)

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> Composer:
        """Load a model directory (default: the shipped one). Raises :class:`affgen.errors.ModelError`."""
        folder = SHIPPED if folder is None else Path(folder)
        place = folder.resolve()
        return cls(*unpack(folder), name=place.parent.name if place.name == "model" else place.name)

    def compose(
        self,
        emotion: str | Emotion = "neutral",
        *,
        intensity: float | str | Curve = 1.0,
        bars: int | None = None,
        seconds: float | None = None,
        tempo: float | None = None,
        key: str | None = None,
        seed: int = 0,
    ) -> Piece:
        """Compose a piece of ``bars`` bars (default 16) or ``seconds`` seconds.

        emotion: a SPEC of labels, quadrants, mixes, points or a curve; intensity: 0 to 1.5 or a curve, 0 =
        unsteered, 1 = as in
        the training data with the model's guidance; tempo in beats per minute (32 to 224 for the shipped model);
        key such as
        ``"F# minor"``. Raises :class:`AffgenError` for anything outside these ranges.
        """
        return self.compose_many(
            [seed], emotion, intensity=intensity, bars=bars, seconds=seconds, tempo=tempo, key=key
        )[0]

    def compose_many(
        self,
        seeds: Sequence[int],
        emotion: str | Emotion = "neutral",
        *,
        intensity: float | str | Curve = 1.0,
        bars: int | None = None,
        seconds: float | None = None,
        tempo: float | None = None,
        key: str | None = None,
    ) -> list[Piece]:
        """One piece for each seed, decoded side by side; each is the one that :meth:`compose` gives."""
        feeling, strength = parse_emotion(emotion), parse_intensity(intensity)
        wanted = Length(bars, seconds, tempo, self.config.tokens)
        number = None if key is None else parse_key(key)
        requests = [
            Request(
                seed,
                steering(feeling, strength, self.config.sampling, seed=seed, key=number),
                bars=wanted.bars,
                seconds=wanted.open_seconds,
                tempo=wanted.tempo_id,
                quadrant=quadrant_token(feeling),
            )
            for seed in seeds
        ]
        grids = self.decode(requests)
        return [self._piece(wanted, grid, feeling, strength, seed) for grid, seed in zip(grids, seeds, strict=True)]

    def extend(
        self,
        score: Score,
        emotion: str | Emotion = "neutral",
        *,
        intensity: float | str | Curve = 1.0,
        bars: int = 8,
        key: str | None = None,
        seed: int = 0,
    ) -> Piece:
        """Go on from ``score`` for ``bars`` bars; its own notes, tempi and pedals stay exactly as they are.

        Curves run over the new bars. Raises :class:`AffgenError` like :meth:`compose`, and for models that draw
        all latents
        before the first row.
        """
        if self.config.model.fusion == "ca":
            raise AffgenError('a model with fusion "ca" cannot continue a piece; use one with fusion "concat"')
        feeling, strength = parse_emotion(emotion), parse_intensity(intensity)
        check_bars(bars)
        aligned = align(score)
        given = aligned.grid
        if given.bars > MOST_BARS:
            raise AffgenError(f"the piece to continue has {given.bars} bars; at most {MOST_BARS} are accepted")
        rows = np.concatenate([rows_from_grid(given, self.config.tokens)[:-1], [bar_row()]])
        number, tonic = (None, last_tonic(given)) if key is None else (parse_key(key), None)
        inner = steering(feeling, strength, self.config.sampling, seed=seed, key=number, tonic=tonic)
        request = Request(
            seed,
            lambda total, bpm: np.concatenate([np.repeat(inner(bars, bpm)[:1], given.bars, axis=0), inner(bars, bpm)]),
            bars=given.bars + bars,
            tempo=FIRST_TEMPO + int(tempo_bin(given.tempos[-1], self.config.tokens)),
            rows=rows,
            codes=self.codes(rows),
        )
        fresh = ring_out(self.decode([request])[0].slice(given.bars, given.bars + bars))
        longer = append(score, fresh, aligned)
        mark = self.mark(f"continued from bar {given.bars + 1}", feeling, strength, seed)
        lines = aligned.in_file(score, BEATS_PER_BAR * np.arange(given.bars, given.bars + bars + 1.0))
        longer = replace(longer, texts=(*longer.texts, mark))
        return Piece(longer, fresh, feeling, strength, seed, tuple(lines.tolist()))

    def decode(self, requests: list[Request]) -> list[Grid]:
        """Decode on one thread: rows are too small to share."""
        with threadpool_limits(1):
            rows = decode(self.model, self.prior, self.config, requests, self._fast)
        return [grid_from_rows(piece, self.config.tokens) for piece in rows]

    def mark(self, how: str, emotion: Emotion, intensity: Curve, seed: int) -> str:
        """What a file says of its origin; ``affgen verify`` reads it."""
        return f"affgen {__version__} music {how} seed={seed} model={self.name} emotion={emotion} intensity={intensity}"

    @torch.inference_mode()
    def codes(self, rows: np.ndarray) -> np.ndarray:
        """Codes (T - 1,) that the encoder gives to all rows (T, 8) but the first."""
        y = torch.from_numpy(rows[1:].astype(np.int64))[None]
        return self.model.codes(y, torch.ones(y.shape[:2]))[0].numpy()

    def _piece(self, wanted: Length, grid: Grid, emotion: Emotion, intensity: Curve, seed: int) -> Piece:
        grid = wanted.settle(ring_out(grid))
        score = replace(wanted.trim(score_from_grid(grid)), texts=(self.mark("composed", emotion, intensity, seed),))
        return Piece(score, grid, emotion, intensity, seed)


@dataclass(frozen=True)
class Length:
    """How long a piece is asked to be; raises :class:`AffgenError` for what no piece can be."""

    asked_bars: int | None
    seconds: float | None
    tempo: float | None
    tokens: TokenConfig

    def __post_init__(self) -> None:
        low, high = self.tokens.tempo_low, self.tokens.tempo_low + self.tokens.tempo_step * (self.tokens.tempo_bins - 1)
        if self.asked_bars is not None and self.seconds is not None:
            raise AffgenError("bars and seconds cannot both be asked for; give one of them")
        if self.asked_bars is not None:
            check_bars(self.asked_bars)
        if self.seconds is not None and not 1 <= self.seconds <= MOST_SECONDS:
            raise AffgenError(f"{self.seconds} seconds; accepted: 1 to {MOST_SECONDS:g}")
        if self.tempo is not None and not low <= self.tempo <= high:
            raise AffgenError(f"a tempo of {self.tempo} beats per minute; this model accepts {low} to {high}")

    @property
    def bars(self) -> int:
        """Bars to decode (a first guess while the tempo is open)."""
        if self.seconds is None:
            return DEFAULT_BARS if self.asked_bars is None else self.asked_bars
        return (
            bars_in(self.seconds, 100.0) if self.tempo is None else int(np.ceil(self.seconds * self.tempo / 240 - 1e-6))
        )

    @property
    def open_seconds(self) -> float | None:
        """Seconds whose bars follow from the tempo that is drawn."""
        return self.seconds if self.tempo is None else None

    @property
    def tempo_id(self) -> int:
        """Token of the asked tempo, 0 if it is open."""
        return 0 if self.tempo is None else FIRST_TEMPO + int(tempo_bin(self.tempo, self.tokens))

    def settle(self, grid: Grid) -> Grid:
        """The exact tempo: the one asked for, or the one at which the bars last the asked seconds."""
        if self.tempo is not None:
            return replace(grid, tempos=np.full(len(grid.tempos), float(self.tempo)))
        if self.seconds is not None:
            return replace(grid, tempos=np.full(len(grid.tempos), 240 * grid.bars / self.seconds))
        return grid

    def trim(self, score: Score) -> Score:
        """With seconds and a tempo the last bar may be cut: the notes that then sound end with the asked second."""
        if self.seconds is None or self.tempo is None:
            return score
        end = self.seconds * self.tempo / 60
        notes = [note for note in score.notes if note.onset < end - 1e-6]
        if not notes:  # the first notes come later than the end: let them come at once
            first = min(note.onset for note in score.notes)
            notes = [replace(note, onset=0.0) for note in score.notes if note.onset == first]
        last = max(note.onset for note in notes)
        notes = [
            replace(n, duration=end - n.onset if n.onset == last else min(n.duration, end - n.onset)) for n in notes
        ]
        return replace(score, notes=tuple(notes), markers=tuple(m for m in score.markers if m.beat < end))


def last_tonic(grid: Grid) -> int | None:
    """Tonic (0..11) of the last eight bars."""
    notes = grid.slice(max(0, grid.bars - 8), grid.bars).notes
    key = estimate_key(notes[:, 1], notes[:, 2])
    return None if key == UNKNOWN else (key - 1) % 12


def check_bars(bars: int) -> None:
    """Raise :class:`AffgenError` unless 1 <= bars <= 512."""
    if not 1 <= bars <= MOST_BARS:
        raise AffgenError(f"{bars} bars; accepted: 1 to {MOST_BARS}")


def ring_out(grid: Grid) -> Grid:
    """The notes of the last onset sound to the last bar line and none beyond: a piece ends where it says."""
    notes = grid.notes.copy()
    left = grid.bars * STEPS_PER_BAR - notes[:, 0]
    notes[:, 2] = np.where(notes[:, 0] == notes[:, 0].max(), left, np.minimum(notes[:, 2], left))
    return replace(grid, notes=notes)


def append(score: Score, fresh: Grid, aligned: Alignment) -> Score:
    """``score`` as it is, with ``fresh`` after the bars of its alignment.

    A new note of a pitch that still sounds from the given bars is left out: in MIDI it would cut the given one short.
    """

    def place(beats: list[float]) -> list[float]:
        positions = aligned.grid.bars * BEATS_PER_BAR + np.array(beats)
        return aligned.in_file(score, positions).tolist()

    added = score_from_grid(fresh)
    start = place([0.0])[0]
    sounding = {note.pitch: note.end for note in score.notes if note.end > start}
    ends = place([note.end for note in added.notes])
    notes = tuple(
        replace(note, onset=onset, duration=end - onset)
        for note, onset, end in zip(added.notes, place([note.onset for note in added.notes]), ends, strict=True)
        if onset >= sounding.get(note.pitch, 0.0)
    )
    beats = place([marker.beat for marker in added.markers])
    markers = tuple(replace(marker, beat=beat) for marker, beat in zip(added.markers, beats, strict=True))
    pedal = [control for control in score.controls if control.number == SUSTAIN_PEDAL]
    lift = (Control(start, SUSTAIN_PEDAL, 0),) if pedal and pedal[-1].value and pedal[-1].beat < start else ()
    everything = {"notes": notes, "markers": markers, "controls": lift}
    return replace(score, **{name: getattr(score, name) + more for name, more in everything.items()})
