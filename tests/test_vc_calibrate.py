"""Calibration: rising maps, their inverse, and a converter of known behaviour that comes out linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.audio import Audio, resample
from affgen.emotion.labels import LABELS
from affgen.errors import DataError
from affgen.testing_voice import fabricated_voice
from vc import calibrate as module
from vc.calibrate import (
    COLOURS,
    LEAST_GAP,
    STRENGTHS,
    TRUST,
    Listener,
    calibrate,
    colour_of,
    colours,
    inverted,
    monotone,
    moved_as_far,
    pitches,
)
from vc.config import MINIATURE
from vc.convert import VoiceConverter
from vc.pack import Parts
from vc.prosody import NAMES, response
from vc.wanted import GRID, Calibration

CLIPS = [Audio(np.zeros(4, np.float32), 22_050)] * 3
HEARD = st.lists(st.floats(-0.5, 3), min_size=len(STRENGTHS), max_size=len(STRENGTHS))

# --- monotone, inverted ----------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_monotone_rises_and_is_as_near_as_can_be(values: list[float]) -> None:
    found = monotone(np.array(values))
    assert len(found) == len(values) and (np.diff(found) >= -1e-12).all() and (found >= 0).all()
    if all(b >= a for a, b in zip([0.0, *values], values, strict=False)):
        assert np.allclose(found, values)
    rng = np.random.default_rng(0)  # no other rising sequence is nearer
    error = np.sum((found - values) ** 2)
    for _ in range(20):
        other = np.maximum(np.sort(found + 0.3 * rng.standard_normal(len(found))), 0)
        assert np.sum((other - values) ** 2) >= error - 1e-9


def test_violators_are_pooled() -> None:
    assert np.allclose(monotone(np.array([0.1, 0.5, 0.3, 0.9])), [0.1, 0.4, 0.4, 0.9])
    assert np.allclose(monotone(np.array([3.0, 2, 1])), 2) and np.allclose(monotone(np.array([-1.0, -2, 1])), [0, 0, 1])


@settings(max_examples=200, deadline=None)
@given(HEARD)
def test_an_inverse_is_a_calibration(heard: list[float]) -> None:
    strengths, reached = inverted(np.array(heard))
    assert strengths.shape == (len(GRID),) and strengths[0] == 0
    assert (np.diff(strengths) >= 0).all() and strengths[-1] <= STRENGTHS[-1]
    assert 0 <= reached <= GRID[-1] + 1e-3 and (reached > 0 or max(monotone(np.array(heard))) < 1e-3)
    arrays = Calibration.identity(LABELS).arrays()
    arrays["strengths"][3], arrays["reached"][3] = strengths, reached
    Calibration.from_arrays(LABELS, arrays)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.05, 0.8), min_size=6, max_size=6))
def test_what_is_heard_as_it_rises_is_undone(steps: list[float]) -> None:
    heard = np.cumsum(steps)
    strengths, reached = inverted(heard)
    again = np.interp(strengths, (0.0, *STRENGTHS), (0.0, *heard))
    full = heard[STRENGTHS.index(1.0)]
    assert np.allclose(again, np.minimum(np.array(GRID) * full, heard[-1]), atol=1e-3)
    assert reached == pytest.approx(min(GRID[-1], heard[-1] / full), abs=1e-4)
    assert strengths[GRID.index(1.0)] == pytest.approx(1.0, abs=1e-4)


def test_what_is_heard_as_asked_stays() -> None:
    strengths, reached = inverted(np.array(STRENGTHS))
    assert np.allclose(strengths, GRID, atol=1e-4) and reached == pytest.approx(1.5, abs=1e-4)


def test_the_strength_goes_no_further_than_the_model() -> None:
    strengths, reached = inverted(np.array([0.2, 0.4, 0.6, 0.8, 0.8, 0.8]))
    assert reached == pytest.approx(1.0, abs=1e-4)
    assert strengths[-1] == pytest.approx(1.0, abs=1e-3)


# --- a converter whose behaviour is known ----------------------------------------------------------------------------


class Known:
    """Converts to a sound that holds nothing but the strength and the colour it was made with."""

    def __init__(self, colour: Any, parts: Any = None) -> None:
        self.colour, self.parts = np.asarray(colour), parts

    def having(self, prosody: Any) -> Known:
        return Known(self.colour, replace(self.parts, prosody=prosody))

    def convert(self, clip: Audio, label: str, strength: float) -> Audio:
        return Audio(np.array([strength, self.colour[LABELS.index(label)]], np.float32), 22_050)


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch, converter: VoiceConverter) -> Callable[..., Parts]:
    """Calibrate a converter that is heard as ``response`` (strength) says."""

    def measure(response: Callable[[float], float], labels: tuple[str, ...] = ("angry",), **how: Any) -> Parts:
        listener = SimpleNamespace(
            hear=lambda audio: float(audio.samples[0]), moved=lambda heard, anchor, label: response(heard)
        )
        monkeypatch.setattr(module, "Listener", lambda strong: listener)
        monkeypatch.setattr(module, "colours", lambda converter, strong: np.ones(len(LABELS)))
        monkeypatch.setattr(module, "moved_as_far", lambda converter, strong: converter.parts.prosody)
        monkeypatch.setattr(module, "with_colour", lambda converter, colour: Known(colour, converter.parts))
        monkeypatch.setattr(module, "VoiceConverter", lambda parts: Known(parts.calibration.colour, parts))
        pairs = {label: [(CLIPS[0], CLIPS[0])] for label in labels}
        return calibrate(converter, CLIPS, pairs, **how)

    return measure


@pytest.fixture
def measured(calibrated: Callable[..., Parts]) -> Callable[..., Calibration]:
    """The calibration alone of what was calibrated."""
    return lambda *what, **how: calibrated(*what, **how).calibration


def test_of_the_prosody_the_shares_are_kept(calibrated: Callable[..., Parts], converter: VoiceConverter) -> None:
    config, learned = MINIATURE, converter.parts.prosody
    found = calibrated(lambda s: s).prosody
    shares = dict.fromkeys(("voiced", "unvoiced", "pause"), config.time_share)
    pitch = np.where(np.array(learned.labels) == "angry", config.pitch_shares[0], 1)  # heard well enough with least
    shares |= {"range": config.range_share, "slope": config.slope_share}
    shares |= {"dynamics": config.dynamics_share, "motion": config.motion_share}
    expected = learned.shared(pitch=pitch, **shares)
    assert np.array_equal(found.offset, expected.offset) and np.array_equal(found.by_register, expected.by_register)
    assert not np.array_equal(found.offset, learned.offset)


@pytest.mark.parametrize(
    "response", [lambda s: s**2, lambda s: 1.2 * np.sqrt(s), lambda s: 0.4 * s + 0.5 * s**3, lambda s: 2.0 * s]
)
def test_a_known_response_comes_out_linear(
    measured: Callable[..., Calibration], response: Callable[[float], float]
) -> None:
    found, full = measured(response), response(MINIATURE.full_strength)
    asked = np.linspace(0, min(1.5, response(1.5) / full), 13)
    heard = np.array([response(s) for s in found.strength("angry", asked)]) / full
    assert np.abs(heard - asked).max() < 0.15  # between the strengths tried, the map is a line
    assert np.abs(heard - asked).mean() < 0.05
    assert found.strength("angry", np.array(1.0)) == pytest.approx(MINIATURE.full_strength, abs=1e-3)


@pytest.mark.parametrize("most", [0.0, 0.45, 0.9, 1.2, 1.4])
def test_a_model_that_saturates_is_told_to(measured: Callable[..., Calibration], most: float) -> None:
    found = measured(lambda s: min(s, most))
    full = float(np.interp(MINIATURE.full_strength, STRENGTHS, np.minimum(STRENGTHS, most)))  # as it was measured
    reached = most / full if most else 0.0
    assert found.reached[LABELS.index("angry")] == pytest.approx(reached, abs=1e-4)
    heard = [min(float(s), most) for s in found.strength("angry", np.array(GRID))]
    assert np.allclose(heard, full * np.minimum(GRID, reached), atol=0.07)


def test_a_model_that_falls_again_reaches_no_more_than_it_does(measured: Callable[..., Calibration]) -> None:
    found = measured(lambda s: s if s < 0.9 else 1.8 - s)
    assert found.reached[LABELS.index("angry")] == pytest.approx(1.0, abs=1e-4)
    assert found.strengths[LABELS.index("angry")].max() < 0.9


def test_a_model_that_goes_the_wrong_way_reaches_nothing(measured: Callable[..., Calibration]) -> None:
    found = measured(lambda s: -s)
    assert found.reached[LABELS.index("angry")] == pytest.approx(0, abs=1e-4)
    assert np.isfinite(found.strengths).all()


def test_labels_without_pairs_keep_what_is_asked_and_neutral_has_none(measured: Callable[..., Calibration]) -> None:
    lines: list[str] = []
    found = measured(lambda s: s**2, ("neutral", "sad"), report=lines.append)
    for label in set(LABELS) - {"sad"}:
        assert np.array_equal(found.strengths[LABELS.index(label)], GRID)
    assert found.strengths[LABELS.index("sad"), 1] == pytest.approx(MINIATURE.full_strength / 2, abs=0.02)
    assert len(lines) == 1 and lines[0].startswith("sad: heard [")


def test_without_clips_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError, match="no neutral clips"):
        calibrate(SimpleNamespace(labels=LABELS), [], {})  # type: ignore[arg-type]


# --- the listener ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that hears the first sample."""
    space = SimpleNamespace(project=lambda rows, label, anchor: (rows - anchor)[:, 0])
    encoder = SimpleNamespace(space=space, encode=lambda audio: SimpleNamespace(embedding=audio.samples[:1]))
    monkeypatch.setattr(module, "EmotionEncoder", SimpleNamespace(from_pretrained=lambda: encoder))


