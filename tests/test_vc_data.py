"""Training material: who is left out, what an example is made from, and batches that are a function of their number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affgen.audio import Audio
from affgen.datadir import DataDir, speakers
from affgen.errors import DataError
from affgen.featuredir import write_index, write_shard
from affgen.features import BANDS, extract
from affgen.testing_voice import fabricated_voice
from vc import content, data
from vc.config import MINIATURE
from vc.data import Clip, batches, collate, example, load_clips, neutral_clips, split, spoken_of, twins_of

CEPSTRA = MINIATURE.decoder.cepstra
CONFIG = replace(MINIATURE.data, frames=16)
PLAIN = replace(CONFIG, warp=0.0, noise=0.0, drop_emotion=0.0)
PROTOTYPES = {"neutral": np.zeros(4), "angry": np.array([2.0, 0, 0, 0]), "sad": np.array([0, 2.0, 0, 0])}


def clip(name: str, label: str = "neutral", intensity: float = 0.0, *, folder: str = "a", frames: int = 40) -> Clip:
    """A clip whose numbers tell it from every other; the speaker is what stands before the hyphen."""
    rng = np.random.default_rng([*name.encode(), frames])
    smooth = np.cumsum(rng.standard_normal((BANDS, frames)), axis=1) * 0.2 - np.linspace(2, 6, BANDS)[:, None]
    energy = content.log_energy(smooth)
    mel = content.levelled(smooth, content.level(energy))
    f0 = np.where(np.arange(frames) % 11 < 7, 100 + 100 * rng.random(frames), 0).astype(np.float32)
    timbre = content.timbre(content.cepstra(mel, f0, CEPSTRA), content.log_energy(mel))
    return Clip(
        *(name, folder, name.split("-")[0], label, intensity, mel.astype(np.float16), f0, content.log_energy(mel)),
        *(rng.standard_normal(192).astype(np.float32), timbre, content.register(f0), rng.standard_normal(4)),
    )


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Four speakers with neutral and emotional clips, two more in a folder of neutral ones."""
    emotional = [
        clip(f"s{who}-{label}{level}", label, level)
        for who in range(4)
        for label, level in (("neutral", 0.0), ("angry", 0.5), ("angry", 1.0), ("sad", np.nan))
    ]
    return emotional + [clip(f"n{who}-{take}", folder="b") for who in range(2) for take in range(3)]


# --- who is left out -------------------------------------------------------------------------------------------------


def test_speakers_left_out_are_neither_trained_on_nor_drawn(clips: list[Clip]) -> None:
    config = replace(MINIATURE, data=replace(CONFIG, leave_out=("s0", "n*"), valid_utterances=5))
    training, tuning = split(clips, config.data)
    assert {c.speaker for c in training} == {"s1", "s2", "s3"}
    assert {c.speaker for c in tuning} <= {"s0", "n0", "n1"} and len(tuning) == 5
    draw = batches(training, PROTOTYPES, {}, config)
    drawn = {name.split("-")[0] for index in range(60) for name in draw(index, 0, 1).names}
    assert drawn == {"s1", "s2", "s3"}


def test_without_anyone_left_out_some_of_all_are_for_tuning(clips: list[Clip]) -> None:
    training, tuning = split(clips, replace(CONFIG, leave_out=(), valid_utterances=99))
    assert training == clips and [c.name for c in sorted(tuning, key=lambda c: c.name)] == sorted(
        c.name for c in clips[::10]
    )
    assert split(clips, replace(CONFIG, leave_out=("nobody",)))[0] == clips
    again = split(clips, replace(CONFIG, leave_out=(), valid_utterances=99))[1]
    assert [c.name for c in tuning] == [c.name for c in again]


def test_leaving_out_everyone_is_refused(clips: list[Clip]) -> None:
    with pytest.raises(DataError, match=r"data\.leave_out"):
        split(clips, replace(CONFIG, leave_out=("*",)))


def test_neutral_clips_belong_to_a_speaker_in_a_folder(clips: list[Clip]) -> None:
    found = neutral_clips([*clips, clip("s0-song", folder="b")])
    assert [c.name for c in found["a", "s0"]] == ["s0-neutral0.0"] and [c.name for c in found["b", "s0"]] == ["s0-song"]
    assert len(found["b", "n1"]) == 3


# --- examples --------------------------------------------------------------------------------------------------------


def test_the_content_has_no_mean_where_there_is_speech(clips: list[Clip]) -> None:
    spoken = spoken_of(clips[0])
    assert spoken.shape == (CEPSTRA, 40)
    assert np.abs(spoken[:, content.active(clips[0].energy)].mean(axis=1)).max() < 1e-4
    assert np.abs(spoken_of(clips[0], 1.05) - spoken).max() > 0.01


