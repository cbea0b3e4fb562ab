"""Row by row in NumPy is the same as all rows at once in torch, for every kind of model that can be decoded."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from music.config import MINIATURE, MusicConfig
from music.model import Conditions, MusER
from music.prior import Prior
from music.recurrent import FastModel, FastPrior, Running, join, prime, to_sums
from music.tokens import TYPE
from music.train import build

ROWS, PIECES = 23, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
KINDS = list(product(("concat", "ca"), ("GE", "G", "E"), ("rows", "token"), (8, 16)))
NAMES = ["-".join(map(str, kind)) for kind in KINDS]


def config_of(
    fusion: str = "concat", decoder: str = "GE", conditioning: str = "rows", width: int = 8, **more: Any
) -> MusicConfig:
    changes: dict[str, Any] = {"fusion": fusion, "decoder": decoder, "conditioning": conditioning, "element_dim": width}
    model = replace(MINIATURE.model, layers=2, element_layers=2, encoder_layers=1, **changes, **more)
    context = "codes" if fusion == "ca" else "rows"
    return replace(
        MINIATURE, model=model, prior=replace(MINIATURE.prior, layers=2, context=context, conditioning=conditioning)
    )


def networks(config: MusicConfig) -> tuple[MusER, Prior]:
    """Networks with all parameters random, biases and scales too."""
    torch.manual_seed(2)
    pair = build(config)
    for part in pair:
        for module in part.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or "norm" in type(module).__name__.lower():
                    nn.init.normal_(parameter, mean=float(name == "weight"), std=0.2)
        part.eval()
    return pair


class Material:
    """Rows, codes, latents and conditions of some pieces, as the training form and the row by row form take them.

    The latents are not those of the codes: they may be given instead.
    """

    def __init__(self, config: MusicConfig, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.x = np.stack([rng.integers(0, size, (PIECES, ROWS)) for size in config.tokens.sizes()], axis=-1)
        self.codes = rng.integers(0, config.model.codes, (PIECES, ROWS))
        self.va = rng.uniform(-1, 1, (PIECES, ROWS, 2)).astype(np.float32)
        self.told = tuple(rng.integers(0, size, (PIECES, ROWS)) for size in (25, 10, 18))
        self.kind = rng.integers(0, 4, (PIECES, ROWS))
        self.conditions = Conditions(torch.from_numpy(self.va), *map(torch.from_numpy, self.told))
        self.latent = torch.from_numpy(
            rng.normal(scale=0.5, size=(PIECES, ROWS, config.model.latent)).astype(np.float32)
        )

    def at(self, t: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        return self.va[:, t], tuple(ids[:, t] for ids in self.told)

    def before(self, prior: Prior) -> torch.Tensor:
        """Codes (B, T) that the prior has heard at each row."""
        x, codes = torch.from_numpy(self.x), torch.from_numpy(self.codes)
        return torch.cat([prior.first_token(x[:, 0]).unsqueeze(1), codes[:, :-1]], dim=1)


def start(fast: FastModel, model: MusER, some: Material) -> Running:
    """A memory of all pieces before the first row; with ``ca`` it holds the latents of each."""
    memory = None
    if model.config.fusion == "ca" and model.global_decoder is not None:
        memory = model.contexts(some.latent)
    return fast.start(PIECES, memory)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@torch.inference_mode()
def test_model_step_by_step_is_the_model_at_once(kind: tuple[Any, ...]) -> None:
    config = config_of(*kind)
    model, _ = networks(config)
    some, fast = Material(config), FastModel(model)
    hidden = model.hidden(torch.from_numpy(some.x), some.latent, torch.ones(PIECES, ROWS), some.conditions)
    logits = model.logits(hidden, torch.from_numpy(some.kind))
    state = start(fast, model, some)
    for t in range(ROWS):
        features = fast.step(some.x[:, t], some.latent[:, t].numpy(), *some.at(t), state)
        np.testing.assert_allclose(features, hidden[:, :, t].numpy(), **CLOSE)
        np.testing.assert_allclose(fast.type_scores(features), logits[TYPE][:, t].numpy(), **CLOSE)
        for column in (0, 1, 2, 4, 5, 6):
            scores = fast.scores(column, features, some.kind[:, t])
            np.testing.assert_allclose(scores, logits[column][:, t].numpy(), rtol=1e-5, atol=2e-5)
    assert state.row.tolist() == [ROWS] * PIECES


@pytest.mark.parametrize("context", ["codes", "rows"])
@pytest.mark.parametrize("conditioning", ["token", "rows"])
@pytest.mark.parametrize("positions", [True, False])
@torch.inference_mode()
def test_prior_step_by_step_is_the_prior_at_once(context: str, conditioning: str, positions: bool) -> None:
    changes: dict[str, Any] = {
        "context": context,
        "conditioning": conditioning,
        "positions": positions,
        "temperature": 1.0,
    }
    config = config_of()
    config = replace(config, prior=replace(config.prior, **changes))
    _, prior = networks(config)
    some, fast = Material(config), FastPrior(prior)
    before = some.before(prior)
    wanted = prior.head(prior.stack(prior._input(before, torch.from_numpy(some.x), some.conditions), causal=True))
    state = fast.start(PIECES)
    for t in range(ROWS):
        scores = fast.step(before[:, t].numpy(), some.x[:, t], *some.at(t), state)
        np.testing.assert_allclose(scores, wanted[:, t].numpy(), **CLOSE)


@torch.inference_mode()
def test_prior_scores_are_divided_by_the_temperature() -> None:
    scores = []
    for temperature in (1.0, 0.25):
        config = replace(MINIATURE, prior=replace(MINIATURE.prior, temperature=temperature))
        _, prior = networks(config)
        some, fast = Material(config), FastPrior(prior)
        scores.append(fast.step(some.codes[:, 0], some.x[:, 0], *some.at(0), fast.start(PIECES)))
    np.testing.assert_allclose(scores[1], 4 * scores[0], rtol=1e-5)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind[0] == "concat"], ids=[n for n in NAMES if "concat" in n]
)
@torch.inference_mode()
def test_prime_is_as_many_steps(kind: tuple[Any, ...]) -> None:
    config = config_of(*kind)
    model, prior = networks(config)
    some, fast, fast_prior = Material(config), FastModel(model), FastPrior(prior)
    before, stop = some.before(prior).numpy(), 15
    state, prior_state = start(fast, model, some), fast_prior.start(PIECES)
    for t in range(stop):
        fast.step(some.x[:, t], some.latent[:, t].numpy(), *some.at(t), state)
        fast_prior.step(before[:, t], some.x[:, t], *some.at(t), prior_state)
    told = some.conditions.map(lambda tensor: tensor[:, :stop])
    heard = some.x[:, :stop], some.codes[:, :stop], some.latent[:, :stop].numpy()
    primed, prior_primed = prime(model, prior, *heard, told)
    for mine, other in ((primed, state), (prior_primed, prior_state)):
        assert mine.row.tolist() == other.row.tolist() == [stop] * PIECES
        for layers, wanted in zip(mine.stacks, other.stacks, strict=True):
            for arrays, expected in zip(layers, wanted, strict=True):
                for array, values in zip(arrays, expected, strict=True):
                    np.testing.assert_allclose(array, values, rtol=1e-4, atol=1e-4)
    one = fast.step(some.x[:, stop], some.latent[:, stop].numpy(), *some.at(stop), state)
    two = fast.step(some.x[:, stop], some.latent[:, stop].numpy(), *some.at(stop), primed)
    np.testing.assert_allclose(one, two, **CLOSE)


@torch.inference_mode()
def test_pieces_leave_and_join_without_a_trace() -> None:
    config = config_of(fusion="ca")
    model, prior = networks(config)
    some, fast = Material(config), FastModel(model)
    state = start(fast, model, some)
    for t in range(4):
        fast.step(some.x[:, t], some.latent[:, t].numpy(), *some.at(t), state)
    kept = np.array([2, 0])
    part = state.select(kept)
    wanted = fast.step(some.x[:, 4], some.latent[:, 4].numpy(), *some.at(4), state)[:, kept]
    va, told = some.at(4)
    told = tuple(ids[kept] for ids in told)
    again = join([part.select(np.array([0])), part.select(np.array([1]))])
    for running in (part, again):
        features = fast.step(some.x[kept, 4], some.latent[kept, 4].numpy(), va[kept], told, running)
        np.testing.assert_allclose(features, wanted, **CLOSE)
    assert prior.codes == config.model.codes


def test_join_puts_first_copies_before_second_copies() -> None:
    def piece(number: float) -> Running:
        sums, norm = np.zeros((1, 2, 1, 1, 1), np.float32), np.zeros((1, 2, 1, 1), np.float32)
        sums[0, :, 0, 0, 0] = norm[0, :, 0, 0] = [number, number + 0.5]
        return Running([[(sums, norm)]], np.array([int(number), int(number)]))

    joined = join([piece(1.0), piece(2.0), piece(3.0)])
    assert joined.stacks[0][0][0].ravel().tolist() == [1.0, 2.0, 3.0, 1.5, 2.5, 3.5]
    assert joined.stacks[0][0][1].ravel().tolist() == [1.0, 2.0, 3.0, 1.5, 2.5, 3.5]
    assert joined.row.tolist() == [1, 2, 3, 1, 2, 3]


def test_selected_memories_do_not_share_their_sums() -> None:
    model, _ = networks(config_of())
    fast = FastModel(model)
    state = fast.start(2)
    part = state.select(np.array([0]))
    part.stacks[0][0][0][...] = 1.0
    assert (state.stacks[0][0][0] == 0).all()


def test_sums_unfold_the_groups() -> None:
    state = (torch.arange(6.0).view(6, 1, 1, 1), torch.arange(6.0).view(6, 1, 1))
    sums, norm = to_sums(state, 3)
    assert sums.shape == (3, 2, 1, 1, 1) and norm.shape == (3, 2, 1, 1)
    assert norm[2].ravel().tolist() == [4.0, 5.0]
    sums[...] = 0
    assert state[0].sum() == 15  # a copy
