"""Layers: three equal forms of linear attention, masks, independent groups, vector quantisation by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affgen.layers import (
    EPSILON,
    Block,
    Linear,
    Stack,
    State,
    VectorQuantize,
    causal_chunked,
    causal_parallel,
    causal_step,
    empty_state,
    feature_map,
    full_attention,
    sinusoids,
)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def heads(rows: int = 70, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (2, 3, rows, 5)."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, rows, 5, generator=generator) for _ in range(3))
    return q, k, v


def one_by_one(q: Tensor, k: Tensor, v: Tensor, state: State) -> tuple[Tensor, State]:
    outputs = []
    for row in range(q.shape[2]):
        output, state = causal_step(q[:, :, row], k[:, :, row], v[:, :, row], state)
        outputs.append(output)
    return torch.stack(outputs, dim=2), state


def test_feature_map_is_the_published_one() -> None:
    x = torch.tensor([-3.0, 0.0, 2.0])
    torch.testing.assert_close(feature_map(x), torch.tensor([math.exp(-3), 1.0, 3.0]))


def test_full_attention_is_a_weighted_mean() -> None:
    """Every output row against the definition, one query and one key at a time."""
    (q, k, v), (b, h, t) = heads(6), (1, 2, 4)
    q = q[:, :, :5]  # fewer queries than keys
    weights = [sum(map(float, feature_map(q[b, h, t]) * feature_map(k[b, h, j]))) for j in range(6)]
    wanted = sum(w * v[b, h, j] for j, w in enumerate(weights)) / (sum(weights) + EPSILON)
    heard = full_attention(q, k, v)
    assert heard.shape == (2, 3, 5, 5)
    torch.testing.assert_close(heard[b, h, t], wanted, **CLOSE)


def test_full_attention_masks_keys() -> None:
    q, k, v = heads(9)
    mask = torch.ones(2, 9)
    mask[1, 6:] = 0
    heard = full_attention(q, k, v, mask)
    torch.testing.assert_close(heard[:1], full_attention(q, k, v)[:1], **CLOSE)
    torch.testing.assert_close(heard[1:], full_attention(q[1:], k[1:, :, :6], v[1:, :, :6]), **CLOSE)


def test_causal_parallel_is_full_attention_over_the_past() -> None:
    q, k, v = heads(8)
    for row in (0, 3, 7):
        past = slice(0, row + 1)
        wanted = full_attention(q[:, :, row : row + 1], k[:, :, past], v[:, :, past])[:, :, 0]
        torch.testing.assert_close(causal_parallel(q, k, v)[:, :, row], wanted, **CLOSE)


@pytest.mark.parametrize("rows", [1, 63, 64, 70, 129])
@pytest.mark.parametrize("chunk", [1, 7, 64, 500])
def test_parallel_chunked_and_recurrent_agree(rows: int, chunk: int) -> None:
    q, k, v = heads(rows, seed=rows)
    wanted = causal_parallel(q, k, v)
    chunked, state = causal_chunked(q, k, v, chunk)
    stepped, last = one_by_one(q, k, v, empty_state(q))
    torch.testing.assert_close(chunked, wanted, **CLOSE)
    torch.testing.assert_close(stepped, wanted, **CLOSE)
    for mine, other in zip(state, last, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


def test_a_state_goes_on_where_the_rows_stopped() -> None:
    q, k, v = heads(40)
    wanted = causal_parallel(q, k, v)
    begun, state = causal_chunked(q[:, :, :17], k[:, :, :17], v[:, :, :17], 8)
    chunked, _ = causal_chunked(q[:, :, 17:], k[:, :, 17:], v[:, :, 17:], 8, state)
    stepped, _ = one_by_one(q[:, :, 17:], k[:, :, 17:], v[:, :, 17:], state)
    torch.testing.assert_close(torch.cat([begun, chunked], dim=2), wanted, **CLOSE)
    torch.testing.assert_close(stepped, wanted[:, :, 17:], **CLOSE)


def test_gradients_of_the_forms_agree() -> None:
    grads = []
    for form in (
        causal_parallel,
        lambda *qkv: causal_chunked(*qkv, 5)[0],
        lambda *qkv: one_by_one(*qkv, empty_state(qkv[0]))[0],
    ):
        qkv = [x[:, :, :12].clone().requires_grad_() for x in heads(12)]
        form(*qkv).square().sum().backward()
        grads.append([x.grad for x in qkv])
    for other in grads[1:]:
        for mine, theirs in zip(grads[0], other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_linear_groups_are_independent_maps() -> None:
    layer = Linear(4, 3, groups=2)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 6, 4)
    for group in range(2):
        wanted = x[group] @ layer.weight[group].T + layer.bias[group]
        torch.testing.assert_close(layer(x)[group], wanted, **CLOSE)


def scattered(module: torch.nn.Module) -> torch.nn.Module:
    """The module with all parameters random, biases and scales too."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


