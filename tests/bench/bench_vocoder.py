"""Speed of the shipped vocoder: real-time factor and cost against a fixed reference kernel; one figure a line.

Vocoder and kernel take turns in one process, so that their ratio holds on a machine whose speed drifts. Times are by
the clock, with ``--threads`` threads (default 2).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from affgen import features
from affgen.audio import Audio
from affgen.testing_voice import fabricated_voice
from affgen.vocoder import Vocoder
from affgen.vocoder.griffin_lim import griffin_lim

SIDE = 1024
FLOPS = 2 * SIDE**3
"""Of the reference kernel: one product of two square float32 matrices."""


def timed(call: Callable[[], object]) -> float:
    """Seconds by the clock that ``call`` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def figures(seconds: float, repeats: int) -> dict[str, float]:
    """Medians over ``repeats`` turns, for a fabricated voice of ``seconds``."""
    sound = features.extract(Audio(fabricated_voice(0, "woman", seconds=seconds).samples, features.SAMPLE_RATE))
    vocoder, matrix = Vocoder.from_pretrained(), torch.randn(SIDE, SIDE)
    with FlopCounterMode(display=False) as counter:
        vocoder.synthesize(sound.mel, sound.f0)
    calls: dict[str, Callable[[], object]] = {
        "reference kernel": lambda: matrix @ matrix,
        "vocoder": lambda: vocoder.synthesize(sound.mel, sound.f0),
        "Griffin-Lim": lambda: griffin_lim(sound.mel),
    }
    for call in calls.values():
        call()
    runs = [{name: timed(call) for name, call in calls.items()} for _ in range(repeats)]
    taken = {name: statistics.median(run[name] for run in runs) for name in calls}
    return {
        "threads": torch.get_num_threads(),
        "vocoder: real-time factor": taken["vocoder"] / seconds,
        "vocoder: real-time factor, fastest run": min(run["vocoder"] for run in runs) / seconds,
        "vocoder: GFLOP per second of audio (without its Fourier transforms)": counter.get_total_flops()
        / 1e9
        / seconds,
        "vocoder: reference kernels per second of audio": statistics.median(
            run["vocoder"] / run["reference kernel"] / seconds for run in runs
        ),
        "reference kernel: GFLOP": FLOPS / 1e9,
        "reference kernel: GFLOP/s": FLOPS / 1e9 / taken["reference kernel"],
        "Griffin-Lim, 60 iterations: real-time factor": taken["Griffin-Lim"] / seconds,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, value in figures(args.seconds, args.repeats).items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
