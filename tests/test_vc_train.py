"""Training in stages, from a fabricated data directory to a model that converts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from affgen.audio import Audio, resample
from affgen.datadir import DataDir, speakers
from affgen.errors import AffgenError, DataError, ModelError
from affgen.extraction import extract_features
from affgen.testing_voice import fabricated_voice
from vc import calibrate as calibration
from vc import train as module
from vc.calibrate import clips_of
from vc.config import MINIATURE, VcConfig
from vc.convert import VoiceConverter
from vc.data import Clip, load_clips
from vc.model import Decoder
from vc.pack import pack, unpack
from vc.train import find_feeling, fit_scales, train, train_decoder, with_twins

RATE = 22_050
LEVELS = (("neutral", 0.0), ("neutral", 0.0), ("happy", 0.5), ("happy", 1.0), ("angry", 0.5), ("angry", 1.0))
CONFIG = replace(
    MINIATURE,
    licence="none",
    feeling=replace(MINIATURE.feeling, rank=2),
    data=replace(MINIATURE.data, leave_out=("s3",), valid_utterances=3, calibration_clips=1),
)


def spoken(seed: int, kind: str, rise: float) -> np.ndarray:
    """The same words again, ``rise`` octaves higher: the rate goes with it."""
    voice = fabricated_voice(seed, kind, seconds=0.8, snr_db=50).samples
    return resample(voice, round(RATE * 2**rise), RATE)


def directory(folder: Path, *, dull: bool = False) -> Path:
    """Three speakers who say one sentence neutrally, twice, happily and angrily at two intensities."""
    folder.mkdir(parents=True)
    tables: dict[str, dict[str, str]] = {
        name: {} for name in ("wav.scp", "utt2spk", "text", "utt2emo", "utt2intensity")
    }
    for number, kind in enumerate(("man", "woman", "man"), 1):
        for take, (label, level) in enumerate(LEVELS[:2] if dull else LEVELS):
            name = f"s{number}-{label}-{take}"
            rise = {"neutral": 0.0, "happy": 0.3, "angry": 0.15}[label] * level + 0.01 * take
            Audio(spoken(10 * number, kind, rise), RATE).save(folder / f"{name}.wav")
            row = (str(folder / f"{name}.wav"), f"s{number}", "Dogs sit", label, str(level))
            for table, value in zip(tables.values(), row, strict=True):
                table[name] = value
    if dull:
        del tables["text"], tables["utt2intensity"]
    DataDir(folder, tables | {"spk2utt": speakers(tables["utt2spk"])}).write()
    extract_features(folder, engine="serial", waves=True)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One folder with emotions and one without."""
    root = tmp_path_factory.mktemp("corpus")
    return [directory(root / "acted"), directory(root / "read", dull=True)]


@pytest.fixture(scope="module")
def clips(corpus: list[Path]) -> list[Clip]:
    return load_clips(corpus, CONFIG.decoder.cepstra)


class Ear:
    """A listener that hears how high a voice is."""

    def __init__(self, strong: Any) -> None:
        self.labels = set(strong)

    def hear(self, audio: Audio) -> float:
        return float(np.log(np.abs(audio.samples).mean() + 1e-4))

    def moved(self, heard: float, anchor: float, label: str) -> float:
        return abs(heard - anchor)


# --- from end to end -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(corpus: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exp") / "new"
    with pytest.MonkeyPatch.context() as patch:
        # without the shipped listeners, colours and corrections, which have tests of their own
        patch.setattr(calibration, "moved_as_far", lambda converter, strong: converter.parts.prosody)
        patch.setattr(calibration, "Listener", Ear)
        patch.setattr(calibration, "colours", lambda converter, strong: np.ones(len(converter.labels)))
        train(CONFIG, corpus, out, quiet=True)
    return out


def test_training_leaves_a_model_that_converts(trained: Path) -> None:
    converter = VoiceConverter.from_pretrained(trained / "model")
    assert converter.labels == ("neutral", "happy", "angry")
    assert converter.parts.prosody.labels == converter.labels[1:]
    assert converter.parts.calibration.labels == converter.parts.feeling.labels == converter.labels
    assert converter.parts.config == CONFIG and not converter.parts.decoder.training
    voice = Audio(fabricated_voice(4, "man", seconds=0.7).samples, RATE)
    for label in converter.labels[1:]:
        made = converter.run(voice, label, 1.0)
        assert np.isfinite(made.audio.samples).all() and np.abs(made.audio.samples).max() > 1e-3
    assert np.array_equal(converter.convert(voice, "happy", 0.0).samples, voice.samples)
    with pytest.raises(AffgenError, match="model has: neutral, happy, angry"):
        converter.convert(voice, "sad")


