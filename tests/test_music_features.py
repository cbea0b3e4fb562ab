"""The features are finite for any notes and indifferent to what tells a transcription from a score on a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from affgen.score import Control, Note, Score, Tempo
from affgen.testing import fabricated_score
from music.features import FEATURE_NAMES, features, note_table, sounding, table_features, tonic_of


def value(score: Score, name: str) -> float:
    return float(features(score)[FEATURE_NAMES.index(name)])


def chords(*pitches: tuple[int, ...], velocity: int = 80) -> Score:
    """One chord of one beat after the other."""
    return Score(tuple(Note(float(i), 1.0, pitch, velocity) for i, chord in enumerate(pitches) for pitch in chord))


def test_names_are_unique_and_match_the_vector() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
    assert features(fabricated_score(0)).shape == (len(FEATURE_NAMES),)


@pytest.mark.parametrize(
    "notes",
    [
        [(0.0, 0.001, 0, 1)],
        [(0.0, 600.0, 127, 127)],
        [(5.0, 1.0, 60, 64)] * 3,
        [(0.0, 1.0, 60, 64), (20_000.0, 1.0, 61, 64)],
        [(0.0, 1.0, pitch, 64) for pitch in range(128)],
        [(0.0, 1.0, 60, 64), (0.02, 1.0, 60, 64)],
    ],
    ids=["one short", "one long", "same", "gap of hours", "all pitches", "one event"],
)
def test_always_finite(notes: list[tuple[float, float, int, int]]) -> None:
    assert np.isfinite(table_features(np.array(notes, dtype=float))).all()


def test_random_notes_are_finite() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 50):
        table = np.stack([rng.uniform(0, 9, size), rng.exponential(1, size) + 1e-3, rng.integers(0, 128, size)], axis=1)
        assert np.isfinite(table_features(np.column_stack([table, rng.integers(1, 128, size)]))).all()


def test_note_table_is_in_seconds() -> None:
    score = Score((Note(0.0, 1.0, 60, 70), Note(2.0, 2.0, 64, 90)), tempos=(Tempo(0.0, 60.0), Tempo(2.0, 120.0)))
    np.testing.assert_allclose(note_table(score), [[0.0, 1.0, 60, 70], [2.0, 1.0, 64, 90]])


def test_file_tempo_and_pedal_do_not_matter() -> None:
    score = fabricated_score(1)
    factor = 150.0 / score.tempos[0].bpm
    stretched = replace(
        score,
        notes=tuple(replace(n, onset=n.onset * factor, duration=n.duration * factor) for n in score.notes),
        tempos=(Tempo(0.0, 150.0),),
        controls=(Control(0.0, 64, 127),),
    )
    np.testing.assert_allclose(features(stretched), features(score), atol=1e-6)


def test_key_does_not_matter_to_harmony() -> None:
    score = fabricated_score(2, quadrant="Q4")
    moved = replace(score, notes=tuple(replace(n, pitch=n.pitch + 5) for n in score.notes))
    free = [i for i, name in enumerate(FEATURE_NAMES) if name.startswith(("key_", "degree_", "chord_", "root_"))]
    np.testing.assert_allclose(features(moved)[free], features(score)[free], atol=1e-9)


def test_spread_chords_are_one_event() -> None:
    together = np.array([[t, 0.4, p, 64] for t in range(8) for p in (60.0, 64.0, 67.0)], dtype=float)
    rolled = together.copy()
    rolled[:, 0] += np.tile([0.0, 0.015, 0.03], 8)
    rate = FEATURE_NAMES.index("events_per_second")
    assert table_features(rolled)[rate] == pytest.approx(table_features(together)[rate], abs=0.01)
    rolled[:, 0] += np.tile([0.0, 0.1, 0.2], 8)  # an arpeggio is three
    assert table_features(rolled)[rate] > table_features(together)[rate] + 1.0


def test_hand_worked_values() -> None:
    score = Score(tuple(Note(float(i), 0.6, pitch, 60 + 10 * i) for i, pitch in enumerate((60, 62, 64, 72))))
    assert value(score, "notes_per_second") == pytest.approx(1.0)  # 4 notes, 120 bpm: one each half second = 2^1
    assert value(score, "interval_median") == pytest.approx(-1.0)
    assert value(score, "duration_median") == pytest.approx(np.log2(0.3))
    assert value(score, "velocity_mean") == pytest.approx(75.0)
    assert value(score, "pitch_mean") == pytest.approx(64.5)
    assert value(score, "top_motion") == pytest.approx(4.0)
    assert value(score, "top_steps") == pytest.approx(2 / 3)
    assert value(score, "voices_mean") == pytest.approx(12 / 18)  # 4 notes of 3 frames in 1.8 s


def test_mode_is_told_apart() -> None:
    major = chords((48, 60, 64, 67), (53, 60, 65, 69), (55, 59, 62, 67), (48, 60, 64, 67))
    minor = chords((45, 60, 64, 69), (50, 57, 62, 65), (52, 56, 59, 64), (45, 60, 64, 69))
    assert value(major, "key_mode") > 0.1 > -0.05 > value(minor, "key_mode")
    assert value(major, "chord_major_share") == 1.0
    assert value(minor, "chord_major_share") < 0.5
    assert value(major, "root_0") > value(major, "root_9")
    assert value(minor, "root_9") > value(minor, "root_0")


def test_a_minor_and_c_major_share_their_collection() -> None:
    weight = np.zeros(12)
    weight[[0, 2, 4, 5, 7, 9, 11]] = 1.0
    assert tonic_of(weight / 7) == 0
    weight[9] = 4.0
    assert tonic_of(weight / weight.sum()) == 0


def test_sounding_counts_frames() -> None:
    roll = sounding(np.array([[1.0, 0.3, 60, 64], [1.2, 0.2, 60, 64], [1.1, 0.01, 72, 64]]))
    assert roll[:, 60].tolist() == [True] * 4
    assert roll[:, 72].tolist() == [False, True, False, False]  # shorter than a frame, still heard
