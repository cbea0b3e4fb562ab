"""Sound as the project passes it on: mono float32 samples with their rate; read, resampled, levelled and written.

:func:`read` gives a file whole, :func:`blocks` in pieces, so that an hour needs no more memory than seconds do; both
take ``-`` for standard input. :func:`read_scp` and :func:`blocks_scp` take the value of a line of a Kaldi ``wav.scp``,
a path or a command. What is accepted and what refused stands in :mod:`affgen.audio_read`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from affgen.audio_pipe import piped
from affgen.audio_read import MAX_SECONDS, checked, mono_pieces, opened
from affgen.errors import AffgenError
from affgen.files import atomic_path
from affgen.frames import SAMPLE_RATE
from affgen.loudness import loudness

if TYPE_CHECKING:
    from soundfile import SoundFile

__all__ = ["Audio", "blocks", "blocks_scp", "loudness", "normalise", "read", "read_scp", "resample", "resampled"]
__all__ += ["require_sound_file", "save_blocks"]

SUFFIXES = {".wav": "WAV", ".flac": "FLAC"}
MAX_RATE = 655_350  # what FLAC can hold

Source = AbstractContextManager[tuple[IO[bytes], str]]


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """``samples`` (L,) float32, full scale at -1 and 1, at ``sample_rate`` samples per second.

    Raises :class:`AffgenError` for samples of another shape or a rate outside 1..655,350 (what FLAC can hold).
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples, dtype=np.float32)
        if samples.ndim != 1:
            raise AffgenError(f"samples of shape {samples.shape}: accepted is mono, of shape (L,)")
        _check_rate(self.sample_rate)
        object.__setattr__(self, "samples", samples)  # frozen for everyone else

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    def save(self, path: str | Path) -> None:
        """Write 16-bit WAV or FLAC, as the suffix of ``path`` says, whole or not at all; beyond full scale is clipped.

        Raises :class:`AffgenError` for another suffix, no samples, samples that are not finite, or a folder that
        cannot be written to.
        """
        save_blocks(path, [self.samples], self.sample_rate)

    def wav(self) -> bytes:
        """Return the bytes of the 16-bit WAV file that :meth:`save` writes, for standard output; raises as it does."""
        import io

        buffer = io.BytesIO()
        _write(buffer, "WAV", [self.samples], self.sample_rate, "standard output")
        return buffer.getvalue()


def save_blocks(path: str | Path, blocks: Iterable[np.ndarray], sample_rate: int) -> None:
    """Write a sound that comes in ``blocks`` (L,) as :meth:`Audio.save` does, with one block in memory at a time."""
    path = require_sound_file(path)
    with atomic_path(path) as temporary:
        _write(temporary, SUFFIXES[path.suffix.lower()], blocks, sample_rate, str(path))


def require_sound_file(path: str | Path) -> Path:
    """Return ``path``; raises :class:`AffgenError` for a suffix that no sound can be written under."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise AffgenError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; accepted: .wav, .flac")
    return path


def _write(file: Path | IO[bytes], kind: str, blocks: Iterable[np.ndarray], sample_rate: int, name: str) -> None:
    import soundfile

    with soundfile.SoundFile(file, "w", sample_rate, 1, subtype="PCM_16", format=kind) as sound:
        for block in blocks:
            if not np.isfinite(block).all():
                raise AffgenError(f"{name}: not written, {np.sum(~np.isfinite(block))} samples are not finite")
            sound.write(block.clip(-1, 1))
        if not sound.frames:
            raise AffgenError(f"{name}: there are no samples to write")


def read(path: str | Path, *, sample_rate: int | None = None, max_seconds: float = MAX_SECONDS) -> Audio:
    """Read a sound file as mono, its channels averaged, at its own rate or resampled to ``sample_rate``.

    Raises :class:`AffgenError`, one line that begins with ``path``, for what :mod:`affgen.audio_read` does not accept:
    other formats, a damaged file, more than 8 channels or ``max_seconds``, samples that are not finite.
    """
    return _whole(opened(path), sample_rate, max_seconds)


def read_scp(value: str, *, sample_rate: int | None = None, max_seconds: float = MAX_SECONDS) -> Audio:
    """Read what a line of a ``wav.scp`` names: a path, or the output of a command that ends in ``|``.

    Raises :class:`AffgenError` as :func:`read` does, and for a command that fails (:mod:`affgen.audio_pipe`).
    """
    return _whole(_scp(value), sample_rate, max_seconds)


def blocks(
    path: str | Path, *, sample_rate: int = SAMPLE_RATE, seconds: float = 10.0, max_seconds: float = MAX_SECONDS
) -> Iterator[np.ndarray]:
    """Yield a sound file as mono blocks (L,) float32 of ``seconds`` at ``sample_rate``, the last one shorter.

    Put together they are what :func:`read` gives; there is at least one, and none is empty. Raises as :func:`read`
    does, at the block where it comes to light.
    """
    return _pieces(opened(path), sample_rate, seconds, max_seconds)


def blocks_scp(
    value: str, *, sample_rate: int = SAMPLE_RATE, seconds: float = 10.0, max_seconds: float = MAX_SECONDS
) -> Iterator[np.ndarray]:
    """Yield what a line of a ``wav.scp`` names as :func:`blocks` does."""
    return _pieces(_scp(value), sample_rate, seconds, max_seconds)


def resample(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Return ``samples`` (L,) at ``rate`` as float32 (L,) at ``to`` samples per second (soxr, high quality)."""
    import soxr

    _check_rate(rate)
    _check_rate(to)
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1:
        raise AffgenError(f"samples of shape {samples.shape}: accepted is mono, of shape (L,)")
    return samples if rate == to else soxr.resample(samples, rate, to, quality="HQ")


