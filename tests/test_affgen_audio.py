from __future__ import annotations

import numpy as np
import pytest
import soundfile

from affgen.audio import Audio
from affgen.errors import AffgenError

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2205) / 22_050)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_saved_sound_is_16_bit_and_the_same(tmp_path, suffix):
    audio = Audio(TONE, 22_050)
    assert audio.samples.dtype == np.float32 and audio.duration_s == pytest.approx(0.1)
    audio.save(tmp_path / f"a{suffix}")
    audio.save(tmp_path / f"b{suffix}")
    info = soundfile.info(tmp_path / f"a{suffix}")
    assert (info.subtype, info.samplerate, info.channels, info.frames) == ("PCM_16", 22_050, 1, 2205)
    np.testing.assert_allclose(soundfile.read(tmp_path / f"a{suffix}")[0], TONE, atol=1 / 32_768)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_beyond_full_scale_is_clipped_not_wrapped(tmp_path):
    Audio(np.array([-1.5, 1.5, 0.0]), 8000).save(tmp_path / "a.wav")
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], [-1, 1, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "name", "words"),
    [
        (np.array([0.0, np.nan]), "a.wav", "1 samples are not finite"),
        (np.array([np.inf, np.nan]), "a.wav", "2 samples are not finite"),
        (TONE, "a.mp3", r"cannot write \.mp3; accepted: \.wav, \.flac"),
        (TONE, "a", "without suffix"),
        (np.zeros(0), "a.wav", "no samples"),
        (TONE, "absent/a.wav", "does not exist"),
    ],
)
def test_what_cannot_be_saved_leaves_no_file(tmp_path, samples, name, words):
    with pytest.raises(AffgenError, match=words):
        Audio(samples, 22_050).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("samples", "rate"), [(np.zeros((2, 3)), 22_050), (np.zeros(3), 0), (np.zeros(3), 10**6)])
def test_stereo_and_odd_rates_are_refused(samples, rate):
    with pytest.raises(AffgenError, match="accepted"):
        Audio(samples, rate)
