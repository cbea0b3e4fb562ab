"""A score made audible: through FluidSynth where it is installed, else through a small piano of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affgen.audio import Audio
from affgen.errors import AffgenError
from affgen.midi import write_midi
from affgen.score import SUSTAIN_PEDAL, Score

ENGINES = ("auto", "fluidsynth", "builtin")
SOUNDFONT_FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/soundfonts")
SAMPLE_RATES = (8_000, 96_000)
MAX_SECONDS = 3_600

CEILING = 10 ** (-1 / 20)
"""The loudest sample of any rendering: -1 dBFS."""

TAIL = 2.0
"""Seconds that may sound on after the last note."""


def render(
    score: Score, *, sample_rate: int = 22_050, engine: str = "auto", soundfont: str | Path | None = None
) -> Audio:
    """Render ``score`` to mono sound of its own length and at most two seconds of tail.

    ``engine`` is ``fluidsynth`` (its program, with ``soundfont``, ``$AFFGEN_SOUNDFONT`` or one that the system has),
    ``builtin`` (an additive piano in numpy), or ``auto``: FluidSynth if both parts are there, else the builtin. The
    peak is brought down to -1 dBFS if above, and half of the way (in decibels) up to it if below: so nothing clips,
    nothing is silent, and soft pieces stay softer than loud ones. Equal arguments give equal samples on one machine.
    Raises :class:`AffgenError` for a score without notes or above an hour, an unknown or missing engine or soundfont,
    or a rate outside 8,000..96,000.
    """
    if engine not in ENGINES:
        raise AffgenError(f"engine {engine!r} is not known; accepted: {', '.join(ENGINES)}")
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise AffgenError(f"sample rate {sample_rate}: accepted are {SAMPLE_RATES[0]}..{SAMPLE_RATES[1]}")
    if not score.notes:
        raise AffgenError("the score has no notes; there is nothing to render")
    if score.duration_s > MAX_SECONDS:
        raise AffgenError(f"the score lasts {score.duration_s:,.0f} s; at most {MAX_SECONDS:,} s are rendered")
    wanted = soundfont or os.environ.get("AFFGEN_SOUNDFONT")
    if engine == "builtin":
        if soundfont:
            raise AffgenError(f"{soundfont}: the builtin engine plays no soundfont; use engine fluidsynth or auto")
        return Audio(_level(_builtin(score, sample_rate)), sample_rate)
    font = _find_soundfont(wanted)
    program = shutil.which("fluidsynth")
    if program and font:
        return Audio(_level(_fluidsynth(score, sample_rate, program, font)), sample_rate)
    if engine == "fluidsynth" or wanted:
        missing = "a soundfont (timgm6mb-soundfont)" if program else "the program fluidsynth"
        raise AffgenError(f"engine fluidsynth: {missing} is not installed; install it or use engine builtin")
    return Audio(_level(_builtin(score, sample_rate)), sample_rate)


def _level(samples: np.ndarray) -> np.ndarray:
    """Set the peak of ``samples`` (L,) as :func:`render` says; raise AffgenError if there is nothing to hear."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not 1e-6 < peak < np.inf:
        raise AffgenError("the engine rendered silence; choose another soundfont or engine builtin")
    gain = CEILING / peak
    return (samples * (gain if gain < 1 else np.sqrt(gain))).astype(np.float32)


# --- FluidSynth ------------------------------------------------------------------------------------------------------


def _find_soundfont(wanted: str | Path | None) -> Path | None:
    if wanted:
        if not Path(wanted).is_file():
            raise AffgenError(f"{wanted}: no such soundfont; name an .sf2 file")
        return Path(wanted).absolute()
    found = [path for folder in SOUNDFONT_FOLDERS for path in sorted(Path(folder).glob("*.sf[23]"))]
    return next((path for path in found if path.stem.startswith("default")), found[0] if found else None)


