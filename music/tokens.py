"""Compound words: a piece on a sixteenth-note grid as rows of eight fields, and back, without loss.

::

    Grid (what is played)                      rows (what the model reads)
    bars=1, tempos=[90, 90, 90, 90]            tempo  chord   beat    type      pitch duration velocity emotion
    chords=[C_maj, C_maj, G_maj, G_maj]        .      .       .       Emotion   .     .        .        Q1
    notes: step pitch duration velocity        .      .       Bar     Metrical  .     .        .        .
           0    72    4        80              90     C_maj   Beat_0  Metrical  .     .        .        .
           0    48    8        60              .      .       .       Note      72    4        80       .
           8    79    8        84              .      .       .       Note      48    8        60       .
                                               CONTI  G_maj   Beat_8  Metrical  .     .        .        .
                                               .      .       .       Note      79    8        84       .
                                               .      .       .       EOS       .     .        .        .

Ids are in musical order in every column (tempo, duration, velocity, pitch and position by value, chords by root on the
circle of fifths and then from consonant to dissonant), so that "greater" means something to the regulariser. The
published
dictionary sorted strings instead ("Beat_10" before "Beat_2"); :func:`lexicographic_ids` translates.
Source: compound words of Hsiao et al. (AAAI 2021) with the emotion column of Hung et al. (ISMIR 2021) as used by MusER.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affgen.errors import AffgenError
from affgen.score import Marker, Note, Score, Tempo
from music.config import FIELDS, STEPS_PER_BAR, STEPS_PER_BEAT, TokenConfig

TEMPO, CHORD, BEAT, TYPE, PITCH, DURATION, VELOCITY, EMOTION = range(8)
EOS, EMOTION_ROW, METRICAL, NOTE = range(4)
IGN, CONTI, BAR = 0, 1, 1
FIRST_TEMPO, FIRST_CHORD, FIRST_BEAT, FIRST_PITCH, FIRST_DURATION, FIRST_VELOCITY = 2, 2, 2, 1, 1, 1
BEATS_PER_BAR = STEPS_PER_BAR // STEPS_PER_BEAT

FIFTHS = ("C", "G", "D", "A", "E", "B", "F#", "Db", "Ab", "Eb", "Bb", "F")
QUALITIES = ("maj", "min", "sus4", "sus2", "7", "maj7", "min7", "aug", "dim", "min7b5", "dim7")
NO_CHORD = 0
CHORDS = ("N_N", *(f"{root}_{quality}" for root in FIFTHS for quality in QUALITIES))
"""Chord names by chord number: 0 is no chord, then 12 roots x 11 qualities."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A piece in 4/4 on a sixteenth-note grid.

    notes: (N, 4) int64 of step (sixteenths from the start), pitch (MIDI), duration (sixteenths, 1..16), velocity
    (1..127),
        sorted by step and then from high to low pitch;
    tempos: (4 x bars,) quarter notes per minute at each beat; chords: (4 x bars,) chord numbers at each beat;
    bars: number of bars.
    """

    notes: np.ndarray
    tempos: np.ndarray
    chords: np.ndarray
    bars: int

    def slice(self, start: int, stop: int) -> Grid:
        """Bars ``start`` to ``stop`` (exclusive) as a piece of their own; notes that ring over the end are cut
        there.
        """
        first, last = start * STEPS_PER_BAR, stop * STEPS_PER_BAR
        notes = self.notes[(self.notes[:, 0] >= first) & (self.notes[:, 0] < last)].copy()
        notes[:, 2] = np.minimum(notes[:, 2], last - notes[:, 0])
        notes[:, 0] -= first
        beats = slice(start * BEATS_PER_BAR, stop * BEATS_PER_BAR)
        return Grid(notes, self.tempos[beats], self.chords[beats], stop - start)

    def transpose(self, semitones: int) -> Grid:
        """All pitches and chord roots moved; pitches that leave 0..127 raise :class:`AffgenError`."""
        notes = self.notes.copy()
        notes[:, 1] += semitones
        if len(notes) and (notes[:, 1].min() < 0 or notes[:, 1].max() > 127):
            raise AffgenError(f"transposing by {semitones} semitones leaves the range of MIDI pitches 0 to 127")
        return Grid(notes, self.tempos, transpose_chords(self.chords, semitones), self.bars)


def transpose_chords(chords: np.ndarray, semitones: int) -> np.ndarray:
    """Chord numbers with their roots moved: a semitone is seven steps on the circle of fifths."""
    fifth, quality = np.divmod(chords - 1, len(QUALITIES))
    moved = 1 + (fifth + 7 * semitones) % 12 * len(QUALITIES) + quality
    return np.where(chords == NO_CHORD, NO_CHORD, moved)


def chord_pitch_classes(chord: int) -> tuple[int, ...]:
    """Pitch classes (0 = C) of a chord number, root first; empty for no chord."""
    if chord == NO_CHORD:
        return ()
    fifth, quality = divmod(chord - 1, len(QUALITIES))
    return tuple((7 * fifth + interval) % 12 for interval in CHORD_INTERVALS[quality])


CHORD_INTERVALS = (
    (0, 4, 7), (0, 3, 7), (0, 5, 7), (0, 2, 7), (0, 4, 7, 10), (0, 4, 7, 11),
    (0, 3, 7, 10), (0, 4, 8), (0, 3, 6), (0, 3, 6, 10), (0, 3, 6, 9),
)  # fmt: skip
"""Semitones over the root for each of QUALITIES."""


def tempo_values(config: TokenConfig) -> np.ndarray:
    """Centres of the tempo bins, beats per minute."""
    return config.tempo_low + config.tempo_step * np.arange(config.tempo_bins)


def tempo_bin(bpm: np.ndarray | float, config: TokenConfig) -> np.ndarray:
    """Nearest tempo bin, clipped to the range."""
    index = np.rint((np.asarray(bpm, dtype=float) - config.tempo_low) / config.tempo_step)
    return np.clip(index, 0, config.tempo_bins - 1).astype(np.int64)


def snap(grid: Grid, config: TokenConfig) -> Grid:
    """The grid as the tokens can say it: values clipped and rounded to the bins, one note per pitch and step.

    ``grid_from_rows(rows_from_grid(g)) == g`` exactly for every ``g = snap(...)``.
    """
    tempos = tempo_values(config)[tempo_bin(grid.tempos, config)].astype(float)
    return Grid(_in_bins(grid.notes, config)[row_order(grid, config)], tempos, grid.chords, grid.bars)


def row_order(grid: Grid, config: TokenConfig) -> np.ndarray:
    """Which notes of a grid become rows, in the order of the rows: indices (M,), one note per pitch and step."""
    notes = _in_bins(grid.notes, config)
    order = np.lexsort((-notes[:, 3], -notes[:, 2], -notes[:, 1], notes[:, 0]))
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (np.diff(notes[order, :2], axis=0) != 0).any(axis=1)
    return order[fresh]


def _in_bins(notes: np.ndarray, config: TokenConfig) -> np.ndarray:
    """Notes (N, 4) with pitch, duration and velocity clipped and rounded to what the tokens can say."""
    notes = notes.copy()
    notes[:, 1] = np.clip(notes[:, 1], config.pitch_low, config.pitch_high)
    notes[:, 2] = np.clip(notes[:, 2], 1, STEPS_PER_BAR)
    velocity = np.rint((notes[:, 3] - config.velocity_low) / config.velocity_step)
    velocity = np.clip(velocity, 0, config.velocity_bins - 1).astype(int)
    notes[:, 3] = np.minimum(config.velocity_low + config.velocity_step * velocity, 127)
    return notes


def rows_from_grid(grid: Grid, config: TokenConfig, quadrant: int = 0) -> np.ndarray:
    """Compound words (T, 8) int16 of a grid: emotion row, bars, beats, notes, end row. ``quadrant`` 1..4, 0 if
    unknown.
    """
    grid = snap(grid, config)
    tempo_ids = FIRST_TEMPO + tempo_bin(grid.tempos, config)
    chord_ids = FIRST_CHORD + grid.chords
    changed_tempo = np.r_[True, np.diff(tempo_ids) != 0] if len(tempo_ids) else np.zeros(0, bool)
    changed_chord = np.r_[True, np.diff(chord_ids) != 0] if len(chord_ids) else np.zeros(0, bool)
    at_step: dict[int, list[np.ndarray]] = {}
    for note in grid.notes:
        at_step.setdefault(int(note[0]), []).append(note)
    rows = [_row(EMOTION_ROW, emotion=quadrant)]
    for bar in range(grid.bars):
        rows.append(_row(METRICAL, beat=BAR))
        for position in range(STEPS_PER_BAR):
            step = bar * STEPS_PER_BAR + position
            beat, offbeat = divmod(step, STEPS_PER_BEAT)
            tempo = int(tempo_ids[beat]) if not offbeat and changed_tempo[beat] else CONTI
            chord = int(chord_ids[beat]) if not offbeat and changed_chord[beat] else CONTI
            notes = at_step.get(step, ())
            if len(notes) or tempo != CONTI or chord != CONTI:
                rows.append(_row(METRICAL, tempo=tempo, chord=chord, beat=FIRST_BEAT + position))
                rows.extend(_note_row(note, config) for note in notes)
    rows.append(_row(EOS))
    return np.array(rows, dtype=np.int16)


def grid_from_rows(rows: np.ndarray, config: TokenConfig) -> Grid:
    """The grid that rows (T, 8) describe. Raises :class:`AffgenError` naming the first row that is no valid
    compound word.
    """
    notes: list[tuple[int, int, int, int]] = []
    tempos: list[float] = []
    chords: list[int] = []
    bars, step = 0, -1
    values = tempo_values(config)
    rows = np.asarray(rows, dtype=int)
    outside = np.flatnonzero(((rows < 0) | (rows >= np.array(config.sizes()))).any(axis=1))
    if len(outside):
        raise AffgenError(f"row {outside[0]} has ids outside the vocabulary: {rows[outside[0]].tolist()}")
    for index, row in enumerate(rows):
        kind = row[TYPE]
        if kind == EOS:
            break
        if kind == METRICAL and row[BEAT] == BAR:
            bars, step = bars + 1, -1
            for track, start in ((tempos, 120.0), (chords, NO_CHORD)):
                track.extend([track[-1] if track else start] * BEATS_PER_BAR)  # type: ignore[list-item,arg-type]
        elif kind == METRICAL and row[BEAT] >= FIRST_BEAT and bars:
            step = (bars - 1) * STEPS_PER_BAR + row[BEAT] - FIRST_BEAT
            beat = step // STEPS_PER_BEAT
            if row[TEMPO] >= FIRST_TEMPO:
                tempos[beat:] = [float(values[row[TEMPO] - FIRST_TEMPO])] * (len(tempos) - beat)
            if row[CHORD] >= FIRST_CHORD:
                chords[beat:] = [int(row[CHORD] - FIRST_CHORD)] * (len(chords) - beat)
        elif kind == NOTE and step >= 0 and min(row[PITCH], row[DURATION] - 1, row[VELOCITY]) > 0:
            velocity = min(127, config.velocity_low + config.velocity_step * (row[VELOCITY] - FIRST_VELOCITY))
            notes.append((step, config.pitch_low + row[PITCH] - FIRST_PITCH, row[DURATION] - FIRST_DURATION, velocity))
        elif not (kind == EMOTION_ROW and index == 0):
            raise AffgenError(
                f"row {index} is no valid compound word here: {dict(zip(FIELDS, row.tolist(), strict=True))}"
            )
    return Grid(
        np.array(notes, dtype=np.int64).reshape(-1, 4), np.array(tempos), np.array(chords, dtype=np.int64), bars
    )


def score_from_grid(grid: Grid) -> Score:
    """A playable score: tempo changes, chord symbols as markers, a note cut where the same pitch starts again."""
    notes = grid.notes[np.lexsort((grid.notes[:, 0], grid.notes[:, 1]))]
    ends = notes[:, 0] + notes[:, 2]
    if len(notes) > 1:
        same = notes[1:, 1] == notes[:-1, 1]
        ends[:-1] = np.where(same, np.minimum(ends[:-1], notes[1:, 0]), ends[:-1])
    played = tuple(
        Note(onset=step / STEPS_PER_BEAT, duration=(end - step) / STEPS_PER_BEAT, pitch=pitch, velocity=velocity)
        for (step, pitch, _, velocity), end in zip(notes.tolist(), ends.tolist(), strict=True)
        if end > step  # of equal notes the last one sounds
    )
    return Score(
        notes=tuple(sorted(played, key=lambda note: (note.onset, note.pitch))),
        tempos=tuple(Tempo(float(beat), float(grid.tempos[beat])) for beat in _changes(grid.tempos))
        or (Tempo(0.0, 120.0),),
        markers=tuple(Marker(float(beat), CHORDS[grid.chords[beat]]) for beat in _changes(grid.chords)),
    )


def bar_row() -> np.ndarray:
    """The row (8,) of a bar line."""
    return np.array(_row(METRICAL, beat=BAR), dtype=np.int16)


def bars_of_rows(rows: np.ndarray) -> np.ndarray:
    """Number of bar lines up to and including each row, (T,): 0 before the first bar, then 1, 2, ..."""
    return np.cumsum((rows[..., TYPE] == METRICAL) & (rows[..., BEAT] == BAR), axis=-1)


def lexicographic_ids(config: TokenConfig) -> list[np.ndarray]:
    """For each column the published id of our id: strings sorted as text, 0 kept for "ignore"."""
    words: list[list[str]] = [
        ["CONTI", *(f"Tempo_{value}" for value in tempo_values(config))],
        ["CONTI", *CHORDS],
        ["Bar", *(f"Beat_{position}" for position in range(STEPS_PER_BAR))],
        ["Emotion", "Metrical", "Note"],
        [f"Note_Pitch_{pitch}" for pitch in range(config.pitch_low, config.pitch_high + 1)],
        [f"Note_Duration_{120 * steps}" for steps in range(STEPS_PER_BAR + 1)],
        [f"Note_Velocity_{config.velocity_low + config.velocity_step * k}" for k in range(config.velocity_bins)],
        [f"Emotion_Q{quadrant}" for quadrant in range(1, 5)],
    ]
    return [np.r_[0, 1 + np.argsort(np.argsort(np.array(column)))] for column in words]


def _changes(values: np.ndarray) -> list[int]:
    return [] if not len(values) else [0, *(np.flatnonzero(np.diff(values)) + 1).tolist()]


def _row(kind: int, *, tempo: int = IGN, chord: int = IGN, beat: int = IGN, emotion: int = IGN) -> list[int]:
    return [tempo, chord, beat, kind, IGN, IGN, IGN, emotion]


def _note_row(note: np.ndarray, config: TokenConfig) -> list[int]:
    _, pitch, duration, velocity = note.tolist()
    velocity_id = FIRST_VELOCITY + round((velocity - config.velocity_low) / config.velocity_step)
    return [IGN, IGN, IGN, NOTE, FIRST_PITCH + pitch - config.pitch_low, FIRST_DURATION + duration, velocity_id, IGN]
