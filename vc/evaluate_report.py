"""The record of an evaluation, and its tables in Markdown: first how far the judge can be trusted, then the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vc import figures
from vc.evaluate_tools import ROUGHNESS, Heard, Source, spoken
from vc.figures import Reading, at

Table = dict[str, Any]
OWN = "own strong clips"
REACHED = ("accuracy", "accuracy_among", "probability")
CONTROL = ("monotone", "range", "rmse", "uniformity")
CONTENT = ("phones", "phones_change", "phones_source", "phones_source_change", "words", "words_change")
PROSODY = (
    *("f0_change", "f0_range", "f0_range_change", "f0_correlation", "energy_spread", "energy_spread_change"),
    *("duration_ratio", "loudness_change", "valence_change", "arousal_change"),
)
COMPARED = (*REACHED, "spearman", "range", "rmse", "phones", "words", "mcd")
"""What is compared utterance by utterance with the row ``model``; speaker similarities too."""


@dataclass(frozen=True, eq=False)
class Material:
    """All readings: of the speakers' own clips, and of each row; what failed, in one line each."""

    sources: Sequence[Source]
    natural: Sequence[Reading]
    rows: Mapping[str, Sequence[Reading]]
    failures: Sequence[str]

    @property
    def speakers(self) -> dict[str, str]:
        """The speaker of each source."""
        return {source.name: source.speaker for source in self.sources}


def record(material: Material, about: Mapping[str, Any]) -> Table:
    """Return every figure as JSON data; null where there is none."""
    gap = figures.gaps(material.natural)
    made: Table = {
        **about,
        "sources": {"clips": len(material.sources), "speakers": sorted(set(material.speakers.values()))},
        "validity": validity(material, gap),
        "natural": row_figures(material.natural, material, gap),
        "rows": {name: row_figures(readings, material, gap) for name, readings in material.rows.items()},
        "failures": list(material.failures),
        "listening_test": "none was run; naturalness is what the measures of sound say",
    }
    own = figures.values(material.rows.get("model", ()), gap)
    if own:
        for name, readings in material.rows.items():
            if name != "model":
                made["rows"][name]["model_minus_this"] = compared(own, figures.values(readings, gap), material.speakers)
    plain: Table = _plain(made)
    return plain


def compared(one: Mapping[str, Any], other: Mapping[str, Any], speakers: Mapping[str, str]) -> Table:
    """Return the mean differences one - other over the utterances and labels of both, with intervals."""
    names = [name for name in one if name in other and (name in COMPARED or name.startswith("speaker."))]
    return {name: figures.paired(one[name], other[name], speakers) for name in names}


# ------------------------------------------------------------------------------------------------------ validity


def validity(material: Material, gap: Mapping[str, float]) -> Table:
    """Return what the instruments make of real recordings of these speakers."""
    return {
        "pairs": pairs(material),
        "gap": dict(gap),
        "gap_by_speaker": {
            speaker: figures.gaps([r for r in material.natural if r["speaker"] == speaker])
            for speaker in sorted(set(material.speakers.values()))
        },
        "neutral_read_as_neutral": float(
            np.mean([_likeliest(source.heard) == "neutral" for source in material.sources])
        ),
        "speaker": speaker_floors(material),
        "content": content_floors(material),
        "frechet": frechet_floors(material),
    }


def pairs(material: Material) -> Table:
    """Return how often the judge puts a strong clip above a weaker one of the same speaker, sentence and take."""
    right: dict[figures.Key, float] = {}
    for key, rows in figures.curves(material.natural).items():
        strengths = [row["strength"][key[1]] for row in rows if 0 < row["intensity"] <= figures.TOP]
        if len(strengths) > 1:
            right[key] = float(strengths[-1] > strengths[-2])
    return figures.interval(right, material.speakers) | {"labels": figures.by_label(right)}


