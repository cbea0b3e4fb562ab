"""Content: an envelope that knows no F0, no level and no mean, and the ripple that was taken out of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.features import BANDS, FLOOR, SAMPLE_RATE, log_mel
from vc import content

OPEN, FRONT = ((730, 70), (1090, 90), (2440, 130)), ((270, 70), (2290, 90), (3010, 130))
VOICED = slice(0, 60)
"""Bands up to 4.4 kHz: above, the formants are too weak to be told from the floor."""


def vowel(f0: float, formants: tuple[tuple[int, int], ...] = OPEN) -> np.ndarray:
    """Harmonics of equal power per hertz through three formants, 0.4 s."""
    from scipy.signal import lfilter

    time = np.arange(round(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.sqrt(f0) * sum(np.cos(2 * np.pi * k * f0 * time) for k in range(1, int(10_000 / f0)))
    for centre, width in formants:
        radius = np.exp(-np.pi * width / SAMPLE_RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * centre / SAMPLE_RATE), radius**2]
        sound = lfilter([sum(poles)], poles, sound)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def analysed(samples: np.ndarray, f0: float) -> tuple[np.ndarray, np.ndarray]:
    """Levelled mel (80, T) without its ends, and a constant F0 (T,)."""
    mel = log_mel(samples)[:, 8:-8]
    return content.levelled(mel, content.level(content.log_energy(mel))), np.full(mel.shape[1], f0, np.float32)


# --- envelope, ripple ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(90, 140), (110, 220), (140, 260), (90, 260)])
def test_the_envelope_hardly_depends_on_f0(low: float, high: float) -> None:
    (a, fa), (b, fb) = analysed(vowel(low), low), analysed(vowel(high), high)
    raw = np.abs(a.mean(axis=1) - b.mean(axis=1))[VOICED].mean()
    apart = np.abs(content.envelope(a, fa).mean(axis=1) - content.envelope(b, fb).mean(axis=1))[VOICED].mean()
    assert apart < 0.5 and apart < raw / 3, (apart, raw)


def test_the_envelope_tells_vowels_apart_whatever_the_f0() -> None:
    seen = {
        (name, f0): content.envelope(*analysed(vowel(f0, formants), f0)).mean(axis=1)[VOICED]
        for name, formants in (("open", OPEN), ("front", FRONT))
        for f0 in (110, 220)
    }
    same = max(np.abs(seen[name, 110] - seen[name, 220]).mean() for name in ("open", "front"))
    other = min(np.abs(seen["open", a] - seen["front", b]).mean() for a in (110, 220) for b in (110, 220))
    assert other > 2.5 * same, (other, same)


@pytest.mark.parametrize("f0", [80.0, 113.0, 150.0, 220.0, 330.0])
def test_ripple_and_envelope_make_up_the_mel_of_a_pulse_train(f0: float) -> None:
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    pulses = 0.01 * sum(np.cos(2 * np.pi * k * f0 * time) for k in range(1, int(11_000 / f0) + 1))
    mel = log_mel(pulses.astype(np.float32))[:, 8:-8]
    contour = np.full(mel.shape[1], f0, np.float32)
    smooth = content.envelope(mel, contour)
    left = np.abs(mel - smooth - content.ripple(contour)).mean()
    assert left < 0.35 * np.abs(mel - smooth).mean()


def test_the_ripple_is_nought_where_there_is_no_voice_and_moves_steadily_with_f0() -> None:
    f0 = np.concatenate([np.zeros(3), np.geomspace(60, 600, 2000)]).astype(np.float32)
    ripple = content.ripple(f0)
    assert ripple.shape == (BANDS, len(f0)) and ripple.dtype == np.float32
    assert not ripple[:, :3].any() and ripple[:, 3:].any(axis=0).all()
    assert np.abs(np.diff(ripple[:, 3:], axis=1)).max() < 0.5  # a frame to the next: 0.12 % of F0
    extremes = content.ripple(np.array([1e-3, 20.0, 1100.0, 5000.0]))
    assert np.isfinite(extremes).all()


def test_the_envelope_of_something_flat_is_flat() -> None:
    f0 = np.array([0.0, 50.0, 65.0, 120.0, 300.0, 1000.0, 9000.0])
    assert np.allclose(content.envelope(np.full((BANDS, 7), -2.5), f0), -2.5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-5, 5), st.integers(1, 6))
def test_a_constant_passes_the_envelope_and_not_the_cepstra(seed: int, by: float, frames: int) -> None:
    rng = np.random.default_rng(seed)
    mel, f0 = rng.normal(-3, 2, (BANDS, frames)), rng.choice([0.0, 70.0, 130.0, 400.0], frames)
    assert np.allclose(content.envelope(mel + by, f0), content.envelope(mel, f0) + by, atol=1e-4)
    assert np.allclose(content.cepstra(mel + by, f0, 24), content.cepstra(mel, f0, 24), atol=1e-3)


# --- level -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.1, 0.3, 3.0])
def test_a_gain_changes_nothing_but_the_level(gain: float) -> None:
    samples = np.concatenate([vowel(120), 1e-3 * vowel(150)])
    mels = [log_mel(samples), log_mel(np.float32(gain) * samples)]
    levels = [content.level(content.log_energy(mel)) for mel in mels]
    assert levels[1] - levels[0] == pytest.approx(np.log(gain), abs=1e-3)
    one, other = (content.levelled(mel, level) for mel, level in zip(mels, levels, strict=True))
    assert np.abs(one - other).max() < 5e-3


def test_the_level_is_that_of_speech_not_of_the_pauses() -> None:
    mel = log_mel(vowel(120))
    padded = np.concatenate([mel, np.full((BANDS, 500), np.log(FLOOR))], axis=1)
    assert content.level(content.log_energy(padded)) == pytest.approx(content.level(content.log_energy(mel)), abs=1e-5)


def test_the_log_energy_is_half_the_log_of_the_squares() -> None:
    mel = np.random.default_rng(0).normal(-2, 2, (BANDS, 5))
    assert np.allclose(content.log_energy(mel), 0.5 * np.log((np.exp(mel) ** 2).sum(axis=0)))
    assert np.isfinite(content.log_energy(np.full((BANDS, 1), 500.0))).all()


# --- timbre, register, places ----------------------------------------------------------------------------------------


def test_timbre_is_the_mean_where_there_is_speech() -> None:
    values, energy = np.arange(12.0).reshape(2, 6), np.array([0.0, -1, -9, -0.5, -20, -3.9])
    assert np.allclose(content.timbre(values, energy), values[:, [0, 1, 3, 5]].mean(axis=1))


def test_register_is_the_median_of_what_is_voiced() -> None:
    assert content.register(np.array([0.0, 100, 0, 200, 400])) == pytest.approx(np.log2(200))
    assert content.register(np.zeros(7)) == pytest.approx(np.log2(160))


def test_between_frames_values_lie_on_a_line() -> None:
    values = np.array([[0.0, 2, 6], [1, 1, 5]])
    found = content.between(values, np.array([-3.0, 0, 0.5, 1.25, 2, 9]))
    assert np.allclose(found, [[0, 0, 1, 3, 6, 6], [1, 1, 1, 2, 5, 5]])
    assert np.allclose(content.between(values[:, :1], np.array([-1.0, 0, 3])), values[:, :1])


@pytest.mark.parametrize("f0", [0.0, 150.0])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_frame_or_two_are_enough(f0: float, frames: int) -> None:
    mel, contour = np.full((BANDS, frames), -3.0), np.full(frames, f0)
    energy = content.log_energy(mel)
    values = content.cepstra(mel, contour, 24)
    assert values.shape == (24, frames) and content.timbre(values, energy).shape == (24,)
    assert content.ripple(contour).shape == (BANDS, frames)
    assert np.isfinite(content.level(energy))


def test_silence_has_a_content_without_shape() -> None:
    mel = np.full((BANDS, 20), np.log(FLOOR), np.float32)
    energy = content.log_energy(mel)
    assert content.active(energy).all()
    levelled = content.levelled(mel, content.level(energy))
    assert np.isfinite(levelled).all()
    assert np.abs(content.cepstra(levelled, np.zeros(20), 24)).max() < 1e-3
