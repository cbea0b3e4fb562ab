"""The simple baseline: a first-order Markov chain over whole compound words, one chain for each quadrant."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np

from affgen.errors import DataError
from music.config import TokenConfig
from music.data import Clip
from music.tokens import BAR, BEAT, METRICAL, NOTE, TYPE, Grid, grid_from_rows, rows_from_grid, snap

Row = tuple[int, ...]


class MarkovChain:
    """Successors of every row in the training clips of one quadrant."""

    def __init__(self, clips: list[Clip], quadrant: int, config: TokenConfig):
        self.config = config
        self.successors: dict[Row, list[Row]] = defaultdict(list)
        for clip in clips:
            if clip.quadrant == quadrant:
                rows = [tuple(row) for row in rows_from_grid(clip.grid, config).tolist()]
                for row, successor in pairwise(rows[:-1]):  # the end row leads nowhere
                    self.successors[row].append(successor)
        if not self.successors:
            raise DataError(f"no training clip of quadrant Q{quadrant}; the baseline needs some of each")
        self.first = next(row for row in self.successors if row[TYPE] != METRICAL)
        self.bar = next(row for row in self.successors if row[TYPE] == METRICAL and row[BEAT] == BAR)

    def piece(self, bars: int, seed: int) -> Grid:
        """A piece of ``bars`` bars; a row that is only ever the last of a clip is followed by a new bar."""
        random = np.random.default_rng(seed)
        rows, heard, place = [self.first, self.bar], 1, BAR
        while True:
            choices = self.successors.get(rows[-1])
            row = choices[random.integers(len(choices))] if choices else self.bar
            if row[TYPE] == METRICAL and row[BEAT] != BAR and row[BEAT] <= place:
                row = self.bar  # a chain that remembers one row would step back in time here
            if row == self.bar:
                if heard == bars and any(each[TYPE] == NOTE for each in rows):
                    return snap(grid_from_rows(np.array(rows), self.config), self.config)
                if heard == bars:  # not one note in all of it
                    rows, heard = [self.first], 0
                heard += 1
            place = row[BEAT] if row[TYPE] == METRICAL else place
            rows.append(row)
