"""The picture of a piece: what was asked and what is read from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from affgen.plots import piano_roll
from music.compose import Piece
from music.evaluator import Evaluator
from music.tokens import BEATS_PER_BAR


def plot(piece: Piece, evaluator: Evaluator, path: str | Path) -> None:
    """Piano roll of a piece with the curve that was asked and the one that the evaluator reads in windows of four
    bars.
    """
    score = piece.score
    lines = score.bar_lines()
    bars = len(lines) - 1
    starts = np.arange(0, max(1, bars - 3), 2)
    windows = score.seconds(np.stack([lines[starts], lines[np.minimum(starts + 4, bars)]], axis=1))
    read = (starts + np.minimum(4, bars) / 2, evaluator.trajectory(score, windows))
    positions, va = piece.asked()
    grid = np.arange(piece.grid.bars + 1.0)
    beats = np.interp(positions, grid, BEATS_PER_BAR * grid if piece.lines is None else piece.lines)
    positions = np.interp(beats, lines, np.arange(bars + 1.0))  # from bars of the grid to those of the file
    title = f"{piece.emotion}  intensity {piece.intensity}  seed {piece.seed}"
    piano_roll(score, path, title=title, asked=(positions, va), read=read)
