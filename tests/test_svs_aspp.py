"""The blocks: what they hear, that padding does not matter, how large they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from affgen.errors import AffgenError
from svs.aspp import ASPP, ASPPTransformerBlock, FeedForward, FFTBlock, Stack
from svs.config import MINIATURE, BlockConfig, MuseConfig, PredictorConfig

TINY = BlockConfig(width=16, branch=8, dilations=(1, 3), hidden=24, kernel=5, dropout=0.0)
PLACES = ("ffn", "parallel", "after")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def stack(kind: str, place: str = "ffn", layers: int = 2) -> Stack:
    return Stack(kind, replace(TINY, place=place), layers).eval()  # type: ignore[arg-type]


def mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("kind", "place"), [*(("aspp", place) for place in PLACES), ("fft", "ffn")])
def test_a_row_gives_the_same_alone_and_beside_longer_ones(kind: str, place: str) -> None:
    net = stack(kind, place)
    lengths = (3, 40, 17)
    x = 3 * torch.randn(3, 40, 16)  # what stands in the padding is no zeros
    together = net(x, mask(*lengths))
    for row, length in enumerate(lengths):
        alone = net(x[row : row + 1, :length], mask(length))
        assert (together[row, :length] - alone[0]).abs().max() <= 1e-5
        assert (together[row, length:] == 0).all()


@pytest.mark.parametrize("part", [ASPP, FeedForward])
def test_no_part_hears_the_padding(part: type[torch.nn.Module]) -> None:
    net = part(TINY)
    x = torch.randn(1, 12, 16)
    changed = x.clone()
    changed[:, 7:] = 99.0
    heard = mask(7, 12)[:1]
    assert torch.equal(net(x, heard)[:, :7], net(changed, heard)[:, :7])


def test_the_pyramid_hears_its_dilations_and_the_mean() -> None:
    net = ASPP(TINY)
    with torch.no_grad():
        net.average.weight.zero_()
    x = torch.randn(1, 31, 16, requires_grad=True)
    net(x, mask(31))[0, 15].sum().backward()
    assert x.grad is not None
    heard = x.grad.abs().sum(dim=2)[0].nonzero().flatten() - 15
    assert heard.tolist() == [-3, -1, 0, 1, 3]
    torch.nn.init.normal_(net.average.weight)
    x.grad = None
    net(x, mask(31))[0, 15].sum().backward()
    assert (x.grad.abs().sum(dim=2) > 0).all()


def test_the_mean_is_of_valid_frames() -> None:
    net = ASPP(replace(TINY, dilations=(1,)))
    with torch.no_grad():
        for layer in (net.point, *net.dilated):
            layer.weight.zero_()  # type: ignore[operator, union-attr]
    one = torch.randn(16)
    level = one.expand(1, 9, 16)
    long, short = net(level, mask(9)), net(level, mask(4, 9)[:1])
    assert torch.allclose(long[:, :4], short[:, :4], atol=1e-6)


def test_sizes_are_those_of_the_reference() -> None:
    """musesvs.md measured 5.52 M for six blocks and 17.32 M for six of FastSpeech: met to the parameter that four
    branches of three taps, one of one tap and the mean, 128 channels each, and a nine-tap feed-forward part imply.
    """
    config = BlockConfig()
    attention, norms = 4 * (256 * 256 + 256), 2 * 2 * 256
    pyramid = 2 * (256 * 128 + 128) + 4 * (3 * 256 * 128 + 128) + (6 * 128 * 256 + 256)
    feed_forward = (9 * 256 * 1024 + 1024) + (1024 * 256 + 256)
    assert parameters(ASPPTransformerBlock(config)) == attention + norms + pyramid == 920_576
    assert parameters(FFTBlock(config)) == attention + norms + feed_forward == 2_886_912
    aspp, fft = (parameters(Stack(kind, config, 6).blocks) for kind in ("aspp", "fft"))  # type: ignore[arg-type]
    assert (aspp, fft) == (5_523_456, 17_321_472)  # and 512 more for the normalisation after a stack


@pytest.mark.parametrize("place", PLACES)
def test_placements_differ_and_all_their_weights_learn(place: str) -> None:
    net = stack("aspp", place)
    net(torch.randn(2, 9, 16), mask(9, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in net.named_parameters() if "qkv" not in name)
    sizes = [parameters(stack("aspp", other)) for other in PLACES]
    assert len(set(sizes)) == 3 and sizes[0] < sizes[1] < sizes[2]


def test_rows_know_their_place() -> None:
    net = stack("aspp")
    same = torch.randn(16).expand(1, 20, 16)
    assert not torch.allclose(net(same, mask(20))[0, 8], net(same, mask(20))[0, 9], atol=1e-3)


def test_dropout_is_of_training_alone() -> None:
    net = Stack("aspp", replace(TINY, dropout=0.5), 1)
    x = torch.randn(1, 9, 16)
    assert not torch.equal(net(x, mask(9)), net(x, mask(9)))
    net.eval()
    assert torch.equal(net(x, mask(9)), net(x, mask(9)))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 18},
        {"kernel": 4},
        {"dilations": ()},
        {"dilations": (0,)},
        {"dropout": 1.0},
        {"place": "before"},
        {"hidden": 1 << 20},
    ],
)
def test_sizes_that_make_no_block_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(AffgenError, match="blocks:"):
        replace(BlockConfig(), **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block": "lstm"}, "aspp, fft"),
        ({"embedding": "sum"}, "residual, additive"),
        ({"pitch": "none"}, "statistical, deterministic"),
        ({"duration": "hmm"}, "boundary, plain"),
        ({"singers": ()}, "one or more"),
        ({"singers": ("a", "a")}, "each once"),
        ({"emotions": ("happy", "neutral")}, "neutral first"),
        ({"emotions": ("neutral", "hungry")}, "neutral first"),
        ({"decoder_layers": 0}, "sizes"),
    ],
)
def test_switches_that_mean_nothing_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(AffgenError, match=said):
        replace(MINIATURE, **change)  # type: ignore[arg-type]


def test_other_sections_refuse_too() -> None:
    for make, said in (
        (lambda: PredictorConfig(kernel=2), "odd"),
        (lambda: replace(MINIATURE.contours, vibrato_window=8), "odd"),
        (lambda: replace(MINIATURE.contours, sigma_floor=0.0), "sigma_floor"),
        (lambda: replace(MINIATURE.durations, bound_s=0.001), "bound_s"),
        (lambda: replace(MINIATURE.adversary, bands=((40, 90),)), "bands"),
    ):
        with pytest.raises(AffgenError, match=said):
            make()


def test_the_config_reads_and_writes() -> None:
    from affgen import config as configs

    plain = configs.to_dict(MINIATURE)
    assert configs.from_dict(MuseConfig, plain) == MINIATURE
