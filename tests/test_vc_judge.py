from __future__ import annotations

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from affgen.audio import Audio
from affgen.datadir import DataDir
from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError, DataError, ModelError
from affgen.featuredir import write_index, write_shard
from affgen.features import SAMPLE_RATE
from affgen.testing_voice import fabricated_voice
from vc.acoustics import names
from vc.judge import SHIPPED, Judge, JudgeConfig
from vc.judge_train import Clip, card, load, main, train

TINY = JudgeConfig(members=2, width=16, train=replace(JudgeConfig().train, steps=60, warmup=5, batch_size=32))


@pytest.fixture(scope="module")
def shipped() -> Judge:
    return Judge.from_pretrained()


@pytest.fixture(scope="module")
def voices() -> list[Audio]:
    return [
        Audio(fabricated_voice(k, kind, seconds=2.0).samples, SAMPLE_RATE) for k, kind in ((1, "man"), (2, "woman"))
    ]


def made_up(speakers: int = 5, seed: int = 0) -> list[Clip]:
    """Clips whose statistics move along one axis for each label, from a place of each speaker's own."""
    rng = np.random.default_rng(seed)
    ways = rng.normal(0, 1, (len(LABELS), len(names())))
    clips = []
    for speaker in range(speakers):
        place = np.random.default_rng(100 + speaker).normal(0, 1, len(names()))
        for row, label in enumerate(LABELS):
            for level in (0.5, 1.0) if row else (0.0, 0.0):
                middle = place + 2 * level * ways[row]
                many = (middle + rng.normal(0, 0.5, (4, len(names())))).astype(np.float32)
                clips.append(
                    Clip(f"{speaker}-{row}-{level}", 0, f"s{speaker}", label, level, "a", many[0], many[1:3], many[3:])
                )
    return clips


# --- the shipped judge ---


def test_it_is_small_and_says_what_it_is_worth(shipped: Judge) -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1 << 20
    assert shipped.labels == LABELS
    assert shipped.figures["order_four"] >= 0.9 and shipped.figures["accuracy"] >= 0.5
    assert f"{shipped.figures['order_four']:.3f}" in (SHIPPED / "README.md").read_text(encoding="utf-8")


def test_a_gain_changes_nothing(shipped: Judge, voices: list[Audio]) -> None:
    for voice in voices:
        plain = shipped.read(voice)
        for factor in (0.05, 0.5, 3.0):
            louder = shipped.read(Audio(voice.samples * np.float32(factor), SAMPLE_RATE))
            for label in LABELS[1:]:
                assert abs(shipped.strength(louder, label, plain)) <= 1e-3
            assert max(abs(louder.posterior[x] - plain.posterior[x]) for x in LABELS) <= 1e-3


def test_a_reading_holds_probabilities_and_256_numbers(shipped: Judge, voices: list[Audio]) -> None:
    read = shipped.read(voices[0])
    assert tuple(read.posterior) == LABELS
    assert sum(read.posterior.values()) == pytest.approx(1, abs=1e-5)
    assert read.embedding.shape == (256,) and read.embedding.min() >= 0
    assert read.posterior[read.label] == max(read.posterior.values())
    assert read.scaled.tobytes() == shipped.read(voices[0]).scaled.tobytes()


def test_strength_is_signed_and_starts_at_the_source(shipped: Judge, voices: list[Audio]) -> None:
    a, b = (shipped.read(voice) for voice in voices)
    for label in LABELS[1:]:
        assert shipped.strength(a, label, a) == 0
        assert shipped.strength(a, label, b) == pytest.approx(-shipped.strength(b, label, a), abs=1e-5)
    assert shipped.strength(a, "anger", b) == shipped.strength(a, "angry", b)


def test_what_it_cannot_judge_is_refused(shipped: Judge, voices: list[Audio]) -> None:
    read = shipped.read(voices[0])
    for label in ("neutral", "Q1", "bored to tears"):
        with pytest.raises(AffgenError, match="accepted"):
            shipped.strength(read, label, read)
    for samples in (np.zeros(9000), np.ones(100), np.full(9000, np.nan)):
        with pytest.raises(AffgenError):
            shipped.read(Audio(samples, SAMPLE_RATE))


def test_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(SHIPPED, folder)
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace('"c1_mean"', '"c1_median"'), encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json: was trained on other statistics"):
        Judge.from_pretrained(folder)
    (folder / "config.json").write_text(text.replace('"members": 4', '"members": 3'), encoding="utf-8")
    with pytest.raises(ModelError, match="shape"):
        Judge.from_pretrained(folder)
    about = json.loads(text)
    about["config"]["mixup"] = -1.0
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ModelError, match="judge settings"):
        Judge.from_pretrained(folder)
    with pytest.raises(ModelError):
        Judge.from_pretrained(tmp_path / "nothing")


