"""The emotion encoder: made-up voices it can learn, what it must not hear (gain, padding), its model directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from affgen import config as configs
from affgen.audio import Audio
from affgen.checkpoint import describe
from affgen.datadir import DataDir, speakers
from affgen.emotion.config import EmotionConfig, EncoderConfig
from affgen.emotion.encoder import LONGEST_S, PRETRAINED, EmotionEncoder, load_encoder
from affgen.emotion.evaluate import SIX, accuracy, merged_accuracy, neutral_means, ordered, recall
from affgen.emotion.gauges import columns, install
from affgen.emotion.labels import LABELS
from affgen.emotion.material import Clip, batches, collate, load_clips, pairs, vary
from affgen.emotion.network import STATISTICS, STRIDE, Network, level, prepare, summary
from affgen.emotion.space import EmotionSpace
from affgen.emotion.train import Task, main, outputs, split, train
from affgen.errors import AffgenError, DataError, ModelError
from affgen.featuredir import write_index, write_shard
from affgen.features import Features

SMALL = configs.load(
    EmotionConfig,
    None,
    [
        *("encoder.width=16", "encoder.blocks=1", "encoder.heads=2", "train.steps=40", "train.batch_size=16"),
        *("train.learning_rate=4e-3", "train.warmup=5", "train.ema=0.9", "train.validate_every=40", "tuning=[v-5]"),
    ],
)
HEIGHT = {"neutral": 0.0, "angry": 1.0, "sad": -0.7}


def voice(label: str, intensity: float, seed: int, frames: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Features whose F0, brightness and liveliness follow label and intensity; log magnitudes (80, T), Hz (T,)."""
    rng = np.random.default_rng(seed)
    push = HEIGHT[label] * intensity
    time = np.arange(frames) / 86.0
    swing = np.sin(2 * np.pi * (3 + push) * time + rng.uniform(0, 6))
    f0 = 150 * 2 ** (0.5 * push + 0.15 * (1 + push) * swing)
    f0[rng.integers(frames - 12) :][:12] = 0
    tilt = np.linspace(0, -5 + 2 * push, 80)[:, None]
    mel = -3 + tilt + 0.8 * swing + 0.3 * rng.normal(size=(80, frames))
    return mel.astype(np.float32), f0.astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of six made-up speakers with features, intensities in pairs."""
    folder = tmp_path_factory.mktemp("data") / "voices"
    tables: dict[str, dict[str, str]] = {n: {} for n in ("wav.scp", "utt2spk", "utt2emo", "utt2intensity", "text")}
    tensors, index = {}, {}
    for speaker in range(6):
        cells = [("neutral", 0.0)] * 4 + [(name, i) for name in ("angry", "sad") for i in (0.5, 1.0)] * 3
        for number, (label, intensity) in enumerate(cells):
            name = f"v-{speaker}-{number:02d}"
            mel, f0 = voice(label, intensity, 100 * speaker + number)
            tensors |= {f"{name}/mel": mel.astype(np.float16), f"{name}/f0": f0, f"{name}/energy": np.ones_like(f0)}
            index[name] = ("00000.safetensors", len(f0))
            values = (f"{name}.wav", f"v-{speaker}", label, f"{intensity:g}", "la la")
            for table, value in zip(tables.values(), values, strict=True):
                table[name] = value
    DataDir(folder, tables | {"spk2utt": speakers(tables["utt2spk"])}).write()
    (folder / "features").mkdir()
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", index)
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EmotionEncoder, Path]:
    out = tmp_path_factory.mktemp("exp") / "tiny"
    return train(SMALL, [corpus], out, quiet=True), out


def sound(seconds: float = 1.0, rate: int = 22050, hertz: float = 180.0) -> Audio:
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 20)) * (1 + 0.5 * np.sin(20 * time))
    return Audio((0.05 * wave).astype(np.float32), rate)


def test_learns_made_up_voices(trained: tuple[EmotionEncoder, Path], corpus: Path) -> None:
    encoder, out = trained
    clips = [clip for clip in load_clips([corpus]) if clip.speaker == "v-5"]
    embeddings, posteriors = outputs(encoder.network, clips)
    labels = [LABELS[clip.label] for clip in clips]
    assert accuracy(posteriors, labels, ("neutral", "angry", "sad")) > 0.6
    assert encoder.space is not None
    assert ordered(encoder.space, embeddings, labels, pairs(clips))["share"] > 0.8
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    (validation,) = [line["validation"] for line in lines if "validation" in line]
    assert set(validation) == {"loss", "accuracy_6", "accuracy_8", "order"}


def test_model_directory_gives_the_same_encoder(trained: tuple[EmotionEncoder, Path], tmp_path: Path) -> None:
    encoder, out = trained
    loaded = load_encoder(out / "model")
    assert isinstance(loaded, EmotionEncoder) and loaded.space is not None and encoder.space is not None
    a, b = encoder.encode(sound()), loaded.encode(sound())
    assert a.embedding.shape == (256,) and a.frames.shape == (-(-(22050 // 256) // STRIDE), SMALL.encoder.width)
    np.testing.assert_allclose(b.embedding, a.embedding, atol=0.03, rtol=0.03)  # half precision
    assert sum(b.posterior.values()) == pytest.approx(1) and set(b.posterior) == set(LABELS)
    assert b.label in LABELS and -1 <= b.valence <= 1 and -1 <= b.arousal <= 1
    np.testing.assert_allclose(loaded.space.directions, encoder.space.directions)
    loaded.save(tmp_path / "again", "# again\n")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model" / "model.safetensors").read_bytes()


def test_gain_changes_nothing(trained: tuple[EmotionEncoder, Path]) -> None:
    quiet, loud = (trained[0].encode(Audio(sound().samples * gain, 22050)) for gain in (0.03, 3.0))
    np.testing.assert_allclose(quiet.embedding, loud.embedding, atol=2e-3)
    mel, f0 = (torch.from_numpy(x)[None] for x in voice("angry", 1.0, 5))
    mask = torch.ones(f0.shape, dtype=torch.bool)
    for a, b in zip(prepare(mel, f0, mask, 6.5), prepare(mel + 2.5, f0, mask, 6.5), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    torch.testing.assert_close(level(mel + 2.5, mask) - level(mel, mask), torch.tensor([2.5]))


def test_the_background_does_not_tell_the_gain() -> None:
    mel, f0 = voice("sad", 1.0, 5)
    mel[:, 30:50] = -30.0
    other = mel.copy()
    other[:, 30:50] = -14.0  # both below the depth: silence
    mask = torch.ones(1, 90, dtype=torch.bool)
    a, b = (prepare(torch.from_numpy(x)[None], torch.from_numpy(f0)[None], mask, 6.5)[0] for x in (mel, other))
    torch.testing.assert_close(a, b)


def test_padding_changes_nothing(trained: tuple[EmotionEncoder, Path]) -> None:
    clips = [Clip("a", 0, "v", 4, 1.0, "", *voice("angry", 1.0, k, frames)) for k, frames in ((1, 61), (2, 127))]
    free = [[True] * len(LABELS)]
    both = collate(clips, [(c.mel, c.f0) for c in clips], free * 2)
    alone = collate(clips[:1], [(clips[0].mel, clips[0].f0)], free)
    with torch.inference_mode():
        a, b = (trained[0].network(x.mel, x.f0, x.mask) for x in (both, alone))
    torch.testing.assert_close(a.embedding[:1], b.embedding, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(a.frames[:1, :, : b.frames.shape[2]], b.frames, atol=1e-4, rtol=1e-3)


def test_statistics_are_finite_whatever_comes() -> None:
    mel, f0 = (torch.from_numpy(x)[None] for x in voice("sad", 1.0, 1, 40))
    for pitch in (f0, torch.zeros_like(f0)):
        for length in (1, 2, 3, 40):
            mask = torch.arange(40)[None] < length
            facts = summary(*prepare(mel, pitch, mask, 6.5), mask)
            assert facts.shape == (1, STATISTICS) and bool(facts.isfinite().all())


def test_long_sounds_are_read_in_parts(trained: tuple[EmotionEncoder, Path]) -> None:
    mel, f0 = voice("angry", 1.0, 3, round(1.1 * LONGEST_S * 22050 / 256))
    whole = trained[0].read(Features(mel, f0, np.ones_like(f0)))
    assert len(whole.frames) == -(-len(f0) // STRIDE)  # the short rest was read with the part before it
    mel, f0 = np.tile(mel, 2), np.tile(f0, 2)
    assert sum(trained[0].read(Features(mel, f0, np.ones_like(f0))).posterior.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [(np.zeros(22050), "silent"), (np.full(22050, np.nan), "not finite"), (np.ones(100), "100|short|1,?024")],
)
def test_what_is_no_voice_is_refused(trained: tuple[EmotionEncoder, Path], samples: np.ndarray, problem: str) -> None:
    with pytest.raises(AffgenError, match=problem):
        trained[0].encode(Audio(samples.astype(np.float32), 22050))


def test_pairs_and_split(corpus: Path) -> None:
    clips = load_clips([corpus])
    found = pairs(clips)
    assert len(found) == 6 * 2 * 3
    for strong, weak in found:
        a, b = clips[strong], clips[weak]
        assert (a.speaker, a.label, a.intensity, b.intensity) == (b.speaker, b.label, 1.0, 0.5)
    left, tuning = split(clips, ["v-[45]"])
    assert {clip.speaker for clip in tuning} == {"v-4", "v-5"} and len(left) + len(tuning) == len(clips)
    assert {LABELS[clip.label] for clip in load_clips([corpus], ["v-* sad"])} == {"neutral", "angry"}


def test_batches_are_functions_of_their_number(corpus: Path) -> None:
    draw = batches(load_clips([corpus]), SMALL)
    a, b, other = draw(7, 0, 1), draw(7, 0, 1), draw(8, 0, 1)
    torch.testing.assert_close(a.mel, b.mel)
    assert a.names == b.names != other.names
    assert a.pairs == 4 and (a.intensity[:8:2] > a.intensity[1:8:2]).all()
    assert a.allowed.sum(dim=1).tolist() == [3] * 16


def test_variation_moves_a_clip_and_keeps_its_form(corpus: Path) -> None:
    clip = load_clips([corpus])[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        mel, f0 = vary(clip, SMALL.variation, rng)
        assert mel.shape == (80, len(f0)) and mel.dtype == f0.dtype == np.float32
        assert np.isfinite(mel).all() and (f0 >= 0).all()
        assert mel.shape != clip.mel.shape or not np.allclose(mel, clip.mel)


def test_losses_fall_and_ignore_labels_of_other_corpora(corpus: Path) -> None:
    torch.manual_seed(0)
    task = Task(Network(EncoderConfig(width=16, blocks=1, heads=2)), SMALL.losses)
    batch = batches(load_clips([corpus]), SMALL)(0, 0, 1)
    losses = task.losses(batch)
    assert set(losses) == set(task.weights())
    losses["label"].backward()
    grad = task.network.label.bias.grad
    assert grad is not None
    absent = [LABELS.index(name) for name in LABELS if name not in HEIGHT]
    assert grad[absent].abs().max() < 1e-6 < grad.abs().max()


def test_figures_by_hand() -> None:
    chances = np.zeros((4, 8))
    chances[0, LABELS.index("calm")], chances[0, LABELS.index("neutral")] = 0.6, 0.4
    chances[1, LABELS.index("sad")], chances[2, LABELS.index("calm")] = 1, 1
    chances[3, LABELS.index("happy")] = 1
    labels = ["neutral", "sad", "calm", "angry"]
    assert accuracy(chances, labels) == 0.5
    assert accuracy(chances, labels, SIX) == pytest.approx(2 / 3)
    assert merged_accuracy(chances, labels) == 0.75
    assert recall(chances, labels) == 0.5
    x = np.array([[0.0], [2.0], [1.0]])
    space = EmotionSpace(("neutral", "sad"), np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))
    result = ordered(space, x, ["neutral", "sad", "sad"], [(1, 2), (2, 1)])
    assert (result["share"], result["pairs"], result["labels"]) == (0.5, 2, {"sad": 0.5})
    assert neutral_means(x, ["neutral", "neutral", "sad"], ["a", "a", "a"])["a"] == 1.0


def test_data_that_cannot_be_learnt_from_is_refused(corpus: Path, tmp_path: Path) -> None:
    data = DataDir.read(corpus)
    tables = {name: dict(table) for name, table in data.tables.items()}
    without = DataDir(tmp_path / "a", {k: v for k, v in tables.items() if k != "utt2emo"})
    without.write()
    tables["utt2emo"]["v-0-00"] = "Q1"
    DataDir(tmp_path / "b", tables).write()
    for name in "ab":
        (tmp_path / name / "features").symlink_to(corpus / "features")
    with pytest.raises(DataError, match="has no utt2emo"):
        load_clips([tmp_path / "a"])
    with pytest.raises(DataError, match="v-0-00 has 'Q1'"):
        load_clips([tmp_path / "b"])
    with pytest.raises(AffgenError, match="leaves no clip"):
        train(configs.load(EmotionConfig, None, ["tuning=['*']"]), [corpus], tmp_path / "c", quiet=True)
    with pytest.raises(AffgenError, match="does not exist"):
        main(["--data", str(corpus), "--out", str(tmp_path / "no" / "where")])
    for wrong in ("encoder.width=0", "variation.stretch=0.9", "losses.label=-1", "encoder.dropout=2"):
        with pytest.raises(AffgenError, match=r"above 0|end at|accepted"):
            configs.load(EmotionConfig, None, [wrong])


def test_damaged_models_are_refused(trained: tuple[EmotionEncoder, Path], tmp_path: Path) -> None:
    model = trained[1] / "model"
    text = (model / "config.json").read_text()
    for old, new, problem in (
        ('"affgen-small"', '"other"', "backend 'other'; accepted: affgen-small"),
        ('"width": 16', '"width": 24', "shape"),
        ('"width": 16', '"width": -3', "width"),
        ('"blocks": 1', '"blocks": 900', "is missing"),
        ('"width": 16', '"width": 4096', "shape"),
        ('"width": 16', '"breadth": 16', "breadth"),
        ('"task": "emotion"', '"task": "music"', "'emotion' is needed"),
    ):
        folder = tmp_path / str(abs(hash((old, new))))
        folder.mkdir()
        for name in ("README.md", "model.safetensors"):
            (folder / name).write_bytes((model / name).read_bytes())
        assert old in text
        (folder / "config.json").write_text(text.replace(old, new))
        with pytest.raises(ModelError, match=problem):
            load_encoder(folder)


@pytest.mark.skipif(not (PRETRAINED / "config.json").is_file(), reason="no shipped emotion encoder")
def test_the_shipped_encoder_is_small_and_tells_what_it_scored() -> None:
    about = describe(PRETRAINED)
    assert about["task"] == "emotion" and about["bytes"] < 6e6 and "NC" in about["config"]["licence"]
    encoder = load_encoder()
    assert encoder.space is not None and set(encoder.space.labels) == set(LABELS)
    assert encoder.card_line in (PRETRAINED / "README.md").read_text()
    reading = encoder.encode(sound())
    assert np.isfinite(reading.embedding).all() and reading.frames.shape[0] == pytest.approx(encoder.frame_rate, abs=1)


def test_gauges_leave_the_readings_and_measure_intensity(corpus: Path) -> None:
    torch.manual_seed(0)
    network = Network(SMALL.encoder).eval()
    clips = load_clips([corpus])
    before = outputs(network, clips)
    facts_before = ordered(EmotionSpace.fit(before[0], *columns(clips)), before[0], columns(clips)[0], pairs(clips))
    install(network, clips, 1.0)
    after = outputs(network, clips)
    np.testing.assert_allclose(after[1], before[1], atol=1e-3)
    gauges = after[0][:, -2:]  # angry and sad, after neutral
    labels, levels, _ = columns(clips)
    for column, name in enumerate(("angry", "sad")):
        strong, neutral = (
            gauges[[k for k, pair in enumerate(zip(labels, levels, strict=True)) if pair == wanted], column].mean()
            for wanted in ((name, 1.0), ("neutral", 0.0))
        )
        assert strong > neutral + 0.01
    space = EmotionSpace.fit(after[0], *columns(clips))
    assert ordered(space, after[0], labels, pairs(clips))["share"] >= facts_before["share"] - 0.03
    weights = network.embed.weight.clone()
    install(network, [clip for clip in clips if clip.label == 0], 1.0)
    install(network, clips, 0.0)
    torch.testing.assert_close(network.embed.weight, weights)
