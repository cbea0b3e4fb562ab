"""Model directories: what comes back is what was written, what does not fit is refused, old models sound alike."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affgen import config as configs
from affgen.checkpoint import load_into, load_model, read_tensors, save_model, write_tensors
from affgen.errors import ModelError
from affgen.testing import fabricated_score
from music.beats import grid_of
from music.config import MINIATURE, MusicConfig, SamplingConfig, with_model
from music.data import Example, collate
from music.decode import Request, decode
from music.model import Batch, Conditions, MusER
from music.pack import TASK, pack, unpack
from music.prior import Prior
from music.steering import Steering
from music.tokens import BAR, BEAT, METRICAL, TYPE
from music.train import build


def networks(config: MusicConfig, seed: int = 0) -> tuple[MusER, Prior]:
    torch.manual_seed(seed)
    model, prior = build(config)
    return model.eval(), prior.eval()


def steer(valence: float = 0.5, arousal: float = 0.5, key: int = 0) -> Steering:
    return lambda bars, bpm: np.tile([valence, arousal, 2.0, key], (bars, 1))


def packed(folder: Path, config: MusicConfig = MINIATURE) -> Path:
    pack(config, *networks(config), folder)
    return folder


def written_with(folder: Path, values: dict[str, Any], tensors: dict[str, torch.Tensor], **how: Any) -> Path:
    """A sound model directory with this content, whether or not it makes a model."""
    save_model(folder, values, tensors, "# changed", task=how.get("task", TASK))
    return folder


VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "published kind": {"fusion": "ca", "reduction": "trans", "conditioning": "token"},
    "global only": {"decoder": "G"},
    "elements only": {"decoder": "E"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_packed_model_comes_back_in_half_precision(name: str, tmp_path: Path) -> None:
    config = with_model(MINIATURE, **VARIANTS[name])
    model, prior = networks(config)
    pack(config, model, prior, tmp_path / "model")
    again, unpacked_model, unpacked_prior = unpack(tmp_path / "model")
    assert again == config
    for mine, other in ((unpacked_model, model), (unpacked_prior, prior)):
        assert not mine.training
        state, wanted = mine.state_dict(), other.state_dict()
        assert set(state) == {key for key in wanted if not key.startswith("reduction.")}
        for key, value in state.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, wanted[key].half().float()), key


def test_an_unpacked_model_decodes_as_the_one_that_was_packed(tmp_path: Path) -> None:
    model, prior = networks(MINIATURE)
    pack(MINIATURE, model, prior, tmp_path / "model")
    for part in (model, prior):
        load_into(part, {key: value.half() for key, value in part.state_dict().items()}, "here")
    request = Request(seed=1, steer=steer(), bars=3)
    (wanted,) = decode(model, prior, MINIATURE, [request])
    config, *parts = unpack(tmp_path / "model")
    np.testing.assert_array_equal(decode(*parts, config, [request])[0], wanted)


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = packed(tmp_path / "one"), packed(tmp_path / "two")
    files = sorted(path.name for path in one.iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    config, *parts = unpack(one)
    pack(config, *parts, tmp_path / "three")
    assert (tmp_path / "three" / "model.safetensors").read_bytes() == (one / "model.safetensors").read_bytes()


def test_weights_take_two_bytes_each_and_training_only_parts_none(tmp_path: Path) -> None:
    config = with_model(MINIATURE, reduction="trans")
    model, prior = networks(config)
    packed(tmp_path / "model", config)
    numbers = sum(
        v.numel() for part in (model, prior) for k, v in part.state_dict().items() if not k.startswith("reduction.")
    )
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 2 * numbers + 40_000


def test_unpacking_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    packed(tmp_path / "model")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    unpack(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)


def test_large_running_sums_do_not_spoil_a_model(tmp_path: Path) -> None:
    """A code that stands for thousands of rows of a batch has sums beyond half precision; they are made anew."""
    model, prior = networks(MINIATURE)
    model.quantise.codebook[0], model.quantise.counts[0], model.quantise.sums[0] = 12.0, 6000.0, 6000.0 * 12.0
    pack(MINIATURE, model, prior, tmp_path / "model")
    _, tensors = load_model(tmp_path / "model", task=TASK)
    assert {name for name in tensors if "quantise" in name} == {"model.quantise.codebook", "model.quantise.counts"}
    again = unpack(tmp_path / "model")[1].quantise
    assert again.sums[0].tolist() == [72000.0] * MINIATURE.model.latent
    torch.testing.assert_close(again.sums, model.quantise.sums, rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- damage


def one_line(error: pytest.ExceptionInfo[ModelError], *parts: str) -> None:
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    values, tensors = load_model(packed(tmp_path / "model"), task=TASK)
    for name in ("model.encoder_in.weight", "prior.head.bias", "model.quantise.codebook", "model.quantise.counts"):
        rest = {key: value for key, value in tensors.items() if key != name}
        with pytest.raises(ModelError) as caught:
            unpack(written_with(tmp_path / "other", values, rest))
        one_line(caught, name.split(".", 1)[1], "missing", "other")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    values, tensors = load_model(packed(tmp_path / "model"), task=TASK)
    for name, shape, expected in (
        ("model.encoder_out.bias", (29,), "(28,)"),
        ("model.quantise.counts", (), "(32,)"),
        ("model.quantise.counts", (32, 28), "(32,)"),
        ("model.quantise.codebook", (32,), "(32, 28)"),
    ):
        with pytest.raises(ModelError) as caught:
            unpack(written_with(tmp_path / "other", values, tensors | {name: torch.zeros(shape)}))
        one_line(caught, name.split(".", 1)[1], str(shape), expected)


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    values, tensors = load_model(packed(tmp_path / "model"), task=TASK)
    with pytest.raises(ModelError) as caught:
        unpack(written_with(tmp_path / "other", values, tensors | {"model.more.weight": torch.zeros(2)}))
    one_line(caught, "more.weight")


def test_a_tensor_of_neither_network_is_named(tmp_path: Path) -> None:
    values, tensors = load_model(packed(tmp_path / "model"), task=TASK)
    with pytest.raises(ModelError) as caught:
        unpack(written_with(tmp_path / "other", values, tensors | {"voice.weight": torch.zeros(2)}))
    one_line(caught, "voice.weight")


UNFIT: dict[str, tuple[str, Any, str]] = {
    "unknown key": ("model", {"colour": 3}, "colour"),
    "wrong type": ("model", {"dim": "wide"}, "dim"),
    "no such kind": ("model", {"fusion": "glue"}, "fusion"),
    "latent that cannot be split": ("model", {"latent": 30}, "latent"),
    "heads that do not fit": ("prior", {"heads": 3}, "prior.dim"),
    "another size": ("model", {"codes": 33}, "codebook"),
}


def changed(folder: Path, section: str, change: dict[str, Any]) -> Path:
    values, tensors = load_model(packed(folder / "model"), task=TASK)
    return written_with(folder / "other", values | {section: values[section] | change}, tensors)


@pytest.mark.parametrize("name", UNFIT)
def test_a_configuration_that_does_not_fit_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    section, change, named = UNFIT[name]
    with pytest.raises(ModelError) as caught:
        unpack(changed(tmp_path, section, change))
    one_line(caught, named, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("model", {"codes": -1}),
        ("model", {"codes": 10**13}),
        ("model", {"dropout": 5.0}),
        ("model", {"embeddings": [0] * 8}),
        ("model", {"max_rows": 0}),
        ("tokens", {"tempo_bins": 0}),
    ],
    ids=["negative", "gigantic", "a dropout of 5", "no width", "no rows", "no tempi"],
)
def test_sizes_that_no_model_has_are_refused_in_one_line(section: str, change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        unpack(changed(tmp_path, section, change))
    one_line(caught, next(iter(change)))


def test_a_model_of_another_task_or_none_is_refused(tmp_path: Path) -> None:
    values, tensors = load_model(packed(tmp_path / "model"), task=TASK)
    with pytest.raises(ModelError, match="'music' is needed") as caught:
        unpack(written_with(tmp_path / "voice", values, tensors, task="vc"))
    one_line(caught)
    with pytest.raises(ModelError, match="is not a folder"):
        unpack(tmp_path / "nowhere")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    weights = packed(tmp_path / "model") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="SHA-256"):
        unpack(tmp_path / "model")


def test_the_configuration_is_complete(tmp_path: Path) -> None:
    values, _ = load_model(packed(tmp_path / "model"), task=TASK)
    assert values == configs.to_dict(MINIATURE)
    assert configs.from_dict(MusicConfig, values) == MINIATURE
    assert replace(MINIATURE, tokens=MINIATURE.tokens) == MINIATURE


# ------------------------------------------------------------------------------------------------------- golden

GOLDEN = Path(__file__).parent / "golden" / "music_miniature.safetensors"
"""Weights of an untrained miniature in half precision, a batch, its losses, and rows decoded from it.

