"""Bad input of every kind gets one line and exit 2: nothing is written, nothing is executed, nothing takes for ever."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affgen.checkpoint import read_tensors, save_model
from affgen.score import Note, Score, Tempo, midi_bytes, read_midi
from affgen.testing import damaged_midis, fabricated_score
from music.config import MINIATURE
from music.pack import TASK, pack
from music.train import build

Command = Callable[..., Any]
FILES = max(500, int(os.environ.get("AFFGEN_FUZZ", "500")))
SLOWEST_S = 30.0  # on a machine that does other things too


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --------------------------------------------------------------------------------------------------------- MIDI files

HOSTILE = dict(damaged_midis(np.random.default_rng(7)))


def test_the_hostile_files_are_those_that_must_be_refused() -> None:
    named = {"empty", "truncated", "bit-flipped", "type 2", "tempo 0", "no notes", "65,535 tracks", "delta of 2**28"}
    assert named <= set(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_every_verb(
    command: Command, miniature: Path, loaded_once: None, tmp_path: Path, name: str
) -> None:
    bad, good, out = tmp_path / "bad.mid", tmp_path / "good.mid", tmp_path / "out.mid"
    bad.write_bytes(HOSTILE[name])
    good.write_bytes(midi_bytes(fabricated_score(1, bars=2)))
    start = time.perf_counter()
    for arguments in (
        ("continue", bad, out, "--model", miniature, "--bars", 1, "--wav", tmp_path / "out.wav"),
        ("transfer", bad, out, "--model", miniature, "--from", good),
        ("transfer", good, out, "--model", miniature, "--from", bad),
        ("classify", bad),
    ):
        command("music", *arguments).refused(f"{bad}: not a usable MIDI file")
    command("verify", bad).refused("not a usable MIDI file" if len(HOSTILE[name]) else "empty")
    assert time.perf_counter() - start < SLOWEST_S
    assert listing(tmp_path) == ["bad.mid", "good.mid"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_through_the_pipe(
    command: Command, miniature: Path, loaded_once: None, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out.mid"
    command("music", "continue", "-", out, "--model", miniature, stdin=HOSTILE[name]).refused("MIDI data: not a usable")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("kind", ["missing", "folder", "picture", "text"])
def test_what_is_no_music_at_all_is_refused(command: Command, miniature: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.mid"
    if kind == "folder":
        source.mkdir()
    elif kind != "missing":
        source.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100) if kind == "picture" else b"C D E\n")
    before = listing(tmp_path)
    command("music", "continue", source, tmp_path / "out.mid", "--model", miniature).refused(str(source))
    command("music", "classify", source).refused(str(source))
    assert listing(tmp_path) == before


LIMITS = {
    "one note": Score((Note(0.0, 0.01, 0),)),
    "the lowest and the highest": Score((Note(0.0, 1.0, 0, 1), Note(0.0, 1.0, 127, 127))),
    "everything at once": Score(tuple(Note(0.0, 1.0, pitch) for pitch in range(128))),
    "one pitch over and over": Score(tuple(Note(0.0, 1.0 + k, 60) for k in range(50))),
    "a late beginning": Score((Note(1900.13, 1.0, 60), Note(1901.4, 1.0, 62))),
    "very fast": Score((Note(0.0, 1.0, 60), Note(0.1, 3.0, 62)), tempos=(Tempo(0.0, 6e7),)),
    "very slow": Score((Note(0.0, 1.0, 60), Note(9.0, 3.0, 62)), tempos=(Tempo(0.0, 3.6),)),
    "coarse": Score((Note(0.0, 1.0, 60), Note(3.0, 1.0, 64)), ticks_per_beat=1),
    "fine": Score((Note(0.123, 1.0, 60), Note(3.3, 1.0, 64)), ticks_per_beat=32767),
    "many tempi": Score(
        tuple(Note(k / 3, 0.3, 60) for k in range(30)), tempos=tuple(Tempo(k / 7, 20.0 + k * 40) for k in range(60))
    ),
    "a long silence": Score((Note(0.13, 1.0, 60), Note(1.37, 1.0, 64), Note(1500.7, 1.0, 67))),
    "a very long silence": Score((Note(0.0, 1.0, 60), Note(40_000.0, 1.0, 67))),
}


@pytest.mark.parametrize("name", LIMITS)
def test_odd_music_is_used_or_refused_in_good_time(
    command: Command, miniature: Path, loaded_once: None, tmp_path: Path, name: str
) -> None:
    odd, good = tmp_path / "odd.mid", tmp_path / "good.mid"
    odd.write_bytes(midi_bytes(LIMITS[name]))
    good.write_bytes(midi_bytes(fabricated_score(1, bars=2)))
    start = time.perf_counter()
    model = ("--model", miniature, "--quiet")
    outcomes = [
        command("music", "continue", odd, tmp_path / "c.mid", "--bars", 1, *model),
        command("music", "transfer", odd, tmp_path / "t.mid", "--from", good, *model),
        command("music", "transfer", good, tmp_path / "d.mid", "--from", odd, *model),
    ]
    assert time.perf_counter() - start < SLOWEST_S
    for outcome, out in zip(outcomes, ("c.mid", "t.mid", "d.mid"), strict=True):
        if outcome.code:
            outcome.refused()
        assert (tmp_path / out).exists() == (outcome.code == 0)
        assert outcome.code or read_midi(tmp_path / out).notes
    command("music", "classify", odd).done()


# --- mutations ---


def bases() -> list[bytes]:
    """Sound files of several kinds, small enough that a change often matters."""
    rng = np.random.default_rng(0)
    played = tuple(Note(0.2 + 0.6 * k + float(rng.uniform(0, 0.1)), 0.5, 60 + k % 5, 40 + 3 * k) for k in range(16))
    running = (
        b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\x14\0\x90\x3c\x40\x60\x3c\0\0\x3e\x40\x60\x3e\0\0\xc0\1\0\xff\x2f\0"
    )
    fabricated = [midi_bytes(fabricated_score(k, bars=2, quadrant=f"Q{k + 1}")) for k in range(4)]
    return [*map(single, [midi_bytes(Score(played)), *fabricated]), running, fabricated[0]]


def single(data: bytes) -> bytes:
    """The last track of a file as a file of its own, at 120 beats per minute."""
    return b"MThd\0\0\0\6\0\0\0\1\1\xe0" + data[data.rindex(b"MTrk") :]


NASTY = (0x00, 0x01, 0x2F, 0x51, 0x58, 0x7F, 0x80, 0x90, 0x99, 0xB0, 0xF0, 0xFF)
KINDS = ["flip", "flip", "flip", "nasty", "nasty", "drop", "repeat", "cut", "header"]
EDIT = st.tuples(st.sampled_from(KINDS), st.integers(0, 2**16 - 1), st.integers(0, 255))
EDITS = st.lists(EDIT, min_size=1, max_size=3)


def mutated(base: bytes, edits: list[tuple[str, int, int]], framed: bool) -> bytes:
    """``base`` with edits at relative places; ``framed`` repairs the frame, so that damage reaches the events."""
    data = bytearray(base)
    for kind, where, value in edits:
        at = where * len(data) >> 16
        if kind == "flip":
            data[at] ^= 1 << value % 8
        elif kind == "nasty":
            data[at] = NASTY[value % len(NASTY)]
        elif kind == "cut":
            data[max(at, 1) :] = b""
        elif kind == "drop":
            data[at : min(at + 1 + value % 20, len(data) - 1)] = b""
        elif kind == "repeat":
            data[at:at] = data[at : at + 20] * (value % 30)
        else:
            data[min(4 + value % 18, len(data) - 1)] = value
    if framed:
        body = bytes(data[22:]) or b"\0"
        return base[:14] + b"MTrk" + len(body).to_bytes(4, "big") + body
    return bytes(data)


@pytest.mark.timeout(max(300, FILES // 2))
def test_any_mutated_file_is_used_or_refused(
    command: Command, miniature: Path, loaded_once: None, tmp_path: Path
) -> None:
    """One line and exit 2 with nothing written, or a file that reads and verifies; never anything between."""
    sound, tally = bases(), Counter()
    bad, good, out = tmp_path / "bad.mid", tmp_path / "good.mid", tmp_path / "out.mid"
    good.write_bytes(sound[2])
    model = ("--model", miniature, "--quiet")
    verbs = {
        "continue": ("continue", bad, out, "--bars", 1, *model),
        "transfer": ("transfer", bad, out, "--from", good, *model),
        "donate": ("transfer", good, out, "--from", bad, "--elements", "duration,tempo", *model),
        "rows": ("transfer", bad, out, "--from", good, "--align", "rows", *model),
    }

    @settings(
        max_examples=FILES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.sampled_from(sound),
        st.lists(EDIT, min_size=1, max_size=3),
        st.sampled_from([True, True, False]),
        st.sampled_from(sorted(verbs)),
    )
    def holds(base: bytes, edits: list[tuple[str, int, int]], framed: bool, verb: str) -> None:
        bad.write_bytes(mutated(base, edits, framed))
        start = time.perf_counter()
        read = command("music", "classify", bad, "--quiet")
        made = command("music", *verbs[verb])
        assert time.perf_counter() - start < SLOWEST_S
        tally[verb, made.code] += 1
        if read.code:
            read.refused(f"{bad}: ")
            made.refused(f"{bad}: ")
        if made.code:
            made.refused()
            assert listing(tmp_path) == ["bad.mid", "good.mid"]
            return
        assert (made.out, made.err) == (b"", "") and listing(tmp_path) == ["bad.mid", "good.mid", "out.mid"]
        assert command("verify", out).code == 0
        out.unlink()

    holds()
    assert sum(tally.values()) >= 500
    for verb in verbs:  # a fuzzer whose files are all refused, or all pass, tests nothing
        assert min(tally[verb, 0], tally[verb, 2]) >= 10, tally


# ---------------------------------------------------------------------------------------------------- model directories


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sound model directory to damage."""
    folder = tmp_path / "model"
    torch.manual_seed(1)
    pack(MINIATURE, *build(MINIATURE), folder)
    return folder


