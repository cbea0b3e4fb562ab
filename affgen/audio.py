"""Sound as the project passes it on: mono float32 samples with their rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affgen.errors import AffgenError
from affgen.files import atomic_path

SUFFIXES = {".wav": "WAV", ".flac": "FLAC"}


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
        if not 1 <= self.sample_rate <= 655_350:
            raise AffgenError(f"sample rate of {self.sample_rate}: accepted are 1..655350 per second")
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
        import soundfile

        path = Path(path)
        if path.suffix.lower() not in SUFFIXES:
            raise AffgenError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; accepted: .wav, .flac")
        if not self.samples.size:
            raise AffgenError(f"{path}: there are no samples to write")
        if not np.isfinite(self.samples).all():
            raise AffgenError(f"{path}: not written, {np.sum(~np.isfinite(self.samples))} samples are not finite")
        with atomic_path(path) as temporary:
            kind = SUFFIXES[path.suffix.lower()]
            soundfile.write(temporary, self.samples.clip(-1, 1), self.sample_rate, subtype="PCM_16", format=kind)
