"""The F0 tracker against voices of known F0, against librosa's pyin, and on what recordings suffer from."""

from __future__ import annotations

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.frames import HOP, SAMPLE_RATE
from affgen.pitch import f0
from affgen.testing_voice import VOICES, Voice, fabricated_voice


def cents(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance in cents where both are voiced."""
    both = (estimate > 0) & (truth > 0)
    return np.abs(1200 * np.log2(estimate[both] / truth[both]))


def accuracy(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Raw pitch accuracy within 50 cents over the frames that are voiced in truth, and the share of voicing errors."""
    right = np.sum(cents(estimate, truth) <= 50)
    return right / np.sum(truth > 0), float(np.mean((estimate > 0) != (truth > 0)))


@pytest.fixture(scope="module")
def man() -> Voice:
    return fabricated_voice(11, "man", seconds=4)


@pytest.mark.parametrize("kind", VOICES)
def test_f0_and_voicing_of_fabricated_voices(kind: str) -> None:
    figures = []
    for seed in (21, 22):
        voice = fabricated_voice(seed, kind, seconds=12)
        estimate, periodicity = f0(voice.samples, SAMPLE_RATE)
        assert estimate.shape == periodicity.shape == voice.f0.shape
        assert estimate.dtype == periodicity.dtype == np.float32
        assert periodicity.min() >= 0 and periodicity.max() <= 1
        assert periodicity[voice.f0 > 0].mean() > periodicity[voice.f0 == 0].mean() + 0.3
        figures.append((*accuracy(estimate, voice.f0), np.median(cents(estimate, voice.f0))))
    right, wrong_voicing, median = np.mean(figures, axis=0)
    assert right >= 0.985 and wrong_voicing <= 0.02 and median <= 4, figures


@pytest.mark.parametrize("hz", [66, 98.5, 147, 220, 311.1, 466, 698.5, 1046.5])
def test_a_steady_tone_is_read_to_a_cent(hz: float) -> None:
    phase = hz * np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = sum(np.cos(2 * np.pi * k * phase) / k for k in range(1, int(min(20, 8000 / hz))))
    estimate = f0(0.1 * np.asarray(tone), SAMPLE_RATE)[0][3:-3]
    assert (estimate > 0).all()
    assert np.abs(1200 * np.log2(estimate / hz)).max() < 1.5


def test_agreement_with_pyin() -> None:
    librosa = pytest.importorskip("librosa")
    voice = fabricated_voice(5, "woman", seconds=2.5)
    # Two periods of the floor: pyin's default window of 93 ms is too long for a voice that moves.
    theirs, *_ = librosa.pyin(
        voice.samples[HOP // 2 :], fmin=65, fmax=1100, sr=SAMPLE_RATE, hop_length=HOP, frame_length=768
    )
    theirs = np.nan_to_num(theirs)[: len(voice.f0)]
    ours = f0(voice.samples, SAMPLE_RATE)[0]
    distance = cents(ours, theirs)
    assert len(distance) > 100 and np.mean(distance <= 50) >= 0.95
    assert np.mean((ours > 0) == (theirs > 0)) >= 0.85


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("quiet", lambda x: np.round(x * 0.01 * 32768) / 32768),
        ("offset", lambda x: x + 0.2),
        ("clipped", lambda x: (4 * x).clip(-0.5, 0.5)),
        ("inverted", lambda x: -x),
        ("click", lambda x: x + 0.9 * (np.arange(len(x)) == 30_000)),
        ("loud click", lambda x: x + 50 * (np.arange(len(x)) == 30_000)),
        ("long silence around", lambda x: np.concatenate([np.zeros(20 * HOP), x, np.zeros(20 * HOP)])),
    ],
)
def test_what_recordings_suffer_from(man: Voice, what: str, change: object) -> None:
    assert callable(change)
    estimate = f0(change(man.samples.astype(np.float64)), SAMPLE_RATE)[0]
    if what == "long silence around":
        assert not estimate[:18].any() and not estimate[-18:].any()
        estimate = estimate[20:-20]
    right, wrong_voicing = accuracy(estimate, man.f0)
    assert right >= 0.97 and wrong_voicing <= 0.03, (right, wrong_voicing)


def test_speech_recorded_at_16_khz(man: Voice) -> None:
    import soxr

    narrow = soxr.resample(man.samples, SAMPLE_RATE, 16_000)
    right, wrong_voicing = accuracy(f0(narrow, 16_000)[0][: len(man.f0)], man.f0[: len(narrow) * 441 // 320 // HOP])
    assert right >= 0.97 and wrong_voicing <= 0.03


@pytest.mark.parametrize("level", [0.0, 1e-6, 1e-3, 0.3])
def test_noise_and_silence_have_no_f0(level: float) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 5 * SAMPLE_RATE) * level
    estimate, periodicity = f0(noise, SAMPLE_RATE)
    assert np.mean(estimate > 0) < 0.01 and np.isfinite(periodicity).all()


def test_range_is_kept(man: Voice) -> None:
    estimate = f0(man.samples, SAMPLE_RATE, floor=60, ceiling=125)[0]
    assert estimate.max() < 128
    high = man.f0 > 140
    assert high.any() and np.mean(cents(estimate[high], man.f0[high]) <= 50) < 0.1


@pytest.mark.parametrize(("floor", "ceiling"), [(30, 500), (65, 3000), (200, 300), (500, 100), (float("nan"), 500)])
def test_ranges_that_cannot_be_searched_are_refused(floor: float, ceiling: float) -> None:
    with pytest.raises(AffgenError, match="40 to 2000 Hz"):
        f0(np.zeros(SAMPLE_RATE), SAMPLE_RATE, floor=floor, ceiling=ceiling)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(500), np.full(5000, np.nan), np.zeros((5000, 1))])
def test_unusable_samples_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(AffgenError, match="accepted"):
        f0(samples, SAMPLE_RATE)


def test_fabricated_voices_are_what_they_are_asked_to_be() -> None:
    one, two, other = (fabricated_voice(seed, "singer", seconds=6) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.samples, two.samples)
    np.testing.assert_array_equal(one.f0, two.f0)
    assert not np.array_equal(one.f0, other.f0)
    assert len(one.f0) == len(one.samples) // HOP and np.abs(one.samples).max() <= 0.5
    for kind, (low, high, _) in VOICES.items():
        voiced = fabricated_voice(3, kind, seconds=6).f0
        voiced = voiced[voiced > 0]
        assert low * 0.97 <= voiced.min() and voiced.max() <= high * 1.03
    with pytest.raises(AffgenError, match="man, woman, singer"):
        fabricated_voice(0, "cat")