def speaker_floors(material: Material) -> Table:
    """Return mean cosines: two neutral ``takes`` of a speaker, ``strong`` clips to neutral ones, and ``strangers``."""
    found: Table = {}
    for name in material.sources[0].heard.voices if material.sources else ():
        takes = [o.voices[name] @ s.heard.voices[name] for s in material.sources for o in s.others]
        foreign = [
            a.heard.voices[name] @ b.heard.voices[name]
            for a in material.sources
            for b in material.sources
            if a.speaker < b.speaker
        ]
        strong = [r["speaker_likeness"][name] for r in at(material.natural)]
        found[name] = {
            "takes": _mean(takes),
            "strong": _mean([near["others"] for near in strong if "others" in near]),
            "strong_same_sentence": _mean([near["source"] for near in strong]),
            "strangers": _mean(foreign),
        }
    return found


def content_floors(material: Material) -> Table:
    """Return errors in points of the raw sources against their own text, and against another sentence's.

    ``phones_other_take`` is another neutral take against the phones read in the source.
    """
    from affgen.align.lexicon import words

    texts = sorted({source.text for source in material.sources if spoken(source.text)})
    found: dict[str, list[float]] = {}
    for reading in at(material.natural, 0.0):
        wrong, count = reading["errors"]["phones_source"]
        found.setdefault("phones_other_take", []).append(100 * wrong / max(count, 1))
    for source in material.sources:
        for text in texts:
            kind = "own" if text == source.text else "another"
            said = spoken(text)
            wrong = 100 * figures.edits(said, source.heard.phones) / len(said)
            found.setdefault(f"phones_{kind}", []).append(wrong)
            if source.heard.words is not None:
                wrong = 100 * figures.edits(words(text), source.heard.words) / len(words(text))
                found.setdefault(f"words_{kind}", []).append(wrong)
    return {name: float(np.mean(wrong)) for name, wrong in found.items()}


def frechet_floors(material: Material) -> Table:
    """Return Fréchet distances between halves of the speakers' own strong clips: other ``takes``, other ``speakers``.

    They have half the clips of a row, which alone makes them larger.
    """
    order = {name: k for k, name in enumerate(sorted(material.speakers))}
    voices = sorted(set(material.speakers.values()))
    halves: dict[str, Callable[[Reading], bool]] = {
        "takes": lambda r: order[r["utterance"]] % 2 == 0,
        "speakers": lambda r: voices.index(r["speaker"]) % 2 == 0,
    }
    found = {}
    for name, first in halves.items():
        each = []
        for label in sorted({r["label"] for r in at(material.natural)}):
            rows = [r for r in at(material.natural) if r["label"] == label]
            sides = [r["moments"] for r in rows if first(r)], [r["moments"] for r in rows if not first(r)]
            each.append(figures.frechet(*sides))
        found[name] = _mean(each)
    return found


# ---------------------------------------------------------------------------------------------------------- rows


def row_figures(readings: Sequence[Reading], material: Material, gap: Mapping[str, float]) -> Table:
    """Return the figures of one row."""
    value, speakers = figures.values(readings, gap), material.speakers

    def interval(name: str, median: bool = False) -> Table:
        own = value.get(name, {})
        return figures.interval(own, speakers, median=median) | {"labels": figures.by_label(own)}

    leak = figures.leakage(readings, gap)
    rtf = value.get("rtf", {})
    return {
        "outputs": len(readings),
        "reached": {name: interval(name) for name in REACHED} | {"read_as": figures.confusion(readings)},
        "control": {
            "spearman": interval("spearman", median=True),
            "spearman_mean": interval("spearman"),
            **{name: interval(name) for name in CONTROL},
            "curve": curve(readings, gap),
        },
        "leak": figures.off_target(leak, figures.leakage(material.natural, gap)) | {"table": leak},
        "speaker": speakers_kept(readings, value, interval),
        "content": {name: interval(name) for name in CONTENT if name in value},
        "prosody": {name: figures.by_label(value.get(name, {})) for name in PROSODY},
        "quality": {
            "frechet": figures.frechet_interval(readings, real_moments(material)),
            "roughness": figures.oddness(readings, material.natural, ROUGHNESS),
            "mcd": interval("mcd"),
            **({"mos": interval("mos")} if "mos" in value else {}),
        },
        "cost": {"rtf": float(np.median(list(rtf.values())))} if rtf else {},
    }


