"""Which sampler in how many steps: conversions of the speakers left out of the decoder's training, by each.

    python local/samplers.py --data DIR --model MODEL [--leave_out ravdess-13 ...]

Prints a table in Markdown: evaluations of the network, mean judged strength at intensity 1, the share that the judge
files under the emotion asked for, the Fréchet distance to the same speakers' own strong clips (cepstra and slopes, dB
squared), and seconds of processor time per second of sound, on one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from affgen.cli import guard
from affgen.features import extract
from vc.calibrate import clips_of
from vc.convert import VoiceConverter
from vc.evaluate_tools import frames
from vc.figures import frechet, moments
from vc.judge import Judge

LABELS = ("angry", "happy", "sad", "fearful")
TRIED = (
    *(("flow", steps) for steps in (1, 2, 4, 6, 8, 30)),
    *(("midpoint", steps) for steps in (1, 2, 3, 15)),
    *(("ml", steps) for steps in (4, 6, 30)),
    *(("pf", steps) for steps in (6, 30)),
    *(("em", steps) for steps in (6, 30)),
)


def main(arguments: list[str]) -> int:
    """Convert, judge and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="data directory of RAVDESS speech, its training speakers")
    parser.add_argument("--model", help="model directory (default: the shipped one)")
    parser.add_argument("--leave_out", nargs="+", default=[f"ravdess-{actor}" for actor in (13, 14, 15, 16)])
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    converter, judge = VoiceConverter.from_pretrained(args.model), Judge.from_pretrained()
    neutral, strong = clips_of([args.data], args.leave_out)
    anchors = [judge.read(clip) for clip in neutral]
    real = {label: [moments(frames(extract(clip))) for clip, _ in strong[label]] for label in LABELS}
    print("| sampler | steps | evaluations | strength | accuracy | Fréchet | s/s |\n|---|---|---|---|---|---|---|")
    for name, steps in TRIED:
        parts = replace(converter.parts, config=replace(converter.parts.config, sampler=name))
        changed, rows, distances, spent, seconds = VoiceConverter(parts), [], [], 0.0, 0.0
        for label in LABELS:
            start = time.process_time()
            made = [changed.convert(clip, label, 1.0, steps=steps) for clip in neutral]
            spent += time.process_time() - start
            seconds += sum(clip.duration_s for clip in neutral)
            heard = [judge.read(sound) for sound in made]
            rows += [
                (judge.strength(h, label, anchor), h.label == label) for h, anchor in zip(heard, anchors, strict=True)
            ]
            distances.append(frechet([moments(frames(extract(sound))) for sound in made], real[label]))
        strength, right = np.mean(rows, axis=0)
        cost = steps * (2 if name == "midpoint" else 1)
        figures = f"{strength:.3f} | {right:.3f} | {np.mean(distances):.2f} | {spent / seconds:.3f}"
        print(f"| {name} | {steps} | {cost} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