def test_it_shares_nothing_with_the_encoder_that_conditions() -> None:
    for name in ("judge.py", "judge_train.py", "acoustics.py"):
        tree = ast.parse((Path(__file__).parents[1] / "vc" / name).read_text(encoding="utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name for name in modules if name.startswith("affgen.emotion")} <= {"affgen.emotion.labels"}


# --- training ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return train(TINY, made_up(), tmp_path_factory.mktemp("exp") / "a", quiet=True)


def test_it_learns_labels_and_strengths_of_speakers_it_never_heard(trained: Judge) -> None:
    rows = [clip for clip in made_up(8) if clip.speaker in ("s5", "s6", "s7")]
    right = []
    for clip in rows:
        logits = trained.network(_tensor(trained.scaled(clip.plain)))[1].mean(dim=0)
        right.append(LABELS[int(logits.argmax())] == clip.label)
    assert np.mean(right) > 0.9
    for label in LABELS[1:]:
        way = trained.network.directions[LABELS.index(label)].numpy()
        middle = {
            (clip.label, clip.intensity): np.mean(
                [trained.scaled(c.plain) @ way for c in rows if (c.label, c.intensity) == (clip.label, clip.intensity)]
            )
            for clip in rows
        }
        anchor = middle["neutral", 0.0]
        assert middle[label, 1.0] - anchor == pytest.approx(1, abs=0.3)
        assert middle[label, 0.5] - anchor == pytest.approx(0.5, abs=0.3)


def _tensor(row: np.ndarray):  # type: ignore[no-untyped-def]
    import torch

    return torch.from_numpy(row)[None]


def test_training_is_reproducible_and_survives_saving(trained: Judge, tmp_path: Path, voices: list[Audio]) -> None:
    again = train(TINY, made_up(), tmp_path / "b", quiet=True)
    trained.save(tmp_path / "one", card(trained.config))
    again.save(tmp_path / "two", card(again.config))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    loaded = Judge.from_pretrained(tmp_path / "one")
    a, b = trained.read(voices[0]), loaded.read(voices[0])
    assert a.scaled.tobytes() == b.scaled.tobytes()
    assert max(abs(a.posterior[x] - b.posterior[x]) for x in LABELS) < 1e-2


def test_directions_avoid_what_copies_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hum = rng.normal(0, 1, len(names())).astype(np.float32)
    clips = [replace(clip, vocoded=np.stack([clip.plain + 3 * hum, clip.plain - 3 * hum])) for clip in made_up()]
    deaf, careful = (
        train(replace(TINY, artefacts=weight), clips, tmp_path / str(weight), quiet=True) for weight in (0.0, 50.0)
    )
    shifts = [
        np.abs(judge.network.directions.numpy() @ (hum / judge.network.deviation.numpy())) for judge in (deaf, careful)
    ]
    assert shifts[1].mean() < 0.5 * shifts[0].mean()


def test_clips_without_neutral_or_without_strong_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip"):
        train(TINY, [], tmp_path / "a", quiet=True)
    with pytest.raises(DataError, match="neutral"):
        train(TINY, [clip for clip in made_up() if clip.label != "neutral"], tmp_path / "b", quiet=True)
    with pytest.raises(DataError, match="sad: there is no clip"):
        train(TINY, [clip for clip in made_up() if clip.label != "sad"], tmp_path / "c", quiet=True)


def test_settings_that_make_no_sense_are_refused() -> None:
    for setting in ({"members": 0}, {"dropout": 1.0}, {"mixup": 0.0}, {"speeds": (0.0,)}, {"noise": -1.0}):
        with pytest.raises(AffgenError, match="judge settings"):
            JudgeConfig(**setting)  # type: ignore[arg-type]


# --- data directories ---


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One speaker, all labels, both levels: 16 clips of half a second."""
    folder = tmp_path_factory.mktemp("data") / "voices"
    tables = {name: {} for name in ("wav.scp", "utt2spk", "spk2utt", "utt2emo", "utt2intensity", "text")}
    tensors = {}
    for number, label in enumerate(label for label in LABELS for _ in range(2)):
        name, level = f"a-{number:02d}", "0" if label == "neutral" else ("0.5", "1")[number % 2]
        wave = fabricated_voice(number, "man", seconds=0.5).samples
        tensors[f"{name}/wave"] = np.round(wave * 32767).astype(np.int16)
        for table, value in zip(tables, ("x.wav", "a", "", label, level, "words"), strict=True):
            tables[table][name] = value
    tables["spk2utt"] = {"a": " ".join(tables["utt2spk"])}
    DataDir(folder, tables).write()
    (folder / "features").mkdir()
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", {name: ("00000.safetensors", 43) for name in tables["utt2spk"]})
    return folder


def test_from_data_directory_to_model(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyworld")
    out = tmp_path / "exp"
    settings = ["members=1", "width=8", "train.steps=3", "train.warmup=1", "speeds=[0.9]"]
    main(["--data", str(corpus), "--data", str(corpus), "--test", str(corpus), "--out", str(out), "--quiet", *settings])
    judge = Judge.from_pretrained(out / "model")
    assert {"accuracy", "order", "reach_sad", "vocoded_shift", "world_agreement"} <= set(judge.figures)
    assert judge.figures["pairs"] == 7
    assert "| order four |" in (out / "model" / "README.md").read_text(encoding="utf-8")


def test_copies_come_from_the_first_corpus_only(corpus: Path) -> None:
    pytest.importorskip("pyworld")
    clips = load([corpus, corpus], replace(TINY, speeds=(0.9,)), quiet=True)
    assert len(clips) == 32
    assert [clip.varied.shape[0] for clip in clips] == [1] * 16 + [0] * 16
    assert [clip.vocoded.shape[0] for clip in clips] == [2] * 16 + [0] * 16
    assert {clip.intensity for clip in clips if clip.label == "neutral"} == {0.0}


def test_directories_that_lack_what_is_needed_are_refused(corpus: Path, tmp_path: Path) -> None:
    tables = DataDir.read(corpus).tables
    DataDir(tmp_path / "a", {k: v for k, v in tables.items() if k != "utt2emo"}).write()
    (tmp_path / "a" / "features").symlink_to(corpus / "features")
    with pytest.raises(DataError, match="utt2emo"):
        load([tmp_path / "a"], TINY, quiet=True)
    with pytest.raises(AffgenError, match="does not exist"):
        main(["--data", str(corpus), "--out", str(tmp_path / "no" / "where")])