def curve(readings: Sequence[Reading], gap: Mapping[str, float]) -> Table:
    """Return the mean judged strength, in natural gaps, of each label at each intensity."""
    labels = sorted({reading["label"] for reading in readings})
    return {
        label: figures.along([r for r in readings if r["label"] == label], lambda r: figures.judged(r, gap))
        for label in labels
    }


def speakers_kept(readings: Sequence[Reading], value: Mapping[str, Any], interval: Callable[..., Table]) -> Table:
    """Return for each speaker encoder the likeness at the top, and at every intensity."""
    found: Table = {}
    for name in sorted({encoder for reading in readings for encoder in reading["speaker_likeness"]}):
        found[name] = {
            what: interval(f"speaker.{name}.{what}")
            | {"curve": figures.along(having, lambda r, n=name, w=what: r["speaker_likeness"][n][w])}  # type: ignore[misc]
            for what in ("source", "others")
            if f"speaker.{name}.{what}" in value
            for having in [[r for r in readings if what in r["speaker_likeness"][name]]]
        }
    return found


def real_moments(material: Material) -> dict[str, list[Mapping[str, Any]]]:
    """Return the moments of the speakers' own strong clips by label."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for reading in at(material.natural):
        found.setdefault(reading["label"], []).append(reading["moments"])
    return found


# ------------------------------------------------------------------------------------------------------ printing


def markdown(made: Table) -> str:
    """Return the tables: validity of the judge, all rows, and each emotion of each row."""
    return (
        "\n\n".join(
            [
                "\n".join(trusted(made)),
                "\n".join(main_table(made)),
                "\n".join(curve_table(made)),
                "\n".join(label_table(made)),
            ]
        )
        + "\n"
    )


def trusted(made: Table) -> list[str]:
    """Return how far the instruments can be trusted, in lines."""
    known, own = made["validity"], made["natural"]
    pair, content = known["pairs"], known["content"]
    lines = [
        f"Real clips of {len(made['sources']['speakers'])} held-out speakers under the same instruments, at "
        f"{made['loudness']:g} LUFS; 95 % intervals in brackets:",
        f"- judge: the stronger of two real clips of an emotion is found in {ranged(pair)} of {pair['count']} pairs; "
        + ", ".join(f"{label} {shown(share)}" for label, share in pair["labels"].items()),
        f"- judge: accuracy on real strong clips {ranged(own['reached']['accuracy'])}; neutral clips read as neutral "
        f"{shown(known['neutral_read_as_neutral'])}",
    ]
    for name, near in known["speaker"].items():
        lines.append(
            f"- speaker ({name}): two neutral takes {shown(near['takes'])}, strong clips to neutral ones "
            f"{shown(near['strong'])} (same sentence {shown(near['strong_same_sentence'])}), strangers "
            f"{shown(near['strangers'], better='less')}"
        )
    if content:
        lines.append(
            "- content: " + ", ".join(f"{n.replace('_', ' ')} {x:.1f}" for n, x in content.items()) + " points"
        )
    distances = ", ".join(f"other {name} {shown(x, 1)}" for name, x in known["frechet"].items())
    lines.append(f"- Fréchet distance between halves of the real strong clips: {distances}")
    if made["model"]:
        lines.append(f"- model: {made['model']['parameters']:,} parameters, {made['steps'] or 'its own'} steps")
    lines += [f"- missing: {text}" for text in made["missing"]]
    lines.append(f"- listening test: {made['listening_test']}")
    if made["failures"]:
        lines.append(f"- {len(made['failures'])} conversions failed and are in no figure")
    return lines


def main_table(made: Table) -> list[str]:
    """Return one line for each row, the speakers' own clips first."""
    head = ["row", "Spearman", "monotone", "range", "RMSE", "accuracy", "probability", "off-target"]
    encoders = list(made["validity"]["speaker"])
    head += [f"speaker, {name}" for name in encoders]
    head += ["phone errors", "word errors", "Fréchet", "roughness", "MCD", "RTF"]
    lines = [head, ["---"] * len(head)]
    for name, row in {OWN: made["natural"], **made["rows"]}.items():
        control, reached, quality, content = (row[part] for part in ("control", "reached", "quality", "content"))
        cells = [name, ranged(control["spearman"], 2), shown(control["monotone"]["value"], 2)]
        cells += [ranged(control["range"], 2), shown(control["rmse"]["value"], 2, "less")]
        cells += [ranged(reached["accuracy"], 2), shown(reached["probability"]["value"], 2)]
        cells += [shown(row["leak"]["excess"], 2, "less")]
        cells += [ranged(row["speaker"].get(e, {}).get("others"), 3) for e in encoders]
        cells += [ranged(content.get(f"{what}_change"), 1, "less") for what in ("phones", "words")]
        real = name == OWN  # compared with themselves
        cells += ["-", "-"] if real else [
            ranged(quality["frechet"], 1, "less"), shown(quality["roughness"]["value"], 2, "less")
        ]  # fmt: skip
        cells += [shown(quality["mcd"]["value"], 1, "less"), shown(row["cost"].get("rtf"), 3, "less")]
        lines.append(cells)
    return [_line(cells) for cells in lines]


