"""Diffusion between a mel and the average voice, and samplers that undo it, all with one signature.

Popov et al., "Diffusion-based voice conversion with fast maximum likelihood sampling scheme" (DiffVC), ICLR 2022;
EmoReg (arXiv 2412.20359) uses it unchanged. Time runs from 0, the mel X0, to 1, noise about the average voice Xbar.

=======================  =======================  ================================================================
code                     symbol                   formula
=======================  =======================  ================================================================
:class:`SDE`             forward SDE              dX = 1/2 beta_t (Xbar - X) dt + sqrt(beta_t) dW
:meth:`SDE.beta`         beta_t                   beta_min + (beta_max - beta_min) t
:meth:`SDE.gamma`        gamma(s, t)              exp(-1/2 int_s^t beta)
:meth:`SDE.variance`     1 - gamma(s, t)^2        variance that the forward SDE adds between s and t
:meth:`SDE.diffuse`      X_t                      gamma X0 + (1 - gamma) Xbar + sqrt(1 - gamma^2) z, gamma(0, t)
:func:`score_loss`       weighted score matching  || s sqrt(1 - gamma^2) + z ||^2
:meth:`SDE.tweedie`      E[X0 | X_t]              Xbar + (X_t - Xbar + (1 - gamma^2) s) / gamma
:meth:`SDE.mu`           mu(s, t)                 gamma(s, t) (1 - gamma(0, s)^2) / (1 - gamma(0, t)^2)
:meth:`SDE.nu`           nu(s, t)                 gamma(0, s) (1 - gamma(s, t)^2) / (1 - gamma(0, t)^2)
:meth:`SDE.sigma`        sigma*(s, t)             deviation of X_s given X_t, see below
=======================  =======================  ================================================================

One reverse step from t to s = t - h, of all three solvers, with xi ~ N(0, 1), is

    X_s = X_t + beta_t h ((1/2 + omega) (X_t - Xbar) + (1 + kappa) s(X_t, t)) + sigma xi

=======  ==========================  ============================================================  ================
solver   kappa                       omega                                                         sigma
=======  ==========================  ============================================================  ================
``pf``   -1/2                        0                                                             0
``em``   0                           0                                                             sqrt(beta_t h)
``ml``   nu (1 - gamma^2) / (gamma   (mu - 1) / (beta_t h) + (1 + kappa) / (1 - gamma^2) - 1/2     sigma*
         beta_t h) - 1
=======  ==========================  ============================================================  ================

``ml`` follows from p(X_s | X_t, X0), Gaussian about Xbar + mu (X_t - Xbar) + nu (X0 - Xbar) with variance
(1 - gamma(0, s)^2)(1 - gamma(s, t)^2) / (1 - gamma(0, t)^2), with the Tweedie estimate in the place of X0. To match
the variance of X_s as well, sigma*^2 adds nu^2 Var(X0 | X_t): for a Gaussian X0 the steps are then exact, however few.
That term needs the deviation of X0, ``spread``; it is left out in the released DiffVC, and here while ``spread`` is 0.

``flow`` and ``midpoint`` solve an ODE instead (Lipman et al., "Flow matching for generative modeling", ICLR 2023):
there the network gives the velocity and time runs the other way, from 0, noise, to 1, the mel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from affgen.errors import AffgenError

Score = Callable[[Tensor, Tensor], Tensor]
"""Network: (x_t (B, C, T), time (B,)) -> score, or velocity for the flow samplers, (B, C, T)."""
Noise = Callable[[int], Tensor]
"""Standard normal noise (B, C, T) of step k = 1, 2, ...; 0 is left for x_T. A pure function: see :func:`seeded`."""
Time = TypeVar("Time", float, Tensor)

OFFSET = 1e-5
"""Training times are this far from 0 and 1, as in DiffVC."""
_BLOCK = 64


@dataclass(frozen=True)
class SDE:
    """The forward SDE. Times are floats or tensors, from 0 to 1, ``s`` before ``t``."""

    beta_min: float = 0.05
    beta_max: float = 20.0
    spread: float = 0.0
    """Standard deviation of X0 about its mean that ``ml`` counts with; 0: X0 given X_t is taken as certain."""

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max < math.inf and 0 <= self.spread < math.inf):
            raise AffgenError(
                f"SDE: beta_min {self.beta_min}, beta_max {self.beta_max}, spread {self.spread}; "
                "accepted: 0 < beta_min <= beta_max, spread 0 or more"
            )

    def beta(self, t: Time) -> Time:
        """Return the noise rate at ``t``."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _integral(self, s: float | Time, t: Time) -> Time:
        return (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (t + s)) * (t - s)

    def gamma(self, s: float | Time, t: Time) -> Time:
        """Return the share of X_s - Xbar that is left in X_t."""
        exponent = -0.5 * self._integral(s, t)
        return torch.exp(exponent) if isinstance(exponent, Tensor) else math.exp(exponent)

    def variance(self, s: float | Time, t: Time) -> Time:
        """Return 1 - gamma(s, t)^2, without the cancellation that leaves it one digit in float32 at small times."""
        exponent = -self._integral(s, t)
        return -torch.expm1(exponent) if isinstance(exponent, Tensor) else -math.expm1(exponent)

    def mu(self, s: Time, t: Time) -> Time:
        """Return the weight of X_t - Xbar in the mean of X_s given X_t and X0; ``t`` above 0."""
        return self.gamma(s, t) * self.variance(0.0, s) / self.variance(0.0, t)

    def nu(self, s: Time, t: Time) -> Time:
        """Return the weight of X0 - Xbar in the mean of X_s given X_t and X0; ``t`` above 0."""
        return self.gamma(0.0, s) * self.variance(s, t) / self.variance(0.0, t)

    def sigma(self, s: Time, t: Time) -> Time:
        """Return the standard deviation of X_s given X_t, for X0 of deviation ``spread`` about its mean."""
        variance = self.variance(0.0, t)
        signal = (self.gamma(0.0, t) * self.spread) ** 2
        unknown = self.spread**2 * variance / (signal + variance)
        return (self.variance(0.0, s) * self.variance(s, t) / variance + self.nu(s, t) ** 2 * unknown) ** 0.5

    def diffuse(self, x0: Tensor, average: Tensor, time: Tensor, z: Tensor) -> Tensor:
        """Return X_t (B, C, T) of ``x0``, ``average`` and standard normal ``z`` (B, C, T) at ``time`` (B,)."""
        kept, added = _column(self.gamma(0.0, time), x0), _column(self.variance(0.0, time), x0)
        return kept * x0 + (1 - kept) * average + added.sqrt() * z

    def tweedie(self, x_t: Tensor, score: Tensor, average: Tensor, time: Tensor) -> Tensor:
        """Return the mean of X0 (B, C, T) given ``x_t`` with its ``score`` (B, C, T) at ``time`` (B,).

        At times near 1 little of X0 is left (gamma(0, 1) = 0.0066) and errors of the score grow by its inverse.
        """
        kept, added = _column(self.gamma(0.0, time), x_t), _column(self.variance(0.0, time), x_t)
        return average + (x_t - average + added * score) / kept


