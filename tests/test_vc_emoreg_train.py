"""Training material and the four trainers of the faithful EmoReg, on fabricated voices and a miniature."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affgen import config as configs
from affgen.align.formats import write_ctm, write_textgrid
from affgen.align.segments import FRAME_S, Segment
from affgen.checkpoint import read_tensors
from affgen.datadir import DataDir
from affgen.emotion.config import EmotionConfig
from affgen.emotion.config import EncoderConfig as SerSizes
from affgen.errors import AffgenError, DataError
from affgen.featuredir import write_index, write_shard
from affgen.features import BANDS
from affgen.training_config import TrainConfig
from vc.emoreg.average import AverageTable
from vc.emoreg.config import MINIATURE, PUBLISHED, SMALL, TINY, EmoRegConfig, SerConfig, TargetConfig
from vc.emoreg.data import Clip, average_batches, load_clips, score_batches, split, spoken, with_rows
from vc.emoreg.system import unpack
from vc.emoreg.train import read_table, train

EMOTIONS = ("neutral", "happy", "angry")
CONFIGS = Path(__file__).parents[1] / "egs" / "ravdess" / "vc1" / "conf"


def fabricated_data(folder: Path, speakers: int = 2, each: int = 2) -> Path:
    """A data directory in which phones are humps of the spectrum, and emotions tilt it and move F0."""
    rng = np.random.default_rng(0)
    names = [(f"s{s}-{e}-{k}", s, e) for s in range(speakers) for e in EMOTIONS for k in range(each)]
    tensors, alignments = {}, {}
    tables: dict[str, dict[str, str]] = {name: {} for name in ("wav.scp", "utt2spk", "spk2utt", "utt2emo")}
    frames = 40
    for name, speaker, emotion in names:
        phones = rng.integers(0, 3, 5)
        tilt = EMOTIONS.index(emotion) * np.linspace(-1, 1, BANDS)
        spoken_at = phones[np.minimum((np.arange(frames) + 0.5) * FRAME_S // 0.09, 4).astype(int)]
        humps = 4 * np.exp(-(((np.arange(BANDS)[:, None] - 20 * spoken_at - 15) / 8) ** 2))
        mel = humps - 6 + tilt[:, None] + 0.1 * rng.standard_normal((BANDS, frames))
        tensors[f"{name}/mel"] = mel.astype(np.float16)
        tensors[f"{name}/f0"] = np.full(frames, 120 + 60 * EMOTIONS.index(emotion), np.float32)
        tensors[f"{name}/energy"] = np.ones(frames, np.float32)
        tables["wav.scp"][name], tables["utt2spk"][name], tables["utt2emo"][name] = "x.wav", f"s{speaker}", emotion
        spans = [(0.0, 0.09), (0.09, 0.18), (0.18, 0.27), (0.27, 0.36), (0.36, 0.5)]
        alignments[name] = [Segment(a, b, "aei"[p]) for (a, b), p in zip(spans, phones, strict=True)]
    for name, speaker in tables["utt2spk"].items():
        tables["spk2utt"][speaker] = f"{tables['spk2utt'].get(speaker, '')} {name}".strip()
    DataDir(folder, tables).write()
    (folder / "features").mkdir()
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", {name: ("00000.safetensors", frames) for name, _, _ in names})
    write_ctm(folder / "phones.ctm", alignments)
    (folder / "textgrids").mkdir()
    for name, segments in alignments.items():
        write_textgrid(folder / "textgrids" / f"{name}.TextGrid", segments)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricated_data(tmp_path_factory.mktemp("emoreg") / "train")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of all stages, the third of which was stopped by its number of steps and gone on with."""
    out = tmp_path_factory.mktemp("emoreg") / "exp"
    train(MINIATURE, [data], out, quiet=True)
    return out


# --- material ---


def test_clips_are_those_of_speakers_not_left_out(data: Path) -> None:
    clips = load_clips([data], replace(MINIATURE.data, leave_out=("s1*",)))
    assert {clip.speaker for clip in clips} == {"s0"} and {clip.label for clip in clips} == set(EMOTIONS)
    with pytest.raises(DataError, match="leave_out"):
        load_clips([data], replace(MINIATURE.data, leave_out=("*",)))


def test_tuning_clips_are_kept_from_training_but_leave_half(data: Path) -> None:
    clips = load_clips([data], MINIATURE.data)
    training, tuning = split(clips, replace(MINIATURE.data, valid_utterances=3))
    assert (len(training), len(tuning)) == (9, 3) and not {c.name for c in training} & {c.name for c in tuning}
    assert [len(part) for part in split(clips, replace(MINIATURE.data, valid_utterances=99))] == [6, 6]
    assert len(split(clips[:1], MINIATURE.data)[0]) == 1


