"""Conversion of a sound while it arrives: a block goes out as soon as a few frames after it have been heard.

What a file tells at once has to be learned on the way: level, timbre, register and speaker embedding are those of
what was heard so far, begun from a middle voice; slopes over the phrase and durations are left out. Every block is made
with frames before it and ``AHEAD`` after it, and is faded into the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from affgen.audio import resampled
from affgen.features import BANDS, HOP, SAMPLE_RATE, Features, extract_blocks
from affgen.vocoder.source import fill_gaps
from affgen.vocoder.vocoder import start_phases
from vc import content
from vc.decode import SILENT, Voice, finished, given_of, near, unchanged
from vc.prosody import register

if TYPE_CHECKING:
    from vc.convert import Request, VoiceConverter

BLOCK = 8
"""Frames that go out at once, 93 ms."""
AHEAD = 6
"""Frames after a block that must have been heard, 70 ms."""
PAST = 32
"""Frames before a block that it is made with."""
EDGE = 2
"""Frames at the edges of a stretch whose features hang on what is mirrored there."""
PRIOR = 60
"""Active frames after which what was heard counts as much as the middle voice."""
RECENT = 2600
"""Frames, 30 s, that level and register are those of."""
EMBED_EVERY = 8
"""Blocks between two looks at the speaker."""


def stream(
    converter: VoiceConverter, parts: Iterable[np.ndarray], sample_rate: int, request: Request
) -> Iterator[np.ndarray]:
    """Yield the conversion of a sound that arrives in ``parts`` (L,), at 22,050 Hz, as many samples as arrive.

    Raises :class:`affgen.errors.AffgenError` for times in % of a length, which is not known here, and for samples that
    are not finite.
    """
    converter.strengths(request, np.zeros(1))  # refuses what needs a length, before anything is heard
    live = _Live(converter, request)
    waiting = np.zeros(0, np.float32)
    for part in resampled(parts, sample_rate, SAMPLE_RATE):
        waiting = np.concatenate([waiting, part])
        while len(waiting) >= (live.wants + EDGE) * HOP:
            waiting, block = live.advance(waiting, BLOCK)
            yield block
    left = len(waiting) - live.kept * HOP
    silence = np.zeros((AHEAD + EDGE + BLOCK) * HOP, np.float32)
    while left > 0:
        frames = min(BLOCK, -(-left // HOP))
        waiting, block = live.advance(np.concatenate([waiting, silence]), frames)
        waiting = waiting[: len(waiting) - len(silence)]
        yield block[:left]
        left -= len(block)


class _Live:
    """What is remembered between two blocks: samples are kept by :func:`stream`, ``kept`` frames of them from before.

    ``mel`` (80, n), ``f0`` (n,), ``energy`` (n,) of the last frames, at most PAST of them already out; ``pitch`` (n,)
    the contour they were made with, ``phase`` the cycles at which the first begins; ``tail`` the wave that the next
    block is faded into.
    """

    def __init__(self, converter: VoiceConverter, request: Request):
        self.converter, self.request = converter, request
        self.decoding = converter.decoding(request)
        self.done, self.kept, self.blocks = 0, 0, 0
        self.mel, self.f0 = np.zeros((BANDS, 0), np.float32), np.zeros(0, np.float32)
        self.pitch, self.phase, self.tail = np.zeros(0, np.float32), 0.0, np.zeros(HOP, np.float32)
        self.energies, self.pitches = np.zeros(0), np.zeros(0)
        self.spoken = PRIOR * converter.parts.decoder.timbre_mean.double().numpy()
        self.count, self.vector, self.peak = float(PRIOR), np.zeros(converter.speakers.dimension, np.float32), 0.0

    @property
    def wants(self) -> int:
        """Frames that must be there for the next block."""
        return self.kept + BLOCK + AHEAD

    def advance(self, samples: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Make the next ``frames`` frames; returns what is to be kept of ``samples`` (L,), and the wave."""
        count = self.kept + frames + AHEAD
        heard = extract_blocks([samples[: (count + EDGE) * HOP]])
        mel = np.concatenate([self.mel, heard.mel[:, self.kept : count]], axis=1)
        f0 = np.concatenate([self.f0, heard.f0[self.kept : count]])
        own = slice(self.kept, self.kept + frames)
        self.peak = max(self.peak, float(np.abs(samples[own.start * HOP : own.stop * HOP]).max()))
        self._learn(mel[:, own], f0[own])
        wave = self._wave(Features(mel, f0, np.exp(content.log_energy(mel))), own, samples)
        out = wave[: frames * HOP].copy()
        fade = np.linspace(0, 1, HOP, dtype=np.float32)
        if self.done:
            out[:HOP] = self.tail * (1 - fade) + out[:HOP] * fade
        self.tail = wave[frames * HOP : (frames + 1) * HOP]
        self.done += frames
        drop = max(0, self.kept + frames - PAST)
        self.mel, self.f0 = mel[:, drop : own.stop], f0[drop : own.stop]
        self.kept = own.stop - drop
        self.blocks += 1
        self.phase, self.pitch = float(start_phases_from(self.phase, self.pitch)[drop]), self.pitch[drop : own.stop]
        return samples[drop * HOP :], out

    def _learn(self, mel: np.ndarray, f0: np.ndarray) -> None:
        """Take the new frames into account: level, register, timbre and, now and then, the speaker."""
        energy = content.log_energy(mel)
        self.energies = np.concatenate([self.energies, energy])[-RECENT:]
        self.pitches = np.concatenate([self.pitches, f0])[-RECENT:]
        loud = energy > max(SILENT, self.energies.max() - content.ACTIVE)
        if loud.any():
            values = content.cepstra(content.levelled(mel, content.level(self.energies)), f0, len(self.spoken))
            self.spoken += values[:, loud].sum(axis=1)
            self.count += int(loud.sum())
            if self.blocks % EMBED_EVERY == 0 or not self.vector.any():
                known = np.concatenate([self.mel, mel], axis=1)
                heard = content.log_energy(known) > self.energies.max() - content.ACTIVE
                fresh = self.converter.speakers.embed_mel(known[:, near(heard)])
                mixed = fresh + 2 * self.vector
                self.vector = (mixed / np.linalg.norm(mixed)).astype(np.float32)

    def _wave(self, features: Features, own: slice, samples: np.ndarray) -> np.ndarray:
        """The wave of frames ``own`` and one more; the ``samples`` themselves where nothing is to be changed."""
        first = self.done - own.start  # number of the first frame in hand
        seconds = (first + np.arange(len(features)) + 0.5) * HOP / SAMPLE_RATE
        strengths = self.converter.strengths(self.request, seconds)
        if self.energies.max() < SILENT or not strengths.change:
            self.pitch = fill_gaps(features.f0)[: own.stop]
            return samples[own.start * HOP : (own.stop + 1) * HOP].copy()
        parts = self.converter.parts
        voice = Voice(
            self.vector,
            (self.spoken / self.count).astype(np.float32),
            content.register(self.pitches),
            content.level(self.energies),
        )
        energy = content.levelled_energy(content.log_energy(features.mel), voice.level)
        where = register(self.pitches, content.levelled_energy(self.energies, voice.level))
        plan = parts.prosody.plan(
            features.f0, energy, strengths.labels, register=where, keep_duration=True, anchor=strengths.anchor
        )
        given = given_of(features, voice, plan, np.log2(fill_gaps(plan.f0)), strengths.emotion, slice(None))
        still, pitch = unchanged(features.f0, energy), np.log2(fill_gaps(features.f0))
        whole = slice(0, len(features))
        missed = self.decoding.missed(features, voice, still, pitch, strengths.origin, whole)
        levelled = finished(self.decoding.sample(given, first) + missed, features, voice, plan, slice(None))
        return self._voiced(levelled + voice.level, plan.f0, plan.gain_db, own, first)

    def _voiced(self, mel: np.ndarray, f0: np.ndarray, gain_db: np.ndarray, own: slice, first: int) -> np.ndarray:
        from vc.convert import amplified

        contour = fill_gaps(f0)
        frozen = min(len(self.pitch), own.start)
        contour[:frozen] = self.pitch[:frozen]
        around = np.pad(contour, 1, mode="edge")
        voiced = (f0 > 0).astype(np.float32)
        wave = self.converter.vocoder.piece(mel, around, voiced, phase=self.phase, first=first, seed=self.request.seed)
        self.pitch = contour[: own.stop]
        wave = amplified(wave, 0, gain_db, self.peak)
        return wave[own.start * HOP : (own.stop + 1) * HOP]


def start_phases_from(phase: float, f0: np.ndarray) -> np.ndarray:
    """Phases of :func:`start_phases` (T,) for a first frame that begins at ``phase``."""
    return (start_phases(f0) + phase) % 1
