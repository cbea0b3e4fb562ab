"""Write RESULTS.md from the metrics of this recipe: `python local/results.py NAME=METRICS.json ... > RESULTS.md`.

The first NAME is the model; its file also gives the row of real clips, the grid of points and the confusion matrix.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FEATURES = ("pitch_range", "pitch_classes", "polyphony", "density", "velocity")


def main(arguments: list[str]) -> None:
    """Print the page."""
    records = {name: json.loads(Path(path).read_text()) for name, _, path in (a.partition("=") for a in arguments)}
    model = next(iter(records.values()))
    print(f"## {model['pieces']} pieces of {model['bars']} bars for each quadrant\n")
    print("\n".join(accuracy_table(records, model)))
    print("\n## Asked against read over 5 x 5 points\n")
    print("\n".join(grid_table(model)))
    print("\n## Where the quadrants go (rows asked, columns read)\n")
    print("\n".join(confusion_table(model)))


def accuracy_table(records: dict[str, dict[str, Any]], model: dict[str, Any]) -> list[str]:
    """One row per record, the real clips first."""
    head = ["", "quadrant", "arousal", "valence", *(f"{f.replace('_', ' ')}" for f in FEATURES), "copied notes"]
    rows = [head, ["---"] * len(head)]
    rows.append(["real clips (validation)", *shares(model["real"]), *[""] * len(FEATURES), ""])
    for name, record in records.items():
        overlap = [f"{record['overlap'][feature]:.3f}" for feature in FEATURES]
        run = record.get("copied")
        copied = f"{run['pitch']['longest']} / {run['rhythm']['longest']}" if run else ""
        rows.append([name, *shares(record["generated"]), *overlap, copied])
    return ["| " + " | ".join(row) + " |" for row in rows]


def shares(record: dict[str, Any]) -> list[str]:
    """Accuracies to three places."""
    return [f"{record[key]:.3f}" for key in ("quadrant", "arousal", "valence")]


def grid_table(model: dict[str, Any]) -> list[str]:
    """Spearman correlations, then the mean reading at each point."""
    grid = model["grid"]
    lines = [f"{grid['pieces_per_point']} pieces for each point; Spearman correlation:", ""]
    lines += ["| | by pieces | by point means |", "| --- | --- | --- |"]
    lines += [f"| {axis} | {grid[axis]:.3f} | {grid[f'{axis}_of_means']:.3f} |" for axis in ("valence", "arousal")]
    return lines


def confusion_table(model: dict[str, Any]) -> list[str]:
    """The confusion matrix of the model's pieces."""
    names = ["Q1", "Q2", "Q3", "Q4"]
    lines = ["| | " + " | ".join(names) + " |", "| --- " * 5 + "|"]
    matrix = model["generated"]["confusion"]
    return lines + [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(names, matrix, strict=True)]


if __name__ == "__main__":
    main(sys.argv[1:])
