"""Decoding: chunks that cannot be told from the whole, noise that depends on the seed, guidance, pauses, samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from affgen.audio import Audio
from affgen.errors import AffgenError
from affgen.features import BANDS, FLOOR, Features, extract
from affgen.testing_voice import fabricated_voice
from affgen.vocoder.source import fill_gaps
from vc import content, decode
from vc.config import MINIATURE
from vc.decode import Decoding, Voice, analyse
from vc.diffusion import SAMPLERS
from vc.prosody import Plan

CEPSTRA = MINIATURE.decoder.cepstra


@dataclass
class Source:
    features: Features
    voice: Voice
    energy: np.ndarray
    plan: Plan
    emotion: np.ndarray


@pytest.fixture(scope="module")
def source(converter: Any) -> Source:
    """1.6 s of a voice with pauses, planned in anger, slower than it was."""
    samples = fabricated_voice(5, "woman", seconds=1.6, snr_db=60).samples.copy()
    samples[14_000:19_000] *= 1e-3
    features = extract(Audio(samples, 22_050))
    voice, energy = analyse(features, converter.speakers, CEPSTRA)
    feeling = converter.parts.feeling
    strengths = np.eye(7)[feeling.labels.index("surprised") - 1]
    plan = converter.parts.prosody.plan(features.f0, energy, strengths)
    emotion = np.linspace(0, 1, len(plan.places))[:, None] * feeling.prototype("surprised")
    return Source(features, voice, energy, plan, emotion)


def made(converter: Any, source: Source, *, emotion: Any = None, origin: Any = None, **how: Any) -> np.ndarray:
    decoding = Decoding(converter.parts.decoder, **{"sampler": "flow", "steps": 3, "spread": 0.5, **how})
    emotion = source.emotion if emotion is None else emotion
    origin = np.zeros(emotion.shape[1]) if origin is None else origin
    return decoding.mel(source.features, source.voice, source.energy, source.plan, emotion, origin)


# --- chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("chunk", [64, 19])
def test_chunks_make_the_whole(
    converter: Any, source: Source, monkeypatch: pytest.MonkeyPatch, sampler: str, chunk: int
) -> None:
    assert len(source.plan.places) > 130
    steps = 2 if sampler != "em" else 8  # few steps of Euler-Maruyama diverge
    whole = made(converter, source, sampler=sampler, steps=steps, guidance=1.5)
    monkeypatch.setattr(decode, "CHUNK", chunk)
    parts = made(converter, source, sampler=sampler, steps=steps, guidance=1.5)
    assert np.isfinite(whole).all() and whole.shape == (BANDS, len(source.plan.places))
    assert np.abs(parts - whole).max() <= 1e-4


def test_less_context_would_be_heard(converter: Any, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(converter, source)
    monkeypatch.setattr(decode, "CHUNK", 19)
    monkeypatch.setattr(Decoding, "reach", property(lambda self: 3))
    assert np.abs(made(converter, source) - whole).max() > 1e-3


@pytest.mark.parametrize("long", [16, 50])
def test_a_long_recording_is_looked_at_in_parts(
    converter: Any, source: Source, monkeypatch: pytest.MonkeyPatch, long: int
) -> None:
    monkeypatch.setattr(decode, "LONG", long)
    voice, energy = analyse(source.features, converter.speakers, CEPSTRA)
    assert np.allclose(voice.timbre, source.voice.timbre, atol=1e-5) and np.array_equal(energy, source.energy)


# --- seeds, steps, samplers, guidance --------------------------------------------------------------------------------


def test_equal_seeds_give_equal_bytes_and_others_other_noise(converter: Any, source: Source) -> None:
    one, again, other = (made(converter, source, seed=seed) for seed in (3, 3, 4))
    assert one.tobytes() == again.tobytes()
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_a_way_to_sound(converter: Any, source: Source, sampler: str) -> None:
    steps = 40 if sampler == "em" else 4
    found = made(converter, source, sampler=sampler, steps=steps)
    assert np.isfinite(found).all() and found.min() > -16 and found.max() < 4
    assert found.tobytes() == made(converter, source, sampler=sampler, steps=steps).tobytes()


def test_the_spread_is_that_of_the_maximum_likelihood_sampler(converter: Any, source: Source) -> None:
    for sampler, counts in (("ml", True), ("flow", False)):
        low, high = (made(converter, source, sampler=sampler, steps=4, spread=spread) for spread in (0.2, 0.8))
        assert np.array_equal(low, high) is not counts


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_temperature_is_how_much_seeds_differ(converter: Any, source: Source, sampler: str) -> None:
    steps, apart = 40 if sampler == "em" else 4, []
    for temperature in (0.0, 0.3, 1.0):
        one, other = (
            made(converter, source, sampler=sampler, steps=steps, temperature=temperature, seed=seed) for seed in (3, 4)
        )
        apart.append(float(np.abs(one - other).mean()))
    assert apart[0] == 0 and 0 < 2 * apart[1] < apart[2]


def test_an_unknown_sampler_is_refused(converter: Any, source: Source) -> None:
    with pytest.raises(AffgenError, match=r"'euler'.*accepted: pf, em, ml, flow, midpoint"):
        made(converter, source, sampler="euler")


def test_guidance_of_one_is_as_trained(converter: Any, source: Source) -> None:
    plain, almost = made(converter, source), made(converter, source, guidance=1 + 1e-7)
    assert np.abs(plain - almost).max() < 1e-3
    assert np.abs(plain - made(converter, source, guidance=2.0)).max() > 0.05


def test_guidance_of_nought_is_no_emotion(converter: Any, source: Source) -> None:
    one, other = (made(converter, source, guidance=0.0, emotion=e) for e in (source.emotion, 3 - source.emotion))
    assert np.abs(one - other).max() < 1e-4
    assert np.abs(made(converter, source) - made(converter, source, emotion=3 - source.emotion)).max() > 0.05


# --- pauses, what is missed, voices ----------------------------------------------------------------------------------


def test_pauses_are_those_of_the_source(converter: Any, source: Source) -> None:
    found = made(converter, source)
    wanted = content.between(source.features.mel - source.voice.level, source.plan.places)
    quiet = content.log_energy(wanted) <= decode.PAUSE
    loud = content.log_energy(wanted) >= decode.SPEECH
    assert quiet.sum() > 10 and loud.sum() > 60
    assert np.allclose(found[:, quiet], wanted[:, quiet], atol=1e-5)
    assert np.abs(found[:, loud] - wanted[:, loud]).mean() > 0.1
    assert np.allclose(content.log_energy(found)[loud], source.plan.energy[loud], atol=1e-4)


def test_sounds_without_voice_are_mostly_those_of_the_source(
    converter: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = content.between(source.features.mel - source.voice.level, source.plan.places)
    spoken = (source.plan.f0 == 0) & (content.log_energy(wanted) >= decode.SPEECH)
    assert spoken.sum() > 3
    off = []
    for share in (0.0, decode.UNVOICED, 1.0):
        monkeypatch.setattr(decode, "UNVOICED", share)
        found = made(converter, source)[:, spoken]
        assert np.allclose(content.log_energy(found), source.plan.energy[spoken], atol=1e-4)
        off.append(np.std(found - wanted[:, spoken], axis=0).mean())  # a gain does not count
    assert off[0] < 1e-4 < off[1] < 0.6 * off[2]


def test_digital_silence_in_a_loud_recording_stays_so(converter: Any, source: Source) -> None:
    loud = Features(source.features.mel + 2.5, source.features.f0, source.features.energy)
    loud.mel[:, 60:75] = np.log(FLOOR)
    voice, energy = analyse(loud, converter.speakers, CEPSTRA)
    plan = Plan(np.arange(len(energy), dtype=float), loud.f0, energy, 0 * energy)
    found = Decoding(converter.parts.decoder, "flow", 1, 0.5).mel(
        loud, voice, energy, plan, np.zeros((len(energy), 4)), np.zeros(4)
    )
    assert (found[:, 62:73] + voice.level).max() < np.log(FLOOR) + 0.5


def test_where_nothing_changes_the_envelope_is_that_of_the_source(converter: Any, source: Source) -> None:
    """The decoder for tests has learned nothing: what it misses is most of the envelope, and not quite additive."""
    f0, mel = source.features.f0, content.levelled(source.features.mel, source.voice.level)
    still = decode.unchanged(f0, source.energy)
    decoding = Decoding(converter.parts.decoder, "flow", 4, 0.5, temperature=0.0)
    pitch, origin, part = np.log2(fill_gaps(f0)), np.full(4, 0.3), slice(0, len(f0))
    missed = decoding.missed(source.features, source.voice, still, pitch, origin, part)
    loud = content.log_energy(mel) >= decode.SPEECH
    assert missed.shape == mel.shape and np.abs(missed[:, loud]).mean() > 0.2 and np.abs(missed).max() <= 3
    rows = np.tile(origin, (len(f0), 1))
    found = decoding.mel(source.features, source.voice, source.energy, still, rows, origin)
    off = np.abs(content.envelope(found, f0) - content.envelope(mel, f0))[:, loud].mean()
    assert off < 0.5 * np.abs(missed[:, loud]).mean()


@pytest.mark.parametrize("part", [slice(0, 30), slice(40, 75), slice(100, None)])
def test_what_is_missed_in_a_part_is_that_of_the_whole(converter: Any, source: Source, part: slice) -> None:
    still = decode.unchanged(source.features.f0, source.energy)
    part = slice(part.start, len(source.energy) if part.stop is None else part.stop)
    how = source.features, source.voice, still, np.log2(fill_gaps(still.f0)), np.zeros(4)
    decoding = Decoding(converter.parts.decoder, "flow", 4, 0.5)
    whole = decoding.missed(*how, slice(0, len(source.energy)))
    assert np.allclose(decoding.missed(*how, part), whole[:, part], atol=1e-5)


def test_the_emotion_of_the_source_counts(converter: Any, source: Source) -> None:
    emotion = np.tile(source.emotion[-1], (len(source.emotion), 1))
    same, other = (made(converter, source, emotion=emotion, origin=o) for o in (emotion[0], -emotion[0]))
    assert np.abs(same - other).max() > 0.05


def test_a_gain_tells_nothing_of_the_voice(converter: Any, source: Source) -> None:
    louder = Features(source.features.mel + 1.0, source.features.f0, source.features.energy)
    voice, energy = analyse(louder, converter.speakers, CEPSTRA)
    assert voice.level - source.voice.level == pytest.approx(1, abs=1e-5)
    assert np.allclose(voice.vector, source.voice.vector, atol=1e-5)
    assert np.allclose(voice.timbre, source.voice.timbre, atol=1e-4) and np.allclose(energy, source.energy, atol=1e-5)


def silence(frames: int) -> Features:
    return Features(np.full((BANDS, frames), np.log(FLOOR)), np.zeros(frames), np.zeros(frames))


def joined(*parts: Features) -> Features:
    return Features(
        np.concatenate([part.mel for part in parts], axis=1),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("f0", "energy")),
    )


def test_silence_is_known_as_such(source: Source) -> None:
    assert decode.is_silent(silence(9)) and not decode.is_silent(joined(silence(9), source.features))


def test_silence_around_a_voice_changes_neither_level_nor_timbre(converter: Any, source: Source) -> None:
    voice, energy = analyse(joined(source.features, silence(200)), converter.speakers, CEPSTRA)
    assert voice.level == pytest.approx(source.voice.level, abs=1e-5) and voice.register == source.voice.register
    assert np.allclose(voice.timbre, source.voice.timbre, atol=1e-5)
    assert energy[-1] == pytest.approx(content.FLOOR + 0.5 * np.log(BANDS), abs=1e-5)


def test_silence_around_a_voice_does_not_change_the_speaker(converter: Any, source: Source) -> None:
    voice, _ = analyse(joined(source.features, silence(5000)), converter.speakers, CEPSTRA)
    assert voice.vector @ source.voice.vector > 0.9


def test_a_single_frame_is_decoded(converter: Any, source: Source) -> None:
    part = Features(source.features.mel[:, 20:21], source.features.f0[20:21], source.features.energy[20:21])
    plan = Plan(np.array([-0.4, 0.0, 0.3]), np.full(3, 200.0, np.float32), np.zeros(3, np.float32), np.zeros(3))
    found = Decoding(converter.parts.decoder, "flow", 2, 0.5).mel(
        part, source.voice, np.zeros(1, np.float32), plan, np.zeros((3, 4)), np.zeros(4)
    )
    assert found.shape == (BANDS, 3) and np.isfinite(found).all()
