"""The acoustic front end: equal to librosa and torchaudio, the same in blocks as whole, and strict about its input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from affgen import features, frames
from affgen.audio import Audio
from affgen.errors import AffgenError
from affgen.features import BANDS, FLOOR, FMAX, FMIN, HOP, N_FFT, SAMPLE_RATE
from affgen.testing_voice import fabricated_voice


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """A voice that fades to a hundred-thousandth, with 16-bit steps as a file has them."""
    samples = fabricated_voice(3, "woman", seconds=3).samples
    return np.round(samples * np.geomspace(1, 1e-5, len(samples)) * 32768).astype(np.float32) / 32768


def test_filterbank_equals_those_of_librosa_and_torchaudio() -> None:
    librosa, torchaudio = pytest.importorskip("librosa"), pytest.importorskip("torchaudio")
    ours = features.mel_filterbank()
    theirs = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=BANDS, fmin=FMIN, fmax=FMAX)
    torchs = torchaudio.functional.melscale_fbanks(N_FFT // 2 + 1, FMIN, FMAX, BANDS, SAMPLE_RATE, "slaney", "slaney")
    assert ours.dtype == np.float32 and ours.max() > 0.02
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    np.testing.assert_allclose(ours, torchs.T.numpy(), atol=1e-6)


def test_log_mel_equals_that_of_librosa_and_torchaudio(voice: np.ndarray) -> None:
    librosa, torchaudio = pytest.importorskip("librosa"), pytest.importorskip("torchaudio")
    import torch

    padded = np.pad(voice, (N_FFT - HOP) // 2, mode="reflect")
    theirs = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, center=False, power=1, n_mels=BANDS, fmin=FMIN, fmax=FMAX
    )
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    wave = torch.from_numpy(padded).double()
    spectrum = torch.stft(wave, N_FFT, HOP, window=window, center=False, return_complex=True).abs()
    bank = torchaudio.functional.melscale_fbanks(N_FFT // 2 + 1, FMIN, FMAX, BANDS, SAMPLE_RATE, "slaney", "slaney")
    torchs = (bank.double().T @ spectrum).numpy()
    ours = features.log_mel(voice)
    assert ours.shape == (BANDS, len(voice) // HOP) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.log(np.maximum(theirs, FLOOR)), atol=1e-5)
    # The filterbank of torchaudio is computed in single precision, which weak bands show in their logarithm.
    np.testing.assert_allclose(np.exp(ours), np.maximum(torchs, FLOOR), atol=1e-5)
    np.testing.assert_allclose(ours, np.log(np.maximum(torchs, FLOOR)), atol=5e-5)


def test_energy_is_the_norm_of_the_magnitudes(voice: np.ndarray) -> None:
    padded = np.pad(voice, (N_FFT - HOP) // 2, mode="reflect")
    frame = padded[20 * HOP : 20 * HOP + N_FFT] * np.hanning(N_FFT + 1)[:-1]
    expected = np.linalg.norm(np.abs(np.fft.rfft(frame)))
    assert features.energy(voice)[20] == pytest.approx(expected, rel=1e-5)


def test_frames_are_centred_on_half_a_hop() -> None:
    samples = np.zeros(40 * HOP, np.float32)
    samples[17 * HOP + HOP // 2] = 1
    energy = features.energy(samples)
    assert energy.argmax() == 17
    np.testing.assert_allclose(energy[16], energy[18], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_give_the_bits_of_the_whole(seed: int) -> None:
    samples = np.tile(fabricated_voice(seed, "singer", seconds=5).samples, 4)
    assert len(samples) > 3 * frames.PIECE * HOP
    rng = np.random.default_rng(seed)
    cuts = np.sort(np.r_[rng.integers(0, len(samples), 12), rng.integers(0, 1500, 4)])
    whole = features.extract(Audio(samples, SAMPLE_RATE))
    parts = features.extract_blocks(np.split(samples, cuts))
    for name in ("mel", "f0", "energy"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name), name)
    np.testing.assert_array_equal(whole.mel, features.log_mel(samples))
    np.testing.assert_array_equal(whole.energy, features.energy(samples))
    assert len(whole) == len(samples) // HOP and whole.mel.flags.c_contiguous


@pytest.mark.parametrize("length", [1024, 1279, 1280, 130_071, 131_072, 132_071, 132_072, 133_073])
def test_pieces_are_the_mirrored_sound(length: int) -> None:
    samples = np.arange(length, dtype=np.float32)
    padded = np.pad(samples, frames.MARGIN, mode="reflect")
    count = 0
    for piece in frames.pieces(np.array_split(samples, 5)):
        np.testing.assert_array_equal(piece, padded[count * HOP : count * HOP + len(piece)])
        count += (len(piece) - 2 * frames.MARGIN) // HOP
    assert count == length // HOP


def test_other_rates_are_resampled() -> None:
    time = np.arange(48_000) / 48_000
    features_48 = features.extract(Audio(0.3 * np.sign(np.sin(2 * np.pi * 220 * time)).astype(np.float32), 48_000))
    assert len(features_48) == SAMPLE_RATE // HOP
    assert np.median(features_48.f0) == pytest.approx(220, rel=0.002)


def test_silence_lies_on_the_floor_and_has_no_f0() -> None:
    silent = features.extract(Audio(np.zeros(SAMPLE_RATE), SAMPLE_RATE))
    assert (silent.mel == np.log(np.float32(FLOOR))).all() and not silent.f0.any() and not silent.energy.any()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0), "0 samples"),
        (np.zeros(1), "1 samples"),
        (np.zeros(frames.SHORTEST - 1), "1023 samples"),
        (np.r_[np.zeros(2000), np.nan, np.zeros(50)], "sample 2000 is nan"),
        (np.r_[np.inf, np.zeros(5000)], "sample 0 is inf"),
        (np.zeros((2000, 2)), "samples of shape"),
    ],
)
def test_unusable_samples_are_refused_in_one_line(samples: np.ndarray, message: str) -> None:
    for function in (features.log_mel, features.energy, lambda x: features.extract_blocks(np.array_split(x, 3))):
        with pytest.raises(AffgenError, match=message) as caught:
            function(samples)
        assert "accepted" in str(caught.value) and "\n" not in str(caught.value)


def test_the_shortest_sound_has_features() -> None:
    assert len(features.extract(Audio(np.zeros(frames.SHORTEST), SAMPLE_RATE))) == 4


def test_features_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(AffgenError, match="accepted are mel"):
        features.Features(np.zeros((80, 5)), np.zeros(4), np.zeros(5))
    with pytest.raises(AffgenError, match="accepted are mel"):
        features.Features(np.zeros(5), np.zeros(5), np.zeros(5))


def test_the_module_imports_nothing_heavy() -> None:
    code = "import sys, affgen.features as f; sys.exit(bool({'numba', 'scipy', 'soxr', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MEMORY = """
import resource, sys
import numpy as np
from affgen import features
block = np.random.default_rng(0).normal(0, 0.1, 220_500).astype(np.float32)
features.extract_blocks([block])
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = features.extract_blocks(block for _ in range(60))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024, kept.mel.nbytes / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_ten_minutes_need_little_more_memory_than_their_features() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    above_idle, of_mel = map(float, done.stdout.split())
    assert above_idle < 2 * of_mel + 15, done.stdout
