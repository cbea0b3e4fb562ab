"""Figures of speaker verification: the equal error rate, its weights, and which pairs each figure is made of."""

from __future__ import annotations

import numpy as np
import pytest

from affgen.errors import AffgenError, DataError
from affgen.speaker.data import Clip
from affgen.speaker.evaluate import balance, cepstra, equal_error_rate, figures, pairs


def clip(speaker: str, emotion: str = "neutral", folder: str = "speech", mel: np.ndarray | None = None) -> Clip:
    return Clip("u", speaker, emotion, folder, np.zeros((80, 3), np.float16) if mel is None else mel)


def unit(*angles: float) -> np.ndarray:
    """Unit vectors (N, 2) at ``angles`` in degrees."""
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)


def test_what_is_separated_has_no_errors_and_what_is_reversed_nothing_else() -> None:
    score = np.array([0.9, 0.8, 0.2, 0.1])
    target = np.array([True, True, False, False])
    assert equal_error_rate(score, target)[0] == 0
    assert equal_error_rate(score, ~target)[0] == 1
    rate, threshold = equal_error_rate(score, target)
    assert rate == 0 and 0.2 < threshold <= 0.8


def test_equal_scores_are_chance() -> None:
    assert equal_error_rate(np.ones(10), np.arange(10) < 3)[0] == pytest.approx(0.5)


def test_two_normal_distributions_have_the_error_that_theory_says() -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.normal(2, 1, 40_000), rng.normal(0, 1, 90_000)])
    rate, threshold = equal_error_rate(score, np.arange(130_000) < 40_000)
    assert rate == pytest.approx(0.1587, abs=0.004)  # the normal distribution at -1
    assert threshold == pytest.approx(1.0, abs=0.02)


def test_it_is_the_crossing_of_the_error_curves() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    score, target = np.round(rng.normal(size=500), 2), rng.random(500) < 0.3
    score[target] += 1
    alarm, hit, _ = sklearn.roc_curve(target, score, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    crossing = grid[np.argmin(np.abs(1 - np.interp(grid, alarm, hit) - grid))]
    assert equal_error_rate(score, target)[0] == pytest.approx(crossing, abs=1e-4)


def test_a_weight_counts_like_so_many_copies() -> None:
    rng = np.random.default_rng(2)
    score, target, weight = rng.normal(size=60), rng.random(60) < 0.5, rng.integers(1, 5, 60)
    repeated = equal_error_rate(np.repeat(score, weight), np.repeat(target, weight))
    assert equal_error_rate(score, target, weight.astype(float))[0] == pytest.approx(repeated[0], abs=1e-9)


@pytest.mark.parametrize("target", [np.ones(4, bool), np.zeros(4, bool)])
def test_targets_alone_have_no_error_rate(target: np.ndarray) -> None:
    with pytest.raises(AffgenError, match="targets and non-targets"):
        equal_error_rate(np.arange(4.0), target)


def test_all_pairs_are_scored_by_the_cosine() -> None:
    trials = pairs(unit(0, 60, 90), np.array(["a", "a", "b"]))
    assert trials.score == pytest.approx([0.5, 0, np.sqrt(3) / 2])
    assert trials.target.tolist() == [True, False, False]


def test_balanced_speakers_weigh_alike() -> None:
    speakers = np.array([0] * 5 + [1] * 2 + [2])
    trials = pairs(np.ones((8, 1)), speakers)
    weight = balance(trials, speakers)
    one, other = speakers[trials.first], speakers[trials.second]
    for a, b in ((0, 0), (1, 1), (0, 1), (0, 2), (1, 2)):
        assert weight[(one == a) & (other == b)].sum() == pytest.approx(1)


def test_each_figure_is_made_of_the_pairs_it_says() -> None:
    clips = [
        *(clip("x-1", "happy"), clip("x-1", "sad"), clip("x-1", "sad", "song")),
        *(clip("x-2", "happy"), clip("x-2", "sad", "song")),
        *(clip("y-1"), clip("y-1")),
    ]
    found = figures(clips, unit(0, 5, 10, 90, 95, 180, 185))
    assert (found["utterances"], found["speakers"]) == (7, 3)
    assert (found["pooled"]["targets"], found["pooled"]["others"]) == (3 + 1 + 1, 6 + 10)
    within = found["within"]
    assert set(within) == {"all", "x"}  # y has one speaker, so no non-targets
    assert (within["all"]["all"]["targets"], within["all"]["all"]["others"]) == (5, 6)
    assert (within["x"]["all"]["targets"], within["x"]["all"]["others"]) == (4, 6)
    assert (within["x"]["across_emotions"]["targets"], within["x"]["across_emotions"]["others"]) == (3, 3)
    assert (within["x"]["across_folders"]["targets"], within["x"]["across_folders"]["others"]) == (3, 3)
    assert all(figure["eer"] == 0 for part in within.values() for figure in part.values())


def test_a_voice_that_changes_with_emotion_is_found_out() -> None:
    clips = [clip(f"x-{s}", emotion) for emotion in ("happy", "sad") for s in (1, 2, 3)]
    found = figures(clips, unit(0, 1, 2, 90, 91, 92))  # the emotion decides, not the speaker
    assert found["within"]["all"]["all"]["eer"] > 0.3
    assert found["within"]["all"]["across_emotions"]["eer"] == pytest.approx(0.5, abs=0.17)


def test_one_speaker_alone_has_no_figures() -> None:
    with pytest.raises(DataError, match="two speakers"):
        figures([clip("x-1"), clip("x-1")], unit(0, 1))


def test_cepstra_tell_two_spectra_apart() -> None:
    rng = np.random.default_rng(3)
    mels = [rng.normal(0, 0.2, (80, 50)) + np.linspace(-3, tilt, 80)[:, None] for tilt in (-6, -6, 1, 1)]
    vectors = cepstra([mel.astype(np.float16) for mel in mels])
    assert vectors.shape == (4, 40) and np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    trials = pairs(vectors, np.array([0, 0, 1, 1]))
    assert equal_error_rate(trials.score, trials.target)[0] == 0