def sound(*values: float) -> Audio:
    return Audio(np.array(values, np.float32), 22_050)


@pytest.mark.usefixtures("hears")
def test_a_listener_counts_in_natural_gaps() -> None:
    listener = Listener({"angry": [(sound(2), sound(0)), (sound(3), sound(1)), (sound(9), sound(0))]})
    assert listener.gaps["angry"] == pytest.approx(2)
    moved = [listener.moved(listener.hear(sound(at)), listener.hear(sound(1)), "angry") for at in (3, 1, 0)]
    assert moved == pytest.approx([1.0, 0.0, -0.5])


@pytest.mark.usefixtures("hears")
def test_a_gap_that_is_none_is_not_divided_by() -> None:
    listener = Listener({"calm": [(sound(0), sound(1))]})
    assert listener.gaps["calm"] == LEAST_GAP


# --- prosody ---------------------------------------------------------------------------------------------------------


def test_prosody_comes_nearer_to_what_speakers_do(converter: VoiceConverter) -> None:
    plain = Audio(fabricated_voice(5, "man", seconds=1.0, snr_db=60).samples, 22_050)
    raised = Audio(resample(plain.samples, round(22_050 * 2**0.3), 22_050), 22_050)  # as if played faster
    hiss = Audio(0.1 * np.random.default_rng(0).standard_normal(9000).astype(np.float32), 22_050)
    idle = SimpleNamespace(parts=converter.parts, convert=lambda clip, label, strength: clip)
    pairs = {"sad": [(raised, plain), (hiss, plain)], "calm": [(hiss, hiss)]}
    before, after = converter.parts.prosody, moved_as_far(idle, pairs)  # type: ignore[arg-type]
    change, sad = after.offset - before.offset, before.labels.index("sad")
    assert change[sad, NAMES.index("pitch")] == pytest.approx(0.3 * TRUST, abs=0.03)
    assert change[sad, NAMES.index("gain")] == 0 and not np.delete(change, sad, axis=0).any()


