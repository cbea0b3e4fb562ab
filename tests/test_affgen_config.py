"""Configurations: round trips, precedence, and refusals in one line that names the place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen import config
from affgen.errors import AffgenError


@dataclass(frozen=True)
class Layer:
    dim: int = 4
    rate: float = 1e-3
    kind: Literal["attention", "mlp"] = "mlp"
    sizes: tuple[int, ...] = (1, 2)
    betas: tuple[float, float] = (0.9, 0.99)
    name: str | None = None


@dataclass(frozen=True)
class Deep:
    layer: Layer = field(default_factory=Layer)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise AffgenError(f"scale {self.scale}; accepted: a number above 0")


@dataclass(frozen=True)
class Whole:
    deep: Deep = field(default_factory=Deep)
    title: str = "toy"
    flag: bool = False


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "conf.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(call) -> str:
    with pytest.raises(AffgenError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_files_first_overrides_second(tmp_path):
    path = write(tmp_path, "deep:\n  layer: {dim: 8, rate: 3e-4, sizes: [5, 6, 7]}\ntitle: from file\n")
    loaded = config.load(Whole, path, ["deep.layer.dim=16", "deep.layer.betas=[0.5, 0.6]", "deep.layer.name=x y"])
    assert loaded == Whole(Deep(Layer(16, 3e-4, "mlp", (5, 6, 7), (0.5, 0.6), "x y")), "from file")
    assert isinstance(loaded.deep.layer.sizes, tuple)


def test_later_overrides_win_and_leave_the_rest():
    loaded = config.load(Whole, None, ["deep.layer.dim=1", "flag=true", "deep.layer.dim=2"])
    assert (loaded.deep.layer.dim, loaded.flag, loaded.title) == (2, True, "toy")


def test_nothing_given_is_the_defaults(tmp_path):
    assert config.load(Whole) == Whole() == config.load(Whole, write(tmp_path, "")) == config.from_dict(Whole, {})
    assert config.load(Whole, write(tmp_path, "# only a comment with ${oc.env:HOME}\n")) == Whole()


def test_null_clears_an_optional():
    assert config.load(Whole, None, ["deep.layer.name=a", "deep.layer.name=null"]).deep.layer.name is None


def test_saved_file_is_complete(tmp_path):
    path = tmp_path / "conf.yaml"
    config.save(Whole(), path)
    for key in ("dim", "rate", "kind", "sizes", "betas", "name", "scale", "title", "flag"):
        assert f"{key}:" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


plain_text = st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=20).filter(lambda s: s != "???")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.tuples(st.integers(), st.integers(), st.integers()),
    st.one_of(st.none(), plain_text),
    plain_text,
)
def test_save_and_load_give_an_equal_object(tmp_path_factory, dim, rate, sizes, name, title):
    whole = Whole(Deep(Layer(dim, rate, "attention", sizes, (0.1, 0.2), name)), title)
    assert config.from_dict(Whole, config.to_dict(whole)) == whole
    path = tmp_path_factory.mktemp("conf") / "conf.yaml"
    config.save(whole, path)
    assert config.load(Whole, path) == whole


@pytest.mark.parametrize("text", ["1e-3", "true", "null", "~", "12", "0x10", "2020-01-01", "[1]", "a: b", "- x", "#"])
def test_text_that_looks_like_something_else_stays_text(tmp_path, text):
    config.save(Whole(title=text), tmp_path / "c.yaml")
    assert config.load(Whole, tmp_path / "c.yaml").title == text


def test_unknown_key_names_file_key_and_nearest(tmp_path):
    message = refusal(lambda: config.load(Whole, write(tmp_path, "deep:\n  layer:\n    dmi: 3\n")))
    assert "conf.yaml" in message
    assert "'deep.layer.dmi'" in message
    assert "did you mean 'dim'" in message


def test_unknown_key_without_a_neighbour_lists_the_keys():
    message = refusal(lambda: config.load(Whole, None, ["deep.zzzzzz=3"]))
    assert "deep.zzzzzz=3" in message
    assert "accepted: layer, scale" in message


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("deep.layer.dim=x", "deep.layer.dim"),
        ("deep.layer.dim=3.5", "deep.layer.dim"),
        ("deep.layer.dim=true", "deep.layer.dim"),
        ("deep.layer.kind=cnn", "['attention', 'mlp']"),
        ("deep.layer.sizes=[1, x]", "deep.layer.sizes"),
        ("deep.layer.sizes=3", "deep.layer.sizes"),
        ("deep.layer.betas=[1]", "deep.layer.betas"),
        ("deep.layer=3", "deep.layer"),
        ("title=null", "title"),
        ("title=[a]", "title"),
        ("flag=perhaps", "flag"),
        ("deep.scale=-1", "above 0"),
    ],
)
def test_wrong_type_names_the_key(setting, named):
    assert named in refusal(lambda: config.load(Whole, None, [setting]))


@pytest.mark.parametrize("setting", ["", "=3", "title", ".a=3", "a..b=3"])
def test_a_setting_needs_a_key_and_a_value(setting):
    assert "SECTION.KEY=VALUE" in refusal(lambda: config.load(Whole, None, [setting]))


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${title} b", "${", "???"])
def test_interpolation_is_refused_everywhere(tmp_path, value):
    refusals = [
        refusal(lambda: config.load(Whole, write(tmp_path, f"title: '{value}'\n"))),
        refusal(lambda: config.load(Whole, None, [f"title={value}"])),
        refusal(lambda: config.from_dict(Whole, {"title": value})),
        refusal(lambda: config.save(Whole(title=value), tmp_path / "out.yaml")),
    ]
    assert all(os.environ.get("HOME", "/root") not in message for message in refusals)
    assert not (tmp_path / "out.yaml").exists()


def test_tags_are_refused_and_run_nothing(tmp_path):
    mark = tmp_path / "ran"
    for text in (
        f"title: !!python/object/apply:os.system ['touch {mark}']\n",
        f"!!python/object/new:os.system ['touch {mark}']\n",
        "title: !!python/name:os.system\n",
        "title: !!binary aGVsbG8=\n",
    ):
        assert "tag" in refusal(lambda text=text: config.load(Whole, write(tmp_path, text)))
    assert not mark.exists()


def test_alias_bomb_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "alias" in refusal(lambda: config.load(Whole, write(tmp_path, "\n".join(lines))))


@pytest.mark.parametrize(
    "text",
    [
        "title: [",
        "title: a\ntitle: b\n",
        "- 1\n- 2\n",
        "just text\n",
        "42\n",
        "--- {title: a}\n--- {title: b}\n",
        "a: " + "[" * 5000 + "]" * 5000,
        b"\xff\xfe\x00",
        b"title: \x00",
        "1: 2\n",
        "? [a, b]\n: 3\n",
    ],
)
def test_damaged_files_are_one_line(tmp_path, text):
    assert "conf.yaml" in refusal(lambda: config.load(Whole, write(tmp_path, text)))


def test_big_missing_and_folder_paths_are_refused(tmp_path):
    assert "accepted" in refusal(lambda: config.load(Whole, write(tmp_path, "#" * 1_000_001)))
    assert "none.yaml" in refusal(lambda: config.load(Whole, tmp_path / "none.yaml"))
    assert "cannot be read" in refusal(lambda: config.load(Whole, tmp_path))
