"""The judge of conversions: which emotion is heard in a voice, and how much more of one than in its source.

It shares nothing with the emotion encoder of :mod:`affgen.emotion`, which generators are conditioned on: other
features (:mod:`vc.acoustics`), another network, another fit of the directions; both have learnt from the same speakers.
To loudness it is deaf: every sound is brought to -23 LUFS, and its level is taken out of the statistics.

=====================  ================================================================================================
code                   meaning
=====================  ================================================================================================
``scaled``             z = (statistics - mean) / deviation over the clips it was trained on, within +-5
``embedding``          h = ReLU(A z + a), the members of a small ensemble side by side: 256 numbers
``posterior``          mean over the members of softmax(B h + b)
``strength``           <z - z_source, d_e>: a signed projection, anchored at the source. A posterior saturates, and a
                       cosine forgets the length
``directions``         d_e, by ridge regression of the labelled intensity over training speakers, each centred on their
                       own neutral clips; what vocoders do to a clip counts as noise to be ignored. Scaled so that the
                       mean strong clip of e lies at 1
=====================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affgen import config as configs
from affgen.audio import Audio, normalise
from affgen.checkpoint import load_configured, load_into, save_model
from affgen.emotion.labels import LABELS, resolve
from affgen.errors import AffgenError, ModelError
from affgen.features import Features, extract
from affgen.training_config import TrainConfig
from vc.acoustics import names, statistics

TASK = "judge"
SHIPPED = Path(__file__).parent / "pretrained" / "judge"
LIMIT = 5.0
"""Deviations beyond which a statistic says no more."""


@dataclass(frozen=True)
class JudgeConfig:
    """Settings of the judge and of its training."""

    members: int = 4
    """Networks whose readings are averaged."""
    width: int = 64
    """Width of the embedding of each."""
    dropout: float = 0.3
    """Share of the embedding dropped in training."""
    hidden: float = 0.1
    """Share of the statistics hidden in training."""
    noise: float = 0.3
    """Deviation of the noise on the scaled statistics in training."""
    mixup: float = 0.4
    """Both parameters of the beta distribution that clips are mixed by (Zhang et al. 2018, "mixup")."""
    speeds: tuple[float, ...] = (0.88, 0.94, 1.06, 1.13)
    """Every clip of the first corpus is also heard played at these speeds, as if by other speakers."""
    others: float = 2.0
    """How often a clip of a further corpus is drawn, in units of one of the first."""
    ridge: float = 10.0
    """Shrinkage of the directions in units of the mean variance."""
    artefacts: float = 5.0
    """Weight of what vocoders change in the variance that directions avoid."""
    statistics: tuple[str, ...] = ()
    """Names of the statistics it was trained on; those of :func:`vc.acoustics.names`."""
    figures: dict[str, float] = field(default_factory=dict)
    """What was measured on speakers it never heard."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=800, batch_size=128, learning_rate=2e-3, warmup=80, final_ratio=0.01, ema=0.99, save_best=False
        )
    )

    def __post_init__(self) -> None:
        counts = self.members >= 1 and self.width >= 1
        shares = all(0 <= value < 1 for value in (self.dropout, self.hidden))
        positive = min(self.mixup, self.ridge, self.others, *self.speeds, 1.0) > 0
        if not (counts and shares and positive and self.noise >= 0 and self.artefacts >= 0):
            raise AffgenError(
                "judge settings: members and width from 1, dropout and hidden from 0 to below 1, mixup, ridge, others "
                "and speeds above 0, noise and artefacts from 0"
            )


@dataclass(frozen=True, eq=False)
class Judged:
    """What is heard in a sound: ``posterior`` {label: probability}, ``embedding`` (256,), scaled statistics (S,)."""

    posterior: dict[str, float]
    embedding: np.ndarray
    scaled: np.ndarray

    @property
    def label(self) -> str:
        """The likeliest label."""
        return max(self.posterior, key=lambda name: self.posterior[name])


