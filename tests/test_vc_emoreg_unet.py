"""The score network of the faithful EmoReg: sizes as published, padding unheard, emotions that change over time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from affgen.errors import AffgenError
from vc.emoreg.config import MINIATURE, PUBLISHED, SMALL, TINY, ScoreConfig
from vc.emoreg.unet import Attention, GroupNorm, ReferenceBlock, ScoreUNet, sinusoids


def network(reference: bool = False, seed: int = 0) -> ScoreUNet:
    """A miniature whose attention is not switched off, as it is at the beginning."""
    torch.manual_seed(seed)
    made = ScoreUNet(replace(MINIATURE.score, reference=reference)).eval()
    for part in made.modules():
        if isinstance(part, Attention):
            torch.nn.init.constant_(part.scale, 0.7)
    return made


def inputs(frames: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "x": draw(2, 80, frames),
        "average": draw(2, 80, frames),
        "time": torch.tensor([0.3, 0.9]),
        "emotion": draw(2, 256),
        "mask": torch.ones(2, 1, frames),
    }


def padded(values: dict[str, Tensor], by: int) -> dict[str, Tensor]:
    """More frames at the end, full of what must not be heard."""
    more = {name: torch.full((2, 80, by), 50.0) for name in ("x", "average")} | {"mask": torch.zeros(2, 1, by)}
    return values | {name: torch.cat([values[name], more[name]], dim=2) for name in more}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (replace(PUBLISHED.score, reference=False), 117_113_223),
        (PUBLISHED.score, 117_794_599),
        (SMALL.score, 7_946_823),
        (TINY.score, 2_282_087),
    ],
)
def test_sizes_are_those_of_diffvc(config: ScoreConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ScoreUNet(config).parameters()) == count


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 16])
def test_any_number_of_frames_is_accepted_and_kept(frames: int) -> None:
    score = network()(**inputs(frames))
    assert score.shape == (2, 80, frames) and bool(score.isfinite().all())


@pytest.mark.parametrize(("frames", "by"), [(8, 4), (8, 9), (7, 1), (7, 6), (5, 40)])
def test_padding_is_not_heard(frames: int, by: int) -> None:
    model, values = network(), inputs(frames)
    alone, beside = model(**values), model(**padded(values, by))
    assert torch.allclose(alone, beside[:, :, :frames], atol=1e-5)
    assert beside[:, :, frames:].abs().max() == 0


def test_a_mask_of_ones_and_none_are_the_same() -> None:
    torch.manual_seed(0)
    x, mask = torch.randn(2, 16, 4, 8), torch.ones(2, 1, 1, 8)
    for layer, shape in ((GroupNorm(8, 16), x), (Attention(16), x)):
        assert torch.allclose(layer(shape, mask), layer(shape, None), atol=1e-5)
    block, time = ReferenceBlock(8, 8), torch.randn(2, 8)
    assert torch.allclose(block(x[:, 0], time, mask), block(x[:, 0], time, None), atol=1e-5)


def test_padding_of_the_reference_is_not_heard() -> None:
    model, values = network(reference=True), inputs(8)
    reference = torch.randn(2, 80, 11, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 1, 11)
    alone = model(**values, reference=reference, reference_mask=mask)
    longer = torch.cat([reference, torch.full((2, 80, 5), 9.0)], dim=2)
    beside = model(**values, reference=longer, reference_mask=torch.cat([mask, torch.zeros(2, 1, 5)], dim=2))
    other = model(**values, reference=reference + 1.5 * reference.abs(), reference_mask=mask)
    assert torch.allclose(alone, beside, atol=1e-5) and not torch.allclose(alone, other, atol=1e-4)


def test_a_missing_reference_is_refused() -> None:
    with pytest.raises(AffgenError, match="reference"):
        network(reference=True)(**inputs(8))


@pytest.mark.parametrize("frames", [1, 6, 8])
@pytest.mark.parametrize("reference", [False, True])
def test_a_constant_curve_is_a_vector(frames: int, reference: bool) -> None:
    model, values = network(reference), inputs(frames)
    more = {"reference": values["x"], "reference_mask": values["mask"]} if reference else {}
    curve = values | {"emotion": values["emotion"].unsqueeze(2).expand(-1, -1, frames)}
    assert torch.allclose(model(**values, **more), model(**curve, **more), atol=1e-5)


def test_a_curve_changes_the_score_where_it_changes() -> None:
    model, values = network(), inputs(128)
    for part in model.modules():  # what hears the whole utterance
        if isinstance(part, Attention):
            torch.nn.init.zeros_(part.scale)
    curve = values["emotion"].unsqueeze(2).repeat(1, 1, 128)
    curve[:, :, 100:] += 3
    moved = (model(**values | {"emotion": curve}) - model(**values)).abs().mean(dim=(0, 1))
    assert moved[104:].mean() > 3 * moved[:60].mean() > 0


def test_time_and_emotion_are_heard() -> None:
    model, values = network(), inputs(8)
    score = model(**values)
    assert not torch.allclose(score, model(**values | {"time": values["time"] / 2}), atol=1e-4)
    assert not torch.allclose(score, model(**values | {"emotion": 2 * values["emotion"]}), atol=1e-4)


def test_at_the_bottom_attention_comes_between_the_blocks() -> None:
    model, order = network(), []
    for name, part in model.bottom.named_children():
        part.register_forward_hook(lambda *_, name=name: order.append(name))
    model(**inputs(4))
    assert order == ["first", "attention", "second"]


def test_sinusoids_begin_at_sine_0_and_tell_times_apart() -> None:
    waves = sinusoids(torch.tensor([0.0, 1e-3, 1.0]), 16)
    assert waves.shape == (3, 16) and torch.equal(waves[0], torch.tensor([0.0] * 8 + [1.0] * 8))
    assert float((waves[0] - waves[1]).abs().max()) > 0.5
