"""A recording in another emotion: the words and the voice stay, prosody and colour move by as much as is asked for.

=====================  ============================================================================================
step                   what happens
=====================  ============================================================================================
:func:`analyse`        features, level, and what tells the speaker: embedding, timbre, register
:func:`wanted`         emotion and intensity as a strength of every label at every frame, calibrated
``prosody.plan``       where each new frame reads the source, its F0 and its energy
:class:`Decoding`      content, plan, voice and emotion to a mel, chunk by chunk
``vocoder.stream``     mel and F0 to sound, at the level of the source and what the emotion adds
=====================  ============================================================================================

Nothing is kept between calls; equal arguments give equal samples. Intensity 0 gives back the source itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affgen.audio import Audio, blocks, read, require_sound_file, resample, save_blocks
from affgen.emotion.labels import resolve
from affgen.emotion.spec import Clock, Curve, Emotion, parse_emotion, parse_intensity, require_labels
from affgen.errors import AffgenError
from affgen.features import HOP, SAMPLE_RATE, Features, extract_blocks
from affgen.features import energy as energy_of
from affgen.speaker import SpeakerEncoder
from affgen.vocoder import Vocoder
from vc.config import GUIDANCE, MOST_STEPS
from vc.decode import Decoding, Voice, analyse, is_silent
from vc.pack import SHIPPED, Parts, unpack
from vc.prosody import Plan
from vc.wanted import Strengths, like_reference, wanted

FRAME_RATE = SAMPLE_RATE / HOP
PEAK = 0.9
"""Samples beyond this are bent so that none passes 1."""
DB = 20 / np.log(10)
"""Decibels in a neper."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """What came of a recording: ``audio``; features of the source and those the result was made from; ``intensity``
    (T,) asked for, per frame of the result; ``warnings`` for the user.
    """

    audio: Audio
    source: Features
    features: Features
    intensity: np.ndarray
    warnings: list[str]


@dataclass(frozen=True)
class FileReport:
    """What :meth:`VoiceConverter.convert_file` wrote: its length in seconds, and warnings for the user."""

    seconds: float
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked for, checked: emotion and intensity, or the coordinates (K,) of a reference; how to get there."""

    emotion: Emotion
    intensity: Curve
    reference: np.ndarray | None
    source_emotion: str
    steps: int
    guidance: float
    keep_duration: bool
    seed: int


@dataclass(frozen=True, eq=False)
class _Made:
    """A conversion before it is sound: levelled mel (80, T') and what goes with it."""

    mel: np.ndarray
    plan: Plan
    voice: Voice
    intensity: np.ndarray


