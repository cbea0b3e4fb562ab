"""What ``affgen music`` refuses before any work: wishes no piece can meet, outputs that cannot be, missing devices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from affgen.score import write_midi
from affgen.testing import fabricated_score

Command = Callable[..., Any]
ReadOnly = Callable[[], AbstractContextManager[Path]]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_midi(fabricated_score(5, bars=4), tmp_path / "own.mid")
    return tmp_path / "own.mid"


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """A folder with music that is no data directory."""
    (tmp_path / "songs").mkdir()
    write_midi(fabricated_score(5, bars=4), tmp_path / "songs/a.mid")
    return tmp_path / "songs"


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


REFUSED = {
    "no bars": (("--bars", "0"), "accepted: a whole number from 1"),
    "negative bars": (("--bars", "-3"), "accepted: a whole number from 1"),
    "too many bars": (("--bars", "10000"), "accepted: 1 to 512"),
    "bars in words": (("--bars", "four"), "accepted: a whole number"),
    "both lengths": (("--bars", "2", "--seconds", "9"), "bars and seconds"),
    "no seconds": (("--seconds", "0"), "accepted: 1 to 1800"),
    "seconds not a number": (("--seconds", "nan"), "accepted: a finite number"),
    "endless": (("--seconds", "inf"), "accepted: a finite number"),
    "no tempo": (("--tempo", "0"), "32 to 224"),
    "too fast": (("--tempo", "1e6"), "32 to 224"),
    "key": (("--key", "H major"), "is not a key"),
    "label": (("--emotion", "melancholy"), "accepted: neutral, calm, happy, sad, angry"),
    "point": (("--emotion", "va:2/0"), "from -1 to 1"),
    "curve": (("--emotion", "Q1@4b,Q2@2b"), "sort the times"),
    "intensity": (("--intensity", "1.51"), "accepted: 0 to 1.5"),
    "intensity not a number": (("--intensity", "nan"), "accepted: 0 to 1.5"),
    "seed": (("--seed", "-1"), "accepted: a whole number from 0"),
    "large seed": (("--seed", "9223372036854775808"), "accepted: a whole number from 0"),
    "threads": (("--threads", "0"), "accepted: a whole number from 1"),
    "device": (("--device", "tpu"), "invalid choice: 'tpu'"),
    "count": (("--count", "0"), "accepted: a whole number from 1"),
    "count too large": (("--count", "1001"), "accepted: 1 to 1000"),
    "abbreviation": (("--bar", "3"), "unrecognized arguments"),
    "sound": (("--wav", "x.mp3"), "must end in .wav or .flac"),
    "picture": (("--plot", "x.svg"), "must end in .png"),
    "folder of sound": (("--wav", "none/x.wav"), "does not exist"),
    "folder of picture": (("--plot", "none/x.png"), "does not exist"),
    "model": (("--model", "none"), "is not a folder; a model directory holds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wishes_that_cannot_be_met_are_refused_in_one_line(
    command: Command, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    flags, words = REFUSED[name]
    command("music", "compose", "x.mid", "--model", miniature, *flags).refused(words)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("out", ["none/x.mid", "x.wav", "x", ".", "file.mid/x.mid"])
def test_outputs_that_cannot_be_are_refused_before_any_work(
    command: Command, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "file.mid").write_text("")
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    for verb in (("compose",), ("continue", own), ("transfer", own)):
        donor = ("--from", own) if verb[0] == "transfer" else ()
        command("music", *verb, out, "--model", "none", *donor).refused(out)
    assert listing(tmp_path) == before


def test_a_count_needs_a_folder_that_can_be(command: Command, miniature: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in ("-", tmp_path / "none/out", tmp_path / "file"):
        command("music", "compose", out, "--model", miniature, "--count", 2).refused("name a folder")


@pytest.mark.parametrize("flags", [("--emotion", "blue"), ("--bars", "10000"), ("--model", "none")])
def test_a_count_that_is_refused_leaves_no_folder(
    command: Command, miniature: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    command("music", "compose", tmp_path / "out", "--model", miniature, "--count", 2, *flags).refused()
    assert listing(tmp_path) == []


def test_more_threads_than_torch_can_count_are_refused(command: Command, miniature: Path, tmp_path: Path) -> None:
    command("music", "compose", tmp_path / "x.mid", "--model", miniature, "--threads", 10**11).refused("accepted")


def test_a_name_that_is_too_long_is_refused(command: Command, miniature: Path, tmp_path: Path) -> None:
    command("music", "compose", tmp_path / f"{'x' * 300}.mid", "--model", miniature, "--bars", 1).refused()


def test_json_and_midi_do_not_share_standard_output(command: Command, miniature: Path, own: Path) -> None:
    for verb in (("compose",), ("continue", own)):
        command("music", *verb, "-", "--model", miniature, "--json").refused("name a file")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(
    command: Command, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    out = tmp_path / "x.mid"
    command("music", "compose", out, "--model", miniature, "--device", device).refused(device, "accepted: cpu")
    command("music", "train", "--data", tmp_path, "--out", tmp_path / "exp", "--device", device).refused(device)
    assert listing(tmp_path) == []


TRANSFER_REFUSED = {
    "unknown element": (("--elements", "loudness"), "accepted: one or more of velocity,duration"),
    "element twice": (("--elements", "pitch,pitch"), "each once"),
    "no element": (("--elements", ""), "accepted: one or more of"),
    "alignment": (("--align", "notes"), "invalid choice: 'notes'"),
    "emotion": (("--emotion", "Q1"), "--emotion has no effect on a transfer"),
    "donor": (("--from", "none.mid"), "none.mid: no such file"),
}


@pytest.mark.parametrize("name", TRANSFER_REFUSED)
def test_transfers_that_cannot_be_are_refused(
    command: Command, miniature: Path, own: Path, tmp_path: Path, name: str
) -> None:
    flags, words = TRANSFER_REFUSED[name]
    arguments = ("music", "transfer", own, tmp_path / "x.mid", "--model", miniature)
    command(*arguments, "--from", own, *flags).refused(words)
    assert listing(tmp_path) == ["own.mid"]


def test_a_transfer_needs_a_donor(command: Command, own: Path) -> None:
    command("music", "transfer", own, "x.mid").refused("--from")


@pytest.mark.parametrize("arguments", ["", "compose", "continue x.mid", "classify", "nothing", "train"])
def test_what_is_left_out_is_named(command: Command, arguments: str) -> None:
    command("music", *arguments.split()).refused("--help")


def test_help_names_every_verb(command: Command) -> None:
    done = command("music", "--help").done().out.decode()
    assert all(verb in done for verb in ("compose", "continue", "transfer", "classify", "train", "evaluate"))


# ----------------------------------------------------------------------------------------------------------- training


def test_training_that_cannot_be_is_refused(
    command: Command, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("music", "train", "--data", songs)
    command(*data, "--out", "none/exp").refused("does not exist; make it first")
    command(*data, "--out", "exp", "--config", "none.yaml").refused("none.yaml")
    command(*data, "--out", "exp", "model.colour=3").refused("colour")
    command(*data, "--out", "exp", "model.dim=wide").refused("dim")
    command(*data, "--out", "exp", "model.latent=30").refused("latent")
    assert not (tmp_path / "exp").exists()


def test_training_on_nothing_leaves_nothing(command: Command, songs: Path, tmp_path: Path) -> None:
    command("music", "train", "--data", songs, "--out", tmp_path / "exp").refused("midi.scp")
    assert not (tmp_path / "exp").exists()


# ------------------------------------------------------------------------------- folders that cannot be written to


@pytest.mark.parametrize("flags", [(), ("--wav", "x.wav"), ("--plot", "x.png")])
def test_a_read_only_folder_is_refused_before_any_work(
    command: Command, read_only: ReadOnly, flags: tuple[str, ...]
) -> None:
    with read_only() as folder:
        named = [folder / flag if "." in flag else flag for flag in flags]
        out = "-" if flags else folder / "x.mid"
        command("music", "compose", out, "--model", "none", *named).refused("cannot be written to", str(folder))
        assert listing(folder) == []


def test_a_folder_cannot_be_made_in_a_read_only_one(command: Command, read_only: ReadOnly) -> None:
    with read_only() as folder:
        command("music", "compose", folder / "out", "--model", "none", "--count", 2).refused(str(folder))