# ------------------------------------------------------------------------------------------------------ training


def draw_times(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return times (B,) for a batch ``like`` (B, C, T), uniform from ``OFFSET`` to 1 - ``OFFSET``."""
    uniform = torch.rand(len(like), generator=generator, dtype=like.dtype, device=like.device)
    return uniform.clamp(OFFSET, 1 - OFFSET)


def score_loss(score: Tensor, z: Tensor, time: Tensor, *, sde: SDE, mask: Tensor | None = None) -> Tensor:
    """Return the mean of (s sqrt(1 - gamma^2) + z)^2, a scalar, of ``score`` and ``z`` (B, C, T) at ``time`` (B,).

    ``z`` made X_t (:meth:`SDE.diffuse`); ``mask`` (B, 1, T) is 1 on frames that count.
    """
    return _masked_mean((score * _column(sde.variance(0.0, time), score).sqrt() + z) ** 2, mask)


def flow_path(x0: Tensor, z: Tensor, time: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return x_t = (1 - (1 - ``least``) t) z + t x0 (B, C, T) at ``time`` (B,) from 0 to 1, and its velocity.

    The optimal-transport path from noise ``z`` to the mel ``x0``; ``least`` is the deviation left at t = 1.
    """
    t = _column(time, x0)
    return (1 - (1 - least) * t) * z + t * x0, x0 - (1 - least) * z


def flow_loss(velocity: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean square error, a scalar, of ``velocity`` (B, C, T) on frames where ``mask`` (B, 1, T) is 1."""
    return _masked_mean((velocity - target) ** 2, mask)


def _masked_mean(errors: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return errors.mean()
    # where, not a product: what lies in the padding may be anything, NaN as well
    return errors.where(mask > 0, 0).sum() / (mask.expand(len(errors), -1, -1).sum() * errors.shape[1]).clamp(min=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


# ------------------------------------------------------------------------------------------------------ sampling


class Sampler(Protocol):
    """What every sampler is called with, so that one can be put in the place of another."""

    def __call__(
        self,
        score: Score,
        x_T: Tensor,
        average: Tensor,
        steps: int,
        *,
        sde: SDE,
        noise: Noise | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return x_0 (B, C, T).

        ``score`` is asked ``steps`` times (``midpoint``: twice as often); ``x_T`` (B, C, T) is the start, about
        ``average`` (B, C, T) with variance 1 for an SDE; ``noise`` is needed by ``em`` and ``ml``; frames where
        ``mask`` (B, 1, T) is 0 are 0 in all that ``score`` is given and in the result. Raises :class:`AffgenError`.
        """


Triple = Callable[[SDE, float, float], tuple[float, float, float]]
"""(sde, s, t) -> kappa, omega, sigma of the step from t to s."""


def probability_flow(sde: SDE, s: float, t: float) -> tuple[float, float, float]:
    """Return kappa, omega and sigma of an Euler step of the probability-flow ODE."""
    return -0.5, 0.0, 0.0


def euler_maruyama(sde: SDE, s: float, t: float) -> tuple[float, float, float]:
    """Return kappa, omega and sigma of an Euler-Maruyama step of the reverse SDE."""
    return 0.0, 0.0, math.sqrt(sde.beta(t) * (t - s))


def maximum_likelihood(sde: SDE, s: float, t: float) -> tuple[float, float, float]:
    """Return kappa, omega and sigma of the step under which paths of the forward SDE are most likely."""
    span, variance = sde.beta(t) * (t - s), sde.variance(0.0, t)
    kappa = sde.nu(s, t) * variance / (sde.gamma(0.0, t) * span) - 1
    omega = (sde.mu(s, t) - 1) / span + (1 + kappa) / variance - 0.5
    return kappa, omega, sde.sigma(s, t)


def _solver(triple: Triple) -> Sampler:
    @torch.no_grad()
    def sample(
        score: Score,
        x_T: Tensor,
        average: Tensor,
        steps: int,
        *,
        sde: SDE,
        noise: Noise | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        _check(x_T, average, steps)
        x, average = _masked(x_T, mask), _masked(average, mask)
        for k in range(steps):
            t, s = (steps - k) / steps, (steps - k - 1) / steps
            kappa, omega, sigma = triple(sde, s, t)
            slope = (0.5 + omega) * (x - average) + (1 + kappa) * score(x, x.new_full((len(x),), t))
            x = x + sde.beta(t) * (t - s) * slope
            if sigma > 0:
                x = x + sigma * _drawn(noise, k + 1)
            x = _masked(x, mask)
        return x

    return sample


pf = _solver(probability_flow)
em = _solver(euler_maruyama)
ml = _solver(maximum_likelihood)


def _ode(half_way: bool) -> Sampler:
    @torch.no_grad()
    def sample(
        score: Score,
        x_T: Tensor,
        average: Tensor,
        steps: int,
        *,
        sde: SDE,
        noise: Noise | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        # The path is known to the network alone: neither average nor sde is needed.
        _check(x_T, average, steps)
        x = _masked(x_T, mask)
        for k in range(steps):
            velocity = score(x, x.new_full((len(x),), k / steps))
            if half_way:
                between = _masked(x + velocity / (2 * steps), mask)
                velocity = score(between, x.new_full((len(x),), (k + 0.5) / steps))
            x = _masked(x + velocity / steps, mask)
        return x

    return sample


flow = _ode(half_way=False)
midpoint = _ode(half_way=True)

SAMPLERS: dict[str, Sampler] = {"pf": pf, "em": em, "ml": ml, "flow": flow, "midpoint": midpoint}
"""By the name they have in configurations. The first three take a score, the others a velocity."""


def sampler(name: str) -> Sampler:
    """Return the sampler ``name``; raises :class:`AffgenError` with the list of them."""
    if name not in SAMPLERS:
        raise AffgenError(f"sampler {name!r}; accepted: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def score_of(velocity: Score, average: Tensor, sde: SDE) -> Score:
    """Return the score of the SDE from a network that gives the velocity of the flow of y = X0 - Xbar.

    With a = gamma(0, t) and b = sqrt(1 - a^2), X_t - Xbar = a y + b z = (a + b) y_t' on the straight path from z to y
    at t' = a / (a + b); from y_t' and its velocity y - z follows z, and the score is -z / b. So one network serves
    both families of samplers. ``average`` is (B, C, T); ``least`` of :func:`flow_path` must be 0.
    """

    def score(x_t: Tensor, time: Tensor) -> Tensor:
        a, b = sde.gamma(0.0, time), sde.variance(0.0, time).sqrt()
        moment = a / (a + b)
        place = (x_t - average) / _column(a + b, x_t)
        z = place - _column(moment, x_t) * velocity(place, moment)
        return -z / _column(b, x_t)

    return score


def seeded(seeds: Sequence[int], like: Tensor, start: int = 0) -> Noise:
    """Return noise for tensors ``like`` (B, C, T) that depends on seed, step, C and the frame's place alone.

    ``seeds`` (0 or more) has one for each item; ``start`` is the place of the first frame in the whole file. So a file
    made in chunks gets the noise it would get at once, wherever the chunks begin, and whatever shares the batch.
    """
    batch, channels, frames = like.shape
    if len(seeds) != batch or min(*seeds, start, 0) < 0:
        raise AffgenError(f"{len(seeds)} seeds for {batch} items from frame {start}; accepted: one each, all 0 or more")
    first, last = start // _BLOCK, -(-(start + frames) // _BLOCK)

    def noise(step: int) -> Tensor:
        def block(seed: int, place: int) -> np.ndarray:
            return np.random.default_rng([seed, step, place]).standard_normal((channels, _BLOCK), dtype=np.float32)

        rows = [np.concatenate([block(seed, place) for place in range(first, last)], axis=1) for seed in seeds]
        inside = np.stack(rows)[..., start - first * _BLOCK :][..., :frames]
        return torch.from_numpy(np.ascontiguousarray(inside)).to(like)

    return noise


def _check(x: Tensor, average: Tensor, steps: int) -> None:
    if steps < 1:
        raise AffgenError(f"{steps} steps; accepted: 1 or more")
    if x.ndim != 3 or average.shape != x.shape:
        raise AffgenError(f"start {tuple(x.shape)}, average {tuple(average.shape)}; needed are (B, C, T) for both")


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.where(mask > 0, 0)


def _drawn(noise: Noise | None, step: int) -> Tensor:
    if noise is None:
        raise AffgenError("this sampler draws noise; give it, for instance by vc.diffusion.seeded")
    return noise(step)
