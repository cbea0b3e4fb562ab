"""Print the tables of RESULTS.md: `python local/results.py metrics.json`, what `affgen vc evaluate` has written.

First what was hoped for beside what was measured, then the tables of the evaluation itself. Figures are cut towards
what is worse, never rounded up.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vc.evaluate_report import Table, markdown, ranged, shown

AIM = "aim"
SMALLER_IS_BETTER = ("phones", "words", "mcd", "rmse")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("metrics", metavar="metrics.json", help="what affgen vc evaluate has written")
    parser.add_argument("--row", default="model", help="the row that is judged (default: model)")
    args = parser.parse_args()
    try:
        made = json.loads(Path(args.metrics).read_text(encoding="utf-8"))
        print("\n\n".join(["\n".join(goals(made, args.row)), markdown(made), "\n".join(differences(made))]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"error: {args.metrics}: {error!r}; accepted: what affgen vc evaluate has written", file=sys.stderr)
        sys.exit(2)


def goals(made: Table, name: str) -> list[str]:
    """One line for each goal."""
    lines = ["| figure | measured | must | aim | reached |", "|" + " --- |" * 5]
    if name not in made["rows"]:
        return [f"There is no row {name}."]
    for title, text, value, must, aim, better in _goals(made, made["rows"][name]):
        reached = "-" if value is None else _reached(value, must, aim, better)
        sign = ">=" if better == "more" else "<="
        wanted = ["-" if x is None else f"{sign} {x:.3g}" for x in (must, aim)]
        lines.append(f"| {title} | {text} | {wanted[0]} | {wanted[1]} | {reached} |")
    return lines


Goal = tuple[str, str, float | None, float | None, float | None, str]


def _goals(made: Table, row: Table) -> Iterator[Goal]:
    """Yield title, the figure in words, its value, what it must be, what is aimed at, and which way is better."""
    own, known, control = made["natural"], made["validity"], row["control"]
    yield (
        "Spearman, median over utterances",
        ranged(control["spearman"]),
        control["spearman"]["value"],
        0.90,
        0.98,
        "more",
    )
    for label in made["emotions"]:
        value = control["range"]["labels"].get(label)
        yield f"range / natural gap, {label}", shown(value), value, 0.5, 0.9, "more"
    theirs = own["reached"]["accuracy"]["value"]
    value = row["reached"]["accuracy"]["value"]
    text = f"{ranged(row['reached']['accuracy'])}; real strong clips {shown(theirs)}"
    yield "accuracy at intensity 1", text, value, 0.85 * theirs, theirs, "more"
    for encoder, near in known["speaker"].items():
        found = row["speaker"].get(encoder, {}).get("others", {"value": None})
        must, aim = near["strong"], near["takes"] - 0.03
        own_ear = " (trained with: no goal)" if encoder == "affgen" else ""
        yield f"speaker similarity, {encoder}{own_ear}", ranged(found), found["value"], must, aim, "more"
    for what, title in (("phones_change", "phone errors"), ("words_change", "word errors")):
        if what in row["content"]:
            found = row["content"][what]
            yield f"{title} beyond the vocoded source, points", ranged(found, 1, "less"), found["value"], 8, 2, "less"
    rule = made["rows"].get("rule")
    if rule:
        yield from _against(row, rule, next(iter(known["speaker"]), ""))
    rtf = row["cost"].get("rtf")
    yield f"real-time factor, {made['threads']} threads, sentences", shown(rtf, 3, "less"), rtf, 0.25, 0.04, "less"


def _against(row: Table, rule: Table, encoder: str) -> Iterator[Goal]:
    """Yield the goals that the rule sets: better in telling emotions, voice and natural sound, equal in control.

    Equal is no lower than the low end of the rule's interval.
    """
    for title, path, better in (
        ("accuracy", ("reached", "accuracy", "value"), "more"),
        (f"speaker similarity, {encoder}", ("speaker", encoder, "others", "value"), "more"),
        ("Fréchet distance to real emotional speech", ("quality", "frechet", "value"), "less"),
        ("roughness, deviations from real speech", ("quality", "roughness", "value"), "less"),
    ):
        ours, theirs = _at(row, path), _at(rule, path)
        yield f"better than the rule: {title}", shown(ours, 3, better), ours, theirs, None, better
    for name in ("spearman", "range"):
        found, least = row["control"][name], rule["control"][name]["low"]
        yield f"equal to the rule: {name}", ranged(found), found["value"], least, None, "more"


def differences(made: Table) -> list[str]:
    """What the model has more than the teacher and the rule, utterance by utterance."""
    lines = []
    for other in ("teacher", "rule"):
        found = made["rows"].get(other, {}).get("model_minus_this")
        if not found:
            continue
        lines += ["", f"Model minus {other}, in pairs, 95 % intervals; * where 0 lies outside of it:", ""]
        for name, change in found.items():
            clear = change["low"] is not None and (change["low"] > 0 or change["high"] < 0)
            better = "less" if name in SMALLER_IS_BETTER else "more"
            lines.append(f"- {name} ({better} is better): {ranged(change, 3, better)}{' *' if clear else ''}")
    return lines


def _at(row: Table, path: tuple[str, ...]) -> float | None:
    found: Any = row
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _reached(value: float, must: float | None, aim: float | None, better: str) -> str:
    sign = 1 if better == "more" else -1
    if aim is not None and must != aim and sign * value >= sign * aim:
        return AIM
    return "-" if must is None else "yes" if sign * value >= sign * must else "no"


if __name__ == "__main__":
    main()
