"""The decoder: shapes, exactly how far a frame reaches, hidden emotions, losses and where their gradients go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from affgen.errors import AffgenError
from vc.config import MINIATURE, DecoderConfig
from vc.model import Decoder, Given

CONFIG, RANK = MINIATURE.decoder, 4
LEARNED_MEAN = ("mean_head", "mean_norm")


def decoder(config: DecoderConfig = CONFIG) -> Decoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Decoder(config, RANK)
        torch.nn.init.normal_(made.flow_head.weight, std=0.3)
        torch.nn.init.normal_(made.feeling.weight)
    return made.double().eval()


def given(batch: int, frames: int, *, steady: bool = False, seed: int = 0) -> Given:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape))

    return Given(
        *(draw(batch, CONFIG.cepstra, frames), draw(batch, 80, frames), draw(batch, frames), 7 + draw(batch, frames)),
        *((draw(batch, frames) > 0).double(), draw(batch, CONFIG.speaker), draw(batch, CONFIG.cepstra)),
        *(7 + draw(batch), draw(batch, RANK, 1 if steady else frames), torch.ones(batch, dtype=torch.float64)),
    )


@torch.no_grad()
def sampled(model: Decoder, what: Given, noise: Tensor, evaluations: int) -> Tensor:
    """Euler steps of the flow, as many as evaluations."""
    average, hidden, condition = model.average(what)
    x = noise
    for k in range(evaluations):
        x = x + model.velocity(x, x.new_full((len(x),), k / evaluations), hidden, condition) / evaluations
    return model.finished(average, x)


def test_shapes() -> None:
    model, what = decoder(), given(3, 11)
    average, hidden, condition = model.average(what)
    assert average.shape == (3, 80, 11) and hidden.shape == (3, CONFIG.width, 11)
    assert condition.shape == (3, CONFIG.condition, 11)
    assert model.velocity(average, torch.rand(3).double(), hidden, condition).shape == (3, 80, 11)
    assert model.average(given(1, 1))[0].shape == (1, 80, 1)


@pytest.mark.parametrize(("evaluations", "kernel", "blocks"), [(1, 7, (1, 1)), (3, 7, (1, 1)), (2, 3, (2, 3))])
def test_the_reach_is_exact(evaluations: int, kernel: int, blocks: tuple[int, int]) -> None:
    model = decoder(replace(CONFIG, kernel=kernel, mean_blocks=blocks[0], flow_blocks=blocks[1]))
    reach = model.reach(evaluations)
    place, frames = reach + 4, 2 * reach + 9
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 80, frames)))
    what = given(1, frames)
    moved = {name: value.clone() for name, value in vars(what).items()}
    for name in ("content", "ripple", "energy", "pitch", "emotion"):
        moved[name][..., place] += 3
    change = sampled(model, Given(**moved), noise, evaluations) - sampled(model, what, noise, evaluations)
    touched = np.flatnonzero((change[0].abs().amax(dim=0) > 0).numpy())
    assert touched[0] == place - reach and touched[-1] == place + reach


def test_a_stretch_with_its_reach_is_the_whole() -> None:
    model, frames, steps = decoder(), 100, 2
    reach, what = model.reach(steps), given(1, frames)
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 80, frames)))
    whole = sampled(model, what, noise, steps)
    low, high = 40 - reach, 50 + reach
    part = Given(
        *(
            value[..., low:high] if value.shape[-1] == frames else value  # speaker, timbre and the rest have no frames
            for value in vars(what).values()
        )
    )
    made = sampled(model, part, noise[..., low:high], steps)
    assert torch.allclose(made[..., reach : reach + 10], whole[..., 40:50], atol=1e-12)


# --- emotion ---------------------------------------------------------------------------------------------------------


def test_a_hidden_emotion_is_not_seen() -> None:
    model, what = decoder(), given(2, 9)
    other = replace(what, emotion=5 - what.emotion)
    assert (model.average(what)[0] - model.average(other)[0]).abs().max() > 1e-3
    hidden = [replace(item, told=torch.zeros(2).double()) for item in (what, other)]
    assert torch.equal(model.average(hidden[0])[0], model.average(hidden[1])[0])
    half = torch.tensor([1.0, 0.0]).double()
    one, two = (model.average(replace(item, told=half))[0] for item in (what, other))
    assert not torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_an_emotion_that_lasts_is_the_same_as_a_vector() -> None:
    model, what = decoder(), given(2, 9, steady=True)
    lasting = replace(what, emotion=what.emotion.expand(-1, -1, 9))
    assert torch.allclose(model.average(what)[0], model.average(lasting)[0], atol=1e-12)
    noise = torch.ones(2, 80, 9).double()
    assert torch.allclose(sampled(model, what, noise, 2), sampled(model, lasting, noise, 2), atol=1e-12)


@pytest.mark.parametrize("name", ["content", "ripple", "energy", "pitch", "voiced", "speaker", "timbre", "register"])
def test_everything_given_is_heeded(name: str) -> None:
    model, what = decoder(), given(1, 9)
    other = replace(what, **{name: getattr(what, name) + 1})
    assert (model.average(what)[0] - model.average(other)[0]).abs().max() > 1e-6


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_losses_fall_on_a_toy_batch() -> None:
    model, what = decoder().float().train(), Given(*(value.float() for value in vars(given(4, 12)).values()))
    mel = 2 * what.energy[:, None] + torch.linspace(-6, -2, 80)[:, None]
    model.mel_mean.copy_(mel.mean(dim=(0, 2)))
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(80):
            losses = model.losses(mel, what)
            optimiser.zero_grad()
            sum(losses.values()).backward()  # type: ignore[union-attr]
            optimiser.step()
            history.append({name: float(value.detach()) for name, value in losses.items()})
    assert set(history[0]) == {"average", "flow"}
    first, last = (
        {name: np.mean([row[name] for row in part]) for name in history[0]} for part in (history[:8], history[-8:])
    )
    assert last["average"] < 0.6 * first["average"] and last["flow"] < 0.6 * first["flow"], (first, last)


def test_the_flow_does_not_teach_the_average() -> None:
    model, what = decoder().float(), Given(*(value.float() for value in vars(given(2, 9)).values()))
    mel = torch.ones(2, 80, 9)
    model.losses(mel, what)["flow"].backward()
    grown = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert not any(name.startswith(LEARNED_MEAN) for name in grown)
    assert {"enter.weight", "flow_head.weight", "feeling.weight", "time.0.weight"} <= grown
    model.zero_grad(set_to_none=True)
    model.losses(mel, what)["average"].backward()
    grown = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert "mean_head.weight" in grown and not any(name.startswith(("flow", "time")) for name in grown)


def test_an_untrained_flow_adds_plain_noise() -> None:
    model = Decoder(CONFIG, RANK).eval()
    x = torch.randn(1, 80, 5)
    with torch.no_grad():
        found = model.velocity(x, torch.zeros(1), torch.randn(1, CONFIG.width, 5), torch.randn(1, CONFIG.condition, 1))
    assert not found.any()


def test_standard_units_are_undone() -> None:
    model = decoder()
    model.mel_mean.copy_(torch.linspace(-5, -2, 80))
    model.mel_scale.copy_(torch.linspace(0.5, 2, 80))
    mel = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 80, 3)))
    assert torch.allclose(model.finished(model.standard(mel), torch.zeros_like(mel)), mel)


@pytest.mark.parametrize("wrong", [{"kernel": 6}, {"kernel": 0}, {"width": 0}, {"residual": 0.0}, {"mean_blocks": 0}])
def test_sizes_that_make_no_decoder_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AffgenError, match="kernel is odd"):
        replace(CONFIG, **wrong)
