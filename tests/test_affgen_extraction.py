"""Extraction: the same bytes from every engine, going on after a stop, failures listed, segments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from affgen import extraction
from affgen.audio import Audio
from affgen.errors import AffgenError, DataError
from affgen.extraction import extract_features
from affgen.featuredir import FeatureDir
from affgen.features import HOP, SAMPLE_RATE, extract
from affgen.testing_corpora import fabricated_tone

COUNT = 20


def write(folder: Path, **tables: str) -> Path:
    """Write tables; a name's double underscore stands for its dot."""
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "features").iterdir()}


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Wave files of different lengths and two rates."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(5)
    for n in range(COUNT):
        rate = (SAMPLE_RATE, 16_000)[n % 2]
        audio = Audio(fabricated_tone(rng, seconds=0.3 + 0.02 * n, rate=rate), rate)
        (folder / f"u{n:02d}.wav").write_bytes(audio.wav())
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(extraction, "PER_SHARD", 6)
    monkeypatch.setattr(extraction, "PER_TASK", 4)


@pytest.fixture
def data(sounds, tmp_path, small_shards):
    names = [f"s-u{n:02d}" for n in range(COUNT)]
    return write(
        tmp_path / "data",
        wav__scp="".join(f"{name} {sounds}/{name[2:]}.wav\n" for name in names),
        utt2spk="".join(f"{name} s\n" for name in names),
        spk2utt=f"s {' '.join(names)}\n",
    )


