from __future__ import annotations

import io
import os
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from affgen import audio_read
from affgen.audio import Audio, blocks, blocks_scp, loudness, normalise, read, read_scp, resample
from affgen.audio_pipe import piped
from affgen.errors import AffgenError
from affgen.testing_audio import EXTENSIBLE, KINDS, damaged_sounds, encoded, flac_silence, tone, wav

MP3 = ("MP3", "MPEG_LAYER_III")

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


# --- reading ---------------------------------------------------------------------------------------------------------


def put(folder: Path, data: bytes, name: str = "a.wav") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_accepted_kind_is_read_as_mono(tmp_path, kind, subtype, channels):
    waves = tone(0.5, 16_000, channels=channels)
    path = put(tmp_path, encoded(waves, 16_000, kind, subtype), "named.anything")
    audio = read(path)
    wanted = waves if channels == 1 else waves.mean(axis=1)
    assert audio.sample_rate == 16_000 and audio.samples.dtype == np.float32
    assert audio.samples.shape == (8000,)
    lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III", "PCM_U8", "ULAW")
    np.testing.assert_allclose(audio.samples[2000:6000], wanted[2000:6000], atol=0.03 if lossy else 4e-5)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), MP3])
@pytest.mark.parametrize("seconds", [0.0137, 0.5, 1000.0])
def test_blocks_join_to_the_whole_whatever_their_length(tmp_path, kind, subtype, seconds):
    noise = np.random.default_rng(1).normal(0, 0.1, (3 * 44_100 + 17, 2)).astype(np.float32)
    path = put(tmp_path, encoded(noise, 44_100, kind, subtype))
    parts = list(blocks(path, seconds=seconds))
    whole = read(path, sample_rate=22_050)
    assert {len(part) for part in parts[:-1]} <= {round(seconds * 22_050)} and len(parts[-1])
    np.testing.assert_allclose(np.concatenate(parts), whole.samples, atol=1e-6)
    raw = read(path)
    np.testing.assert_allclose(resample(raw.samples, 44_100, 22_050), whole.samples, atol=1e-6)


def test_resampling_keeps_a_tone_and_drops_what_does_not_fit():
    times = np.arange(48_000) / 48_000
    low, high = np.sin(2 * np.pi * 1000 * times), np.sin(2 * np.pi * 15_000 * times)
    made = resample(low + high, 48_000, 22_050)
    assert made.dtype == np.float32 and len(made) == 22_050
    wanted = np.sin(2 * np.pi * 1000 * np.arange(22_050) / 22_050)
    np.testing.assert_allclose(made[500:-500], wanted[500:-500], atol=2e-4)
    np.testing.assert_array_equal(resample(wanted, 22_050, 22_050), wanted.astype(np.float32))
    for bad in ((low[None], 8000, 16_000), (low, 0, 16_000), (low, 8000, 10**6)):
        with pytest.raises(AffgenError, match="accepted"):
            resample(*bad)


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        (wav(bytes(4000), riff_size=2**32 - 1), 2000),
        (wav(bytes(4000), riff_size=2**32 - 1, data_size=2**32 - 1), 2000),  # as ffmpeg writes to a pipe
        (wav(bytes(4000), data_size=0x7FFFF000), 2000),  # as sox does
        (wav(bytes(4000), riff_size=0), 2000),
        (wav(bytes(4000), tag=EXTENSIBLE), 2000),
        (wav(bytes(4000), channels=8), 250),
        (wav(b"\0\1"), 1),
        (wav(b"\xff\x7f" * 500), 500),
        (wav(bytes(4000), rate=4_000), 2000),
        (wav(bytes(4000), rate=192_000), 2000),
        (flac_silence(60), 240_000),
        (flac_silence(60, promised=0), 262_140),  # a length written as unknown: as many blocks as follow
    ],
    ids=("riff", "ffmpeg", "sox", "riff 0", "extensible", "8 channels", "one", "clipped", "4k", "192k", "flac", "pipe"),
)
def test_unusual_but_sound_files_are_read(tmp_path, data, samples):
    audio = read(put(tmp_path, data))
    assert audio.samples.shape == (samples,) and np.isfinite(audio.samples).all()


DAMAGED = dict(damaged_sounds(np.random.default_rng(7)))


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_line(tmp_path, name, capfd):
    path = put(tmp_path, DAMAGED[name], name)
    with pytest.raises(AffgenError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable() and "; " in text and len(text) < 350
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [name for name in DAMAGED if "ADPCM" in name or "GSM" in name or "ID3" in name])
def test_forbidden_coders_are_refused_before_the_library_sees_the_file(tmp_path, name, monkeypatch):
    monkeypatch.setattr(soundfile, "SoundFile", None)
    with pytest.raises(AffgenError, match="accepted"):
        read(put(tmp_path, DAMAGED[name]))


def test_the_library_is_asked_again_what_the_file_is(tmp_path, monkeypatch):
    """Should the sniffing be fooled, the decoder's own word on the format still counts."""
    path = put(tmp_path, encoded(tone(0.1, 16_000), 16_000, "W64"))
    monkeypatch.setattr(audio_read, "_sniffed", lambda file, name: "WAV")
    with pytest.raises(AffgenError, match="holds W64 PCM_16; accepted"):
        read(path)


