"""The prior: its loss by definition, what it hears and when, and every value of its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from music.config import MINIATURE, PriorConfig
from music.model import Conditions
from music.prior import EMOTION_TOKENS, Prior
from music.tokens import EMOTION

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CODES = MINIATURE.model.codes
VARIANTS: dict[str, dict[str, Any]] = {
    "rows": {},
    "codes": {"context": "codes"},
    "token": {"conditioning": "token"},
    "published": {"context": "codes", "conditioning": "token"},
    "no positions": {"positions": False},
}


def prior_of(**changes: Any) -> Prior:
    torch.manual_seed(0)
    config: PriorConfig = replace(MINIATURE.prior, **changes)
    return Prior(config, CODES, MINIATURE.tokens, MINIATURE.model.embeddings).eval()


def material(rows: int = 12, pieces: int = 3) -> tuple[Tensor, Tensor, Tensor, Conditions]:
    """Codes (B, T), rows (B, T, 8), mask (B, T) of pieces of different length, conditions."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(CODES, (pieces, rows), generator=generator)
    x = torch.randint(0, 4, (pieces, rows, 8), generator=generator)
    mask = (torch.arange(rows) < torch.tensor([rows, 7, 1][:pieces])[:, None]).float()
    ids = [torch.randint(size, (pieces, rows), generator=generator) for size in (25, 10, 18)]
    return codes, x, mask, Conditions(torch.rand(pieces, rows, 2, generator=generator) * 2 - 1, *ids)


def logits_of(prior: Prior, codes: Tensor, x: Tensor, told: Conditions) -> Tensor:
    heard = torch.cat([prior.first_token(x[:, 0]).unsqueeze(1), codes[:, :-1]], dim=1)
    return prior.head(prior.stack(prior._input(heard, x, told), causal=True)) / prior.config.temperature


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_are_their_definition(name: str) -> None:
    prior, (codes, x, mask, told) = prior_of(**VARIANTS[name]), material()
    losses = prior.losses(codes, x, mask, told)
    logits, valid = logits_of(prior, codes, x, told), mask == 1
    torch.testing.assert_close(losses["nll"], F.cross_entropy(logits[valid], codes[valid]), **CLOSE)
    assert losses["accuracy"].item() == pytest.approx((logits.argmax(dim=-1) == codes)[valid].float().mean().item())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains(name: str) -> None:
    prior, (codes, x, mask, told) = prior_of(**VARIANTS[name]).train(), material()
    losses = prior.losses(codes, x, mask, told)
    losses["nll"].backward()
    for key, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    for _ in range(15):
        optimizer.zero_grad()
        loss = prior.losses(codes, x, mask, told)["nll"]
        loss.backward()
        optimizer.step()
    assert loss < 0.8 * losses["nll"]


@pytest.mark.parametrize("name", VARIANTS)
def test_codes_are_not_heard_before_their_time(name: str) -> None:
    """The score of code t hears codes before t and, if it hears rows, rows up to x_t."""
    prior, (codes, x, _, told) = prior_of(**VARIANTS[name]), material()
    wanted, t = logits_of(prior, codes, x, told), 5
    later = codes.clone()
    later[:, t:] = (later[:, t:] + 1) % CODES
    torch.testing.assert_close(logits_of(prior, later, x, told)[:, : t + 1], wanted[:, : t + 1], **CLOSE)
    assert not torch.allclose(logits_of(prior, later, x, told)[:, t + 1], wanted[:, t + 1], atol=1e-3)
    rows = x.clone()
    rows[:, t:, 3] = (rows[:, t:, 3] + 1) % 4
    heard = logits_of(prior, codes, rows, told)
    torch.testing.assert_close(heard[:, :t], wanted[:, :t], **CLOSE)
    assert torch.allclose(heard[:, t], wanted[:, t], atol=1e-5) == (prior.config.context == "codes")


def test_padding_changes_nothing() -> None:
    prior, (codes, x, mask, told) = prior_of(), material()
    wanted = prior.losses(codes, x, mask, told)
    codes, x = codes.clone(), x.clone()
    codes[mask == 0], x[mask == 0] = 7, 2
    for key, loss in prior.losses(codes, x, mask, told).items():
        torch.testing.assert_close(loss, wanted[key], **CLOSE)


def test_emotion_comes_by_the_prefix_or_by_every_row() -> None:
    codes, x, mask, told = material()
    calm = replace(told, va=torch.zeros_like(told.va))
    other = x.clone()
    other[:, 0, EMOTION] = (other[:, 0, EMOTION] + 1) % EMOTION_TOKENS
    for mode in ("token", "rows"):
        prior = prior_of(context="codes", conditioning=mode)
        wanted = prior.losses(codes, x, mask, told)["nll"]
        assert torch.equal(prior.losses(codes, x, mask, calm)["nll"], wanted) == (mode == "token")
        assert not torch.equal(prior.losses(codes, other, mask, told)["nll"], wanted)


def test_codes_and_emotions_share_one_vocabulary() -> None:
    prior, (_, x, _, _) = prior_of(), material()
    x[:, 0, EMOTION] = torch.tensor([0, 1, 4])
    assert prior.first_token(x[:, 0]).tolist() == [CODES, CODES + 1, CODES + 4]
    assert prior.embedding.num_embeddings == CODES + EMOTION_TOKENS
    assert prior.head.weight.shape[0] == CODES  # emotions are heard, never said


def test_scores_are_divided_by_the_temperature() -> None:
    codes, x, mask, told = material()
    sharp, flat = (prior_of(temperature=temperature) for temperature in (0.3, 1e6))
    flat.load_state_dict(sharp.state_dict())
    assert flat.losses(codes, x, mask, told)["nll"].item() == pytest.approx(
        torch.tensor(float(CODES)).log().item(), abs=1e-3
    )
    assert sharp.losses(codes, x, mask, told)["nll"].item() > 1.001 * torch.tensor(float(CODES)).log().item()
