from __future__ import annotations

import math

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.loudness import k_filters, loudness


def sine(level_db: float, seconds: float, rate: int = 48_000, hertz: float = 997.0) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_the_standards_own_example():
    """ITU-R BS.1770-4, annex 1: 997 Hz at 0 dB full scale in one channel gives -3.01 LKFS."""
    assert loudness(sine(0, 20), 48_000) == pytest.approx(-3.01, abs=0.005)
    assert loudness(sine(-20, 20), 48_000) == pytest.approx(-23.01, abs=0.005)


def test_filters_are_those_of_the_tables_at_48_khz():
    """BS.1770-4, tables 1 and 2."""
    (shelf, poles), (high, last) = k_filters(48_000)
    np.testing.assert_allclose(shelf, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-9)
    np.testing.assert_allclose(poles, [1, -1.69065929318241, 0.73248077421585], atol=1e-9)
    np.testing.assert_allclose(high, [1, -2, 1])
    np.testing.assert_allclose(last, [1, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 96_000, 192_000])
def test_every_rate_measures_the_same(rate):
    noise = sum(sine(-30, 3, rate, hertz) for hertz in (60.0, 200.0, 440.0, 997.0, 1500.0))
    wanted = sum(sine(-30, 3, 48_000, hertz) for hertz in (60.0, 200.0, 440.0, 997.0, 1500.0))
    assert loudness(noise, rate) == pytest.approx(loudness(wanted, 48_000), abs=0.25 if rate < 16_000 else 0.1)


def test_gates_leave_out_pauses():
    """As EBU Tech 3341 case 3: 10 s at -36, 60 s at -23, 10 s at -36 LUFS read -23; here in one channel."""
    loud, soft = sine(-20, 60), sine(-33, 10)
    assert loudness(np.concatenate([soft, loud, soft]), 48_000) == pytest.approx(-23.0, abs=0.1)
    assert loudness(np.concatenate([loud, np.zeros(20 * 48_000)]), 48_000) == pytest.approx(-23.01, abs=0.1)
    assert loudness(np.concatenate([loud, sine(-80, 20)]), 48_000) == pytest.approx(-23.01, abs=0.1)


def test_silence_has_no_loudness_and_short_sounds_have():
    assert loudness(np.zeros(48_000), 48_000) == -math.inf
    assert loudness(sine(-90, 1), 48_000) == -math.inf
    assert loudness(sine(0, 0.1), 48_000) == pytest.approx(-3.01, abs=0.3)
    assert loudness(np.array([1.0]), 22_050) > -70


@pytest.mark.parametrize(("rate", "lufs"), [(8000, -23.455139), (22_050, -21.006484), (48_000, -23.362482)])
def test_it_agrees_with_pyloudnorm(rate, lufs):
    """The figures are those of pyloudnorm 0.2.0, ``Meter(rate, filter_class="DeMan").integrated_loudness(noise)``."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 5 * rate) * np.repeat(rng.uniform(0, 1, 10), rate // 2)
    assert loudness(noise, rate) == pytest.approx(lufs, abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [(np.zeros((2, 9)), 8000), (np.zeros(0), 8000), (np.array([np.nan]), 8000), (np.zeros(9), 3999)],
)
def test_what_has_no_loudness_is_refused(samples, rate):
    with pytest.raises(AffgenError, match=r"accepted|from 4000"):
        loudness(samples, rate)
