"""Speed, memory and accuracy of the acoustic features, on fabricated voices and on recordings; one figure a line.

Speed is processor time of one thread and its ratio to a fixed reference kernel, both from interleaved runs in one
process, so that the ratio holds on a machine whose speed drifts. Run with ``OMP_NUM_THREADS=1``. For recordings,
``--files FOLDER ...`` takes sound files below folders, ``--pyin N`` compares F0 with that of librosa on N of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from affgen import audio, features
from affgen.pitch import f0
from affgen.testing_voice import VOICES, fabricated_voice

TIMER = time.process_time
"""Processor time of this one process: waiting for other programs does not count."""
SIDE = 1024
FLOPS = 2 * SIDE**3
"""Of the reference kernel: one product of two square float32 matrices, by the BLAS of numpy on one thread."""
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

MEMORY = """
import resource, sys
from affgen import audio, features
features.extract_blocks(audio.blocks(sys.argv[1]))
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mel = features.extract_blocks(audio.blocks(sys.argv[2])).mel
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024, mel.nbytes / 2**20)
"""


def speed(files: list[Path], repeats: int) -> dict[str, float]:
    """Hours of audio per hour of processor time, from files on disk to features, and what its parts take."""
    seconds = sum(audio.read(file).duration_s for file in files)
    sounds = [audio.read(file, sample_rate=features.SAMPLE_RATE) for file in files]
    matrix = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    calls: dict[str, Callable[[], object]] = {
        "reference": lambda: matrix @ matrix,
        "all": lambda: [features.extract_blocks(audio.blocks(file)) for file in files],
        "decoding and resampling": lambda: [sum(map(len, audio.blocks(file))) for file in files],
        "F0": lambda: [f0(sound.samples, sound.sample_rate) for sound in sounds],
        "mel": lambda: [features.log_mel(sound.samples) for sound in sounds],
    }
    for call in calls.values():
        call()
    runs = [{name: timed(call) for name, call in calls.items()} for _ in range(repeats)]
    taken = {name: statistics.median(run[name] for run in runs) for name in calls}
    figures = {
        "seconds of audio": seconds,
        "hours per hour, one core": seconds / taken["all"],
        "hours per hour, two cores (twice that)": 2 * seconds / taken["all"],
        "hours per hour, one core, fastest run": seconds / min(run["all"] for run in runs),
        "reference kernel, GFLOP": FLOPS / 1e9,
        "reference kernel, GFLOP/s": FLOPS / 1e9 / taken["reference"],
        "audio seconds per reference kernel": statistics.median(
            seconds * run["reference"] / run["all"] for run in runs
        ),
    }
    return figures | {f"{k}, ms per second": 1000 * v / seconds for k, v in taken.items() if k != "reference"}


def two_processes(files: list[Path]) -> dict[str, float]:
    """Hours of audio per hour by the clock with two processes side by side, each with half of the files."""
    code = (
        "import sys, time\nfrom affgen import audio, features\n"
        "features.extract_blocks(audio.blocks(sys.argv[1]))\nstart = time.perf_counter()\n"
        "[features.extract_blocks(audio.blocks(f)) for f in sys.argv[1:]]\nprint(time.perf_counter() - start)"
    )
    halves = [part for part in (files[::2], files[1::2]) if part]
    running = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, part)], stdout=subprocess.PIPE, text=True)
        for part in halves
    ]
    slowest = max(float(process.communicate()[0]) for process in running)
    return {"hours per hour, two processes, by the clock": sum(audio.read(f).duration_s for f in files) / slowest}


def memory(folder: Path) -> dict[str, float]:
    """MB of peak memory above idle for an hour of audio in one FLAC file, and how much of it the mel is."""
    import soundfile

    voice = fabricated_voice(0, "woman", seconds=60).samples
    soundfile.write(folder / "minute.flac", voice, features.SAMPLE_RATE)
    with soundfile.SoundFile(folder / "hour.flac", "w", features.SAMPLE_RATE, 1) as file:
        for _ in range(60):
            file.write(voice)
    command = [sys.executable, "-c", MEMORY, str(folder / "minute.flac"), str(folder / "hour.flac")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    above, mel = map(float, done.stdout.split())
    return {"one hour: MB above idle": above, "one hour: MB of its mel": mel}


def accuracy(seeds: int) -> dict[str, float]:
    """Raw pitch accuracy within 50 cents, voicing errors and median error on fabricated voices."""
    figures = {}
    for kind in VOICES:
        rows = []
        for seed in range(seeds):
            voice = fabricated_voice(1000 + seed, kind, seconds=20)
            estimate = f0(voice.samples, features.SAMPLE_RATE)[0]
            cents = distance(estimate, voice.f0)
            rows.append(
                (
                    np.sum(cents <= 50) / np.sum(voice.f0 > 0),
                    np.mean((estimate > 0) != (voice.f0 > 0)),
                    np.median(cents),
                )
            )
        names = ("raw pitch accuracy, 50 cents", "voicing error", "median error, cents")
        figures |= {f"{kind}: {n}": float(v) for n, v in zip(names, np.mean(rows, axis=0), strict=True)}
    return figures


def pyin(files: list[Path], window: int) -> dict[str, float]:
    """Agreement with librosa's pyin: shares of the frames both call voiced, and of all frames for voicing."""
    import librosa

    cents, voicing = [], []
    for file in files:
        samples = audio.read(file, sample_rate=features.SAMPLE_RATE).samples
        ours = f0(samples, features.SAMPLE_RATE)[0]
        centred = samples[features.HOP // 2 :]  # its frame t is centred on sample t * HOP of what it is given
        theirs = librosa.pyin(
            centred, fmin=65, fmax=1100, sr=features.SAMPLE_RATE, hop_length=features.HOP, frame_length=window
        )[0]
        theirs = np.nan_to_num(theirs)[: len(ours)]
        ours = ours[: len(theirs)]
        cents.append(distance(ours, theirs))
        voicing.append((ours > 0) == (theirs > 0))
    apart = np.concatenate(cents)
    return {
        f"pyin, window {window}: files": len(files),
        f"pyin, window {window}: within 50 cents": float(np.mean(apart <= 50)),
        f"pyin, window {window}: within 100 cents": float(np.mean(apart <= 100)),
        f"pyin, window {window}: an octave off": float(np.mean(apart > 600)),
        f"pyin, window {window}: same voicing": float(np.mean(np.concatenate(voicing))),
    }


def distance(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Cents between two contours where both are voiced."""
    both = (estimate > 0) & (truth > 0)
    return np.abs(1200 * np.log2(estimate[both] / truth[both]))


def timed(call: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = TIMER()
    call()
    return TIMER() - start


def fabricated(folder: Path) -> list[Path]:
    """Write a minute of each voice as 48 kHz WAV and 22.05 kHz FLAC, in files of five seconds."""
    files = []
    for kind in VOICES:
        for seed in range(12):
            voice = fabricated_voice(seed, kind, seconds=5).samples
            rate, suffix = ((48_000, ".wav"), (features.SAMPLE_RATE, ".flac"))[seed % 2]
            files.append(folder / f"{kind}{seed}{suffix}")
            audio.Audio(audio.resample(voice, features.SAMPLE_RATE, rate), rate).save(files[-1])
    return files


def main() -> None:
    """Print every figure on a line of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10, help="fabricated voices of each kind")
    parser.add_argument("--files", type=Path, nargs="+", help="folders of recordings, in place of fabricated ones")
    parser.add_argument("--count", type=int, default=100, help="recordings drawn from it")
    parser.add_argument("--pyin", type=int, default=0, help="recordings on which to compare with pyin, which is slow")
    parser.add_argument("--windows", type=int, nargs="+", default=[768], help="of pyin; 768 is two periods of 65 Hz")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.files:
            found = sorted(path for top in args.files for path in top.rglob("*") if path.suffix in SUFFIXES)
            files = random.Random(0).sample(found, min(args.count, len(found)))
        else:
            files = fabricated(folder)
        figures = speed(files, args.repeats) | two_processes(files) | memory(folder) | accuracy(args.seeds)
        for window in args.windows if args.pyin else ():
            figures |= pyin(files[: args.pyin], window)
    for label, value in figures.items():
        print(f"{label:50} {value:12.4f}")


if __name__ == "__main__":
    main()
