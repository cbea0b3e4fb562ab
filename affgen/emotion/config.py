"""Settings of the emotion encoder ``affgen-small``: sizes, what training data is varied by, and the training."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from affgen.errors import AffgenError
from affgen.training_config import TrainConfig

EMBEDDING = 256
"""Width of every emotion embedding, whatever the backend."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the network and what it hears."""

    depth: float = 6.5
    """Log-mel magnitudes further than this (nepers) below the level of the utterance are silence. The background of a
    recording would otherwise tell how loud the voice was before it was normalised.
    """
    width: int = 96
    blocks: int = 4
    """Residual one-dimensional convolutions, dilated by 1, 2, 4, 8, 1, 2, ..."""
    heads: int = 4
    """Attention heads of the pooling."""
    dropout: float = 0.4
    hide: tuple[int, int] = (10, 12)
    """Widest masks over bands and over frames in training, two of each; the statistics are not masked."""


@dataclass(frozen=True)
class VariationConfig:
    """How training clips are varied; every range is symmetric around no change."""

    stretch: float = 0.1
    """Rates of time are drawn from 1 - stretch to 1 + stretch."""
    warp: float = 0.05
    """The axis of bands is scaled by up to this share: longer and shorter vocal tracts."""
    semitones: float = 2.0
    """F0 is moved by up to this."""
    equaliser: float = 0.2
    """Standard deviation (nepers) of a smooth random curve over the bands."""
    noise: tuple[float, float] = (5.0, 8.0)
    """A noise floor this far (nepers) below the level of the utterance is added to half of the clips."""
    shortest: float = 1.5
    """Seconds; a quarter of the clips are cut to a random part at least this long."""
    drop_f0: float = 0.03
    """Share of clips that are heard without F0."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses, and how hard the labels are."""

    label: float = 1.0
    helpers: float = 0.3
    plane: float = 0.3
    intensity: float = 0.5
    order: float = 0.3
    smoothing: float = 0.1
    """Share of the probability that is spread over the labels of the corpus."""


@dataclass(frozen=True)
class EmotionConfig:
    """A complete emotion encoder and how it was trained."""

    licence: str = ""
    """Licence of the weights: the strictest of what they were trained on. Empty: not stated."""
    tuning: tuple[str, ...] = ()
    """Training speakers that only decide which weights are kept; empty: all are trained on, the last weights stay."""
    ignore: tuple[str, ...] = ("emodb calm",)
    """``CORPUS LABEL`` pairs whose label means something else there: EmoDB's boredom is filed under calm."""
    ridge: float = 1.0
    """Shrinkage of the directions among the embeddings, in units of their mean variance."""
    gauges: float = 0.5
    """Length of the gauges (:mod:`affgen.emotion.gauges`) in units of the embedding's own directions; 0 = none."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    variation: VariationConfig = field(default_factory=VariationConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        for section in (self.encoder, self.variation, self.losses):
            for entry in fields(section):
                value = getattr(section, entry.name)
                for number in value if isinstance(value, tuple) else (value,):
                    if isinstance(number, (int, float)) and not 0 <= number <= 4096:
                        raise AffgenError(f"{entry.name}={number!r}; accepted: 0 to 4096")
        encoder = self.encoder
        if min(encoder.width, encoder.heads) < 1 or encoder.dropout > 0.9:
            raise AffgenError("encoder.width and encoder.heads must be above 0, encoder.dropout up to 0.9")
        if self.variation.stretch > 0.5 or self.variation.warp > 0.5 or self.losses.smoothing > 0.9:
            raise AffgenError("variation.stretch and variation.warp end at 0.5, losses.smoothing at 0.9")
