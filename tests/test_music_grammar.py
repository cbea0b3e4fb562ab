"""The grammar: every walk within its masks ends in a valid piece, and every planted damage is found where it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.testing import fabricated_score
from music.beats import grid_of
from music.config import MINIATURE, PUBLISHED_TOKENS, TokenConfig
from music.grammar import LAST_BEAT, Grammar, first_invalid
from music.tokens import (
    BAR,
    BEAT,
    CHORD,
    CONTI,
    DURATION,
    EMOTION,
    EMOTION_ROW,
    EOS,
    FIRST_BEAT,
    IGN,
    METRICAL,
    NOTE,
    PITCH,
    TEMPO,
    TYPE,
    VELOCITY,
    grid_from_rows,
    rows_from_grid,
)

TOKENS = MINIATURE.tokens
PIECES = st.integers(0, 2**32 - 1)


def walk(
    seed: int, bars: list[int], *, tempo: list[int] | None = None, tokens: TokenConfig = TOKENS
) -> list[np.ndarray]:
    """Random pieces, written side by side with every id the masks allow equally likely; fails if one does not end."""
    rng, count = np.random.default_rng(seed), len(bars)
    grammar = Grammar(tokens, np.array(bars), np.array(tempo or [0] * count))
    first = np.zeros(8, dtype=np.int64)
    first[TYPE] = EMOTION_ROW
    pieces, now = [[first] for _ in bars], np.arange(count)

    def pick(allowed: np.ndarray) -> np.ndarray:
        assert allowed.any(axis=1).all(), "a dead end"
        return np.array([rng.choice(np.flatnonzero(row)) for row in allowed])

    for _ in range(max(bars) * 16 * 90):
        rows = np.zeros((len(now), 8), dtype=np.int64)
        rows[:, TYPE] = pick(grammar.types())
        metrical = rows[:, TYPE] == METRICAL
        rows[metrical, BEAT] = pick(grammar.beats()[metrical])
        for column, allowed in grammar.fields(rows[:, TYPE], rows[:, BEAT]).items():
            rows[:, column] = pick(allowed)
        grammar.advance(rows)
        for index, row in zip(now, rows, strict=True):
            pieces[index].append(row)
        going = np.flatnonzero(rows[:, TYPE] != EOS)
        grammar.keep(going)
        now = now[going]
        if not len(now):
            return [np.stack(piece) for piece in pieces]
    raise AssertionError("a walk without end")


def checked(rows: np.ndarray, bars: int, tokens: TokenConfig = TOKENS) -> int | None:
    """The grammar once more, from its description: index of the first invalid row."""
    heard, notes, place, pitch, event, started, before = 0, 0, 0, 0, False, False, EMOTION_ROW
    if rows[0, TYPE] != EMOTION_ROW:
        return 0
    for index, (tempo, chord, beat, kind, note, duration, velocity, emotion) in enumerate(rows[1:].tolist(), start=1):
        settled = before == NOTE or (before == METRICAL and place >= FIRST_BEAT and event)
        if kind == METRICAL and beat == BAR:
            ok = before == EMOTION_ROW or (settled and notes > 0 and heard < bars)
            ok &= tempo == chord == IGN
            heard, notes, place, event = heard + 1, 0, BAR, False
        elif kind == METRICAL:
            ok = heard > 0 and beat > place and (settled or place == BAR) and (started or beat == FIRST_BEAT)
            for value in (tempo, chord):
                ok &= value > CONTI and (beat - FIRST_BEAT) % 4 == 0 if value != CONTI else started
            event, started, place = tempo > CONTI or chord > CONTI, True, beat
        elif kind == NOTE:
            ok = place >= FIRST_BEAT and (before == METRICAL or note < pitch)
            ok &= note > 0 and duration > 1 and velocity > 0 and tempo == chord == beat == IGN
            notes, pitch = notes + 1, note
        else:
            ok = kind == EOS and settled and notes > 0 and heard >= bars and tempo == chord == beat == IGN
        ok &= kind == NOTE or note == duration == velocity == IGN
        if not ok or emotion:
            return index
        if kind == EOS:
            return None if index == len(rows) - 1 else index + 1
        before = kind
    return len(rows)


@given(seed=PIECES, bars=st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_walks_end_in_valid_pieces_of_the_asked_length(seed: int, bars: list[int]) -> None:
    for rows, count in zip(walk(seed, bars), bars, strict=True):
        assert first_invalid(rows, TOKENS, count) is None
        assert checked(rows, count) is None
        grid = grid_from_rows(rows, TOKENS)
        assert grid.bars == count
        assert set(grid.notes[:, 0] // 16) == set(range(count))  # every bar has a note
        assert len({tuple(note) for note in grid.notes[:, :2].tolist()}) == len(grid.notes)
        order = np.lexsort((-grid.notes[:, 1], grid.notes[:, 0]))
        np.testing.assert_array_equal(order, np.arange(len(order)))


@pytest.mark.parametrize("tokens", [TOKENS, PUBLISHED_TOKENS], ids=["default", "published"])
def test_every_id_is_allowed_somewhere_and_only_there(tokens: TokenConfig) -> None:
    """After a bar line, the first beat row, and a note: what a beat row (on and off the beat) and a note may hold."""
    grammar, sizes = Grammar(tokens, np.array([1]), np.array([0])), tokens.sizes()

    def ids(kind: int, beat: int) -> dict[int, list[int]]:
        masks = grammar.fields(np.array([kind]), np.array([beat]))
        return {column: np.flatnonzero(mask[0]).tolist() for column, mask in masks.items()}

    grammar.hear([[valid()[1]]])
    silent = {PITCH: [0], DURATION: [0], VELOCITY: [0]}
    events = {column: list(range(2, sizes[column])) for column in (TEMPO, CHORD)}
    assert ids(METRICAL, FIRST_BEAT) == events | silent
    assert np.flatnonzero(grammar.beats()[0]).tolist() == [FIRST_BEAT]
    grammar.hear([[valid()[2]]])
    assert ids(NOTE, IGN) == {
        **{TEMPO: [0], CHORD: [0], PITCH: list(range(1, sizes[PITCH]))},
        **{DURATION: list(range(2, sizes[DURATION])), VELOCITY: list(range(1, sizes[VELOCITY]))},
    }
    grammar.hear([[valid()[3]]])
    assert ids(NOTE, IGN)[PITCH] == list(range(1, 50))
    assert ids(METRICAL, 6) == {column: [CONTI, *events[column]] for column in events} | silent
    assert ids(METRICAL, 7) == {TEMPO: [CONTI], CHORD: [CONTI]} | silent
    assert ids(METRICAL, BAR) == ids(EOS, IGN) == {TEMPO: [0], CHORD: [0]} | silent
    assert np.flatnonzero(grammar.beats()[0]).tolist() == list(range(3, sizes[BEAT]))
    assert np.flatnonzero(grammar.types()[0]).tolist() == [EOS, METRICAL, NOTE]
    grammar.hear([[valid()[8]]])
    assert np.flatnonzero(grammar.beats()[0]).tolist() == list(range(FIRST_BEAT, sizes[BEAT]))


@given(seed=PIECES, tempo=st.integers(2, TOKENS.sizes()[TEMPO] - 1))
@settings(max_examples=20, deadline=None)
def test_a_forced_tempo_is_said_once(seed: int, tempo: int) -> None:
    forced, free = walk(seed, [3, 3], tempo=[tempo, 0])
    said = forced[:, TEMPO][forced[:, TEMPO] > CONTI]
    assert said.tolist() == [tempo]
    assert first_invalid(forced, TOKENS, 3) is None and first_invalid(free, TOKENS, 3) is None


def test_a_forced_tempo_holds_from_the_start() -> None:
    for seed in range(5):
        grid = grid_from_rows(walk(seed, [2], tempo=[9])[0], TOKENS)
        assert set(grid.tempos.tolist()) == {TOKENS.tempo_low + 7.0 * TOKENS.tempo_step}


@pytest.mark.parametrize("quadrant", [1, 2, 3, 4])
def test_training_rows_obey_the_grammar(quadrant: int) -> None:
    for seed in range(5):
        grid = grid_of(fabricated_score(seed, bars=4, quadrant=f"Q{quadrant}"))
        for part in (grid, grid.slice(1, 3), grid.transpose(4)):
            rows = rows_from_grid(part, TOKENS, quadrant)
            assert first_invalid(rows, TOKENS, part.bars) is None
            assert checked(rows.astype(np.int64), part.bars) is None


# ------------------------------------------------------------------------------------------------------- damage


def valid() -> np.ndarray:
    """Two bars: two notes, one note, a chord change without a note; then one note."""
    rows = [
        [0, 0, 0, EMOTION_ROW, 0, 0, 0, 2],
        [0, 0, BAR, METRICAL, 0, 0, 0, 0],
        [30, 5, 2, METRICAL, 0, 0, 0, 0],
        [0, 0, 0, NOTE, 50, 5, 10, 0],
        [0, 0, 0, NOTE, 40, 5, 10, 0],
        [1, 1, 5, METRICAL, 0, 0, 0, 0],
        [0, 0, 0, NOTE, 50, 2, 10, 0],
        [1, 7, 10, METRICAL, 0, 0, 0, 0],
        [0, 0, BAR, METRICAL, 0, 0, 0, 0],
        [31, 1, 6, METRICAL, 0, 0, 0, 0],
        [0, 0, 0, NOTE, 1, 17, 1, 0],
        [0, 0, 0, EOS, 0, 0, 0, 0],
    ]
    return np.array(rows)


CELLS = {  # what is wrong: (row, column, value)
    "no emotion row": (0, TYPE, METRICAL),
    "a second emotion row": (3, TYPE, EMOTION_ROW),
    "an end before the end": (6, TYPE, EOS),
    "a beat row instead of a bar": (1, BEAT, 2),
    "a first beat row off the first beat": (2, BEAT, 3),
    "a first beat row on the second beat": (2, BEAT, 6),
    "a position twice": (5, BEAT, 2),
    "a position that goes back": (7, BEAT, 4),
    "a metrical row without position": (5, BEAT, IGN),
    "a note with a position": (4, BEAT, 3),
    "notes that rise": (4, PITCH, 51),
    "a note twice": (4, PITCH, 50),
    "no pitch": (3, PITCH, IGN),
    "no duration": (3, DURATION, IGN),
    "a duration of nothing": (3, DURATION, 1),
    "no velocity": (3, VELOCITY, IGN),
    "no tempo at the first beat": (2, TEMPO, CONTI),
    "no chord at the first beat": (2, CHORD, CONTI),
    "a tempo off the beat": (5, TEMPO, 30),
    "a chord off the beat": (5, CHORD, 9),
    "neither tempo nor its going on": (7, TEMPO, IGN),
    "neither chord nor its going on": (9, CHORD, IGN),
    "a tempo at a bar line": (8, TEMPO, CONTI),
    "a chord at a bar line": (1, CHORD, 5),
    "a tempo at a note": (3, TEMPO, 30),
    "a pitch at a beat": (2, PITCH, 50),
    "a velocity at a bar line": (8, VELOCITY, 3),
    "a duration at the end": (11, DURATION, 3),
    "a chord at the end": (11, CHORD, CONTI),
    "an emotion at a note": (4, EMOTION, 2),
    "an emotion at the end": (11, EMOTION, 1),
}


@pytest.mark.parametrize("name", CELLS)
def test_planted_damage_is_found(name: str) -> None:
    index, column, value = CELLS[name]
    rows = valid()
    rows[index, column] = value
    assert first_invalid(rows, TOKENS, 2) == index
    assert checked(rows, 2) == index


ORDERS = {  # what is wrong: (order of the rows of `valid`, index that is to blame)
    "no end": ([*range(11)], 11),
    "rows after the end": ([*range(12), 11], 12),
    "a note before any beat": ([0, 1, 3], 2),
    "a beat before any bar": ([0, 2], 1),
    "an empty bar": ([0, 1, 8], 2),
    "a bar with a beat but no note": ([0, 1, 2, 8], 3),
    "a beat without change and note": ([*range(6), 7], 6),
    "an end after a bar line": ([*range(9), 11], 9),
    "an end after a beat alone": ([0, 1, 2, 11], 3),
    "an end one bar too soon": ([*range(8), 11], 8),
    "nothing but the end": ([0, 11], 1),
}


@pytest.mark.parametrize("name", ORDERS)
def test_rows_out_of_order_are_found(name: str) -> None:
    order, index = ORDERS[name]
    assert first_invalid(valid()[order], TOKENS, 2) == index
    assert checked(valid()[order], 2) == index


def test_the_example_is_valid_for_its_own_length_only() -> None:
    assert first_invalid(valid(), TOKENS, 2) is None
    assert first_invalid(valid(), TOKENS, 3) == 11  # the end comes too soon
    assert first_invalid(valid(), TOKENS, 1) == 8  # a bar too many


@given(seed=PIECES, data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_one_changed_cell_is_judged_as_described(seed: int, data: st.DataObject) -> None:
    rows = walk(seed % 50, [2])[0]
    index = data.draw(st.integers(1, len(rows) - 1))
    column = data.draw(st.integers(0, 7))
    rows[index, column] = data.draw(st.integers(0, min(20, TOKENS.sizes()[column] - 1)))
    assert first_invalid(rows, TOKENS, 2) == checked(rows, 2)


@pytest.mark.parametrize(("index", "column"), [(2, TEMPO), (2, CHORD), (2, BEAT), (3, TYPE), (3, PITCH), (3, DURATION)])
def test_an_id_beyond_the_vocabulary_is_found(index: int, column: int) -> None:
    for value in (-1, TOKENS.sizes()[column]):
        rows = valid()
        rows[index, column] = value
        assert first_invalid(rows, TOKENS, 2) == index


@pytest.mark.parametrize(("column", "value"), [(TEMPO, 5), (BEAT, BAR), (PITCH, 9), (EMOTION, 5)])
def test_damage_in_the_first_row_is_found(column: int, value: int) -> None:
    rows = valid()
    rows[0, column] = value
    assert first_invalid(rows, TOKENS, 2) == 0


# -------------------------------------------------------------------------------------------------------- state


@given(seed=PIECES, data=st.data())
@settings(max_examples=30, deadline=None)
def test_hearing_a_beginning_is_writing_it(seed: int, data: st.DataObject) -> None:
    """Masks after a beginning of any length, heard at once and beside other pieces."""
    pieces = walk(seed % 50, [2, 3, 1])
    stops = [data.draw(st.integers(1, len(rows) - 1)) for rows in pieces]
    together = Grammar(TOKENS, np.array([2, 3, 1]), np.array([0, 7, 0]))
    together.hear([list(rows[1:stop]) for rows, stop in zip(pieces, stops, strict=True)])
    for index, (rows, stop) in enumerate(zip(pieces, stops, strict=True)):
        alone = Grammar(TOKENS, np.array([[2], [3], [1]][index]), np.array([[0], [7], [0]][index]))
        for row in rows[1:stop]:
            alone.advance(row[None])
        np.testing.assert_array_equal(together.types()[index], alone.types()[0])
        np.testing.assert_array_equal(together.beats()[index], alone.beats()[0])
        for kind, beat in ((NOTE, IGN), (METRICAL, 6), (METRICAL, 7)):
            mine = together.fields(np.full(3, kind), np.full(3, beat))
            other = alone.fields(np.array([kind]), np.array([beat]))
            for column in mine:
                np.testing.assert_array_equal(mine[column][index], other[column][0])


def test_keep_drops_the_others() -> None:
    grammar = Grammar(TOKENS, np.array([1, 2, 3]), np.array([0, 4, 0]))
    grammar.hear([[], list(valid()[1:4]), list(valid()[1:2])])
    grammar.keep(np.array([2, 1]))
    assert grammar.bars.tolist() == [3, 2] and grammar.tempo.tolist() == [0, 4]
    assert grammar.types()[:, NOTE].tolist() == [False, True]
    grammar.keep(np.array([False, True]))
    assert grammar.types().shape == (1, 4) and grammar.pitch.tolist() == [50]


def test_the_last_sixteenth_of_a_bar_leads_on() -> None:
    grammar = Grammar(TOKENS, np.array([2]), np.array([0]))
    grammar.hear([[*valid()[1:5], np.array([1, 1, LAST_BEAT, METRICAL, 0, 0, 0, 0])]])
    assert np.flatnonzero(grammar.types()[0]).tolist() == [NOTE]
    grammar.advance(np.array([[0, 0, 0, NOTE, 1, 5, 5, 0]]))  # nothing lies below the lowest pitch
    assert np.flatnonzero(grammar.types()[0]).tolist() == [METRICAL]
    assert np.flatnonzero(grammar.beats()[0]).tolist() == [BAR]
