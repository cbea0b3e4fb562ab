"""Model directories and saved states: what goes in comes out, and nothing damaged or hostile does."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from affgen.checkpoint import (
    describe,
    load_into,
    load_model,
    load_state,
    previous,
    read_tensors,
    save_model,
    save_state,
    write_tensors,
)
from affgen.errors import AffgenError, ModelError

CONFIG = {"width": 8, "rates": [0.1, 1e-9], "name": "ä"}
CARD = "---\nlicence: MIT\n---\n# A small model\ntext\n"


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"a.weight": torch.randn(3, 4).half(), "b": torch.arange(5), "c": torch.zeros(())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", CONFIG, tensors(), CARD, task="music")
    return tmp_path / "model"


def edit_config(folder: Path, **changes: object) -> None:
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | changes))


def rehash(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit_config(folder, files={"model.safetensors": digest})


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(folder, task="music")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert word in message


# ------------------------------------------------------------------------------------------------- model folders


def test_round_trip_keeps_config_values_and_dtypes(folder: Path) -> None:
    config, loaded = load_model(folder, task="music")
    assert config == CONFIG
    assert loaded.keys() == tensors().keys()
    for name, value in tensors().items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)
    assert (folder / "README.md").read_text() == CARD


def test_lone_weight_file_identifies_itself(folder: Path) -> None:
    about, _ = read_tensors(folder / "model.safetensors")
    assert about["task"] == "music" and about["config"] == CONFIG and about["format"] == 1


def test_equal_models_are_equal_files(tmp_path: Path, folder: Path) -> None:
    save_model(tmp_path / "again", CONFIG, tensors(), CARD, task="music")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_saving_replaces_a_model_and_leaves_nothing_else(tmp_path: Path, folder: Path) -> None:
    save_model(folder, {"width": 9}, {"d": torch.ones(2)}, "# B\n", task="vc")
    assert load_model(folder, task="vc")[0] == {"width": 9}
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_save_leaves_the_earlier_model(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError):
        save_model(folder, {"width": 9}, {"d": torch.ones(2)}, "# B\n", task="vc")
    assert load_model(folder, task="music")[0] == CONFIG
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(AffgenError, match=r"holiday\.jpg"):
        save_model(tmp_path, {}, {"a": torch.ones(1)}, "", task="vc")
    with pytest.raises(AffgenError, match="is a file"):
        save_model(tmp_path / "holiday.jpg", {}, {"a": torch.ones(1)}, "", task="vc")


def test_overflow_to_half_precision_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'w'.*not finite"):
        save_model(tmp_path / "m", {}, {"w": torch.tensor([1e6]).half()}, "", task="vc")
    assert os.listdir(tmp_path) == []


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    shared = torch.ones(4)
    save_model(tmp_path / "m", {}, {"a": shared, "b": shared, "part": shared[1:3]}, "", task="vc")
    assert torch.equal(load_model(tmp_path / "m", task="vc")[1]["part"], torch.ones(2))


def test_wrong_task_says_both(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: is a model for 'music'; one for 'vc' is needed"):
        load_model(folder, task="vc")


def test_missing_things_are_named(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "none", "none", "not a folder", "model.safetensors")
    refused(folder / "README.md", "not a folder")
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "does not exist")
    (folder / "config.json").unlink()
    refused(folder, "config.json", "does not exist")


HOSTILE = (
    "../model.safetensors,..,.,/etc/passwd,a/b.safetensors,a\\b.safetensors,c:model,~,./model.safetensors,http://host/x,"
    "model.safetensors/,//host/share,\\\\host\\share,..\\..\\x,....//x,%2e%2e%2fx,file:///etc/passwd,nul:,$HOME,`id`,a;b,"
    "$(id),a|b,a*b,a?b,[ab],{ab},-rf,--help,.hidden,a b,\0,model.safetensors\0,a\nb,a\rb,\t,\x1b[31mred,\u202egpj.x,"
    "\uff45,\uff0fetc\uff0fpasswd,\u2024\u2024/x"
)
HOSTILE_NAMES = [*HOSTILE.split(","), "", " ", "a" * 129, "x" * 100_000, ","]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_hostile_file_names_are_refused(folder: Path, name: str) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit_config(folder, files={"model.safetensors": digest, name: digest})
    refused(folder, "config.json", "is no file name")


def test_at_least_forty_hostile_names() -> None:
    assert len(set(HOSTILE_NAMES)) >= 40


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_links_may_not_leave_the_folder(tmp_path: Path, folder: Path, name: str) -> None:
    outside = tmp_path / "outside"
    os.rename(folder / name, outside)
    (folder / name).symlink_to(outside)
    refused(folder, name, "leads out")
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "nothing")
    refused(folder, name, "leads nowhere")
    (folder / name).unlink()
    (folder / name).symlink_to(folder / name)
    refused(folder, name)


def test_links_inside_the_folder_and_a_linked_folder_are_fine(tmp_path: Path, folder: Path) -> None:
    os.rename(folder / "model.safetensors", folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    (tmp_path / "alias").symlink_to(folder)
    assert load_model(tmp_path / "alias", task="music")[0] == CONFIG


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "model.safetensors", "not a regular file")


BAD_CONFIGS = {
    "empty": (b"", "not valid JSON"),
    "text": (b"hello", "not valid JSON"),
    "array": (b"[]", "is a JSON list"),
    "null": (b"null", "is a JSON NoneType"),
    "nan": (b'{"format": NaN}', "not valid JSON"),
    "binary": (bytes(range(256)), "not valid JSON"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "long": (b'{"a": "' + b"x" * (1 << 20) + b'"}', "at most 1048576"),
    "number": (b'{"format": ' + b"9" * 5000 + b"}", "config.json"),
    "newer": (b'{"format": 2}', "this version reads 1"),
    "no task": (b'{"format": 1, "config": {}}', '"task"'),
    "task type": (b'{"format": 1, "config": {}, "task": 3}', '"task"'),
    "config type": (b'{"format": 1, "config": [], "task": "music"}', '"config"'),
    "no files": (b'{"format": 1, "config": {}, "task": "music"}', '"files"'),
    "files type": (b'{"format": 1, "config": {}, "task": "music", "files": ["model.safetensors"]}', '"files"'),
    "digest": (b'{"format": 1, "config": {}, "task": "music", "files": {"model.safetensors": 5}}', "SHA-256"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configs_are_refused(folder: Path, case: str) -> None:
    data, word = BAD_CONFIGS[case]
    (folder / "config.json").write_bytes(data)
    refused(folder, "config.json", word)


def test_exchanged_weights_are_noticed(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    refused(folder, "model.safetensors", "SHA-256")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_in_disguise_does_not_run(tmp_path: Path, folder: Path, protocol: int) -> None:
    """The bytes call open(MARK, "w") when unpickled; written out, since nothing here imports pickle."""
    start = bytes([0x80, protocol]) if protocol >= 2 else b""
    data = start + b"cbuiltins\nopen\n(V" + str(tmp_path / "ran").encode() + b"\nVw\ntR."
    (folder / "model.safetensors").write_bytes(data)
    rehash(folder)
    refused(folder, "model.safetensors", "not a safetensors file")
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_state(tmp_path / "state")
    assert not (tmp_path / "ran").exists()


def crafted(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


BAD_WEIGHTS = {
    "empty": b"",
    "short": b"\x08\0\0",
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "huge header": struct.pack("<Q", 1 << 62) + b"{}",
    "large header": struct.pack("<Q", 9 << 20) + b"{" + b" " * (9 << 20),
    "no header": crafted(b""),
    "not json": crafted(b"{]"),
    "array header": crafted([1]),
    "deep header": crafted(b'{"a":' * 50_000),
    "entry type": crafted({"a": 3}),
    "shape type": crafted({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, b"\0" * 4),
    "negative": crafted({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "enormous": crafted({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}}, b"\0" * 4),
    "overflow": crafted({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, b"\0" * 4),
    "bad dtype": crafted({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
    "long dtype": crafted({"a": {"dtype": "F" * 9999, "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
    "past the end": crafted({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
    "before the start": crafted({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, b"\0" * 4),
    "hole": crafted({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
    "no offsets": crafted({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "metadata type": crafted({"__metadata__": 3}),
    "meta not json": crafted({"__metadata__": {"affgen": "x"}}),
    "meta no object": crafted({"__metadata__": {"affgen": "[]"}}),
    "nan": crafted({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, struct.pack("<f", float("nan"))),
    "infinite": crafted({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}, b"\x00\x7c"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weight_files_are_refused(folder: Path, case: str) -> None:
    (folder / "model.safetensors").write_bytes(BAD_WEIGHTS[case])
    rehash(folder)
    refused(folder, "model.safetensors")


def test_every_truncation_is_refused(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    for size in range(len(data)):
        (folder / "model.safetensors").write_bytes(data[:size])
        with pytest.raises(ModelError):
            read_tensors(folder / "model.safetensors")


def test_mutated_files_are_read_or_refused(tmp_path: Path, folder: Path) -> None:
    """Random damage never ends in anything but tensors or a ModelError (AFFGEN_FUZZ sets the number of tries)."""
    sources = [(folder / name).read_bytes() for name in ("model.safetensors", "config.json")]
    chance = random.Random(0)
    outcomes = {True: 0, False: 0}
    for i in range(int(os.environ.get("AFFGEN_FUZZ", "600"))):
        data = bytearray(sources[i % 2])
        for _ in range(chance.choice([1, 1, 2, 8, 64])):
            data[chance.randrange(len(data))] = chance.choice([0, 255, 34, 44, 123, chance.randrange(256)])
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        (folder / ("model.safetensors", "config.json")[i % 2]).write_bytes(data)
        if i % 2 == 0:
            rehash(folder)
        try:
            load_model(folder, task="music")
            outcomes[True] += 1
        except ModelError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
        (folder / "config.json").write_bytes(sources[1])
        (folder / "model.safetensors").write_bytes(sources[0])
    assert outcomes[True] and outcomes[False]


# ----------------------------------------------------------------------------------------------------- load_into


def test_load_into_casts_and_is_strict() -> None:
    module = nn.Linear(2, 3)
    good = {"weight": torch.ones(3, 2).half(), "bias": torch.zeros(3)}
    load_into(module, good, "m")
    assert module.weight.dtype == torch.float32 and torch.equal(module.weight, torch.ones(3, 2))
    for bad, words in [
        ({"weight": good["weight"]}, r"m: tensor 'bias' \(3,\) is missing"),
        (good | {"bias": torch.zeros(4)}, r"'bias' has shape \(4,\), but the model expects \(3,\)"),
        (good | {"scale": torch.zeros(1)}, r"'scale' is not one of the 2"),
    ]:
        with pytest.raises(ModelError, match=words):
            load_into(module, bad, "m")


def test_load_into_changes_nothing_when_it_refuses() -> None:
    module = nn.Linear(2, 3)
    before = module.weight.detach().clone()
    with pytest.raises(ModelError):
        load_into(module, {"weight": torch.ones(3, 2), "bias": torch.zeros(4)}, "m")
    assert torch.equal(module.weight, before)


# ------------------------------------------------------------------------------------------------------ describe


def test_describe_counts_without_torch(folder: Path) -> None:
    about = describe(folder)
    assert (about["task"], about["title"], about["parameters"]) == ("music", "A small model", 12 + 5 + 1)
    assert about["config"] == CONFIG and about["bytes"] == (folder / "model.safetensors").stat().st_size
    code = "import sys; from affgen.checkpoint import describe; describe(sys.argv[1]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[1])


# ---------------------------------------------------------------------------------------------------------- states


def test_state_round_trip_and_previous(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, {"x": torch.tensor(1.0)}, {"step": 1, "best": 0.1})
    assert not previous(path).exists()
    save_state(path, {"x": torch.tensor(2.0)}, {"step": 2, "best": None})
    meta, loaded = load_state(path)
    assert meta == {"step": 2, "best": None} and loaded["x"] == 2
    assert read_tensors(previous(path))[0]["step"] == 1
    assert sorted(os.listdir(tmp_path)) == ["last.safetensors", "last.safetensors.previous"]


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_state_gives_way_to_the_previous_one(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last.safetensors"
    for step in (1, 2):
        save_state(path, {"x": torch.tensor(float(step))}, {"step": step})
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert load_state(path)[0]["step"] == 1
    assert "previous" in caplog.text
    save_state(path, {"x": torch.tensor(3.0)}, {"step": 3})
    assert read_tensors(previous(path))[0]["step"] == 1  # the damaged file has not pushed out the good one


def test_no_whole_state_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    with pytest.raises(ModelError, match="does not exist"):
        load_state(path)
    path.write_bytes(b"x")
    previous(path).write_bytes(b"y")
    with pytest.raises(ModelError):
        load_state(path)


def test_full_disk_keeps_the_old_state_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, {"x": torch.tensor(1.0)}, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AffgenError, match=r"last\.safetensors: cannot be written: .*No space left"):
        save_state(path, {"x": torch.tensor(2.0)}, {"step": 2})
    monkeypatch.undo()
    assert load_state(path)[0]["step"] == 1
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_a_write_over_the_size_limit_keeps_the_old_state(tmp_path: Path) -> None:
    """A real refusal by the system, inside the library that writes the tensors."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.safetensors"
    save_state(path, {"x": torch.tensor(1.0)}, {"step": 1})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(AffgenError, match="cannot be written"):
            save_state(path, {"x": torch.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_state(path)[0]["step"] == 1
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    many = {f"t{i}": torch.full((3,), float(i)) for i in range(50)}
    for name in ("a", "b"):
        write_tensors(tmp_path / name, dict(sorted(many.items(), reverse=name == "b")), {"step": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