def rehash(folder: Path) -> None:
    """Make the digest fit again, so that the damage itself is what is found."""
    about(folder, files={"model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()})


def about(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def configured(folder: Path, section: str, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())["config"]
    about(folder, config=config | {section: config[section] | changes})


def retensored(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Write the model again with other tensors, digests and all."""
    config = json.loads((folder / "config.json").read_text())["config"]
    _, tensors = read_tensors(folder / "model.safetensors")
    change(tensors)
    save_model(folder, config, tensors, "# changed", task=TASK)


def bomb(folder: Path, protocol: int) -> bytes:
    """Bytes that would write the file ``ran`` beside the folder if anything unpickled them."""
    start = bytes([0x80, protocol]) if protocol >= 2 else b""
    return start + b"cbuiltins\nopen\n(V" + str(folder.parent / "ran").encode() + b"\nVw\ntR."


def weights(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    rehash(folder)


def linked(folder: Path) -> None:
    (folder.parent / "secret").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder.parent / "secret")


def piped(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


KEY = "prior.head.bias"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json: does not exist"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: does not exist"),
    "missing tensor": (lambda f: retensored(f, lambda t: t.pop(KEY)), "'head.bias'"),
    "wrong shape": (lambda f: retensored(f, lambda t: t.update({KEY: torch.zeros(3)})), "has shape (3,)"),
    "tensor too many": (lambda f: retensored(f, lambda t: t.update({"model.x": torch.zeros(3)})), "'x' is not one"),
    "truncated": (lambda f: weights(f, (f / "model.safetensors").read_bytes()[:-9]), "damaged"),
    "exchanged": (lambda f: (f / "model.safetensors").write_bytes(bomb(f, 0)), "SHA-256 differs"),
    "empty weights": (lambda f: weights(f, b""), "not a safetensors file"),
    "endless header": (lambda f: weights(f, struct.pack("<Q", 1 << 62) + b"{}"), "not a safetensors file"),
    **{f"pickle {p}": (lambda f, p=p: weights(f, bomb(f, p)), "not a safetensors file") for p in (0, 2, 5)},
    "pickled configuration": (lambda f: (f / "config.json").write_bytes(bomb(f, 0)), "is not valid JSON"),
    "two dots": (lambda f: about(f, files={"../model.safetensors": "0" * 64}), "model.safetensors"),
    "two dots more": (lambda f: json_files(f, "../../etc/passwd"), "is no file name"),
    "dots alone": (lambda f: json_files(f, ".."), "is no file name"),
    "absolute": (lambda f: json_files(f, "/etc/passwd"), "is no file name"),
    "link out": (linked, "leads out of the model directory"),
    "other task": (lambda f: about(f, task="vc"), "'music' is needed"),
    "other format": (lambda f: about(f, format=99), "this version reads 1"),
    "no task": (lambda f: about(f, task=None), 'needs "task"'),
    "no config": (lambda f: about(f, config=None), '"config"'),
    "no files": (lambda f: about(f, files=None), '"files" must list'),
    "config is a list": (lambda f: about(f, config=[1]), '"config" (an object)'),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    "not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"), "is not valid JSON"),
    "deep": (lambda f: (f / "config.json").write_text("[" * 200_000), "is not valid JSON"),
    "large": (lambda f: (f / "config.json").write_text(" " * 2_000_000), "at most 1048576"),
    "unknown section": (lambda f: about(f, config={"model.path": "../x"}), "model.path"),
    "unknown key": (lambda f: configured(f, "model", path="../../x"), "path"),
    "path for a number": (lambda f: configured(f, "model", dim="../../etc/passwd"), "dim"),
    "negative size": (lambda f: configured(f, "model", codes=-5), "codes"),
    "size beyond memory": (lambda f: configured(f, "model", dim=2**40, heads=1), "dim"),
    "other size": (lambda f: configured(f, "model", dim=32), "has shape"),
    "other kind": (lambda f: configured(f, "model", fusion="magic"), "fusion"),
    "secret of the environment": (lambda f: configured(f, "model", fusion="${oc.env:AFFGEN_SECRET}"), "config.json"),
}


def json_files(folder: Path, name: str) -> None:
    files = json.loads((folder / "config.json").read_text())["files"]
    about(folder, files=files | {name: "0" * 64})


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_hostile_model_is_refused(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AFFGEN_SECRET", "hunter2")
    damage, words = DAMAGE[name]
    damage(model)
    before = listing(tmp_path)
    done = command("music", "compose", tmp_path / "x.mid", "--model", model, "--bars", 1).refused(words)
    assert "hunter2" not in done.err
    assert listing(tmp_path) == before and not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_file_is_refused(command: Command, model: Path, tmp_path: Path) -> None:
    piped(model)
    command("music", "compose", tmp_path / "x.mid", "--model", model).refused("is not a regular file")


def test_every_verb_refuses_a_damaged_model(command: Command, model: Path, tmp_path: Path) -> None:
    weights(model, bomb(model, 2))
    (tmp_path / "in.mid").write_bytes(midi_bytes(fabricated_score(1, bars=1)))
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs/a.mid").write_bytes(midi_bytes(fabricated_score(1, bars=1)))
    before = listing(tmp_path)
    for arguments in (
        ("continue", tmp_path / "in.mid", tmp_path / "x.mid"),
        ("continue", tmp_path / "songs", tmp_path / "out"),
        ("transfer", tmp_path / "in.mid", tmp_path / "x.mid", "--from", tmp_path / "in.mid"),
    ):
        command("music", *arguments, "--model", model).refused("not a safetensors file")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_model_directory_is_refused(command: Command, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("")
    command("music", "compose", tmp_path / "x.mid", "--model", folder).refused(str(folder))
    assert not (tmp_path / "x.mid").exists()
