"""``affgen vc classify``: files, folders and lists, its JSON, its exit codes, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affgen import cli
from affgen.audio import Audio
from affgen.emotion import encoder as encoders
from affgen.emotion.encoder import Reading
from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError


class Stub:
    """Reads anger in what is short and sadness in what is long; refuses silence as the real encoder does."""

    backend, frame_rate, space, card_line = "affgen-small", 21.5, None, "emotion encoder: a stub"

    def encode(self, audio: Audio) -> Reading:
        encoders.require_sound(audio.samples)
        label = "angry" if audio.duration_s < 0.5 else "sad"
        chances = {name: 0.65 if name == label else 0.05 for name in LABELS}
        return Reading(np.zeros(256, np.float32), chances, -0.5, 0.25, np.zeros((4, 8), np.float32))


@pytest.fixture(autouse=True)
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = cli.tasks()
    monkeypatch.setattr(cli, "tasks", lambda: {**known, "vc": "vc.cli:register"})

    def load(folder: object = None) -> Any:
        if folder is not None:
            raise AffgenError(f"{folder}: does not exist")
        return Stub()

    monkeypatch.setattr(encoders, "load_encoder", load)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, seconds in (("a.wav", 0.2), ("sub/b.flac", 0.9)):
        Audio((0.1 * rng.normal(size=round(22050 * seconds))).astype(np.float32), 22050).save(folder / name)
    return folder


def test_one_file_as_text_and_json(command: Callable[..., Any], sounds: Path) -> None:
    done = command("vc", "classify", sounds / "a.wav").done()
    assert done.out.decode() == f"{sounds / 'a.wav'}  angry 0.65  valence -0.50  arousal +0.25\n"
    assert done.err == "emotion encoder: a stub\n"
    record = command("vc", "classify", sounds / "a.wav", "--json", "--quiet", "--threads", "1").done().json
    assert record["command"] == "vc classify" and record["model"] == "affgen-small"
    assert record["classified"] == {"label": "angry", "valence": -0.5, "arousal": 0.25}
    (result,) = record["results"]
    assert set(result["probabilities"]) == set(LABELS) and result["duration_s"] == 0.2
    assert record["failures"] == record["warnings"] == []


def test_folders_and_lists(command: Callable[..., Any], sounds: Path, tmp_path: Path) -> None:
    record = command("vc", "classify", sounds, "--json", "--quiet").done().json
    assert [result["label"] for result in record["results"]] == ["angry", "sad"] and "classified" not in record
    listed = tmp_path / "wav.scp"
    listed.write_text(f"x {sounds / 'sub' / 'b.flac'}\n")
    assert command("vc", "classify", listed, "--json", "--quiet").done().json["classified"]["label"] == "sad"


def test_standard_input(command: Callable[..., Any], sounds: Path) -> None:
    done = command("vc", "classify", "-", "--json", "--quiet", stdin=(sounds / "a.wav").read_bytes()).done()
    assert done.json["input"] == ["-"]


def test_one_bad_file_is_refused_with_one_line(command: Callable[..., Any], tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    command("vc", "classify", text, "--json").refused(str(text))
    command("vc", "classify", tmp_path / "none.wav").refused("none.wav")
    silence = tmp_path / "silence.wav"
    Audio(np.zeros(9000, np.float32), 22050).save(silence)
    command("vc", "classify", silence).refused(f"{silence}: the sound is silent")
    command("vc", "classify", silence, "--model", tmp_path / "no").refused("does not exist")
    command("vc", "classify", silence, "--threads", "5000").refused("1 to 1024")
    command("vc", "classify").refused("FILE")
    (tmp_path / "empty").mkdir()
    command("vc", "classify", tmp_path / "empty").refused("holds no .wav")


def test_of_several_files_the_good_ones_are_read(command: Callable[..., Any], sounds: Path) -> None:
    (sounds / "bad.wav").write_bytes(b"RIFF")
    for arguments in ([sounds], [sounds / "bad.wav", sounds / "a.wav", sounds / "sub" / "b.flac"]):
        outcome = command("vc", "classify", *arguments, "--json", "--quiet")
        assert outcome.code == 3
        assert outcome.err.startswith("error: ") and "bad.wav" in outcome.err and outcome.err.count("\n") == 1
        assert len(outcome.json["results"]) == 2
        assert [failure["input"] for failure in outcome.json["failures"]] == [str(sounds / "bad.wav")]
