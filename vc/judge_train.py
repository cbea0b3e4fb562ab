"""Training of the judge: statistics of clips and of copies of them, the ensemble, the directions, what it is worth.

Besides every clip of the first corpus the judge hears it played at other speeds, as if by other speakers, and as the
vocoder and WORLD give it back, so that what those leave in a sound counts as no emotion. Further corpora are scaled by
their own mean and deviation: their rooms and languages are nothing to learn from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen import config as configs
from affgen.audio import Audio, normalise, resample
from affgen.checkpoint import load_into
from affgen.datadir import DataDir
from affgen.emotion.labels import LABELS, resolve
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FeatureDir
from affgen.features import SAMPLE_RATE, extract
from affgen.training import derived_seed, fit
from vc import baselines
from vc.acoustics import names, statistics
from vc.judge import LIMIT, Judge, JudgeConfig, Judged, Network

FIVE = ("neutral", "happy", "sad", "angry", "fearful")
"""Neutral and the emotions that conversions are judged for."""
FOLDS = 4


@dataclass(frozen=True, eq=False)
class Clip:
    """A labelled utterance: ``plain`` (S,), ``vocoded`` (V, S) and ``varied`` (K, S) are statistics of it and of its
    copies; ``intensity`` is NaN where the corpus does not say.
    """

    name: str
    corpus: int
    speaker: str
    label: str
    intensity: float
    text: str
    plain: np.ndarray
    vocoded: np.ndarray
    varied: np.ndarray


Sounds = Iterator[tuple[Clip, Audio]]


def sounds(folder: str | Path, corpus: int = 0) -> Sounds:
    """Yield the labelled clips of a data directory, without statistics yet, with their sounds.

    Raises :class:`DataError` for a directory without speakers, emotions or features with waves.
    """
    data, features = DataDir.read(folder), FeatureDir(folder)
    missing = [name for name in ("utt2spk", "utt2emo") if name not in data.tables]
    if missing:
        raise DataError(f"{folder}: has no {missing[0]}; the judge needs speakers and emotions")
    speakers, emotions = data.tables["utt2spk"], data.tables["utt2emo"]
    strength, texts = (data.tables.get(name, {}) for name in ("utt2intensity", "text"))
    empty = np.zeros((0, len(names())), np.float32)
    for name in features.utterances:
        label = resolve(emotions[name])
        if label not in LABELS:
            raise DataError(f"{folder}/utt2emo: {name} has {label!r}; accepted: {', '.join(LABELS)}")
        level = 0.0 if label == LABELS[0] else float(strength.get(name, "nan"))
        clip = Clip(name, corpus, speakers[name], label, level, texts.get(name, ""), empty[:0], empty, empty)
        yield clip, Audio(features.wave(name), SAMPLE_RATE)


def load(folders: Sequence[str | Path], config: JudgeConfig, *, quiet: bool = False) -> list[Clip]:
    """Return the clips of data directories with their statistics; the first directory also gives the copies."""
    from affgen.vocoder.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained()
    clips = []
    for corpus, folder in enumerate(folders):
        for clip, audio in sounds(folder, corpus):
            clip = replace(clip, plain=_heard(audio))
            if not corpus:
                copies = [baselines.vocoded(audio, vocoder), baselines.rule(audio, LABELS[0], 0.0)]
                played = [_played(audio, speed) for speed in config.speeds]
                clip = replace(clip, vocoded=np.stack([_heard(copy) for copy in copies]))
                clip = replace(clip, varied=np.stack([_heard(copy) for copy in played]) if played else clip.varied)
            clips.append(clip)
            if not quiet and len(clips) % 100 == 0:
                print(f"{len(clips)} clips heard", file=sys.stderr)
    return clips


def _heard(audio: Audio) -> np.ndarray:
    return statistics(extract(normalise(audio)))


def _played(audio: Audio, speed: float) -> Audio:
    """Play ``audio`` at ``speed``: pitch, formants and tempo move together, as from speaker to speaker."""
    return Audio(resample(audio.samples, SAMPLE_RATE, round(SAMPLE_RATE / speed)), SAMPLE_RATE)


# ------------------------------------------------------------------------------------------------------ training


class Task(nn.Module):
    """The ensemble as a thing to train."""

    def __init__(self, network: Network, config: JudgeConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of mixed clips; batch: ``z`` (members, B, S) and ``label`` (members, B)."""
        config, z = self.config, batch["z"]
        target = F.one_hot(batch["label"], len(LABELS)).to(z)
        beta = torch.distributions.Beta(config.mixup, config.mixup).sample(z.shape[:2]).unsqueeze(2).to(z)
        z, target = (beta * part + (1 - beta) * part.roll(1, dims=1) for part in (z, target))
        z = F.dropout(z + config.noise * torch.randn_like(z), config.hidden)
        _, logits = self.network(z)
        return {"label": -(target * logits.log_softmax(dim=2)).sum(dim=2).mean()}


