"""Element transfer: one piece takes velocity, duration, pitch, tempo, chord or rhythm from another, through the
latents.

The paper joins the latents of two pieces row by row and draws everything anew (``align="rows"``), so that a note
may meet the
latent of a bar line. Here the rows are matched first by bar, position and row type (``align="bars"``, the
default), and only
the fields of the wanted elements are read from the mixed latents: everything else stays note for note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from affgen import __version__
from affgen.errors import AffgenError
from affgen.score import Score
from music.beats import align as align_to_grid
from music.compose import MOST_BARS, Composer, ring_out
from music.config import ELEMENTS, STEPS_PER_BAR, STEPS_PER_BEAT, TokenConfig
from music.data import places
from music.decode import Request, draw
from music.model import Conditions
from music.tokens import (
    BAR,
    BEAT,
    CHORD,
    CONTI,
    DURATION,
    FIRST_BEAT,
    FIRST_CHORD,
    FIRST_DURATION,
    FIRST_TEMPO,
    METRICAL,
    NOTE,
    PITCH,
    TEMPO,
    TYPE,
    VELOCITY,
    Grid,
    bars_of_rows,
    chord_pitch_classes,
    grid_from_rows,
    row_order,
    rows_from_grid,
    score_from_grid,
)

TRANSFERABLE = ("velocity", "duration", "pitch", "tempo", "chord", "beat")
PASSES = 3
"""The decoder hears the rows of the pass before: after three passes it has heard what it writes."""
HIGHEST_PITCH = 127
"""The highest pitch of MIDI."""


def parse_elements(text: str | Sequence[str]) -> tuple[str, ...]:
    """Element names of ``velocity,pitch``; raises :class:`AffgenError` for unknown, repeated or no names."""
    names = [name.strip() for name in text.split(",")] if isinstance(text, str) else list(text)
    if not names or any(name not in TRANSFERABLE for name in names) or len(set(names)) < len(names):
        raise AffgenError(f"elements {','.join(names)!r}; accepted: one or more of {','.join(TRANSFERABLE)}, each once")
    return tuple(names)


def transfer(
    composer: Composer, score: Score, donor: Score, elements: str | Sequence[str], *, align: str = "bars", seed: int = 0
) -> Score:
    """``score`` with the named elements of ``donor``, on the sixteenth-note grid.

    align: ``"bars"`` keeps all other elements note for note; ``"rows"`` is the published way, in which everything
    is drawn anew
    from the joined latents. Raises :class:`AffgenError` for unknown elements or pieces over 512 bars.
    """
    names = parse_elements(elements)
    if align not in ("bars", "rows"):
        raise AffgenError(f"align {align!r}; accepted: bars, rows")
    aligned = [align_to_grid(piece) for piece in (score, donor)]
    grids = [piece.grid for piece in aligned]
    if max(grid.bars for grid in grids) > MOST_BARS:
        raise AffgenError(f"pieces of {grids[0].bars} and {grids[1].bars} bars; at most {MOST_BARS} are accepted")
    own, other = (rows_from_grid(grid, composer.config.tokens).astype(np.int64) for grid in grids)
    latents, donated = (_latents(composer, rows) for rows in (own, other))
    columns = [ELEMENTS.index(name) for name in names]
    if align == "rows":
        mixed = _join(latents, donated[np.minimum(np.arange(len(latents)), len(donated) - 1)], columns)
        request = Request(seed, lambda bars, bpm: np.zeros((bars, 4)), bars=grids[0].bars, latents=mixed)
        return _marked(score_from_grid(ring_out(composer.decode([request])[0])), score, names)
    mixed = _join(latents, donated[match_rows(own[1:], other[1:])], columns)
    rows = _rewrite(composer, own, mixed, columns, seed)
    grid = _keep(grid_from_rows(rows, composer.config.tokens), grids[0], columns, composer.config.tokens)
    if CHORD in columns:
        grid = follow_chords(grid, grids[0].chords)
    result = _marked(score_from_grid(grid), score, names)
    beats = aligned[0].on_grid(score, np.array([control.beat for control in score.controls]))
    moved = (replace(control, beat=float(beat)) for control, beat in zip(score.controls, beats, strict=True))
    return replace(result, controls=tuple(moved))


def match_rows(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each row (T, 8) the row of the other piece that it answers to, (T,): same type, same bar, position and
    rank.
    """
    index = np.zeros(len(own), dtype=np.int64)
    ours, theirs = _coordinates(own), _coordinates(other)
    bars = max(1, int(theirs[:, 0].max()))
    ours[:, 0] = (ours[:, 0] - 1) % bars + 1  # a shorter donor starts again
    for kind in np.unique(own[:, TYPE]):
        mine, candidates = np.flatnonzero(own[:, TYPE] == kind), np.flatnonzero(other[:, TYPE] == kind)
        if not len(candidates):
            candidates = np.arange(len(other))
        for some in np.array_split(mine, 1 + len(mine) // 128):  # all at once would need rows x rows of memory
            distance = np.abs(ours[some, None] - theirs[None, candidates]) @ np.array([64.0, 2.0, 1.0])
            index[some] = candidates[distance.argmin(axis=1)]
    return index


def follow_chords(grid: Grid, before: np.ndarray) -> Grid:
    """Move chord tones of the chords ``before`` (beats,) to the nearest tones of the grid's own chords; other
    notes stay.
    """
    notes = grid.notes.copy()
    for note in notes:
        old, new = (chord_pitch_classes(int(chords[note[0] // 4])) for chords in (before, grid.chords))
        if new and old != new and note[1] % 12 in old and note[1] % 12 not in new:
            moves = [(tone - note[1]) % 12 - octave for tone in new for octave in (12, 0)]
            note[1] += min((move for move in moves if 0 <= note[1] + move <= HIGHEST_PITCH), key=abs)
    return replace(grid, notes=notes)


@torch.inference_mode()
def _latents(composer: Composer, rows: np.ndarray) -> np.ndarray:
    """Quantised latents (T - 1, C) of all rows but the first."""
    return composer.model.quantise.codebook.numpy()[composer.codes(rows)]


def _join(latents: np.ndarray, donated: np.ndarray, columns: list[int]) -> np.ndarray:
    """Latents (T, C) in which the parts of the wanted elements are the donor's."""
    mixed = latents.copy()
    part = latents.shape[1] // len(ELEMENTS)
    for column in columns:
        mixed[:, column * part : (column + 1) * part] = donated[:, column * part : (column + 1) * part]
    return mixed


@torch.inference_mode()
def _rewrite(composer: Composer, rows: np.ndarray, latents: np.ndarray, columns: list[int], seed: int) -> np.ndarray:
    """The rows with the wanted columns drawn from the mixed latents; row types and all other columns stay."""
    random = np.random.Generator(np.random.Philox(key=seed)).random((len(ELEMENTS), len(rows) - 1))
    sampling, model = composer.config.sampling, composer.model
    z, mask = torch.from_numpy(latents)[None], torch.ones(1, len(rows) - 1)
    rows = rows.copy()
    for _ in range(PASSES):
        x, y = torch.from_numpy(rows[None, :-1]), rows[1:]
        unknown = torch.zeros(x.shape[:2], dtype=torch.long)
        conditions = Conditions(
            torch.zeros(*x.shape[:2], 2), unknown, unknown, torch.from_numpy(places(rows[None, :-1]))
        )
        hidden = model.hidden(x, z, mask, conditions)
        for column in columns:
            scores = model.head(column, hidden[column], torch.from_numpy(y[None, :, TYPE]))[0].numpy()
            allowed = _allowed(column, y, scores.shape[1])
            wanted = allowed.any(axis=1)
            if column == BEAT:
                _redraw_positions(y, scores, random[column], sampling.temperature[column])
            elif wanted.any():
                settings = sampling.temperature[column], min(0.9, sampling.top_p[column])
                y[wanted, column] = draw(scores[wanted], random[column][wanted], *settings, allowed[wanted])
    return rows


def _allowed(column: int, rows: np.ndarray, size: int) -> np.ndarray:
    """Ids (T, size) that may stand in a column: values where the piece has values, nothing elsewhere."""
    first = {TEMPO: FIRST_TEMPO, CHORD: FIRST_CHORD, PITCH: 1, DURATION: FIRST_DURATION + 1, VELOCITY: 1}.get(
        column, size
    )
    has_value = rows[:, column] > CONTI if column in (TEMPO, CHORD) else rows[:, TYPE] == NOTE
    return has_value[:, None] & (np.arange(size)[None] >= first)


def _redraw_positions(rows: np.ndarray, scores: np.ndarray, uniform: np.ndarray, temperature: float) -> None:
    """Positions of the beat rows, in order within each bar; rows that change tempo or chord stay on quarter notes."""
    beats = np.flatnonzero((rows[:, TYPE] == METRICAL) & (rows[:, BEAT] > BAR))
    bars = bars_of_rows(rows)
    last, bar = BAR, 0
    for order, index in enumerate(beats):
        last = last if bars[index] == bar else BAR
        bar = bars[index]
        later = int((bars[beats[order + 1 :]] == bar).sum())
        ids = np.arange(scores.shape[1])
        allowed = (ids > last) & (ids < scores.shape[1] - later) & (ids >= FIRST_BEAT)
        quarters = allowed & (ids % STEPS_PER_BEAT == FIRST_BEAT % STEPS_PER_BEAT)
        if (rows[index, [TEMPO, CHORD]] > CONTI).any() and quarters.any():
            allowed = quarters
        here = slice(index, index + 1)
        rows[index, BEAT] = draw(scores[here], uniform[here], temperature, 0.9, allowed[None])[0]
        last = rows[index, BEAT]


def _keep(grid: Grid, before: Grid, columns: list[int], tokens: TokenConfig) -> Grid:
    """Pitches, velocities and tempi that were not asked for as they were, not rounded; nothing rings over the end."""
    notes = grid.notes.copy()
    own = before.notes[row_order(before, tokens)]  # the notes of the rows, as row types stay
    for field, column in ((1, PITCH), (3, VELOCITY)):
        if column not in columns:
            notes[:, field] = own[:, field]
    notes[:, 2] = np.minimum(notes[:, 2], grid.bars * STEPS_PER_BAR - notes[:, 0])
    return replace(grid, notes=notes, tempos=grid.tempos if TEMPO in columns else before.tempos)


def _marked(result: Score, score: Score, names: Sequence[str]) -> Score:
    """The result with the remarks of the piece it was made from, and its own."""
    return replace(result, texts=(*score.texts, f"affgen {__version__} music transferred {','.join(names)}"))


def _coordinates(rows: np.ndarray) -> np.ndarray:
    """Bar, position and rank within the position of each row, (T, 3)."""
    bars, where = bars_of_rows(rows), places(rows)
    rank = np.zeros(len(rows))
    for index in range(1, len(rows)):
        if rows[index, TYPE] == NOTE and rows[index - 1, TYPE] == NOTE:
            rank[index] = rank[index - 1] + 1
    return np.stack([np.maximum(bars, 1), where, rank], axis=1).astype(float)
