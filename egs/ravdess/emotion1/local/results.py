"""Measure an emotion encoder on held-out speakers, and baselines; print tables; put figures into a packed model's card.

    python local/results.py --root DATA --model DIR --out metrics.json         # measure, print the tables
    python local/results.py --root DATA --model DIR --metrics metrics.json --pack FOLDER

DATA holds CORPUS/train and CORPUS/test with features and waves. Every sound is normalised to -23 LUFS first, except in
the rows that say otherwise.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affgen.audio import Audio, loudness, normalise
from affgen.emotion.encoder import EmotionEncoder
from affgen.emotion.evaluate import SIX, accuracy, merged_accuracy, neutral_means, ordered, recall
from affgen.emotion.gauges import columns
from affgen.emotion.labels import LABELS
from affgen.emotion.material import Clip, collate, load_clips, pairs
from affgen.emotion.network import prepare, summary
from affgen.emotion.space import EmotionSpace
from affgen.emotion.train import outputs
from affgen.featuredir import FeatureDir
from affgen.features import extract
from affgen.frames import SAMPLE_RATE

CORPORA = ("ravdess_speech", "ravdess_song", "nemo", "emodb")
INTENSE = CORPORA[:2]
"""The corpora with labelled intensities."""


@dataclass
class Part:
    """Clips of one corpus, what the encoder reads in them, their statistics and loudness before normalisation."""

    clips: list[Clip]
    embeddings: np.ndarray
    posteriors: np.ndarray
    statistics: np.ndarray
    lufs: np.ndarray

    @property
    def labels(self) -> list[str]:
        """The true labels."""
        return [LABELS[clip.label] for clip in self.clips]


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--root", "--model"):
        parser.add_argument(name, required=True)
    for name in ("--out", "--metrics", "--pack"):
        parser.add_argument(name)
    args = parser.parse_args()
    known = Path(args.metrics) if args.metrics else None
    metrics = json.loads(known.read_text()) if known else measure(Path(args.root), args.model)
    print("\n".join(tables(metrics)))
    if args.out:
        Path(args.out).write_text(json.dumps(metrics, indent=2) + "\n")
    if args.pack:
        encoder = EmotionEncoder.from_pretrained(args.model)
        encoder.card_line = card_line(metrics)
        encoder.save(args.pack, card(metrics, encoder))


# ----------------------------------------------------------------------------------------------------- measuring


def measure(root: Path, model: str) -> dict[str, Any]:
    """Return every figure."""
    encoder = EmotionEncoder.from_pretrained(model)
    found = [name for name in CORPORA if (root / name / "test" / "wav.scp").is_file()]
    test = {name: held_out(root / name / "test", encoder) for name in found}
    train = {name: training(root / name / "train", encoder) for name in found}
    metrics: dict[str, Any] = {"accuracy": {}, "order": {}, "baselines": {}}
    for name, part in test.items():
        metrics["accuracy"][name] = scores(part.posteriors, part.labels)
        metrics["baselines"][name] = baselines(train[name], part)
    for name in [name for name in INTENSE if name in test]:
        metrics["order"][name] = orders(encoder, test[name], train, name)
    metrics["confusion"] = confusion(test["ravdess_speech"])
    return metrics


def held_out(folder: Path, encoder: EmotionEncoder) -> Part:
    """Read every clip of ``folder`` from its sound, normalised."""
    clips, store = load_clips([folder]), FeatureDir(folder)
    readings, facts, lufs = [], [], []
    for clip in clips:
        sound = Audio(store.wave(clip.name), SAMPLE_RATE)
        lufs.append(loudness(sound.samples, SAMPLE_RATE))
        readings.append(encoder.encode(sound))
        features = extract(normalise(sound))
        facts.append(statistics(features.mel, features.f0, encoder.config.encoder.depth))
    posteriors = np.array([[reading.posterior[name] for name in LABELS] for reading in readings])
    embeddings = np.array([reading.embedding for reading in readings])
    return Part(clips, embeddings, posteriors, np.array(facts), np.array(lufs))


def training(folder: Path, encoder: EmotionEncoder) -> Part:
    """Return the training clips of ``folder``, for baselines and directions."""
    clips, store = load_clips([folder], encoder.config.ignore), FeatureDir(folder)
    depth = encoder.config.encoder.depth
    facts = np.array([statistics(clip.mel.astype(np.float32), clip.f0, depth) for clip in clips])
    lufs = np.array([loudness(store.wave(clip.name), SAMPLE_RATE) for clip in clips])
    return Part(clips, *outputs(encoder.network, clips), facts, lufs)


def statistics(mel: np.ndarray, f0: np.ndarray, depth: float) -> np.ndarray:
    """Return the utterance statistics (S,) that the encoder sees too."""
    clip = Clip("", 0, "", 0, 0.0, "", mel, f0)
    batch = collate([clip], [(mel, f0)], [[True] * len(LABELS)])
    with torch.inference_mode():
        return summary(*prepare(batch.mel, batch.f0, batch.mask, depth), batch.mask)[0].numpy()


def scores(posteriors: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Accuracies over the label sets; ``own`` are the labels of the corpus."""
    own = [name for name in LABELS if name in labels]
    return {
        "clips": len(labels),
        "six": accuracy(posteriors, labels, [name for name in SIX if name in own]),
        "merged": merged_accuracy(posteriors, labels),
        "own": accuracy(posteriors, labels, own),
        "all": accuracy(posteriors, labels),
        "recall": recall(posteriors, labels, own),
        "labels": len(own),
    }


