from __future__ import annotations

import sys

import numpy as np
import pytest

from affgen.audio import Audio
from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError
from affgen.features import HOP, SAMPLE_RATE, extract
from affgen.testing_voice import fabricated_voice
from vc import baselines
from vc.acoustics import described


@pytest.fixture(scope="module")
def voice() -> Audio:
    return Audio(fabricated_voice(4, "man", seconds=2.0).samples, SAMPLE_RATE)


@pytest.fixture(scope="module")
def world(voice: Audio) -> baselines.World:
    pytest.importorskip("pyworld")
    return baselines.analysed(voice)


def test_there_is_a_rule_for_every_label() -> None:
    assert tuple(baselines.RULES) == LABELS


@pytest.mark.parametrize("label", ["angry", "calm", "neutral"])
def test_gain_changes_the_level_alone(voice: Audio, label: str) -> None:
    louder = baselines.gain(voice, label, 0.5)
    expected = 10 ** (baselines.RULES[label].level_db * 0.5 / 20)
    np.testing.assert_allclose(louder.samples, voice.samples * expected, rtol=1e-5)
    assert louder.sample_rate == voice.sample_rate
    assert baselines.gain(voice, label, 0.0).samples.tobytes() == voice.samples.tobytes()


def test_vocoded_keeps_words_pitch_and_length(voice: Audio) -> None:
    copy = baselines.vocoded(voice)
    assert copy.sample_rate == SAMPLE_RATE and len(copy.samples) == len(voice.samples) // HOP * HOP
    a, b = described(extract(voice)), described(extract(copy))
    assert b["f0_p50"] == pytest.approx(a["f0_p50"], abs=0.5)
    assert b["spec_slope_mean"] == pytest.approx(a["spec_slope_mean"], abs=1.5)


def test_intensity_0_is_the_plain_resynthesis(voice: Audio, world: baselines.World) -> None:
    plain = baselines.rule(voice, "neutral", 1.0)
    for label in LABELS:
        assert world.spoken(label, 0.0).samples.tobytes() == plain.samples.tobytes()
    a, b = described(extract(voice)), described(extract(plain))
    assert len(plain.samples) == pytest.approx(len(voice.samples), abs=SAMPLE_RATE * 0.01)
    assert b["f0_p50"] == pytest.approx(a["f0_p50"], abs=0.5)
    loud = [np.sqrt(np.mean(sound.samples**2)) for sound in (voice, plain)]
    assert loud[1] == pytest.approx(loud[0], rel=0.2)


@pytest.mark.parametrize("label", LABELS[1:])
def test_changes_grow_with_the_intensity_as_the_rule_says(world: baselines.World, label: str) -> None:
    rule = baselines.RULES[label]
    sounds = [world.spoken(label, level) for level in (0.0, 0.5, 1.0)]
    tables = [described(extract(sound)) for sound in sounds]
    lengths = [len(sound.samples) for sound in sounds]
    assert lengths[2] / lengths[0] == pytest.approx(rule.pace, rel=0.01)
    assert lengths[1] / lengths[0] == pytest.approx(rule.pace**0.5, rel=0.01)
    heights = [table["f0_p50"] for table in tables]
    assert heights[2] - heights[0] == pytest.approx(rule.semitones, abs=1.5)
    assert heights[1] - heights[0] == pytest.approx(rule.semitones / 2, abs=1.5)
    slopes = [table["spec_slope_voiced"] for table in tables]
    if abs(rule.tilt_db) >= 1:
        assert np.sign(slopes[2] - slopes[0]) == np.sign(rule.tilt_db)
    spread = [table["f0_std"] for table in tables]
    if abs(rule.span) >= 0.2:
        assert np.sign(spread[2] - spread[0]) == np.sign(rule.span)


def test_the_rule_is_deterministic_and_finite_up_to_its_end(world: baselines.World) -> None:
    for label in ("sad", "surprised"):
        one, two = (world.spoken(label, baselines.MOST) for _ in range(2))
        assert one.samples.tobytes() == two.samples.tobytes()
        assert np.isfinite(one.samples).all() and one.samples.any()


def test_silence_and_noise_are_carried_through() -> None:
    pytest.importorskip("pyworld")
    rng = np.random.default_rng(0)
    for samples in (np.zeros(8000), rng.normal(0, 0.1, 8000)):
        sound = baselines.rule(Audio(samples, SAMPLE_RATE), "angry", 1.0)
        assert np.isfinite(sound.samples).all()


def test_what_no_rule_covers_is_refused(voice: Audio) -> None:
    for make in (baselines.gain, baselines.rule):
        for label, level in (("Q1", 1.0), ("bitter", 1.0), ("angry", 1.6), ("angry", -0.1), ("angry", float("nan"))):
            with pytest.raises(AffgenError, match="accepted"):
                make(voice, label, level)
    with pytest.raises(AffgenError, match="1024"):
        baselines.rule(Audio(np.ones(200), SAMPLE_RATE), "angry", 1.0)


def test_without_pyworld_it_says_what_to_install(voice: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(AffgenError, match=r"install affgen\[eval\]"):
        baselines.rule(voice, "angry", 1.0)
