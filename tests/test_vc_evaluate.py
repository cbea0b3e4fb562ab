"""The evaluation on fabricated voices, whose emotion is how high they are: judge, speaker and phones are made up."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affgen.audio import Audio, resample
from affgen.errors import AffgenError, DataError
from affgen.featuredir import write_index, write_shard
from affgen.features import BANDS, HOP, SAMPLE_RATE, log_mel
from affgen.testing_voice import fabricated_voice
from vc import evaluate, evaluate_cli, evaluate_report, evaluate_rows, evaluate_tools, instruments
from vc.evaluate_rows import Clip, chosen, natural, rows
from vc.evaluate_tools import Reader

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CENTRES = np.linspace(0, 1, BANDS)


def faster(audio: Audio, octaves: float) -> Audio:
    rate = round(SAMPLE_RATE / 2**octaves)
    return Audio(resample(audio.samples, SAMPLE_RATE, rate), SAMPLE_RATE)


def voice(seed: int, seconds: float = 0.7) -> Audio:
    return Audio(fabricated_voice(seed, "man", seconds=seconds, vibrato_cents=0).samples, SAMPLE_RATE)


@dataclass
class Heard:
    height: float
    posterior: dict[str, float]


class Ear:
    """Hears anger as the height of the spectrum."""

    labels = LABELS

    def read(self, audio: Audio) -> Heard:
        power = np.exp(2 * log_mel(audio.samples)).mean(axis=1)
        height = float(CENTRES @ power / power.sum())
        angry = height > 0.2
        return Heard(height, {name: float(name == ("angry" if angry else "neutral")) for name in LABELS})

    def strength(self, judged: Heard, label: str, anchor: Heard) -> float:
        return (judged.height - anchor.height) * (1.0 if label == "angry" else 0.1)


def colour(audio: Audio) -> np.ndarray:
    vector = log_mel(audio.samples).mean(axis=1)
    return vector / np.linalg.norm(vector)


def letters(mel: np.ndarray) -> tuple[str, ...]:
    return tuple("abcdefgh"[int(k)] for k in mel.argmax(axis=0)[::8] // 10)


class Converter:
    """Plays faster as intensity rises; refuses sadness."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def convert(self, audio: Audio, label: str, intensity: float, *, steps: int | None, seed: int) -> Audio:
        self.calls.append((label, intensity))
        if label == "sad":
            raise AffgenError("sad: not in this model")
        return faster(audio, 0.5 * intensity)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers: two takes of a neutral sentence, and the same half an octave and a quarter up, angry."""
    folder = tmp_path_factory.mktemp("data")
    tables: dict[str, list[str]] = {name: [] for name in ("wav.scp", "utt2spk", "utt2emo", "utt2intensity", "text")}
    tensors: dict[str, Any] = {}
    for speaker in ("s1", "s2"):
        for take in (1, 2):
            plain = voice(int(speaker[1]) * 10 + take)
            for emotion, level, octaves in (("neutral", 0.0, 0.0), ("angry", 0.5, 0.25), ("angry", 1.0, 0.5)):
                name = f"{speaker}-{emotion}-{level:g}-{take}"
                sound = faster(plain, octaves).samples
                for table, value in zip(tables, (f"{name}.wav", speaker, emotion, f"{level:g}", "dogs"), strict=True):
                    tables[table].append(f"{name} {value}")
                count = len(sound) // HOP
                tensors[f"{name}/mel"] = np.zeros((BANDS, count), np.float16)
                tensors[f"{name}/f0"] = tensors[f"{name}/energy"] = np.zeros(count, np.float32)
                tensors[f"{name}/wave"] = (sound.clip(-1, 1) * 32_767).astype(np.int16)
    for table, lines in tables.items():
        (folder / table).write_text("\n".join(sorted(lines)) + "\n")
    (folder / "features").mkdir()
    names = sorted({name.partition("/")[0] for name in tensors})
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    counts = {name: ("00000.safetensors", tensors[f"{name}/mel"].shape[1]) for name in names}
    write_index(folder / "features", counts)
    return folder


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> Converter:
    found = Converter()
    reader = Reader(Ear(), {"affgen": colour}, letters, None, None)
    monkeypatch.setattr(evaluate, "_judge", Ear)
    monkeypatch.setattr(evaluate, "_converter", lambda args: found)
    monkeypatch.setattr(instruments, "instruments", lambda judge, texts: (reader, ["words: not here"]))
    monkeypatch.setattr(evaluate, "vocoded", lambda audio, vocoder: audio)
    monkeypatch.setattr("affgen.vocoder.Vocoder.from_pretrained", lambda: None)
    return found


def results() -> Any:
    """The recipe's program that makes the tables of RESULTS.md."""
    path = Path(__file__).parents[1] / "egs" / "ravdess" / "vc1" / "local" / "results.py"
    spec = importlib.util.spec_from_file_location("vc1_results", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate_cli.add_flags(parser)
    return parser.parse_args([*words, "--quiet"])


def measured(data: Path, out: Path, *words: str) -> dict[str, Any]:
    given = [str(data), "--out", str(out), "--emotions", "anger", "--intensities", "0,.5,1", *words]
    assert evaluate.run(arguments(*given)) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


# -------------------------------------------------------------------------------------------------- the whole run


def test_a_row_that_obeys_and_rows_that_do_not(
    data: Path, tmp_path: Path, converter: Converter, capsys: pytest.CaptureFixture[str]
) -> None:
    made = measured(data, tmp_path / "metrics.json", "--rows", "source,gain,model")
    model, gain, source = (made["rows"][name] for name in ("model", "gain", "source"))
    assert model["control"]["spearman"]["value"] == 1 and model["control"]["range"]["value"] == pytest.approx(1, 0.01)
    assert gain["control"]["spearman"]["value"] == 0 and abs(gain["control"]["range"]["value"]) < 0.01
    assert gain["prosody"]["loudness_change"]["angry"] == pytest.approx(18, abs=0.1)
    assert source["content"]["phones_source"]["value"] == 0 and source["speaker"]["affgen"]["source"]["value"] == (
        pytest.approx(1)
    )
    assert model["quality"]["frechet"]["value"] < source["quality"]["frechet"]["value"]
    assert model["prosody"]["duration_ratio"]["angry"] == pytest.approx(2**-0.5, rel=0.1)
    assert gain["model_minus_this"]["range"]["value"] == pytest.approx(1, abs=0.02)
    assert made["validity"]["pairs"]["value"] == 1 and made["validity"]["pairs"]["count"] == 4
    assert made["natural"]["control"]["curve"]["angry"]["1"] == pytest.approx(1)
    assert made["natural"]["outputs"] == 12 and model["outputs"] == 12 and made["failures"] == []
    goals = "\n".join(results().goals(made, "model") + results().differences(made))
    assert "| Spearman, median over utterances | 1.000 [1.000, 1.000] | >= 0.9 | >= 0.98 | aim |" in goals
    assert "| - | >= 0.5 |" not in goals and results().goals(made, "gain")[2].endswith("| no |")
    printed = capsys.readouterr().out
    assert "the stronger of two real clips of an emotion is found in 1.000" in printed.split("| row |")[0]
    assert "| gain |" in printed and "missing: words: not here" in printed


def test_a_second_run_goes_on_from_what_was_kept(data: Path, tmp_path: Path, converter: Converter) -> None:
    keep, out = tmp_path / "keep", tmp_path / "metrics.json"
    first = measured(data, out, "--rows", "model", "--keep", str(keep))
    made = len(converter.calls)
    assert made == 12 + 1 and len(list(keep.glob("model/*.flac"))) == 12
    again = measured(data, out, "--rows", "model", "--keep", str(keep))
    assert len(converter.calls) == made and again == first
    damaged = sorted(keep.glob("model/*.json"))[0]
    damaged.write_text(damaged.read_text()[:100])
    measured(data, out, "--rows", "model", "--keep", str(keep))
    assert len(converter.calls) == made + 3 + 1
    measured(data, out, "--rows", "model", "--keep", str(keep), "--seed", "1")
    assert len(converter.calls) == made + 3 + 1 + 12 + 1


def test_conversions_that_fail_are_counted(data: Path, tmp_path: Path, converter: Converter) -> None:
    def half(audio: Audio, label: str, intensity: float) -> Audio:
        if intensity == 0.5:
            raise AffgenError("not today")
        return audio

    args = arguments(str(data), "--out", str(tmp_path / "m.json"), "--emotions", "angry", "--intensities", "0,.5,1")
    session, *_ = evaluate._opened(args, evaluate._settings(args))
    readings, failures = evaluate._row(session, "model", half, "")
    assert len(readings) == 8 and len(failures) == 4 and "angry 0.5: not today" in failures[0]


def test_what_cannot_be_evaluated_is_refused(data: Path, tmp_path: Path, converter: Converter) -> None:
    out = str(tmp_path / "m.json")
    for words, message in (
        (["--rows", "best"], "--rows best; accepted: source"),
        (["--rows", "dvm-3"], "no variants"),
        (["--emotions", "neutral"], "accepted: calm"),
        (["--emotions", "happy"], "no clip of happy"),
        (["--keep", str(tmp_path / "no" / "where")], "does not exist"),
    ):
        with pytest.raises(AffgenError, match=message):
            evaluate.run(arguments(str(data), "--out", out, *words))
    assert not Path(out).exists() and not converter.calls


def test_flags() -> None:
    args = arguments("d", "--out", "m.json", "--rows", "rule, model", "--intensities", "0,1,1.5")
    assert args.rows == ("rule", "model") and args.intensities == (0, 1, 1.5)
    for words in (["0.5,1"], ["0,.5"], ["0,1,.5"], ["0,1,2"], ["0,nan,1"]):
        with pytest.raises(SystemExit):
            arguments("d", "--out", "m.json", "--intensities", *words)


# ------------------------------------------------------------------------------------------------- rows and clips


def clip(name: str, speaker: str, text: str, label: str = "neutral", level: float = 0.0) -> Clip:
    return Clip(name, speaker, text, label, level, voice(0))


def test_sentences_take_turns_and_twins_are_of_one_sentence() -> None:
    clips = [clip(f"{s}{t}{k}", s, t) for s in "ab" for t in "xy" for k in range(2)]
    clips += [clip(f"{s}{t}!{k}", s, t, "sad", 1.0) for s in "ab" for t in "xy" for k in range(2)]
    two = chosen(clips, 2)
    assert [c.speaker for c in two] == ["a", "a", "b", "b"] and [c.text for c in two] == ["x", "y", "x", "y"]
    assert len(chosen(clips, None)) == 8
    twins = list(natural(clips, chosen(clips, None), ["sad"]))
    assert len(twins) == 16 and all(t.source.text == t.clip.text and t.source is not t.clip for t in twins)
    assert {(t.source.name[-1], t.clip.name[-1]) for t in twins if t.level == 1} == {("0", "0"), ("1", "1")}
    with pytest.raises(DataError, match="no neutral clips"):
        chosen([clip("a", "a", "x", "sad", 1.0)], None)


def test_rows_are_made_of_variants() -> None:
    asked: list[dict[str, Any]] = []

    class Offering(Converter):
        def variant(self, **how: Any) -> Converter:
            asked.append(how)
            return self

    found = rows(Offering(), evaluate_rows.ROWS, None, 0)  # type: ignore[arg-type]
    assert tuple(found) == evaluate_rows.ROWS and asked[0] == {"difference": True} and {"rank": 8} in asked
    assert "dvm-1" not in evaluate_rows.offered(Converter())  # type: ignore[arg-type]
    with pytest.raises(AffgenError, match="needs a model"):
        rows(None, ["model"], None, 0)


# ----------------------------------------------------------------------------------------------------- readings


def source_of(audio: Audio, reader: Reader) -> evaluate_tools.Source:
    heard = reader.hear(audio)
    return evaluate_tools.Source("u", "s", "dogs are here", audio, heard, heard, (heard, reader.hear(voice(7))))


def test_loudness_changes_nothing_but_what_is_said_of_it() -> None:
    reader = Reader(Ear(), {"affgen": colour}, letters, None, None)
    source = source_of(voice(3), reader)
    plain = reader.read(source, voice(3), "angry", 1.0)
    loud = reader.read(source, Audio(0.2 * voice(3).samples, SAMPLE_RATE), "angry", 1.0)
    assert plain["numbers"].pop("loudness_change") == 0
    assert loud["numbers"].pop("loudness_change") == pytest.approx(20 * np.log10(0.2), abs=0.01)
    assert plain["numbers"] == pytest.approx(loud["numbers"], abs=2e-3, nan_ok=True)
    assert plain["speaker_likeness"]["affgen"]["source"] == pytest.approx(1)
    assert plain["speaker_likeness"]["affgen"]["others"] < 0.9999  # not with itself
    assert plain["numbers"]["f0_correlation"] == pytest.approx(1) and plain["numbers"]["mcd"] == pytest.approx(0)


def test_slow_instruments_read_the_top_alone() -> None:
    reader = Reader(Ear(), {"affgen": colour}, letters, None, lambda audio: 3.5)
    source = source_of(voice(3), reader)
    top, half = (reader.read(source, voice(3), "angry", intensity) for intensity in (1.0, 0.5))
    assert top["numbers"]["mos"] == 3.5 and "mos" not in half["numbers"]
    assert "moments" in top and "moments" not in half


def test_silence_is_no_reading() -> None:
    with pytest.raises(AffgenError, match="silence"):
        Reader(Ear(), {}, letters, None, None).hear(Audio(np.zeros(22_050), SAMPLE_RATE))


def test_distortion_is_near_that_of_copies() -> None:
    from affgen.metrics.speech import mcd

    reader = Reader(Ear(), {}, letters, None, None)
    audio = voice(3)
    noisy = Audio(audio.samples + np.random.default_rng(0).normal(0, 0.01, len(audio.samples)), SAMPLE_RATE)
    ours, theirs = reader.hear(audio), reader.hear(noisy)
    straight = np.repeat(np.arange(len(ours.features))[:, None], 2, axis=1)
    found = evaluate_tools.distortion(ours.features, theirs.features, straight)
    assert found == pytest.approx(mcd(audio.samples, noisy.samples), rel=0.35)


def test_a_smeared_spectrum_shows() -> None:
    heard = Reader(Ear(), {}, letters, None, None).hear(voice(3))
    in_time, in_band = (np.array(heard.features.mel, copy=True) for _ in range(2))
    for k in range(1, 6):
        in_time += np.roll(heard.features.mel, k, axis=1)
        in_band += np.roll(heard.features.mel, k, axis=0)
    plain, *smeared = (
        evaluate_tools.roughness(replace(heard, features=replace(heard.features, mel=mel)))
        for mel in (heard.features.mel, in_time / 6, in_band / 6)
    )
    assert smeared[0]["flux"] < 0.7 * plain["flux"] and smeared[0]["variance"] < plain["variance"]
    assert smeared[1]["detail"] < 0.7 * plain["detail"]


def test_a_text_with_foreign_words_has_no_phones() -> None:
    pytest.importorskip("pocketsphinx")
    assert evaluate_tools.spoken("Dogs are sitting by the door")[0] == "d"
    assert evaluate_tools.spoken("Za godzinę będę w domu") == () and evaluate_tools.spoken("") == ()


def test_words_are_recognised_or_not() -> None:
    pytest.importorskip("pocketsphinx")
    recogniser = instruments._words(["kids are talking by the door"])
    assert recogniser is not None
    first = recogniser(voice(3))
    assert isinstance(first, tuple) and recogniser(voice(4)) is not None and recogniser(voice(3)) == first
    assert instruments._words(["będę w domu"]) is None


def test_a_foreign_speaker_encoder_if_there_is_one() -> None:
    pytest.importorskip("resemblyzer")
    embed: Callable[[Audio], np.ndarray] | None = instruments._resemblyzer()
    assert embed is not None
    vector = embed(voice(3))
    assert vector.shape == (256,) and np.linalg.norm(vector) == pytest.approx(1)


def test_figures_are_cut_towards_what_is_worse() -> None:
    assert evaluate_report.shown(0.8999, 2) == "0.89" and evaluate_report.shown(0.301, 2, "less") == "0.31"
    assert evaluate_report.shown(0.9, 2) == "0.90" and evaluate_report.shown(None) == "-"
    assert evaluate_report.shown(float("nan")) == "-" and evaluate_report.ranged(None) == "-"
