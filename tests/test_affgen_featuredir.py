"""The reader of packed features: what it gives, in worker processes too, and what it refuses."""

from __future__ import annotations

import copyreg
from pathlib import Path

import numpy as np
import pytest

from affgen.errors import DataError
from affgen.featuredir import FeatureDir, read_about, write_index, write_shard

FRAMES = {"a-1": 5, "a-2": 3, "b-1": 4}


@pytest.fixture
def packed(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for key, frames in FRAMES.items():
        tensors[f"{key}/mel"] = rng.standard_normal((80, frames)).astype(np.float16)
        tensors[f"{key}/f0"] = np.arange(frames, dtype=np.float32)
        tensors[f"{key}/energy"] = np.ones(frames, np.float32)
    tensors["a-1/wave"] = np.array([0, 32_767, -32_767], np.int16)
    write_shard(folder / "00000.safetensors", {k: v for k, v in tensors.items() if k[0] == "a"}, {"digest": "x"})
    write_shard(folder / "00001.safetensors", {k: v for k, v in tensors.items() if k[0] == "b"}, {})
    write_index(folder, {key: (f"0000{int(key[0] == 'b')}.safetensors", frames) for key, frames in FRAMES.items()})
    return tmp_path


def test_reads_what_was_packed(packed):
    found = FeatureDir(packed)
    assert (found.utterances, found.frames, len(found)) == (tuple(FRAMES), FRAMES, 3)
    assert "a-1" in found and "c-1" not in found
    features = found.features("b-1")
    assert (features.mel.shape, features.mel.dtype, features.f0.dtype) == ((80, 4), np.float32, np.float32)
    np.testing.assert_array_equal(features.f0, [0, 1, 2, 3])
    np.testing.assert_array_equal(found.wave("a-1"), np.float32([0, 1, -1]))


def test_shards_are_opened_only_when_asked_for(packed):
    (packed / "features" / "00001.safetensors").unlink()
    found = FeatureDir(packed)
    found.features("a-1")
    with pytest.raises(DataError, match="extract the features again"):
        found.features("b-1")


def test_a_copy_sent_to_a_worker_opens_its_own_files(packed):
    found = FeatureDir(packed)
    found.features("a-1")
    state = found.__getstate__()
    assert state["_opened"] == {}
    twin = copyreg.__newobj__(FeatureDir)  # what unpickling does
    twin.__dict__.update(state)
    np.testing.assert_array_equal(twin.features("a-1").mel, found.features("a-1").mel)


def test_what_is_not_there_is_refused(packed, tmp_path):
    found = FeatureDir(packed)
    with pytest.raises(DataError, match="has no utterance 'zz'"):
        found.features("zz")
    with pytest.raises(DataError, match="--waves"):
        found.wave("a-2")
    with pytest.raises(DataError, match="affgen data features"):
        FeatureDir(tmp_path / "none")


@pytest.mark.parametrize(
    "line", ["a-1\t00000.safetensors", "a-1\t../../x.safetensors\t5", "a-1\t00000.safetensors\t-5", "a"]
)
def test_damaged_index_is_refused(packed, line):
    (packed / "features" / "index.tsv").write_text(line + "\n")
    with pytest.raises(DataError, match="accepted: UTT"):
        FeatureDir(packed)


def test_an_index_that_disagrees_and_a_damaged_shard_are_refused(packed):
    index = packed / "features" / "index.tsv"
    index.write_text("a-1\t00000.safetensors\t6\na-9\t00000.safetensors\t6\n")
    with pytest.raises(DataError, match="other frames than the index"):
        FeatureDir(packed).features("a-1")
    with pytest.raises(DataError, match="a-9/mel: cannot be read"):
        FeatureDir(packed).features("a-9")
    shard = packed / "features" / "00000.safetensors"
    shard.write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="cannot be read"):
        FeatureDir(packed).features("a-1")


def test_equal_tensors_give_equal_bytes_whatever_their_order(tmp_path):
    tensors = {f"{key}/f0": np.full(3, n, np.float32) for n, key in enumerate("abc")}
    write_shard(tmp_path / "1", tensors, {"x": 1, "y": {"b": 2, "a": 1}})
    write_shard(tmp_path / "2", dict(reversed(tensors.items())), {"y": {"a": 1, "b": 2}, "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert read_about(tmp_path / "1") == {"x": 1, "y": {"a": 1, "b": 2}}


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x05" + b"\0" * 7 + b'{"a":'])
def test_a_damaged_header_says_nothing(tmp_path, damage):
    (tmp_path / "x").write_bytes(damage)
    assert read_about(tmp_path / "x") == {}
    assert read_about(Path(tmp_path / "none")) == {}
