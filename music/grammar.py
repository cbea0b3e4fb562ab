"""Which compound words may come next: masks for sampling, so that every row that is drawn is valid.

::

    Emotion -> Bar -> Beat_k -> Note* -> Beat_j (j > k) | Bar | EOS

A beat row without a tempo or chord change is followed by a note; notes of one beat row go from high to low; every bar
has a note; the first beat row is on the first beat and says tempo and chord; EOS comes after the asked number of bars
and not before.
"""

from __future__ import annotations

import numpy as np

from music.config import ELEMENTS, STEPS_PER_BAR, TokenConfig
from music.tokens import (
    BAR,
    BEAT,
    CHORD,
    CONTI,
    DURATION,
    EMOTION_ROW,
    EOS,
    FIRST_BEAT,
    FIRST_CHORD,
    FIRST_DURATION,
    FIRST_TEMPO,
    IGN,
    METRICAL,
    NOTE,
    PITCH,
    TEMPO,
    TYPE,
    VELOCITY,
)

LAST_BEAT = FIRST_BEAT + STEPS_PER_BAR - 1


class Grammar:
    """State of B pieces that are written row by row, all vectors (B,).

    ``bars`` asked for (EOS is only allowed in the last one); ``heard`` bars begun; ``notes`` in the current bar;
    ``tempo`` id
    that must be kept (0: free).
    """

    def __init__(self, config: TokenConfig, bars: np.ndarray, tempo: np.ndarray):
        self.sizes = config.sizes()
        self.bars, self.tempo = bars.astype(np.int64), tempo.astype(np.int64)
        count = len(bars)
        self.heard, self.notes = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.kind, self.place = np.full(count, EMOTION_ROW), np.zeros(count, np.int64)
        self.pitch = np.zeros(count, np.int64)
        self.event, self.started = np.zeros(count, bool), np.zeros(count, bool)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with a part of the pieces: ``rows`` are indices or a mask."""
        for name in ("bars", "tempo", "heard", "notes", "kind", "place", "pitch", "event", "started"):
            setattr(self, name, getattr(self, name)[rows])

    def types(self) -> np.ndarray:
        """Allowed row types (B, 4)."""
        beat = (self.kind == METRICAL) & (self.place >= FIRST_BEAT)
        settled = (self.kind == NOTE) | (beat & self.event)
        later = (self.kind == METRICAL) & (self.place == BAR) | settled & (self.place < LAST_BEAT)
        new_bar = (self.kind == EMOTION_ROW) | settled & (self.notes > 0) & (self.heard < self.bars)
        allowed = np.zeros((len(self.bars), self.sizes[TYPE]), bool)
        allowed[:, EOS] = settled & (self.notes > 0) & (self.heard >= self.bars)
        allowed[:, METRICAL] = later | new_bar
        allowed[:, NOTE] = beat | (self.kind == NOTE) & (self.pitch > 1)
        return allowed

    def beats(self) -> np.ndarray:
        """Allowed positions (B, 18) of a metrical row: a new bar, or later in this one."""
        beat = (self.kind == METRICAL) & (self.place >= FIRST_BEAT)
        settled = (self.kind == NOTE) | (beat & self.event)
        allowed = np.arange(self.sizes[BEAT])[None] > np.maximum(self.place, BAR)[:, None]
        allowed &= (self.kind != EMOTION_ROW)[:, None]
        allowed &= self.started[:, None] | (np.arange(self.sizes[BEAT])[None] == FIRST_BEAT)
        allowed[:, BAR] = (self.kind == EMOTION_ROW) | settled & (self.notes > 0) & (self.heard < self.bars)
        return allowed

    def fields(self, kind: np.ndarray, beat: np.ndarray) -> dict[int, np.ndarray]:
        """Allowed ids of tempo, chord, pitch, duration, velocity given the drawn type (B,) and position (B,)."""
        at_beat = (kind == METRICAL) & (beat >= FIRST_BEAT)
        first = at_beat & ~self.started
        masks = {}
        for column, start in ((TEMPO, FIRST_TEMPO), (CHORD, FIRST_CHORD)):
            ids = np.arange(self.sizes[column])[None]
            event = (ids >= start) & (at_beat & self._on_beat(beat))[:, None] | (ids >= start) & first[:, None]
            masks[column] = event | (ids == CONTI) & (at_beat & ~first)[:, None] | (ids == IGN) & ~at_beat[:, None]
        fixed = self.tempo > 0
        if fixed.any():
            ids = np.arange(self.sizes[TEMPO])[None]
            said = np.where(first, self.tempo, np.where(at_beat, CONTI, IGN))[:, None]
            masks[TEMPO] = np.where(fixed[:, None], ids == said, masks[TEMPO])
        note = kind == NOTE
        below = np.where(self.kind == NOTE, self.pitch, self.sizes[PITCH])[:, None]
        for column, low in ((PITCH, 1), (DURATION, FIRST_DURATION + 1), (VELOCITY, 1)):
            ids = np.arange(self.sizes[column])[None]
            masks[column] = (ids >= low) & note[:, None] | (ids == IGN) & ~note[:, None]
        masks[PITCH] &= (np.arange(self.sizes[PITCH])[None] < below) | ~note[:, None]
        return masks

    def advance(self, rows: np.ndarray) -> None:
        """Take note of the rows (B, 8) that were drawn."""
        kind, beat = rows[:, TYPE], rows[:, BEAT]
        metrical, note = kind == METRICAL, kind == NOTE
        bar = metrical & (beat == BAR)
        at_beat = metrical & ~bar
        self.heard += bar
        self.notes = np.where(bar, 0, self.notes + note)
        self.place = np.where(metrical, beat, self.place)
        self.event = np.where(at_beat, (rows[:, TEMPO] > CONTI) | (rows[:, CHORD] > CONTI), self.event & ~bar)
        self.started |= at_beat
        self.pitch = np.where(note, rows[:, PITCH], 0)
        self.kind = kind.copy()

    def hear(self, pieces: list[list[np.ndarray]]) -> None:
        """Take note of beginnings: rows (8,) of each piece, possibly none."""
        names = ("heard", "notes", "kind", "place", "pitch", "event", "started")
        for index, rows in enumerate(pieces):
            one = Grammar.__new__(Grammar)
            for name in ("sizes", "bars", "tempo", *names):
                value = getattr(self, name)
                setattr(one, name, value if name == "sizes" else value[index : index + 1])
            for row in rows:
                one.advance(row[None])
            for name in names:
                getattr(self, name)[index] = getattr(one, name)[0]

    @staticmethod
    def _on_beat(beat: np.ndarray) -> np.ndarray:
        """Tempo and chord change on quarter notes only, as in the training rows."""
        return (beat - FIRST_BEAT) % 4 == 0


def first_invalid(rows: np.ndarray, config: TokenConfig, bars: int) -> int | None:
    """Index of the first of the rows (T, 8) that breaks the grammar for a piece of ``bars`` bars; None if all are
    valid.
    """
    grammar = Grammar(config, np.array([bars]), np.array([0]))
    rows = np.asarray(rows, dtype=np.int64)
    outside = np.logical_or(rows < 0, rows >= np.array(config.sizes())).max(axis=1)
    if rows[0, TYPE] != EMOTION_ROW or outside[0] or rows[0, : len(ELEMENTS)].sum() != EMOTION_ROW:
        return 0
    for index, row in enumerate(rows[1:], start=1):
        if outside[index]:
            return index
        kind, beat = row[TYPE : TYPE + 1], row[BEAT : BEAT + 1]
        masks = grammar.fields(kind, beat)
        valid = grammar.types()[0, row[TYPE]] and (row[TYPE] != METRICAL or grammar.beats()[0, row[BEAT]])
        valid = valid and all(masks[column][0, row[column]] for column in masks)
        if not valid or (row[TYPE] != METRICAL and row[BEAT] != IGN) or row[len(ELEMENTS)] != 0:
            return index
        if row[TYPE] == EOS:
            return None if index == len(rows) - 1 else index + 1
        grammar.advance(row[None])
    return len(rows)