@pytest.mark.parametrize("phones", ["ctm", "textgrid"])
def test_phones_are_found_in_every_form(data: Path, phones: str) -> None:
    clips = load_clips([data], MINIATURE.data)
    found = spoken(clips, TargetConfig(phones=phones))
    assert found == spoken(clips, TargetConfig(phones="ctm"))
    table = AverageTable.fit([(c.mel, part) for c, part in zip(clips, found, strict=True) if part])
    assert table.phones == ("a", "e", "i") and table.values.argmax(axis=1) == pytest.approx([15, 35, 55], abs=8)


def test_pseudo_phonemes_need_no_text(data: Path) -> None:
    clips = load_clips([data], MINIATURE.data)
    found = spoken(clips, TargetConfig(phones="units"))
    assert all(part and part[0][0] == 0 and part[-1][1] == 40 for part in found)
    assert len({phone for part in found for _, _, phone in part}) > 1


def test_utterances_that_are_not_wholly_aligned_are_left_out(data: Path, tmp_path: Path) -> None:
    clips = [replace(clip, folder=str(tmp_path)) for clip in load_clips([data], MINIATURE.data)][:3]
    with pytest.raises(DataError, match="affgen data align"):
        spoken(clips, TargetConfig(phones="ctm"))
    whole, unknown = [Segment(0, 0.3, "a")], [Segment(0, 0.1, "a"), Segment(0.1, 0.3, "spn")]
    write_ctm(tmp_path / "phones.ctm", {clips[0].name: whole, clips[1].name: unknown})
    found = spoken(clips, TargetConfig(phones="ctm"))
    assert [part is not None for part in found] == [True, False, False]
    table = AverageTable.fit([(clips[0].mel, found[0] or [])])
    assert [clip.name for clip in with_rows(clips, found, table)] == [clips[0].name]
    write_ctm(tmp_path / "phones.ctm", {"other": whole})
    with pytest.raises(DataError, match="none of its utterances"):
        spoken(clips, TargetConfig(phones="ctm"))


def counting(frames: int, name: str) -> Clip:
    """A clip whose mel, row and embedding all count the frames or name the clip."""
    mel = np.tile(np.arange(frames, dtype=np.float16), (BANDS, 1))
    return Clip(name, "x", "s", "neutral", mel, np.arange(frames) % 40, np.full(256, frames, np.float32))


def test_batches_are_a_function_of_the_index_and_belong_together() -> None:
    clips = [counting(40, "long"), counting(7, "short")]
    config = replace(MINIATURE.data, frames=12)
    table = AverageTable(tuple(f"{k:02d}" for k in range(40)), np.tile(np.arange(40.0), (BANDS, 1)).T, np.ones(40))
    draw = average_batches(clips, table, config, 8, seed=0)
    one, again, other = draw(3, 0, 1), draw(3, 0, 1), draw(4, 0, 1)
    assert torch.equal(one.mel, again.mel) and not torch.equal(one.mel, other.mel)
    assert torch.equal(one.average, one.mel) and set(one.names) == {"long", "short"}
    score = score_batches(clips, config, 8, seed=0)(3, 0, 1)
    for k, name in enumerate(score.names):
        length = 12 if name == "long" else 7
        assert score.mask[k].sum() == length and score.mel[k, :, length:].abs().sum() == 0
        assert score.emotion[k, 0] == (40 if name == "long" else 7)
        steps = torch.diff(score.mel[k, 0, :length])
        assert torch.equal(steps, torch.ones(length - 1))
    long = [k for k, name in enumerate(score.names) if name == "long"]
    assert any(not torch.equal(score.mel[k], score.reference[k]) for k in long)


# --- the four stages ---


def test_every_stage_leaves_what_it_makes(trained: Path) -> None:
    files = ("config.yaml", "dvm/embeddings.safetensors", "dvm/dvm.safetensors", "encoder/table.safetensors")
    assert all((trained / name).is_file() for name in (*files, "encoder/encoder.safetensors", "model/config.json"))
    for stage in ("encoder", "decoder"):
        lines = [json.loads(line) for line in (trained / stage / "train.jsonl").read_text().splitlines()]
        assert {line["step"] for line in lines if "losses" in line} == {1, 2, 3, 4}
        assert any("validation" in line for line in lines)
    assert configs.load(EmoRegConfig, trained / "config.yaml") == MINIATURE
    assert read_table(trained / "encoder" / "table.safetensors").phones[0].startswith("u")


def test_the_decoder_holds_the_encoder_that_was_trained_before_it(trained: Path) -> None:
    system = unpack(trained / "model")
    _, tensors = read_tensors(trained / "encoder" / "encoder.safetensors")
    for name, value in system.average.state_dict().items():
        assert torch.allclose(value, tensors[name], atol=2e-3), name  # halved in the model directory


def test_a_trained_model_converts(trained: Path, data: Path) -> None:
    system = unpack(trained / "model")
    assert set(system.labels) == set(EMOTIONS) and system.labels[0] == "neutral"
    clip = load_clips([data], MINIATURE.data)[0]
    e_s = read_tensors(trained / "dvm" / "embeddings.safetensors")[1]["embeddings"][0].numpy()
    made = system.convert(clip.mel.astype(np.float32), e_s, "angry", 1.0, steps=4)
    assert made.shape == clip.mel.shape and np.isfinite(made).all()
    assert not np.allclose(made, system.convert(clip.mel.astype(np.float32), e_s, "angry", 0.0, steps=4), atol=1e-5)