class VoiceConverter:
    """The model with what it needs around it; :meth:`from_pretrained` gives the one shipped in the package."""

    def __init__(self, parts: Parts, speakers: SpeakerEncoder | None = None, vocoder: Vocoder | None = None):
        self.parts = parts
        self.speakers = speakers or SpeakerEncoder.from_pretrained()
        self.vocoder = vocoder or Vocoder.from_pretrained()

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None) -> VoiceConverter:
        """Load a model directory, by default the shipped one. Raises :class:`ModelError`."""
        return cls(unpack(SHIPPED if model is None else model))

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions the model has, neutral first."""
        return self.parts.feeling.labels

    @property
    def steps(self) -> int:
        """Steps of the sampler when nothing else is asked for."""
        return self.parts.config.steps

    def variant(self, *, rank: int | None = None, difference: bool = False, none: bool = False) -> VoiceConverter:
        """Return an ablation: ``rank`` directions alone, plain ``difference`` of means in place of the prototypes, or
        ``none``, where prosody moves and the decoder is told nothing.
        """
        feeling = self.parts.feeling
        if difference:
            feeling = replace(feeling, prototypes=feeling.plain)
        if none or rank is not None:
            feeling = feeling.keeping(0 if none else int(rank or 0))
        return self.having(feeling=feeling)

    def having(self, **parts: Any) -> VoiceConverter:
        """Return a converter with other :class:`vc.pack.Parts`, named by keyword."""
        return VoiceConverter(replace(self.parts, **parts), self.speakers, self.vocoder)

    def convert(
        self,
        source: str | Path | Audio,
        emotion: str | Emotion = "neutral",
        intensity: float | str | Curve = 1.0,
        **how: Any,
    ) -> Audio:
        """Return ``source`` in another emotion, 22,050 Hz mono; arguments as of :meth:`run`."""
        return self.run(source, emotion, intensity, **how).audio

    def run(
        self,
        source: str | Path | Audio,
        emotion: str | Emotion = "neutral",
        intensity: float | str | Curve = 1.0,
        **how: Any,
    ) -> Conversion:
        """Convert ``source``, a file or sound of any rate, and tell how.

        ``how`` are the keywords of :meth:`request`. Silence gives silence and a warning. Raises :class:`AffgenError`
        for sound shorter than 1,024 samples at 22,050 Hz and for what :meth:`request` refuses.
        """
        request = self.request(emotion, intensity, **how)
        audio = source if isinstance(source, Audio) else read(source)
        samples = resample(audio.samples, audio.sample_rate, SAMPLE_RATE)
        features = extract_blocks([samples])
        warnings = self._warnings(features, request)
        peak = float(np.abs(samples).max())
        made = self._made(features, request)
        if made is None:
            return Conversion(
                Audio(samples, SAMPLE_RATE), features, features, np.zeros(len(features), np.float32), warnings
            )
        sound = np.concatenate(list(self._sound(made, peak, request.seed)))
        mel = made.mel + made.voice.level
        return Conversion(
            Audio(sound, SAMPLE_RATE),
            features,
            Features(mel, made.plan.f0, energy_of(sound)),
            made.intensity,
            warnings,
        )

    def convert_file(
        self,
        source: str | Path,
        out: str | Path,
        emotion: str | Emotion = "neutral",
        intensity: float | str | Curve = 1.0,
        **how: Any,
    ) -> FileReport:
        """Convert a file of any length with bounded memory, and write WAV or FLAC, whole or not at all.

        An hour takes some 450 MB more than a few seconds. Raises as :meth:`run`.
        """
        require_sound_file(out)
        request = self.request(emotion, intensity, **how)
        heard = _Heard(blocks(source))
        features = extract_blocks(heard)
        warnings = self._warnings(features, request)
        made, count = self._made(features, request), 0

        def counted(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            nonlocal count
            for part in parts:
                count += len(part)
                yield part

        sound = blocks(source) if made is None else self._sound(made, heard.peak, request.seed)
        save_blocks(out, counted(sound), SAMPLE_RATE)
        return FileReport(count / SAMPLE_RATE, warnings)

    def stream(
        self,
        parts: Iterable[np.ndarray],
        sample_rate: int,
        emotion: str | Emotion = "neutral",
        intensity: float | str | Curve = 1.0,
        **how: Any,
    ) -> Iterator[np.ndarray]:
        """Convert a sound that arrives in ``parts`` (L,) while it arrives: see :mod:`vc.stream`.

        Yields samples at 22,050 Hz, as many as arrive. What tells the speaker is learned on the way; timing is kept.
        """
        from vc.stream import stream

        return stream(self, parts, sample_rate, self.request(emotion, intensity, **how))

    def request(
        self,
        emotion: str | Emotion = "neutral",
        intensity: float | str | Curve = 1.0,
        *,
        reference: str | Path | Audio | None = None,
        source_emotion: str = "neutral",
        steps: int | None = None,
        guidance: float | None = None,
        keep_duration: bool = False,
        seed: int = 0,
    ) -> Request:
        """Return what is asked for, checked.

        ``emotion`` and ``intensity`` are those of :mod:`affgen.emotion.spec`; ``reference`` a clip whose emotion is
        taken instead; ``source_emotion`` what the source is in already; ``guidance`` how far to go past what the
        emotion changes (1: as trained). Raises :class:`AffgenError` for labels that the model lacks, values out of
        range, a reference that is silent, and a reference together with an emotion.
        """
        asked, curve, origin = parse_emotion(emotion), parse_intensity(intensity), resolve(source_emotion)
        if origin not in self.labels:
            raise AffgenError(f"source emotion {origin}: not in this model; model has: {', '.join(self.labels)}")
        require_labels(asked, (*self.labels, "Q1", "Q2", "Q3", "Q4"))
        steps = self.steps if steps is None else steps
        if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
            raise AffgenError(f"{steps} steps; accepted: 1 to {MOST_STEPS}")
        guidance = 1.0 if guidance is None else guidance
        if not isinstance(seed, int) or seed < 0:
            raise AffgenError(f"seed {seed!r}; accepted: whole numbers from 0")
        if not isinstance(guidance, (int, float)) or not GUIDANCE[0] <= guidance <= GUIDANCE[1]:
            raise AffgenError(f"guidance {guidance}; accepted: {GUIDANCE[0]:g} to {GUIDANCE[1]:g}, 1 is as trained")
        if reference is not None and asked != parse_emotion("neutral"):
            raise AffgenError(f"emotion {asked} and a reference; accepted: one of them")
        clip = None if reference is None else self._heard_in(reference)
        return Request(asked, curve, clip, origin, steps, guidance, keep_duration, seed)

    def _heard_in(self, reference: str | Path | Audio) -> np.ndarray:
        """Coordinates (K,) of the emotion in a reference clip."""
        from affgen.emotion.encoder import EmotionEncoder

        name = "the reference" if isinstance(reference, Audio) else str(reference)
        audio = reference if isinstance(reference, Audio) else read(reference)
        try:
            return self.parts.feeling.coordinates(EmotionEncoder.from_pretrained().encode(audio).embedding)
        except AffgenError as error:
            raise AffgenError(f"{name}: {error}") from error

    def _warnings(self, features: Features, request: Request) -> list[str]:
        if is_silent(features):
            return ["the recording is silent; it is given back as it is"]
        found = []
        if not (features.f0 > 0).any():
            found.append("no voice was found in the recording: without F0 little of an emotion can be changed")
        return found + self._limits(features, request)

    def _limits(self, features: Features, request: Request) -> list[str]:
        """Say for each label that is asked for beyond what the calibration has found to be heard."""
        calibration, asked = self.parts.calibration, self.strengths(request, *_clock(features))
        limits = dict(zip(self.labels, calibration.reached, strict=True))
        highest = asked.asked.max()
        used = [name for name, row in zip(self.labels[1:], asked.labels.T, strict=True) if row.any()]
        return [
            f"{name}: beyond intensity {limits[name]:.2f} this model is hardly heard to go further"
            for name in used
            if highest > limits[name] + 0.05
        ]

    def strengths(self, request: Request, seconds: np.ndarray, clock: Clock | None = None) -> Strengths:
        """Return what ``request`` wants at the moments ``seconds`` (T,) of something as long as ``clock`` says."""
        if request.reference is not None:
            found = like_reference(request.reference, request.intensity, self.parts, seconds, clock)
        else:
            found = wanted(request.emotion, request.intensity, self.parts, seconds, clock)
        return found.from_source(request.source_emotion, self.parts)

    def decoding(self, request: Request) -> Decoding:
        """Return how the decoder is to be followed."""
        config = self.parts.config
        how = request.steps, config.spread, config.temperature, request.guidance, request.seed
        return Decoding(self.parts.decoder, config.sampler, *how)

    def _made(self, features: Features, request: Request) -> _Made | None:
        """Plan and decode; None where there is nothing to change: silence, or no emotion at all."""
        if is_silent(features):
            return None
        parts = self.parts
        strengths = self.strengths(request, *_clock(features))
        if not strengths.change:
            return None
        voice, energy = analyse(features, self.speakers, parts.config.decoder.cepstra)
        plan = parts.prosody.plan(
            features.f0, energy, strengths.labels, keep_duration=request.keep_duration, anchor=strengths.anchor
        )
        emotion = _along(strengths.emotion, plan.places)
        mel = self.decoding(request).mel(features, voice, energy, plan, emotion, strengths.origin)
        return _Made(mel, plan, voice, _along(strengths.asked, plan.places).astype(np.float32))

    def _sound(self, made: _Made, peak: float, seed: int) -> Iterator[np.ndarray]:
        """Yield the wave: what the emotion adds to the level stays within what full scale leaves."""
        first = 0
        for part in self.vocoder.stream(made.mel + made.voice.level, made.plan.f0, seed=seed):
            yield amplified(part, first, made.plan.gain_db, peak)
            first += len(part)


class _Heard:
    """Blocks of a sound as they pass, and their peak."""

    def __init__(self, parts: Iterable[np.ndarray]):
        self.parts, self.peak = parts, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.parts:
            self.peak = max(self.peak, float(np.abs(part).max()))
            yield part


def amplified(samples: np.ndarray, first: int, gain_db: np.ndarray, peak: float) -> np.ndarray:
    """Return ``samples`` (L,), from number ``first`` on of a sound, louder by ``gain_db`` (T,) of its frames.

    No louder than a sound of that ``peak`` can be made; what still goes beyond :data:`PEAK` is bent below 1.
    """
    room = max(float(DB * np.log(PEAK / max(peak, 1e-4))), 0.0)
    frames = (first + np.arange(len(samples)) + 0.5) / HOP - 0.5
    gain = np.interp(frames, np.arange(len(gain_db)), np.minimum(gain_db, room))
    louder = samples * np.exp(gain / DB)
    over = np.abs(louder) - PEAK
    bent = np.sign(louder) * (PEAK + (1 - PEAK) * np.tanh(over / (1 - PEAK)))
    return np.where(over > 0, bent, louder).astype(np.float32)


def _clock(features: Features) -> tuple[np.ndarray, Clock]:
    """Return the middles of the frames in seconds (T,), and the length of it all."""
    return (np.arange(len(features)) + 0.5) / FRAME_RATE, Clock(len(features) / FRAME_RATE)


def _along(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return ``values`` (T, ...) at ``places`` (T'), linearly interpolated."""
    where = np.clip(places, 0, len(values) - 1)
    left = np.minimum(where.astype(int), max(0, len(values) - 2))
    share = (where - left).reshape(-1, *[1] * (values.ndim - 1))
    found: np.ndarray = values[left] * (1 - share) + values[np.minimum(left + 1, len(values) - 1)] * share
    return found
