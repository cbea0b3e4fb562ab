"""Configuration of the aligner; imports no torch. ``MINIATURE`` is a model for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from affgen.errors import AffgenError
from affgen.training_config import TrainConfig


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network and what it hears."""

    depth: float = 7.0
    """Log-mel magnitudes further than this (nepers) below the level of the recording are silence."""
    gate: float = 4.0
    """The mean of each band, which is taken off, is over frames not further than this below the level."""
    width: int = 128
    """Channels of the residual blocks, C."""
    dilations: tuple[int, ...] = (1, 2, 3, 1, 2, 3)
    """Dilation of the three-tap convolution of each residual block; with the stem these see 14 frames to each side."""
    dropout: float = 0.0
    """Inside the blocks, while training."""

    def __post_init__(self) -> None:
        if self.width < 1 or not self.dilations or min(self.dilations) < 1:
            raise AffgenError("network: width and dilations are 1 or more")
        if not (0 < self.gate <= self.depth <= 20 and 0 <= self.dropout <= 0.9):
            raise AffgenError("network: 0 < gate <= depth <= 20, and dropout from 0 to 0.9")


@dataclass(frozen=True)
class PathConfig:
    """How the best path becomes segments."""

    prior: float = 0.5
    """Share of the log-prior of each phone that is taken off its log-posterior (Huang et al. 2024)."""
    pause: float = 0.07
    """Seconds; a shorter silence between two phones belongs to them."""
    closure: float = 0.14
    """The same before a stop, whose closure is silent."""

    def __post_init__(self) -> None:
        if not (0 <= self.prior <= 1 and 0 <= self.pause <= 10 and 0 <= self.closure <= 10):
            raise AffgenError("path: prior from 0 to 1, pause and closure from 0 to 10 s")


@dataclass(frozen=True)
class UnitsConfig:
    """The pseudo-phonemes: k-means of whitened hidden features."""

    count: int = 100
    """Centroids, K."""
    dimensions: int = 48
    """Principal components that are kept, D."""
    frames: int = 60_000
    """Frames they are learned from, drawn at random."""
    rounds: int = 25
    """Rounds of Lloyd's algorithm."""
    switch: float = 0.6
    """Cost of changing the unit between two frames, as a share of the mean squared distance to the centroid."""
    shortest: int = 2
    """Frames; shorter runs go to their neighbours."""

    def __post_init__(self) -> None:
        if min(self.count, self.dimensions, self.frames, self.rounds, self.shortest) < 1 or self.switch < 0:
            raise AffgenError("units: count, dimensions, frames, rounds and shortest are 1 or more, switch 0 or more")


def _plan(steps: int, rate: float, warmup: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=3000,
        learning_rate=rate,
        warmup=warmup,
        final_ratio=0.05,
        ema=0.99,
        validate_every=100_000,
        save_every=200,
        save_best=False,
    )


@dataclass(frozen=True)
class AlignerConfig:
    """A complete aligner and how it was trained: from a first alignment, then on its own paths and by CTC."""

    licence: str = ""
    """Of the weights: the strictest of the corpora they are trained on."""
    marks: bool = False
    """Train on the times of labels too, where there are labels; otherwise only the order of their phones is used."""
    cap: int = 600
    """Utterances that are used of one data directory, drawn at random."""
    repeats: int = 8
    """Utterances of the same phones that the first alignment is fitted to."""
    rounds: int = 1
    """Rounds of realignment, each followed by training frame by frame."""
    ctc: float = 0.1
    """Weight of CTC beside the frames."""
    bands: int = 10
    """Widest of two masks over bands (SpecAugment, Park et al. 2019)."""
    equaliser: float = 0.3
    """Standard deviation (nepers) of a smooth random curve over the bands."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    path: PathConfig = field(default_factory=PathConfig)
    units: UnitsConfig = field(default_factory=UnitsConfig)
    train_first: TrainConfig = field(default_factory=lambda: _plan(900, 2e-3, 50))
    """Frame by frame on the first alignment; ``batch_size`` counts frames, here and below."""
    train_round: TrainConfig = field(default_factory=lambda: _plan(600, 1.5e-3, 30))
    """Frame by frame on the best paths and by CTC with priors, once for each round."""
    train_marks: TrainConfig = field(default_factory=lambda: _plan(400, 1e-3, 30))
    """With ``marks``: once more, on the times of the labels where there are any."""

    def __post_init__(self) -> None:
        if (
            min(self.cap, self.repeats) < 1
            or self.rounds < 0
            or not 0 <= self.ctc <= 100
            or not 0 <= self.bands <= 40
            or not 0 <= self.equaliser <= 4
        ):
            raise AffgenError(
                "aligner: cap and repeats are 1 or more, rounds and ctc 0 or more, bands ends at 40, equaliser at 4"
            )


_SHORT = TrainConfig(
    steps=3, batch_size=300, warmup=1, validate_every=100, save_every=3, log_every=1, ema=0.5, save_best=False
)
MINIATURE = AlignerConfig(
    network=NetworkConfig(width=8, dilations=(1, 2)),
    units=UnitsConfig(count=4, dimensions=3, frames=500, rounds=3),
    rounds=1,
    train_first=_SHORT,
    train_round=_SHORT,
    train_marks=_SHORT,
)
"""An aligner small enough for tests."""
