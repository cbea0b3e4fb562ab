from __future__ import annotations

import shutil

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.score import Control, Note, Score, Tempo
from affgen.testing import fabricated_score
from music import render as module
from music.render import render

RATE = 22_050
A4 = Score((Note(0, 2, 69),))
installed = shutil.which("fluidsynth") is not None and module._find_soundfont(None) is not None
ENGINES = [
    "builtin",
    pytest.param("fluidsynth", marks=pytest.mark.skipif(not installed, reason="FluidSynth is not installed")),
]


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch):
    monkeypatch.delenv("AFFGEN_SOUNDFONT", raising=False)


def strongest_hz(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**17))
    return float(np.argmax(spectrum) * rate / 2**17)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a4_sounds_at_440_hz_and_an_octave_below_at_220(engine):
    assert strongest_hz(render(A4, engine=engine).samples) == pytest.approx(440, abs=2)
    assert strongest_hz(render(Score((Note(0, 2, 57),)), engine=engine).samples) == pytest.approx(220, abs=2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("quadrant", ["Q1", "Q3"])
def test_pieces_neither_clip_nor_vanish_and_end_in_time(engine, quadrant):
    score = fabricated_score(4, bars=4, quadrant=quadrant)
    audio = render(score, engine=engine)
    peak = np.abs(audio.samples).max()
    assert 0.1 < peak <= 10 ** (-1 / 20) + 1e-6
    assert rms(audio.samples) > 0.01 and np.isfinite(audio.samples).all()
    assert score.duration_s <= audio.duration_s <= score.duration_s + 2 + 1e-3
    assert abs(audio.samples[-1]) < 1e-3
    np.testing.assert_array_equal(audio.samples, render(score, engine=engine).samples)


@pytest.mark.parametrize("engine", ENGINES)
def test_louder_velocity_is_louder_and_the_softest_is_heard(engine):
    levels = [rms(render(Score((Note(0, 1, 69, v),)), engine=engine).samples) for v in (1, 30, 70, 110, 127)]
    assert levels == sorted(levels) and levels[0] > 3e-4 and levels[-1] > 10 * levels[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_pedal_holds_what_the_finger_lets_go(engine):
    notes = (Note(0, 0.25, 60), Note(7.9, 0.1, 84, 1))
    pedal = (Control(0, 64, 127), Control(4, 64, 0))
    dry, held = (render(Score(notes, controls=c), engine=engine).samples for c in ((), pedal))
    at_one, at_three = slice(RATE, int(1.4 * RATE)), slice(3 * RATE, int(3.4 * RATE))  # the pedal lifts at 2 s
    assert rms(held[at_one]) > 10 * rms(dry[at_one])
    assert rms(held[at_three]) < 0.05 * rms(held[at_one])


def test_a_pedal_never_lifted_still_ends():
    audio = render(Score((Note(0, 1, 40),), controls=(Control(0, 64, 127),)), engine="builtin")
    assert 0.5 < audio.duration_s <= 0.5 + 2 + 1e-3


def test_harder_is_brighter():
    def centre(velocity: int) -> float:
        samples = render(Score((Note(0, 2, 48, velocity),)), engine="builtin").samples
        spectrum = np.abs(np.fft.rfft(samples)) ** 2
        return float((spectrum * np.fft.rfftfreq(len(samples), 1 / RATE)).sum() / spectrum.sum())

    assert centre(120) > 1.1 * centre(30)


def test_notes_begin_where_the_tempo_map_puts_them():
    score = Score((Note(0, 0.1, 60), Note(4, 1, 72)), tempos=(Tempo(0, 120), Tempo(2, 60)))
    samples = np.abs(render(score, engine="builtin").samples)
    silent = samples[int(1.5 * RATE) : int(2.95 * RATE)].max()
    assert silent < 1e-3 < samples[3 * RATE : int(3.1 * RATE)].max()
    assert render(score, engine="builtin", sample_rate=16_000).sample_rate == 16_000


def test_every_pitch_is_playable():
    for pitch in (0, 21, 108, 127):
        assert np.isfinite(render(Score((Note(0, 1, pitch),)), engine="builtin", sample_rate=44_100).samples).all()


@pytest.mark.parametrize(
    ("score", "options", "words"),
    [
        (Score(()), {}, "no notes"),
        (A4, {"engine": "csound"}, "accepted: auto, fluidsynth, builtin"),
        (A4, {"sample_rate": 100}, "accepted are 8000"),
        (A4, {"engine": "builtin", "soundfont": "a.sf2"}, "plays no soundfont"),
        (A4, {"soundfont": "/absent/a.sf2"}, "no such soundfont"),
        (Score((Note(0, 10_000, 60),)), {}, "lasts 5,000 s"),
    ],
)
def test_what_cannot_be_rendered_is_said(score, options, words):
    with pytest.raises(AffgenError, match=words) as caught:
        render(score, **options)
    assert "\n" not in str(caught.value)


def test_without_fluidsynth_auto_is_the_builtin_and_the_explicit_wish_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    np.testing.assert_array_equal(render(A4).samples, render(A4, engine="builtin").samples)
    with pytest.raises(AffgenError, match="fluidsynth is not installed"):
        render(A4, engine="fluidsynth")
    (tmp_path / "a.sf2").touch()
    with pytest.raises(AffgenError, match="not installed"):
        render(A4, soundfont=tmp_path / "a.sf2")


@pytest.mark.parametrize(
    ("script", "words"), [("echo no good >&2; exit 1", "no good"), ("exit 0", "fluidsynth failed")]
)
def test_a_failing_fluidsynth_is_one_line(monkeypatch, tmp_path, script, words):
    program = tmp_path / "fluidsynth"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "a.sf2").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("AFFGEN_SOUNDFONT", str(tmp_path / "a.sf2"))
    with pytest.raises(AffgenError, match=words) as caught:
        render(A4)
    assert "\n" not in str(caught.value)
