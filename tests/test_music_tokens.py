"""Compound words: exact round trips rows - grid - MIDI, ids in musical order, and rows that are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError
from affgen.score import Score, midi_bytes, read_midi
from affgen.testing import fabricated_score
from music.beats import grid_of
from music.config import FIELDS, MINIATURE, PUBLISHED_TOKENS, TokenConfig
from music.tokens import (
    BAR,
    BEAT,
    CHORD,
    CHORDS,
    CONTI,
    DURATION,
    EMOTION,
    EMOTION_ROW,
    EOS,
    FIFTHS,
    METRICAL,
    NOTE,
    PITCH,
    QUALITIES,
    TEMPO,
    TYPE,
    VELOCITY,
    Grid,
    bar_row,
    bars_of_rows,
    chord_pitch_classes,
    grid_from_rows,
    lexicographic_ids,
    rows_from_grid,
    score_from_grid,
    snap,
    tempo_bin,
    tempo_values,
    transpose_chords,
)

TOKENS = MINIATURE.tokens
BOTH = pytest.mark.parametrize("tokens", [TokenConfig(), PUBLISHED_TOKENS], ids=["default", "published"])
QUICK = settings(max_examples=60, deadline=None)


def small() -> Grid:
    """The example of the module's docstring."""
    notes = np.array([[0, 72, 4, 80], [0, 48, 8, 60], [8, 79, 8, 84]])
    return Grid(notes, np.full(4, 89.0), np.array([1, 1, 12, 12]), 1)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Grids of 1 to 4 bars, whatever their values."""
    bars = draw(st.integers(1, 4))
    note = st.tuples(st.integers(0, 16 * bars - 1), st.integers(0, 127), st.integers(1, 16), st.integers(1, 127))
    return _grid(draw, bars, draw(st.lists(note, max_size=12)))


@st.composite
def playable_grids(draw: st.DrawFn) -> Grid:
    """Grids as a MIDI file can say them: one sounds to the end of the last bar, none over it or into its own pitch."""
    bars = draw(st.integers(1, 4))
    note = st.tuples(st.integers(0, 16 * bars - 1), st.integers(24, 104), st.integers(1, 16), st.integers(1, 127))
    notes = draw(st.lists(note, min_size=1, max_size=12, unique_by=lambda n: n[1]))
    notes[0] = (16 * (bars - 1) + notes[0][0] % 16, notes[0][1], 16, notes[0][3])
    return _grid(draw, bars, [(step, pitch, min(length, 16 * bars - step), v) for step, pitch, length, v in notes])


def _grid(draw: st.DrawFn, bars: int, notes: list[tuple[int, int, int, int]]) -> Grid:
    table = np.array(notes, dtype=np.int64).reshape(-1, 4)
    tempos = np.array(draw(st.lists(st.floats(20, 300), min_size=4 * bars, max_size=4 * bars)))
    chords = np.array(draw(st.lists(st.integers(0, len(CHORDS) - 1), min_size=4 * bars, max_size=4 * bars)))
    return Grid(table[np.lexsort((-table[:, 1], table[:, 0]))], tempos, chords, bars)


def assert_equal(mine: Grid, other: Grid) -> None:
    assert mine.bars == other.bars
    for name in ("notes", "tempos", "chords"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), err_msg=name)


def test_rows_of_the_documented_example() -> None:
    rows = rows_from_grid(small(), TOKENS, quadrant=1)
    tempo, velocity = 2 + tempo_bin(89, TOKENS), 1 + (80 - TOKENS.velocity_low) // TOKENS.velocity_step
    assert rows.dtype == np.int16
    assert rows.tolist()[:4] == [
        [0, 0, 0, EMOTION_ROW, 0, 0, 0, 1],
        [0, 0, BAR, METRICAL, 0, 0, 0, 0],
        [tempo, 2 + 1, 2, METRICAL, 0, 0, 0, 0],
        [0, 0, 0, NOTE, 1 + 72 - TOKENS.pitch_low, 1 + 4, velocity, 0],
    ]
    assert rows[5].tolist() == [CONTI, 2 + 12, 2 + 8, METRICAL, 0, 0, 0, 0]
    assert rows[-1].tolist() == [0, 0, 0, EOS, 0, 0, 0, 0]
    assert len(rows) == 8
    assert rows[1].tolist() == bar_row().tolist()
    assert bars_of_rows(rows).tolist() == [0, 1, 1, 1, 1, 1, 1, 1]


@BOTH
@given(grid=grids(), quadrant=st.integers(0, 4))
@QUICK
def test_grid_to_rows_and_back_is_exact(tokens: TokenConfig, grid: Grid, quadrant: int) -> None:
    snapped = snap(grid, tokens)
    rows = rows_from_grid(grid, tokens, quadrant)
    assert_equal(grid_from_rows(rows, tokens), snapped)
    assert_equal(snap(snapped, tokens), snapped)
    np.testing.assert_array_equal(rows_from_grid(grid_from_rows(rows, tokens), tokens, quadrant), rows)
    assert (rows >= 0).all() and (rows < tokens.sizes()).all()


@given(grid=grids())
@QUICK
def test_snap_clips_rounds_and_keeps_one_note_per_place(grid: Grid) -> None:
    snapped = snap(grid, TOKENS)
    assert ((snapped.notes[:, 1] >= TOKENS.pitch_low) & (snapped.notes[:, 1] <= TOKENS.pitch_high)).all()
    assert len({tuple(note) for note in snapped.notes[:, :2].tolist()}) == len(snapped.notes)
    inside = np.abs(grid.tempos - tempo_values(TOKENS).mean()) < 90
    assert (np.abs(snapped.tempos - grid.tempos)[inside] <= TOKENS.tempo_step / 2).all()
    order = np.lexsort((-snapped.notes[:, 1], snapped.notes[:, 0]))
    assert order.tolist() == list(range(len(order)))


def test_of_two_notes_at_one_place_the_longer_is_kept() -> None:
    notes = np.array([[0, 60, 2, 100], [0, 60, 9, 40]])
    assert snap(Grid(notes, np.full(4, 90.0), np.ones(4, int), 1), TOKENS).notes.tolist() == [[0, 60, 9, 40]]


@given(grid=playable_grids())
@QUICK
def test_grid_through_a_midi_file_is_exact(grid: Grid) -> None:
    """grid -> score -> bytes -> score -> grid; chords are read from the markers, whatever the notes sound like."""
    grid = snap(grid, TOKENS)
    again = grid_of(read_midi(midi_bytes(score_from_grid(grid))), beats="file")
    np.testing.assert_allclose(again.tempos, grid.tempos, rtol=1e-4)
    assert_equal(snap(again, TOKENS), grid)


def test_a_tempo_change_after_the_last_note_is_kept() -> None:
    grid = replace(
        small(), tempos=np.array([89.0, 89.0, 89.0, 120.0]), notes=np.array([[0, 72, 4, 80], [8, 79, 2, 84]])
    )
    again = snap(grid_of(read_midi(midi_bytes(score_from_grid(grid))), beats="file"), TOKENS)
    assert again.tempos.tolist() == snap(grid, TOKENS).tempos.tolist()


def there_and_back(score: Score) -> tuple[Grid, bytes, Grid, bytes]:
    """Tokens and MIDI file of a piece, and tokens and MIDI file of that file."""
    first = grid_from_rows(rows_from_grid(grid_of(score), TOKENS), TOKENS)
    file = midi_bytes(score_from_grid(first))
    second = grid_from_rows(rows_from_grid(grid_of(read_midi(file), beats="file"), TOKENS), TOKENS)
    return first, file, second, midi_bytes(score_from_grid(second))


@pytest.mark.parametrize("quadrant", ["Q1", "Q2", "Q3", "Q4"])
@pytest.mark.parametrize("bars", [1, 5])
def test_midi_to_tokens_to_midi_keeps_every_note(quadrant: str, bars: int) -> None:
    for seed in range(4):
        score = fabricated_score(seed, bars=bars, quadrant=quadrant)
        grid, file, again, _ = there_and_back(score)
        mine, theirs = read_midi(file).arrays(), score.arrays()
        for name in ("onset", "duration", "pitch"):
            np.testing.assert_array_equal(mine[name], theirs[name])
        assert np.abs(mine["velocity"] - theirs["velocity"]).max() <= TOKENS.velocity_step / 2
        assert np.abs(grid.tempos - score.tempos[0].bpm).max() <= TOKENS.tempo_step / 2
        np.testing.assert_array_equal(again.notes, grid.notes)
        np.testing.assert_array_equal(again.tempos, grid.tempos)


def test_midi_to_tokens_to_midi_is_a_fixed_point() -> None:
    for seed in range(4):
        grid, file, again, same = there_and_back(fabricated_score(seed, bars=5, quadrant="Q1"))
        np.testing.assert_array_equal(again.chords, grid.chords)
        assert same == file


def test_a_struck_note_ends_the_one_before_at_its_pitch() -> None:
    notes = np.array([[0, 60, 16, 80], [4, 64, 8, 80], [8, 60, 4, 80]])
    score = score_from_grid(Grid(notes, np.full(4, 120.0), np.zeros(4, int), 1))
    assert [(n.onset, n.duration, n.pitch) for n in score.notes] == [(0.0, 2.0, 60), (1.0, 2.0, 64), (2.0, 1.0, 60)]


def test_score_carries_tempo_and_chord_changes() -> None:
    grid = small()
    grid.tempos[2:] = 120.0
    score = score_from_grid(grid)
    assert [(t.beat, t.bpm) for t in score.tempos] == [(0.0, 89.0), (2.0, 120.0)]
    assert [(m.beat, m.text) for m in score.markers] == [(0.0, "C_maj"), (2.0, "G_maj")]


@BOTH
def test_ids_rise_with_what_they_mean(tokens: TokenConfig) -> None:
    def ids(column: int, kind: int, **changes: np.ndarray) -> list[int]:
        base = Grid(np.array([[0, 60, 4, 80]]), np.full(4, 90.0), np.zeros(4, int), 1)
        found = []
        for k in range(len(next(iter(changes.values())))):
            fields = {name: values[k] for name, values in changes.items()}
            notes = base.notes.copy()
            for place, name in enumerate(("step", "pitch", "duration", "velocity")):
                notes[0, place] = fields.get(name, notes[0, place])
            tempos = np.full(4, fields.get("tempo", 90.0))
            rows = rows_from_grid(Grid(notes, tempos, base.chords, 1), tokens)
            found.append(int(rows[rows[:, TYPE] == kind][-1, column]))
        return found

    low, high = tokens.velocity_low, min(127, tokens.velocity_low + tokens.velocity_step * (tokens.velocity_bins - 1))
    for column, kind, values in (
        (TEMPO, METRICAL, {"tempo": tempo_values(tokens)}),
        (PITCH, NOTE, {"pitch": np.arange(tokens.pitch_low, tokens.pitch_high + 1)}),
        (DURATION, NOTE, {"duration": np.arange(1, 17)}),
        (VELOCITY, NOTE, {"velocity": np.arange(low, high + 1, tokens.velocity_step)}),
        (BEAT, METRICAL, {"step": np.arange(16)}),
    ):
        found = ids(column, kind, **values)
        assert found == list(range(found[0], found[0] + len(found))), FIELDS[column]
        assert found[-1] == tokens.sizes()[column] - 1, FIELDS[column]  # the last id is in use


def test_published_vocabulary_sizes() -> None:
    assert PUBLISHED_TOKENS.sizes() == (56, 135, 18, 4, 87, 18, 42, 5)


def test_chords_lie_on_the_circle_of_fifths() -> None:
    assert len(CHORDS) == 133 and CHORDS[1] == "C_maj" and CHORDS[12] == "G_maj"
    for number, name in list(enumerate(CHORDS))[1:]:
        root, quality = name.split("_")
        classes = chord_pitch_classes(number)
        assert classes[0] == 7 * FIFTHS.index(root) % 12
        assert len(set(classes)) == len(classes) == (4 if quality in ("7", "maj7", "min7", "min7b5", "dim7") else 3)
    assert set(chord_pitch_classes(CHORDS.index("A_min"))) == {9, 0, 4}
    assert chord_pitch_classes(0) == ()


@given(number=st.integers(0, len(CHORDS) - 1), semitones=st.integers(-24, 24))
def test_transposed_chords_have_transposed_tones(number: int, semitones: int) -> None:
    moved = int(transpose_chords(np.array([number]), semitones)[0])
    assert chord_pitch_classes(moved) == tuple((tone + semitones) % 12 for tone in chord_pitch_classes(number))
    assert CHORDS[moved].split("_")[1] == CHORDS[number].split("_")[1]
    assert int(transpose_chords(np.array([moved]), -semitones)[0]) == number


def test_transpose_moves_notes_and_chords_together() -> None:
    moved = small().transpose(2)
    assert moved.notes[:, 1].tolist() == [74, 50, 81]
    assert [CHORDS[number] for number in moved.chords] == ["D_maj", "D_maj", "A_maj", "A_maj"]
    assert small().notes[:, 1].tolist() == [72, 48, 79]
    for semitones in (49, -49):
        with pytest.raises(AffgenError, match=f"transposing by {semitones} semitones"):
            small().transpose(semitones)


def test_slice_is_a_piece_of_its_own() -> None:
    notes = np.array([[0, 72, 4, 80], [14, 60, 12, 60], [16, 64, 16, 70], [40, 65, 4, 70]])
    grid = Grid(notes, np.arange(60.0, 72.0), np.arange(12), 3)
    part = grid.slice(0, 1)
    assert part.bars == 1 and part.notes.tolist() == [[0, 72, 4, 80], [14, 60, 2, 60]]
    part = grid.slice(1, 3)
    assert part.bars == 2 and part.notes.tolist() == [[0, 64, 16, 70], [24, 65, 4, 70]]
    assert part.tempos.tolist() == [*range(64, 72)] and part.chords.tolist() == [*range(4, 12)]
    np.testing.assert_array_equal(grid.notes, notes)
    assert_equal(grid.slice(0, 3), grid)


def test_tempo_bins_are_the_nearest_and_clipped() -> None:
    assert tempo_bin(np.array([-5.0, 32.0, 33.4, 33.6, 224.0, 9999.0]), TOKENS).tolist() == [0, 0, 0, 1, 64, 64]


@BOTH
def test_lexicographic_ids_sort_strings(tokens: TokenConfig) -> None:
    tables = lexicographic_ids(tokens)
    assert [len(table) for table in tables] == list(tokens.sizes())
    for table in tables:
        assert table[0] == 0 and sorted(table.tolist()) == list(range(len(table)))
    assert sorted(QUALITIES)[:2] == ["7", "aug"]
    beats = {f"Beat_{k}": tables[BEAT][2 + k] for k in range(16)}
    assert sorted(beats, key=beats.get) == sorted(beats)  # type: ignore[arg-type]
    assert tables[BEAT][BAR] == 1 and beats["Beat_10"] < beats["Beat_2"]
    tempos = {f"Tempo_{value}": tables[TEMPO][2 + k] for k, value in enumerate(tempo_values(tokens))}
    assert sorted(tempos, key=tempos.get) == sorted(tempos)  # type: ignore[arg-type]
    chords = {name: tables[CHORD][2 + k] for k, name in enumerate(CHORDS)}
    assert sorted(chords, key=chords.get) == sorted(chords)  # type: ignore[arg-type]
    assert tables[TEMPO][CONTI] == 1
    assert tables[CHORD][CONTI] == 1 + sum(name < "CONTI" for name in CHORDS)
    assert tables[EMOTION].tolist() == [0, 1, 2, 3, 4]


def test_a_note_before_any_beat_is_refused() -> None:
    rows = rows_from_grid(small(), TOKENS)
    with pytest.raises(AffgenError, match=r"^row 2 is no valid"):
        grid_from_rows(np.delete(rows, 2, axis=0), TOKENS)


DAMAGE = {
    "pitch missing": (3, PITCH, 0),
    "duration missing": (3, DURATION, 0),
    "duration of nothing": (3, DURATION, 1),
    "velocity missing": (3, VELOCITY, 0),
    "a second emotion row": (4, TYPE, EMOTION_ROW),
    "a beat without position": (5, BEAT, 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_invalid_row_is_refused_with_its_index(name: str) -> None:
    index, column, value = DAMAGE[name]
    rows = rows_from_grid(small(), TOKENS)
    rows[index, column] = value
    with pytest.raises(AffgenError, match=rf"^row {index} is no valid") as caught:
        grid_from_rows(rows, TOKENS)
    assert "\n" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("column", range(8), ids=lambda column: FIELDS[column])
def test_an_id_beyond_the_vocabulary_is_refused_with_its_index(column: int, tokens: TokenConfig) -> None:
    index = 3 if column in (PITCH, DURATION, VELOCITY) else 2
    for value in (-1, tokens.sizes()[column]):
        rows = rows_from_grid(small(), tokens)
        rows[index, column] = value
        with pytest.raises(AffgenError, match=rf"^row {index} has ids outside the vocabulary") as caught:
            grid_from_rows(rows, tokens)
        assert "\n" not in str(caught.value)


def test_a_piece_without_bars_goes_there_and_back() -> None:
    empty = Grid(np.zeros((0, 4), dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64), 0)
    assert_equal(grid_from_rows(rows_from_grid(empty, TOKENS), TOKENS), empty)