``AFFGEN_REMAKE_GOLDEN=1`` writes it anew, for a change that is meant to make old models sound different.
"""
CHECKED = replace(
    with_model(MINIATURE, max_rows=48),
    sampling=SamplingConfig(
        out_of_key=1.0,
        prior_temperature=1.0,
        prior_top_p=0.95,
        temperature=(1.0,) * 7,
        top_p=(0.9, 0.9, 1.0, 0.95, 0.95, 0.95, 0.95),
    ),
)
"""Sampling as a model directory of its time would hold it: other defaults leave old models alone."""


def golden_requests() -> list[Request]:
    """A plain piece, one with key and tempo, one with a curve over some seconds, one that outgrows its context."""

    def curve(bars: int, bpm: float) -> np.ndarray:
        return np.stack(
            [np.linspace(-1, 1, bars), np.linspace(1, -1, bars), np.full(bars, 1.5), np.zeros(bars)], axis=1
        )

    return [
        Request(seed=1, steer=steer(), bars=4),
        Request(seed=2, steer=steer(-0.7, 0.6, 15), bars=4, tempo=30),
        Request(seed=3, steer=curve, seconds=15.0),
        Request(seed=4, steer=curve, bars=16),
    ]


def bars_of(rows: np.ndarray) -> int:
    return int(((rows[:, TYPE] == METRICAL) & (rows[:, BEAT] == BAR)).sum())


def golden_networks(tensors: dict[str, torch.Tensor]) -> tuple[MusER, Prior]:
    model, prior = build(CHECKED)
    for name, part in (("model.", model), ("prior.", prior)):
        load_into(part, {key[6:]: value for key, value in tensors.items() if key.startswith(name)}, GOLDEN)
    return model.eval(), prior.eval()


@torch.inference_mode()
def golden_results(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Losses of both networks and decoded rows, from the weights and the batch in ``tensors``."""
    model, prior = golden_networks(tensors)
    conditions = Conditions(*(tensors[f"batch.{name}"] for name in ("va", "key", "left", "place")))
    batch = Batch(tensors["batch.x"], tensors["batch.y"], tensors["batch.mask"], conditions, [])
    codes = model.codes(batch.y, batch.mask)
    losses = model.losses(batch) | {
        f"prior_{k}": v for k, v in prior.losses(codes, batch.x, batch.mask, conditions).items()
    }
    results = {f"loss.{name}": value for name, value in losses.items()} | {"codes": codes}
    for index, request in enumerate(golden_requests()):
        (rows,) = decode(model, prior, CHECKED, [request])
        results[f"rows.{index}"] = torch.from_numpy(rows)
    return results


