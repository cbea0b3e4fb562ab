"""Training of the emotion encoders: ``affgen-small`` on features, and a head on a network that others pre-trained.

``python -m affgen.emotion.train --config F --data DIR [--data DIR ...] --out EXP`` leaves a model in ``EXP/model``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen import config as configs
from affgen.checkpoint import load_into
from affgen.emotion.backends import Head, UpstreamEncoder
from affgen.emotion.config import EMBEDDING, EmotionConfig, LossConfig
from affgen.emotion.encoder import EmotionEncoder
from affgen.emotion.evaluate import SIX, accuracy, ordered
from affgen.emotion.gauges import columns, graded, install
from affgen.emotion.labels import LABELS, coordinates
from affgen.emotion.material import Batch, Clip, batches, collate, load_clips, pairs, plain
from affgen.emotion.network import Heard, Network
from affgen.emotion.space import EmotionSpace
from affgen.errors import AffgenError
from affgen.frames import SAMPLE_RATE
from affgen.training import fit

MIDDLE = 0.75
"""Intensity of a clip whose corpus does not label it: between the two levels of RAVDESS."""
STEEPNESS = 4.0


class Task(nn.Module):
    """The network as a thing to train."""

    def __init__(self, network: nn.Module, config: LossConfig):
        super().__init__()
        self.network = network
        self.config = config
        self.register_buffer("points", torch.tensor([coordinates(name) for name in LABELS]), persistent=False)
        self.points: Tensor

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``label plane intensity order`` and, only to be logged, ``accuracy``."""
        heard = self.network(batch.mel, batch.f0, batch.mask)
        logits = heard.logits.masked_fill(~batch.allowed, -30.0)
        strength = batch.intensity.nan_to_num(MIDDLE)
        target = self.points[batch.label] * strength[:, None]
        return {
            "label": self._label(heard.logits, batch),
            "helpers": sum((self._label(helper, batch) for helper in heard.helpers), start=heard.plane.sum() * 0.0),
            "plane": F.mse_loss(heard.plane, target),
            "intensity": _intensity(heard.intensity, batch),
            "order": _order(heard, batch),
            "accuracy": (logits.argmax(dim=1) == batch.label).float().mean(),
        }

    def weights(self) -> dict[str, float]:
        """Return the weight of every loss."""
        config = self.config
        weights = {name: float(getattr(config, name)) for name in ("label", "helpers", "plane", "intensity", "order")}
        return weights | {"accuracy": 0.0}

    def _label(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with the smoothing spread over the labels of the corpus."""
        logits = logits.masked_fill(~batch.allowed, -30.0)
        share = batch.allowed.float() / batch.allowed.sum(dim=1, keepdim=True)
        target = self.config.smoothing * share
        target = target + (1 - self.config.smoothing) * F.one_hot(batch.label, len(LABELS))
        return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _intensity(read: Tensor, batch: Batch) -> Tensor:
    """Squared error of the intensity (B, 8) of every label; a clip's own is left out where it is unknown."""
    own = F.one_hot(batch.label, len(LABELS)).float()
    known = 1 - own * batch.intensity.isnan()[:, None]
    target = own * batch.intensity.nan_to_num(0.0)[:, None]
    return 4 * ((read - target) ** 2 * known).mean()


def _order(heard: Heard, batch: Batch) -> Tensor:
    """Pairwise logistic loss: of two clips alike but for the intensity, the stronger is to score higher."""
    if not batch.pairs:
        return heard.intensity.sum() * 0.0
    rows = torch.arange(2 * batch.pairs, device=heard.intensity.device)
    score = heard.intensity[rows, batch.label[rows]]
    return F.softplus(-STEEPNESS * (score[0::2] - score[1::2])).mean()


def train(
    config: EmotionConfig,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> EmotionEncoder:
    """Train ``affgen-small`` on data directories with features and leave a model directory in ``out/model``.

    ``out`` also receives config.yaml and the states and log of the training. Raises :class:`DataError` for data
    that cannot be used and :class:`AffgenError` when the tuning speakers leave nothing to train on.
    """
    out = Path(out)
    training, tuning = split(load_clips(folders, config.ignore), config.tuning)
    if not training:
        raise AffgenError(f"tuning {', '.join(config.tuning)}: leaves no clip to train on")
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")
    torch.manual_seed(config.train.seed)
    network = Network(config.encoder)
    task = Task(network, config.losses).to(device)
    result = fit(
        task,
        batches(training, config),
        config.train,
        out,
        weights=task.weights(),
        validate=_validation(tuning) if tuning else None,
        resume=resume,
        quiet=quiet,
    )
    load_into(task, result.tensors, out)
    network.cpu().eval()
    install(network, training, config.gauges)
    encoder = EmotionEncoder(config, network, fit_space(network, training, config.ridge))
    encoder.save(out / "model", CARD)
    return encoder


class _OverFrames(nn.Module):
    """A head in the place of :class:`Network`: the frames of the upstream network come where mel does."""

    def __init__(self, head: Head):
        super().__init__()
        self.head = head

    def forward(self, frames: Tensor, f0: Tensor, mask: Tensor) -> Heard:
        """``frames (B, D, N)``, ``mask (B, N)``; ``f0`` is not looked at."""
        heard: Heard = self.head(frames.transpose(1, 2), mask)
        return heard


def train_head(
    encoder: UpstreamEncoder,
    config: EmotionConfig,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> UpstreamEncoder:
    """Train the head of ``encoder`` on data directories whose features have waves; leave the whole in ``out/model``.

    The upstream network stays as it is and is asked once for each clip. Of ``config`` the encoder and its variation
    are not used. Raises as :func:`train`.
    """
    out = Path(out)
    clips = [_with_frames(encoder, clip, folders) for clip in load_clips(folders, config.ignore)]
    training, tuning = split(clips, config.tuning)
    if not training:
        raise AffgenError(f"tuning {', '.join(config.tuning)}: leaves no clip to train on")
    out.mkdir(parents=True, exist_ok=True)
    task = Task(_OverFrames(encoder.head), config.losses)
    draw = batches(training, config, varied=False)
    validate = _validation(tuning) if tuning else None
    result = fit(task, draw, config.train, out, weights=task.weights(), validate=validate, resume=resume, quiet=quiet)
    load_into(task, result.tensors, out)
    encoder.head.eval()
    encoder.space = fit_space(task.network.eval(), training, config.ridge)
    encoder.about["licence"] = config.licence
    encoder.save(out / "model", CARD)
    return encoder


def _with_frames(encoder: UpstreamEncoder, clip: Clip, folders: Sequence[str | Path]) -> Clip:
    """Return ``clip`` with the upstream frames (D, N), float16, in the place of its features."""
    from affgen.audio import Audio
    from affgen.featuredir import FeatureDir

    frames = encoder.frames(Audio(FeatureDir(folders[clip.folder]).wave(clip.name), SAMPLE_RATE)).T.numpy()
    return replace(clip, mel=frames.astype(np.float16), f0=np.zeros(frames.shape[1], np.float32))


def fit_space(network: nn.Module, clips: Sequence[Clip], ridge: float) -> EmotionSpace:
    """Return prototypes and directions among the embeddings of ``clips`` as they are.

    Where some clips have labelled intensities, only the speakers of such clips count: what sets other corpora apart
    from neutral is not only more of the same.
    """
    chosen = graded(clips) or list(clips)
    embeddings, _ = outputs(network, chosen)
    return EmotionSpace.fit(embeddings, *columns(chosen), ridge=ridge)


@torch.inference_mode()
def outputs(network: nn.Module, clips: Sequence[Clip], size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (N, 256) and posteriors (N, 8) of ``clips`` as they are, by a network in evaluation mode."""
    device = next(network.parameters()).device
    order = sorted(range(len(clips)), key=lambda k: clips[k].mel.shape[1])
    embeddings = np.zeros((len(clips), EMBEDDING), np.float32)
    posteriors = np.zeros((len(clips), len(LABELS)), np.float32)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        part = [clips[k] for k in rows]
        batch = collate(part, [plain(clip) for clip in part], [[True] * len(LABELS)] * len(part)).to(device)
        heard = network(batch.mel, batch.f0, batch.mask)
        embeddings[rows], posteriors[rows] = heard.embedding.cpu(), heard.logits.softmax(dim=1).cpu()
    return embeddings, posteriors


def split(clips: Sequence[Clip], tuning: Sequence[str]) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on and those of the ``tuning`` speakers (patterns)."""
    parts: tuple[list[Clip], list[Clip]] = ([], [])
    for clip in clips:
        parts[any(fnmatchcase(clip.speaker, pattern) for pattern in tuning)].append(clip)
    return parts


def _validation(clips: Sequence[Clip]) -> Callable[[nn.Module], dict[str, float]]:
    """Cross-entropy over the tuning clips as ``loss``; accuracies, and pairs put in order by their own directions."""
    labels = [LABELS[clip.label] for clip in clips]
    rows = np.arange(len(clips))
    twins = pairs(clips)

    def validate(task: nn.Module) -> dict[str, float]:
        embeddings, posteriors = outputs(task.network, clips)  # type: ignore[arg-type]
        chances = posteriors[rows, [clip.label for clip in clips]]
        figures = {
            "loss": float(-np.log(chances + 1e-9).mean()),
            "accuracy_6": accuracy(posteriors, labels, SIX),
            "accuracy_8": accuracy(posteriors, labels),
        }
        if twins:
            levels, speakers = [clip.intensity for clip in clips], [clip.speaker for clip in clips]
            space = EmotionSpace.fit(embeddings, labels, levels, speakers, ridge=10.0)
            figures["order"] = ordered(space, embeddings, labels, twins)["share"]
        return figures

    return validate


CARD = """# An emotion encoder of affgen

Sound to a 256-d embedding, label probabilities, valence and arousal. No figures were measured yet.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    from affgen.cli import Parser, add_training_flags, device

    parser = Parser(prog="python -m affgen.emotion.train", description="Train the emotion encoder affgen-small.")
    add_training_flags(parser, "data directory with features; once or more", many=True)
    args = parser.parse_args(arguments)
    if not Path(args.out).absolute().parent.is_dir():
        raise AffgenError(f"{args.out}: its folder does not exist; make it first")
    config = configs.load(EmotionConfig, args.config, args.overrides)
    train(config, args.data, args.out, resume=args.resume, quiet=args.quiet, device=device(args))


if __name__ == "__main__":
    from affgen.cli import guard

    sys.exit(guard(main))
