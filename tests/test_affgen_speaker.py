"""The speaker encoder: embeddings, training material, losses, training, model directories, the command line."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affgen.audio import Audio, read, resample
from affgen.datadir import DataDir
from affgen.errors import AffgenError, DataError, ModelError
from affgen.featuredir import write_index, write_shard
from affgen.features import BANDS, FLOOR, SAMPLE_RATE, log_mel, mel_filterbank
from affgen.speaker import SpeakerEncoder, similarity
from affgen.speaker.cli import register
from affgen.speaker.config import MINIATURE, EncoderConfig, LossConfig, SpeakerConfig, VariationConfig
from affgen.speaker.data import Clip, band_centres, batches, load_clips, split, vary, voices, warp
from affgen.speaker.embed import WINDOW
from affgen.speaker.model import Network
from affgen.speaker.pack import SHIPPED, pack, unpack
from affgen.speaker.train import margin_loss, prototype_loss, train
from affgen.testing_voice import fabricated_voice
from affgen.training_config import TrainConfig


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(MINIATURE.encoder).eval()


@pytest.fixture(scope="module", params=["miniature", "bands", "shipped"])
def encoder(request: pytest.FixtureRequest, network: Network) -> SpeakerEncoder:
    if request.param == "shipped":
        return SpeakerEncoder.from_pretrained()
    if request.param == "bands":
        torch.manual_seed(1)
        return SpeakerEncoder(Network(replace(MINIATURE.encoder, normalise="bands")))
    return SpeakerEncoder(network)


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return fabricated_voice(3, "woman", seconds=2.0).samples


def noise_mel(frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-7, -1, (BANDS, frames)).astype(np.float32)


def fabricated_data(folder: Path, speakers: int = 4, count: int = 4, corpus: str = "made") -> Path:
    """A data directory whose speakers differ in one broad hump of their spectrum."""
    rng = np.random.default_rng([speakers, count])
    names = [(f"{corpus}-{s:02d}-{k}", s, k) for s in range(speakers) for k in range(count)]
    tensors, tables = {}, {"wav.scp": {}, "utt2spk": {}, "spk2utt": {}, "utt2emo": {}}
    for name, speaker, k in names:
        frames = 40 + 5 * k
        hump = 4 * np.exp(-(((np.arange(BANDS) - 15 * speaker - 8) / 6) ** 2))
        tensors[f"{name}/mel"] = (hump[:, None] - 6 + rng.normal(0, 0.5, (BANDS, frames))).astype(np.float16)
        tensors[f"{name}/f0"] = tensors[f"{name}/energy"] = np.zeros(frames, np.float32)
        tables["wav.scp"][name], tables["utt2spk"][name] = "x.wav", f"{corpus}-{speaker:02d}"
        tables["utt2emo"][name] = ("neutral", "angry")[k % 2]
        tables["spk2utt"].setdefault(f"{corpus}-{speaker:02d}", "")
        tables["spk2utt"][f"{corpus}-{speaker:02d}"] += f" {name}"
    DataDir(folder, tables).write()
    (folder / "features").mkdir()
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", {name: ("00000.safetensors", 40 + 5 * k) for name, _, k in names})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricated_data(tmp_path_factory.mktemp("speaker") / "train")


# --- embeddings ---


def test_an_embedding_has_unit_length_and_is_the_same_each_time(encoder: SpeakerEncoder, voice: np.ndarray) -> None:
    first, second = (encoder.embed(Audio(voice, SAMPLE_RATE)) for _ in range(2))
    assert first.shape == (encoder.dimension,) and 192 <= encoder.dimension <= 256
    assert first.dtype == np.float32 and np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("decibels", [-20, 12])
def test_loudness_does_not_matter(encoder: SpeakerEncoder, voice: np.ndarray, decibels: float) -> None:
    one, other = (encoder.embed(Audio(voice * gain, SAMPLE_RATE)) for gain in (1.0, 10 ** (decibels / 20)))
    assert similarity(one, other) > 0.999


def test_silence_around_the_voice_matters_little(voice: np.ndarray) -> None:
    encoder = SpeakerEncoder.from_pretrained()
    longer = np.pad(voice, SAMPLE_RATE)
    assert similarity(*(encoder.embed(Audio(x, SAMPLE_RATE)) for x in (voice, longer))) > 0.9


def test_a_batch_equals_each_alone(encoder: SpeakerEncoder) -> None:
    mels = [noise_mel(frames, frames) for frames in (1, 2, 3, 50, 51, 120, 199)] + [noise_mel(2 * WINDOW + 5)]
    mels.append(np.full((BANDS, 9), -9, np.float32))
    mels[-1][:, 1] = 0  # all that is loud falls between the steps of the convolutions
    together = encoder.embed_mels(mels)
    alone = np.stack([encoder.embed_mel(mel) for mel in mels])
    assert np.abs(together - alone).max() < 2e-5
    assert np.abs(alone[3] - alone[5]).max() > 1e-3


def test_whatever_lies_behind_the_mask_is_not_heard(network: Network) -> None:
    mel = torch.from_numpy(noise_mel(60))[None]
    mask = torch.ones(1, 60, dtype=torch.bool)
    mask[:, 45:] = False
    changed = mel.clone()
    changed[:, :, 45:] = 3.0
    with torch.inference_mode():
        assert torch.allclose(network(mel, mask), network(changed, mask), atol=1e-6)


def test_a_fixed_filter_does_not_matter_where_band_means_are_taken_off() -> None:
    torch.manual_seed(1)
    encoder = SpeakerEncoder(Network(replace(MINIATURE.encoder, normalise="bands", depth=19.0, gate=19.0)))
    mel = np.repeat(noise_mel(1), 80, axis=1) + np.random.default_rng(1).normal(0, 0.3, (BANDS, 80)).astype(np.float32)
    tilted = mel + np.linspace(-1, 1, BANDS, dtype=np.float32)[:, None]
    assert similarity(encoder.embed_mel(mel), encoder.embed_mel(tilted)) > 0.999


def test_the_shipped_model_tells_fabricated_voices_apart() -> None:
    encoder = SpeakerEncoder.from_pretrained()
    kinds = ("man", "woman")
    vectors = {
        kind: [encoder.embed(Audio(fabricated_voice(seed, kind, seconds=6.0).samples, SAMPLE_RATE)) for seed in (1, 2)]
        for kind in kinds
    }
    same = min(similarity(*vectors[kind]) for kind in kinds)
    different = max(similarity(a, b) for a in vectors["man"] for b in vectors["woman"])
    assert same > different + 0.1, (same, different)


def test_another_sample_rate_is_the_same_voice(voice: np.ndarray) -> None:
    encoder = SpeakerEncoder.from_pretrained()
    other = Audio(resample(voice, SAMPLE_RATE, 16_000), 16_000)
    assert similarity(encoder.embed(Audio(voice, SAMPLE_RATE)), encoder.embed(other)) > 0.9


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (np.zeros((79, 5), np.float32), "accepted is (80, T)"),
        (np.zeros((80, 0), np.float32), "T at least 1"),
        (np.full((80, 5), np.nan, np.float32), "not finite"),
        (np.full((80, 5), np.log(FLOOR), np.float32), "silence"),
    ],
)
def test_a_mel_that_cannot_be_embedded_is_refused(network: Network, mel: np.ndarray, message: str) -> None:
    with pytest.raises(AffgenError) as caught:
        SpeakerEncoder(network).embed_mels([noise_mel(9), mel])
    assert message in str(caught.value) and "mel 1" in str(caught.value)


def test_sound_that_cannot_be_embedded_is_refused(network: Network) -> None:
    for samples in (np.zeros(5000), np.zeros(10), np.full(5000, np.nan)):
        with pytest.raises(AffgenError):
            SpeakerEncoder(network).embed(Audio(samples, SAMPLE_RATE))


def test_similarity_is_the_cosine_and_refuses_the_rest() -> None:
    assert similarity(np.array([1.0, 0]), np.array([2.0, 0])) == 1
    assert similarity(np.array([1.0, 0]), np.array([0, -3.0])) == 0
    for a, b in (([1.0], [1.0, 2]), ([0.0, 0], [1.0, 0]), ([np.nan, 0], [1.0, 0]), ([[1.0]], [[1.0]])):
        with pytest.raises(AffgenError):
            similarity(np.array(a), np.array(b))


# --- training material ---


def test_band_centres_are_where_the_filters_peak() -> None:
    peaks = mel_filterbank().argmax(axis=1) * SAMPLE_RATE / 1024
    assert np.abs(peaks - band_centres()).max() <= SAMPLE_RATE / 1024


@pytest.mark.parametrize("speed", [0.85, 1.18])
def test_warping_the_mel_is_what_a_faster_sound_has(voice: np.ndarray, speed: float) -> None:
    faster = log_mel(resample(voice, round(SAMPLE_RATE * speed), SAMPLE_RATE))
    warped = warp(log_mel(voice), speed)
    assert warp(warped, 1.0) == pytest.approx(warped)
    inside = slice(8, 64)  # bands that no edge and no empty top changes
    distance = [np.abs(faster.mean(axis=1) - mel.mean(axis=1))[inside].mean() for mel in (warped, log_mel(voice))]
    assert distance[0] < 0.5 * distance[1]


def test_a_varied_clip_has_the_length_asked_for() -> None:
    for frames in (30, 200):
        for length in (1, 20, 100, 400):
            clip = vary(noise_mel(length).astype(np.float16), 1.18, frames, VariationConfig(), np.random.default_rng(1))
            assert clip.shape == (BANDS, frames) and clip.dtype == np.float32 and np.isfinite(clip).all()


def test_batches_hold_two_unlike_clips_of_each_class_and_depend_on_the_number_alone(data: Path) -> None:
    clips = load_clips([data])
    emotions = {clip.name: clip.emotion for clip in clips}
    draw = batches(clips, MINIATURE)
    batch, again, other = draw(5, 0, 1), draw(2, 1, 2), draw(6, 0, 1)
    assert torch.equal(batch.mel, again.mel) and torch.equal(batch.label, again.label)
    assert batch.mel.shape != other.mel.shape or not torch.equal(batch.mel, other.mel)
    classes = voices(clips, MINIATURE.variation.rates)
    assert len(classes) == 8 and len(set(batch.label[::2].tolist())) == len(batch.label) // 2
    for first, second in zip(range(0, 4, 2), range(1, 4, 2), strict=True):
        assert batch.label[first] == batch.label[second]
        assert batch.names[first].rpartition("-")[0] == classes[int(batch.label[first])][0]
        assert emotions[batch.names[first]] != emotions[batch.names[second]]


def test_more_pairs_than_voices_are_refused(data: Path) -> None:
    config = replace(MINIATURE, train=replace(MINIATURE.train, batch_size=18))
    with pytest.raises(DataError, match="8 voices for batches of 18"):
        batches(load_clips([data]), config)


def test_tuning_speakers_are_kept_apart() -> None:
    clips = [Clip(name, name, "", "", noise_mel(3)) for name in ("a-1", "a-2", "b-1")]
    training, tuning = split(clips, ["a-*"])
    assert [c.speaker for c in training] == ["b-1"] and [c.speaker for c in tuning] == ["a-1", "a-2"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: EncoderConfig(width=0),
        lambda: EncoderConfig(gate=9.0),
        lambda: VariationConfig(rates=(0.9, 1.1)),
        lambda: VariationConfig(rates=(1.0, 1.0)),
        lambda: VariationConfig(seconds=(3.0, 1.0)),
        lambda: VariationConfig(bands=80),
        lambda: LossConfig(angle=2.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(AffgenError, match=r"accepted|encoder|variation"):
        make()


# --- losses and training ---


def test_without_a_margin_the_loss_is_cross_entropy_and_a_margin_makes_it_harder() -> None:
    cosine = torch.linspace(-1, 1, 24).reshape(4, 6).flip(1)
    label = torch.tensor([0, 5, 2, 3])
    plain = margin_loss(cosine, label, LossConfig(angle=0.0, scale=10))
    assert torch.allclose(plain, F.cross_entropy(10 * cosine, label), atol=1e-4)
    assert margin_loss(cosine, label, LossConfig(angle=0.2, scale=10)) > plain
    angle = torch.tensor([[0.5, 0.1]])
    wider = margin_loss(angle, torch.tensor([0]), LossConfig(angle=0.2, scale=10))
    expected = F.cross_entropy(10 * torch.tensor([[np.cos(np.arccos(0.5) + 0.2), 0.1]]), torch.tensor([0]))
    assert float(wider) == pytest.approx(float(expected), abs=1e-4)


def test_the_prototype_loss_wants_pairs_together() -> None:
    pairs = F.normalize(torch.eye(6).repeat_interleave(2, dim=0), dim=1)
    sharpness = torch.tensor(10.0)
    assert prototype_loss(pairs, sharpness) < 0.01 < prototype_loss(pairs[torch.randperm(12)], sharpness)


def test_training_learns_to_tell_made_up_speakers_apart(data: Path, tmp_path: Path) -> None:
    plan = TrainConfig(steps=40, batch_size=8, learning_rate=1e-2, warmup=5, save_every=40, ema=0.9)
    calm = VariationConfig(rates=(1.0,), seconds=(0.3, 0.4), equaliser=0.0, limit=0.0, bands=0, frames=0)
    config = replace(MINIATURE, variation=calm, train=plan)
    train(config, [data], tmp_path / "exp", quiet=True)
    encoder = SpeakerEncoder.from_pretrained(tmp_path / "exp" / "model")
    clips = load_clips([data])
    vectors = encoder.embed_mels([clip.mel for clip in clips])
    scores = vectors @ vectors.T
    same = np.array([[a.speaker == b.speaker for b in clips] for a in clips])
    assert scores[same].min() > scores[~same].max()


def test_training_stopped_and_resumed_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    steady = replace(MINIATURE.train, final_ratio=1.0)  # a learning rate that does not depend on the number of steps
    config = replace(MINIATURE, tuning=("made-02", "made-03"), train=steady)
    train(config, [data], tmp_path / "whole", quiet=True)
    half = replace(config, train=replace(steady, steps=2))
    train(half, [data], tmp_path / "parts", quiet=True)
    train(config, [data], tmp_path / "parts", resume=True, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "train.jsonl").read_text().splitlines()]
    assert {"loss", "pooled", "balanced"} <= set(next(row["validation"] for row in rows if "validation" in row))
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    with pytest.raises(AffgenError, match="--resume"):
        train(config, [data], tmp_path / "whole", quiet=True)


# --- model directories and the command line ---


def test_packing_and_unpacking_keep_the_network(network: Network, tmp_path: Path) -> None:
    pack(MINIATURE, network, tmp_path / "model")
    config, other = unpack(tmp_path / "model")
    assert config == MINIATURE
    mel = noise_mel(70)
    assert similarity(*(SpeakerEncoder(n).embed_mel(mel) for n in (network, other))) > 0.999


def test_the_shipped_model_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 5 << 20
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    config, _ = unpack(SHIPPED)
    assert config.licence and config.licence in card
    assert config.tuning == ()
    assert "%" in card and "egs/speaker/encoder1" in card


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        SpeakerEncoder.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is needed"):
        pack(SpeakerConfig(MINIATURE.licence, (), MINIATURE.encoder), Network(MINIATURE.encoder), tmp_path / "m")
        text = (tmp_path / "m" / "config.json").read_text().replace('"speaker"', '"vocoder"')
        (tmp_path / "m" / "config.json").write_text(text)
        SpeakerEncoder.from_pretrained(tmp_path / "m")


def command(*arguments: object) -> int | None:
    """``affgen speaker ARGUMENTS`` without the errors turned into exit codes."""
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(required=True))
    args = parser.parse_args([str(argument) for argument in arguments])
    return args.run(args)


def test_two_files_are_compared(
    tmp_path: Path, network: Network, voice: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(MINIATURE, network, tmp_path / "model")
    Audio(voice, SAMPLE_RATE).save(tmp_path / "a.wav")
    (tmp_path / "text.wav").write_text("no sound")
    Audio(np.zeros(9000), SAMPLE_RATE).save(tmp_path / "silent.wav")
    a = tmp_path / "a.wav"
    command("compare", a, a, "--model", tmp_path / "model", "--json")
    record = json.loads(capsys.readouterr().out)
    assert record["command"] == "speaker compare" and record["similarity"] == pytest.approx(1)
    for name in ("text.wav", "silent.wav", "missing.wav"):
        with pytest.raises(AffgenError, match=name):
            command("compare", a, tmp_path / name, "--model", tmp_path / "model")


def test_training_and_evaluation_from_the_command_line(data: Path, tmp_path: Path) -> None:
    small = ["encoder.stem=[2,2,2]", "encoder.width=8", "encoder.blocks=1", "variation.seconds=[0.3,0.4]"]
    small += ["train.steps=1", "train.batch_size=4", "train.warmup=0"]
    command("train", "--data", data, "--out", tmp_path / "exp", "--device", "cpu", "--quiet", *small)
    for extra in (["--model", tmp_path / "exp" / "model"], ["--baseline"]):
        command("evaluate", data, "--out", tmp_path / "metrics.json", *extra)
        record = json.loads((tmp_path / "metrics.json").read_text())
        assert 0 <= record["pooled"]["eer"] <= 1 and record["speakers"] == 4
    with pytest.raises(AffgenError, match="does not exist"):
        command("train", "--data", data, "--out", tmp_path / "no" / "exp")
    with pytest.raises(AffgenError, match="one of them"):
        command("evaluate", data, "--out", tmp_path / "m.json", "--baseline", "--model", tmp_path)
    with pytest.raises(DataError, match="utt2spk"):
        tables = DataDir.read(data)
        DataDir(data, {"wav.scp": tables.tables["wav.scp"]}).write(tmp_path / "bare")
        (tmp_path / "bare" / "features").symlink_to(data / "features")
        command("evaluate", tmp_path / "bare", "--out", tmp_path / "m.json")


# --- real speakers ---


@pytest.mark.skipif("AFFGEN_DATA" not in os.environ, reason="AFFGEN_DATA does not name the folder of the real corpora")
def test_held_out_actors_speaking_and_singing() -> None:
    root = Path(os.environ["AFFGEN_DATA"])
    encoder = SpeakerEncoder.from_pretrained()
    actors = ("17", "19", "20")
    found: dict[str, list[np.ndarray]] = {}
    for actor in actors:
        for folder in ("ravdess_speech", "ravdess_song_trunc"):
            paths = sorted(p for p in (root / folder).rglob(f"*-{actor}.flac"))[::25]
            assert paths, f"{root / folder} holds no file of actor {actor}"
            found.setdefault(actor, []).extend(encoder.embed(read(path)) for path in paths)
    same = [similarity(a, b) for vs in found.values() for i, a in enumerate(vs) for b in vs[:i]]
    different = [similarity(a, b) for x in actors for y in actors if x < y for a in found[x] for b in found[y]]
    assert np.median(same) > np.quantile(different, 0.9)