def test_a_finished_training_is_not_begun_again_but_may_be_resumed(trained: Path, data: Path) -> None:
    with pytest.raises(AffgenError, match="resume"):
        train(MINIATURE, [data], trained, stage="encoder", quiet=True)
    before = (trained / "model" / "model.safetensors").read_bytes()
    stamp = (trained / "dvm" / "embeddings.safetensors").stat().st_mtime_ns
    train(MINIATURE, [data], trained, resume=True, quiet=True)
    assert (trained / "model" / "model.safetensors").read_bytes() == before
    assert (trained / "dvm" / "embeddings.safetensors").stat().st_mtime_ns == stamp


def test_stage_by_stage_and_stopped_half_way_gives_the_same(trained: Path, data: Path, tmp_path: Path) -> None:
    for stage in ("ser", "dvm", "encoder"):
        train(MINIATURE, [data], tmp_path, stage=stage, quiet=True)
    half = replace(MINIATURE, train_decoder=replace(MINIATURE.train_decoder, steps=2))
    train(half, [data], tmp_path, stage="decoder", quiet=True)
    train(MINIATURE, [data], tmp_path, stage="decoder", resume=True, quiet=True)
    one, two = (read_tensors(out / "model" / "model.safetensors")[1] for out in (trained, tmp_path))
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("stage", "before"), [("encoder", ""), ("decoder", "dvm"), ("all the rest", "accepted: all")])
def test_a_stage_asks_for_those_before_it(data: Path, tmp_path: Path, stage: str, before: str) -> None:
    if stage == "encoder":  # needs none
        return train(MINIATURE, [data], tmp_path, stage=stage, quiet=True)
    with pytest.raises(AffgenError, match=before):
        train(MINIATURE, [data], tmp_path, stage=stage, quiet=True)
    return None


def test_embeddings_of_other_utterances_are_refused_and_made_again(trained: Path, data: Path, tmp_path: Path) -> None:
    train(MINIATURE, [data], tmp_path, stage="dvm", quiet=True)
    fewer = replace(MINIATURE, data=replace(MINIATURE.data, leave_out=("s1",)))
    with pytest.raises(AffgenError, match="other utterances"):
        train(fewer, [data], tmp_path, stage="decoder", quiet=True)
    train(fewer, [data], tmp_path, stage="dvm", resume=True, quiet=True)
    assert len(read_tensors(tmp_path / "dvm" / "embeddings.safetensors")[1]["embeddings"]) == 6


def test_the_emotion_encoder_is_trained_by_its_own_recipe(data: Path, tmp_path: Path) -> None:
    few = TrainConfig(steps=2, batch_size=4, warmup=1, validate_every=2, save_every=2, log_every=1)
    ser = SerConfig(train=True, emotion=EmotionConfig(encoder=SerSizes(width=8, blocks=1), train=few))
    config = replace(MINIATURE, ser=ser)
    with pytest.raises(AffgenError, match="stage ser"):
        train(config, [data], tmp_path, stage="dvm", quiet=True)
    train(config, [data], tmp_path, stage="ser", quiet=True)
    train(config, [data], tmp_path, stage="dvm", quiet=True)
    own, shipped = (read_tensors(tmp_path / "dvm" / "embeddings.safetensors")[1]["embeddings"] for _ in range(2))
    assert own.shape == shipped.shape == (12, 256)


def test_training_lowers_both_losses(data: Path, tmp_path: Path) -> None:
    plan = replace(MINIATURE.train_encoder, steps=30, learning_rate=1e-2, log_every=3, validate_every=30, save_every=30)
    config = replace(
        MINIATURE,
        target=TargetConfig(phones="ctm"),
        train_encoder=plan,
        train_decoder=plan,
    )
    train(config, [data], tmp_path, quiet=True)
    for stage, share in (("encoder", 0.3), ("decoder", 0.8)):
        lines = [json.loads(line) for line in (tmp_path / stage / "train.jsonl").read_text().splitlines()]
        totals = [line["total"] for line in lines if "total" in line]
        assert np.mean(totals[-3:]) < share * totals[0], (stage, totals)


# --- configurations of the recipe ---


@pytest.mark.parametrize(("name", "sizes"), [("emoreg", PUBLISHED), ("emoreg_small", SMALL), ("emoreg_tiny", TINY)])
def test_the_recipe_has_the_named_sizes(name: str, sizes: EmoRegConfig) -> None:
    config = configs.load(EmoRegConfig, CONFIGS / f"{name}.yaml")
    assert config.licence and config.system == "emoreg"
    assert (config.average, config.score, config.sde) == (sizes.average, sizes.score, sizes.sde)
