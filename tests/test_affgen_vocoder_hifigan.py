"""HiFi-GAN checkpoints in the published form: a miniature is made, loaded and compared with public torch parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from affgen.errors import ModelError
from affgen.features import BANDS, HOP
from affgen.vocoder.hifigan import MEL, Generator, HifiGan, HifiGanConfig

V1 = HifiGanConfig()
V2 = HifiGanConfig(upsample_initial_channel=128)
V3 = HifiGanConfig("2", (8, 8, 4), (16, 16, 8), 256, (3, 5, 7), ((1, 2), (2, 6), (3, 12)))
TINY = HifiGanConfig("1", (8, 8, 4), (16, 16, 8), 32, (3, 5), ((1, 3), (1, 2)))
TINY_SINGLE = replace(TINY, resblock="2")


def write(folder: Path, config: HifiGanConfig, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    """A folder as published: config.json with the keys of training among those of the generator, and the weights."""
    folder.mkdir(exist_ok=True)
    values = {**asdict(config), **MEL, "learning_rate": 0.0002, "segment_size": 8192, "fmax_for_loss": None, **changes}
    (folder / "config.json").write_text(json.dumps(values))
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "generator.safetensors")
    return folder


def generator(config: HifiGanConfig) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(config).eval()


def normalised(model: Generator) -> dict[str, torch.Tensor]:
    """The state of ``model`` with every weight in two halves, as training with weight normalisation saves it."""
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith(".weight"):
            gain = value.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[f"{name}_g"], state[f"{name}_v"] = gain, 3.7 * value  # the length of v must not matter
        else:
            state[name] = value
    return state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", TINY, generator(TINY).state_dict())


def mel(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).normal(-4, 2, (BANDS, frames)).astype(np.float32)


@pytest.mark.parametrize(("config", "millions"), [(V1, 13.93), (V2, 0.93), (V3, 1.46)], ids=["V1", "V2", "V3"])
def test_the_published_sizes_have_the_published_numbers_of_parameters(config: HifiGanConfig, millions: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Generator(config).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("config", [TINY, TINY_SINGLE], ids=["paired", "single"])
def test_a_saved_miniature_speaks_256_samples_a_frame(tmp_path: Path, config: HifiGanConfig) -> None:
    model = generator(config)
    loaded = HifiGan.from_pretrained(write(tmp_path / "m", config, model.state_dict()))
    wave = loaded.synthesize(mel(9))
    assert wave.shape == (9 * HOP,) and wave.dtype == np.float32 and np.abs(wave).max() <= 1
    with torch.no_grad():
        assert np.array_equal(wave, model(torch.from_numpy(mel(9))[None])[0].numpy())
    assert loaded.synthesize(mel(1)).shape == (HOP,)


def test_keys_are_the_public_ones() -> None:
    names = set(generator(TINY).state_dict())
    assert {"conv_pre.weight", "ups.2.bias", "resblocks.5.convs2.1.weight", "conv_post.bias"} <= names
    assert "resblocks.0.convs.1.weight" in generator(TINY_SINGLE).state_dict()


def test_weight_normalisation_folded_equals_left_in(tmp_path: Path) -> None:
    model = generator(TINY)
    wave = HifiGan.from_pretrained(write(tmp_path / "m", TINY, normalised(model))).synthesize(mel(6))
    with torch.no_grad():
        assert np.allclose(wave, model(torch.from_numpy(mel(6))[None])[0].numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("module", [torch.nn.Conv1d(3, 4, 5), torch.nn.ConvTranspose1d(4, 2, 4, 2)])
def test_folding_is_what_torch_means_by_weight_normalisation(module: torch.nn.Module) -> None:
    from affgen.vocoder.hifigan import fold

    with torch.no_grad():
        torch.nn.utils.weight_norm(module).weight_g.mul_(2.5)
    module(torch.zeros(1, module.in_channels, 9))  # recomputes the weight from its halves
    state = {f"a.{name}": value for name, value in module.state_dict().items()}
    assert torch.allclose(fold(state, "x")["a.weight"], module.weight, atol=1e-6)


@pytest.mark.parametrize("config", [TINY, TINY_SINGLE], ids=["paired", "single"])
def test_chunks_are_as_good_as_the_whole(tmp_path: Path, config: HifiGanConfig) -> None:
    model = generator(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.mul_(3.0 if name.endswith("weight") else 1.0)  # so that distant frames are heard
    vocoder, frames = HifiGan(model), mel(70)
    whole = vocoder.synthesize(frames)
    assert np.abs(vocoder.synthesize(frames, chunk=16) - whole).max() < 1e-4 < np.abs(whole).max()  # -80 dB


@pytest.mark.parametrize("config", [V1, V2, V3, TINY, TINY_SINGLE], ids=["V1", "V2", "V3", "tiny", "single"])
def test_the_context_covers_all_that_a_frame_depends_on(config: HifiGanConfig) -> None:
    model = generator(replace(config, upsample_initial_channel=2 ** len(config.upsample_rates)))
    with torch.no_grad():  # all positive: nothing cancels, and the tanh stays in its linear part
        for value in model.parameters():
            value.fill_(0.05) if value.ndim > 1 else value.zero_()
    spectrum = torch.ones(1, BANDS, 61, dtype=torch.float64).requires_grad_()
    model.double()(1e-6 * spectrum)[0, 30 * HOP : 31 * HOP].sum().backward()
    touched = torch.nonzero(spectrum.grad[0].sum(0)).flatten()
    reach = max(30 - int(touched[0]), int(touched[-1]) - 30)
    assert reach <= config.context <= reach + 6


def test_whole_numbers_for_resblock_and_missing_mel_keys_are_fine(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["fmin"], values["sampling_rate"]
    (folder / "config.json").write_text(json.dumps({**values, "resblock": 1}))
    HifiGan.from_pretrained(folder)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another rate": ({"sampling_rate": 24000}, "sampling_rate is 24000; a model for 22050"),
    "another band": ({"fmax": None}, "fmax is None"),
    "another hop": ({"upsample_rates": [8, 8, 2]}, "samples of a frame; needed: 256"),
    "no rates": ({"upsample_rates": 8}, "upsample_rates: needs a list"),
    "text": ({"upsample_initial_channel": "32"}, "is no whole number"),
    "truth": ({"upsample_kernel_sizes": [True, 16, 8]}, "is no whole number"),
    "odd kernel": ({"upsample_kernel_sizes": [15, 16, 8]}, "the difference even"),
    "huge": ({"upsample_initial_channel": 1 << 40}, "upsample_initial_channel"),
    "huge dilation": ({"resblock_dilation_sizes": [[1, 10**9], [1, 2]]}, "resblock_dilation_sizes"),
    "even kernel": ({"resblock_kernel_sizes": [4, 5]}, "odd numbers only"),
    "third kind": ({"resblock": "3"}, "resblock '3'"),
    "a list": ({"resblock": [1]}, "resblock"),
    "wider": ({"upsample_initial_channel": 64}, "has shape"),
    "other blocks": ({"resblock": "2"}, "is missing"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_another_config_is_refused_with_a_line(tmp_path: Path, case: str) -> None:
    changes, message = CHANGES[case]
    refused(write(tmp_path / "m", TINY, generator(TINY).state_dict(), **changes), message)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        HifiGan.from_pretrained(folder)
    text = str(caught.value)
    assert text.startswith(str(folder)) and message in text and "\n" not in text and len(text) < 500, text


def test_a_config_without_its_keys_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "another"}')
    refused(folder, "has no 'resblock'")


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["ups.1.weight"]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["extra"] = torch.zeros(1)


def infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_pre.bias"] = torch.full_like(tensors["conv_pre.bias"], float("inf"))


def half(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_pre.weight_g"] = tensors.pop("conv_pre.weight").flatten(1)[:, :1, None]


def askew(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_pre.weight_v"] = tensors.pop("conv_pre.weight")
    tensors["conv_pre.weight_g"] = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "'ups.1.weight' (16, 8, 16) is missing"),
        (add, "'extra' is not one of"),
        (infinite, "not finite"),
        (half, "needs both weight_g and weight_v"),
        (askew, "does not fit weight_v"),
    ],
)
def test_other_weights_are_refused_with_a_line(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tensors = dict(generator(TINY).state_dict())
    change(tensors)
    refused(write(tmp_path / "m", TINY, tensors), message)


@pytest.mark.parametrize("name", ["config.json", "generator.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"\x80\x04\x95pickle", b"[" * 50000, b"[1]", b"\xff" * 100])
def test_missing_and_hostile_files_are_refused_with_a_line(folder: Path, name: str, content: bytes | None) -> None:
    path = folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    refused(folder, name)


def test_a_folder_that_is_not_there_or_a_huge_config_is_refused(folder: Path) -> None:
    refused(folder / "nowhere", "config.json")
    (folder / "config.json").write_text("{" + " " * (1 << 17) + "}")
    refused(folder, "at most")


def test_a_mel_that_is_none_is_refused(folder: Path) -> None:
    vocoder = HifiGan.from_pretrained(folder)
    for frames in (np.zeros((79, 3)), np.zeros((BANDS, 0)), np.full((BANDS, 2), np.inf)):
        with pytest.raises(ValueError, match="accepted is"):
            vocoder.synthesize(frames)
