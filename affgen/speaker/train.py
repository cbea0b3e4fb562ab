"""Training of the speaker encoder on the shared loop: which of all voices is it, which of the batch goes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen import config as configs
from affgen.checkpoint import load_into
from affgen.speaker.config import LossConfig, SpeakerConfig
from affgen.speaker.data import Batch, Clip, batches, load_clips, split, voices
from affgen.speaker.embed import SpeakerEncoder
from affgen.speaker.evaluate import figures
from affgen.speaker.model import Network
from affgen.speaker.pack import pack
from affgen.training import fit


class Task(nn.Module):
    """The network and one direction for each training voice."""

    def __init__(self, network: Network, classes: int, config: LossConfig):
        super().__init__()
        self.network = network
        self.config = config
        self.voices = nn.Parameter(F.normalize(torch.randn(classes, network.config.embedding), dim=1))
        self.sharpness = nn.Parameter(torch.tensor(10.0))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``margin``, ``prototype`` and, only to be logged, ``accuracy``."""
        heard = self.network(batch.mel, torch.ones_like(batch.mel[:, 0], dtype=torch.bool)).float()
        cosine = heard @ F.normalize(self.voices, dim=1).T
        return {
            "margin": margin_loss(cosine, batch.label, self.config),
            "prototype": prototype_loss(heard, self.sharpness),
            "accuracy": (cosine.argmax(dim=1) == batch.label).float().mean(),
        }

    def weights(self) -> dict[str, float]:
        """Return the weight of every loss."""
        return {"margin": self.config.margin, "prototype": self.config.prototype, "accuracy": 0.0}


def margin_loss(cosine: Tensor, label: Tensor, config: LossConfig) -> Tensor:
    """Cross-entropy of cosines (B, classes), the angle to the own class widened (ArcFace, Deng et al. 2019, eq. 3)."""
    own = cosine.gather(1, label[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    sine = (1 - own**2).sqrt()
    wider = own * math.cos(config.angle) - sine * math.sin(config.angle)
    # Beyond pi - angle the cosine would rise again; from there on it falls linearly.
    wider = torch.where(own > -math.cos(config.angle), wider, own - config.angle * math.sin(config.angle))
    return F.cross_entropy(config.scale * cosine.scatter(1, label[:, None], wider), label)


def prototype_loss(heard: Tensor, sharpness: Tensor) -> Tensor:
    """Which of the second clips goes with each first one: (B, D), two of a class side by side (Chung et al. 2020)."""
    score = sharpness.clamp(min=1.0) * heard[0::2] @ heard[1::2].T
    target = torch.arange(len(score), device=score.device)
    return 0.5 * (F.cross_entropy(score, target) + F.cross_entropy(score.T, target))


def train(
    config: SpeakerConfig,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> None:
    """Train on data directories with features and ``utt2spk``; leave a model directory in ``out/model``.

    ``out`` receives config.yaml, ``train.jsonl`` and the states of :func:`affgen.training.fit`. With ``resume`` it goes
    on where it was stopped. Raises :class:`AffgenError` for data that cannot be used.
    """
    training, tuning = split(load_clips(data), config.tuning)
    draw = batches(training, config)
    Path(out).mkdir(parents=True, exist_ok=True)
    configs.save(config, Path(out) / "config.yaml")
    torch.manual_seed(config.train.seed)
    network = Network(config.encoder)
    task = Task(network, len(voices(training, config.variation.rates)), config.losses).to(device)
    validate = _validation(tuning) if tuning else None
    result = fit(task, draw, config.train, out, weights=task.weights(), validate=validate, resume=resume, quiet=quiet)
    load_into(task, result.tensors, out)
    pack(config, network, Path(out) / "model")


def _validation(clips: Sequence[Clip]) -> Callable[[nn.Module], dict[str, float]]:
    """Equal error rates over the tuning speakers; that inside the corpora, across emotions too, decides."""

    def validate(task: nn.Module) -> dict[str, float]:
        found = figures(clips, SpeakerEncoder(task.network).embed_mels([clip.mel for clip in clips]))  # type: ignore[arg-type]
        within = {f"{p} {n}": f["eer"] for p, part in found["within"].items() for n, f in part.items()}
        rates = {"pooled": found["pooled"]["eer"], "balanced": found["balanced"]["eer"], **within}
        return {"loss": within.get("all all", rates["pooled"]), **rates}

    return validate
