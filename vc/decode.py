"""A source and a plan to a mel, chunk by chunk: what the decoder is given, and how its flow is followed.

What the decoder misses of a frame of the source, :meth:`Decoding.missed`, is added to what it makes of that frame: so
words and voice are those of the recording, and the decoder alone decides what an emotion changes (the idea of the
spectral differential: Kobayashi et al. 2014, "Statistical singing voice conversion with direct waveform modification
based on the spectrum differential").

The noise of a frame depends on its place and the seed alone, and each chunk is decoded with all the frames around it
that it depends on: a file made in chunks is the file made whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from affgen.features import Features
from affgen.speaker import SpeakerEncoder
from affgen.vocoder.source import fill_gaps
from vc import content
from vc.diffusion import SDE, sampler, score_of, seeded
from vc.model import Decoder, Given
from vc.prosody import Plan

CHUNK = 512
"""Frames decoded at once, about 6 s."""
SILENT = -9.0
"""A recording whose loudest frame has less log energy (nepers) is silence."""
LONG = 4096
"""Frames, 48 s, looked at together where an hour at once would need too much memory."""
AROUND = 10
"""Frames before and after speech, 0.1 s, that count as belonging to it."""
SPEECH, PAUSE = -3.5, -5.0
"""Log energy of levelled frames: from here up there is speech, from here down a pause."""
UNVOICED = 0.4
"""Share of what the decoder makes of sounds without voice that is used; the rest is the source."""
MOST_MISSED = 3.0
"""Nepers (26 dB) of a band: more is no detail of a voice, but a decoder that has gone wrong."""


@dataclass(frozen=True, eq=False)
class Voice:
    """What is known of a speaker: ``vector`` (192,), ``timbre`` (C,), ``register`` in log2 Hz; ``level`` in nepers."""

    vector: np.ndarray
    timbre: np.ndarray
    register: float
    level: float


def is_silent(features: Features) -> bool:
    """Whether a recording holds no sound to speak of."""
    return float(content.log_energy(features.mel).max()) < SILENT


def analyse(features: Features, speakers: SpeakerEncoder, cepstra: int) -> tuple[Voice, np.ndarray]:
    """Return what a recording that is not silent tells of its speaker, and its levelled log energy (T,)."""
    energy = content.log_energy(features.mel)
    level = content.level(energy)
    loud = content.active(energy)
    total = np.zeros(cepstra)
    for first in range(0, len(energy), LONG):
        part = slice(first, first + LONG)
        mel = content.levelled(features.mel[:, part], level)
        total += content.cepstra(mel, features.f0[part], cepstra)[:, loud[part]].sum(axis=1)
    timbre = (total / loud.sum()).astype(np.float32)
    vector = speakers.embed_mel(features.mel[:, near(loud)])
    voice = Voice(vector, timbre, content.register(features.f0), level)
    return voice, content.levelled_energy(energy, level)


def near(loud: np.ndarray) -> np.ndarray:
    """Return which frames (T,) are speech or :data:`AROUND` frames from it: long pauses tell nothing of a speaker."""
    found: np.ndarray = np.convolve(loud, np.ones(2 * AROUND + 1), mode="same")[: len(loud)] > 0
    return found


@dataclass(frozen=True)
class Decoding:
    """How to follow the flow: which of :data:`vc.diffusion.SAMPLERS` in how many steps, with what ``spread``;
    ``temperature`` is the deviation of the noise, 1 as trained; ``guidance`` 1 is as trained; ``seed`` of the noise.
    """

    decoder: Decoder
    sampler: str
    steps: int
    spread: float
    temperature: float = 1.0
    guidance: float = 1.0
    seed: int = 0

    @property
    def reach(self) -> int:
        """Frames on either side that a frame of the mel depends on."""
        return self.decoder.reach(self.steps * (2 if self.sampler == "midpoint" else 1))

    def mel(
        self, features: Features, voice: Voice, energy: np.ndarray, plan: Plan, emotion: np.ndarray, origin: np.ndarray
    ) -> np.ndarray:
        """Return the levelled mel (80, T') of ``plan``, for the coordinates ``emotion`` (T', K).

        ``energy`` (T,) is the levelled log energy of the source, ``origin`` (K,) the emotion it has already. Pauses are
        those of the source.
        """
        total, reach, parts = len(plan.places), self.reach, []
        pitch, still = np.log2(fill_gaps(plan.f0)), unchanged(features.f0, energy)
        own = np.log2(fill_gaps(still.f0))
        for first in range(0, total, CHUNK):
            last = min(first + CHUNK, total)
            low, high = max(0, first - reach), min(total, last + reach)
            given = given_of(features, voice, plan, pitch, emotion, slice(low, high))
            made = self.sample(given, low)[:, first - low : last - low]
            part, where = _stretch(features, plan.places[first:last])
            missed = content.between(self.missed(features, voice, still, own, origin, part), where)
            parts.append(finished(made + missed, features, voice, plan, slice(first, last)))
        return np.concatenate(parts, axis=1)

    @torch.inference_mode()
    def sample(self, given: Given, start: int) -> np.ndarray:
        """Return the levelled mel (80, T) of what is ``given`` for one item, whose first frame is number ``start``."""
        decoder, guidance = self.decoder, self.guidance
        average, hidden, condition = decoder.average(given)
        without = None
        if guidance != 1:
            without = decoder.average(replace(given, told=torch.zeros_like(given.told)))
            average = without[0] + guidance * (average - without[0])

        def velocity(noisy: Tensor, time: Tensor) -> Tensor:
            found = decoder.velocity(noisy, time, hidden, condition)
            if without is None:
                return found
            other = decoder.velocity(noisy, time, *without[1:])
            return other + guidance * (found - other)

        drawn, nought = seeded([self.seed], average, start), torch.zeros_like(average)

        def noise(step: int) -> Tensor:
            return self.temperature * drawn(step)

        flow = self.sampler in ("flow", "midpoint")
        process = SDE(spread=self.spread)
        network = velocity if flow else score_of(velocity, nought, process)
        residual = sampler(self.sampler)(network, noise(0), nought, self.steps, sde=process, noise=noise)
        mel: np.ndarray = decoder.finished(average, residual)[0].numpy()
        return mel

    @torch.inference_mode()
    def missed(
        self, features: Features, voice: Voice, still: Plan, pitch: np.ndarray, origin: np.ndarray, part: slice
    ) -> np.ndarray:
        """Return what the decoder misses of frames ``part`` of the source, (80, t): their envelope less that of a copy.

        The copy is the average mel in the emotion ``origin`` (K,) that the source has; ``still`` is the plan that
        changes nothing (:func:`unchanged`), ``pitch`` (T,) its log2 F0 without gaps.
        """
        reach = self.decoder.reach(0)
        low, high = max(0, part.start - reach), min(len(features), part.stop + reach)
        rows = np.broadcast_to(origin, (len(features), len(origin)))
        average = self.decoder.average(given_of(features, voice, still, pitch, rows, slice(low, high)))[0]
        copy = self.decoder.finished(average, torch.zeros_like(average))[0, :, part.start - low : part.stop - low]
        f0, mel = features.f0[part], content.levelled(features.mel[:, part], voice.level)
        missed = content.envelope(mel, f0) - content.envelope(copy.numpy(), f0)
        return np.clip(missed, -MOST_MISSED, MOST_MISSED)


def unchanged(f0: np.ndarray, energy: np.ndarray) -> Plan:
    """Return the plan that leaves ``f0`` (T,) and ``energy`` (T,) as they are."""
    return Plan(np.arange(len(f0), dtype=np.float64), f0, energy, np.zeros(len(f0)))


def finished(mel: np.ndarray, features: Features, voice: Voice, plan: Plan, part: slice) -> np.ndarray:
    """Return a decoded ``mel`` (80, t) of frames ``part`` at the energy that was planned; more of the source where that
    has no voice, and the source itself in pauses.

    An emotion colours the voice. What twins teach of other sounds is partly how badly they are aligned: it costs
    likeness of the speaker, and is little heard as emotion. Sampling leaves a little noise in the energy of a frame,
    which would be heard as roughness.
    """
    within, where = _stretch(features, plan.places[part])
    source = content.between(features.mel[:, within] - voice.level, where)
    mel = np.where(plan.f0[part] > 0, mel, source + UNVOICED * (mel - source))
    mel = mel + (plan.energy[part] - content.log_energy(mel))
    speech = np.clip((content.log_energy(source) - PAUSE) / (SPEECH - PAUSE), 0, 1)
    found: np.ndarray = source + speech * (mel - source)
    return found


def given_of(
    features: Features, voice: Voice, plan: Plan, pitch: np.ndarray, emotion: np.ndarray, part: slice
) -> Given:
    """Return what the decoder is given for frames ``part`` of ``plan``: ``pitch`` (T',) log2 F0 without gaps, emotion
    (T', K).
    """
    return Given(
        _row(spoken(features, voice, plan.places[part])),
        *(_row(content.ripple(plan.f0[part])), _row(plan.energy[part]), _row(pitch[part]), _row(plan.f0[part] > 0)),
        *(_row(voice.vector), _row(voice.timbre), torch.tensor([voice.register], dtype=torch.float32)),
        *(_row(emotion[part].T), torch.ones(1)),
    )


def spoken(features: Features, voice: Voice, places: np.ndarray) -> np.ndarray:
    """Return the content (C, T') of a source at ``places`` (T'), fractions of frames, linearly interpolated."""
    part, where = _stretch(features, places)
    mel = content.levelled(features.mel[:, part], voice.level)
    return content.between(content.cepstra(mel, features.f0[part], len(voice.timbre)) - voice.timbre[:, None], where)


def _stretch(features: Features, places: np.ndarray) -> tuple[slice, np.ndarray]:
    """Return the frames of ``features`` that ``places`` (T') lie in, and the places counted from the first."""
    first = int(np.clip(np.floor(places.min()), 0, len(features) - 1))
    last = int(np.clip(np.ceil(places.max()), 0, len(features) - 1)) + 1
    return slice(first, last), places - first


def _row(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None]