@pytest.mark.parametrize("cross", [False, True])
def test_stack_groups_equal_independent_networks(cross: bool) -> None:
    torch.manual_seed(3)
    together = scattered(Stack(8, 2, 2, 16, 0.0, groups=3, cross=cross))
    x, memory = torch.randn(3, 2, 11, 8), torch.randn(3, 2, 5, 8) if cross else None
    heard = together(x, causal=True, memory=memory)
    _, states = together.prime(x, memory=memory)
    for group in range(3):
        alone = Stack(8, 2, 2, 16, 0.0, cross=cross)
        alone.load_state_dict({name: value[group] for name, value in together.state_dict().items()})
        part = None if memory is None else memory[group]
        torch.testing.assert_close(heard[group], alone(x[group], causal=True, memory=part), **CLOSE)
        _, wanted = alone.prime(x[group], memory=part)
        for mine, other in zip(states, wanted, strict=True):
            torch.testing.assert_close(mine[0].view(3, 2, *mine[0].shape[1:])[group], other[0], **CLOSE)
            torch.testing.assert_close(mine[1].view(3, 2, *mine[1].shape[1:])[group], other[1], **CLOSE)


def test_padding_does_not_change_valid_rows() -> None:
    torch.manual_seed(4)
    stack = scattered(Stack(8, 2, 2, 16, 0.0))
    short = torch.randn(1, 6, 8)
    padded = torch.cat([short, 100 * torch.randn(1, 4, 8)], dim=1)
    mask = torch.tensor([[1.0] * 6 + [0.0] * 4])
    torch.testing.assert_close(stack(padded, causal=False, mask=mask)[:, :6], stack(short, causal=False), **CLOSE)
    assert not torch.allclose(stack(padded, causal=False)[:, :6], stack(short, causal=False), atol=1e-3)
    torch.testing.assert_close(stack(padded, causal=True)[:, :6], stack(short, causal=True), **CLOSE)


def test_block_hears_only_the_unmasked_memory_and_context_sums_it() -> None:
    torch.manual_seed(5)
    block = scattered(Block(8, 2, 16, 0.0, cross=True))
    x, memory = torch.randn(2, 4, 8), torch.randn(2, 7, 8)
    mask = torch.ones(2, 7)
    mask[:, 5:] = 0
    heard = block(x, causal=True, memory=memory, memory_mask=mask)
    torch.testing.assert_close(heard, block(x, causal=True, memory=memory[:, :5]), **CLOSE)
    assert not torch.allclose(heard, block(x, causal=True, memory=memory), atol=1e-3)
    for mine, other in zip(block.context(memory, mask), block.context(memory[:, :5]), strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)
    k, v = (layer(memory).view(2, 7, 2, 4).transpose(1, 2) for layer in block.cross_qkv[1:])
    torch.testing.assert_close(block.context(memory)[0], feature_map(k).transpose(-1, -2) @ v, **CLOSE)
    torch.testing.assert_close(block.context(memory)[1], feature_map(k).sum(dim=2), **CLOSE)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(6)
    stack, x = Stack(8, 1, 2, 16, 0.5), torch.randn(1, 5, 8)
    assert not torch.equal(stack(x, causal=True), stack(x, causal=True))
    stack.eval()
    assert torch.equal(stack(x, causal=True), stack(x, causal=True))


# ------------------------------------------------------------------------------------------- vector quantisation


def quantiser(codes: list[list[float]], **settings: float) -> VectorQuantize:
    table = torch.tensor(codes)
    quantise = VectorQuantize(*table.shape, **settings)
    quantise.codebook.copy_(table)
    quantise.sums.copy_(table)
    return quantise


def test_nearest_code_wins() -> None:
    torch.manual_seed(7)
    quantise, x = VectorQuantize(20, 3), torch.randn(4, 9, 3)
    wanted = ((x.unsqueeze(-2) - quantise.codebook) ** 2).sum(dim=-1).argmin(dim=-1)
    assert torch.equal(quantise.nearest(x), wanted)
    codes, ids, _ = quantise.eval()(x, torch.ones(4, 9))
    assert torch.equal(ids, wanted)
    torch.testing.assert_close(codes, quantise.codebook[wanted])


def test_gradients_pass_straight_through() -> None:
    quantise = VectorQuantize(6, 2).eval()
    x = torch.randn(1, 5, 2, requires_grad=True)
    slope = torch.randn(1, 5, 2)
    codes, _, _ = quantise(x, torch.ones(1, 5))
    (codes * slope).sum().backward()
    torch.testing.assert_close(x.grad, slope)