def baselines(train: Part, test: Part) -> dict[str, Any]:
    """Accuracy over the six labels of the commonest label, of loudness, and of a linear model of the statistics."""
    six = [name for name in SIX if name in test.labels]
    rows = [k for k, label in enumerate(train.labels) if label in six]
    labels = [train.labels[k] for k in rows]
    common = max(six, key=labels.count)
    chosen = [label for label in test.labels if label in six]
    after = np.full_like(test.lufs, -23.0), np.full_like(train.lufs, -23.0)
    return {
        "majority": float(np.mean([label == common for label in chosen])),
        "loudness": linear(train.lufs[rows, None], labels, test.lufs[:, None], test.labels, six),
        "loudness_normalised": linear(after[1][rows, None], labels, after[0][:, None], test.labels, six),
        "statistics": linear(train.statistics[rows], labels, test.statistics, test.labels, six),
    }


def linear(x: np.ndarray, labels: list[str], y: np.ndarray, truth: list[str], among: list[str]) -> float:
    """Accuracy of logistic regression trained on ``x`` (N, S) and tried on ``y``."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-5
    model = LogisticRegression(C=0.01, max_iter=500).fit(((x - mean) / spread).clip(-5, 5), labels)
    table = np.zeros((len(y), len(LABELS)))
    order = [LABELS.index(name) for name in model.classes_]
    table[:, order] = model.predict_proba(((y - mean) / spread).clip(-5, 5))
    return accuracy(table, truth, among)


def orders(encoder: EmotionEncoder, test: Part, train: dict[str, Part], name: str) -> dict[str, Any]:
    """How many pairs each way of judging puts in order."""
    twins, speakers = pairs(test.clips), [clip.speaker for clip in test.clips]
    if encoder.space is None:
        raise SystemExit("the model has no space of emotions")
    means = neutral_means(test.embeddings, test.labels, speakers)
    anchors = np.stack([means[speaker] for speaker in speakers])
    known = [part for key, part in train.items() if key in INTENSE]
    facts = np.concatenate([part.statistics for part in known])
    centre, spread = facts.mean(axis=0), facts.std(axis=0) + 1e-5
    clips = [clip for part in known for clip in part.clips]
    inside = np.concatenate([part.embeddings for part in known])
    free = EmotionSpace.fit(inside, *columns(clips), ridge=encoder.config.ridge, centred=False)
    plain = EmotionSpace.fit(((facts - centre) / spread).clip(-5, 5), *columns(clips))
    chances = [[test.posteriors[k][LABELS.index(test.labels[k])] for k in pair] for pair in twins]
    return {
        "projection": ordered(encoder.space, test.embeddings, test.labels, twins),
        "uncentred": ordered(free, test.embeddings, test.labels, twins)["share"],
        "anchored": ordered(encoder.space, test.embeddings, test.labels, twins, anchors),
        "statistics": ordered(plain, ((test.statistics - centre) / spread).clip(-5, 5), test.labels, twins)["share"],
        "posterior": float(np.mean([a > b for a, b in chances])),
        "loudness": float(np.mean([test.lufs[a] > test.lufs[b] for a, b in twins])),
        "loudness_normalised": 0.5,
    }


def confusion(part: Part) -> list[list[int]]:
    """Counts: true label by row, read label by column."""
    table = np.zeros((len(LABELS), len(LABELS)), int)
    for label, row in zip(part.labels, part.posteriors, strict=True):
        table[LABELS.index(label), int(row.argmax())] += 1
    return table.tolist()


# ------------------------------------------------------------------------------------------------------- printing


def tables(metrics: dict[str, Any]) -> list[str]:
    """Every table in Markdown."""
    lines = [*accuracy_table(metrics), "", *order_table(metrics), ""]
    lines += ["| true / read | " + " | ".join(LABELS) + " |", "|" + " --- |" * 9]
    for name, row in zip(LABELS, metrics["confusion"], strict=True):
        lines.append(f"| {name} | " + " | ".join(map(str, row)) + " |")
    return lines


def accuracy_table(metrics: dict[str, Any]) -> list[str]:
    """One column per corpus."""
    names = list(metrics["accuracy"])
    rows = [["held-out speakers, accuracy", *names], ["---"] * (len(names) + 1)]
    for key, title in (
        ("clips", "clips"),
        ("six", "six labels (neutral happy sad angry fearful surprised)"),
        ("merged", "six labels, calm counted as neutral"),
        ("own", "all labels of the corpus"),
        ("recall", "all labels of the corpus, mean recall"),
        ("all", "all labels of the corpus, read among eight"),
    ):
        rows.append([title, *(number(metrics["accuracy"][name][key]) for name in names)])
    for key, title in (
        ("majority", "six labels: commonest label"),
        ("loudness", "six labels: loudness alone, not normalised"),
        ("loudness_normalised", "six labels: loudness alone, normalised"),
        ("statistics", "six labels: logistic regression of utterance statistics"),
    ):
        rows.append([title, *(number(metrics["baselines"][name][key]) for name in names)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def order_table(metrics: dict[str, Any]) -> list[str]:
    """One column per corpus with intensities."""
    names = list(metrics["order"])
    found = sorted({label for name in names for label in metrics["order"][name]["projection"]["labels"]})
    rows = [["pairs in order, stronger above weaker", *names], ["---"] * (len(names) + 1)]
    get = metrics["order"]
    rows.append(["pairs", *(str(get[name]["projection"]["pairs"]) for name in names)])
    rows.append(["projection, not anchored", *(number(get[name]["projection"]["share"]) for name in names)])
    rows.append(
        ["projection, anchored at the speaker's neutral", *(number(get[n]["anchored"]["share"]) for n in names)]
    )
    for label in found:
        cells = [get[name]["anchored"]["labels"].get(label) for name in names]
        rows.append([f"- {label}", *("" if cell is None else number(cell) for cell in cells)])
    rows.append(["projection of strong clips, mean", *(number(get[n]["anchored"]["reach"]) for n in names)])
    rows.append(["strong minus normal, mean", *(number(get[n]["anchored"]["gap"]) for n in names)])
    for key, title in (
        ("uncentred", "projection, directions found without anchors"),
        ("statistics", "projection of utterance statistics, no network"),
        ("posterior", "probability of the label"),
        ("loudness", "loudness alone, not normalised"),
        ("loudness_normalised", "loudness alone, normalised (a tie)"),
    ):
        rows.append([title, *(number(get[name][key]) for name in names)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def number(value: float) -> str:
    """Three places, whole numbers as they are; cut, never rounded up."""
    return str(value) if isinstance(value, int) else f"{np.floor(value * 1000 + 1e-9) / 1000:.3f}"


def card_line(metrics: dict[str, Any]) -> str:
    """The figures in one line, for programs that show a reading."""
    speech, order = metrics["accuracy"]["ravdess_speech"], metrics["order"]["ravdess_speech"]["anchored"]
    six, own, share = (number(value)[1:] for value in (speech["six"], speech["own"], order["share"]))
    return (
        f"emotion encoder: accuracy {six} over 6 labels, {own} over 8, on {speech['clips']} clips of held-out speakers "
        f"of RAVDESS; the stronger of two clips is found {share} of the time"
    )


def card(metrics: dict[str, Any], encoder: EmotionEncoder) -> str:
    """The model card."""
    parameters = sum(value.numel() for value in encoder.network.parameters())
    text = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    return (
        text.replace("{{line}}", encoder.card_line)
        .replace("{{parameters}}", f"{parameters / 1e6:.2f}")
        .replace("{{accuracy}}", "\n".join(accuracy_table(metrics)))
        .replace("{{order}}", "\n".join(order_table(metrics)))
    )


if __name__ == "__main__":
    main()
