"""Configuration of the speaker encoder; imports no torch. ``MINIATURE`` is a model for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from affgen.errors import AffgenError
from affgen.training_config import TrainConfig


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the network and what it hears."""

    normalise: Literal["level", "bands"] = "level"
    """"level" takes the loudness from the log-mel; "bands" its mean in every band too, and with it any fixed filter."""
    depth: float = 6.5
    """Log-mel magnitudes further than this (nepers) below the level of the voice are silence."""
    gate: float = 3.5
    """Frames further than this (nepers) below the level of the voice are not pooled."""
    stem: tuple[int, int, int] = (16, 24, 32)
    """Channels of the three two-dimensional convolutions; each halves the bands, the first two the frames."""
    width: int = 192
    """Channels between the blocks, C."""
    blocks: int = 4
    """Residual blocks, dilated by 1, 2, 3, 4, 1, ..."""
    squeeze: int = 48
    """Channels of the gates and of the attention."""
    embedding: int = 192
    """Width of the embedding, D."""
    dropout: float = 0.1
    """Of the pooled statistics, while training."""

    def __post_init__(self) -> None:
        if min(*self.stem, self.width, self.blocks, self.squeeze, self.embedding) < 1:
            raise AffgenError("encoder: stem, width, blocks, squeeze and embedding are 1 or more")
        if not (0 < self.gate <= self.depth <= 20 and 0 <= self.dropout <= 0.9):
            raise AffgenError("encoder: 0 < gate <= depth <= 20, and dropout from 0 to 0.9")


@dataclass(frozen=True)
class VariationConfig:
    """How training clips are varied; the channel of a corpus is to be no cue, the emotion neither."""

    rates: tuple[float, ...] = (0.85, 0.92, 1.0, 1.09, 1.18)
    """Speeds; each but 1 makes one more voice of a speaker (Yamamoto et al. 2019), pitch and formants together."""
    jitter: float = 0.02
    """Share by which a speed varies inside a class."""
    stretch: float = 0.1
    """Share by which the time alone is stretched."""
    seconds: tuple[float, float] = (1.0, 2.2)
    """Shortest and longest clip; one length for each batch, shorter utterances are repeated."""
    equaliser: float = 0.35
    """Standard deviation (nepers) of a smooth random curve over the bands."""
    noise: tuple[float, float] = (3.0, 7.0)
    """A noise floor this far (nepers) below the level of the clip is added to half of the clips."""
    limit: float = 0.2
    """Share of clips that lose all above a random band of the upper third."""
    bands: int = 10
    """Widest of two masks over bands (SpecAugment, Park et al. 2019)."""
    frames: int = 15
    """Widest of two masks over frames."""

    def __post_init__(self) -> None:
        if not self.rates or 1.0 not in self.rates or not all(0.5 <= rate <= 2 for rate in self.rates):
            raise AffgenError(f"variation.rates={self.rates}; accepted: speeds from 0.5 to 2, 1 among them")
        if len(set(self.rates)) < len(self.rates):
            raise AffgenError(f"variation.rates={self.rates}; accepted: each speed once")
        if not 0.1 <= self.seconds[0] <= self.seconds[1] <= 30:
            raise AffgenError(f"variation.seconds={self.seconds}; accepted: shortest and longest, from 0.1 to 30")
        if not (0 <= self.jitter <= 0.2 and 0 <= self.stretch <= 0.5 and 0 <= self.limit <= 1):
            raise AffgenError("variation: jitter ends at 0.2, stretch at 0.5, limit at 1")
        if not (0 <= self.bands <= 40 and 0 <= self.frames <= 200 and 0 <= self.equaliser <= 4):
            raise AffgenError("variation: bands ends at 40, frames at 200, equaliser at 4")
        if not 0 <= self.noise[0] <= self.noise[1]:
            raise AffgenError(f"variation.noise={self.noise}; accepted: smallest and largest distance")


@dataclass(frozen=True)
class LossConfig:
    """Weights and settings of the two losses."""

    margin: float = 1.0
    """Weight of the additive angular margin softmax over all training voices (Deng et al. 2019)."""
    prototype: float = 1.0
    """Weight of the angular prototypical loss inside a batch (Chung et al. 2020)."""
    angle: float = 0.2
    """Margin in radians."""
    scale: float = 30.0
    """Factor on the cosines."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not 0 <= getattr(self, entry.name) <= 100:
                raise AffgenError(f"losses.{entry.name}={getattr(self, entry.name)!r}; accepted: 0 to 100")
        if self.angle > 1:
            raise AffgenError(f"losses.angle={self.angle}; accepted: 0 to 1")


@dataclass(frozen=True)
class SpeakerConfig:
    """A complete speaker encoder and how it was trained."""

    licence: str = ""
    """Of the weights: the strictest of the corpora they are trained on."""
    tuning: tuple[str, ...] = ()
    """Speakers (patterns) that only choose the weights kept; empty: all are trained on, the last weights stay."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    variation: VariationConfig = field(default_factory=VariationConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000,
            batch_size=64,
            learning_rate=2e-3,
            warmup=100,
            final_ratio=0.02,
            weight_decay=0.05,
            ema=0.998,
            validate_every=500,
            save_every=100,
        )
    )


MINIATURE = SpeakerConfig(
    encoder=EncoderConfig(stem=(2, 3, 4), width=8, blocks=2, squeeze=4, embedding=192),
    variation=VariationConfig(rates=(0.9, 1.0), seconds=(0.3, 0.5)),
    train=TrainConfig(steps=4, batch_size=4, warmup=1, validate_every=2, save_every=2, log_every=1, ema=0.5),
)
"""An encoder small enough for tests."""
