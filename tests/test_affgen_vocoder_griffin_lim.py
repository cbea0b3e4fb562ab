"""Griffin-Lim: what it gives has the mel it was given, and more iterations agree better."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affgen.errors import AffgenError
from affgen.features import BANDS, HOP, SAMPLE_RATE, log_mel, mel_filterbank
from affgen.testing_voice import fabricated_voice
from affgen.vocoder.griffin_lim import griffin_lim, linear

VOICE = fabricated_voice(1, "woman", seconds=1.5).samples
MEL = log_mel(VOICE)


def distance(wave: np.ndarray) -> float:
    """Mean difference of the mel within 60 dB of the strongest band, in nepers; the outer frames left out."""
    floor = MEL.max() - 60 * np.log(10) / 20
    return float(np.abs(np.maximum(log_mel(wave), floor) - np.maximum(MEL, floor))[:, 4:-4].mean())


def test_the_mel_comes_back_and_better_with_more_iterations() -> None:
    waves = [griffin_lim(MEL, n) for n in (0, 5, 60)]
    assert all(wave.dtype == np.float32 and wave.shape == (MEL.shape[1] * HOP,) for wave in waves)
    none, few, many = map(distance, waves)
    assert none > 2 * few > 2 * many
    assert many < 0.12


def test_momentum_helps() -> None:
    assert distance(griffin_lim(MEL, 60)) < 0.9 * distance(griffin_lim(MEL, 60, momentum=0.0))


def test_a_tone_keeps_its_frequency_and_amplitude() -> None:
    tone = 0.3 * np.sin(2 * np.pi * 441 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    wave = griffin_lim(log_mel(tone))[2048:-2048]
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(wave) == pytest.approx(441, abs=10)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.15)


def test_equal_seeds_give_equal_samples_whatever_else_draws_numbers() -> None:
    first = griffin_lim(MEL, 2, seed=3)
    torch.rand(5)
    assert np.array_equal(first, griffin_lim(MEL, 2, seed=3))
    assert not np.array_equal(first, griffin_lim(MEL, 2, seed=4))


def test_magnitudes_are_not_negative_and_explain_the_mel() -> None:
    mel = torch.from_numpy(np.exp(MEL.T))
    found = linear(mel)
    assert found.shape == (MEL.shape[1], 513) and bool((found >= 0).all())
    again = found @ torch.from_numpy(mel_filterbank().copy()).T
    assert float((again - mel).norm() / mel.norm()) < 0.03
    assert float(found[:, 373:].abs().max()) == 0  # above 8,000 Hz


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_few_frames_and_silence_are_no_trouble(frames: int) -> None:
    wave = griffin_lim(np.full((BANDS, frames), np.log(1e-5), np.float32))
    assert wave.shape == (frames * HOP,) and np.isfinite(wave).all() and np.abs(wave).max() < 0.01


def test_what_is_no_mel_is_refused() -> None:
    for mel in (np.zeros((79, 5)), np.zeros(80), np.zeros((BANDS, 0)), np.full((BANDS, 3), np.nan)):
        with pytest.raises(AffgenError):
            griffin_lim(mel)
    with pytest.raises(AffgenError, match="iterations"):
        griffin_lim(MEL, -1)
    with pytest.raises(AffgenError, match="momentum"):
        griffin_lim(MEL, 1, momentum=2.0)