def test_commitment_pulls_valid_rows_to_their_codes() -> None:
    quantise = quantiser([[0.0, 0.0], [10.0, 10.0]]).eval()
    x = torch.tensor([[[1.0, 2.0], [9.0, 10.0], [500.0, 0.0]]], requires_grad=True)
    _, ids, loss = quantise(x, torch.tensor([[1.0, 1.0, 0.0]]))
    assert ids.tolist()[0][:2] == [0, 1]
    assert loss.item() == pytest.approx(((1 + 4) / 2 + 1 / 2) / 2)
    loss.backward()
    torch.testing.assert_close(x.grad, torch.tensor([[[0.5, 1.0], [-0.5, 0.0], [0.0, 0.0]]]))
    assert quantise(x, torch.zeros(1, 3))[2].item() == 0.0


def test_moving_averages_by_hand() -> None:
    """One step of van den Oord et al. (2017), appendix A.1; the masked row counts for nothing."""
    quantise = quantiser([[0.0, 0.0], [10.0, 10.0]], decay=0.9)
    x = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [9.0, 8.0], [-50.0, 0.0]]])
    quantise(x, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    counts = torch.tensor([0.9 * 1 + 0.1 * 2, 0.9 * 1 + 0.1 * 1])
    sums = torch.tensor([[0.1 * 4, 0.1 * 2], [0.9 * 10 + 0.1 * 9, 0.9 * 10 + 0.1 * 8]])
    torch.testing.assert_close(quantise.counts, counts)
    torch.testing.assert_close(quantise.sums, sums)
    torch.testing.assert_close(quantise.codebook, sums / counts.unsqueeze(1), rtol=1e-4, atol=1e-4)


def test_codes_are_learned_in_training_only() -> None:
    quantise = VectorQuantize(8, 3, restart_below=5.0).eval()
    before = {name: value.clone() for name, value in quantise.state_dict().items()}
    quantise(torch.randn(2, 6, 3), torch.ones(2, 6))
    assert all(torch.equal(value, before[name]) for name, value in quantise.state_dict().items())
    quantise.train()
    quantise(torch.randn(2, 6, 3), torch.ones(2, 6))
    assert not torch.equal(quantise.codebook, before["codebook"])
    assert not list(quantise.parameters())


def test_moving_averages_find_the_means_of_clusters() -> None:
    torch.manual_seed(8)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]])
    quantise = quantiser([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], decay=0.8)
    for _ in range(60):
        quantise(centres[torch.randint(3, (1, 64))] + 0.1 * torch.randn(1, 64, 2), torch.ones(1, 64))
    torch.testing.assert_close(quantise.codebook, centres, rtol=0, atol=0.1)


def test_dead_codes_are_drawn_anew_from_valid_rows() -> None:
    quantise = quantiser([[0.0, 0.0], [900.0, 900.0], [-900.0, 0.0]], decay=0.1, restart_below=0.5)
    x = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [77.0, 77.0]]])
    quantise(x, torch.tensor([[1.0, 1.0, 0.0]]))
    drawn = {tuple(code) for code in quantise.codebook[1:].tolist()}
    assert drawn <= {(1.0, 2.0), (3.0, -1.0)}
    assert (quantise.counts[1:] == 1.0).all()  # twice the threshold: time to find users
    torch.testing.assert_close(quantise.sums[1:], quantise.codebook[1:])
    torch.testing.assert_close(quantise.codebook[0], torch.tensor([2.0, 0.5]), rtol=0.01, atol=0.1)  # in use: learned


def test_dead_codes_stay_without_a_threshold_or_without_rows() -> None:
    kept = quantiser([[0.0, 0.0], [900.0, 900.0]], decay=0.5)
    kept(torch.ones(1, 4, 2), torch.ones(1, 4))
    torch.testing.assert_close(kept.codebook[1], torch.tensor([900.0, 900.0]), rtol=1e-3, atol=0)
    empty = quantiser([[0.0, 0.0], [9.0, 9.0]], decay=0.1, restart_below=0.5)
    empty(torch.ones(1, 4, 2), torch.zeros(1, 4))
    assert empty.codebook.isfinite().all()


def test_perplexity_counts_codes_in_use() -> None:
    quantise = VectorQuantize(8, 2)
    assert quantise.perplexity().item() == pytest.approx(8.0, rel=1e-5)
    quantise.counts.copy_(torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0]))
    assert quantise.perplexity().item() == pytest.approx(1.0, abs=1e-5)
    quantise.counts.copy_(torch.tensor([5.0, 5.0, 5.0, 5.0, 0, 0, 0, 0]))
    assert quantise.perplexity().item() == pytest.approx(4.0, rel=1e-5)


def test_sinusoids_are_those_of_vaswani() -> None:
    table = sinusoids(torch.arange(50), 6)
    assert table.shape == (50, 6)
    for position in (0, 1, 49):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert torch.equal(sinusoids(torch.tensor([[3, 7]]), 5)[0, 1], sinusoids(torch.arange(8), 5)[7])
