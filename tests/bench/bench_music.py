"""Speed of the music generator, measured on one core; ``make bench`` prints the table of RESULTS.md.

Each ratio comes from interleaved runs in one process, so that it holds on a machine whose speed drifts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from affgen.emotion.spec import parse_emotion, parse_intensity
from music.compose import SHIPPED, Composer
from music.config import PUBLISHED
from music.decode import Request, decode
from music.model import Conditions
from music.steering import steering
from music.tokens import TYPE
from music.train import build

TIMER = time.process_time
"""Processor time of this one thread: waiting for other programs does not count."""


def recurrent_against_full(rows: int, repeats: int) -> dict[str, float]:
    """Published sizes, one piece: seconds per row by recurrence, and by recomputing the whole prefix for each row."""
    model, prior = (part.eval() for part in build(PUBLISHED))
    requests = [Request(seed=0, steer=lambda bars, bpm: np.zeros((bars, 4)), bars=rows, quadrant=1)]
    x = torch.zeros(1, PUBLISHED.model.max_rows, 8, dtype=torch.long)
    latent = torch.zeros(1, x.shape[1], PUBLISHED.model.latent)
    none = Conditions(torch.zeros(1, x.shape[1], 2), *(torch.zeros(1, x.shape[1], dtype=torch.long),) * 3)
    codes = torch.zeros(1, x.shape[1], dtype=torch.long)

    @torch.inference_mode()
    def full() -> None:
        """One row of the official decoder: all 1,024 positions of the prior and of the decoder again."""
        model.logits(model.hidden(x, latent, torch.ones(x.shape[:2]), none), x[..., TYPE])
        prior.losses(codes, x, torch.ones(x.shape[:2]), none)

    slow, fast = [], []
    for _ in range(repeats):
        slow.append(timed(full))
        start = TIMER()
        piece = decode(model, prior, PUBLISHED, requests)[0]
        fast.append((TIMER() - start) / len(piece))
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {
        "full recomputation, rows/s": 1 / statistics.median(slow),
        "recurrent, rows/s": 1 / statistics.median(fast),
        "ratio": statistics.median(ratios),
        "smallest ratio": min(ratios),
    }


def shipped_speed(repeats: int) -> dict[str, float]:
    """Notes per second of the shipped model: one stream, and 32 side by side."""
    composer, asked = Composer.from_pretrained(), (parse_emotion("Q1"), parse_intensity(1.0))
    composer.compose("Q1", bars=2)  # first call: caches warm
    results = {}
    for name, count in (("one stream", 1), ("32 side by side", 32)):
        rates = []
        for repeat in range(repeats):
            requests = [
                Request(1000 * repeat + k, steering(*asked, composer.config.sampling, seed=k), bars=16)
                for k in range(count)
            ]
            start = TIMER()
            notes = sum(len(grid.notes) for grid in composer.decode(requests))
            rates.append(notes / (TIMER() - start))
        results[f"{name}, notes/s"] = statistics.median(rates)
    return results


def help_time(repeats: int) -> dict[str, float]:
    """Seconds of ``affgen --help`` as a whole process, fastest and median."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "affgen", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return {"affgen --help, s (median)": statistics.median(times), "affgen --help, s (fastest)": min(times)}


def timed(call: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = TIMER()
    call()
    return TIMER() - start


def main() -> None:
    """Print every figure on a line of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--bars", type=int, default=160, help="bars of the piece at the published sizes: about 1,000 rows"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = help_time(2 * args.repeats)
    figures |= {f"published sizes: {k}": v for k, v in recurrent_against_full(args.bars, args.repeats).items()}
    if (SHIPPED / "config.json").is_file():
        figures |= {f"shipped model: {k}": v for k, v in shipped_speed(args.repeats).items()}
    for name, value in figures.items():
        print(f"{name:50} {value:12.3f}")


if __name__ == "__main__":
    main()
