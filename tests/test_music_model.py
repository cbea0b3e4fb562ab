"""MusER as a network: published sizes, every ablation, losses against their definition, nothing heard too early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from affgen.testing import fabricated_score
from music.beats import grid_of
from music.config import ELEMENTS, MINIATURE, PUBLISHED, MusicConfig, with_model
from music.data import Example, collate
from music.model import Batch, MusER
from music.tokens import EMOTION, TYPE
from music.train import build

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
ABLATIONS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "ca": {"fusion": "ca"},
    "global only": {"decoder": "G"},
    "elements only": {"decoder": "E"},
    "ca, global only": {"fusion": "ca", "decoder": "G"},
    "ca, elements only": {"fusion": "ca", "decoder": "E"},
    "trans": {"reduction": "trans"},
    "no regulariser": {"reduction": "none"},
    "encoded latents": {"regularise": "encoded"},
    "plain auto-encoder": {"bottleneck": "none"},
    "token": {"conditioning": "token"},
    "no positions": {"positions": False},
    "one width": {"element_dim": 16},
}


def batch_of(config: MusicConfig, pieces: int = 4, *, bars: int = 2) -> Batch:
    """Made-up pieces of different length, one per quadrant in turn."""
    quadrants = [f"Q{1 + k % 4}" for k in range(pieces)]
    grids = [grid_of(fabricated_score(k, bars=bars, quadrant=quadrant)) for k, quadrant in enumerate(quadrants)]
    return collate([Example(f"piece{k}", grid, 1 + k % 4, 1 + k, 0) for k, grid in enumerate(grids)], config)


def model_of(config: MusicConfig, seed: int = 0) -> MusER:
    torch.manual_seed(seed)
    return MusER(config.model, config.tokens).eval()


def count(module: torch.nn.Module, without: str = "-") -> int:
    return sum(p.numel() for name, p in module.named_parameters() if not name.startswith(without))


def test_published_sizes() -> None:
    """68.07 M parameters with the dimension reduction, 17.7 M without; the prior at the published 300 codes."""
    with torch.device("meta"):
        model, _ = build(PUBLISHED)
        _, prior = build(with_model(PUBLISHED, codes=300))
        plain, _ = build(with_model(PUBLISHED, reduction="none"))
    assert count(model) == 68_070_360
    assert count(model, without="reduction.") == count(plain) == 17_683_416
    assert count(prior) == 6_539_564


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_one_value_and_trains(name: str) -> None:
    config = with_model(MINIATURE, **ABLATIONS[name])
    model = model_of(config).train()
    weights, losses = model.loss_weights(), model.losses(batch_of(config))
    assert set(losses) == set(weights)
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    assert ("reg" in losses) == (name != "no regulariser")
    assert (losses["vq"].item() > 0) == (name != "plain auto-encoder")
    sum(weights[key] * loss for key, loss in losses.items()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} is never used"
        assert parameter.grad.isfinite().all(), key
        assert (parameter.grad != 0).any() or "qkv.1.bias" in key, key


def test_ablations_differ() -> None:
    """No value is read as another one: every one has its own parameters or its own losses.

    But for the fusion where there is no global decoder to fuse with.
    """
    seen = set()
    different = {name: changes for name, changes in ABLATIONS.items() if name != "ca, elements only"}
    for changes in different.values():
        config = with_model(MINIATURE, **changes)
        model = model_of(config)
        losses = model.losses(batch_of(config))
        seen.add((count(model), *(round(losses[key].item(), 5) for key in sorted(losses))))
    assert len(seen) == len(different)


def test_losses_are_their_definition() -> None:
    model, batch = model_of(MINIATURE), batch_of(MINIATURE)
    losses = model.losses(batch)
    encoded = model.encode(batch.y, batch.mask)
    latent, ids, commitment = model.quantise(encoded, batch.mask)
    logits = model.logits(model.hidden(batch.x, latent, batch.mask, batch.conditions), batch.y[..., TYPE])
    assert [scores.shape[-1] for scores in logits] == list(MINIATURE.tokens.sizes()[:7])
    for column, element in enumerate(ELEMENTS):
        each = []
        for piece in range(4):
            rows = batch.mask[piece] == 1
            each.append(F.cross_entropy(logits[column][piece, rows], batch.y[piece, rows, column]))
        torch.testing.assert_close(losses[f"nll_{element}"], torch.stack(each).mean(), **CLOSE)
    parts = torch.stack([losses[f"nll_{element}"] for element in ELEMENTS])
    torch.testing.assert_close(losses["nll"], parts.mean(), **CLOSE)
    torch.testing.assert_close(losses["vq"], 0.25 * commitment)
    assert torch.equal(ids, model.codes(batch.y, batch.mask))
    assert model.loss_weights() == {f"nll_{e}": 0.0 for e in ELEMENTS} | {"nll": 1.0, "vq": 1.0, "reg": 0.1}


def test_an_untrained_model_knows_about_nothing() -> None:
    losses = model_of(MINIATURE).losses(batch_of(MINIATURE))
    for element, size in zip(ELEMENTS, MINIATURE.tokens.sizes(), strict=False):
        assert losses[f"nll_{element}"].item() == pytest.approx(torch.tensor(float(size)).log().item(), abs=2.0)


@pytest.mark.parametrize("name", ["as shipped", "ca", "global only", "elements only", "token"])
def test_padding_changes_no_loss(name: str) -> None:
    config = with_model(MINIATURE, **ABLATIONS[name])
    model, batch = model_of(config), batch_of(config)
    filler = torch.randint(0, 4, (4, 6, 8))
    padded = Batch(
        torch.cat([batch.x, filler], dim=1),
        torch.cat([batch.y, filler], dim=1),
        F.pad(batch.mask, (0, 6)),
        batch.conditions.map(lambda t: torch.cat([t, t[:, -1:].expand(-1, 6, *t.shape[2:])], dim=1)),
        batch.names,
    )
    losses, others = model.losses(batch), model.losses(padded)
    for key in losses:
        torch.testing.assert_close(losses[key], others[key], **CLOSE)


def test_a_piece_is_not_changed_by_its_neighbours() -> None:
    for changes in ({}, {"fusion": "ca"}):
        config = with_model(MINIATURE, **changes)
        model, batch = model_of(config), batch_of(config)
        each = []
        for k in range(4):
            n = int(batch.mask[k].sum())
            told = batch.conditions.map(lambda t, k=k, n=n: t[k : k + 1, :n])
            each.append(
                model.losses(Batch(*(t[k : k + 1, :n] for t in (batch.x, batch.y, batch.mask)), told, ["alone"]))["nll"]
            )
        torch.testing.assert_close(model.losses(batch)["nll"], torch.stack(each).mean(), **CLOSE)


@pytest.mark.parametrize("name", ["as shipped", "ca", "global only", "elements only", "ca, elements only"])
def test_no_row_is_heard_before_its_time(name: str) -> None:
    """Rows after t change nothing up to t; latents after t neither, but for ``ca``, which attends to them all."""
    config = with_model(MINIATURE, **ABLATIONS[name])
    model, batch, t = model_of(config), batch_of(config), 11
    latent = torch.randn(*batch.mask.shape, config.model.latent)
    mask = torch.ones_like(batch.mask)
    wanted = model.hidden(batch.x, latent, mask, batch.conditions)
    later, later_latent = batch.x.clone(), latent.clone()
    later[:, t:] = torch.randint(0, 4, later[:, t:].shape)
    later_latent[:, t:] += 1.0
    heard = model.hidden(later, latent, mask, batch.conditions)
    torch.testing.assert_close(heard[:, :, :t], wanted[:, :, :t], **CLOSE)
    assert not torch.allclose(heard[:, :, t:], wanted[:, :, t:], atol=1e-3)
    heard = model.hidden(batch.x, later_latent, mask, batch.conditions)
    assert torch.allclose(heard[:, :, :t], wanted[:, :, :t], atol=1e-5) == (name != "ca")
    assert not torch.allclose(heard[:, :, t:], wanted[:, :, t:], atol=1e-3)


def test_each_element_decoder_hears_its_own_part_of_the_latent() -> None:
    config = with_model(MINIATURE, decoder="E")
    model, batch = model_of(config), batch_of(config)
    latent = torch.randn(*batch.mask.shape, config.model.latent)
    wanted = model.hidden(batch.x, latent, batch.mask, batch.conditions)
    part = config.model.latent // 7
    for element in (0, 4, 6):
        other = latent.clone()
        other[..., element * part : (element + 1) * part] += 1.0
        changed = [
            not torch.allclose(a, b)
            for a, b in zip(model.hidden(batch.x, other, batch.mask, batch.conditions), wanted, strict=True)
        ]
        assert changed == [index == element for index in range(7)]


def test_the_encoder_does_not_see_the_emotion() -> None:
    model, batch = model_of(MINIATURE), batch_of(MINIATURE)
    wanted, rows = model.encode(batch.y, batch.mask), batch.y.clone()
    rows[..., EMOTION] = 3
    assert torch.equal(model.encode(rows, batch.mask), wanted)
    rows[..., TYPE] = 1
    assert not torch.equal(model.encode(rows, batch.mask), wanted)


def test_all_but_the_type_are_given_the_type() -> None:
    model, batch = model_of(MINIATURE), batch_of(MINIATURE)
    hidden = torch.randn(7, 2, 5, MINIATURE.model.element_dim)
    one, two = (model.logits(hidden, torch.full((2, 5), kind)) for kind in (2, 3))
    assert [torch.equal(a, b) for a, b in zip(one, two, strict=True)] == [index == TYPE for index in range(7)]
    assert torch.equal(one[TYPE], model.type_logits(hidden))
    assert torch.equal(one[4], model.head(4, hidden[4], torch.full((2, 5), 2)))
    assert batch.x.shape[-1] == 8


def test_emotion_comes_by_the_first_row_or_by_every_row() -> None:
    for mode in ("token", "rows"):
        config = with_model(MINIATURE, conditioning=mode)
        model, batch = model_of(config), batch_of(config)
        latent = torch.randn(*batch.mask.shape, config.model.latent)
        wanted = model.hidden(batch.x, latent, batch.mask, batch.conditions)
        for field in ("va", "key", "left", "place"):
            told = replace(batch.conditions, **{field: torch.zeros_like(getattr(batch.conditions, field))})
            same = torch.equal(model.hidden(batch.x, latent, batch.mask, told), wanted)
            assert same == (mode == "token"), (mode, field)
        assert (batch.x[:, 0, EMOTION] != 0).all() == (mode == "token")


def test_the_regulariser_sees_what_it_is_told_to_and_reaches_the_encoder() -> None:
    losses = {}
    for seen in ("quantised", "encoded"):
        config = with_model(MINIATURE, regularise=seen)
        model = model_of(config)
        loss = model.losses(batch_of(config))["reg"]
        loss.backward()
        assert (model.encoder_in.weight.grad != 0).any()
        losses[seen] = loss.item()
    assert losses["quantised"] != pytest.approx(losses["encoded"], abs=1e-6)


def test_codes_are_learned_by_losses_in_training_only() -> None:
    model, batch = model_of(MINIATURE), batch_of(MINIATURE)
    before = model.quantise.codebook.clone()
    model.losses(batch)
    assert torch.equal(model.quantise.codebook, before)
    model.train().losses(batch)
    assert not torch.equal(model.quantise.codebook, before)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"latent": 30}, "multiple of 7"),
        ({"embeddings": (4,) * 7}, "8 widths"),
        ({"heads": 3}, "model.dim"),
        ({"dim": 0}, "model.dim"),
    ],
)
def test_sizes_that_fit_no_model_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        with_model(MINIATURE, **change)