def test_shards_hold_what_extract_gives(data, sounds):
    done = extract_features(data, engine="serial", waves=True)
    assert (done.utterances, done.failures, done.shards, done.skipped) == (COUNT, {}, 4, 0)
    index = (data / "features" / "index.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in (index[0], index[6], index[-1])] == [
        ["s-u00", "00000.safetensors"],
        ["s-u06", "00001.safetensors"],
        ["s-u19", "00003.safetensors"],
    ]
    found = FeatureDir(data)
    assert found.utterances == tuple(f"s-u{n:02d}" for n in range(COUNT))
    from affgen.audio import read

    for n in (0, 1):
        audio = read(sounds / f"u{n:02d}.wav", sample_rate=SAMPLE_RATE)
        expected, features = extract(audio), found.features(f"s-u{n:02d}")
        assert found.frames[f"s-u{n:02d}"] == len(audio.samples) // HOP == features.mel.shape[1]
        np.testing.assert_array_equal(features.mel, expected.mel.astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(features.f0, expected.f0)
        np.testing.assert_array_equal(features.energy, expected.energy)
        np.testing.assert_allclose(found.wave(f"s-u{n:02d}"), audio.samples, atol=1.6e-5)
    assert done.seconds == pytest.approx(sum(0.3 + 0.02 * n for n in range(COUNT)), rel=0.02)


def test_two_workers_write_the_same_bytes_as_none(data):
    extract_features(data, engine="serial", waves=True)
    before = tree(data)
    extract_features(data, engine="process", jobs=2, waves=True, overwrite=True)
    assert tree(data) == before


def test_ray_writes_the_same_bytes(data):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    extract_features(data, engine="serial")
    before = tree(data)
    try:
        extract_features(data, engine="ray", jobs=1, overwrite=True)
    finally:
        ray.shutdown()
    assert tree(data) == before


def test_finished_shards_are_not_made_again(data, monkeypatch):
    extract_features(data)
    before = tree(data)
    (data / "features" / "00002.safetensors").unlink()
    (data / "features" / "00001.safetensors").write_bytes(before["00001.safetensors"][:-1])  # cut short
    (data / "features" / "index.tsv").unlink()
    said: list[str] = []
    done = extract_features(data, say=said.append)
    assert (done.skipped, done.utterances, len(said)) == (2, COUNT, 2)
    assert tree(data) == before
    monkeypatch.setattr(extraction, "_warm_up", lambda: pytest.fail("nothing is left to do"))
    assert extract_features(data).skipped == 4
    assert tree(data) == before


def test_a_run_that_is_stopped_leaves_whole_shards_and_no_index(data, monkeypatch):
    extract_features(data)
    before = tree(data)
    real = extraction.write_shard

    def stopped(path, tensors, about):
        if path.name == "00002.safetensors":
            raise KeyboardInterrupt
        real(path, tensors, about)

    monkeypatch.setattr(extraction, "write_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract_features(data, overwrite=True)
    assert "index.tsv" not in tree(data)
    with pytest.raises(DataError, match="affgen data features"):
        FeatureDir(data)
    monkeypatch.setattr(extraction, "write_shard", real)
    extract_features(data)
    assert tree(data) == before


def test_other_options_and_other_data_make_shards_again(data, sounds):
    extract_features(data)
    assert extract_features(data, waves=True).skipped == 0
    lines = (data / "wav.scp").read_text().splitlines(keepends=True)
    (data / "wav.scp").write_text("".join(lines[:7]))
    for name in ("utt2spk", "spk2utt"):
        (data / name).unlink()
    done = extract_features(data, waves=True)
    assert (done.shards, done.skipped, done.utterances) == (2, 1, 7)
    assert sorted(tree(data)) == ["00000.safetensors", "00001.safetensors", "index.tsv"]


@pytest.fixture
def mixed(data, sounds, tmp_path):
    """Some utterances that can be used between some that cannot."""
    (tmp_path / "text.wav").write_text("these are words")
    (tmp_path / "short.wav").write_bytes(Audio(np.zeros(500, np.float32), SAMPLE_RATE).wav())
    (tmp_path / "nan.wav").write_bytes(Audio(np.zeros(9000, np.float32), SAMPLE_RATE).wav()[:900])
    entries = {
        "a-good": f"{sounds}/u00.wav",
        "b-pipe": f"cat {sounds}/u00.wav |",
        "c-missing": f"{tmp_path}/none.wav",
        "d-failing": f"{sys.executable} -c 'import sys; sys.exit(\"no such disc\")' |",
        "e-short": f"{tmp_path}/short.wav",
        "f-text": f"{tmp_path}/text.wav",
        "g-cut": f"{tmp_path}/nan.wav",
        "h-good": f"{sounds}/u01.wav",
    }
    (data / "wav.scp").write_text("".join(f"{key} {value}\n" for key, value in entries.items()))
    for name in ("utt2spk", "spk2utt"):
        (data / name).unlink()
    return data


EXPECTED = {
    "c-missing": "none.wav: cannot be read",
    "d-failing": "no such disc",
    "e-short": "short.wav: 500 samples",
    "f-text": "text.wav: is no sound file",
    "g-cut": "nan.wav: is cut short",
}


def test_failures_are_listed_and_the_rest_goes_on(mixed):
    done = extract_features(mixed)
    assert {key: EXPECTED[key] in reason for key, reason in done.failures.items()} == dict.fromkeys(EXPECTED, True)
    assert FeatureDir(mixed).utterances == ("a-good", "b-pipe", "h-good")
    np.testing.assert_array_equal(FeatureDir(mixed).features("a-good").mel, FeatureDir(mixed).features("b-pipe").mel)
    report = [line.split("\t") for line in (mixed / "features" / "failures.tsv").read_text().splitlines()]
    assert [row[0] for row in report] == list(EXPECTED)
    assert all(len(row) == 3 for row in report)
    again = extract_features(mixed)
    assert (again.skipped, again.failures) == (again.shards, done.failures)


def test_command_line_gives_3_for_failures_and_2_for_no_directory(mixed, command, tmp_path):
    outcome = command("data", "features", mixed, "--engine", "serial", "--json")
    assert outcome.code == 3
    assert outcome.json["utterances"] == 3 and set(outcome.json["failures"]) == set(EXPECTED)
    assert sum(line.startswith("failed ") for line in outcome.err.splitlines()) == 5
    (mixed / "wav.scp").write_text("".join((mixed / "wav.scp").read_text().splitlines(keepends=True)[:2]))
    outcome = command("data", "features", mixed, "--jobs", 1, "--quiet").done()
    assert b": 2 utterances, 0.00 h, 0 failed" in outcome.out
    assert not (mixed / "features" / "failures.tsv").exists()
    command("data", "features", tmp_path / "none").refused("is not a folder")
    command("data", "features", mixed, "--engine", "threads").refused("--engine")
    write(tmp_path / "music", midi__scp="x x.mid\n")
    command("data", "features", tmp_path / "music").refused("has no sound")
    (mixed / "wav.scp").write_text("a\n")
    command("data", "features", mixed).refused("has no value")


def test_segments_are_cut_from_their_recording(data, tmp_path):
    rng = np.random.default_rng(1)
    long = fabricated_tone(rng, seconds=25, rate=SAMPLE_RATE)  # longer than a block of the reader
    (tmp_path / "rec.wav").write_bytes(Audio(long, SAMPLE_RATE).wav())
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    (data / "wav.scp").write_text(f"bad {tmp_path}/bad.wav\nrec {tmp_path}/rec.wav\n")
    bounds = {"s-1": "rec 0.5 1.25", "s-2": "rec 9.5 10.5", "s-3": "rec 24 30", "s-4": "rec 26 27", "s-5": "bad 0 1"}
    (data / "segments").write_text("".join(f"{key} {value}\n" for key, value in bounds.items()))
    for name in ("utt2spk", "spk2utt"):
        (data / name).unlink()
    done = extract_features(data, waves=True)
    assert list(done.failures) == ["s-4", "s-5"]
    assert done.failures["s-4"].startswith(str(tmp_path / "rec.wav")) and "0 samples" in done.failures["s-4"]
    found = FeatureDir(data)
    for key, start, end in (("s-1", 0.5, 1.25), ("s-2", 9.5, 10.5), ("s-3", 24, 25)):
        samples = long[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        np.testing.assert_allclose(found.wave(key), samples, atol=5e-5)
        assert found.frames[key] == len(samples) // HOP
    (data / "segments").write_text("s-1 rec 0.5\n")
    with pytest.raises(DataError, match="segments: s-1"):
        extract_features(data)


def test_refusals_of_the_engines(data):
    with pytest.raises(AffgenError, match="accepted: process, serial, ray"):
        extract_features(data, engine="threads")
    with pytest.raises(AffgenError, match="accepted: 1 or more"):
        extract_features(data, jobs=0)


def test_nothing_heavy_is_imported_to_print_the_help(command):
    import subprocess

    script = "import sys; from affgen.cli import main; main(['data', 'features', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert "--waves" in done.stdout
    assert not {"torch", "numba", "numpy", "soundfile", "soxr", "scipy"} & set(done.stdout.split())
