"""Figures for copies of speech and song: how far a resynthesised wave is from the wave it was made from.

All take waves (L,) at 22,050 Hz, or what a pitch tracker made of two waves, frame by frame. Reference and copy are
expected to run in step; :func:`align` takes out a small constant delay first. Nothing is warped in time.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from affgen.errors import AffgenError
from affgen.features import BANDS, HOP, SAMPLE_RATE, energy, log_mel

COEFFICIENTS = 24
RANGE_DB = 80.0
"""Mel bands weaker than this under the reference's strongest count as just this weak."""
ACTIVE_DB = 50.0
"""Frames weaker than this under the reference's loudest are left out of the mel-cepstral distortion."""
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and window length in samples (Yamamoto, Song & Kim 2020, table 1)."""
MAX_DELAY = 512
DELAY_STEP = 32
PESQ_RATE = 16000


# ------------------------------------------------------------------------------------------------ of two waves


def mcd(reference: np.ndarray, copy: np.ndarray, *, coefficients: int = COEFFICIENTS) -> float:
    """Mel-cepstral distortion in dB (Kubichek 1993): mean of 10 / ln 10 * sqrt(2 * sum_d (c_d - c'_d)^2).

    The mel-cepstra c_1..c_24 (the loudness c_0 left out) are those of a minimum-phase filter, ln |H| = c_0 +
    sum_d c_d cos(w d), so that the figure is the root mean square difference of two smoothed log spectra in dB. Their
    spectrum is the 80-band log-mel of :mod:`affgen.features` (0 to 8,000 Hz, magnitudes of an STFT with a window of
    1,024 and a hop of 256), the same for every kind of copy; figures taken from other spectra, such as WORLD's or
    SPTK's, are of the same kind but not comparable in size. The mean is over the frames within 50 dB of the
    reference's loudest; bands are floored 80 dB under its strongest. Raises as :func:`affgen.features.log_mel` does,
    and :class:`AffgenError` for waves of different lengths.
    """
    _check_pair(reference, copy)
    ours, theirs = log_mel(reference), log_mel(copy)
    floor = ours.max() - RANGE_DB * np.log(10) / 20
    difference = np.maximum(ours, floor) - np.maximum(theirs, floor)
    active = _decibels(reference)
    cepstra = _cosines(coefficients) @ difference[:, active >= active.max() - ACTIVE_DB]
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * np.sum(cepstra**2, axis=0))))


def stft_distance(reference: np.ndarray, copy: np.ndarray) -> float:
    """Multi-resolution STFT distance (Yamamoto, Song & Kim 2020, "Parallel WaveGAN", equations 4 to 6).

    Spectral convergence ||S - S'|| / ||S|| (Frobenius) plus mean |ln S - ln S'|, mean over the three resolutions of
    the paper; S are magnitudes, at least 10^-3.5 as in the public implementations. 0 for an exact copy. Raises
    :class:`AffgenError` for waves of different lengths.
    """
    _check_pair(reference, copy)
    parts = []
    for n_fft, hop, width in RESOLUTIONS:
        ours, theirs = (_magnitudes(samples, n_fft, hop, width) for samples in (reference, copy))
        convergence = np.linalg.norm(ours - theirs) / np.linalg.norm(ours)
        parts.append(convergence + np.mean(np.abs(np.log(ours) - np.log(theirs))))
    return float(np.mean(parts))


def pesq(reference: np.ndarray, copy: np.ndarray, *, sample_rate: int = SAMPLE_RATE) -> float:
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2), about 1 (bad) to 4.64 (the same).

    Both waves are resampled to 16,000 Hz; the measure is the one of the package ``pesq``, of the extra ``eval``.
    Raises :class:`AffgenError` where that is not installed and for waves it finds no utterance in.
    """
    try:
        from pesq import PesqError
        from pesq import pesq as measure
    except ImportError as error:
        raise AffgenError("PESQ needs the package pesq; install affgen[eval]") from error
    import soxr

    _check_pair(reference, copy)
    if not (np.any(reference) and np.any(copy)):  # PESQ divides by the peak
        raise AffgenError(f"PESQ finds nothing to compare in {len(reference)} samples: silence")
    ours, theirs = (soxr.resample(x.astype(np.float32), sample_rate, PESQ_RATE) for x in (reference, copy))
    try:
        return float(measure(PESQ_RATE, ours, theirs, "wb"))
    except (PesqError, ValueError) as error:
        raise AffgenError(f"PESQ finds nothing to compare in {len(reference)} samples: {_line(error)}") from error


def align(reference: np.ndarray, copy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut the two waves to the stretch they share once a constant delay of up to 512 samples is taken out.

    The delay, in steps of 32 samples, is the one at which the log-energies of short frames differ least.
    """
    ours, theirs = _short_levels(reference), _short_levels(copy)
    count = min(len(ours), len(theirs))
    steps = min(MAX_DELAY // DELAY_STEP, count // 2)
    delays = sorted(range(-steps, steps + 1), key=abs)  # of equals, the smallest

    def cost(delay: int) -> float:
        first, last = max(0, -delay), count - max(0, delay)
        return float(np.mean(np.abs(ours[first:last] - theirs[first + delay : last + delay])))

    delay = min(delays, key=cost) * DELAY_STEP if count else 0
    reference, copy = reference[max(0, -delay) :], copy[max(0, delay) :]
    length = min(len(reference), len(copy))
    return reference[:length], copy[:length]


# ------------------------------------------------------------------------------- of what a pitch tracker found


def f0_error(reference: np.ndarray, copy: np.ndarray) -> tuple[float, float]:
    """Mean absolute and root mean square difference of two F0 contours (T,), in cents.

    Over the frames that are voiced (above 0) in both; NaN where there are none. The mean square is that of CARGAN
    (Morrison et al. 2022); octave errors weigh heavily in it.
    """
    _check_pair(reference, copy)
    both = (reference > 0) & (copy > 0)
    if not both.any():
        return float("nan"), float("nan")
    cents = 1200 * np.log2(copy[both].astype(np.float64) / reference[both])
    return float(np.mean(np.abs(cents))), float(np.sqrt(np.mean(cents**2)))


def voicing_error(reference: np.ndarray, copy: np.ndarray) -> float:
    """Share of the frames of two F0 contours (T,) that are voiced (above 0) in one and unvoiced in the other."""
    _check_pair(reference, copy)
    return float(np.mean((reference > 0) != (copy > 0)))


def periodicity_error(reference: np.ndarray, copy: np.ndarray) -> float:
    """Root mean square difference of two periodicities (T,) in 0..1 (Morrison et al. 2022, "CARGAN", section 4.3)."""
    _check_pair(reference, copy)
    return float(np.sqrt(np.mean((reference.astype(np.float64) - copy) ** 2)))


# ------------------------------------------------------------------------------------------------------- parts


def _check_pair(reference: np.ndarray, copy: np.ndarray) -> None:
    if reference.ndim != 1 or reference.shape != copy.shape or not reference.size:
        raise AffgenError(f"reference {reference.shape} and copy {copy.shape}: accepted are equal lengths (L,)")


def _decibels(samples: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.maximum(energy(samples), 1e-10))


@lru_cache(maxsize=4)
def _cosines(coefficients: int) -> np.ndarray:
    """Matrix (coefficients, 80) from ln-magnitudes at equally spaced places to c_1.. of a cosine series."""
    places = (np.arange(BANDS) + 0.5) / BANDS
    return 2 / BANDS * np.cos(np.pi * np.arange(1, coefficients + 1)[:, None] * places)


def _magnitudes(samples: np.ndarray, n_fft: int, hop: int, width: int) -> np.ndarray:
    """STFT magnitudes (T, n_fft / 2 + 1), windows centred on multiples of ``hop``, the wave mirrored at its ends."""
    from scipy.fft import rfft

    window = np.zeros(n_fft, np.float32)
    first = (n_fft - width) // 2
    window[first : first + width] = np.hanning(width + 1)[:-1]
    mirrored = np.pad(samples.astype(np.float32), n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(mirrored, n_fft)[::hop]
    return np.sqrt(np.maximum(np.abs(rfft(frames * window)) ** 2, 1e-7))


def _short_levels(samples: np.ndarray) -> np.ndarray:
    """Log-energy of frames of 256 samples every 32, 60 dB deep."""
    squares = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    power = (squares[HOP:] - squares[:-HOP])[::DELAY_STEP]
    return np.log(np.maximum(power, max(power.max(initial=0.0) * 1e-6, 1e-12)))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