def raised(prosody: Any, label: str) -> float:
    return float(prosody.offset[prosody.labels.index(label), NAMES.index("pitch")])


@pytest.mark.parametrize(
    ("heard", "most", "expected"),
    [
        (lambda share: share, 9.0, 0.85),  # between the shares tried
        (lambda share: 2 * share, 9.0, 0.425),
        (lambda share: 0.5, 9.0, 1.3),  # never heard enough
        (lambda share: 0.9, 9.0, 0.4),  # always
        (lambda share: -share, 9.0, 1.3),
        (lambda share: share, 0.5, 0.5),  # as high as it may go
        (lambda share: share, 0.1, 0.4),  # but not lower than the least
    ],
)
def test_f0_moves_as_far_as_is_needed_to_be_heard(
    converter: VoiceConverter, heard: Callable[[float], float], most: float, expected: float
) -> None:
    learned = converter.parts.prosody
    at, sad = NAMES.index("pitch"), learned.labels.index("sad")
    offset = learned.offset.copy()
    offset[sad, at] = 1 / float(response(np.array(1.3), learned.half[sad, at]))  # an octave at full strength
    config = replace(MINIATURE, heard=0.85, pitch_shares=(0.4, 0.7, 1.0, 1.3), pitch_most=most, full_strength=1.3)
    ready = converter.having(prosody=replace(learned, offset=offset), config=config)

    def listen(by: VoiceConverter, label: str, strength: float) -> float:
        assert (label, strength) == ("sad", 1.3)
        return heard(raised(by.parts.prosody, "sad") / offset[sad, at])

    found = pitches(ready, ["sad"], listen)
    assert found[sad] == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(np.delete(found, sad), np.ones(6))


# --- colours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("natural", "expected"), [(1.0, 1.0), (2.0, 2.0), (2.6, 2.6), (9.0, COLOURS[1]), (0.7, 0.7), (-2.0, COLOURS[0])]
)
def test_a_colour_makes_up_for_what_lacks(monkeypatch: pytest.MonkeyPatch, natural: float, expected: float) -> None:
    shape = np.random.default_rng(0).standard_normal(80)
    monkeypatch.setattr(module, "with_colour", lambda converter, colour: Known(colour))
    monkeypatch.setattr(module, "colour_of", lambda audio: audio.samples[1] * shape)
    strong = {"sad": 30 * [(sound(0, natural), sound(0, 0))]}
    found = colours(SimpleNamespace(labels=LABELS), strong)  # type: ignore[arg-type]
    assert found[LABELS.index("sad")] == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(np.delete(found, LABELS.index("sad")), np.ones(7))


def test_a_colour_hears_no_gain() -> None:
    voice = fabricated_voice(5, "woman", seconds=0.8, snr_db=60).samples
    one, other = (colour_of(Audio(gain * voice, 22_050)) for gain in (np.float32(1), np.float32(0.2)))
    assert one.shape == (80,) and np.abs(one - other).max() < 0.02


def test_a_sound_without_voice_spoils_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    hiss = Audio(0.1 * np.random.default_rng(0).standard_normal(9000).astype(np.float32), 22_050)
    monkeypatch.setattr(module, "with_colour", lambda converter, colour: SimpleNamespace(convert=lambda *_: hiss))
    found = colours(SimpleNamespace(labels=LABELS), {"sad": [(hiss, hiss)]})  # type: ignore[arg-type]
    assert np.isfinite(found).all()
