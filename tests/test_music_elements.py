"""The split of the latent, its reduction to one value per row, and the regulariser against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from music.elements import Reduction, order_loss, split


def naive_order_loss(reduced: Tensor, rows: Tensor, mask: Tensor, delta: float = 1.0) -> float:
    """The definition: over elements, rows and ordered pairs of different pieces, one at a time."""
    total, pairs = 0.0, 0
    _, pieces, length = reduced.shape
    for j in range(pieces):
        for k in range(pieces):
            for t in range(length):
                if j == k or not (mask[j, t] and mask[k, t]):
                    continue
                pairs += 1
                for element in range(7):
                    latent = math.tanh(delta * float(reduced[element, j, t] - reduced[element, k, t]))
                    token = int(rows[j, t, element]) - int(rows[k, t, element])
                    total += abs(latent - (token > 0) + (token < 0))
    return total / max(pairs, 1)


def example(*, pieces: int = 4, length: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Reduced latents (7, B, T), rows (B, T, 8) with many ties, mask (B, T) of pieces of different length."""
    generator = torch.Generator().manual_seed(seed)
    reduced = torch.randn(7, pieces, length, generator=generator)
    rows = torch.randint(0, 4, (pieces, length, 8), generator=generator)
    mask = (torch.arange(length) < torch.tensor([length, length - 1, 3, 1])[:pieces, None]).float()
    return reduced, rows, mask


def test_split_gives_each_element_its_sixteen_values() -> None:
    latent = torch.arange(2 * 3 * 112.0).view(2, 3, 112)
    parts = split(latent)
    assert parts.shape == (7, 2, 3, 16)
    for element in range(7):
        assert torch.equal(parts[element], latent[..., 16 * element : 16 * (element + 1)])


@pytest.mark.parametrize("delta", [1.0, 10.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_order_loss_is_its_definition(seed: int, delta: float) -> None:
    reduced, rows, mask = example(seed=seed)
    assert order_loss(reduced, rows, mask, delta=delta).item() == pytest.approx(
        naive_order_loss(reduced, rows, mask, delta), rel=1e-5
    )


def test_masked_rows_do_not_matter() -> None:
    reduced, rows, mask = example()
    wanted = order_loss(reduced, rows, mask)
    hidden = mask == 0
    reduced[:, hidden], rows[hidden] = 99.0, 3
    assert torch.equal(order_loss(reduced, rows, mask), wanted)
    padded = [torch.cat([x, x.new_zeros(*x.shape[:-2], 5, x.shape[-1])], dim=-2) for x in (rows.float(),)]
    longer = order_loss(torch.nn.functional.pad(reduced, (0, 5)), padded[0], torch.nn.functional.pad(mask, (0, 5)))
    torch.testing.assert_close(longer, wanted)


def test_the_emotion_column_does_not_matter() -> None:
    reduced, rows, mask = example()
    wanted = order_loss(reduced, rows, mask)
    rows[..., 7] = torch.randint(0, 5, rows.shape[:2])
    assert torch.equal(order_loss(reduced, rows, mask), wanted)


def test_zero_where_the_orders_agree_and_fourteen_where_they_are_opposite() -> None:
    rows = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(k)) for k in range(48)]).T.reshape(
        5, 6, 8
    )
    mask = torch.ones(5, 6)
    strong = 50.0 * rows[..., :7].permute(2, 0, 1)
    assert order_loss(strong, rows, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert order_loss(-strong, rows, mask).item() == pytest.approx(14.0, abs=1e-5)
    assert order_loss(torch.zeros(7, 5, 6), rows, mask).item() == pytest.approx(7.0, abs=1e-5)


def test_ties_want_equal_latents() -> None:
    rows, mask = torch.ones(3, 4, 8, dtype=torch.long), torch.ones(3, 4)
    assert order_loss(torch.full((7, 3, 4), 2.5), rows, mask).item() == 0.0
    assert order_loss(torch.randn(7, 3, 4), rows, mask).item() > 0.1


@pytest.mark.parametrize("case", ["usual", "ties", "one piece", "all masked", "saturated"])
def test_gradients_are_finite(case: str) -> None:
    reduced, rows, mask = example(pieces=1 if case == "one piece" else 4)
    reduced = {"ties": torch.zeros_like(reduced), "saturated": 1e4 * reduced}.get(case, reduced).requires_grad_()
    mask = torch.zeros_like(mask) if case == "all masked" else mask
    loss = order_loss(reduced, rows, mask)
    loss.backward()
    assert loss.isfinite() and reduced.grad is not None and reduced.grad.isfinite().all()
    if case == "usual":
        assert (reduced.grad[:, mask == 0] == 0).all() and (reduced.grad[:, mask == 1] != 0).any()
    if case in ("one piece", "all masked"):
        assert loss.item() == 0.0


def test_a_step_along_the_gradient_brings_the_orders_together() -> None:
    reduced, rows, mask = example()
    reduced.requires_grad_()
    before = order_loss(reduced, rows, mask)
    before.backward()
    assert order_loss(reduced - 0.1 * reduced.grad, rows, mask) < before


def test_mean_reduction_is_the_mean_of_each_part() -> None:
    latent = torch.randn(2, 5, 28)
    reduced = Reduction("mean", 64)(latent)
    assert reduced.shape == (7, 2, 5)
    torch.testing.assert_close(reduced[3], latent[..., 12:16].mean(dim=-1))


def test_trans_reduction_keeps_the_first_token_of_each_element() -> None:
    """By hand: the values of a piece are tokens whose channels are its rows."""
    torch.manual_seed(0)
    reduction = Reduction("trans", 8).eval()
    latent = torch.randn(2, 8, 28)
    reduced = reduction(latent)
    assert reduced.shape == (7, 2, 8)
    tokens = latent[1, :, 4:8].T.unsqueeze(0)  # element 1 of piece 1: (1, D, T)
    torch.testing.assert_close(reduced[1, 1], reduction.stack(tokens, causal=False)[0, 0], rtol=1e-4, atol=1e-5)


def test_trans_reduction_takes_shorter_pieces_as_if_padded() -> None:
    torch.manual_seed(0)
    reduction, latent = Reduction("trans", 8).eval(), torch.randn(2, 5, 28)
    padded = torch.nn.functional.pad(latent, (0, 0, 0, 3))
    assert reduction(latent).shape == (7, 2, 5)
    torch.testing.assert_close(reduction(latent), reduction(padded)[..., :5])


def test_reductions_pass_gradients() -> None:
    for mode in ("mean", "trans"):
        latent = torch.randn(3, 8, 28, requires_grad=True)
        order_loss(Reduction(mode, 8)(latent), torch.randint(0, 4, (3, 8, 8)), torch.ones(3, 8)).backward()
        assert latent.grad.isfinite().all() and (latent.grad != 0).any()
