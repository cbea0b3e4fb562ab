"""Durations, pitch, energy and the length regulator: what holds by construction holds whatever the weights are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from affgen.align.segments import FRAME_S
from svs.config import MINIATURE, MuseConfig
from svs.duration import ContextAwareResidualDurationPredictor, room
from svs.front import ScoreBatch, ScoreInput
from svs.pitch import (
    DeterministicPitchPredictor,
    RealPitch,
    StatisticalPitchPredictor,
    f0_of,
    vibrato,
)
from svs.variance import ConvPredictor, EnergyPredictor, Frames, LengthRegulator, moments, placed

WIDTH = MINIATURE.blocks.width
Mode = Literal["residual", "boundary", "plain"]
MODES: tuple[Mode, ...] = ("residual", "boundary", "plain")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def score(starts: list[float], beats: list[bool], frames: int) -> ScoreInput:
    """Phonemes that start at ``starts``; a note begins with each beat."""
    note = np.cumsum(beats)
    count = len(starts)
    return ScoreInput(
        phone=np.arange(count) % 40,
        midi=60 + note % 12,
        note_frames=np.ones(count),
        note=note,
        slur=np.zeros(count),
        role=np.where(beats, 1, 0),
        beat=beats,
        start=np.array(starts),
        frames=frames,
    )


SHORT = score([0, 4.5, 6, 15], [True, False, True, True], 21)
LONG = score([0, 3.2, 9.7, 30, 33, 60.5], [False, False, True, True, False, True], 90)


def song(minutes: float, rng: np.random.Generator) -> ScoreInput:
    """Notes of about half a second, a vowel and up to two consonants each."""
    starts, beats, now = [0.0], [True], 0.0
    while now < minutes * 60 / FRAME_S:
        length = rng.uniform(8, 80)
        inside = np.sort(rng.uniform(0.5 * length, length, rng.integers(0, 3)))
        starts += [*(now + inside), now + length]
        beats += [*(False for _ in inside), True]
        now += length
    return score(starts, beats, round(now + 20))


def loud(net: nn.Module, scale: float) -> nn.Module:
    """The same with weights that say much."""
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=scale)
    return net.eval()


def durations(mode: Mode, scale: float = 1.0, config: MuseConfig = MINIATURE) -> ContextAwareResidualDurationPredictor:
    net = ContextAwareResidualDurationPredictor(replace(config, duration=mode))
    loud(net, scale)
    return net.requires_grad_(False)


def rows(batch: ScoreBatch) -> Tensor:
    return torch.randn(*batch.mask.shape, WIDTH) * batch.mask.unsqueeze(2)


# --- durations ---


@st.composite
def scores(draw: st.DrawFn) -> ScoreInput:
    gaps = draw(st.lists(st.one_of(st.just(0.0), st.floats(0.01, 3), st.floats(3, 60)), min_size=1, max_size=14))
    starts = [0.0, *np.cumsum(gaps)]
    beats = draw(st.lists(st.booleans(), min_size=len(starts), max_size=len(starts)))
    return score(starts, beats, math.ceil(starts[-1]) + draw(st.integers(1, 20)))


@settings(max_examples=150, deadline=None)
@given(st.lists(scores(), min_size=1, max_size=3), st.sampled_from([0.01, 1.0, 30.0]), st.integers(0, 99))
def test_a_bounded_row_sums_to_its_score_and_no_beat_moves_beyond_the_bound(
    inputs: list[ScoreInput], scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    net, batch = durations("boundary", scale), ScoreBatch.of(inputs)
    made = net.whole(rows(batch), batch)
    assert made.dtype == torch.int64 and (made >= 0).all() and made[~batch.mask].eq(0).all()
    assert made.sum(dim=1).tolist() == [one.frames for one in inputs]
    for row, one in zip(made, inputs, strict=True):
        starts = (row.cumsum(0) - row)[: len(one)].numpy()
        assert (np.abs(starts - one.start)[one.beat] * FRAME_S <= MINIATURE.durations.bound_s + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(scores(), st.sampled_from([0.1, 30.0]), st.integers(0, 99))
def test_every_phoneme_of_a_span_with_room_has_a_frame(one: ScoreInput, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    batch = ScoreBatch.of([one])
    made = durations("boundary", scale).whole(rows(batch), batch)[0].numpy()
    span = batch.span[0].numpy()
    for number in np.unique(span):
        mine = span == number
        if one.nominal[mine].sum() >= mine.sum() + 1:
            assert (made[mine] >= 1).all()


def test_unrounded_bounded_durations_sum_to_the_score_too() -> None:
    batch = ScoreBatch.of([SHORT, LONG])
    made = durations("boundary")(rows(batch), batch)
    assert made.sum(dim=1).tolist() == pytest.approx(batch.frames.tolist(), abs=1e-9) and (made >= 0).all()


def test_five_minutes_do_not_drift() -> None:
    one = song(5, np.random.default_rng(0))
    batch = ScoreBatch.of([one])
    made = durations("boundary", 3.0).whole(rows(batch), batch)[0]
    onset = (made.cumsum(0) - made).numpy()
    error = (onset - one.start)[one.beat] * FRAME_S
    bound = MINIATURE.durations.bound_s
    assert made.sum() == one.frames and one.beat.sum() > 500
    assert np.abs(error).max() <= bound and np.abs(error).max() > 0.5 * bound  # it does move them
    half = len(error) // 2
    assert np.abs(error[half:]).max() <= bound and abs(error[half:].mean() - error[:half].mean()) < 0.02


def test_beats_stay_where_phonemes_would_lose_their_frame() -> None:
    batch = ScoreBatch.of([score([0, 10, 12, 40], [True, True, True, True], 60)])
    assert room(batch, 9.0)[0].tolist() == [0, 0, 0, 8.5]  # spans of 10, 2, 28 and 20 frames, one phoneme each
    assert room(batch, 4.0)[0, 3] == 3.5


def test_a_residual_that_says_nothing_is_the_score_and_plain_knows_no_score() -> None:
    batch = ScoreBatch.of([SHORT, LONG])
    for mode in ("residual", "boundary"):
        net = durations(mode, 0.0)
        assert net(rows(batch), batch)[batch.mask].numpy() == pytest.approx(batch.nominal[batch.mask].numpy(), abs=1e-6)
    plain = durations("plain", 0.0)(rows(batch), batch)[batch.mask]
    assert plain.unique().tolist() == [1.0]


def test_the_residual_predictor_can_make_good_what_has_gone_wrong() -> None:
    """Taught on singers who come late by chance and then catch up, it catches up too; the plain one cannot."""
    torch.manual_seed(0)
    count, late = 40, 6.0
    one = score([20.0 * n for n in range(count)], [True] * count, 20 * count)
    batch = ScoreBatch.of([one] * 16)
    x = torch.zeros(16, count, WIDTH)
    drift = torch.randn(16, count) * late * (torch.arange(count) > 0)
    real = 20 + drift.diff(dim=1, append=torch.zeros(16, 1))  # what was late before is made up by the next phoneme
    left = {}
    for mode in ("residual", "plain"):
        net = ContextAwareResidualDurationPredictor(replace(MINIATURE, duration=mode))  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
        for _ in range(150):
            optimizer.zero_grad()
            net.losses(net(x, batch, real), real, batch)["duration"].backward()
            optimizer.step()
        made = net(x, batch, real).detach()
        left[mode] = float((made - real).abs().mean())
    assert left["residual"] < 0.75 * left["plain"]


def test_in_singing_the_residual_predictor_is_told_what_it_has_done_itself() -> None:
    net, batch = durations("residual", 0.5), ScoreBatch.of([SHORT, LONG])
    x = rows(batch)
    own = net(x, batch)
    assert torch.allclose(net(x, batch, own), own, rtol=1e-5)
    assert not torch.allclose(net(x, batch, own + 9 * batch.mask), own, rtol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_durations_do_not_depend_on_what_else_is_in_the_batch(mode: Mode) -> None:
    net, batch = durations(mode, 0.5), ScoreBatch.of([SHORT, LONG])
    x, real = rows(batch), batch.nominal.round().long()
    for given_ in (None, real):
        together = net(x, batch, given_)
        alone = net(x[:1, :4], ScoreBatch.of([SHORT]), None if given_ is None else real[:1, :4])
        assert together[0, :4].numpy() == pytest.approx(alone[0].numpy(), rel=1e-5)
        assert together[0, 4:].eq(0).all()
    assert net.whole(x, batch)[0, :4].tolist() == net.whole(x[:1, :4], ScoreBatch.of([SHORT]))[0].tolist()


@pytest.mark.parametrize("mode", MODES)
def test_rounding_errors_of_durations_do_not_add_up(mode: Mode) -> None:
    one = song(1, np.random.default_rng(1))
    batch = ScoreBatch.of([one])
    net, x = durations(mode, 0.3), rows(batch)
    exact, whole = net(x, batch).cumsum(dim=1), net.whole(x, batch).cumsum(dim=1)
    assert (exact - whole).abs().max() <= (0.5 + 1e-6 if mode != "boundary" else 3.5)


def test_losses_of_durations_are_0_for_the_real_ones_and_see_each_kind_of_error() -> None:
    batch = ScoreBatch.of([LONG])
    net, real = durations("residual"), torch.tensor([[4, 6, 20, 3, 27, 30]])
    assert all(float(loss) == 0 for loss in net.losses(real.double(), real, batch).values())
    inside = net.losses(real + torch.tensor([[0.0, 0, 0, 2, -2, 0]]), real, batch)  # 3 and 4 are of one span
    assert inside["duration"] > 0 and inside["beat"] == 0
    assert float(inside["onset"]) == pytest.approx(2 * FRAME_S / 5)
    assert net.losses(real + 1.0, real, batch)["onset"] == pytest.approx(15 * FRAME_S / 5)


# --- the length regulator ---


def test_rows_are_repeated_and_frames_know_their_note() -> None:
    batch = ScoreBatch.of([SHORT, LONG])
    lengths = torch.tensor([[3, 0, 2, 1, 0, 0], [1, 1, 2, 0, 3, 2]])
    frames = placed(batch, lengths)
    assert frames.index.tolist()[1] == [0, 1, 2, 2, 4, 4, 4, 5, 5] and frames.index[0, :6].tolist() == [
        0,
        0,
        0,
        2,
        2,
        3,
    ]
    assert frames.mask.sum(dim=1).tolist() == [6, 9]
    assert frames.note[0].tolist() == [61, 61, 61, 62, 62, 63, 0, 0, 0]
    assert frames.position[1].tolist() == pytest.approx([0.25, 0.75, 0.25, 0.75, 1 / 6, 0.5, 5 / 6, 0.25, 0.75])
    assert frames.step[0, 0] == pytest.approx(1 / 12) and frames.step[0, 8] == 0


def test_the_regulator_repeats_exactly_and_adds_the_note() -> None:
    net, batch = LengthRegulator(WIDTH), ScoreBatch.of([replace(SHORT, midi=np.array([0, 0, 61, 62]))])
    x = rows(batch)
    made = net(x, batch, torch.tensor([[2, 1, 2, 1]]))
    assert torch.equal(made.hidden[0, :3], x[0, [0, 0, 1]])  # rests are told nothing
    assert not torch.allclose(made.hidden[0, 3], made.hidden[0, 4], atol=1e-3)  # another place in the note


def test_moments_are_those_of_the_frames_that_count() -> None:
    frames = placed(ScoreBatch.of([SHORT]), torch.tensor([[4, 3, 2, 1]]))
    x, weight = torch.randn(1, 10), torch.tensor([[1.0, 1, 0, 1, 0, 0, 0, 1, 1, 1]])
    mean, deviation, number = moments(x, weight, frames, 4)
    chosen = x[0, [0, 1, 3]]
    assert number[0].tolist() == [3, 0, 2, 1]
    assert mean[0, 0] == pytest.approx(float(chosen.mean())) and mean[0, 1] == 0
    assert deviation[0, 0] == pytest.approx(float(chosen.std(correction=0)), rel=1e-4) and deviation[0, 1] == 0


# --- pitch ---


def setting(inputs: list[ScoreInput] | None = None) -> tuple[ScoreBatch, Tensor, Frames]:
    batch = ScoreBatch.of(inputs or [SHORT, LONG])
    x = rows(batch)
    return batch, x, LengthRegulator(WIDTH)(x, batch, batch.nominal.round().long())


def test_a_contour_has_the_mean_and_deviation_it_is_given() -> None:
    batch, _, frames = setting()
    voiced = (torch.rand(frames.mask.shape) < 0.7) & frames.mask
    count = batch.mask.shape[1]
    wanted = torch.randn(2, count), torch.rand(2, count) + 0.1
    made = StatisticalPitchPredictor.contour(torch.randn(frames.mask.shape), voiced, frames, wanted)
    mean, deviation, number = moments(made, voiced.float(), frames, count)
    assert torch.allclose(mean[number > 0], wanted[0][number > 0], atol=1e-5)
    assert torch.allclose(deviation[number > 1], wanted[1][number > 1], rtol=1e-3)


def test_the_statistics_scale_as_asked_and_the_notes_stay() -> None:
    batch, x, frames = setting()
    net = StatisticalPitchPredictor(MINIATURE)
    with torch.no_grad():
        net.curve.out.bias[1] = 9.0  # all of it voiced
    found = [net(x, batch.mask, frames, None, torch.full(batch.mask.shape, k)) for k in (1.0, 2.0, 0.0)]
    spread = [moments(one.contour, one.voiced.float(), frames, batch.mask.shape[1]) for one in found]
    several = spread[0][2] > 1
    assert torch.allclose(spread[0][1][several], found[0].sigma[several], rtol=1e-2)
    assert spread[2][1].max() < 1e-3
    assert torch.allclose(spread[2][0], found[0].mean * (spread[0][2] > 0), atol=1e-5)


def test_the_likelihood_is_least_at_the_real_mean_and_deviation() -> None:
    batch, x, frames = setting([LONG])
    net = StatisticalPitchPredictor(MINIATURE)
    real = RealPitch.of(f0_of(0.7 * torch.randn(frames.mask.shape) + 0.5, frames.mask, frames), frames)
    mean, deviation = moments(real.contour, real.voiced.float(), frames, 6)[:2]
    sure = replace(net(x, batch.mask, frames, real), mean=mean, sigma=deviation.clamp(min=0.05))
    least = net.losses(sure, real, frames)["statistics"]
    frame = -torch.distributions.Normal(frames.spread(mean), frames.spread(sure.sigma)).log_prob(real.contour)
    assert float(least) + 0.5 * math.log(2 * math.pi) == pytest.approx(float(frame[real.voiced].mean()), rel=1e-4)
    for other in (replace(sure, mean=sure.mean + 0.1), replace(sure, sigma=1.2 * sure.sigma)):
        assert net.losses(other, real, frames)["statistics"] > least


def test_f0_comes_back_from_the_contour() -> None:
    _, _, frames = setting()
    f0 = 200 + 50 * torch.rand(frames.mask.shape)
    f0[:, 3:5] = 0
    real = RealPitch.of(f0, frames)
    assert torch.allclose(f0_of(real.contour, real.voiced, frames), f0 * real.voiced, rtol=1e-4)
    high = replace(frames, note=torch.full_like(f0, 69.0))
    assert f0_of(torch.full_like(f0, 12.0), f0 > 0, high).unique().tolist() == [0, 880]


def test_the_knob_of_vibrato_moves_what_is_quick_alone() -> None:
    time = torch.arange(400.0).unsqueeze(0) * FRAME_S
    slow, quick = torch.sin(2 * math.pi * 0.3 * time), 0.5 * torch.sin(2 * math.pi * 5.9 * time)
    voiced = torch.ones(1, 400, dtype=torch.bool)
    same = vibrato(slow + quick, voiced, torch.ones(1, 400), 29)
    assert torch.equal(same, slow + quick)
    middle = slice(40, -40)
    for factor in (0.0, 2.0):
        made = vibrato(slow + quick, voiced, torch.full((1, 400), factor), 29)
        assert (made - slow - factor * quick)[:, middle].abs().max() < 0.06


@pytest.mark.parametrize("kind", [StatisticalPitchPredictor, DeterministicPitchPredictor])
def test_predictors_of_pitch_learn_and_do_not_hear_the_batch(kind: type[nn.Module]) -> None:
    torch.manual_seed(3)
    net = kind(MINIATURE)
    batch, x, frames = setting()
    alone_batch, alone_x = ScoreBatch.of([SHORT]), x[:1, :4]
    short = Frames(*(value[:1, :21] for value in vars(frames).values()))
    together, alone = net(x, batch.mask, frames), net(alone_x, alone_batch.mask, short)
    assert torch.equal(together.voiced[0, :21], alone.voiced[0])
    assert (together.contour[0, :21] - alone.contour[0]).abs().max() < 1e-4
    real = RealPitch.of(f0_of(torch.randn(frames.mask.shape), torch.rand(frames.mask.shape) < 0.8, frames), frames)
    found = net(x, batch.mask, frames, real)
    sum(net.losses(found, real, frames).values()).backward()  # type: ignore[operator]
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_the_deterministic_knob_scales_what_there_is() -> None:
    net = DeterministicPitchPredictor(MINIATURE)
    batch, x, frames = setting()
    with torch.no_grad():
        net.curve.out.bias[1] = 9.0
    plain, none, flat = (
        net(x, batch.mask, frames, None, scale)
        for scale in (torch.ones(batch.mask.shape), None, torch.zeros(batch.mask.shape))
    )
    assert torch.equal(plain.contour, none.contour)
    assert moments(flat.contour, flat.voiced.float(), frames, 6)[1].max() < 1e-3


# --- energy ---


def test_energy_is_a_level_and_a_curve_and_is_learned() -> None:
    batch, x, frames = setting()
    frames = replace(frames, hidden=frames.hidden.detach())
    net = EnergyPredictor(WIDTH, MINIATURE.energy).requires_grad_(False)
    with torch.no_grad():
        net.curve.out.weight.zero_()
        net.curve.out.bias.zero_()
    level, energy = net(x, batch.mask, frames)
    assert torch.equal(energy, frames.spread(level) * frames.mask)
    assert net.loss((level, energy), energy, frames) < 1e-5
    assert net.loss((level, energy), energy + 1, frames) == pytest.approx(2, abs=1e-4)


def test_a_predictor_gives_a_row_the_same_alone() -> None:
    net = ConvPredictor(WIDTH, MINIATURE.energy, 3).eval()
    x = torch.randn(2, 9, WIDTH)
    mask = torch.arange(9) < torch.tensor([[4], [9]])
    together, alone = net(x, mask), net(x[:1, :4], mask[:1, :4])
    assert (together[:1, :4] - alone).abs().max() < 1e-6 and together[0, 4:].eq(0).all()
