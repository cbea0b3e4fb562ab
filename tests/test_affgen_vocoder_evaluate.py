"""The evaluation of copy synthesis on fabricated voices; the slow pitch judge is replaced by the project's own."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from affgen.errors import AffgenError, DataError
from affgen.featuredir import write_index, write_shard
from affgen.features import BANDS, HOP, extract_blocks
from affgen.testing_voice import fabricated_voice
from affgen.vocoder import evaluate as module
from affgen.vocoder.evaluate import FIGURES, Item, evaluate, griffin_lim_copy, pieces, select, world

pytest.importorskip("pesq")


def item(seed: int, corpus: str, seconds: float = 1.0) -> Item:
    wave = fabricated_voice(seed, "woman", seconds=seconds).samples
    found = extract_blocks([wave])
    return Item(f"{corpus}-{seed}", corpus, found.mel, found.f0, wave[: len(found) * HOP])


ITEMS = [item(0, "a"), item(1, "a"), item(2, "b")]


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def pyin(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(wave))
        return module.own(wave)

    monkeypatch.setattr(module, "pyin", pyin)
    return calls


def noisy(found: Item) -> np.ndarray:
    level = 0.1 if found.corpus == "b" else 0.01
    return found.wave + np.random.default_rng(0).normal(0, level, len(found.wave)).astype(np.float32)


def test_an_exact_copy_is_perfect_and_a_late_one_too() -> None:
    report = evaluate({"same": lambda i: i.wave, "late": lambda i: np.pad(i.wave, (96, 0))}, ITEMS[:1])
    for row in report.rows.values():
        assert row["all"]["pesq"] == pytest.approx(4.64, abs=0.01)
        assert all(row["all"][name] == pytest.approx(0, abs=1e-5) for name in FIGURES if name != "pesq")


def test_means_are_over_recordings_and_by_corpus() -> None:
    report = evaluate({"noisy": noisy}, ITEMS)
    assert report.items == {"a": 2, "b": 1} and report.failures == {}
    assert report.seconds == pytest.approx(3.0, abs=0.05)
    row = report.rows["noisy"]
    assert row["a"]["mcd"] < row["b"]["mcd"] and row["a"]["pesq"] > row["b"]["pesq"]
    for name in FIGURES:
        assert row["all"][name] == pytest.approx((2 * row["a"][name] + row["b"][name]) / 3)


def test_the_report_is_a_table_and_json() -> None:
    report = evaluate({"noisy": noisy}, ITEMS[:1])
    lines = report.table().splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| noisy | ") and f"{report.rows['noisy']['all']['pesq']:.3f}" in lines[2]
    assert json.loads(report.json())["rows"]["noisy"]["a"]["mcd"] == report.rows["noisy"]["a"]["mcd"]


def test_the_slow_judge_hears_each_wave_once_with_a_cache(tmp_path: Path, quick_judge: list[int]) -> None:
    first = evaluate({"noisy": noisy}, ITEMS, cache=tmp_path / "cache")
    assert len(quick_judge) == 6
    assert evaluate({"noisy": noisy}, ITEMS, cache=tmp_path / "cache") == first
    assert len(quick_judge) == 6


def test_griffin_lim_and_world_make_copies_of_their_kind() -> None:
    pytest.importorskip("pyworld")
    report = evaluate({"griffin-lim": griffin_lim_copy, "world": world}, ITEMS[:1])
    for row in report.rows.values():
        assert row["all"]["pesq"] > 1.5 and row["all"]["f0"] < 30 and row["all"]["voicing"] < 0.2
    assert report.rows["griffin-lim"]["all"]["mcd"] < report.rows["world"]["all"]["mcd"]


def test_what_lies_60_db_down_is_neither_voiced_nor_periodic() -> None:
    tone = np.sin(2 * np.pi * 220 * np.arange(40 * HOP) / 22050).astype(np.float32)
    tone[20 * HOP :] *= 1e-4
    ones = np.ones(40, np.float32)
    f0, periodicity = module._gated((220 * ones, ones), tone, float(module.energy(tone).max()))
    assert f0[5] == 220 and periodicity[5] == 1
    assert not f0[24:].any() and not periodicity[24:].any()


def test_a_recording_pesq_cannot_judge_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report = evaluate({"silent": lambda i: np.zeros_like(i.wave)}, ITEMS[:1])
    assert report.failures["silent pesq"] == 1 and np.isnan(report.rows["silent"]["all"]["pesq"])
    assert json.loads(report.json())["values"]["silent"]["a-0"]["pesq"] is None
    assert "a-0" in caplog.text


def test_unusable_waves_nothing_and_missing_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for wave in (np.zeros(100, np.float32), np.full(len(ITEMS[0].wave), np.nan), ITEMS[0].wave[None]):
        with pytest.raises(AffgenError, match="x: a-0"):
            evaluate({"x": lambda i, wave=wave: wave}, ITEMS[:1])
    with pytest.raises(AffgenError, match="no recordings"):
        evaluate({}, [])
    for name in ("pesq", "pyworld"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(AffgenError, match=r"affgen\[eval\]"):
            evaluate({"x": world}, ITEMS[:1])


def data_dir(folder: Path, speakers: dict[str, int]) -> Path:
    """A data directory with packed features of fabricated utterances; {speaker: how many}."""
    (folder / "features").mkdir(parents=True)
    names = {f"{speaker}-{k}": speaker for speaker, count in speakers.items() for k in range(count)}
    (folder / "wav.scp").write_text("".join(f"{name} {name}.wav\n" for name in sorted(names)))
    (folder / "utt2spk").write_text("".join(f"{name} {names[name]}\n" for name in sorted(names)))
    tensors = {}
    for name in names:
        tensors[f"{name}/mel"] = np.zeros((BANDS, 10), np.float16)
        tensors[f"{name}/f0"] = tensors[f"{name}/energy"] = np.zeros(10, np.float32)
        tensors[f"{name}/wave"] = np.zeros(10 * HOP + 7, np.int16)
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", dict.fromkeys(sorted(names), ("00000.safetensors", 10)))
    return folder


def test_selection_shares_among_corpora_and_speakers(tmp_path: Path) -> None:
    folders = {"x": data_dir(tmp_path / "x", {"s1": 9, "s2": 2, "s3": 9}), "y": data_dir(tmp_path / "y", {"t": 2})}
    chosen = select(folders, 12)
    assert [i.corpus for i in chosen] == ["x"] * 6 + ["y"] * 2
    assert sorted(i.name[:2] for i in chosen[:6]) == ["s1", "s1", "s2", "s2", "s3", "s3"]
    assert all(i.wave.shape == (10 * HOP,) and i.mel.shape == (BANDS, 10) for i in chosen)
    assert [i.name for i in select(folders, 12)] == [i.name for i in chosen]
    assert [i.name for i in select(folders, 12, seed=1)] != [i.name for i in chosen]


def test_selection_refuses_a_folder_without_features(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="features"):
        select({"x": tmp_path})


def test_long_recordings_are_cut_without_loss() -> None:
    mel, wave = np.arange(2000.0)[None].repeat(BANDS, 0), np.arange(2000 * HOP - 5, dtype=np.float32)
    cut = pieces("long", "x", mel, mel[0], wave)
    assert [i.name for i in cut] == ["long-0", "long-1", "long-2"]
    assert np.array_equal(np.concatenate([i.f0 for i in cut]), mel[0])
    assert np.array_equal(np.concatenate([i.wave for i in cut])[: len(wave)], wave)
    assert all(len(i.wave) == HOP * len(i.f0) == HOP * i.mel.shape[1] for i in cut)
    assert [i.name for i in pieces("short", "x", mel[:, :900], mel[0, :900], wave)] == ["short"]
