"""Chord symbols: every quality is heard in every root, silence has none, and the search is the best path."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from affgen.testing import fabricated_score
from music.beats import grid_of
from music.chords import CHANGE_COST, _viterbi, recognise
from music.tokens import CHORDS, FIFTHS, NO_CHORD, chord_pitch_classes, transpose_chords


def struck(number: int, *, step: int = 0, duration: int = 16) -> list[list[int]]:
    """Notes of a chord in close position over its root in the bass."""
    root, *others = chord_pitch_classes(number)
    pitches = [36 + root, 60 + root, *(60 + root + (tone - root) % 12 for tone in others)]
    return [[step, pitch, duration, 80] for pitch in pitches]


def names(numbers: np.ndarray) -> list[str]:
    return [CHORDS[number] for number in numbers]


@pytest.mark.parametrize("quality", ["maj", "min", "sus4", "sus2", "7", "maj7", "min7", "aug", "dim", "min7b5", "dim7"])
def test_every_chord_is_heard(quality: str) -> None:
    for root in FIFTHS:
        name = f"{root}_{quality}"
        assert names(recognise(np.array(struck(CHORDS.index(name))), 4)) == [name] * 4


def test_silence_has_no_chord() -> None:
    assert recognise(np.zeros((0, 4), dtype=int), 3).tolist() == [NO_CHORD] * 3
    assert recognise(np.zeros((0, 4), dtype=int), 0).shape == (0,)
    notes = np.array(struck(CHORDS.index("A_min"), step=4, duration=4))
    assert names(recognise(notes, 4)) == ["N_N", "A_min", "N_N", "N_N"]


def test_a_progression_changes_where_it_changes() -> None:
    wanted = ["C_maj", "A_min", "D_min", "G_7"]
    notes = np.array([note for bar, name in enumerate(wanted) for note in struck(CHORDS.index(name), step=16 * bar)])
    assert names(recognise(notes, 16)) == [name for name in wanted for _ in range(4)]


def test_one_passing_note_changes_nothing() -> None:
    notes = [*struck(CHORDS.index("C_maj")), [6, 74, 1, 60]]
    assert names(recognise(np.array(notes), 4)) == ["C_maj"] * 4


def test_notes_that_ring_over_the_last_beat_are_cut() -> None:
    notes = np.array(struck(CHORDS.index("E_min"), step=4, duration=16))
    assert names(recognise(notes, 2)) == ["N_N", "E_min"]


def test_transposing_the_notes_transposes_the_chords() -> None:
    for quadrant in ("Q1", "Q3"):
        grid = grid_of(fabricated_score(3, bars=4, quadrant=quadrant))
        for semitones in (-5, 1, 6):
            moved = grid.notes + np.array([0, semitones, 0, 0])
            np.testing.assert_array_equal(recognise(moved, 16), transpose_chords(recognise(grid.notes, 16), semitones))


def test_made_up_pieces_have_the_chords_they_were_made_of() -> None:
    """Root and third of most bars; the melody may colour them."""
    hits = bars = 0
    for seed in range(4):
        score = fabricated_score(seed, quadrant="Q4")
        grid = grid_of(score)
        for marker in score.markers:
            root, quality = marker.text.split("_")
            sharps = {"C#": "Db", "D#": "Eb", "G#": "Ab", "A#": "Bb"}
            wanted = set(chord_pitch_classes(CHORDS.index(f"{sharps.get(root, root)}_{quality}")))
            heard = chord_pitch_classes(int(grid.chords[int(marker.beat) + 2]))
            hits += len(wanted & set(heard)) >= 2
            bars += 1
    assert hits / bars > 0.8


def test_the_search_finds_the_best_path() -> None:
    """Against all 3 ** 6 paths."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        scores = rng.normal(size=(6, 3)) * 0.6

        def total(path: tuple[int, ...], scores: np.ndarray = scores) -> float:
            costs = CHANGE_COST * np.array([0.6, 1.5, 1.0, 1.5, 0.6, 1.5])
            changes = sum(costs[k + 1] for k, (a, b) in enumerate(pairwise(path)) if a != b)
            return float(sum(scores[k, chord] for k, chord in enumerate(path)) - changes)

        best = max(product(range(3), repeat=6), key=total)
        assert total(tuple(_viterbi(scores).tolist())) == pytest.approx(total(best))
