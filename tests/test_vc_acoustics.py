from __future__ import annotations

import numpy as np
import pytest

from affgen.features import BANDS, FLOOR, SAMPLE_RATE, Features, extract
from affgen.testing_voice import fabricated_voice
from vc.acoustics import described, names, statistics


@pytest.fixture(scope="module", params=["man", "woman"])
def features(request: pytest.FixtureRequest) -> Features:
    return voice_features(request.param)


def voice_features(kind: str, factor: float = 1.0) -> Features:
    from affgen.audio import Audio

    return extract(Audio(factor * fabricated_voice(5, kind, seconds=3.0).samples, SAMPLE_RATE))


def changed(features: Features, mel: np.ndarray | None = None, f0: np.ndarray | None = None) -> Features:
    new_mel, new_f0 = features.mel if mel is None else mel, features.f0 if f0 is None else f0
    return Features(new_mel, new_f0, features.energy)


def test_there_are_some_two_hundred_with_names_of_their_own() -> None:
    assert 150 <= len(names()) <= 250
    assert len(set(names())) == len(names())


def test_equal_input_gives_equal_statistics_and_is_left_alone(features: Features) -> None:
    before = features.mel.tobytes(), features.f0.tobytes(), features.energy.tobytes()
    first = statistics(features)
    assert first.dtype == np.float32 and first.shape == (len(names()),)
    assert first.tobytes() == statistics(features).tobytes()
    assert before == (features.mel.tobytes(), features.f0.tobytes(), features.energy.tobytes())


@pytest.mark.parametrize("nepers", [-1.5, 0.7, 3.0])
def test_a_gain_changes_nothing(features: Features, nepers: float) -> None:
    louder = Features(features.mel + np.float32(nepers), features.f0, features.energy * np.exp(nepers))
    np.testing.assert_allclose(statistics(louder), statistics(features), atol=1e-3, rtol=1e-4)


def test_a_gain_on_the_wave_changes_next_to_nothing() -> None:
    a, b = (statistics(voice_features("woman", factor)) for factor in (1.0, 0.3))
    assert np.abs(a - b).max() <= 1e-3 * max(1.0, np.abs(a).max())


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 9, 40])
@pytest.mark.parametrize("kind", ["silence", "noise", "voice", "one frame"])
def test_statistics_are_finite_whatever_is_heard(length: int, kind: str) -> None:
    rng = np.random.default_rng(length)
    mel = np.full((BANDS, length), np.log(FLOOR))
    if kind in ("noise", "voice"):
        mel = rng.normal(-4, 2, (BANDS, length))
    elif kind == "one frame" and length:
        mel[:, length // 2] = 1.0
    f0 = rng.uniform(80, 400, length) if kind == "voice" else np.zeros(length)
    assert np.isfinite(statistics(Features(mel, f0, np.ones(length)))).all()


def test_an_octave_up_moves_height_and_nothing_else_of_f0(features: Features) -> None:
    low, high = described(features), described(changed(features, f0=2 * features.f0))
    for name in ("f0_mean", "f0_p10", "f0_p50", "f0_p97"):
        assert high[name] - low[name] == pytest.approx(12, abs=1e-3)
    for name in ("f0_std", "f0_range", "f0_speed", "f0_jitter", "f0_trend", "rhythm_voiced", "energy_std", "c1_mean"):
        assert high[name] == pytest.approx(low[name], abs=1e-3)


def test_twice_as_slow_halves_rates(features: Features) -> None:
    slow = Features(*(np.repeat(part, 2, axis=-1) for part in (features.mel, features.f0, features.energy)))
    fast_table, slow_table = described(features), described(slow)
    for name in ("rhythm_voiced_rate", "rhythm_peaks"):
        assert slow_table[name] == pytest.approx(fast_table[name] / 2, rel=0.2)
    assert slow_table["rhythm_voiced_length"] == pytest.approx(2 * fast_table["rhythm_voiced_length"], rel=0.1)
    assert slow_table["f0_speed"] < 0.7 * fast_table["f0_speed"]


def test_a_tilt_is_read_as_such(features: Features) -> None:
    tilted = features.mel + np.linspace(-1, 1, BANDS)[:, None].astype(np.float32)
    flat, steep = described(features), described(changed(features, mel=tilted))
    assert steep["spec_slope_mean"] > flat["spec_slope_mean"] + 1
    assert steep["spec_alpha_mean"] < flat["spec_alpha_mean"] - 1
    assert steep["spec_centroid_mean"] > flat["spec_centroid_mean"]


def test_roughness_of_f0_is_read_as_jitter(features: Features) -> None:
    rng = np.random.default_rng(0)
    rough = changed(features, f0=features.f0 * 2 ** (rng.normal(0, 0.5, len(features)) / 12))
    assert described(rough)["f0_jitter"] > 3 * described(features)["f0_jitter"]


def test_harmonics_leave_a_ripple_and_noise_does_not() -> None:
    voiced = described(voice_features("woman"))["voice_ripple_mean"]
    rng = np.random.default_rng(0)
    from affgen.audio import Audio

    noise = extract(Audio(rng.normal(0, 0.1, 30_000), SAMPLE_RATE))
    hissing = Features(noise.mel, np.full(len(noise), 200.0), noise.energy)
    assert voiced > 3 > described(hissing)["voice_ripple_mean"]


def test_a_pause_is_counted_and_silence_around_is_not(features: Features) -> None:
    quiet = np.full((BANDS, 60), np.log(FLOOR), np.float32)
    framed = Features(
        np.concatenate([quiet, features.mel, quiet], axis=1),
        np.pad(features.f0, 60),
        np.pad(features.energy, 60),
    )
    np.testing.assert_allclose(statistics(framed), statistics(features), atol=1e-4)
    half = len(features) // 2
    mel = np.concatenate([features.mel[:, :half], quiet, features.mel[:, half:]], axis=1)
    paused = Features(mel, np.insert(features.f0, half, np.zeros(60)), np.insert(features.energy, half, np.zeros(60)))
    assert described(paused)["rhythm_pause"] > described(features)["rhythm_pause"] + 0.1