def test_a_neutral_clip_is_made_from_itself_or_from_another_of_its_speaker(clips: list[Clip]) -> None:
    own, other = clips[-1], clips[-2]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        made = example(own, [other], None, PROTOTYPES, PLAIN, rng)
        seen.add(made[1].name)
        assert made[0] is own and made[5] == 1.0
        assert np.allclose(made[3], spoken_of(own)[:, made[2]], atol=1e-6) and made[3].shape == (CEPSTRA, 16)
    assert seen == {own.name, other.name}
    always = replace(PLAIN, own_timbre=1.0)
    assert {example(own, [other], None, PROTOTYPES, always, rng)[1].name for _ in range(20)} == {own.name}


def test_an_emotional_clip_is_told_a_neutral_voice(clips: list[Clip]) -> None:
    neutral, angry = clips[0], clips[2]
    rng = np.random.default_rng(0)
    told = {example(angry, [neutral], None, PROTOTYPES, PLAIN, rng)[1].name for _ in range(20)}
    assert told == {neutral.name}
    assert example(angry, None, None, PROTOTYPES, PLAIN, rng)[1] is angry


def test_the_content_of_a_twin_is_warped_onto_the_clip(clips: list[Clip]) -> None:
    neutral, angry = clips[0], clips[2]
    places = np.linspace(3, 33, 40).astype(np.float32)
    config = replace(PLAIN, twin_content=1.0)
    made = example(angry, [clips[1]], [(neutral, places)], PROTOTYPES, config, np.random.default_rng(0))
    assert made[1] is neutral
    assert np.allclose(made[3], content.between(spoken_of(neutral), places[made[2]]), atol=1e-6)
    never = replace(config, twin_content=0.0)
    made = example(angry, [clips[1]], [(neutral, places)], PROTOTYPES, never, np.random.default_rng(0))
    assert made[1] is clips[1] and np.allclose(made[3], spoken_of(angry)[:, made[2]], atol=1e-6)


def test_the_emotion_lies_between_the_clips_own_and_its_prototype(clips: list[Clip]) -> None:
    rng, half = np.random.default_rng(0), clips[1]
    goal, shares = 0.5 * PROTOTYPES["angry"], []
    for _ in range(50):
        emotion = example(half, None, None, PROTOTYPES, PLAIN, rng)[4]
        way = goal - half.emotion
        share = float((emotion - half.emotion) @ way / (way @ way))
        assert np.allclose(emotion, half.emotion + share * way)
        shares.append(share)
    assert 0 <= min(shares) < 0.2 and 0.8 < max(shares) <= 1
    unknown = clips[3]
    assert np.array_equal(example(unknown, None, None, PROTOTYPES, PLAIN, rng)[4], unknown.emotion)


def test_some_emotions_are_hidden(clips: list[Clip]) -> None:
    rng = np.random.default_rng(0)
    config = replace(CONFIG, drop_emotion=0.3)
    told = [example(clips[1], None, None, PROTOTYPES, config, rng)[5] for _ in range(300)]
    assert set(told) == {0.0, 1.0} and 0.6 < np.mean(told) < 0.8


@pytest.mark.parametrize("frames", [1, 5, 16, 17])
def test_stretches_fit_whatever_the_length(frames: int) -> None:
    own = clip("s9-x", "angry", 1.0, frames=frames)
    for seed in range(5):
        made = example(own, None, None, PROTOTYPES, CONFIG, np.random.default_rng(seed))
        assert made[3].shape[1] == min(frames, 16) and np.isfinite(made[3]).all()
        batch = collate([made], 16)
        assert batch.mel.shape == (1, BANDS, 16) and all(torch.isfinite(v).all() for v in vars(batch.given).values())


def test_what_is_short_ends_in_silence() -> None:
    long, short = clip("s9-x", frames=30), clip("s8-y", frames=6)
    rng = np.random.default_rng(0)
    batch = collate([example(c, None, None, PROTOTYPES, PLAIN, rng) for c in (long, short)], 16)
    assert batch.names == ["s9-x", "s8-y"] and batch.mel.dtype == torch.float32
    rest = slice(6, None)
    assert (batch.mel[1, :, rest] == content.FLOOR).all()
    quiet = content.log_energy(np.full((BANDS, 1), content.FLOOR))[0]
    assert torch.allclose(batch.given.energy[1, rest], torch.tensor(quiet, dtype=torch.float32))
    assert not batch.given.voiced[1, rest].any() and not batch.given.ripple[1, :, rest].any()
    assert (batch.given.pitch[1, rest] == batch.given.pitch[1, 5]).all()
    shapes = {name: tuple(value.shape) for name, value in vars(batch.given).items()}
    assert shapes["content"] == (2, CEPSTRA, 16) and shapes["emotion"] == (2, 4, 1)
    assert shapes["register"] == shapes["told"] == (2,)


# --- batches ---------------------------------------------------------------------------------------------------------


def equal(a: Any, b: Any) -> bool:
    same = [torch.equal(x, y) for x, y in zip(vars(a.given).values(), vars(b.given).values(), strict=True)]
    return a.names == b.names and torch.equal(a.mel, b.mel) and all(same)


