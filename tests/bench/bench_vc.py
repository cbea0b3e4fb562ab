"""What a conversion costs: real-time factor, latency of a stream, memory for an hour.

    OMP_NUM_THREADS=2 python tests/bench/bench_vc.py [--hour] [--threads 2] [--repeat 20]

The real-time factor is of one 5 s clip, end to end from samples to samples, model loaded: the median of the repeats by
the clock, and by processor time. The latency is the time from the moment at which the input that a first block needs is
there until the block is out, for fresh streams, and the length of that input. ``--hour`` converts a file of an hour in
a process of its own and reports its peak memory less that of a process that has only loaded the model and converted
five seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from affgen.audio import Audio, save_blocks
from affgen.testing_voice import fabricated_voice
from vc.convert import VoiceConverter

RATE = 22_050
PIECE = 441
"""Samples, 20 ms, that arrive at a time."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--hour", action="store_true", help="also the memory for an hour, some minutes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    converter = VoiceConverter.from_pretrained()
    clip = Audio(fabricated_voice(0, "woman", seconds=5.0).samples, RATE)
    converter.convert(clip, "angry", 1.0)
    spent = []
    for _ in range(args.repeat):
        start = time.perf_counter(), time.process_time()
        converter.convert(clip, "angry", 1.0)
        spent.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, processor = np.median(spent, axis=0) / clip.duration_s
    print(f"5 s clip, {args.threads} threads: real-time factor {clock:.4f}, processor {processor:.4f} s/s")
    waits, heard = zip(*(_first_block(converter, clip) for _ in range(args.repeat)), strict=True)
    most = np.percentile(np.add(waits, heard), 95)
    print(f"stream: first block after {heard[0]:.3f} s of input and {np.median(waits):.3f} s; p95 {most:.3f} s in all")
    if args.hour:
        idle, busy = (_peak(seconds) for seconds in (5, 3600))
        print(f"an hour: {busy - idle:.1f} MB above idle ({idle:.0f} MB)")
    return 0


def _first_block(converter: VoiceConverter, clip: Audio) -> tuple[float, float]:
    """Return how long the first block took once its input was there, and how many seconds of input it needed."""
    given = 0
    arrived = 0.0

    def parts():
        nonlocal given, arrived
        for first in range(0, len(clip.samples), PIECE):
            given, arrived = first + PIECE, time.perf_counter()
            yield clip.samples[first : first + PIECE]

    next(converter.stream(parts(), RATE, "angry", 1.0))
    return time.perf_counter() - arrived, given / RATE


def _peak(seconds: int) -> float:
    """Return the peak memory in MB of a process that converts a file of so many seconds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_converted, (seconds,))


def _converted(seconds: int) -> float:
    minute = fabricated_voice(1, "man", seconds=min(60.0, seconds)).samples
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.flac", Path(folder) / "out.flac"
        save_blocks(source, (minute for _ in range(max(1, seconds // 60))), RATE)
        VoiceConverter.from_pretrained().convert_file(source, out, "angry", 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
