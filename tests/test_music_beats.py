"""Beats: the file's own where the notes lie on them, otherwise found again under jitter; no piece is too odd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.score import Marker, Note, Score, Tempo
from affgen.testing import fabricated_score
from music.beats import Alignment, align, estimate_beats, grid_of, on_grid
from music.chords import recognise
from music.tokens import CHORDS


def played(score: Score, *, jitter: float = 0.008, seed: int = 0) -> Score:
    """The piece as a performance: its times in seconds, each a little off, in a file at 120 beats per minute."""
    rng = np.random.default_rng(seed)
    notes = []
    for note in score.notes:
        start, stop = score.seconds(np.array([note.onset, note.end]))
        start = max(0.0, start + rng.normal(0, jitter))
        notes.append(replace(note, onset=2 * start, duration=2 * max(0.02, stop - start)))
    return Score(tuple(notes))


def test_the_files_beats_are_kept() -> None:
    score = fabricated_score(1, bars=4)
    grid = grid_of(score)
    table = score.arrays()
    order = np.lexsort((-table["pitch"], table["onset"]))
    np.testing.assert_array_equal(grid.notes[:, 0], np.rint(4 * table["onset"][order]))
    np.testing.assert_array_equal(grid.notes[:, 1], table["pitch"][order])
    np.testing.assert_array_equal(grid.notes[:, 2], np.rint(4 * table["duration"][order]))
    np.testing.assert_array_equal(grid.notes[:, 3], table["velocity"][order])
    np.testing.assert_allclose(grid.tempos, np.full(16, score.tempos[0].bpm))
    np.testing.assert_array_equal(grid.chords, recognise(grid.notes, 16))
    assert grid.bars == 4


def test_tempo_changes_of_the_file_are_kept() -> None:
    notes = tuple(Note(float(beat), 1.0, 60) for beat in range(8))
    grid = grid_of(Score(notes, tempos=(Tempo(0.0, 60.0), Tempo(3.0, 90.0), Tempo(6.0, 50.0))))
    np.testing.assert_allclose(grid.tempos, [60, 60, 60, 90, 90, 90, 50, 50])


def test_durations_are_one_sixteenth_to_one_bar_and_end_with_the_piece() -> None:
    grid = grid_of(Score((Note(0.0, 9.0, 60), Note(4.0, 0.01, 62), Note(7.0, 3.0, 64))), beats="file")
    assert grid.notes.tolist() == [[0, 60, 16, 80], [16, 62, 1, 80], [28, 64, 4, 80]]
    assert grid.bars == 2  # a bar in which nothing starts is the ring of the one before


def test_notes_near_a_sixteenth_are_moved_to_it() -> None:
    grid = grid_of(Score((Note(0.0, 1.0, 60), Note(1.23, 0.9, 62))), beats="file")
    assert grid.notes[:, 0].tolist() == [0, 5] and grid.notes[:, 2].tolist() == [4, 4]


def test_only_pieces_on_their_grid_are_believed() -> None:
    score = fabricated_score(2)
    assert on_grid(score) and not on_grid(played(score))
    late = replace(score, notes=tuple(replace(note, onset=note.onset + 0.1) for note in score.notes))
    assert not on_grid(late)
    np.testing.assert_array_equal(grid_of(score).notes, grid_of(score, beats="file").notes)
    np.testing.assert_array_equal(grid_of(late).notes, grid_of(late, beats="estimate").notes)


@pytest.mark.parametrize("quadrant", ["Q1", "Q2", "Q3", "Q4"])
def test_tempo_and_rhythm_are_found_in_a_performance(quadrant: str) -> None:
    """At least five of six pieces: the tempo to 2 %, and all but 2 % of the notes at their distance from each other."""
    good = 0
    for seed in range(6):
        score = fabricated_score(seed, quadrant=quadrant)
        grid, wanted = grid_of(played(score, seed=seed), beats="estimate"), grid_of(score)
        if abs(np.median(grid.tempos) / score.tempos[0].bpm - 1) > 0.02:
            continue
        shift = np.sort(grid.notes[:, 0]) - np.sort(wanted.notes[:, 0])
        good += (shift == np.median(shift)).mean() > 0.98
    assert good >= 5


def test_a_bass_on_every_bar_line_tells_where_bars_start() -> None:
    """Also when the piece begins with two beats before the first of them."""
    for pickup in (0, 2):
        melody = [Note(k / 2, 0.5, 72 + k % 5, 60) for k in range(2 * (pickup + 32))]
        bass = [Note(pickup + 4.0 * bar, 4.0, 36 + 5 * (bar % 2), 100) for bar in range(8)]
        grid = grid_of(played(Score((*melody, *bass), tempos=(Tempo(0.0, 96.0),))), beats="estimate")
        low = grid.notes[grid.notes[:, 1] < 48]
        assert (low[:, 0] % 16 == 0).all(), pickup
        assert np.median(grid.tempos) == pytest.approx(96, rel=0.02)


def test_jitter_is_no_tempo_change_but_a_new_tempo_is() -> None:
    notes = tuple(Note(k / 2, 0.5, 48 if k % 8 == 0 else 70, 100 if k % 8 == 0 else 70) for k in range(128))
    steady = grid_of(played(Score(notes, tempos=(Tempo(0.0, 100.0),)), jitter=0.005), beats="estimate")
    assert np.ptp(steady.tempos) < 3
    faster = grid_of(played(Score(notes, tempos=(Tempo(0.0, 96.0), Tempo(32.0, 104.0))), jitter=0.0), beats="estimate")
    assert np.median(faster.tempos[:20]) == pytest.approx(96, rel=0.02)
    assert np.median(faster.tempos[-20:]) == pytest.approx(104, rel=0.02)


def test_alignment_says_when_beats_are() -> None:
    score = Score(tuple(Note(float(k), 1.0, 60) for k in range(8)), tempos=(Tempo(0.0, 60.0), Tempo(4.0, 120.0)))
    aligned = align(score)
    np.testing.assert_allclose(aligned.edges, [0, 1, 2, 3, 4, 4.5, 5, 5.5, 6])
    assert aligned.believed
    where = np.array([0.5, 4.0, 5.5, 8.0, 10.0])
    np.testing.assert_array_equal(aligned.in_file(score, where), where)
    np.testing.assert_array_equal(aligned.on_grid(score, where), where)
    performance = played(score, jitter=0.0)
    found = align(performance, beats="estimate")
    assert not found.believed
    onsets = performance.seconds(found.in_file(performance, found.grid.notes[:, 0] / 4))
    np.testing.assert_allclose(onsets, score.seconds(np.arange(8.0)), atol=0.12)


def test_beats_of_the_grid_and_of_the_file_are_each_others_inverse() -> None:
    """Where beats are estimated; after the last of them the file goes on at the tempo of the last bar."""
    score = Score(tuple(Note(float(k), 1.0, 60) for k in range(8)), tempos=(Tempo(0.0, 120.0),))
    edges = np.array([1.0, 1.6, 2.2, 2.8, 3.4, 3.8, 4.2, 4.6, 5.0])  # 100, then 150 beats per minute
    alignment = Alignment(grid_of(score), edges, believed=False)
    in_file = np.array([2.0, 3.2, 6.8, 8.4, 10.0, 11.6])
    on_the_grid = np.array([0.0, 1.0, 4.0, 6.0, 8.0, 10.0])
    np.testing.assert_allclose(alignment.in_file(score, on_the_grid), in_file)
    np.testing.assert_allclose(alignment.on_grid(score, in_file), on_the_grid)


ONSETS = st.lists(st.floats(0, 40), min_size=1, max_size=25)


@given(times=ONSETS, rounding=st.sampled_from([0.25, 0.01]), pitch=st.integers(0, 127), velocity=st.integers(1, 127))
@settings(max_examples=40, deadline=None)
def test_any_piece_gets_rising_beats_and_a_valid_grid(
    times: list[float], rounding: float, pitch: int, velocity: int
) -> None:
    starts = np.sort(np.round(np.array(times) / rounding) * rounding)
    pitches = np.clip(pitch + np.arange(len(starts)) % 30 - 15, 0, 127)
    beats = estimate_beats(starts, pitches, np.full(len(starts), velocity))
    assert len(beats) >= 2 and np.isfinite(beats).all() and (np.diff(beats) > 0).all()
    assert beats[-1] >= starts[-1] - 1e-6
    score = Score(tuple(Note(2 * float(s), 1.0, int(p), velocity) for s, p in zip(starts, pitches, strict=True)))
    grid = grid_of(score, beats="estimate")
    assert len(grid.notes) == len(starts) and len(grid.tempos) == len(grid.chords) == 4 * grid.bars
    assert (grid.notes[:, 0] >= 0).all() and (grid.notes[:, 0] + grid.notes[:, 2] <= 16 * grid.bars).all()
    assert np.isfinite(grid.tempos).all() and (grid.tempos > 0).all()
    assert ((grid.notes[:, 2] >= 1) & (grid.notes[:, 2] <= 16)).all()


def test_a_pick_up_keeps_its_distance() -> None:
    melody = [Note(0.0, 0.25, 67), *(Note(0.25 + k / 2, 0.5, 72 + k % 5, 70) for k in range(64))]
    bass = [Note(0.25 + 4.0 * bar, 4.0, 36 + 5 * (bar % 2), 100) for bar in range(8)]
    grid = grid_of(played(Score((*melody, *bass), tempos=(Tempo(0.0, 100.0),)), jitter=0.004), beats="estimate")
    first, second = np.unique(grid.notes[:, 0])[:2]
    assert grid.notes[0, 1] == 67 and second - first == 1


def test_chord_names_in_a_file_are_believed_only_if_all_of_them_fit() -> None:
    """Every marker a chord name on a beat, the first at the start; else chords are heard from the notes."""
    notes = tuple(Note(4.0 * bar, 4.0, pitch) for bar in range(2) for pitch in (60, 64, 67))
    heard = grid_of(Score(notes)).chords.tolist()
    assert heard == [CHORDS.index("C_maj")] * 8

    def read(*markers: tuple[float, str], beats: str = "file") -> list[int]:
        return grid_of(Score(notes, markers=tuple(Marker(*marker) for marker in markers)), beats=beats).chords.tolist()

    written = [CHORDS.index(name) for name in ("D_min7", "N_N", "F#_dim")]
    whole = ((0.0, "D_min7"), (3.0, "N_N"), (4.0, "F#_dim"))
    assert read(*whole) == [written[0]] * 3 + [written[1]] + [written[2]] * 4
    assert read(*whole, (40.0, "C_maj")) == read(*whole)  # after the end
    for more in ((5.0, "Chorus"), (5.5, "C_maj")):
        assert read(*whole, more) == heard
    assert read(*whole[1:]) == heard
    estimated = grid_of(Score(notes), beats="estimate").chords.tolist()
    assert read(*whole, beats="estimate") == estimated  # beats of the file are not those of the piece


def test_the_estimate_is_a_pure_function() -> None:
    table = fabricated_score(4).arrays()
    one, two = (estimate_beats(table["onset"], table["pitch"], table["velocity"]) for _ in range(2))
    np.testing.assert_array_equal(one, two)
