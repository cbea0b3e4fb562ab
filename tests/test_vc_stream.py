"""Conversion while a sound arrives: every sample in its time, however it is cut, with no click where blocks meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from affgen.audio import Audio, resample
from affgen.errors import AffgenError
from affgen.features import HOP
from affgen.testing_voice import fabricated_voice
from vc import stream as module
from vc.convert import VoiceConverter

RATE = 22_050
JOINT = module.BLOCK * HOP


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return fabricated_voice(8, "man", seconds=1.3, snr_db=50).samples


@pytest.fixture(scope="module")
def streamed(converter: VoiceConverter, voice: np.ndarray) -> np.ndarray:
    return joined(converter.stream([voice], RATE, "surprised", 1.0))


def joined(blocks: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def cut(samples: np.ndarray, sizes: Any) -> Iterator[np.ndarray]:
    """Parts of the sizes given, over and over."""
    at, sizes = 0, list(sizes)
    while at < len(samples):
        size = sizes.pop(0)
        sizes.append(size)
        yield samples[at : at + size]
        at += size


# --- every sample in its time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("sizes", [(1,), (441, 7), (50_000,)])
def test_as_much_comes_out_as_goes_in(
    converter: VoiceConverter, monkeypatch: pytest.MonkeyPatch, voice: np.ndarray, rate: int, sizes: tuple[int, ...]
) -> None:
    def piece(mel: np.ndarray, around: np.ndarray, voiced: np.ndarray, **how: Any) -> np.ndarray:
        return np.full(mel.shape[1] * HOP, 0.1, np.float32)  # the vocoder's own sound does not matter here

    monkeypatch.setattr(converter.vocoder, "piece", piece)
    part = resample(voice[: 9_000 if sizes == (1,) else 14_321], RATE, rate)
    out = list(converter.stream(cut(part, sizes), rate, "sad", 1.0, steps=1))
    assert abs(sum(map(len, out)) - len(part) * RATE / rate) <= 1
    assert all(block.dtype == np.float32 and len(block) for block in out)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 2559, 2560, 2561, 4608, 5121])
def test_the_last_samples_are_not_forgotten(converter: VoiceConverter, voice: np.ndarray, count: int) -> None:
    assert len(joined(converter.stream([voice[3000 : 3000 + count]], RATE, "sad", 1.0, steps=1))) == count


def test_empty_parts_are_nothing(converter: VoiceConverter, voice: np.ndarray) -> None:
    nothing = np.zeros(0, np.float32)
    assert len(joined(converter.stream([], RATE, "sad"))) == 0
    assert len(joined(converter.stream([nothing, nothing], 16_000, "sad"))) == 0
    parts = [nothing, voice[:3000], nothing, voice[3000:6000], nothing]
    assert np.array_equal(
        joined(converter.stream(parts, RATE, "sad")), joined(converter.stream([voice[:6000]], RATE, "sad"))
    )


@pytest.mark.parametrize("sizes", [(160,), (1000, 3, 77), (4096,)])
def test_it_does_not_matter_how_the_sound_is_cut(
    converter: VoiceConverter, voice: np.ndarray, streamed: np.ndarray, sizes: tuple[int, ...]
) -> None:
    assert joined(converter.stream(cut(voice, sizes), RATE, "surprised", 1.0)).tobytes() == streamed.tobytes()


def test_it_does_not_matter_how_a_sound_of_another_rate_is_cut(converter: VoiceConverter, voice: np.ndarray) -> None:
    part = resample(voice[:12_000], RATE, 16_000)
    one, other = (
        joined(converter.stream(cut(part, sizes), 16_000, "sad", 1.0, steps=1)) for sizes in ((160,), (9999,))
    )
    assert len(one) == len(other) and np.abs(one - other).max() < 1e-3


def first_after(converter: VoiceConverter, voice: np.ndarray, rate: int) -> float:
    """Seconds that must have gone in before the first block comes out."""
    fed = 0

    def parts() -> Iterator[np.ndarray]:
        nonlocal fed
        for part in cut(resample(voice, RATE, rate), [rate // 100]):
            fed += len(part)
            yield part

    next(converter.stream(parts(), rate, "sad", 1.0, steps=1))
    return fed / rate


@pytest.mark.parametrize(
    ("rate", "most"), [(8_000, 0.34), (16_000, 0.28), (22_050, 0.25), (44_100, 0.25), (48_000, 0.25)]
)
def test_the_first_block_comes_soon(converter: VoiceConverter, voice: np.ndarray, rate: int, most: float) -> None:
    assert first_after(converter, voice, rate) <= most  # the filter of the resampler is longer at low rates


def test_blocks_come_as_their_sound_does(converter: VoiceConverter, voice: np.ndarray) -> None:
    fed, out = [], []

    def parts() -> Iterator[np.ndarray]:
        for part in cut(voice, [256]):
            fed.append(len(part))
            yield part

    for block in converter.stream(parts(), RATE, "sad", 1.0, steps=1):
        out.append(len(block))
        assert sum(fed) - sum(out) <= 0.25 * RATE
    assert len(out) >= len(voice) // JOINT


# --- what it sounds like ---------------------------------------------------------------------------------------------


def test_no_click_where_blocks_meet(converter: VoiceConverter, voice: np.ndarray, streamed: np.ndarray) -> None:
    jumps = np.abs(np.diff(streamed))
    joints = np.arange(JOINT, len(streamed) - 1, JOINT)
    near = np.stack([jumps[joint - 3 : joint + 3].max() for joint in joints])
    around = np.stack([jumps[joint - 1500 : joint + 1500].max() for joint in joints])
    assert len(joints) >= 8 and (near <= 1.05 * around).all() and np.median(near / around) < 0.8
    whole = converter.convert(Audio(voice, RATE), "surprised", 1.0, keep_duration=True).samples
    share = jumps.max() / np.abs(streamed).max(), np.abs(np.diff(whole)).max() / np.abs(whole).max()
    assert share[0] < 1.5 * share[1]


def test_f0_is_moved_as_in_a_file(
    converter: VoiceConverter, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = converter.run(Audio(voice, RATE), "surprised", 1.0, keep_duration=True)
    found, piece = np.zeros(len(whole.source) + 99), converter.vocoder.piece

    def noted(mel: np.ndarray, around: np.ndarray, voiced: np.ndarray, **how: Any) -> np.ndarray:
        found[how["first"] :][: len(voiced)] = around[1:-1] * voiced
        return piece(mel, around, voiced, **how)

    monkeypatch.setattr(converter.vocoder, "piece", noted)
    joined(converter.stream([voice], RATE, "surprised", 1.0))
    found = found[: len(whole.source)]
    both = (found > 0) & (whole.features.f0 > 0)
    assert both.sum() > 0.9 * (whole.features.f0 > 0).sum()
    late = both & (np.arange(len(found)) > 50)  # the register has been learned
    assert np.median(np.abs(np.log2(found[late] / whole.features.f0[late]))) < 0.05
    assert np.median(np.log2(found[late] / whole.source.f0[late])) > 0.2


def test_equal_streams_give_equal_bytes_and_seeds_differ(
    converter: VoiceConverter, voice: np.ndarray, streamed: np.ndarray
) -> None:
    part = voice[:9000]
    one, again, other = (joined(converter.stream([part], RATE, "surprised", 1.0, seed=seed)) for seed in (0, 0, 1))
    assert one.tobytes() == again.tobytes() and np.abs(one - other).max() > 1e-4
    assert np.array_equal(one[:5000], streamed[:5000])


def test_times_are_those_of_the_sound(converter: VoiceConverter, voice: np.ndarray) -> None:
    angry, sad = (
        joined(converter.stream([voice], RATE, f"neutral@0s,neutral@0.9s,{label}@1s", 1.0))
        for label in ("angry", "sad")
    )
    assert np.array_equal(angry[:15_000], sad[:15_000])
    assert np.abs(angry[-4000:] - sad[-4000:]).max() > 1e-3


def test_silence_stays_silence(converter: VoiceConverter, voice: np.ndarray) -> None:
    assert not joined(converter.stream([np.zeros(20_000, np.float32)], RATE, "angry", 1.0)).any()
    mixed = joined(converter.stream([np.zeros(12_000, np.float32), voice[2000:12_000]], RATE, "angry", 1.0))
    assert not mixed[:8000].any() and np.abs(mixed[14_000:]).max() > 0.01


def test_silence_after_a_voice_fades(converter: VoiceConverter, voice: np.ndarray) -> None:
    out = joined(converter.stream([voice[:12_000], np.zeros(16_000, np.float32)], RATE, "angry", 1.0))
    assert np.abs(out[-8000:]).max() < 0.02 * np.abs(out).max()


def test_full_scale_is_not_passed(converter: VoiceConverter, voice: np.ndarray) -> None:
    loud = voice / np.abs(voice).max()
    assert np.abs(joined(converter.stream([loud], RATE, "surprised", 1.5))).max() <= 1


def test_nothing_asked_gives_back_the_samples(converter: VoiceConverter, voice: np.ndarray) -> None:
    assert np.allclose(joined(converter.stream([voice], RATE, "angry", 0.0)), voice, atol=1e-4)


def test_pauses_have_the_energy_that_they_have_in_training(
    converter: VoiceConverter, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vc import content

    seen = []
    kept = module.given_of

    def given_of(*arguments: Any) -> Any:
        seen.append(kept(*arguments))
        return seen[-1]

    monkeypatch.setattr(module, "given_of", given_of)
    joined(converter.stream([voice[2000:10_000], np.zeros(9000, np.float32)], RATE, "sad", 1.0, steps=1))
    lowest = min(float(given.energy.min()) for given in seen)
    assert lowest >= content.FLOOR + 0.5 * np.log(80) - 1e-4


# --- what is refused -------------------------------------------------------------------------------------------------


def unread() -> Iterator[np.ndarray]:
    raise AssertionError("the sound was read before the request was checked")
    yield np.zeros(0)


@pytest.mark.parametrize(
    ("emotion", "intensity", "how", "told"),
    [
        ("neutral@0%,angry@100%", 1.0, {}, "100%: cannot be placed in seconds"),
        ("angry", "0@0s,1@50%", {}, "50%: cannot be placed in seconds"),
        ("neutral@0b,angry@4b", 1.0, {}, "4b: cannot be placed in seconds"),
        ("rage", 1.0, {}, "unknown emotion 'rage'"),
        ("angry", 1.6, {}, "accepted: 0 to 1.5"),
        ("angry", 1.0, {"steps": 0}, "accepted: 1 to 100"),
        ("angry", 1.0, {"guidance": 9.0}, "accepted: 0 to 5"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_sample_is_read(
    converter: VoiceConverter, emotion: str, intensity: Any, how: dict[str, Any], told: str
) -> None:
    with pytest.raises(AffgenError, match=told):
        next(iter(converter.stream(unread(), RATE, emotion, intensity, **how)))


def test_samples_that_are_not_finite_are_refused(converter: VoiceConverter, voice: np.ndarray) -> None:
    broken = voice.copy()
    broken[9000] = np.inf
    blocks = converter.stream(cut(broken, [1000]), RATE, "sad", 1.0)
    with pytest.raises(AffgenError, match="accepted are finite samples"):
        joined(blocks)