def test_a_batch_is_a_function_of_its_number(clips: list[Clip]) -> None:
    config = replace(MINIATURE, train=replace(MINIATURE.train, batch_size=6))
    one, other = (batches(clips, PROTOTYPES, {}, config) for _ in range(2))
    for place in ((0, 0, 1), (7, 0, 1), (3, 1, 2)):
        assert equal(one(*place), other(*place))
    assert equal(one(7, 0, 1), one(3, 1, 2)) and not equal(one(0, 0, 1), one(1, 0, 1))
    assert one(0, 0, 1).mel.shape == (6, BANDS, 16)


def test_folders_with_emotions_are_drawn_twice_as_often(clips: list[Clip]) -> None:
    config = replace(MINIATURE, train=replace(MINIATURE.train, batch_size=50))
    names = [name for index in range(12) for name in batches(clips, PROTOTYPES, {}, config)(index, 0, 1).names]
    share = np.mean([name.startswith("s") for name in names])
    expected = 2 * np.sqrt(16) / (2 * np.sqrt(16) + np.sqrt(6))
    assert share == pytest.approx(expected, abs=0.06)


# --- from files ------------------------------------------------------------------------------------------------------


def written(folder: Path, tables: dict[str, dict[str, str]], sounds: dict[str, np.ndarray]) -> Path:
    """A data directory with features of ``sounds``."""
    names = sorted(sounds)
    speaker = {name: name.split("-")[0] for name in names}
    base = {"wav.scp": {name: f"{name}.wav" for name in names}, "utt2spk": speaker, "spk2utt": speakers(speaker)}
    DataDir(folder, base | tables).write()
    (folder / "features").mkdir()
    tensors, frames = {}, {}
    for name in names:
        found = extract(Audio(sounds[name], 22_050))
        frames[name] = ("00000.safetensors", len(found))
        tensors |= {f"{name}/mel": found.mel.astype(np.float16), f"{name}/f0": found.f0, f"{name}/energy": found.energy}
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", frames)
    return folder


@pytest.fixture(scope="module")
def voices() -> dict[str, np.ndarray]:
    return {
        "s1-a": fabricated_voice(1, "man", seconds=0.8).samples,
        "s1-b": fabricated_voice(2, "man", seconds=0.7).samples,
        "s2-a": np.zeros(12_000, np.float32),
    }


def test_clips_are_read_levelled_and_silence_is_left_out(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    tables = {
        "utt2emo": {"s1-a": "none", "s1-b": "anger", "s2-a": "neutral"},
        "utt2intensity": {"s1-a": "0.7", "s1-b": "0.5"},
    }
    first, second = load_clips([written(tmp_path / "d", tables, voices)], CEPSTRA)
    assert (first.name, first.speaker, first.label, first.intensity) == ("s1-a", "s1", "neutral", 0.0)
    assert (second.label, second.intensity) == ("angry", 0.5)
    for one in (first, second):
        assert content.level(content.log_energy(one.mel.astype(np.float32))) == pytest.approx(0, abs=0.01)
        assert one.emotion.shape == (256,) and one.timbre.shape == (CEPSTRA,)
        assert np.linalg.norm(one.speaker_vector) == pytest.approx(1, abs=1e-3)
        assert one.mel.shape[1] == len(one.f0) == len(one.energy) and 6 < one.register < 8


def test_an_intensity_that_is_not_labelled_is_not_known(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    tables = {"utt2emo": dict.fromkeys(voices, "sad")}
    assert all(np.isnan(c.intensity) for c in data._read(str(written(tmp_path / "d", tables, voices)), CEPSTRA))


def test_twins_are_aligned_on_the_emotional_clip(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    tables = {
        "utt2emo": {"s1-a": "neutral", "s1-b": "angry", "s2-a": "neutral"},
        "text": {"s1-a": "To be", "s1-b": "to  BE", "s2-a": "to be"},
    }
    folder = written(tmp_path / "d", tables, voices)
    read = data._read(str(folder), CEPSTRA)
    found = twins_of(read, [folder])
    assert set(found) == {"s1-b"} and len(found["s1-b"]) == 1
    neutral, places = found["s1-b"][0]
    moved = next(c for c in read if c.name == "s1-b")
    assert neutral.name == "s1-a" and places.shape == (moved.mel.shape[1],)
    assert (np.diff(places) >= 0).all() and places[0] >= 0 and places[-1] <= neutral.mel.shape[1] - 1
    assert twins_of([moved], [folder]) == {}


def test_directories_that_lack_something_are_refused(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no utt2emo"):
        load_clips([written(tmp_path / "d", {}, voices)], CEPSTRA)
    silent = written(tmp_path / "e", {"utt2emo": {"s2-a": "neutral"}}, {"s2-a": voices["s2-a"]})
    with pytest.raises(DataError, match="no utterances"):
        load_clips([silent], CEPSTRA)


def test_features_without_a_line_in_the_tables_are_refused(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    folder = written(tmp_path / "d", {"utt2emo": dict.fromkeys(voices, "sad")}, voices)
    some = DataDir.read(folder).subset(["s1-a"])
    some.write()
    with pytest.raises(DataError, match="s1-b"):
        load_clips([folder], CEPSTRA)
