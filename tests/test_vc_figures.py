"""Figures of readings that were made up, so that what must come out is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vc import figures

ASKED = (0.0, 0.25, 0.5, 0.75, 1.0)


def reading(utterance: str, label: str, intensity: float, strength: float, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "utterance": utterance,
        "speaker": utterance[0],
        "label": label,
        "intensity": intensity,
        "posterior": {"neutral": 0.2, "angry": 0.5, "sad": 0.1, "happy": 0.2},
        "strength": {"angry": strength, "sad": -strength, "happy": 0.5 * strength},
        "errors": {"phones": (1, 4)},
        "speaker_likeness": {"ear": {"source": 0.9}},
        "numbers": {"mcd": 5.0},
    }
    return made | more


# ------------------------------------------------------------------------------------------------- one curve


def test_spearman_of_order_and_of_none() -> None:
    assert figures.spearman(ASKED, [0, 1, 2, 3, 9]) == pytest.approx(1)
    assert figures.spearman(ASKED, [9, 3, 2, 1, 0]) == pytest.approx(-1)
    assert figures.spearman(ASKED, [0.3] * 5) == 0
    assert figures.spearman(ASKED, [0, 1, 1, 2, 3]) == pytest.approx(0.9746794)  # scipy.stats.spearmanr


def test_differences_too_small_to_hear_are_no_control() -> None:
    rising = 1e-6 * np.arange(5)
    found = figures.control(ASKED, rising.tolist())
    assert found["spearman"] == 0 and found["monotone"] == 0 and found["uniformity"] == 0
    assert found["range"] == pytest.approx(0, abs=1e-5)


def test_a_calibrated_curve_is_perfect_and_a_leap_is_not() -> None:
    perfect = figures.control(ASKED, ASKED)
    assert perfect == pytest.approx({"spearman": 1, "monotone": 1, "range": 1, "rmse": 0, "uniformity": 1})
    leap = figures.control(ASKED, [0, 0, 0, 0, 1])
    assert leap["uniformity"] == pytest.approx(0) and leap["monotone"] == 0
    assert leap["range"] == 1 and leap["rmse"] == pytest.approx(np.sqrt((0.0625 + 0.25 + 0.5625) / 5))
    assert figures.control(ASKED, [0, 0.1, 0.2, 0.3, 0.4])["uniformity"] == pytest.approx(1)
    assert figures.control(ASKED, [0, -0.1, -0.2, -0.3, -0.4])["uniformity"] == 0


def test_the_range_ends_at_one_even_if_more_was_asked() -> None:
    assert figures.control([0, 1, 1.5], [0.1, 0.7, 2.0])["range"] == pytest.approx(0.6)


# ----------------------------------------------------------------------------------------------- many readings


def test_values_are_in_units_of_the_natural_gap() -> None:
    natural = [reading("a1", "angry", 1.0, 2.0), reading("b1", "angry", 1.0, 4.0), reading("a1", "angry", 0.5, 9.0)]
    gap = figures.gaps(natural)
    assert gap == {"angry": 3.0}
    rows = [reading("a1", "angry", i, 3 * i) for i in reversed(ASKED)]
    found = figures.values(rows, gap)
    key = ("a1", "angry")
    assert found["range"][key] == pytest.approx(1) and found["rmse"][key] == pytest.approx(0)
    assert found["accuracy"][key] == 1 and found["probability"][key] == 0.5
    assert found["phones"][key] == 25 and found["mcd"][key] == 5 and found["speaker.ear.source"][key] == 0.9


def test_a_gap_that_is_not_there_gives_no_range() -> None:
    rows = [reading("a1", "angry", i, i) for i in ASKED]
    assert "range" not in figures.values(rows, {"angry": -1.0})
    assert "range" not in figures.values(rows, {})


def test_accuracy_among_leaves_labels_out_that_nobody_asked_for() -> None:
    odd = reading("a1", "angry", 1.0, 1.0, posterior={"neutral": 0.1, "angry": 0.3, "surprised": 0.6})
    found = figures.values([odd], {"angry": 1.0})
    assert found["accuracy"]["a1", "angry"] == 0 and found["accuracy_among"]["a1", "angry"] == 1
    assert figures.confusion([odd]) == {"angry": {"surprised": 1}}


def test_what_cannot_be_measured_is_left_out() -> None:
    found = figures.values([reading("a1", "angry", 1.0, 1.0, numbers={"f0": float("nan"), "mcd": 1.0})], {"angry": 1.0})
    assert "f0" not in found and found["mcd"] == {("a1", "angry"): 1.0}


def test_an_interval_covers_speakers_that_differ() -> None:
    speakers = {f"{s}{k}": s for s in "abcd" for k in range(4)}
    alike = {(name, "angry"): 1.0 for name in speakers}
    apart = {(name, "angry"): float("abcd".index(s)) for name, s in speakers.items()}
    assert figures.interval(alike, speakers) == {"value": 1.0, "low": 1.0, "high": 1.0, "count": 16}
    found = figures.interval(apart, speakers)
    assert found["value"] == 1.5 and found["low"] <= 0.75 and found["high"] >= 2.25
    assert found == figures.interval(apart, speakers)
    assert np.isnan(figures.interval({}, speakers)["value"])


def test_pairs_are_compared_over_what_both_have() -> None:
    speakers = {"a1": "a", "b1": "b"}
    one = {("a1", "sad"): 3.0, ("b1", "sad"): 5.0}
    found = figures.paired(one, {("a1", "sad"): 1.0}, speakers)
    assert found["value"] == 2.0 and found["count"] == 1


def test_leakage_is_counted_beyond_what_is_natural() -> None:
    gap = {"angry": 1.0, "sad": 1.0, "happy": 1.0}
    own = figures.leakage([reading("a1", "angry", 1.0, 1.0)], gap)
    assert own["angry"] == pytest.approx({"angry": 1.0, "sad": -1.0, "happy": 0.5})
    assert figures.off_target(own, own) == pytest.approx({"drift": -0.25, "excess": 0})
    far = figures.leakage([reading("a1", "angry", 1.0, 3.0)], gap)
    assert figures.off_target(far, own)["excess"] == pytest.approx((2 + 1) / 2)
    assert np.isnan(figures.off_target({}, own)["drift"])


def test_means_along_the_intensities() -> None:
    rows = [reading("a1", "angry", 0.0, 0.0), reading("a1", "angry", 0.25, 1.0), reading("b1", "angry", 0.25, 3.0)]
    assert figures.along(rows, lambda r: r["strength"]["angry"]) == {"0": 0.0, "0.25": 2.0}


# ------------------------------------------------------------------------------------------------ distributions


def test_frechet_distance_of_gaussians_that_are_known() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 20_000)), rng.normal(size=(3, 20_000))
    b = np.array([2.0, 1.0, 1.0])[:, None] * b + np.array([0.0, 3.0, 0.0])[:, None]
    ours, theirs = figures.moments(a), figures.moments(b)
    assert figures.frechet([ours], [ours]) == pytest.approx(0, abs=1e-6)
    assert figures.frechet([ours], [theirs]) == pytest.approx(9 + 1, rel=0.03)
    halves = [figures.moments(a[:, :7_000]), figures.moments(a[:, 7_000:])]
    assert figures.frechet(halves, [theirs]) == pytest.approx(figures.frechet([ours], [theirs]), rel=1e-4)
    assert np.isnan(figures.frechet([], [theirs]))


def test_frechet_interval_lies_about_the_value() -> None:
    rng = np.random.default_rng(0)
    real = {"angry": [figures.moments(rng.normal(size=(2, 60))) for _ in range(8)]}
    rows = [
        reading(f"a{k}", "angry", 1.0, 1.0, moments=figures.moments(0.5 + rng.normal(size=(2, 60)))) for k in range(8)
    ]
    found = figures.frechet_interval(rows, real, draws=50)
    assert found["low"] < found["value"] < found["high"] and set(found["labels"]) == {"angry"}
    assert np.isnan(figures.frechet_interval([], real)["value"])


def test_oddness_is_in_deviations_of_real_clips() -> None:
    own = [reading(f"a{k}", "angry", 1.0, 1.0, numbers={"jitter": float(k)}) for k in range(3)]
    row = [reading("a0", "angry", 1.0, 1.0, numbers={"jitter": 4.0})]
    assert figures.oddness(row, own, ["jitter"]) == {"value": 3.0, "names": {"jitter": 3.0}}
    assert np.isnan(figures.oddness([], own, ["jitter"])["value"])


def test_edits() -> None:
    assert figures.edits("kitten", "sitting") == 3
    assert figures.edits("", "abc") == 3 and figures.edits("abc", "") == 3 and figures.edits("abc", "abc") == 0
