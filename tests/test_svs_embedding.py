"""The joint embedding: exact at 0, linear, conditional on the phoneme, shared between singers; and its ablation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from svs.config import MINIATURE
from svs.embedding import AdditiveEmbedding, UnifiedJointEmbedding

WIDTH, PHONEMES = MINIATURE.blocks.width, 7
BOTH = (UnifiedJointEmbedding, AdditiveEmbedding)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def h0(rows: int = 3) -> Tensor:
    return torch.randn(rows, PHONEMES, WIDTH)


SINGER, EMOTION, NEUTRAL = torch.tensor([0, 1, 1]), torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.int64)


def bits(x: Tensor) -> bytes:
    return x.detach().numpy().tobytes()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("shape", [(3,), (3, PHONEMES)])
def test_intensity_0_is_neutral_to_the_bit(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    net, h = kind(MINIATURE), h0()
    nothing = net(h, SINGER, EMOTION, torch.zeros(shape))
    for intensity in (0.0, 0.7, 1.5):
        assert bits(nothing) == bits(net(h, SINGER, NEUTRAL, torch.full(shape, intensity)))
    assert not torch.allclose(nothing, net(h, SINGER, EMOTION, torch.ones(shape)), atol=1e-3)


@pytest.mark.parametrize("kind", BOTH)
def test_it_is_linear_between_and_beyond_the_trained_levels(kind: type[nn.Module]) -> None:
    net, h = kind(MINIATURE).double(), h0().double()
    none, full = (net(h, SINGER, EMOTION, torch.full((3,), level).double()) for level in (0.0, 1.0))
    for level in (0.25, 0.75, 1.5, 4.0):
        made = net(h, SINGER, EMOTION, torch.full((3,), level).double())
        assert torch.allclose(made, none + level * (full - none), atol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_phonemes_may_have_intensities_of_their_own(kind: type[nn.Module]) -> None:
    net, h = kind(MINIATURE), h0()
    curve = torch.linspace(0, 1.2, PHONEMES).expand(3, -1)
    made = net(h, SINGER, EMOTION, curve)
    for n in range(PHONEMES):
        assert torch.allclose(made[:, n], net(h, SINGER, EMOTION, curve[:, n])[:, n], atol=1e-6)


def test_what_an_emotion_adds_depends_on_the_phoneme_and_the_singer() -> None:
    joint, additive = UnifiedJointEmbedding(MINIATURE), AdditiveEmbedding(MINIATURE)
    h = h0(1).expand(2, -1, -1)
    singers, sad = torch.tensor([0, 1]), torch.tensor([2, 2])

    def added(net: nn.Module) -> Tensor:
        return net(h, singers, sad, torch.ones(2)) - net(h, singers, sad, torch.zeros(2))

    assert added(joint).std(dim=1).mean() > 1e-3 and (added(joint)[0] - added(joint)[1]).abs().max() > 1e-3
    assert added(additive).std(dim=1).max() < 1e-6
    assert torch.allclose(added(additive)[0], added(additive)[1], atol=1e-6)


def test_the_joint_table_is_made_of_its_factors() -> None:
    net = UnifiedJointEmbedding(MINIATURE)
    u, v = net.singers.weight[1], net.emotions.weight[2]
    expected = u + v + net.relation.weight @ (u * v)
    assert torch.allclose(net.joint(torch.tensor([1]), torch.tensor([2]))[0], expected, atol=1e-6)


def test_a_singer_without_emotional_data_borrows_the_emotion() -> None:
    """Only singer 0 is seen sad; the same law then holds for singer 1, who is seen neutral alone."""
    config = replace(MINIATURE, joint=replace(MINIATURE.joint, rank=8, hidden=32))
    net = UnifiedJointEmbedding(config)
    h, change = torch.randn(2, 32, WIDTH), torch.randn(WIDTH)
    singers, truth = torch.tensor([0, 1]), h + torch.randn(2, 1, WIDTH)
    sad, neutral = torch.tensor([2, 2]), torch.tensor([0, 0])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)

    def missed(rows: slice) -> Tensor:
        made = net(h, singers, sad, torch.ones(2)) - net(h, singers, neutral, torch.ones(2))
        return (made[rows] - change).square().mean()

    before = missed(slice(1, 2)).item()
    for _ in range(150):
        optimizer.zero_grad()
        seen = (net(h, singers, neutral, torch.ones(2)) - truth).square().mean() + missed(slice(0, 1))
        seen.backward()
        optimizer.step()
    assert missed(slice(0, 1)).item() < 0.05 * before
    assert missed(slice(1, 2)).item() < 0.5 * before


@pytest.mark.parametrize("kind", BOTH)
def test_all_weights_learn(kind: type[nn.Module]) -> None:
    net = kind(MINIATURE)
    net(h0(), SINGER, EMOTION, torch.ones(3)).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
