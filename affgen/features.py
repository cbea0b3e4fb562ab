"""The acoustic front end of every model: log-mel, energy and F0 of a sound at 22,050 Hz, as HiFi-GAN has them.

Frame ``t`` is centred on sample ``t * HOP + HOP / 2`` and ``L`` samples have ``T = L // HOP`` frames: the sound is
mirrored by ``(N_FFT - HOP) / 2`` samples at both ends and windows are not centred (Kong et al. 2020, "HiFi-GAN").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from affgen.audio import Audio, resample
from affgen.errors import AffgenError
from affgen.frames import HOP, MARGIN, SAMPLE_RATE, pieces
from affgen.pitch import Tracker

__all__ = ["BANDS", "FLOOR", "FMAX", "FMIN", "HOP", "N_FFT", "SAMPLE_RATE", "Features", "energy", "extract"]
__all__ += ["extract_blocks", "log_mel", "mel_filterbank"]

N_FFT = 1024
BANDS = 80
FMIN, FMAX = 0.0, 8000.0
FLOOR = 1e-5
"""Smallest magnitude in a mel band, before the logarithm."""
HEARD = int(FMAX * N_FFT / SAMPLE_RATE) + 1
"""Bins of the spectrum up to FMAX: the others weigh nothing in the mel."""
BATCH = 64
"""Frames that are transformed at once: their spectra stay in the second-level cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the models see of a sound, all float32.

    ``mel`` (80, T) are natural logarithms of magnitudes, ``f0`` (T,) is in Hz with 0 for unvoiced, ``energy`` (T,)
    the L2 norm of the frame's magnitude spectrum. Raises :class:`AffgenError` for shapes that do not agree.
    """

    mel: np.ndarray
    f0: np.ndarray
    energy: np.ndarray

    def __post_init__(self) -> None:
        for name in ("mel", "f0", "energy"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float32))
        shapes = self.mel.shape, self.f0.shape, self.energy.shape
        if shapes != ((BANDS, len(self)), (len(self),), (len(self),)):
            raise AffgenError(f"features of shapes {shapes}: accepted are mel ({BANDS}, T), f0 (T,) and energy (T,)")

    def __len__(self) -> int:
        return int(self.mel.shape[-1]) if self.mel.ndim else 0


def extract(audio: Audio) -> Features:
    """Features of a whole sound, resampled to 22,050 Hz where it has another rate.

    Raises :class:`AffgenError` for a sound shorter than a window of 1,024 samples, or samples that are not finite.
    """
    return extract_blocks([resample(audio.samples, audio.sample_rate, SAMPLE_RATE)])


def extract_blocks(blocks: Iterable[np.ndarray]) -> Features:
    """Features of a sound that comes in consecutive ``blocks`` (L,) at 22,050 Hz; equal to those of the whole.

    Besides the features themselves, memory holds one piece of six seconds and the F0 candidates (about 100 bytes per
    frame). Raises :class:`AffgenError` as :func:`extract` does.
    """
    tracker, parts = Tracker(), []
    for piece in pieces(blocks):
        tracker.feed(piece)
        parts.append(_spectra(piece))
    return Features(_joined([mel for mel, _ in parts]), tracker.finish()[0], np.concatenate([e for _, e in parts]))


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return the log-mel (80, T) float32 of ``samples`` (L,) at 22,050 Hz; raises as :func:`extract` does."""
    return _joined([_spectra(piece)[0] for piece in pieces([samples])])


def energy(samples: np.ndarray) -> np.ndarray:
    """Return the energy (T,) float32 of ``samples`` (L,) at 22,050 Hz: the L2 norm of each magnitude spectrum.

    As in FastSpeech 2 (Ren et al. 2021, section 2.3). Raises as :func:`extract` does.
    """
    return np.concatenate([_spectra(piece)[1] for piece in pieces([samples])])


@lru_cache(maxsize=1)
def mel_filterbank() -> np.ndarray:
    """Return the 80 triangles (80, 513) float32 on Slaney's mel scale, each of unit area in Hz.

    Linear below 1,000 Hz and logarithmic above (Slaney 1998, "Auditory Toolbox"), as librosa makes them by default.
    """
    low, high = _to_mel(FMIN), _to_mel(FMAX)
    corners = _to_hz(np.linspace(low, high, BANDS + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    area = 2 / (corners[2:] - corners[:-2])
    bank = (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)
    bank.flags.writeable = False
    return bank


def _to_mel(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def _to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def _spectra(piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel (80, n) and energy (n,) of the ``n`` frames of a piece."""
    parts = [_batch(frames) for frames in _batches(piece)]
    return np.concatenate([mel for mel, _ in parts], axis=1), np.concatenate([energy for _, energy in parts])


def _batches(piece: np.ndarray) -> Iterator[np.ndarray]:
    """Yield up to ``BATCH`` windowed frames (n, 1024) at a time."""
    start = MARGIN - (N_FFT - HOP) // 2
    frames = np.lib.stride_tricks.sliding_window_view(piece[start : len(piece) - start], N_FFT)[::HOP]
    for first in range(0, len(frames), BATCH):
        yield frames[first : first + BATCH] * _window()


def _batch(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.fft import rfft

    spectrum = rfft(frames)  # in double precision: in single it is off by 2e-5 in the log of weak bands
    spectrum = spectrum.astype(np.complex64)
    power = spectrum.real**2 + spectrum.imag**2
    mel = mel_filterbank()[:, :HEARD] @ np.sqrt(power[:, :HEARD]).T
    return np.log(np.maximum(mel, np.float32(FLOOR))), np.sqrt(power.sum(axis=1))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Join (80, n) parts along time, letting go of each as soon as it is copied."""
    out = np.empty((BANDS, sum(part.shape[1] for part in parts)), np.float32)
    at = 0
    for part in parts:
        out[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    return out