def remake_golden() -> None:
    """Weights from a fixed seed, a batch of made-up pieces, and what comes of them."""
    model, prior = networks(CHECKED)
    grids = [grid_of(fabricated_score(k, bars=2, quadrant=f"Q{k + 1}")) for k in range(4)]
    batch = collate([Example(f"piece{k}", grid, k + 1, 5 * k, 2 * k) for k, grid in enumerate(grids)], CHECKED)
    tensors = {f"model.{name}": value.half() for name, value in model.state_dict().items()}
    tensors |= {f"prior.{name}": value.half() for name, value in prior.state_dict().items()}
    tensors |= {"batch.x": batch.x, "batch.y": batch.y, "batch.mask": batch.mask}
    tensors |= {f"batch.{name}": getattr(batch.conditions, name) for name in ("va", "key", "left", "place")}
    write_tensors(GOLDEN, tensors | golden_results(tensors), {"made by": "tests/test_music_pack.py"})


def test_golden_losses_and_rows() -> None:
    """A model that was saved long ago has the same losses and decodes the same rows."""
    if os.environ.get("AFFGEN_REMAKE_GOLDEN"):
        remake_golden()
    _, tensors = read_tensors(GOLDEN)
    results = golden_results(tensors)
    assert {name for name in tensors if name.split(".")[0] in ("loss", "codes", "rows")} == set(results)
    for name, value in results.items():
        if name.startswith("loss."):
            torch.testing.assert_close(
                value, tensors[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        else:
            assert torch.equal(value, tensors[name]), name
    lengths = [bars_of(tensors[f"rows.{k}"].numpy()) for k in range(4)]
    assert lengths[0] == lengths[1] == 4 and lengths[3] == 16
    assert len(tensors["rows.3"]) > 2 * CHECKED.model.max_rows
