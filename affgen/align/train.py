"""Training of the aligner: on a first alignment, then on its own best paths, frame by frame and over all paths of CTC.

CTC alone puts a phone into one frame and silence everywhere else. Three things keep boundaries where they are heard:
the network learns from labels of frames that begin with a hidden Markov model (:mod:`affgen.align.bootstrap`) and that
it makes anew itself; the blank of CTC is kept for silence; and CTC, which counts little beside the frames, sees each
posterior divided by a power of its prior (Huang et al. 2024, "Less peaky and more accurate CTC forced alignment by
label priors", ICASSP).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen import config as configs
from affgen.align.bootstrap import bootstrap
from affgen.align.config import AlignerConfig
from affgen.align.evaluate import Boundary, compare, offsets
from affgen.align.marks import to_segments
from affgen.align.material import UNKNOWN, Batch, Item, batches, load_items, prior_of
from affgen.align.network import Network
from affgen.align.pack import Parts, learn_units, pack
from affgen.align.path import best_path, labels_of, segments, without_gaps
from affgen.align.phones import CLASSES
from affgen.align.segments import frame_phones
from affgen.checkpoint import load_into
from affgen.training import fit
from affgen.training_config import TrainConfig

_KEEP = 0.99


class FrameTask(nn.Module):
    """The network as a thing to train frame by frame."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the frames and, only to be logged, the share of them that is right."""
        return _frame_losses(self.network(batch.mel, batch.mask), batch)


class CtcTask(nn.Module):
    """The network as a thing to train frame by frame and by CTC with priors, the running mean of its posteriors."""

    def __init__(self, network: Network, prior: np.ndarray, share: float):
        super().__init__()
        self.network = network
        self.share = share
        self.register_buffer("prior", torch.from_numpy(prior).float())
        self.prior: Tensor

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the frames, and the CTC loss for each frame."""
        logits = self.network(batch.mel, batch.mask)
        scores = F.log_softmax(logits, dim=2)
        if self.training:
            with torch.no_grad():
                mean = scores.exp()[batch.mask].mean(dim=0)
                self.prior.copy_(_KEEP * self.prior + (1 - _KEEP) * mean)
        divided = scores - self.share * self.prior.clamp_min(1e-6).log()
        # torch's gradient holds for normalised scores only: normalise, and add what that took from each frame.
        scale = torch.logsumexp(divided, dim=2)
        lengths = batch.mask.sum(dim=1)
        loss = F.ctc_loss(
            (divided - scale[:, :, None]).transpose(0, 1), batch.targets, lengths, batch.counts, reduction="sum"
        )
        return {**_frame_losses(logits, batch), "ctc": (loss - (scale * batch.mask).sum()) / lengths.sum()}


def _frame_losses(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    known = batch.labels != UNKNOWN
    right = ((logits.argmax(dim=2) == batch.labels) & known).sum() / known.sum()
    frames = F.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=UNKNOWN)
    return {"frames": frames, "right": right}


def train(
    config: AlignerConfig,
    data: Sequence[tuple[str, str | Path]],
    out: str | Path,
    *,
    labels: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> None:
    """Train on (language, data directory) pairs with features; leave a model directory in ``out/model``.

    ``labels`` is a folder of label files, which give the phones (and with ``config.marks`` the times) of the
    utterances they belong to. ``out`` receives config.yaml, the state of each stage, and the model. With ``resume``
    it goes on where it was stopped.
    """
    out = Path(out)
    items, dropped = load_items(data, config, labels, config.train_first.seed)
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")
    if not quiet:
        print(f"{len(items)} utterances, {len(dropped)} left out: {'; '.join(sorted(set(dropped.values()))[:5])}")
    torch.manual_seed(config.train_first.seed)
    network = Network(config.network).to(device)
    stages = _Stages(config, network, out, resume, quiet)
    items = bootstrap(items, config.repeats)
    stages.run("first", FrameTask(network), items, config.train_first, 0)
    prior = prior_of(items)
    for number in range(config.rounds):
        items = realigned(network, prior, items, config, device)
        task = CtcTask(network, prior_of(items), config.path.prior)
        stages.run(f"round{number}", task, items, config.train_round, 1 + number)
        prior = prior_of(items)
    if config.marks:
        items = [_marked(item) for item in realigned(network, prior, items, config, device)]
        stages.run("marks", FrameTask(network), items, config.train_marks, 1 + config.rounds)
        prior = prior_of(items)
    network = network.cpu().eval()
    book = learn_units(network, items, config)
    parts = Parts(config, network, prior, np.zeros((len(CLASSES), len(CLASSES))), book)
    pack(replace(parts, offsets=late(parts, items)), out / "model")


@dataclass(frozen=True)
class _Stages:
    """The stages of one training, each a folder in ``out``."""

    config: AlignerConfig
    network: Network
    out: Path
    resume: bool
    quiet: bool

    def run(self, name: str, task: nn.Module, items: Sequence[Item], plan: TrainConfig, seed: int) -> None:
        """Train ``task`` and leave the averaged weights in the network."""
        weights = {"right": 0.0} | ({"ctc": self.config.ctc} if isinstance(task, CtcTask) else {})
        draw = batches(items, self.config, plan.batch_size, plan.seed + seed)
        task = task.to(next(self.network.parameters()).device)
        result = fit(task, draw, plan, self.out / name, weights=weights, resume=self.resume, quiet=self.quiet)
        load_into(task, result.tensors, self.out / name)


def _marked(item: Item) -> Item:
    """Return the item with the labels of its marks, where it has any."""
    if item.marks is None:
        return item
    return replace(item, labels=frame_phones(to_segments(item.marks), item.mel.shape[1]))


def late(parts: Parts, items: Sequence[Item]) -> np.ndarray:
    """Return how late (seconds) boundaries are found in the marked ``items``, (5, 5) by classes; 0 without marks."""
    found: list[Boundary] = []
    for item in items:
        if item.marks is not None:
            scores = log_scores(parts.network, parts.prior, item.mel, parts.config.path.prior)
            found += compare(item.marks, segments(scores, item.phones, parts.config.path))
    return offsets(found)


def log_scores(network: Network, prior: np.ndarray, mel: np.ndarray, share: float, device: str = "cpu") -> Tensor:
    """Return log-posteriors (T, V) of mel (80, T) less ``share`` of the log of ``prior`` (V,), on the CPU."""
    x = torch.from_numpy(mel.astype(np.float32))[None].to(device)
    with torch.inference_mode():
        logits = network(x, torch.ones(1, x.shape[2], dtype=torch.bool, device=device))[0]
    return F.log_softmax(logits.float(), dim=1).cpu() - share * torch.from_numpy(np.log(prior)).float()


def realigned(
    network: Network, prior: np.ndarray, items: Sequence[Item], config: AlignerConfig, device: str = "cpu"
) -> list[Item]:
    """Return the items with the labels of their best paths."""
    network.eval()
    found = []
    for item in items:
        scores = log_scores(network, prior, item.mel, config.path.prior, device)
        path = without_gaps(best_path(scores, item.phones), scores.numpy(), item.phones, config.path)
        found.append(replace(item, labels=labels_of(path, item.phones)))
    network.train()
    return found