def test_length_is_capped(tmp_path):
    path = put(tmp_path, wav(bytes(32_000)))
    assert read(path, max_seconds=1).duration_s == 1
    with pytest.raises(AffgenError, match=r"lasts 1 s; accepted: up to 0.5 s"):
        read(path, max_seconds=0.5)
    with pytest.raises(AffgenError, match="longer than its header says; accepted: up to 10 s"):
        list(blocks(put(tmp_path, flac_silence(60, promised=0)), max_seconds=10))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "absent.wav", "No such file"), (tmp_path, "is a folder"), ("a\0b", "null byte")):
        with pytest.raises(AffgenError, match=words):
            read(path)
    with pytest.raises(AffgenError, match="no regular file"):  # and does not wait for somebody to write
        read(tmp_path / "pipe")
    with pytest.raises(AffgenError, match="shorter than one sample at 8000 Hz"):
        read(put(tmp_path, wav(b"\0\1", rate=192_000)), sample_rate=8000)
    with pytest.raises(AffgenError, match="blocks of 0 s"):
        next(blocks(put(tmp_path, wav(bytes(400))), seconds=0))


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav(bytes(200_000)))))
    assert read("-").samples.shape == (100_000,)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text" * 100_000)))
    with pytest.raises(AffgenError, match="standard input: is no sound file"):
        read("-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav(bytes(200_000)))))
    monkeypatch.setattr(audio_read, "MAX_BYTES", 2**16)
    with pytest.raises(AffgenError, match="standard input: is larger than"):
        read("-")


def test_threads_that_decode_mp3_leave_standard_error_as_it_was(tmp_path, capfd):
    path = put(tmp_path, encoded(tone(1, 44_100), 44_100, *MP3))
    with ThreadPoolExecutor(4) as pool:
        lengths = set(pool.map(lambda _: len(read(path).samples), range(16)))
    os.write(2, b"still here\n")
    assert lengths == {44_100} and capfd.readouterr().err == "still here\n"


def test_an_hour_is_never_in_memory_whole(tmp_path):
    path = put(tmp_path, flac_silence(1800, rate=22_050))
    tracemalloc.start()
    total = sum(len(block) for block in blocks(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 1800 * 22_050 and peak < 5e6  # bytes; the samples themselves are 159 MB


# --- lines of a wav.scp ----------------------------------------------------------------------------------------------


def test_scp_values_are_paths_or_commands(tmp_path):
    path = put(tmp_path, encoded(tone(0.5, 16_000), 16_000), "a b.wav")
    for value in (
        str(path),
        f" {path} ",
        f"cat '{path}' |",
        f"cat '{path}' | cat|",
        f'head -c 999999 "{path}" | cat |',
    ):
        audio = read_scp(value, sample_rate=22_050)
        np.testing.assert_array_equal(audio.samples, read(path, sample_rate=22_050).samples)
    assert sum(map(len, blocks_scp(f"cat '{path}' |"))) == len(audio.samples)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cat /absent/x.wav |", r"'cat' failed with exit code 1 \(cat: .*No such file"),
        ("cat /absent/x.wav | cat |", r"'cat' failed with exit code 1"),
        ("false |", r"'false' failed with exit code 1 \(nothing on standard error\)"),
        ("no-such-program x |", "'no-such-program' cannot be started"),
        ("true |", "wrote nothing"),
        ("echo these are no samples |", "is no sound file"),
        ("yes |", "is no sound file"),
        ("cat a > b |", "uses '>' of the shell"),
        ("cat a; touch b |", "uses ';' of the shell"),
        ("cat a || cat b |", "uses '|.*of the shell"),
        ("cat 'a |", "cannot be split into words"),
        ("|", "is no command"),
        ("cat a | | |", "is no command"),
        ("/absent/x.wav", "No such file"),
        ("cat " + "x" * 500 + " |", r"\.\.\.: 'cat' failed"),
    ],
)
def test_commands_that_fail_are_refused_in_one_line(value, words, capfd):
    with pytest.raises(AffgenError, match=words) as caught:
        read_scp(value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    assert capfd.readouterr().err == ""


def test_no_shell_expands_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, wav(bytes(400)))
    for value in ("cat $PWD/a.wav |", "cat *.wav |", "cat `ls` |"):
        with pytest.raises(AffgenError, match="No such file"):
            read_scp(value)


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    started = time.perf_counter()
    with pytest.raises(AffgenError, match=r"took longer than 0.3 s"), piped("sleep 60 | cat |", timeout_s=0.3):
        pass
    assert time.perf_counter() - started < 20


def test_no_program_is_left_behind(tmp_path):
    marker = f"{30_000 + os.getpid() % 1000}.25"
    with pytest.raises(AffgenError):
        read_scp(f"sleep {marker} | echo this is text |".replace("echo", "printf %70000s"))
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if marker.encode() in _bytes(p)]
    assert not left


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


# --- loudness and output ---------------------------------------------------------------------------------------------


def test_normalised_sound_has_the_loudness_asked_for():
    audio = normalise(Audio(tone(2, 22_050), 22_050), -30)
    assert loudness(audio.samples, 22_050) == pytest.approx(-30, abs=1e-3)
    silence = Audio(np.zeros(22_050), 22_050)
    assert normalise(silence) is silence
    with pytest.raises(AffgenError, match="finite"):
        normalise(audio, float("nan"))


def test_wav_bytes_are_those_of_the_file(tmp_path):
    audio = Audio(TONE, 22_050)
    audio.save(tmp_path / "a.wav")
    assert audio.wav() == (tmp_path / "a.wav").read_bytes()
    with pytest.raises(AffgenError, match="standard output: there are no samples"):
        Audio(np.zeros(0), 8000).wav()
