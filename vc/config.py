"""Configuration of the converter; imports no torch. ``MINIATURE`` is a model for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from affgen.errors import AffgenError
from affgen.training_config import TrainConfig

MOST_STEPS = 100
"""Steps of a sampler that may be asked for."""
GUIDANCE = (0.0, 5.0)
"""Least and most guidance that may be asked for."""


@dataclass(frozen=True)
class FeelingConfig:
    """How emotions become a vector for the decoder: a few coordinates of the encoder's embedding space."""

    mixtures: int = 2
    """Local means per emotion (EmoReg's GMM)."""
    rank: int = 8
    """Principal directions kept, K."""


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder: ConvNeXt over time only."""

    width: int = 256
    """Channels between the blocks, D."""
    hidden: int = 768
    """Channels inside a block."""
    kernel: int = 7
    """Frames that one depth-wise convolution spans; odd."""
    mean_blocks: int = 4
    """Blocks that find the average mel from which sampling starts."""
    flow_blocks: int = 6
    """Blocks of the network that each step evaluates."""
    cepstra: int = 24
    """Coefficients of content and timbre."""
    condition: int = 128
    """Width of the vector that speaker, emotion and time are joined in."""
    speaker: int = 192
    """Width of the speaker embedding."""
    residual: float = 0.5
    """Standard deviation, in units of the mel's own, of what sampling adds to the average mel."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.hidden, self.kernel, self.mean_blocks, self.flow_blocks, self.cepstra, self.condition)
        if min(sizes) < 1 or self.kernel % 2 == 0 or self.residual <= 0:
            raise AffgenError("decoder: sizes are 1 or more, kernel is odd, residual above 0")


@dataclass(frozen=True)
class DataConfig:
    """What one training example is and how it is varied."""

    frames: int = 128
    """Length of an example."""
    warp: float = 0.03
    """Formants of the content are moved by up to this share; more would hide the speaker, who is to stay."""
    noise: float = 0.1
    """Deviation of the noise on the content, in units of its own."""
    twin_content: float = 0.6
    """Share of the emotional examples whose content is that of a neutral twin."""
    drop_emotion: float = 0.1
    """Share of the examples whose emotion is hidden, for guidance."""
    own_timbre: float = 0.5
    """Share of the neutral examples that are told their own timbre, not that of another utterance of the speaker."""
    leave_out: tuple[str, ...] = ("ravdess-13", "ravdess-14", "ravdess-15", "ravdess-16")
    """Speakers (patterns) that the decoder does not see: intensity is calibrated on them."""
    valid_utterances: int = 48
    """Utterances of speakers left out that the best weights are chosen by."""
    calibration_clips: int = 2
    """Neutral clips of each speaker left out that the calibration converts."""
    seed: int = 0


@dataclass(frozen=True)
class VcConfig:
    """Everything the converter depends on."""

    system: Literal["converter"] = "converter"
    """What is trained; ``emoreg`` (:mod:`vc.emoreg.config`) is the published system."""
    licence: str = ""
    """Of the weights: the strictest of the corpora they are trained on."""
    sampler: str = "flow"
    """One of :data:`vc.diffusion.SAMPLERS`."""
    steps: int = 4
    """Steps of the sampler when nothing else is asked for."""
    spread: float = 0.4
    """Deviation of what is sampled, in its own units, that the maximum-likelihood sampler counts with: more makes
    voices rougher, less makes them smoother than real ones."""
    temperature: float = 0.3
    """Deviation of the noise that sampling starts from, 1 as in training: less is smoother, and costs fewer words."""
    full_strength: float = 1.3
    """Strength that intensity 1 means, 1 being what strong clips have taught: where the voice is kept as well as actors
    keep theirs."""
    heard: float = 0.87
    """What intensity 1 is to be heard as, in units of actors' strong clips: F0 is moved by as much as that takes."""
    pitch_shares: tuple[float, ...] = (0.4, 0.7, 1.0, 1.3)
    """Shares of what actors do with the height of F0 that are tried for it, rising."""
    pitch_most: float = 0.8
    """Octaves that intensity 1 raises F0 by at most in a middle voice: an octave would cost the voice and the words."""
    identity: float = 1.6
    """How much further emotions are moved along the directions that tell them apart than along the first, which they
    share."""
    colour_share: float = 1.05
    """Share of actors' change of colour that is made: colour costs the voice less than F0 does."""
    range_share: float = 1.5
    """What the range of F0 is multiplied by: part of it is lost like quick movement."""
    slope_share: float = 1.3
    """The same for the slope of F0 over a phrase."""
    time_share: float = 0.25
    """Share of what actors do with durations that is done: slow speech costs words."""
    dynamics_share: float = 0.6
    """The same for the excursions of the energy."""
    motion_share: float = 2.5
    """The same for the quick movement of F0, much of which is lost on its way through tracking and synthesis."""
    feeling: FeelingConfig = field(default_factory=FeelingConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4500, batch_size=16, learning_rate=1e-3, warmup=200, final_ratio=0.05, ema=0.998, precision="bf16"
        )
    )

    def __post_init__(self) -> None:
        shares = self.pitch_shares
        if not shares or min(shares) < 0 or sorted(set(shares)) != list(shares):
            raise AffgenError(f"pitch_shares {list(shares)}; accepted: one or more numbers from 0, rising")
        shares = (self.colour_share, self.range_share, self.slope_share, self.time_share, self.dynamics_share)
        numbers = (self.spread, self.temperature, self.identity, self.motion_share, *shares)
        if min(numbers) < 0 or min(self.heard, self.full_strength, self.pitch_most) <= 0:
            raise AffgenError("spread, temperature and shares: 0 or more; heard, full_strength, pitch_most: above 0")


MINIATURE = VcConfig(
    identity=1.0,
    feeling=FeelingConfig(mixtures=1, rank=4),
    decoder=DecoderConfig(width=16, hidden=32, mean_blocks=1, flow_blocks=1, condition=16),
    data=DataConfig(frames=16, leave_out=(), valid_utterances=1),
    train=TrainConfig(steps=4, batch_size=2, warmup=1, validate_every=2, save_every=2, log_every=1, ema=0.5),
)
"""A converter small enough for tests."""
