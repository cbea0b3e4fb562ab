"""The aligner: sound and its text to segments; sound alone to pseudo-phonemes."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch.nn.functional as F

from affgen.align import sphinx
from affgen.align.lexicon import pronounce
from affgen.align.pack import SHIPPED, Parts, hidden, unpack
from affgen.align.path import segments
from affgen.align.phones import SILENCE, checked
from affgen.align.segments import FRAME_S, Segment
from affgen.align.singing import slowed, speechlike
from affgen.align.train import log_scores
from affgen.audio import Audio, read, resample
from affgen.errors import AffgenError
from affgen.features import BANDS, SAMPLE_RATE, Features, log_mel

METHODS = ("ctc", "sphinx")
Method = Literal["ctc", "sphinx"]
Sound = Audio | Features | np.ndarray | str | Path
"""A sound, its features, its log-mel (80, T), or the name of a sound file."""


class Aligner:
    """A trained aligner; holds no state between calls."""

    def __init__(self, parts: Parts):
        self.parts = parts

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None) -> Aligner:
        """Load a model directory, by default the shipped one. Raises :class:`ModelError`."""
        return cls(unpack(SHIPPED if model is None else model))

    def align(
        self,
        sound: Sound,
        text: str | None = None,
        language: str = "en",
        *,
        phones: list[str] | tuple[str, ...] | None = None,
        singing: bool = False,
    ) -> list[Segment]:
        """Return the segments of ``text`` or ``phones`` in ``sound``, silences included; they fill its frames.

        ``phones`` are of :data:`affgen.align.phones.PHONES`; ``sil`` among them is left out, silence is found where
        it is. With ``singing`` the sound is first made more like speech (:mod:`affgen.align.singing`).

        Raises :class:`AffgenError` for words and phones that are not known, for neither or both of text and phones,
        and for a sound too short to hold them.
        """
        wanted = _wanted(text, language, phones)
        if singing:
            return slowed(self.align(speechlike(_audio(sound)), phones=wanted))
        parts = self.parts
        scores = log_scores(parts.network, parts.prior, _mel(sound), parts.config.path.prior)
        return segments(scores, wanted, parts.config.path, parts.offsets)

    def posteriors(self, sound: Sound) -> np.ndarray:
        """Return the probability of each phone in each frame, (T, V) float32."""
        parts = self.parts
        scores = log_scores(parts.network, parts.prior, _mel(sound), 0.0)
        return F.softmax(scores, dim=1).numpy()

    def units(self, sound: Sound) -> np.ndarray:
        """Return the pseudo-phoneme of each frame, (T,) int64 from 0; needs no text and knows no language."""
        settings = self.parts.config.units
        features = hidden(self.parts.network, _mel(sound))
        return self.parts.codebook.units(features, settings.switch, settings.shortest)

    def unit_segments(self, sound: Sound) -> list[Segment]:
        """Return the runs of :meth:`units` as segments named ``u0``, ``u1``, ..."""
        return runs(self.units(sound))


def runs(units: np.ndarray) -> list[Segment]:
    """Return the runs of units (T,) as segments named ``u0``, ``u1``, ..."""
    edges = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)] if len(units) else [0]
    return [Segment(a * FRAME_S, b * FRAME_S, f"u{int(units[a])}") for a, b in pairwise(edges)]


def align(
    sound: Sound,
    text: str | None = None,
    language: str = "en",
    *,
    phones: list[str] | tuple[str, ...] | None = None,
    method: Method = "ctc",
    singing: bool = False,
    model: str | Path | None = None,
) -> list[Segment]:
    """Return the segments of ``text`` or ``phones`` in ``sound`` by the shipped aligner or by pocketsphinx.

    ``sphinx`` takes English text and sound only. Raises as :meth:`Aligner.align` and :func:`affgen.align.sphinx.align`
    do, and for an unknown method.
    """
    if method not in METHODS:
        raise AffgenError(f"method {method!r}; accepted: {', '.join(METHODS)}")
    if method == "ctc":
        return _loaded(model).align(sound, text, language, phones=phones, singing=singing)
    if language != "en" or not text or phones is not None:
        raise AffgenError("pocketsphinx aligns English text; for other languages and for phones use method 'ctc'")
    audio = _audio(sound)
    return slowed(sphinx.align(speechlike(audio), text)) if singing else sphinx.align(audio, text)


@lru_cache(maxsize=1)
def _loaded(model: str | Path | None) -> Aligner:
    return Aligner.from_pretrained(model)


def _wanted(text: str | None, language: str, phones: list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    if (text is None) == (phones is None):
        raise AffgenError("give either the text or the phones that are spoken")
    if phones is not None:
        return tuple(phone for phone in checked(phones) if phone != SILENCE)
    return tuple(phone for word in pronounce(text or "", language) for phone in word.phones)


def _audio(sound: Sound) -> Audio:
    if isinstance(sound, (str, Path)):
        return read(sound)
    if not isinstance(sound, Audio):
        raise AffgenError("the sound itself is needed, not its features; give an Audio or a file")
    return sound


def _mel(sound: Sound) -> np.ndarray:
    if isinstance(sound, Features):
        mel = sound.mel
    elif isinstance(sound, np.ndarray):
        mel = sound
    else:
        audio = _audio(sound)
        mel = log_mel(resample(audio.samples, audio.sample_rate, SAMPLE_RATE))
    if mel.ndim != 2 or mel.shape[0] != BANDS or not mel.shape[1] or not np.isfinite(mel).all():
        raise AffgenError(f"log-mel of shape {mel.shape}: accepted is ({BANDS}, T) of finite values")
    return mel