def test_prosody_was_learned_from_twins(trained: Path) -> None:
    prosody = unpack(trained / "model").prosody
    pitch = dict(zip(prosody.labels, prosody.offset[:, 0], strict=True))
    assert pitch["happy"] > pitch["angry"] > 0.05  # 0.3 and 0.15 octaves were made


def test_a_model_directory_is_complete(trained: Path) -> None:
    assert {path.name for path in (trained / "model").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert (trained / "config.yaml").is_file() and (trained / "decoder").is_dir()
    parts = unpack(trained / "model")
    assert all(torch.isfinite(value).all() for value in parts.decoder.state_dict().values())
    assert parts.decoder.mel_scale.min() > 0 and parts.decoder.mel_mean.any()


def test_a_model_is_the_same_after_packing(trained: Path, tmp_path: Path) -> None:
    parts = unpack(trained / "model")
    pack(parts, tmp_path / "again")
    again = unpack(tmp_path / "again")
    for name, value in parts.decoder.state_dict().items():
        assert torch.equal(value, again.decoder.state_dict()[name])
    for part in ("feeling", "prosody", "calibration"):
        one, other = getattr(parts, part).arrays(), getattr(again, part).arrays()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_damaged_model_is_refused(trained: Path, tmp_path: Path) -> None:
    from shutil import copytree

    folder = copytree(trained / "model", tmp_path / "m")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError):
        unpack(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        unpack(folder)


# --- stages ----------------------------------------------------------------------------------------------------------


def prepared(clips: list[Clip], config: VcConfig = CONFIG) -> tuple[Any, list[Clip]]:
    return find_feeling(clips, config)


def test_speakers_left_out_are_not_drawn(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeling, placed = prepared(clips)
    names: set[str] = set()
    kept = module.batches

    def batches(training: list[Clip], *rest: Any) -> Any:
        names.update(clip.speaker for clip in training)
        return kept(training, *rest)

    monkeypatch.setattr(module, "batches", batches)
    train_decoder(CONFIG, placed, feeling, {}, tmp_path, quiet=True)
    assert names == {"s1", "s2"}


def test_training_goes_on_where_it_was(clips: list[Clip], tmp_path: Path) -> None:
    feeling, placed = prepared(clips)
    whole = train_decoder(CONFIG, placed, feeling, {}, tmp_path / "whole", quiet=True)
    calls = 0

    def stop(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return kept(*arguments)

    kept = Decoder.losses
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "losses", stop)
        with pytest.raises(KeyboardInterrupt):
            train_decoder(CONFIG, placed, feeling, {}, tmp_path / "parts", quiet=True)
    again = train_decoder(CONFIG, placed, feeling, {}, tmp_path / "parts", resume=True, quiet=True)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, again.state_dict()[name], atol=1e-6), name


def test_the_decoder_learns_and_ends_ready_for_use(clips: list[Clip], tmp_path: Path) -> None:
    feeling, placed = prepared(clips)
    torch.manual_seed(5)
    decoder = train_decoder(CONFIG, placed, feeling, {}, tmp_path, quiet=True)
    assert not decoder.training and decoder.feeling.in_channels == CONFIG.feeling.rank
    start = Decoder(CONFIG.decoder, CONFIG.feeling.rank)
    assert decoder.flow_head.weight.abs().max() > start.flow_head.weight.abs().max()


def test_scales_make_standard_units(clips: list[Clip]) -> None:
    decoder = Decoder(CONFIG.decoder, CONFIG.feeling.rank)
    fit_scales(decoder, clips)
    loud = [clip.mel[:, clip.energy > clip.energy.max() - 4].astype(np.float32) for clip in clips]
    mels = torch.from_numpy(np.concatenate(loud, axis=1))[None]
    standard = decoder.standard(mels)
    assert standard.mean(dim=2).abs().max() < 1e-3 and (standard.std(dim=2) - 1).abs().max() < 1e-2
    assert torch.isfinite(decoder.timbre_scale).all() and decoder.timbre_scale.min() > 0


def test_neutral_speech_is_the_origin(clips: list[Clip]) -> None:
    feeling, placed = prepared([clip for clip in clips if clip.folder.endswith("acted")])
    assert feeling.labels == ("neutral", "happy", "angry")
    for speaker in ("s1", "s2", "s3"):
        own = [clip.emotion for clip in placed if clip.speaker == speaker and clip.label == "neutral"]
        assert own[0].shape == (2,) and np.abs(np.mean(own, axis=0)).max() < 1e-4


def test_neutral_speech_is_the_origin_in_every_folder(clips: list[Clip]) -> None:
    other = [
        replace(clip, folder="sung", emotion=clip.emotion + 1.0) for clip in clips if clip.folder.endswith("acted")
    ]
    _, placed = prepared([clip for clip in clips if clip.folder.endswith("acted")] + other)
    for folder in {clip.folder for clip in placed}:
        own = [c.emotion for c in placed if (c.speaker, c.label, c.folder) == ("s1", "neutral", folder)]
        assert np.abs(np.mean(own, axis=0)).max() < 1e-3


def test_directories_with_twins_are_those_with_words_and_emotions(corpus: list[Path]) -> None:
    assert with_twins(corpus) == corpus[:1]


# --- what is calibrated on -------------------------------------------------------------------------------------------


def test_calibration_hears_the_speakers_left_out_alone(corpus: list[Path]) -> None:
    neutral, strong = clips_of(corpus[:1], ("s3",), each=1)
    assert len(neutral) == 1 and {label: len(pairs) for label, pairs in strong.items()} == {"happy": 2, "angry": 2}
    assert all(clip.sample_rate == RATE and clip.duration_s > 0.5 for clip in neutral)
    both, _ = clips_of(corpus[:1], ("s*",), each=2)
    assert len(both) == 6
    loud, plain = strong["happy"][0]
    assert len(loud.samples) < len(plain.samples)  # the higher, the shorter, as they were made


def test_nobody_to_calibrate_on_is_no_clip(corpus: list[Path]) -> None:
    assert clips_of(corpus[:1], ("nobody",)) == ([], {})


def test_where_nobody_is_left_out_everybody_is_trained_on(
    corpus: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trained(Exception):
        pass

    asked: dict[str, Any] = {}
    learned, listened = module.learn_prosody, module.clips_of

    def learn(folders: Any, *, leave_out: Any) -> Any:
        asked["left out"] = tuple(leave_out)
        return learned(folders, leave_out=leave_out)

    def clips(folders: Any, patterns: Any, each: int) -> Any:
        asked["heard"] = tuple(patterns)
        return listened(folders, patterns, each)

    def trained(*arguments: Any, **how: Any) -> Any:
        raise Trained

    for name, replacement in (("learn_prosody", learn), ("clips_of", clips), ("train_decoder", trained)):
        monkeypatch.setattr(module, name, replacement)
    config = replace(CONFIG, data=replace(CONFIG.data, leave_out=("ravdess-13",)))
    with pytest.raises(Trained):
        train(config, corpus, tmp_path / "x", quiet=True)
    assert asked == {"left out": (), "heard": ("*",)}


def test_what_cannot_be_calibrated_is_refused_before_training(
    corpus: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*arguments: Any, **how: Any) -> Any:
        raise AssertionError("trained for hours before the calibration was found to be impossible")

    monkeypatch.setattr(module, "clips_of", lambda *_: ([], {}))
    monkeypatch.setattr(module, "train_decoder", trained)
    with pytest.raises(DataError, match="no strong clips of s3; calibration needs utt2intensity 1"):
        train(CONFIG, corpus, tmp_path / "x", quiet=True)


def test_labels_that_do_not_agree_are_refused(
    corpus: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train_decoder", lambda *_, **how: Decoder(CONFIG.decoder, 2))
    monkeypatch.setattr(module, "learn_prosody", lambda *_, **how: SimpleNamespace(labels=("happy",)))
    with pytest.raises(DataError, match="prosody knows happy, the decoder happy, angry"):
        train(CONFIG, corpus, tmp_path / "x", quiet=True)
    assert not (tmp_path / "x" / "model").exists()
