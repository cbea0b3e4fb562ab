"""The SPEC grammar: what it means, what it refuses, and that printing and parsing are inverse."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.emotion import (
    LABELS,
    QUADRANTS,
    Clock,
    Curve,
    Emotion,
    coordinates,
    parse_emotion,
    parse_intensity,
    require_labels,
)
from affgen.errors import AffgenError


def refusal(call, *args) -> str:
    with pytest.raises(AffgenError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# --- meaning ---


def test_one_label_is_constant():
    emotion = parse_emotion("happy")
    assert emotion.constant
    assert emotion.at(0).weights == (("happy", 1.0),)
    np.testing.assert_array_equal(emotion.valence_arousal([0, 5, 1e6], "s"), [coordinates("happy")] * 3)


def test_weights_are_relative():
    mix = parse_emotion("happy:3+sad:1").at(0)
    assert mix.weights == (("happy", 0.75), ("sad", 0.25))
    expected = 0.75 * np.array(coordinates("happy")) + 0.25 * np.array(coordinates("sad"))
    np.testing.assert_allclose(mix.va, expected, atol=1e-12)
    happy = parse_emotion("happy").at(0).va
    assert parse_emotion("happy:0.2").at(0).va == pytest.approx((0.2 * happy[0], 0.2 * happy[1]))


def test_a_point_of_the_plane_has_no_label():
    mix = parse_emotion("va:0.4/-0.2").at(0)
    assert mix.weights == ()
    assert mix.va == (0.4, -0.2)


def test_a_mix_of_label_and_plane_keeps_both():
    mix = parse_emotion("Q1:3+va:-1/0").at(0)
    assert mix.weights == (("Q1", 0.75),)
    np.testing.assert_allclose(mix.va, [0.75 * 0.7 - 0.25, 0.75 * 0.7])


def test_a_curve_is_linear_between_and_held_outside():
    emotion = parse_emotion("neutral@1s,angry:1@3s")
    assert emotion.at(2).weights == (("neutral", 0.5), ("angry", 0.5))
    angry = np.array(coordinates("angry"))
    got = emotion.valence_arousal([0, 1, 1.5, 2, 3, 99], "s")
    np.testing.assert_allclose(got, np.outer([0, 0, 0.25, 0.5, 1, 1], angry), atol=1e-12)


def test_bars_and_percent_and_the_first_time_left_out():
    np.testing.assert_allclose(parse_emotion("Q4@0b,Q1@8b").valence_arousal([4], "b"), [[0.7, 0.0]])
    np.testing.assert_allclose(parse_emotion("Q4,Q1@100%").valence_arousal([50], "%"), [[0.7, 0.0]])


def test_a_clock_converts_units():
    emotion = parse_emotion("neutral,angry@8b")
    clock = Clock(seconds=32.0, bars=16.0)  # 2 s per bar: 8 bars are 16 s or 50 %
    for position, unit in ((8, "s"), (4, "b"), (25, "%")):
        assert emotion.at(position, unit, clock).weights == (("neutral", 0.5), ("angry", 0.5))
    with pytest.raises(AffgenError, match="cannot be placed in seconds"):
        emotion.at(1, "s")
    with pytest.raises(AffgenError, match="something that has bars"):
        emotion.at(1, "s", Clock(seconds=32.0))


def test_points_that_fall_out_of_order_are_refused():
    emotion = parse_emotion("sad@1s,happy@10%,angry@3s")
    assert emotion.at(2, "s", Clock(20)).weights == (("happy", 1.0),)
    assert "sort the times" in refusal(emotion.valence_arousal, [0], "s", Clock(100))
    assert "sort the times" in refusal(emotion.valence_arousal, [0], "s", Clock(10))


def test_label_weights_in_a_given_order():
    weights = parse_emotion("happy@0s,sad:1+va:0/0@4s").label_weights([0, 2, 4], "s", ["sad", "angry", "happy"])
    np.testing.assert_allclose(weights, [[0, 0, 1], [0.25, 0, 0.5], [0.5, 0, 0]])


def test_aliases_case_and_blanks():
    assert parse_emotion(" JOY : 0.6 + Sadness:0.4 @ 0 s , q1 @ 50 % ") == parse_emotion("happy:0.6+sad:0.4@0s,Q1@50%")


def test_an_emotion_passes_through():
    emotion = parse_emotion("happy")
    assert parse_emotion(emotion) is emotion
    curve = parse_intensity(0.5)
    assert parse_intensity(curve) is curve


def test_intensity_numbers_and_curves():
    assert parse_intensity(0.7).at(123) == 0.7
    assert parse_intensity("0").at(0) == 0
    assert parse_intensity(np.float32(0.5)).at(0) == 0.5
    np.testing.assert_allclose(parse_intensity("0.2@0s,1@4s").sample([-1, 0, 2, 4, 9], "s"), [0.2, 0.2, 0.6, 1, 1])
    assert parse_intensity("0,1.5@100%").at(8, "b", Clock(60, 16)) == 0.75


# --- refusals ---


BAD_POINTS = """
happy:0 happy:-1 happy:nan happy:inf happy:1e999 happy: happy:1e9 happy:a happy:1_0 happy:1:2
va:2/0 va:0/-1.1 va:nan/0 va:1 va:/ va va:0/0/0 va:0/0:2
hapy Q5 , happy, ,happy happy+ + happy++sad happy+joy @3s
happy@3 happy@ happy@s happy@-1s happy@101% happy@1e9s happy@nan% happy@1m happy@1s@2s happy@\u0661s
"""


@pytest.mark.parametrize("text", ["", " ", "happy\nsad", *BAD_POINTS.split()])
def test_one_bad_point_is_refused(text):
    assert "accepted" in refusal(parse_emotion, text)


@pytest.mark.parametrize(
    "text", ["sad@1s,happy@1s", "sad@2s,happy@1s", "sad,happy", "sad@0s,happy", "sad@0s,happy@0%", "sad,happy@0b"]
)
def test_unsorted_duplicate_and_missing_times_are_refused(text):
    assert "time" in refusal(parse_emotion, text)
    assert "time" in refusal(parse_intensity, text.replace("sad", "0").replace("happy", "1"))


@pytest.mark.parametrize(
    "value", [1.51, -0.01, math.nan, math.inf, True, None, [], "2", "nan", "inf", "", "high", "-0.1"]
)
def test_intensity_outside_is_refused_with_what_is_accepted(value):
    assert "accepted: 0 to 1.5" in refusal(parse_intensity, value)


def test_unknown_label_lists_labels_and_quadrants():
    message = refusal(parse_emotion, "happy:0.5+melancholy:0.5")
    assert "'melancholy'" in message
    assert all(name in message for name in LABELS + QUADRANTS)


def test_absurd_length_is_refused():
    assert "10000" in refusal(parse_emotion, "happy" + " " * 10_000)
    assert "10000" in refusal(parse_intensity, "1" * 10_001)


@pytest.mark.parametrize("value", [None, 3, ["happy"], b"happy"])
def test_not_text_is_refused(value):
    assert "is not text" in refusal(parse_emotion, value)


@pytest.mark.parametrize(("seconds", "bars"), [(0, None), (-1, None), (math.nan, 4), (math.inf, 4), (3, 0)])
def test_a_clock_needs_lengths(seconds, bars):
    assert "accepted" in refusal(Clock, seconds, bars)


def test_positions_must_be_finite_and_units_known():
    emotion = parse_emotion("happy")
    assert "finite" in refusal(emotion.valence_arousal, [0, math.nan], "s")
    assert "accepted: s, b or %" in refusal(emotion.valence_arousal, [0], "bars")


def test_require_labels_says_what_the_model_has():
    require_labels(parse_emotion("happy+va:0/1"), ["happy", "sad"])
    message = refusal(require_labels, parse_emotion("happy,disgust+Q1@3s"), ["happy", "sad"], "exp/vc")
    assert "disgust, Q1: not in exp/vc; model has: happy, sad" in message


# --- printing and parsing ---

numbers = st.floats(-1, 1)
weights = st.floats(0, 1000, exclude_min=True)
labelled = st.tuples(st.sampled_from(LABELS + QUADRANTS), weights).map(lambda x: (x[0], f"{x[0]}:{x[1]!r}"))
plane = st.tuples(numbers, numbers).map(lambda x: ("va", f"va:{x[0]!r}/{x[1]!r}"))
plain = st.sampled_from(LABELS + QUADRANTS).map(lambda x: (x, x))
mixes = st.lists(
    st.one_of(labelled, plane, plain), min_size=1, max_size=5, unique_by=lambda x: (x[0], x[1] if x[0] == "va" else "")
).map(lambda terms: "+".join(text.replace("e+", "e") for _, text in terms))
units = st.tuples(st.sampled_from("sb%"), st.lists(st.floats(0, 100), min_size=1, max_size=5, unique=True))


def curve_texts(values):
    def build(drawn):
        unit, times = drawn[0]
        points = (
            f"{value}@{time!r}{unit}" for value, time in zip(itertools.cycle(drawn[1]), sorted(times), strict=False)
        )
        return ",".join(points)

    return st.one_of(values, st.tuples(units, st.lists(values, min_size=1, max_size=3)).map(build))


@settings(max_examples=200, deadline=None)
@given(curve_texts(mixes))
def test_emotion_round_trip(text):
    emotion = parse_emotion(text)
    assert parse_emotion(str(emotion)) == emotion
    assert str(parse_emotion(str(emotion))) == str(emotion)


@settings(max_examples=200, deadline=None)
@given(curve_texts(st.floats(0, 1.5).map(repr)))
def test_intensity_round_trip(text):
    curve = parse_intensity(text)
    assert parse_intensity(str(curve)) == curve


@settings(max_examples=200, deadline=None)
@given(curve_texts(mixes), st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_readings_stay_in_range(text, positions):
    emotion = parse_emotion(text)
    unit = str(emotion.points[-1].time or "s")[-1]
    va = emotion.valence_arousal(positions, unit)
    assert va.shape == (len(positions), 2)
    assert np.abs(va).max() <= 1
    shares = emotion.label_weights(positions, unit, LABELS + QUADRANTS)
    assert shares.min() >= 0
    assert shares.sum(axis=1).max() <= 1 + 1e-9
    if "va:" not in text and all(sum(term.weight for term in point.terms) >= 1 for point in emotion.points):
        np.testing.assert_allclose(shares.sum(axis=1), 1)


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("happysadQ1va:/+,@.0123456789-eEsb% \n"), max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text):
    for parse, kind in ((parse_emotion, Emotion), (parse_intensity, Curve)):
        try:
            assert isinstance(parse(text), kind)
        except AffgenError as error:
            assert "\n" not in str(error)
