"""The SDE's identities, and every sampler against a Gaussian whose score and velocity are known.

Score and velocity of a Gaussian are linear, so a sampler's whole run is linear in start and noises: its mean and
variance are read from unit impulses, exactly, and no tolerance covers for chance.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affgen.errors import AffgenError
from vc.diffusion import (
    SAMPLERS,
    SDE,
    Score,
    draw_times,
    em,
    flow_loss,
    flow_path,
    maximum_likelihood,
    ml,
    pf,
    sampler,
    score_loss,
    score_of,
    seeded,
)

MEAN, AVERAGE, SPREAD = 1.3, -0.4, 0.5
PAIRS = [(0.0, 0.1), (0.1, 0.5), (0.3, 1.0), (0.9, 1.0)]
WIDE = torch.float64


def score_at(sde: SDE) -> Score:
    """The exact score of X0 ~ N(MEAN, SPREAD^2)."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        gamma, variance = sde.gamma(0.0, t)[:, None, None], sde.variance(0.0, t)[:, None, None]
        return -(x - gamma * MEAN - (1 - gamma) * AVERAGE) / ((gamma * SPREAD) ** 2 + variance)

    return score


def velocity_of(mean: float, spread: float) -> Score:
    """The exact velocity E[x0 - z | x_t] between z ~ N(0, 1) and x0 ~ N(mean, spread^2)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None, None]
        return mean + (t * spread**2 - (1 - t)) / ((1 - t) ** 2 + (t * spread) ** 2) * (x - t * mean)

    return velocity


def moments(name: str, steps: int, sde: SDE | None = None) -> tuple[float, float]:
    """Mean and variance made from the exact x_1: one frame per impulse (start, noises), the first without any."""
    sde = sde or SDE()
    ode = name in ("flow", "midpoint")
    gamma = 0.0 if ode else sde.gamma(0.0, 1.0)
    origin = 0.0 if ode else gamma * MEAN + (1 - gamma) * AVERAGE
    start = torch.full((1, 1, steps + 2), origin, dtype=WIDE)
    start[..., 1] += math.sqrt((gamma * SPREAD) ** 2 + 1 - gamma**2)

    def impulse(step: int) -> Tensor:
        noise = torch.zeros_like(start)
        noise[..., 1 + step] = 1
        return noise

    score = velocity_of(MEAN, SPREAD) if ode else score_at(sde)
    made = SAMPLERS[name](score, start, torch.full_like(start, AVERAGE), steps, sde=sde, noise=impulse)[0, 0]
    return float(made[0]), float(((made[1:] - made[0]) ** 2).sum())


# ----------------------------------------------------------------------------------------------------------- SDE


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_gamma_mu_nu_and_sigma_satisfy_their_identities(s: float, t: float) -> None:
    sde = SDE()
    assert sde.gamma(s, t) * sde.gamma(0.0, s) == pytest.approx(sde.gamma(0.0, t), rel=1e-12)
    assert sde.variance(s, t) == pytest.approx(1 - sde.gamma(s, t) ** 2, rel=1e-9)
    # X_t = gamma(0, t) X0 without noise must come back as X_s = gamma(0, s) X0
    assert sde.mu(s, t) * sde.gamma(0.0, t) + sde.nu(s, t) == pytest.approx(sde.gamma(0.0, s), rel=1e-12)
    # var(X_s | X0) = mu^2 var(X_t | X0) + sigma^2: the law of total variance
    total = sde.mu(s, t) ** 2 * sde.variance(0.0, t) + sde.sigma(s, t) ** 2
    assert total == pytest.approx(sde.variance(0.0, s), rel=1e-9, abs=1e-15)
    spread = SDE(spread=SPREAD)
    whole = (spread.gamma(0.0, s) * SPREAD) ** 2 + spread.variance(0.0, s)
    later = (spread.gamma(0.0, t) * SPREAD) ** 2 + spread.variance(0.0, t)
    carried = spread.mu(s, t) + spread.nu(s, t) * spread.gamma(0.0, t) * SPREAD**2 / later
    assert carried**2 * later + spread.sigma(s, t) ** 2 == pytest.approx(whole, rel=1e-12)


def test_gamma_is_the_integral_of_beta_and_ends_as_published() -> None:
    sde = SDE()
    grid = torch.linspace(0.2, 0.7, 10_001, dtype=WIDE)
    assert sde.gamma(0.2, 0.7) == pytest.approx(math.exp(-0.5 * float(torch.trapezoid(sde.beta(grid), grid))), rel=1e-9)
    assert (sde.beta(0.0), sde.beta(1.0)) == (0.05, 20.0)
    assert sde.gamma(0.0, 1.0) == pytest.approx(math.exp(-0.25 * 20.05), rel=1e-12)
    assert sde.mu(0.0, 0.3) == 0 and sde.nu(0.0, 0.3) == pytest.approx(1, rel=1e-12) and sde.sigma(0.0, 0.3) == 0


def test_tensors_give_what_floats_give_and_small_times_keep_their_digits() -> None:
    sde, s, t = SDE(spread=SPREAD), torch.tensor([0.1, 0.4]), torch.tensor([0.3, 0.9])
    for name in ("gamma", "variance", "mu", "nu", "sigma"):
        ours = getattr(sde, name)(s, t)
        for k in range(2):
            assert float(ours[k]) == pytest.approx(getattr(sde, name)(float(s[k]), float(t[k])), rel=1e-5)
    assert float(sde.variance(0.0, torch.tensor(1e-5))) == pytest.approx(sde.variance(0.0, 1e-5), rel=1e-5)


def test_diffused_mels_have_the_moments_of_the_formula() -> None:
    sde, time = SDE(), torch.tensor([0.3, 0.8])
    x0, average = torch.full((2, 4, 50_000), MEAN), torch.full((2, 4, 50_000), AVERAGE)
    x_t = sde.diffuse(x0, average, time, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)))
    for k, t in enumerate((0.3, 0.8)):
        expected = sde.gamma(0.0, t) * MEAN + (1 - sde.gamma(0.0, t)) * AVERAGE
        assert float(x_t[k].mean()) == pytest.approx(expected, abs=0.01)
        assert float(x_t[k].var()) == pytest.approx(1 - sde.gamma(0.0, t) ** 2, rel=0.02)


def test_loss_is_nil_and_tweedie_exact_for_the_score_of_one_point() -> None:
    sde, generator = SDE(), torch.Generator().manual_seed(1)
    x0, average, z = (torch.randn(3, 4, 7, generator=generator, dtype=WIDE) for _ in range(3))
    time = draw_times(x0, generator)
    assert bool(((time > 0) & (time < 1)).all())
    x_t = sde.diffuse(x0, average, time, z)
    score = -z / sde.variance(0.0, time).sqrt()[:, None, None]
    torch.testing.assert_close(sde.tweedie(x_t, score, average, time), x0)
    assert float(score_loss(score, z, time, sde=sde)) == pytest.approx(0, abs=1e-20)
    assert float(score_loss(torch.zeros_like(z), z, time, sde=sde)) == pytest.approx(float((z**2).mean()))


def test_losses_count_the_frames_of_the_mask_alone() -> None:
    mask = torch.tensor([[[1.0, 1, 0]], [[1, 0, 0]]])
    ones = torch.ones(2, 4, 3)
    spoilt = ones.masked_fill(mask == 0, math.nan)
    loss = score_loss(torch.zeros(2, 4, 3), 3 * spoilt, torch.tensor([0.5, 0.5]), sde=SDE(), mask=mask)
    assert float(loss) == 9
    assert float(flow_loss(2 * spoilt, torch.zeros(2, 4, 3), mask)) == 4
    assert float(flow_loss(ones, torch.zeros(2, 4, 3), torch.zeros(2, 1, 3))) == 0
    assert float(flow_loss(ones, -ones)) == 4


# ------------------------------------------------------------------------------------------------------ samplers


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_ml_with_the_spread_is_exact_in_any_number_of_steps(steps: int) -> None:
    mean, variance = moments("ml", steps, SDE(spread=SPREAD))
    assert (mean, variance) == (pytest.approx(MEAN, abs=1e-9), pytest.approx(SPREAD**2, abs=1e-9))
    for other in ("pf", "em"):
        their_mean, their_variance = moments(other, steps)
        assert abs(their_mean - MEAN) > 0.01 and abs(their_variance - SPREAD**2) > 0.01


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_ml_without_the_spread_has_the_exact_mean_and_too_little_variance(steps: int) -> None:
    mean, variance = moments("ml", steps)
    assert mean == pytest.approx(MEAN, abs=1e-9)
    assert variance < 0.5 * SPREAD**2


@pytest.mark.parametrize(
    ("name", "steps", "off_mean", "off_variance"),
    [
        ("pf", 30, 0.02, 0.01),
        ("pf", 300, 0.003, 0.001),
        ("em", 30, 0.05, 0.02),
        ("em", 300, 0.004, 0.002),
        ("ml", 300, 1e-9, 0.015),
        ("flow", 30, 1e-9, 0.03),
        ("flow", 300, 1e-9, 0.003),
        ("midpoint", 2, 1e-9, 0.01),
        ("midpoint", 30, 1e-9, 1e-4),
    ],
)
def test_each_sampler_recovers_mean_and_variance(name: str, steps: int, off_mean: float, off_variance: float) -> None:
    mean, variance = moments(name, steps)
    assert mean == pytest.approx(MEAN, abs=off_mean)
    assert variance == pytest.approx(SPREAD**2, abs=off_variance)


def test_drawn_samples_agree_with_the_impulses() -> None:
    sde, average = SDE(spread=SPREAD), torch.full((1, 8, 20_000), AVERAGE)
    noise = seeded([3], average)
    made = ml(score_at(sde), average + noise(0), average, 3, sde=sde, noise=noise)
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(made.var()) == pytest.approx(SPREAD**2, abs=0.005)


@pytest.mark.parametrize("spread", [0.0, SPREAD])
def test_ml_with_many_steps_becomes_em(spread: float) -> None:
    sde = SDE(spread=spread)

    def score(x: Tensor, t: Tensor) -> Tensor:  # of X0 = +-1 with equal chance, about an average of 0: not linear
        gamma, variance = sde.gamma(0.0, t)[:, None, None], sde.variance(0.0, t)[:, None, None]
        return (gamma * torch.tanh(gamma * x / variance) - x) / variance

    zero, apart = torch.zeros(1, 4, 200, dtype=WIDE), []
    noise = seeded([0], zero)
    for steps in (10, 50, 250):
        one, other = (solve(score, noise(0), zero, steps, sde=sde, noise=noise) for solve in (ml, em))
        apart.append(float((one - other).abs().mean()))
    assert apart[1] < 0.3 * apart[0] and apart[2] < 0.3 * apart[1] and apart[2] < 0.05  # of first order: about 0.2


def test_the_coefficients_of_ml_vanish_with_the_step() -> None:
    for h, most in ((1e-2, 0.2), (1e-3, 0.02), (1e-4, 0.002)):
        kappa, omega, sigma = maximum_likelihood(SDE(), 0.6 - h, 0.6)
        assert abs(kappa) < most and abs(omega) < most
        assert sigma / math.sqrt(SDE().beta(0.6) * h) == pytest.approx(1, abs=most)


def test_score_from_a_velocity_is_the_exact_score() -> None:
    sde, average = SDE(), torch.full((4, 2, 5), AVERAGE, dtype=WIDE)
    x = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0), dtype=WIDE)
    time = torch.tensor([0.02, 0.3, 0.7, 1.0], dtype=WIDE)
    found = score_of(velocity_of(MEAN - AVERAGE, SPREAD), average, sde)(x, time)
    torch.testing.assert_close(found, score_at(sde)(x, time))


def test_the_flow_path_is_straight_from_noise_to_mel() -> None:
    x0, z = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=WIDE)
    assert bool((flow_path(x0, z, torch.zeros(2, dtype=WIDE))[0] == z).all())
    end, velocity = flow_path(x0, z, torch.ones(2, dtype=WIDE), least=0.1)
    torch.testing.assert_close(end, x0 + 0.1 * z)
    torch.testing.assert_close(z + velocity, end)
    near, far = (flow_path(x0, z, torch.full((2,), t, dtype=WIDE), least=0.1)[0] for t in (0.25, 0.75))
    torch.testing.assert_close(far - near, velocity / 2)


# --------------------------------------------------------------------------------------- masks, noise, bad input


@pytest.mark.parametrize("name", SAMPLERS)
def test_padding_stays_nil_and_changes_nothing(name: str) -> None:
    seen = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x[..., 6:])
        return -x + x.mean(dim=2, keepdim=True) * x.shape[2]  # listens to every frame

    short = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    rubbish = torch.full((2, 3, 4), math.nan)
    long, mask = torch.cat([short, rubbish], dim=2), torch.cat([torch.ones(2, 1, 6), torch.zeros(2, 1, 4)], dim=2)
    plain = SAMPLERS[name](score, short, short / 2, 4, sde=SDE(), noise=seeded([0, 1], short))
    made = SAMPLERS[name](score, long, long / 2, 4, sde=SDE(), noise=seeded([0, 1], long), mask=mask)
    assert bool((made[..., 6:] == 0).all()) and all(bool((frames == 0).all()) for frames in seen)
    torch.testing.assert_close(made[..., :6], plain)


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_seeds_give_equal_bytes_and_the_global_state_is_left_alone(name: str) -> None:
    start = torch.zeros(1, 2, 9)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()

    def made(seed: int) -> Tensor:
        noise = seeded([seed], start)
        return SAMPLERS[name](score_at(SDE()), start + noise(0), start, 3, sde=SDE(), noise=noise)

    first = made(1)
    assert bool((first == made(1)).all()) and not bool((first == made(2)).all())
    assert bool((torch.random.get_rng_state() == before).all())
    assert not made(1).requires_grad


def test_noise_belongs_to_the_place_not_to_the_chunk_or_the_batch() -> None:
    whole = seeded([7, 8], torch.zeros(2, 5, 300))
    for start, length in ((0, 64), (63, 2), (64, 200), (299, 1)):
        part = seeded([8], torch.zeros(1, 5, length), start)
        for step in (0, 1, 9):
            assert bool((part(step)[0] == whole(step)[1, :, start : start + length]).all())
    many = torch.stack([whole(step) for step in range(20)])
    assert float(many.mean()) == pytest.approx(0, abs=0.02) and float(many.std()) == pytest.approx(1, abs=0.02)
    assert abs(float((whole(0) * whole(1)).mean())) < 0.06 and abs(float((whole(0)[0] * whole(0)[1]).mean())) < 0.08
    assert whole(0).dtype == torch.float32 and seeded([0], torch.zeros(1, 2, 3, dtype=WIDE))(0).dtype == WIDE


def test_bad_input_is_refused_in_one_line() -> None:
    x = torch.zeros(2, 3, 4)
    for call, says in (
        (lambda: SDE(beta_min=0), "beta_min 0"),
        (lambda: SDE(beta_max=0.01), "beta_max 0.01"),
        (lambda: SDE(beta_max=math.nan), "beta_max nan"),
        (lambda: SDE(spread=-1), "spread -1"),
        (lambda: sampler("heun"), "pf, em, ml, flow, midpoint"),
        (lambda: pf(score_at(SDE()), x, x, 0, sde=SDE()), "0 steps; accepted: 1 or more"),
        (lambda: pf(score_at(SDE()), x, x[:1], 1, sde=SDE()), r"\(B, C, T\)"),
        (lambda: em(score_at(SDE()), x, x, 1, sde=SDE()), "draws noise"),
        (lambda: seeded([1], x), "1 seeds for 2 items"),
        (lambda: seeded([1, -1], x), "all 0 or more"),
        (lambda: seeded([1, 1], x, -3), "from frame -3"),
    ):
        with pytest.raises(AffgenError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert sampler("ml") is ml