class Network(nn.Module):
    """``members`` perceptrons side by side, with the scale of their input and the directions of strength."""

    def __init__(self, config: JudgeConfig, count: int) -> None:
        super().__init__()
        m, w, e = config.members, config.width, len(LABELS)
        self.inner = nn.Parameter(torch.randn(m, count, w) / count**0.5)
        self.inner_bias = nn.Parameter(torch.zeros(m, 1, w))
        self.outer = nn.Parameter(torch.randn(m, w, e) / w**0.5)
        self.outer_bias = nn.Parameter(torch.zeros(m, 1, e))
        self.dropout = nn.Dropout(config.dropout)
        self.mean: Tensor
        self.deviation: Tensor
        self.directions: Tensor
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.register_buffer("directions", torch.zeros(e, count))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (members, B, width) and logits (members, B, E) of ``z`` (B, S) or (members, B, S)."""
        embedding = (z @ self.inner + self.inner_bias).relu()
        return embedding, self.dropout(embedding) @ self.outer + self.outer_bias


class Judge:
    """A trained judge; holds no state between calls."""

    labels = LABELS
    """What it can hear, neutral first."""

    def __init__(self, config: JudgeConfig, network: Network) -> None:
        self.config = config
        self.network = network.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> Judge:
        """Load a model directory, by default the shipped one.

        Raises :class:`ModelError` for one that is missing, damaged or made for other statistics.
        """
        folder = SHIPPED if folder is None else Path(folder)
        config, tensors = load_configured(folder, JudgeConfig, task=TASK)
        if config.statistics != names():
            raise ModelError(f"{folder / 'config.json'}: was trained on other statistics; train the judge again")
        with torch.random.fork_rng(devices=[]):
            network = Network(config, len(config.statistics))
        load_into(network, tensors, folder)
        return cls(config, network)

    def save(self, folder: str | Path, card: str) -> None:
        """Write a model directory; weights as float16, scale and directions as float32."""
        state = self.network.state_dict()
        buffers = {name for name, _ in self.network.named_buffers()}
        tensors = {name: value if name in buffers else value.half() for name, value in state.items()}
        save_model(folder, configs.to_dict(self.config), tensors, card, task=TASK)

    @property
    def figures(self) -> Mapping[str, float]:
        """How far it is to be trusted: what was measured on speakers it never heard."""
        return self.config.figures

    def read(self, audio: Audio) -> Judged:
        """Read a sound of any rate; its loudness makes no difference.

        Raises :class:`AffgenError` for silence, and as :func:`affgen.features.extract`.
        """
        if not audio.samples.any():
            raise AffgenError("the sound is silence; accepted is sound with a voice in it")
        return self.judged(extract(normalise(audio)))

    @torch.inference_mode()
    def judged(self, features: Features) -> Judged:
        """Read features of the shared front end."""
        scaled = self.scaled(statistics(features))
        embedding, logits = self.network(torch.from_numpy(scaled)[None])
        chances = logits.softmax(dim=2).mean(dim=0)[0].tolist()
        return Judged(dict(zip(LABELS, chances, strict=True)), embedding.flatten().numpy(), scaled)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return statistics (..., S) in deviations from the mean of the training clips, within +-:data:`LIMIT`."""
        z = (values - self.network.mean.numpy()) / self.network.deviation.numpy()
        scaled: np.ndarray = np.clip(z, -LIMIT, LIMIT).astype(np.float32)
        return scaled

    def strength(self, judged: Judged, label: str, anchor: Judged) -> float:
        """Return how much more of ``label`` is in ``judged`` than in ``anchor``, its source.

        0 is as the source, 1 the mean way of the training speakers from neutral to strong, below 0 away from it.
        Raises :class:`AffgenError` for neutral, to which no direction leads, and labels that are not known.
        """
        name = resolve(label)
        if name not in LABELS[1:]:
            raise AffgenError(f"strength of {label!r}; accepted: {', '.join(LABELS[1:])}")
        way = self.network.directions[LABELS.index(name)].numpy()
        return float((judged.scaled - anchor.scaled) @ way)