def normalise(audio: Audio, lufs: float = -23.0) -> Audio:
    """Return ``audio`` at a loudness of ``lufs`` LUFS; silence stays as it is.

    Nothing is limited: peaks may pass full scale, and are clipped only when written. Raises :class:`AffgenError` for
    a target that is not finite, and as :func:`affgen.loudness.loudness` does.
    """
    if not math.isfinite(lufs):
        raise AffgenError(f"a loudness of {lufs} LUFS; accepted: a finite number")
    measured = loudness(audio.samples, audio.sample_rate)
    if math.isinf(measured):
        return audio
    return Audio(audio.samples * np.float32(10 ** ((lufs - measured) / 20)), audio.sample_rate)


def _scp(value: str) -> Source:
    return piped(value) if value.rstrip().endswith("|") else opened(value.strip())


def _whole(source: Source, sample_rate: int | None, max_seconds: float) -> Audio:
    with source as (file, name), checked(file, name, max_seconds) as sound:
        rate = sound.samplerate if sample_rate is None else sample_rate
        return Audio(np.concatenate(list(_decoded(sound, name, rate, max_seconds))), rate)


def _pieces(source: Source, sample_rate: int, seconds: float, max_seconds: float) -> Iterator[np.ndarray]:
    if not 0 < seconds < math.inf:
        raise AffgenError(f"blocks of {seconds} s; accepted: a length above 0")
    with source as (file, name), checked(file, name, max_seconds) as sound:
        size, kept, count = max(1, round(seconds * sample_rate)), [], 0
        for piece in _decoded(sound, name, sample_rate, max_seconds):
            for start in range(-count, len(piece), size):
                part = piece[max(0, start) : start + size]
                kept.append(part)
                count += len(part)
                if count == size:
                    yield np.concatenate(kept)
                    kept, count = [], 0
        if kept:
            yield np.concatenate(kept)


def _decoded(sound: SoundFile, name: str, rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """Yield ``sound`` as mono pieces at ``rate``, one at least."""
    empty = True
    for piece in resampled(mono_pieces(sound, name, max_seconds), sound.samplerate, rate):
        empty = False
        yield piece
    if empty:
        raise AffgenError(f"{name}: is shorter than one sample at {rate} Hz; accepted: longer sounds")


def resampled(pieces: Iterable[np.ndarray], rate: int, to: int) -> Iterator[np.ndarray]:
    """Yield ``pieces`` (L,) of one sound at ``rate`` as pieces at ``to`` that join without a seam."""
    _check_rate(rate)
    _check_rate(to)
    if rate == to:
        yield from pieces
        return
    import soxr

    stream = soxr.ResampleStream(rate, to, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        made = stream.resample_chunk(piece)
        if len(made):
            yield made
    made = stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
    if len(made):
        yield made


def _check_rate(rate: int) -> None:
    if not 1 <= rate <= MAX_RATE:
        raise AffgenError(f"sample rate of {rate}: accepted are 1..{MAX_RATE} per second")
