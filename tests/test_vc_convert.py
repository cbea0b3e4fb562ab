"""The converter: what is asked for is what comes, what makes no sense is refused, and nothing is kept between calls."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from affgen.audio import Audio, read, resample
from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError, ModelError
from affgen.features import HOP
from affgen.testing_voice import fabricated_voice
from vc.convert import PEAK, Conversion, VoiceConverter, amplified

RATE = 22_050


@pytest.fixture(scope="module")
def voice() -> Audio:
    return Audio(fabricated_voice(5, "woman", seconds=0.9, snr_db=50).samples, RATE)


@pytest.fixture(scope="module")
def surprised(converter: VoiceConverter, voice: Audio) -> Conversion:
    return converter.run(voice, "surprised", 1.0)


# --- what comes out --------------------------------------------------------------------------------------------------


def test_a_conversion_tells_all_about_itself(voice: Audio, surprised: Conversion) -> None:
    made, frames = surprised, len(surprised.features)
    assert made.audio.sample_rate == RATE and len(made.audio.samples) == frames * HOP
    assert made.intensity.shape == (frames,) and (made.intensity == 1).all() and made.intensity.dtype == np.float32
    assert len(made.source) == len(voice.samples) // HOP and made.warnings == []
    assert np.isfinite(made.audio.samples).all() and np.abs(made.audio.samples).max() > 0.01


@pytest.mark.parametrize(
    ("emotion", "intensity", "how"),
    [
        ("surprised", 0.0, {}),
        ("neutral", 1.0, {}),
        ("angry", "0@0s,0@1s", {}),
        ("sad", 0, {"source_emotion": "happy"}),
        ("neutral@0s,neutral@1s", 1.5, {"keep_duration": True}),
    ],
)
def test_nothing_asked_gives_back_the_samples(
    converter: VoiceConverter, voice: Audio, emotion: str, intensity: Any, how: dict[str, Any]
) -> None:
    made = converter.run(voice, emotion, intensity, **how)
    assert np.array_equal(made.audio.samples, voice.samples) and not made.intensity.any()
    assert converter.convert(voice, emotion, intensity, **how).sample_rate == RATE


def test_equal_calls_give_equal_bytes_and_seeds_differ(
    converter: VoiceConverter, voice: Audio, surprised: Conversion
) -> None:
    converter.convert(voice, "sad", 0.5, seed=9)  # leaves nothing behind
    again = converter.convert(voice, "surprised", 1.0)
    assert again.samples.tobytes() == surprised.audio.samples.tobytes()
    other = converter.convert(voice, "surprised", 1.0, seed=1)
    assert other.samples.shape == again.samples.shape and np.abs(other.samples - again.samples).max() > 1e-3


def test_the_input_is_not_changed(converter: VoiceConverter, voice: Audio) -> None:
    before = voice.samples.copy()
    converter.convert(voice, "angry")
    assert np.array_equal(voice.samples, before)


def test_duration_moves_unless_it_is_kept(converter: VoiceConverter, voice: Audio, surprised: Conversion) -> None:
    shorter = converter.run(voice, "calm", 1.0)  # the miniature slows surprise down and calm speeds up
    assert len(surprised.features) > len(surprised.source) + 5
    assert len(shorter.features) < len(shorter.source) - 5
    for label in ("surprised", "calm"):
        kept = converter.run(voice, label, 1.0, keep_duration=True)
        assert len(kept.features) == len(kept.source)
        assert 0 <= len(voice.samples) - len(kept.audio.samples) < HOP
        assert ((kept.features.f0 > 0) == (kept.source.f0 > 0)).all()


def test_f0_moves_as_far_as_it_is_asked(converter: VoiceConverter, voice: Audio) -> None:
    moved = []
    for intensity in (0.25, 0.5, 1.0, 1.5):
        made = converter.run(voice, "surprised", intensity, keep_duration=True)
        voiced = made.source.f0 > 0
        moved.append(np.median(np.log2(made.features.f0[voiced] / made.source.f0[voiced])))
    assert np.all(np.diff(moved) > 0.02) and moved[2] == pytest.approx(0.33, abs=0.08)


def test_every_label_sounds_its_own_way(converter: VoiceConverter, voice: Audio) -> None:
    assert converter.labels == LABELS and converter.steps == converter.parts.config.steps
    made = [converter.run(voice, label, 1.0, keep_duration=True).features.mel for label in ("sad", "angry", "disgust")]
    assert min(np.abs(made[a] - made[b]).mean() for a in range(3) for b in range(a)) > 0.01


def test_curves_change_only_where_they_move(converter: VoiceConverter) -> None:
    long = Audio(fabricated_voice(8, "man", seconds=2.4).samples, RATE)
    angry, sad = (
        converter.run(long, f"neutral@0s,neutral@1.6s,{label}@1.8s", 1.0, keep_duration=True)
        for label in ("angry", "sad")
    )
    reach = converter.decoding(converter.request("angry")).reach
    same = int(1.6 * RATE / HOP) - reach - 4  # and what prosody smooths
    assert same > 60
    assert np.array_equal(angry.features.f0[:same], angry.source.f0[:same])
    assert np.abs(angry.features.mel[:, :same] - sad.features.mel[:, :same]).max() < 1e-4
    assert np.abs(angry.audio.samples[: same * HOP - 4096] - sad.audio.samples[: same * HOP - 4096]).max() < 1e-3
    assert np.abs(angry.features.mel[:, -20:] - sad.features.mel[:, -20:]).mean() > 0.01


def test_the_intensity_is_told_for_every_frame_of_the_result(converter: VoiceConverter, voice: Audio) -> None:
    made = converter.run(voice, "surprised", "0@0%,1@100%")
    assert len(made.intensity) == len(made.features) > len(made.source)
    assert made.intensity[0] < 0.02 and made.intensity[-1] > 0.98 and np.all(np.diff(made.intensity) > -1e-6)


def test_energies_are_in_one_unit(converter: VoiceConverter, voice: Audio) -> None:
    made = converter.run(voice, "happy", 0.01, keep_duration=True)
    loud = made.source.energy > 0.2 * made.source.energy.max()
    assert 0.5 < np.median(made.features.energy[loud] / made.source.energy[loud]) < 2


# --- level -----------------------------------------------------------------------------------------------------------


def test_a_source_at_full_scale_stays_within_it(converter: VoiceConverter, voice: Audio) -> None:
    loud = Audio(voice.samples / np.abs(voice.samples).max(), RATE)
    for label in ("surprised", "sad"):
        assert np.abs(converter.convert(loud, label, 1.5).samples).max() <= 1


@pytest.mark.parametrize(("peak", "gain_db", "most"), [(0.1, 12.0, 12.0), (0.5, 12.0, 5.2), (1.0, 12.0, 0.0)])
def test_an_emotion_is_no_louder_than_there_is_room(peak: float, gain_db: float, most: float) -> None:
    samples = np.full(HOP * 4, 0.01, np.float32)
    found = amplified(samples, 0, np.full(4, gain_db), peak)
    assert 20 * np.log10(found / samples) == pytest.approx(most, abs=0.1)
    assert np.allclose(amplified(samples, 0, np.full(4, -6.0), peak), samples * 10 ** (-6 / 20))


def test_what_goes_beyond_is_bent_not_cut() -> None:
    wave = np.linspace(-3, 3, 1024).astype(np.float32)
    bent = amplified(wave, 0, np.zeros(4), 1.0)
    inside = np.abs(wave) <= PEAK
    assert np.array_equal(bent[inside], wave[inside]) and np.abs(bent).max() <= 1
    assert np.all(np.diff(bent[np.abs(wave) < 1.2]) > 0)


def test_gains_follow_their_frames_however_the_wave_is_cut() -> None:
    wave, gain = np.full(HOP * 6, 0.1, np.float32), np.linspace(0, 6, 6)
    whole = amplified(wave, 0, gain, 0.1)
    parts = [amplified(wave[a:b], a, gain, 0.1) for a, b in ((0, 100), (100, 700), (700, len(wave)))]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-7) and np.all(np.diff(whole) >= 0)


# --- sounds of every kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_come_out_at_that_of_the_model(converter: VoiceConverter, voice: Audio, rate: int) -> None:
    made = converter.run(Audio(resample(voice.samples, RATE, rate), rate), "surprised", keep_duration=True)
    assert made.audio.sample_rate == RATE and abs(len(made.audio.samples) - len(voice.samples)) <= HOP


def test_stereo_is_mixed_down(converter: VoiceConverter, voice: Audio, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.stack([voice.samples, 0 * voice.samples], axis=1), RATE, "FLOAT")
    made = converter.convert(tmp_path / "two.wav", "sad", 0.0)
    assert np.allclose(made.samples, voice.samples / 2, atol=1e-6)


def test_a_tenth_of_a_second_is_enough(converter: VoiceConverter, voice: Audio) -> None:
    made = converter.run(Audio(voice.samples[4000 : 4000 + RATE // 10], RATE), "surprised", 1.0)
    assert len(made.audio.samples) >= 7 * HOP and np.isfinite(made.audio.samples).all()


@pytest.mark.parametrize("count", [0, 1, 1023])
def test_less_than_a_window_is_refused(converter: VoiceConverter, count: int) -> None:
    with pytest.raises(AffgenError, match=f"{count} samples.*1024 or more"):
        converter.convert(Audio(np.zeros(count, np.float32), RATE), "sad")


def test_samples_that_are_not_finite_are_refused(converter: VoiceConverter, voice: Audio) -> None:
    broken = voice.samples.copy()
    broken[777] = np.nan
    with pytest.raises(AffgenError, match="sample 777 is nan"):
        converter.convert(Audio(broken, RATE), "sad")


@pytest.mark.parametrize("level", [0.0, 1e-7])
def test_silence_gives_silence_and_says_so(converter: VoiceConverter, level: float) -> None:
    quiet = Audio(level * np.random.default_rng(0).standard_normal(9000).astype(np.float32), RATE)
    made = converter.run(quiet, "angry")
    assert np.array_equal(made.audio.samples, quiet.samples)
    assert len(made.warnings) == 1 and "silent" in made.warnings[0]


def test_noise_is_converted_with_a_warning(converter: VoiceConverter) -> None:
    hiss = Audio(0.1 * np.random.default_rng(0).standard_normal(12_000).astype(np.float32), RATE)
    made = converter.run(hiss, "angry")
    assert np.isfinite(made.audio.samples).all() and not made.features.f0.any()
    assert "no voice was found" in made.warnings[0]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emotion", "intensity", "how", "told"),
    [
        ("bored to death", 1.0, {}, "accepted: neutral, calm"),
        ("angry", 1.6, {}, "accepted: 0 to 1.5"),
        ("angry", -0.1, {}, "accepted: 0 to 1.5"),
        ("angry", float("nan"), {}, "accepted: 0 to 1.5"),
        ("angry", "1@2s,0@1s", {}, "sort the times"),
        ("angry", 1.0, {"steps": 0}, "0 steps; accepted: 1 to 100"),
        ("angry", 1.0, {"steps": 101}, "101 steps; accepted: 1 to 100"),
        ("angry", 1.0, {"guidance": -0.1}, "accepted: 0 to 5"),
        ("angry", 1.0, {"guidance": 5.1}, "accepted: 0 to 5"),
        ("angry", 1.0, {"guidance": float("nan")}, "accepted: 0 to 5"),
        ("angry", 1.0, {"source_emotion": "sleepy"}, "unknown emotion 'sleepy'"),
        ("angry", 1.0, {"source_emotion": "Q1"}, "source emotion Q1: not in this model"),
        ("angry", 1.0, {"seed": -1}, "seed"),
    ],
)
def test_what_makes_no_sense_is_refused(
    converter: VoiceConverter, voice: Audio, emotion: str, intensity: Any, how: dict[str, Any], told: str
) -> None:
    with pytest.raises(AffgenError) as refused:
        converter.convert(voice, emotion, intensity, **how)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_says_which_labels_it_has(converter: VoiceConverter, voice: Audio) -> None:
    parts = converter.parts
    feeling = replace(parts.feeling, labels=LABELS[:3], prototypes=parts.feeling.prototypes[:3])
    few = VoiceConverter(replace(parts, feeling=feeling))
    for how in ({"emotion": "sad"}, {"emotion": "happy", "source_emotion": "sad"}):
        with pytest.raises(AffgenError, match="sad: not in this model; model has: neutral, calm, happy"):
            few.convert(voice, **how)


def test_a_directory_of_another_task_is_no_converter(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        VoiceConverter.from_pretrained(tmp_path)


def test_more_than_was_reached_is_told(converter: VoiceConverter, voice: Audio) -> None:
    assert converter.run(voice, "disgust", 1.1).warnings == []
    warned = converter.run(voice, "disgust:0.5+sad:0.5", "0.2@0s,1.4@1s").warnings
    assert len(warned) == 1 and warned[0].startswith("disgust: beyond intensity 1.10")


def test_more_than_was_reached_is_told_of_points_of_the_plane_too(converter: VoiceConverter, voice: Audio) -> None:
    assert converter.run(voice, "va:-0.6/0.35", 1.5).warnings  # where disgust lies


# --- references ------------------------------------------------------------------------------------------------------


def test_a_reference_takes_the_place_of_a_label(converter: VoiceConverter, voice: Audio, tmp_path: Path) -> None:
    clip = Audio(fabricated_voice(3, "woman", seconds=0.8).samples, RATE)
    clip.save(tmp_path / "clip.wav")
    made = converter.run(voice, reference=clip, intensity=0.8, keep_duration=True)
    assert np.isfinite(made.audio.samples).all() and np.allclose(made.intensity, 0.8)
    assert not np.array_equal(made.audio.samples, voice.samples[: len(made.audio.samples)])
    file = converter.run(voice, reference=tmp_path / "clip.wav", intensity=0.8, keep_duration=True)
    assert np.abs(file.features.mel - made.features.mel).max() < 0.1  # 16 bits
    assert np.array_equal(converter.convert(voice, reference=clip, intensity=0).samples, voice.samples)


def test_references_that_tell_nothing_are_refused(converter: VoiceConverter, voice: Audio, tmp_path: Path) -> None:
    quiet = Audio(np.zeros(20_000, np.float32), RATE)
    quiet.save(tmp_path / "quiet.wav")
    with pytest.raises(AffgenError, match=r"quiet\.wav: .*silent"):
        converter.convert(voice, reference=tmp_path / "quiet.wav")
    with pytest.raises(AffgenError, match=r"the reference: .*silent"):
        converter.convert(voice, reference=quiet)
    with pytest.raises(AffgenError, match=r"the reference: .*1024"):
        converter.convert(voice, reference=Audio(voice.samples[:500] + 0.1, RATE))
    with pytest.raises(AffgenError, match="absent"):
        converter.convert(voice, reference=tmp_path / "absent.wav")
    with pytest.raises(AffgenError, match="angry and a reference; accepted: one of them"):
        converter.convert(voice, "angry", reference=voice)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_file_is_what_a_call_gives(converter: VoiceConverter, voice: Audio, tmp_path: Path, suffix: str) -> None:
    Audio(resample(voice.samples, RATE, 48_000), 48_000).save(tmp_path / "in.wav")
    report = converter.convert_file(tmp_path / "in.wav", tmp_path / f"out{suffix}", "surprised", 0.7, seed=2)
    found, made = read(tmp_path / f"out{suffix}"), converter.run(tmp_path / "in.wav", "surprised", 0.7, seed=2)
    assert report.seconds == pytest.approx(found.duration_s) and report.warnings == made.warnings
    assert found.sample_rate == RATE and found.samples.shape == made.audio.samples.shape
    assert np.abs(found.samples - made.audio.samples).max() <= 1e-3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", f"out{suffix}"]


def test_a_file_may_take_the_place_of_its_source(converter: VoiceConverter, voice: Audio, tmp_path: Path) -> None:
    voice.save(tmp_path / "a.wav")
    before = read(tmp_path / "a.wav").samples
    converter.convert_file(tmp_path / "a.wav", tmp_path / "a.wav", "sad", 0.0)
    assert np.array_equal(read(tmp_path / "a.wav").samples, before)


def test_a_file_is_written_whole_or_not_at_all(
    converter: VoiceConverter, voice: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice.save(tmp_path / "in.wav")
    (tmp_path / "out.wav").write_bytes(b"kept")

    def broken(mel: np.ndarray, f0: np.ndarray, **how: Any) -> Any:
        yield np.zeros(HOP * 8, np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(converter.vocoder, "stream", broken)
    with pytest.raises(KeyboardInterrupt):
        converter.convert_file(tmp_path / "in.wav", tmp_path / "out.wav", "sad")
    assert (tmp_path / "out.wav").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav"]


def test_memory_grows_by_little_for_each_second(
    converter: VoiceConverter, voice: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """600 MB for an hour are 170 kB for a second; the vocoder, which yields chunk by chunk, is left out for speed."""

    def sound(mel: np.ndarray, f0: np.ndarray, **how: Any) -> Any:
        yield from (np.zeros(HOP, np.float32) for _ in range(len(f0)))

    monkeypatch.setattr(converter.vocoder, "stream", sound)
    peaks = {}
    for seconds in (5, 55, 110):  # the first one fills tables that are kept
        Audio(np.tile(voice.samples, round(seconds / voice.duration_s)), RATE).save(tmp_path / "in.wav")
        tracemalloc.start()
        converter.convert_file(tmp_path / "in.wav", tmp_path / "out.wav", "surprised", 0.5, steps=1, keep_duration=True)
        peaks[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 10_000 < (peaks[110] - peaks[55]) / 55 < 170_000, peaks
