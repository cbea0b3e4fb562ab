"""Configuration of the music generator; imports no torch, so that the command line stays quick.

Fields marked *open* are decisions the paper (Ji & Yang, "MusER", AAAI 2024) does not fix; fields marked *ablation*
switch one of its ablations on. ``PUBLISHED`` holds the published sizes, ``MINIATURE`` a model for tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from affgen.errors import AffgenError
from affgen.training_config import TrainConfig

FIELDS = ("tempo", "chord", "beat", "type", "pitch", "duration", "velocity", "emotion")
"""Columns of a compound word, in order."""

ELEMENTS = FIELDS[:7]
"""The seven musical elements: the columns with a part of the latent and a decoder of their own."""

STEPS_PER_BEAT = 4
STEPS_PER_BAR = 16


@dataclass(frozen=True)
class TokenConfig:
    """Value ranges of the compound words; every id range is in musical order (see :mod:`music.tokens`)."""

    tempo_low: int = 32
    """Centre of the first tempo bin, beats per minute."""
    tempo_step: int = 3
    tempo_bins: int = 65
    pitch_low: int = 21
    pitch_high: int = 108
    velocity_low: int = 20
    velocity_step: int = 4
    velocity_bins: int = 27

    def sizes(self) -> tuple[int, ...]:
        """Vocabulary size of each of the 8 columns, ignore/continue ids included."""
        pitches = self.pitch_high - self.pitch_low + 1
        return (
            2 + self.tempo_bins,
            3 + 12 * 11,
            2 + STEPS_PER_BAR,
            4,
            1 + pitches,
            2 + STEPS_PER_BAR,
            1 + self.velocity_bins,
            5,
        )


PUBLISHED_TOKENS = TokenConfig(
    tempo_low=47, tempo_bins=54, pitch_low=22, pitch_high=107, velocity_low=40, velocity_step=2, velocity_bins=41
)
"""Ranges with the published vocabulary sizes 56, 135, 18, 4, 87, 18, 42, 5."""


@dataclass(frozen=True)
class ModelConfig:
    """The VQ-VAE with element-regularised latents."""

    embeddings: tuple[int, ...] = (32, 64, 32, 16, 96, 32, 32, 16)
    """Embedding width of each column; scaled by the square root of the width."""
    encoder_dim: int = 128
    encoder_layers: int = 2
    encoder_heads: int = 4
    latent: int = 112
    """Width of the latent of one row; split evenly over the seven elements (7 x 16)."""
    codes: int = 512
    commitment: float = 0.25
    decay: float = 0.99
    restart_below: float = 0.5
    """Codes used less often than this (moving count per batch) are re-drawn from the batch; 0 = never, as published."""
    dim: int = 160
    layers: int = 2
    heads: int = 4
    element_dim: int = 64
    """Width of the element decoders; the published model uses ``dim``."""
    element_layers: int = 1
    element_heads: int = 4
    feed_forward: int = 4
    """Width of the feed-forward layers as a multiple of the model width."""
    dropout: float = 0.0
    max_rows: int = 384
    positions: bool = True
    """Add sinusoidal row positions, as published."""
    fusion: Literal["ca", "concat"] = "concat"
    """How the latents enter the global decoder: linear cross-attention over all rows (published), or row by row
    (ablation).
    """
    decoder: Literal["GE", "G", "E"] = "GE"
    """Global and element decoders, global only, element only (ablations)."""
    reduction: Literal["mean", "trans", "none"] = "mean"
    """Dimension reduction before the regulariser: published transformer, mean of the 16 values, or no regulariser
    (ablations).
    """
    regularise: Literal["quantised", "encoded"] = "quantised"
    """Latent that the regulariser sees, straight-through in the first case. Open."""
    bottleneck: Literal["vq", "none"] = "vq"
    """Quantised latents, or a plain auto-encoder (ablation)."""
    conditioning: Literal["token", "rows"] = "rows"
    """Emotion as the first row only (published), or valence, arousal, key, bars left and position at every row."""
    nll_weight: float = 1.0
    vq_weight: float = 1.0
    reg_weight: float = 0.1


@dataclass(frozen=True)
class PriorConfig:
    """The auto-regressive prior over codes."""

    dim: int = 192
    layers: int = 4
    heads: int = 6
    feed_forward: int = 4
    dropout: float = 0.0
    positions: bool = True
    temperature: float = 0.3
    """Logits are divided by this in training and in sampling, as published."""
    context: Literal["codes", "rows"] = "rows"
    """What the prior has heard: the codes so far (published), or the codes and the decoded rows."""
    conditioning: Literal["token", "rows"] = "rows"


@dataclass(frozen=True)
class SamplingConfig:
    """How one row is drawn: temperature and nucleus per column, and the guidance that intensity 1 stands for."""

    guidance: float = 4.0
    """logits = neutral + guidance * intensity * (conditioned - neutral), for the prior and the decoder."""
    major: tuple[float, ...] = (0.846, 0.287, 0.397, 0.746)
    """Share of major keys in the training clips of Q1..Q4; a key that was not asked for is drawn by it."""
    gain: tuple[float, float] = (1.4, 0.7)
    """What asked valence and arousal are multiplied by: valence is the harder of the two to make heard."""
    out_of_key: float = 3.0
    """Taken from the scores of pitches outside the key."""
    sustain: float = 2.0
    """Added to the scores of durations for each doubling: sampling prefers what is frequent, that is, short notes."""
    prior_temperature: float = 1.0
    prior_top_p: float = 0.99
    temperature: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    top_p: tuple[float, ...] = (1.0, 0.95, 1.0, 1.0, 0.98, 1.0, 1.0)


PUBLISHED_SAMPLING = SamplingConfig(
    guidance=1.0,
    gain=(1.0, 1.0),
    sustain=0.0,
    prior_top_p=0.9,
    temperature=(1.2, 1.0, 1.2, 1.0, 1.0, 2.0, 5.0),
    top_p=(0.9, 0.99, 1.0, 0.9, 0.9, 0.9, 1.0),
)


@dataclass(frozen=True)
class DataConfig:
    """How training clips are cut and varied."""

    transpose: int = 5
    """Clips are transposed by up to this many semitones either way."""
    drop_emotion: float = 0.15
    """Probability of hiding valence, arousal (each) and both: what guidance is made of."""
    drop_hints: float = 0.3
    """Probability of hiding the key, and of hiding the number of bars left."""
    seed: int = 13


@dataclass(frozen=True)
class MusicConfig:
    """A complete music model: tokens, VQ-VAE, prior, sampling, and how each was trained."""

    licence: str = ""
    """Licence of the weights: the strictest of what they were trained on. Empty: not stated."""
    tokens: TokenConfig = field(default_factory=TokenConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train_model: TrainConfig = field(default_factory=TrainConfig)
    train_prior: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        model, prior = self.model, self.prior
        for section in (self.tokens, model, prior):
            for entry in fields(section):
                value = getattr(section, entry.name)
                bound = 0.9 if entry.name == "dropout" else 65536
                for number in value if isinstance(value, tuple) else (value,):
                    if isinstance(number, (int, float)) and not 0 <= number <= bound:
                        raise AffgenError(f"{entry.name}={number!r}; accepted: 0 to {bound}")
        self._require(model.latent % len(ELEMENTS) == 0, f"model.latent must be a multiple of {len(ELEMENTS)}")
        self._require(len(model.embeddings) == len(FIELDS), f"model.embeddings needs {len(FIELDS)} widths")
        sizes = (model.latent, model.codes, model.max_rows, *model.embeddings)
        what = "model.latent, model.codes, model.max_rows and model.embeddings"
        self._require(min(sizes) > 0, f"{what} must be above 0, got {sizes}")
        bins = (self.tokens.tempo_bins, self.tokens.velocity_bins)
        self._require(min(bins) > 0, f"tokens.tempo_bins and tokens.velocity_bins must be above 0, got {bins}")
        self._require(prior.temperature > 0, "prior.temperature must be above 0")
        for name, width, heads in (
            ("model.dim", model.dim, model.heads),
            ("model.encoder_dim", model.encoder_dim, model.encoder_heads),
            ("model.element_dim", model.element_dim, model.element_heads),
            ("prior.dim", prior.dim, prior.heads),
        ):
            whole = width > 0 and heads > 0 and width % heads == 0
            self._require(whole, f"{name} must be a positive multiple of its number of heads, got {width} for {heads}")

    def require_decodable(self) -> None:
        """Raise :class:`AffgenError` for the one combination that can be trained in parts but not decoded."""
        if self.model.fusion == "ca" and self.prior.context == "rows":
            raise AffgenError('model.fusion "ca" draws all codes before the first row; set prior.context to "codes"')

    @staticmethod
    def _require(holds: bool, problem: str) -> None:
        if not holds:
            raise AffgenError(problem)


PUBLISHED = MusicConfig(
    tokens=PUBLISHED_TOKENS,
    model=ModelConfig(
        embeddings=(128, 256, 64, 32, 512, 128, 128, 128),
        encoder_dim=128,
        encoder_layers=8,
        encoder_heads=8,
        dim=256,
        layers=4,
        heads=8,
        element_dim=256,
        element_layers=2,
        element_heads=8,
        dropout=0.1,
        max_rows=1024,
        restart_below=0.0,
        fusion="ca",
        reduction="trans",
        conditioning="token",
    ),
    prior=PriorConfig(dim=256, layers=8, heads=8, dropout=0.1, context="codes", conditioning="token"),
    sampling=PUBLISHED_SAMPLING,
    data=DataConfig(transpose=0, drop_emotion=0.0),
)
"""MusER_TRANS_CA_GE at its published sizes: 68.07 M parameters with the dimension reduction, 17.7 M without."""

MINIATURE = MusicConfig(
    model=ModelConfig(
        embeddings=(8, 8, 8, 4, 16, 8, 8, 4),
        encoder_dim=16,
        encoder_layers=1,
        encoder_heads=2,
        latent=28,
        codes=32,
        dim=16,
        layers=1,
        heads=2,
        element_dim=8,
        element_heads=2,
        feed_forward=2,
        dropout=0.0,
        max_rows=64,
    ),
    prior=PriorConfig(dim=16, layers=1, heads=2, feed_forward=2, dropout=0.0),
)
"""A model that is built in milliseconds and has every part."""


def with_model(config: MusicConfig, **changes: object) -> MusicConfig:
    """The same configuration with fields of ``config.model`` changed."""
    return replace(config, model=replace(config.model, **changes))  # type: ignore[arg-type]