def train(config: JudgeConfig, clips: Sequence[Clip], out: str | Path, *, quiet: bool = False) -> Judge:
    """Train a judge on ``clips``; ``out`` receives the log and the states of the training.

    Equal clips and settings give an equal judge. Raises :class:`DataError` where no speaker of the first corpus has
    neutral clips and strong ones.
    """
    config = replace(config, statistics=names(), figures={})
    home = [clip for clip in clips if clip.corpus == 0]
    if not home:
        raise DataError("there is no clip to train the judge on")
    torch.manual_seed(config.train.seed)
    network = Network(config, len(names()))
    plain = np.stack([clip.plain for clip in home])
    network.mean.copy_(torch.from_numpy(plain.mean(axis=0)))
    network.deviation.copy_(torch.from_numpy(np.maximum(plain.std(axis=0), 1e-3)))
    judge = Judge(config, network)
    network.directions.copy_(torch.from_numpy(_directions(judge, home)))
    task = Task(network, config)
    result = fit(task, _batches(judge, clips), config.train, out, quiet=quiet)
    load_into(task, result.tensors, out)
    return Judge(config, network)


def _batches(judge: Judge, clips: Sequence[Clip]) -> Callable[[int, int, int], dict[str, Tensor]]:
    """Return what :func:`affgen.training.fit` asks for: every member draws for itself."""
    z, labels, weights = _rows(judge, clips)
    size, members, seed = judge.config.train.batch_size, judge.config.members, judge.config.train.seed
    chances = weights / weights.sum()

    def draw(index: int, rank: int, world: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(derived_seed(seed, "judge", index * world + rank))
        rows = rng.choice(len(z), (members, size), p=chances)
        return {"z": torch.from_numpy(z[rows]), "label": torch.from_numpy(labels[rows])}

    return draw


def _rows(judge: Judge, clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scaled statistics (N, S), numbers of labels (N,) and weights (N,) of all clips and copies."""
    parts, labels, weights = [], [], []
    for corpus in sorted({clip.corpus for clip in clips}):
        own = [clip for clip in clips if clip.corpus == corpus]
        plain = np.stack([clip.plain for clip in own])
        for clip in own:
            values = np.concatenate([clip.plain[None], clip.vocoded, clip.varied])
            if corpus:
                spread = np.maximum(plain.std(axis=0), 1e-3)
                parts.append(np.clip((values - plain.mean(axis=0)) / spread, -LIMIT, LIMIT))
            else:
                parts.append(judge.scaled(values))
            labels += [LABELS.index(clip.label)] * len(values)
            weights += [judge.config.others if corpus else 1.0] * len(values)
    return np.concatenate(parts).astype(np.float32), np.array(labels), np.array(weights)


def _directions(judge: Judge, clips: Sequence[Clip]) -> np.ndarray:
    """Return d (E, S), scaled so that strong clips of speakers left out of the fit lie at 1 on average."""
    speakers = sorted({clip.speaker for clip in clips if clip.label == LABELS[0]})
    if not speakers:
        raise DataError("no speaker has neutral clips; strength is measured from them")
    field = _Field(judge, [clip for clip in clips if clip.speaker in speakers])
    reach = np.zeros((0, len(LABELS)))
    for fold in range(FOLDS if len(speakers) >= FOLDS else 0):
        left_out = np.isin(field.speaker, speakers[fold::FOLDS])
        reach = np.concatenate([reach, field.reach(field.ways(~left_out), left_out)[None]])
    scale = np.maximum(reach.mean(axis=0), 0.1) if len(reach) else np.ones(len(LABELS))
    ways: np.ndarray = field.ways(np.ones(len(field.speaker), bool)) / scale[:, None]
    return ways.astype(np.float32)


class _Field:
    """The clips of speakers who have neutral ones, each as its way ``moved`` (N, S) from the mean of those."""

    def __init__(self, judge: Judge, clips: Sequence[Clip]) -> None:
        self.config = judge.config
        z = np.stack([judge.scaled(clip.plain) for clip in clips]).astype(np.float64)
        self.label, self.speaker = (np.array([getattr(clip, name) for clip in clips]) for name in ("label", "speaker"))
        self.level = np.array([clip.intensity for clip in clips])
        neutral = self.label == LABELS[0]
        means = {s: z[neutral & (self.speaker == s)].mean(axis=0) for s in sorted(set(self.speaker))}
        self.moved = z - np.stack([means[speaker] for speaker in self.speaker])
        self.changed = np.stack([(judge.scaled(c.vocoded) - judge.scaled(c.plain)).astype(np.float64) for c in clips])

    def ways(self, chosen: np.ndarray) -> np.ndarray:
        """Ridge regression (E, S) of the intensity on ``moved`` over the ``chosen`` clips, 1 at their mean strong clip.

        To be avoided are what intensity does not explain and what copies change. Raises :class:`DataError` for an
        emotion without a clip of known intensity.
        """
        changed = self.changed[chosen].reshape(-1, self.moved.shape[1])
        noise = self.config.artefacts * changed.T @ changed / max(1, len(changed))
        ways = np.zeros((len(LABELS), self.moved.shape[1]))
        for row, name in enumerate(LABELS[1:], 1):
            own, plain = chosen & (self.label == name) & (self.level > 0), chosen & (self.label == LABELS[0])
            if not own.any():
                raise DataError(f"{name}: there is no clip with an intensity; the judge needs all of the eight labels")
            moved, level = self.moved[own], self.level[own]
            shift = level @ moved / (level @ level)
            rest = np.concatenate([self.moved[plain], moved - level[:, None] * shift])
            spread = rest.T @ rest / len(rest) + noise
            spread += self.config.ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
            ways[row] = np.linalg.solve(spread, shift)
        scale = self.reach(ways, chosen)
        return ways / np.where(scale == 0, 1, scale)[:, None]

    def reach(self, ways: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Mean projection (E,) on ``ways`` (E, S) of the strongest of the ``chosen`` clips of every emotion."""
        reach = np.zeros(len(LABELS))
        for row, name in enumerate(LABELS[1:], 1):
            own = chosen & (self.label == name)
            strong = own & (self.level == self.level[own & np.isfinite(self.level)].max(initial=0.0))
            reach[row] = (self.moved[strong] @ ways[row]).mean() if strong.any() else 0.0
        return reach


# ------------------------------------------------------------------------------------------------- what it is worth


def validity(judge: Judge, folder: str | Path) -> dict[str, float]:
    """Return what the judge scores on a data directory of speakers it never heard, with intensities.

    ``accuracy*``: share of labels read right, among eight, among :data:`FIVE`, and of the strong clips of the last four
    of these among five and among eight; ``order*``: share of pairs alike but for the intensity in which the strong
    clip is judged stronger; ``reach*``: mean strength of strong clips; both anchored at the neutral clip of the same
    speaker, words and repetition. ``vocoded_*`` and ``world_*``: mean change of the strength, over all emotions, and
    share of equal labels after resynthesis.
    """
    from affgen.vocoder.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained()
    clips, read, copies = [], [], []
    for clip, audio in sounds(folder):
        clips.append(clip)
        read.append(judge.read(audio))
        again = baselines.vocoded(audio, vocoder), baselines.rule(audio, LABELS[0], 0.0)
        copies.append([judge.read(copy) for copy in again])
    figures = _accuracies(clips, read) | _orders(judge, clips, read)
    for name, column in zip(("vocoded", "world"), zip(*copies, strict=True), strict=True):
        pairs = list(zip(read, column, strict=True))
        shifts = [abs(judge.strength(b, label, a)) for a, b in pairs for label in LABELS[1:]]
        figures[f"{name}_shift"] = float(np.mean(shifts))
        figures[f"{name}_agreement"] = float(np.mean([a.label == b.label for a, b in pairs]))
    return figures


def _accuracies(clips: Sequence[Clip], read: Sequence[Judged]) -> dict[str, float]:
    def share(rows: Sequence[int], among: Sequence[str]) -> float:
        best = [max(among, key=lambda name, row=row: read[row].posterior[name]) for row in rows]  # type: ignore[misc]
        return float(np.mean([name == clips[row].label for name, row in zip(best, rows, strict=True)]))

    every = range(len(clips))
    five = [row for row in every if clips[row].label in FIVE]
    strong = [row for row in five if clips[row].intensity == 1]
    return {
        "accuracy": share(every, LABELS),
        "accuracy_five": share(five, FIVE),
        "accuracy_strong": share(strong, LABELS),
        "accuracy_strong_five": share(strong, FIVE),
    } | {f"accuracy_strong_five_{x}": share([r for r in strong if clips[r].label == x], FIVE) for x in FIVE[1:]}


def _orders(judge: Judge, clips: Sequence[Clip], read: Sequence[Judged]) -> dict[str, float]:
    right: dict[str, list[bool]] = {}
    reach: dict[str, list[float]] = {}
    taken: dict[tuple[str, str, str], dict[float, list[Judged]]] = {}
    for clip, one in zip(clips, read, strict=True):
        taken.setdefault((clip.speaker, clip.text, clip.label), {}).setdefault(clip.intensity, []).append(one)
    for (speaker, text, label), levels in taken.items():
        calm = taken.get((speaker, text, LABELS[0]), {}).get(0.0, [])
        if label == LABELS[0] or not calm or set(levels) != {0.5, 1.0}:
            continue
        for anchor, weak, strong in zip(calm, levels[0.5], levels[1.0], strict=False):
            low, high = (judge.strength(one, label, anchor) for one in (weak, strong))
            right.setdefault(label, []).append(high > low)
            reach.setdefault(label, []).append(high)
    if not right:
        raise AffgenError("no strong and normal clips of one speaker, emotion and sentence; the validity needs them")
    four = [x for name in FIVE[1:] for x in right.get(name, [])]
    every = [x for values in right.values() for x in values]
    figures = {"pairs": float(len(every)), "order": float(np.mean(every)), "order_four": float(np.mean(four))}
    figures |= {f"order_{name}": float(np.mean(values)) for name, values in sorted(right.items())}
    return figures | {f"reach_{name}": float(np.mean(values)) for name, values in sorted(reach.items())}


CARD = """# A judge of emotional conversions

- **Task**: {count} acoustic statistics of an utterance (`vc/acoustics.py`), the same whatever its loudness, to label
  probabilities (neutral calm happy sad angry fearful disgust surprised) and to a signed strength of each emotion
  against the source of a conversion. It shares neither features, network nor directions with the emotion encoder.
- **Method**: {members} perceptrons of {width} hidden units each, their readings averaged, trained with mixup, dropout
  and noise. Strength is a projection in the scaled statistics on a direction found by ridge regression of the labelled
  intensity, every speaker centred on their own neutral clips; 0 is the source, 1 the mean strong clip of training
  speakers, each left out of the fit once. Trained also on copies by the vocoder, by WORLD, and at other speeds.
- **Data**: RAVDESS speech actors 01 to 16 (Livingstone and Russo 2018), CC BY-NC-SA 4.0; EmoDB without speakers 15
  and 16 (Burkhardt et al. 2005), CC0. Settings were chosen by cross-validation over those RAVDESS actors; actors 17 to
  20 gave the figures below and nothing else.
- **Licence of the weights**: CC BY-NC-SA 4.0, as that of the data: not for commercial use. The code is Apache-2.0.

{table}
Pairs are a strong and a normal clip of one actor, emotion, sentence and repetition; strengths are anchored at the
neutral clip of the same actor, sentence and repetition. A shift is the mean absolute change of the strengths of all
emotions when a clip is copied by the vocoder or by WORLD.

- **Made by**: `python -m vc.judge_train --data RAVDESS_TRAIN --data EMODB_TRAIN --test RAVDESS_TEST --out EXP`, with
  seed {seed}.
- **Intended use**: to compare conversions of acted speech, beside other measures, with natural clips under the same
  judge. What was calibrated or chosen by listening to this judge, on whatever speakers, is not independently judged by
  it: say so beside the figures. It is right about {accuracy:.0%} of held-out clips among eight labels: the reading of
  a single clip means little, and it is no instrument to tell the feelings of people.
"""


def card(config: JudgeConfig) -> str:
    """Return the model card with the figures in ``config``."""
    rows = "".join(f"| {name.replace('_', ' ')} | {value:.3f} |\n" for name, value in config.figures.items())
    return CARD.format(
        count=len(config.statistics),
        members=config.members,
        width=config.width,
        table=f"| held-out speakers | |\n|---|---|\n{rows}" if rows else "No figures were measured yet.\n",
        seed=config.train.seed,
        accuracy=config.figures.get("accuracy", float("nan")),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says, and leave a model directory in ``EXP/model``."""
    from affgen.cli import Parser

    parser = Parser(prog="python -m vc.judge_train", description="Train the judge of conversions.")
    add: Any = parser.add_argument
    add("--config", metavar="F", help="YAML with what differs from the defaults")
    add("--data", required=True, metavar="DIR", action="append", help="data directory with waves; first: intensities")
    add("--test", metavar="DIR", help="data directory of other speakers, to measure what the judge is worth")
    add("--out", required=True, metavar="EXP", help="new folder for states, logs and the model")
    add("--quiet", action="store_true", help="no progress on standard error")
    add("overrides", nargs="*", metavar="SECTION.KEY=VALUE", help="change single settings")
    args = parser.parse_args(arguments)
    out = Path(args.out)
    if not out.absolute().parent.is_dir():
        raise AffgenError(f"{out}: its folder does not exist; make it first")
    config = configs.load(JudgeConfig, args.config, args.overrides)
    judge = train(config, load(args.data, config, quiet=args.quiet), out, quiet=args.quiet)
    if args.test:
        judge = Judge(replace(judge.config, figures=validity(judge, args.test)), judge.network)
    judge.save(out / "model", card(judge.config))


if __name__ == "__main__":
    from affgen.cli import guard

    sys.exit(guard(main))