def curve_table(made: Table) -> list[str]:
    """Return how strong each row is judged, and how alike the speaker stays, at every intensity."""
    levels = [f"{level:g}" for level in made["intensities"]]
    encoder = next(iter(made["validity"]["speaker"]), "")
    lines = [["row", *(f"judged at {x}" for x in levels), *(f"speaker at {x}" for x in levels)]]
    lines.append(["---"] * len(lines[0]))
    for name, row in {OWN: made["natural"], **made["rows"]}.items():
        curves = [each for each in row["control"]["curve"].values() if each]
        cells = [[each[x] for each in curves if each.get(x) is not None] for x in levels]
        judged = [shown(_mean(values), 2) if values else "-" for values in cells]
        near = row["speaker"].get(encoder, {}).get("others", {}).get("curve", {})
        lines.append([name, *judged, *(shown(near.get(x), 3) for x in levels)])
    return [_line(cells) for cells in lines]


def label_table(made: Table) -> list[str]:
    """Return one line for each row and emotion."""
    head = ["row", "emotion", "Spearman, mean", "range", "accuracy", "probability", "F0, semitones", "F0 range"]
    head += ["duration", "loudness, LU", "phone errors"]
    lines = [head, ["---"] * len(head)]
    for name, row in {OWN: made["natural"], **made["rows"]}.items():
        for label in made["emotions"]:
            control, reached, prosody = row["control"], row["reached"], row["prosody"]
            cells = [name, label, shown(control["spearman_mean"]["labels"].get(label), 2)]
            cells += [shown(control["range"]["labels"].get(label), 2)]
            cells += [shown(reached[what]["labels"].get(label), 2) for what in ("accuracy", "probability")]
            cells += [_signed(prosody[what].get(label)) for what in ("f0_change", "f0_range_change")]
            cells += [shown(prosody["duration_ratio"].get(label), 2), _signed(prosody["loudness_change"].get(label))]
            cells += [_signed(row["content"].get("phones_change", {}).get("labels", {}).get(label))]
            lines.append(cells)
    return [_line(cells) for cells in lines]


def shown(value: float | None, places: int = 3, better: str = "more") -> str:
    """Return a figure with ``places``, cut towards what is worse; a dash where there is none."""
    if value is None or not np.isfinite(value):
        return "-"
    size, slack = 10**places, 1e-3  # of the last place: rounding within the computation
    cut = np.floor(value * size + slack) if better == "more" else np.ceil(value * size - slack)
    return f"{cut / size + 0.0:.{places}f}"


def ranged(found: Mapping[str, Any] | None, places: int = 3, better: str = "more") -> str:
    """Return a figure with its interval."""
    if not found or shown(found["value"]) == "-":
        return "-"
    low, high = (f"{found[side]:.{places}f}" for side in ("low", "high"))
    return f"{shown(found['value'], places, better)} [{low}, {high}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _likeliest(heard: Heard) -> str:
    chance = heard.judged.posterior
    return str(max(chance, key=lambda name: chance[name]))


def _mean(numbers: Sequence[Any]) -> float:
    return float(np.mean(numbers)) if len(numbers) else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value