def _fluidsynth(score: Score, sample_rate: int, program: str, font: Path) -> np.ndarray:
    """Run FluidSynth on ``score``; return (L,) float32, both channels averaged."""
    import soundfile

    with tempfile.TemporaryDirectory(prefix="affgen-render-") as folder:
        piece, sound = Path(folder) / "piece.mid", Path(folder) / "piece.wav"
        write_midi(score, piece)
        # samples in floating point, since 16 bits would clip before the level is set
        options = ["-ni", "-q", "-g", "2", "-r", str(sample_rate), "-T", "wav", "-O", "float", "-F", str(sound)]
        try:
            done = subprocess.run(
                [program, *options, str(font), str(piece)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60 + score.duration_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AffgenError("fluidsynth did not end in time; use engine builtin") from None
        if done.returncode or not sound.is_file():
            reason = " ".join(done.stderr.decode(errors="replace").split())[-200:]
            raise AffgenError(f"fluidsynth failed on {font} ({reason or done.returncode}); use engine builtin")
        samples = soundfile.read(sound, dtype="float32", always_2d=True)[0].mean(axis=1)
    return _fade_end(samples[: round((score.duration_s + TAIL) * sample_rate)], sample_rate)


def _fade_end(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Let the last tenth of a second of ``samples`` (L,) fade, so that a cut tail does not click."""
    count = min(len(samples), sample_rate // 10)
    samples[len(samples) - count :] *= np.linspace(1, 0, count, dtype=np.float32)
    return samples


# --- the builtin piano -----------------------------------------------------------------------------------------------

PARTIALS = 20
RELEASE_S = 0.07  # time constant of the damper
BLOCK = 256  # samples that share one coarse phase
LEVEL = 0.3  # so that one loud note peaks near -6 dBFS and a dense loud piece near full scale


def _builtin(score: Score, sample_rate: int) -> np.ndarray:
    """Add up the notes of ``score``; return (L,) float32 at a level of its own."""
    output = np.zeros(round((score.duration_s + TAIL) * sample_rate) + 1, dtype=np.float32)
    stop = 0
    for onset, release, end, pitch, velocity in _sounding(score):
        first = round(onset * sample_rate)
        count = min(round((end - onset) * sample_rate), len(output) - first)
        note = _strike(pitch, velocity, count, round((release - onset) * sample_rate), sample_rate)
        output[first : first + count] += note
        stop = max(stop, first + count)
    return _fade_end(output[:stop], sample_rate)


def _sounding(score: Score) -> Iterator[tuple[float, float, float, int, int]]:
    """Yield (onset, release, end, pitch, velocity) of every note, in seconds.

    The release waits for the sustain pedal. The end is where the note is damped away, has died away by itself, or is
    struck again. A pedal that is never lifted is lifted when the tail is half over.
    """
    columns = score.arrays()
    onsets = score.seconds(columns["onset"])
    releases = score.seconds(columns["onset"] + columns["duration"])
    downs, ups = _pedal_spans(score)
    if downs.size:
        span = np.searchsorted(downs, releases) - 1  # the last press before the release
        held = (span >= 0) & (releases < ups[span])
        releases[held] = ups[span[held]]
    again = dict.fromkeys(range(128), np.inf)
    notes = []
    for i in reversed(range(len(onsets))):
        onset, pitch = float(onsets[i]), int(columns["pitch"][i])
        release = min(float(releases[i]), again[pitch])
        end = min(release + 6 * RELEASE_S, onset + 7 / _decay_rate(pitch), again[pitch] + 0.02)
        if end > onset:
            notes.append((onset, release, end, pitch, int(columns["velocity"][i])))
        again[pitch] = onset
    yield from reversed(notes)


def _pedal_spans(score: Score) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds at which the sustain pedal goes down and up again, each (spans,), in order."""
    latest = score.duration_s + TAIL / 2
    downs: list[float] = []
    ups: list[float] = []
    for control in score.controls:
        pressed = control.value >= 64
        if control.number == SUSTAIN_PEDAL and pressed == (len(downs) == len(ups)):
            (downs if pressed else ups).append(control.beat)
    lifted = np.minimum(score.seconds(np.array(ups)), latest)
    return score.seconds(np.array(downs)), np.append(lifted, [latest] * (len(downs) - len(ups)))


def _decay_rate(pitch: int) -> float:
    """Rate in 1/s at which the aftersound of a string dies: some 14 s to -60 dB in the bass, 1 s in the treble."""
    return 0.5 * 2.0 ** ((pitch - 21) / 22)


def _strike(pitch: int, velocity: int, count: int, release: int, sample_rate: int) -> np.ndarray:
    """One note of ``count`` samples, damped from sample ``release`` on; return (count,) float32.

    A sum of decaying sines, each with a prompt and a slightly mistuned slow part. Stiff strings stretch their
    partials (Fletcher, 1964: f_k = k f_0 sqrt(1 + B k^2)); a hammer at an eighth of the string thins every eighth; the
    harder the blow, the brighter. All phases come from two short tables, exp(z (m BLOCK + n)) = exp(z m BLOCK)
    exp(z n), so that a note costs one matrix product.
    """
    k = np.arange(1, PARTIALS + 1)
    f0 = 440.0 * 2.0 ** ((pitch - 69) / 12)
    frequency = k * f0 * np.sqrt(1 + 1e-4 * 2.0 ** ((pitch - 45) / 12) * k**2)
    k, frequency = k[frequency < 0.45 * sample_rate], frequency[frequency < 0.45 * sample_rate]
    force = velocity / 127
    cutoff = 300 + 2_700 * force**1.5 + 1.2 * f0
    amplitude = (
        LEVEL * force**1.6 * (np.abs(np.sin(np.pi * k / 8)) + 0.05) / k**0.8 * np.exp(-(frequency - f0) / cutoff)
    )
    slow = _decay_rate(pitch) * (1 + 0.25 * (k - 1))
    rates = np.concatenate([4 * slow, slow])
    z = (2j * np.pi * np.concatenate([frequency, frequency * 1.0004]) - rates) / sample_rate
    weights = np.concatenate([0.7 * amplitude, 0.3 * amplitude])
    blocks = -(-count // BLOCK)
    coarse = weights * np.exp(np.outer(np.arange(blocks) * BLOCK, z))  # (blocks, partials)
    fine = np.exp(np.outer(z, np.arange(BLOCK)))  # (partials, BLOCK)
    # the imaginary part starts at 0; two real products are half the work of a complex one
    note = (coarse.real @ fine.imag + coarse.imag @ fine.real).reshape(-1)[:count]
    if release < count:
        note[release:] *= np.exp(-np.arange(count - release) / (RELEASE_S * sample_rate))
    rise = min(count, sample_rate // 500)
    note[:rise] *= np.linspace(0, 1, rise)
    return note.astype(np.float32)
