"""Print the tables of RESULTS.md: `python local/results.py NAME=METRICS.json ...`, the model first."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PLACES = {"all": "all corpora", "ravdess": "RAVDESS", "nemo": "nEMO", "emodb": "EmoDB", "an4": "AN4"}
PAIRS = {"all": "all pairs", "across_emotions": "across emotions", "across_folders": "speech against song"}


def main(arguments: list[str]) -> None:
    """Print both tables."""
    records = {name: json.loads(Path(path).read_text()) for name, _, path in (a.partition("=") for a in arguments)}
    first = next(iter(records.values()))
    print(f"## {first['utterances']} utterances of {first['speakers']} held-out speakers\n")
    print("\n".join(table(records, rows(first))))
    print("\n## Pairs behind the figures\n")
    print("\n".join(counts(first)))


def rows(record: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (heading, path into the record) of every figure that ``record`` has."""
    found = [("all pairs of all corpora", ("pooled",)), ("the same, speakers alike", ("balanced",))]
    for place, title in PLACES.items():
        for pairs, kind in PAIRS.items():
            if pairs in record["within"].get(place, {}):
                found.append((f"within {title}: {kind}", ("within", place, pairs)))
    return found


def table(records: dict[str, dict[str, Any]], wanted: list[tuple[str, tuple[str, ...]]]) -> list[str]:
    """One row per figure, one column per record; in per cent to two places."""
    lines = ["| equal error rate, % | " + " | ".join(records) + " |", "| --- " * (len(records) + 1) + "|"]
    for heading, path in wanted:
        cells = [f"{100 * look(record, path)['eer']:.2f}" for record in records.values()]
        lines.append("| " + " | ".join([heading, *cells]) + " |")
    return lines


def counts(record: dict[str, Any]) -> list[str]:
    """Targets, non-targets and threshold of each figure."""
    lines = ["| figure | targets | non-targets | threshold |", "| --- | --- | --- | --- |"]
    for heading, path in rows(record):
        part = look(record, path)
        lines.append(f"| {heading} | {part['targets']:,} | {part['others']:,} | {part['threshold']:.3f} |")
    return lines


def look(record: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return what lies at ``path``."""
    for key in path:
        record = record[key]
    return record


if __name__ == "__main__":
    main(sys.argv[1:])
