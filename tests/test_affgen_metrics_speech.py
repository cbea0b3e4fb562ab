"""Figures of copied speech against cases that can be worked out by hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.features import BANDS, SAMPLE_RATE
from affgen.metrics import speech
from affgen.testing_voice import fabricated_voice

VOICE = fabricated_voice(0, seconds=2.0).samples


def with_mels(monkeypatch: pytest.MonkeyPatch, *mels: np.ndarray) -> None:
    """Let the waves filled with 0, 1, ... have the log-mels ``mels`` (80, T)."""
    monkeypatch.setattr(speech, "log_mel", lambda samples: mels[int(samples[0])])
    monkeypatch.setattr(speech, "energy", lambda samples: np.exp(mels[int(samples[0])].mean(0)))


def waves(count: int) -> list[np.ndarray]:
    return [np.full(1024, i, np.float32) for i in range(count)]


@pytest.mark.parametrize("order", [1, 5, 24])
def test_mcd_of_a_ripple_is_its_root_mean_square_in_decibels(monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    ripple = 0.3 * np.cos(np.pi * order * (np.arange(BANDS) + 0.5) / BANDS)
    flat = np.full((BANDS, 7), -2.0)
    with_mels(monkeypatch, flat, flat + ripple[:, None])
    assert speech.mcd(*waves(2)) == pytest.approx(20 / math.log(10) * 0.3 / math.sqrt(2))


def test_mcd_hears_neither_loudness_nor_ripples_finer_than_the_24th(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = 0.3 * np.cos(np.pi * 25 * (np.arange(BANDS) + 0.5) / BANDS)
    flat = np.full((BANDS, 7), -2.0)
    with_mels(monkeypatch, flat, flat + 1.0, flat + fine[:, None])
    ours, louder, finer = waves(3)
    assert speech.mcd(ours, louder) == pytest.approx(0, abs=1e-9)
    assert speech.mcd(ours, finer) == pytest.approx(0, abs=1e-9)


def test_mcd_adds_the_squares_of_coefficients_and_averages_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    places = (np.arange(BANDS) + 0.5) / BANDS
    two = 0.3 * np.cos(np.pi * 2 * places) + 0.4 * np.cos(np.pi * 3 * places)
    flat = np.zeros((BANDS, 2))
    with_mels(monkeypatch, flat, flat + np.stack([two, np.zeros(BANDS)], axis=1))
    assert speech.mcd(*waves(2)) == pytest.approx(10 / math.log(10) * math.sqrt(2) * 0.5 / 2)
    with_mels(monkeypatch, flat, flat + 0.4 * np.cos(np.pi * 3 * places)[:, None])
    assert speech.mcd(*waves(2), coefficients=2) == pytest.approx(0, abs=1e-9)


def test_mcd_leaves_silent_frames_out_and_floors_weak_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    loud, silent = np.zeros((BANDS, 1)), np.full((BANDS, 1), -math.log(10) * 60 / 20)
    ripple = np.cos(np.pi * (np.arange(BANDS) + 0.5) / BANDS)[:, None]
    with_mels(monkeypatch, np.hstack([loud, silent]), np.hstack([loud, silent + ripple]))
    assert speech.mcd(*waves(2)) == 0
    half = loud.copy()
    half[:40] = -10.0  # 87 dB down: counts as 80 dB down, as does anything below
    below = half.copy()
    below[:40] = -11.0
    with_mels(monkeypatch, half, below)
    assert speech.mcd(*waves(2)) == 0


def test_stft_distance_of_half_the_amplitude_is_known() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.3, SAMPLE_RATE).astype(np.float32)
    # 1/2 from the convergence, ln 2 from the logarithms where nothing lies at the floor.
    assert speech.stft_distance(noise, noise / 2) == pytest.approx(0.5 + math.log(2), abs=2e-3)
    assert speech.stft_distance(tone, tone) == 0
    assert speech.stft_distance(tone, tone / 2) < 0.5 + math.log(2)


def test_pesq_is_highest_for_the_same_and_falls_with_noise() -> None:
    pytest.importorskip("pesq")
    noise = np.random.default_rng(0).normal(size=len(VOICE)).astype(np.float32)
    same, slightly, badly = (speech.pesq(VOICE, VOICE + level * noise) for level in (0, 0.001, 0.05))
    assert same == pytest.approx(4.64, abs=0.01)
    assert same > slightly > badly
    assert speech.pesq(VOICE, VOICE / 4) == pytest.approx(4.64, abs=0.05)  # PESQ levels its input


def test_pesq_refuses_silence_and_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pesq")
    with pytest.raises(AffgenError, match="finds nothing to compare"):
        speech.pesq(np.zeros(SAMPLE_RATE, np.float32), np.zeros(SAMPLE_RATE, np.float32))
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(AffgenError, match=r"affgen\[eval\]"):
        speech.pesq(VOICE, VOICE)


@pytest.mark.parametrize("delay", [-320, -32, 0, 96, 512])
def test_align_takes_a_constant_delay_out(delay: int) -> None:
    copy = np.pad(VOICE, (delay, 0)) if delay >= 0 else VOICE[-delay:]
    ours, theirs = speech.align(VOICE, copy)
    assert len(ours) == len(theirs) >= len(VOICE) - 512
    assert np.array_equal(ours, theirs)


def test_align_leaves_sound_in_step_and_silence_alone() -> None:
    noisy = VOICE + np.random.default_rng(0).normal(0, 0.01, len(VOICE)).astype(np.float32)
    assert np.array_equal(speech.align(VOICE, noisy)[0], VOICE)
    silence = np.zeros(3000, np.float32)
    assert len(speech.align(silence, silence[:2900])[1]) == 2900


def test_f0_errors_are_in_cents_where_both_are_voiced() -> None:
    ours = np.array([100.0, 200.0, 0.0, 300.0, 0.0], np.float32)
    theirs = np.array([200.0, 200.0, 100.0, 0.0, 0.0], np.float32)
    assert speech.f0_error(ours, theirs) == pytest.approx((600.0, 1200 / math.sqrt(2)))
    assert speech.voicing_error(ours, theirs) == pytest.approx(2 / 5)
    assert all(math.isnan(value) for value in speech.f0_error(ours[2:3], theirs[2:3]))


def test_periodicity_error_is_a_root_mean_square() -> None:
    assert speech.periodicity_error(np.array([0.0, 1.0]), np.array([0.3, 0.6])) == pytest.approx(math.sqrt(0.125))


@pytest.mark.parametrize("name", ["mcd", "stft_distance", "pesq", "f0_error", "voicing_error", "periodicity_error"])
def test_unequal_lengths_and_nothing_are_refused(name: str) -> None:
    measure = getattr(speech, name)
    for ours, theirs in ((VOICE, VOICE[:-1]), (VOICE[None], VOICE[None]), (VOICE[:0], VOICE[:0])):
        with pytest.raises(AffgenError, match="accepted are equal lengths"):
            measure(ours, theirs)
