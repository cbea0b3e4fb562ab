"""The baseline: pieces of the asked length whose rows follow each other as they do in the clips of one quadrant."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.testing import fabricated_score
from music.beats import grid_of
from music.config import MINIATURE
from music.data import Clip
from music.markov import MarkovChain
from music.tokens import Grid, bars_of_rows, rows_from_grid, score_from_grid, snap

TOKENS = MINIATURE.tokens


def clip(grid: Grid, quadrant: int) -> Clip:
    rows = rows_from_grid(grid, TOKENS)
    return Clip("clip", "song", grid, quadrant, 0, np.searchsorted(bars_of_rows(rows), np.arange(grid.bars + 1)))


def clips(quadrant: int, count: int = 5) -> list[Clip]:
    scores = (fabricated_score(seed, bars=8, quadrant=f"Q{quadrant}") for seed in range(count))
    return [clip(grid_of(score), quadrant) for score in scores]


CLIPS = clips(1) + clips(3)


@pytest.mark.parametrize("bars", [1, 4, 16])
def test_the_bars_asked_for(bars: int) -> None:
    chain = MarkovChain(CLIPS, 1, TOKENS)
    for seed in range(10):
        grid = chain.piece(bars, seed)
        assert grid.bars == bars and len(grid.tempos) == len(grid.chords) == 4 * bars
        assert len(grid.notes) and grid.notes[:, 0].max() < 16 * bars
        score = score_from_grid(grid)
        assert len(score.notes) == len(grid.notes)


def test_the_seed_decides() -> None:
    chain = MarkovChain(CLIPS, 1, TOKENS)
    assert np.array_equal(chain.piece(8, 3).notes, MarkovChain(CLIPS, 1, TOKENS).piece(8, 3).notes)
    assert len({chain.piece(8, seed).notes.tobytes() for seed in range(8)}) == 8


def test_rows_follow_rows_as_in_the_clips() -> None:
    """Of a clip that never repeats a row, bar lines aside, only its bars can change places."""
    (only,) = clips(2, count=1)
    chain = MarkovChain([only], 2, TOKENS)
    told = {tuple(pair) for pair in pairwise(map(tuple, rows_from_grid(only.grid, TOKENS).tolist()))}
    for row, successors in chain.successors.items():
        assert all((row, successor) in told for successor in successors)
    assert sum(map(len, chain.successors.values())) == len(rows_from_grid(only.grid, TOKENS)) - 2


def test_each_quadrant_has_its_own_notes() -> None:
    """The fabricated pieces of Q1 are fast and loud, those of Q3 slow and soft."""
    loud, soft = (MarkovChain(CLIPS, quadrant, TOKENS).piece(16, 0) for quadrant in (1, 3))
    assert loud.tempos.mean() > soft.tempos.mean() + 30
    assert loud.notes[:, 3].mean() > soft.notes[:, 3].mean() + 20
    heard = {(int(p), int(v)) for c in clips(3) for _, p, _, v in snap(c.grid, TOKENS).notes.tolist()}
    assert {(int(p), int(v)) for _, p, _, v in soft.notes.tolist()} <= heard


def test_time_does_not_run_back_and_no_pitch_is_struck_twice_at_once() -> None:
    chain = MarkovChain(CLIPS, 1, TOKENS)
    for seed in range(10):
        notes = chain.piece(8, seed).notes
        assert (np.diff(notes[:, 0]) >= 0).all()
        assert len({(step, pitch) for step, pitch, _, _ in notes.tolist()}) == len(notes)


def empty_bars() -> Clip:
    """Seven bars of which only the first and the last have notes."""
    notes = np.array([[0, 60, 4, 80], [4, 64, 4, 80], [100, 67, 4, 80]])
    return clip(Grid(notes, np.full(28, 92.0), np.zeros(28, np.int64), 7), 4)


def test_every_piece_has_notes() -> None:
    chain = MarkovChain([empty_bars()], 4, TOKENS)
    assert all(len(chain.piece(1, seed).notes) for seed in range(20))


def test_a_quadrant_without_clips_is_refused() -> None:
    with pytest.raises(AffgenError, match="Q2"):
        MarkovChain(CLIPS, 2, TOKENS)
