from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError, DataError, ModelError
from vc.prosody import NAMES, Plan, Prosody, Register, along, log_energy, motion, peak, phrases, register, response
from vc.prosody_config import CONTROLS, GAIN_DB, MOTION_MOST, MOTION_REACH
from vc.prosody_fit import fitted
from vc.twins import Changes

AT = {name: i for i, name in enumerate(NAMES)}
LABELS = ("happy", "sad")


def model(**moves: float) -> Prosody:
    """Happy moves as told, sad the other way; half is reached at strength 0.5."""
    full = np.array([moves.get(name, 0.0) for name in NAMES])
    shape = (2, len(NAMES))
    centre = np.array([7.3, 6.5, 7.9, np.log(0.4)])
    return Prosody(LABELS, np.stack([full, -full]), np.zeros(shape), np.full(shape, 0.5), np.array(0.0), centre)


PITCHED = {"pitch": 0.6, "range": 0.4, "motion": 0.3, "slope": 0.3}
EVERYTHING = model(**PITCHED, dynamics=0.2, tilt=0.5, voiced=0.2, unvoiced=0.1, pause=0.3, gain=1)
HAPPY, SAD, NOTHING = np.eye(2)[0], np.eye(2)[1], np.zeros(2)


def source(frames: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """F0 and log energy: silence, voice, hiss, voice, a pause, voice, silence."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)
    voiced = ((t >= 20) & (t < 80)) | ((t >= 90) & (t < 120)) | ((t >= 140) & (t < 180))
    hiss = (t >= 80) & (t < 90)
    f0 = np.where(voiced, 200 * 2 ** (0.2 * np.sin(t / 9)), 0)
    energy = np.where(voiced, np.sin(t / 7), np.where(hiss, -1.5, -8)) + rng.normal(0, 0.05, frames)
    return f0.astype(np.float32), energy.astype(np.float32)


def same(plan: Plan, f0: np.ndarray, energy: np.ndarray) -> bool:
    return (
        np.array_equal(plan.places, np.arange(len(f0)))
        and np.array_equal(plan.f0, f0)
        and np.array_equal(plan.energy, energy)
        and not plan.gain_db.any()
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(0, 2**31), st.booleans(), st.booleans())
def test_no_strength_changes_nothing_to_the_bit(frames: int, seed: int, keep: bool, told: bool) -> None:
    rng = np.random.default_rng(seed)
    f0 = np.where(rng.random(frames) < 0.6, rng.uniform(40, 1100, frames), 0).astype(np.float32)
    energy = rng.normal(-2, 3, frames).astype(np.float32)
    where = Register(7.0, 0.3, -1.0, 1.0) if told else None
    assert same(EVERYTHING.plan(f0, energy, np.zeros((frames, 2)), keep_duration=keep, register=where), f0, energy)


def test_what_the_source_already_has_changes_nothing() -> None:
    f0, energy = source()
    assert same(EVERYTHING.plan(f0, energy, HAPPY, anchor=HAPPY), f0, energy)


def test_taking_an_emotion_off_undoes_it() -> None:
    f0, energy = source()
    only = model(pitch=0.6, gain=1.0)
    happy = only.plan(f0, energy, HAPPY)
    back = only.plan(happy.f0, happy.energy, NOTHING, anchor=HAPPY)
    np.testing.assert_allclose(back.f0, f0, rtol=1e-3)
    assert (back.gain_db < 0).all()


def test_neutral_register_is_found_from_an_emotional_one() -> None:
    low = replace(model(pitch=0.6), by_register=np.array([[-0.5] + [0.0] * (len(NAMES) - 1)] * 2))
    plain = Register(7.0, 0.4, 0.0, 1.0)
    moved = Register(7.0 + low.controls(HAPPY[None], plain)[0, 0], 0.4, 0.0, 1.0)
    assert low.neutral(moved, HAPPY).pitch == pytest.approx(7.0, abs=5e-3)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_controls_arrive_in_the_contours(strength: float) -> None:
    f0, energy = source()
    plan = model(pitch=0.6, range=0.5).plan(f0, energy, strength * HAPPY, keep_duration=True)
    before, after = register(f0, energy), register(plan.f0, plan.energy)
    assert after.pitch - before.pitch == pytest.approx(0.6 * strength, abs=5e-3)
    assert np.log(after.spread / before.spread) == pytest.approx(0.5 * strength, abs=0.03)  # quick movement stays


def test_motion_moves_the_quick_part_of_f0_and_range_the_slow_one() -> None:
    f0, energy = source()
    f0 = (f0 * 2 ** (0.03 * np.sin(np.arange(len(f0)) * 2))).astype(np.float32)  # about 14 a second
    own, quick, voiced = register(f0, energy), motion(f0), f0 > 0
    slow = np.log2(np.maximum(f0, 1)) - own.pitch - quick
    for moves, expected in (({"motion": 0.5}, np.expm1(0.5) * quick), ({"range": 0.5}, np.expm1(0.5) * slow)):
        plan = model(**moves).plan(f0, energy, HAPPY, keep_duration=True)
        np.testing.assert_allclose(np.log2(plan.f0[voiced] / f0[voiced]), expected[voiced], atol=1e-5)
    assert 0.02 < np.abs(quick[voiced]).max() <= MOTION_MOST and not quick[~voiced].any()


def test_motion_is_what_a_running_mean_leaves_and_no_jump() -> None:
    glide = (100 * 2 ** (np.arange(60) / 100)).astype(np.float32)
    assert np.abs(motion(glide)[MOTION_REACH:-MOTION_REACH]).max() < 1e-5  # a straight way is its own mean
    glide[30] *= 2
    assert motion(glide)[30] == MOTION_MOST and motion(glide).min() >= -MOTION_MOST
    assert not motion(np.zeros(9, np.float32)).any()


def test_a_share_of_what_was_learned_is_taken_of_each_control_by_name() -> None:
    learned = replace(EVERYTHING, by_register=np.full((2, len(NAMES)), 0.2))
    found = learned.shared(pitch=0.5, motion=2.5)
    factor = np.array([{"pitch": 0.5, "motion": 2.5}.get(name, 1.0) for name in NAMES])
    np.testing.assert_allclose(found.offset, learned.offset * factor)
    np.testing.assert_allclose(found.by_register, 0.2 * np.stack([factor, factor]))
    np.testing.assert_array_equal(found.half, learned.half)


def test_slopes_turn_over_the_phrase() -> None:
    f0, energy = source()
    plan = model(slope=0.4, tilt=1.0).plan(f0, energy, HAPPY, keep_duration=True)
    voiced = f0 > 0
    bend = np.log2(plan.f0[voiced] / f0[voiced])
    assert bend[0] == pytest.approx(-0.2, abs=0.01) and bend[-1] == pytest.approx(0.2, abs=0.01)
    assert (np.diff(bend) >= 0).all()
    lift = (plan.energy - energy)[voiced & (energy > -1)]
    assert lift[0] < -0.4 and lift[-1] > 0.4


def test_phrases_begin_anew_after_a_long_pause() -> None:
    energy = np.full(400, -9.0)
    energy[20:160] = energy[260:380] = 0
    place = phrases(energy, Register(7, 0.4, 0.0, 0.0))
    assert place[20] == pytest.approx(-0.5) and place[159] == pytest.approx(0.5, abs=0.01)
    assert place[260] == pytest.approx(-0.5) and place[379] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("label", [HAPPY, SAD])
def test_each_kind_of_frame_gets_its_own_length(label: np.ndarray) -> None:
    f0, energy = source()
    sign = 1 if label is HAPPY else -1
    plan = model(voiced=0.3, pause=0.35).plan(f0, energy, label)
    voiced, pauses = int((f0 > 0).sum()), 20
    expected = len(f0) + voiced * np.expm1(sign * 0.3) + pauses * np.expm1(sign * 0.35)
    assert len(plan.places) == pytest.approx(expected, abs=2)
    assert (np.diff(plan.places) > 0).all()
    assert np.allclose(np.diff(plan.places[:10]), 1, atol=5e-3)  # silence at the ends keeps its length
    assert plan.places[-1] == pytest.approx(len(f0) - 1, abs=1)


def test_timing_can_be_kept() -> None:
    f0, energy = source()
    plan = EVERYTHING.plan(f0, energy, HAPPY, keep_duration=True)
    np.testing.assert_array_equal(plan.places, np.arange(len(f0)))


def test_pauses_and_noise_are_never_lifted() -> None:
    f0, energy = source()
    for label in (HAPPY, SAD):
        plan = EVERYTHING.plan(f0, energy, label, keep_duration=True)
        quiet = energy < peak(energy) - 4
        np.testing.assert_array_equal(plan.energy[quiet], energy[quiet])
        assert (plan.energy != energy).any()


@pytest.mark.parametrize(("pitch", "octaves"), [(6.5, 0.5), (7.8, 0.5), (8.1, 0.35), (8.4, 0.3), (9.0, 0.3)])
def test_high_voices_are_raised_less(pitch: float, octaves: float) -> None:
    where = Register(pitch, 0.4, 0.0, 1.0)
    raised, lowered = (model(pitch=by).controls(np.atleast_2d(HAPPY), where)[0, AT["pitch"]] for by in (0.5, -0.5))
    assert raised == pytest.approx(octaves, abs=1e-6) and lowered == pytest.approx(-0.5, abs=1e-6)


def test_f0_never_mixes_voiced_with_unvoiced_and_stays_in_range() -> None:
    f0, energy = source()
    for hz in (70.0, 200.0, 900.0):
        for label in (HAPPY, SAD):
            given_f0 = np.where(f0 > 0, np.float32(hz), 0).astype(np.float32)
            plan = model(pitch=1.4, voiced=0.4).plan(given_f0, energy, 1.5 * label)
            voiced = plan.f0[plan.f0 > 0]
            assert voiced.min() >= 60 and voiced.max() <= 1000
            assert np.ptp(voiced) < 1e-3 * hz  # a constant stays one: nothing was drawn towards 0


def test_between_voiced_frames_f0_is_geometric() -> None:
    f0 = np.array([0, 100, 400, 0], np.float32)
    np.testing.assert_allclose(along(f0, np.array([0.4, 0.6, 1.5, 2.4, 2.6, 3.0])), [0, 100, 200, 400, 0, 0], rtol=1e-6)


def test_a_curve_of_strength_gives_a_smooth_track_and_leaves_its_start_alone() -> None:
    f0, energy = np.full(400, 200, np.float32), np.zeros(400, np.float32)
    ramp = np.clip((np.arange(400) - 100) / 200, 0, 1)[:, None] * HAPPY
    plan = model(pitch=0.6, gain=1.0).plan(f0, energy, ramp, keep_duration=True)
    np.testing.assert_array_equal(plan.f0[:101], f0[:101])
    steps = np.diff(np.log2(plan.f0))
    assert steps.min() >= 0 and steps.max() < 0.6 / 200 + 1e-4
    assert plan.f0[-1] == pytest.approx(200 * 2**0.6, rel=1e-4)


@pytest.mark.parametrize("half", [0.1, 0.5, 0.9])
def test_response_rises_from_nothing_to_one_and_a_little_beyond(half: float) -> None:
    strengths = np.linspace(0, 1.5, 61)
    r = response(strengths, np.array(half))
    assert r[0] == 0 and r[20] == pytest.approx(half) and r[40] == pytest.approx(1)
    assert (np.diff(r) > 0).all() and r[-1] <= 1.5
    assert response(np.array(9.0), np.array(half)) == r[-1]


def test_a_mix_lies_between_its_parts() -> None:
    where = Register(7.3, 0.4, 0.0, 1.0)
    both = model(pitch=0.6).controls(np.array([[0.75, 0.25], [1, 0], [0, 1]]), where)[:, 0]
    np.testing.assert_allclose(both, [0.3, 0.6, -0.6])


def test_nothing_moves_further_than_its_limit() -> None:
    far = model(**dict.fromkeys(NAMES, 50.0))
    moved = far.controls(np.array([[1.5, 0.0]]), Register(7.3, 0.4, 0.0, 1.0))[0]
    np.testing.assert_array_equal(moved, list(CONTROLS.values()))
    assert far.plan(*source(), HAPPY).gain_db.max() <= GAIN_DB


def test_gain_grows_with_strength() -> None:
    gains = [model(gain=2.6).plan(*source(), s * HAPPY).gain_db[0] for s in (0, 0.25, 0.5, 1, 1.5)]
    assert gains[0] == 0 and (np.diff(gains) > 0).all() and gains[-1] <= GAIN_DB


def test_a_lively_source_gets_less_range() -> None:
    pulled = replace(model(range=0.4), pull=np.array(0.7))
    wide, narrow = (pulled.controls(HAPPY[None], Register(7.3, s, 0, 1))[0, AT["range"]] for s in (0.6, 0.3))
    assert wide < 0.4 < narrow


def test_long_sources_are_moved_as_short_ones_are() -> None:
    weights = np.abs(np.sin(np.arange(9000) / 500))[:, None] * HAPPY
    where = Register(7.0, 0.3, 0.0, 1.0)
    whole = EVERYTHING.controls(weights, where)
    np.testing.assert_array_equal(whole[5000:5100], EVERYTHING.controls(weights[5000:5100], where))


def test_blocks_of_a_stream_agree_with_the_whole() -> None:
    f0, energy = source()
    where = register(f0, energy)
    weights = np.linspace(0, 1, len(f0))[:, None] * HAPPY

    def part(a: int, b: int) -> Plan:
        return EVERYTHING.plan(f0[a:b], energy[a:b], weights[a:b], register=where, keep_duration=True)

    whole, blocks = part(0, 200), [part(a, a + 40) for a in range(0, 200, 40)]
    for name in ("energy", "gain_db"):
        np.testing.assert_array_equal(np.concatenate([getattr(b, name) for b in blocks]), getattr(whole, name))
    made, free, voiced = np.concatenate([b.f0 for b in blocks]), np.ones(200, bool), np.flatnonzero(f0)
    for cut in range(40, 200, 40):  # the running mean of F0 reaches over a cut, and over the gap that it lies in
        last, following = voiced[voiced < cut][-1], voiced[voiced >= cut]
        free[last + 1 - MOTION_REACH : (following[0] if len(following) else cut) + MOTION_REACH] = False
    assert free[f0 > 0].mean() > 0.6
    np.testing.assert_array_equal(made[free], whole.f0[free])
    both = made > 0
    assert np.array_equal(both, whole.f0 > 0) and np.abs(np.log2(made[both] / whole.f0[both])).max() < 0.02


def test_register_reads_what_is_loud_and_voiced() -> None:
    f0, energy = source()
    own = register(f0, energy)
    assert own.pitch == pytest.approx(np.log2(200), abs=0.1) and 0.2 < own.spread < 0.5
    assert own.level < own.peak < energy.max() + 0.01
    padded = register(np.pad(f0, (0, 20_000)), np.pad(energy, (0, 20_000), constant_values=-9))
    assert padded == own  # silence does not count, however long
    assert register(np.zeros(50), np.full(50, -11.5)).pitch == 7.2


def test_log_energy_of_one_band_is_that_band() -> None:
    mel = np.full((80, 3), -40.0)
    mel[7] = [0.0, 1.0, -2.0]
    np.testing.assert_allclose(log_energy(mel), [0, 1, -2], atol=1e-12)


def test_arrays_come_back() -> None:
    again = Prosody.from_arrays(EVERYTHING.arrays(), LABELS)
    for name, values in EVERYTHING.arrays().items():
        np.testing.assert_array_equal(values, again.arrays()[name])
    assert again.labels == LABELS


@pytest.mark.parametrize(
    ("name", "value"), [("half", np.zeros((1, len(NAMES)))), ("offset", np.full((2, len(NAMES)), np.nan))]
)
def test_damaged_arrays_are_refused(name: str, value: np.ndarray) -> None:
    with pytest.raises(ModelError, match=name):
        Prosody.from_arrays(EVERYTHING.arrays() | {name: value}, LABELS)
    rest = {key: array for key, array in EVERYTHING.arrays().items() if key != name}
    with pytest.raises(ModelError, match=f"has no '{name}'"):
        Prosody.from_arrays(rest, LABELS)


@pytest.mark.parametrize("weights", [np.ones(3), np.ones((5, 2)), np.array([-0.1, 0]), np.array([np.nan, 0])])
def test_strengths_that_make_no_sense_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(AffgenError, match="accepted"):
        EVERYTHING.plan(*source(), weights)


@pytest.mark.parametrize("told", [None, Register(7.0, 0.3, 0.0, 1.0)])
def test_tracks_that_make_no_sense_are_refused(told: Register | None) -> None:
    f0, energy = source()
    for a, b in ((f0[:-1], energy), (f0[:0], energy[:0]), (f0, energy * np.nan)):
        with pytest.raises(AffgenError, match="accepted"):
            EVERYTHING.plan(a, b, HAPPY, register=told)


# ------------------------------------------------------------------------------------------------- the fit


def made(*, half: float = 0.4, register_slope: float = 0.0, unlabelled: float | None = None, seed: int = 0) -> Changes:
    """Twins of two corpora: happy raises F0 by 0.8 octaves and the level by 1.5 nepers, sad lowers F0 by 0.3."""
    rng = np.random.default_rng(seed)
    rows = []
    for corpus, strengths in (("a", (0.5, 1.0)), *((("b", (unlabelled,)),) if unlabelled else ())):
        for s in range(16):
            low = (s % 2) - 0.5  # octaves from the middle
            for label, full in (("happy", 0.8), ("sad", -0.3)):
                for w in strengths:
                    r = float(response(np.array(w), np.array(half)))
                    for _ in range(6):
                        values = rng.normal(0, 0.03, len(NAMES))
                        values[AT["pitch"]] += r * (full + low * register_slope * (label == "happy"))
                        values[AT["gain"]] += 1.5 * r * (corpus == "a") * (label == "happy")
                        told = w if corpus == "a" else np.nan
                        rows.append((corpus, f"{corpus}{s}", label, told, values, 7.2 + low, rng.normal(-0.9, 0.2)))
    return Changes(*(np.array(column) for column in zip(*rows, strict=True)))


def test_the_fit_finds_what_was_made() -> None:
    found = fitted(made())
    assert found.labels == ("happy", "sad")
    assert found.offset[0, AT["pitch"]] == pytest.approx(0.8, abs=0.02)
    assert found.offset[1, AT["pitch"]] == pytest.approx(-0.3, abs=0.02)
    assert found.half[0, AT["pitch"]] == pytest.approx(0.4, abs=0.03)
    assert np.abs(found.offset[:, AT["slope"]]).max() < 0.02
    np.testing.assert_allclose(found.centre[:3], [7.2, 6.7, 7.7])


def test_what_low_voices_do_more_is_found_and_chance_is_not() -> None:
    found = fitted(made(register_slope=-0.6))
    assert found.by_register[0, AT["pitch"]] == pytest.approx(-0.6, abs=0.06)
    chance = np.delete(found.by_register, AT["pitch"], axis=1)
    assert (chance == 0).mean() > 0.7 and np.abs(chance).max() < 0.05  # one in twenty passes twice its standard error


def test_one_wild_speaker_does_not_decide() -> None:
    changes = made()
    wild = changes.speaker == "a3"
    changes.values[wild, AT["pitch"]] += 3
    assert fitted(changes).offset[0, AT["pitch"]] == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("strength", [0.4, 0.7])
def test_a_corpus_without_intensities_finds_its_place(strength: float) -> None:
    found = fitted(made(unlabelled=strength))
    assert found.offset[0, AT["pitch"]] == pytest.approx(0.8, abs=0.06)
    assert found.offset[0, AT["gain"]] == pytest.approx(1.5, abs=0.05)  # the levelled corpus has no say


def test_a_source_that_is_lively_by_itself_pulls() -> None:
    changes = made()
    changes.values[:, AT["range"]] -= 0.7 * (changes.spread - np.median(changes.spread))
    assert fitted(changes).pull == pytest.approx(0.7, abs=0.05)


def test_without_any_intensity_there_is_no_fit() -> None:
    changes = made()
    with pytest.raises(DataError, match="utt2intensity"):
        fitted(replace(changes, intensity=np.full(len(changes.label), np.nan)))
