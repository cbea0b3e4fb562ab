"""From words to strengths: mixes, curves, the plane, quadrants, references, and the emotion of the source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.emotion.labels import LABELS, coordinates
from affgen.emotion.spec import Clock, parse_emotion, parse_intensity
from affgen.errors import AffgenError
from vc import wanted as module
from vc.wanted import GRID, LARGEST, Calibration, Strengths, coloured, like_reference, wanted

NOW = np.zeros(1)
HULL = [LABELS[k] for k in range(1, len(LABELS))]


@pytest.fixture(scope="module")
def parts(converter: Any) -> Any:
    """Those of the miniature, with strength = intensity."""
    return replace(converter.parts, calibration=Calibration.identity(LABELS))


def ask(parts: Any, emotion: str, intensity: Any = 1.0, seconds: Any = NOW, clock: Clock | None = None) -> Strengths:
    return wanted(parse_emotion(emotion), parse_intensity(intensity), parts, np.asarray(seconds, float), clock)


def named(found: Strengths, row: int = 0) -> dict[str, float]:
    """The labels that have a strength."""
    return {name: float(v) for name, v in zip(HULL, found.labels[row], strict=True) if v > 1e-9}


# --- labels and mixes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "intensity", "expected"),
    [
        ("angry", 1.0, {"angry": 1.0}),
        ("angry", 0.3, {"angry": 0.3}),
        ("angry", 1.5, {"angry": 1.5}),
        ("neutral", 1.0, {}),
        ("angry", 0.0, {}),
        ("happy:0.6+sad:0.4", 1.0, {"happy": 0.6, "sad": 0.4}),
        ("happy:0.2", 1.0, {"happy": 0.2}),
        ("happy:3+sad:1", 0.5, {"happy": 0.375, "sad": 0.125}),
        ("happy:0.5+neutral:0.5", 1.0, {"happy": 0.5}),
        ("happy+neutral", 1.0, {"happy": 0.5}),
    ],
)
def test_a_mix_is_its_weights_times_the_intensity(
    parts: Any, spec: str, intensity: float, expected: dict[str, float]
) -> None:
    found = ask(parts, spec, intensity)
    assert named(found) == pytest.approx(expected)
    assert found.labels.shape == (1, 7) and found.asked == pytest.approx([intensity])
    rows = dict(zip(HULL, parts.feeling.prototypes[1:], strict=True))
    assert np.allclose(found.emotion[0], sum((w * rows[n] for n, w in expected.items()), np.zeros(4)), atol=1e-6)
    assert found.change is bool(expected)


def test_strengths_are_those_of_the_calibration(converter: Any) -> None:
    found = ask(converter.parts, "happy", 0.25)
    assert named(found) == pytest.approx({"happy": 0.5})
    assert named(ask(converter.parts, "happy", 1.5)) == pytest.approx({"happy": 1.3}, abs=1e-6)
    assert named(ask(converter.parts, "happy:0.5+angry:0.5", 0.25)) == pytest.approx({"happy": 0.25, "angry": 0.125})
    assert named(ask(converter.parts, "happy:0.5+angry:0.5", 1.0)) == pytest.approx({"happy": 0.8, "angry": 0.5})


def test_colour_enlarges_what_the_decoder_is_told_and_nothing_else(parts: Any) -> None:
    colour = np.ones(len(LABELS))
    colour[LABELS.index("sad")] = 2.5
    bright = replace(parts, calibration=replace(parts.calibration, colour=colour))
    plain, found = (ask(which, "sad:0.5+angry:0.5", 1.0) for which in (parts, bright))
    assert np.array_equal(plain.labels, found.labels)
    extra = 1.5 * 0.5 * parts.feeling.prototype("sad")
    assert np.allclose(found.emotion[0] - plain.emotion[0], extra, atol=1e-6)


def test_identity_enlarges_all_directions_but_the_first(parts: Any) -> None:
    plain = ask(parts, "sad", 0.7)
    found = ask(replace(parts, config=replace(parts.config, identity=1.6)), "sad", 0.7)
    assert np.array_equal(plain.labels, found.labels)
    assert np.allclose(found.emotion, plain.emotion * [1, 1.6, 1.6, 1.6], atol=1e-6)


# --- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_linear_between_their_points_and_held_outside(parts: Any) -> None:
    seconds = [0.0, 1, 2, 3, 9]
    found = ask(parts, "neutral@1s,angry@3s", 1.0, seconds)
    assert np.allclose(found.labels[:, HULL.index("angry")], [0, 0, 0.5, 1, 1])
    found = ask(parts, "angry", "0.2@1s,1@3s", seconds)
    assert np.allclose(found.asked, [0.2, 0.2, 0.6, 1, 1]) and np.allclose(found.labels.sum(axis=1), found.asked)
    both = ask(parts, "happy@1s,sad@3s", "0@0s,1@2s", seconds)
    assert np.allclose(both.labels[:, HULL.index("happy")], [0, 0.5, 0.5, 0, 0])
    assert np.allclose(both.labels[:, HULL.index("sad")], [0, 0, 0.5, 1, 1])


def test_percent_needs_a_clock(parts: Any) -> None:
    found = ask(parts, "neutral@0%,angry@100%", 1.0, [0.0, 2, 4], Clock(4.0))
    assert np.allclose(found.labels.sum(axis=1), [0, 0.5, 1])
    with pytest.raises(AffgenError, match="100%: cannot be placed in seconds"):
        ask(parts, "neutral@0%,angry@100%")
    with pytest.raises(AffgenError, match="50%: cannot be placed in seconds"):
        ask(parts, "angry", "0@0s,1@50%")
    with pytest.raises(AffgenError, match="50%: cannot be placed in seconds"):
        like_reference(np.ones(4), parse_intensity("0@0s,1@50%"), parts, NOW)
    with pytest.raises(AffgenError, match="bars"):
        ask(parts, "neutral@0b,angry@2b", clock=Clock(4.0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.floats(0.01, 5)), min_size=1, max_size=4, unique_by=lambda t: t[0]),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    st.floats(0, 1.5),
)
def test_no_mix_is_stronger_than_its_intensity(
    converter: Any, terms: list[tuple[str, float]], va: tuple[float, float], intensity: float
) -> None:
    parts = replace(converter.parts, calibration=Calibration.identity(LABELS))
    spec = "+".join(f"{name}:{weight:.3f}" for name, weight in terms) + f"+va:{va[0]:.4f}/{va[1]:.4f}@0s,Q2:0.5+sad@2s"
    found = ask(parts, spec, intensity, np.linspace(0, 3, 7))
    assert (found.labels >= 0).all()
    assert (found.labels.sum(axis=1) <= intensity + 1e-9).all()


# --- the plane -------------------------------------------------------------------------------------------------------


def place(weights: dict[str, float]) -> np.ndarray:
    """Valence and arousal of a mix."""
    return np.sum([weight * np.array(coordinates(name)) for name, weight in weights.items()], axis=0)


@pytest.mark.parametrize("angle", range(-180, 180, 20))
def test_a_point_within_the_labels_is_met_by_the_two_that_enclose_it(parts: Any, angle: int) -> None:
    point = 0.3 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    weights = named(ask(parts, f"va:{point[0]:.6f}/{point[1]:.6f}"))
    assert 1 <= len(weights) <= 2 and sum(weights.values()) <= 1
    assert np.allclose(place(weights), point, atol=1e-5)


@pytest.mark.parametrize("label", HULL)
def test_a_label_may_be_said_by_its_place(parts: Any, label: str) -> None:
    valence, arousal = coordinates(label)
    weights = named(ask(parts, f"va:{valence}/{arousal}"))
    assert weights == pytest.approx({label: 1.0}, abs=1e-6)


@pytest.mark.parametrize("quadrant", ["Q1", "Q2", "Q3", "Q4"])
def test_a_quadrant_lies_on_its_side(parts: Any, quadrant: str) -> None:
    weights = named(ask(parts, quadrant))
    assert sum(weights.values()) <= 1 + 1e-9 and len(weights) == 2
    assert (np.sign(place(weights)) == np.sign(coordinates(quadrant))).all()


def test_the_middle_of_the_plane_is_neutral(parts: Any) -> None:
    assert not ask(parts, "va:0/0").change
    assert named(ask(parts, "va:0/0+happy")) == pytest.approx({"happy": 0.5})


def test_a_point_and_a_label_add_up(parts: Any) -> None:
    valence, arousal = coordinates("happy")
    assert named(ask(parts, f"happy+va:{valence}/{arousal}")) == pytest.approx({"happy": 1.0})


@pytest.mark.parametrize("names", [("neutral", "happy"), ("neutral", "happy", "angry"), ("neutral", "sad", "calm")])
@pytest.mark.parametrize("point", [(0.0, -0.8), (0.5, 0.5), (-0.7, 0.1)])
def test_few_labels_give_what_they_can(names: tuple[str, ...], point: tuple[float, float]) -> None:
    weights = module._enclosing(point, names)
    assert all(value >= 0 and np.isfinite(value) for value in weights.values()) and sum(weights.values()) <= 1 + 1e-9
    assert set(weights) <= set(names)


def test_labels_that_the_model_lacks_are_refused_with_those_it_has(parts: Any) -> None:
    feeling = replace(parts.feeling, labels=LABELS[:3], prototypes=parts.feeling.prototypes[:3])
    few = replace(parts, feeling=feeling, calibration=Calibration.identity(LABELS[:3]))
    with pytest.raises(AffgenError, match="sad: not in this model; model has: neutral, calm, happy"):
        ask(few, "happy@0s,sad@2s")
    assert ask(few, "Q1").labels.shape == (1, 2)


# --- the emotion of the source ---------------------------------------------------------------------------------------


def test_of_the_sources_emotion_is_left_what_is_not_asked_away(parts: Any) -> None:
    levels = np.array([0.0, 0.25, 1.0, 1.5])
    found = ask(parts, "happy", "0@0s,1.5@6s", levels * 4).from_source("sad", parts)
    assert np.allclose(found.labels[:, HULL.index("sad")], [1, 0.75, 0, 0])
    assert np.allclose(found.labels[:, HULL.index("happy")], levels)
    sad, happy = (parts.feeling.prototype(name) for name in ("sad", "happy"))
    assert np.allclose(found.emotion, np.outer([1, 0.75, 0, 0], sad) + np.outer(levels, happy), atol=1e-6)
    assert np.allclose(found.anchor, np.eye(7)[HULL.index("sad")]) and np.allclose(found.origin, sad)


def test_a_neutral_source_changes_nothing(parts: Any) -> None:
    found = ask(parts, "happy")
    assert found.from_source("neutral", parts) is found


def test_an_emotional_source_becomes_neutral_when_neutral_is_asked(parts: Any) -> None:
    found = ask(parts, "neutral", 1.0).from_source("angry", parts)
    assert found.change and not found.labels.any() and np.abs(found.emotion).max() < 1e-6
    assert not ask(parts, "neutral", 0.0).from_source("angry", parts).change
    assert not ask(parts, "happy", 0.0).from_source("angry", parts).change


def test_the_sources_emotion_is_calibrated_and_coloured(converter: Any) -> None:
    colour = np.full(len(LABELS), 2.0)
    parts = replace(converter.parts, calibration=replace(converter.parts.calibration, colour=colour))
    found = ask(parts, "sad", 0.5).from_source("happy", parts)
    strength = float(parts.calibration.strength("happy", np.array(1.0)))
    assert np.allclose(found.origin, strength * coloured(parts)[HULL.index("happy")], atol=1e-6)


# --- references ------------------------------------------------------------------------------------------------------


def test_a_reference_at_a_prototype_is_the_label(parts: Any) -> None:
    for label in ("angry", "calm"):
        found = like_reference(parts.feeling.prototype(label), parse_intensity(0.5), parts, NOW)
        assert found.emotion[0] == pytest.approx(0.5 * parts.feeling.prototype(label), abs=1e-5)
        assert 0 < found.labels.sum() <= LARGEST and np.allclose(found.asked, 0.5)


def test_a_neutral_reference_asks_for_nothing(parts: Any) -> None:
    assert not like_reference(np.zeros(4), parse_intensity(1.0), parts, NOW).change
    assert not like_reference(np.ones(4), parse_intensity(0.0), parts, NOW).change


def test_a_reference_follows_a_curve(parts: Any) -> None:
    curve = parse_intensity("0@0s,1@2s")
    found = like_reference(parts.feeling.prototype("sad"), curve, parts, np.array([0.0, 1, 2]))
    assert np.allclose(found.emotion, np.outer([0, 0.5, 1], parts.feeling.prototype("sad")), atol=1e-5)


def test_a_reference_far_out_is_held_like_its_labels(parts: Any) -> None:
    prototype = parts.feeling.prototype("angry")
    found = like_reference(5 * prototype, parse_intensity(1.0), parts, NOW)
    assert found.labels.sum() <= LARGEST + 1e-6
    assert np.linalg.norm(found.emotion[0]) <= 1.5 * np.linalg.norm(prototype)


# --- calibrations ----------------------------------------------------------------------------------------------------


def test_a_calibration_is_kept_by_its_arrays(converter: Any) -> None:
    own = converter.parts.calibration
    again = Calibration.from_arrays(LABELS, own.arrays())
    assert np.allclose(again.strength("happy", np.array([0, 0.125, 1.5, 9])), [0, 0.25, 1.3, 1.3], atol=1e-6)
    assert np.allclose(again.reached, own.reached)


@pytest.mark.parametrize("fault", ["falls", "starts above 0", "shape"])
def test_what_is_no_rising_map_is_refused(fault: str) -> None:
    arrays = Calibration.identity(LABELS).arrays()
    if fault == "falls":
        arrays["strengths"][2, 3] = 0.1
    elif fault == "starts above 0":
        arrays["strengths"][2, 0] = 0.1
    else:
        arrays["strengths"] = arrays["strengths"][:, :-1]
    with pytest.raises(AffgenError, match="does not rise"):
        Calibration.from_arrays(LABELS, arrays)


@pytest.mark.parametrize("name", ["strengths", "reached", "colour"])
def test_a_calibration_that_is_not_finite_is_refused(name: str) -> None:
    arrays = Calibration.identity(LABELS).arrays()
    arrays[name][..., len(GRID) // 2] = np.nan
    with pytest.raises(AffgenError):
        Calibration.from_arrays(LABELS, arrays)
