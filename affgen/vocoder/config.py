"""Configuration of the vocoder; imports no torch. ``MINIATURE`` is a model for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from affgen.errors import AffgenError
from affgen.training_config import TrainConfig

REACH = 4
"""Frames to either side that one round of projection carries an influence over: a window of the front end."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the network that filters the excitation: ConvNeXt over frames, as in Vocos."""

    width: int = 256
    """Channels between the blocks, D."""
    hidden: int = 768
    """Channels inside a block."""
    blocks: int = 8
    kernel: int = 7
    """Frames that one depth-wise convolution spans; odd."""
    n_fft: int = 512
    """Length of the synthesis window; the hop is a quarter of it, half the hop of the mel."""
    dilate: int = 2
    """Frames by which voiced stretches are lengthened before pulses are switched off: trackers miss on- and offsets."""

    rounds: int = 8
    """Rounds of projection towards the mel after the network; each costs about as much as a block."""
    rounds_trained: int = 2
    """The same in the adversarial stage of training, where gradients go through them."""

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.blocks, self.kernel) < 1 or self.kernel % 2 == 0:
            raise AffgenError("generator: width, hidden and blocks are 1 or more, kernel is odd")
        if self.n_fft not in (256, 512, 1024):
            raise AffgenError(f"generator.n_fft={self.n_fft}; accepted: 256, 512, 1024")

    @property
    def context(self) -> int:
        """Frames on either side that a frame of the output depends on."""
        return (self.blocks + 1) * (self.kernel // 2) + self.n_fft // 256 + 1 + REACH * self.rounds


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminators (Kong et al. 2020; Jang et al. 2021), smaller than published: they train on CPUs."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (8, 16, 32, 64)
    resolutions: tuple[int, ...] = (512, 1024, 2048)
    """Window lengths of the spectrograms judged; the hop is a quarter."""
    resolution_channels: int = 16


@dataclass(frozen=True)
class DataConfig:
    """What one example is."""

    frames: int = 64
    """Length of an example; its wave has 256 times as many samples."""
    gain_db: float = 12.0
    """Examples are made louder or softer by up to this much, mel and wave alike."""
    valid_utterances: int = 24
    """Utterances kept from training to choose the best weights by."""
    seed: int = 0


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's losses in the adversarial stage; the distances weigh 1."""

    adversarial: float = 0.1
    matching: float = 0.3
    """Feature matching."""


@dataclass(frozen=True)
class VocoderConfig:
    """Everything the vocoder's training depends on: first the spectral energy distance alone, then adversarial."""

    licence: str = ""
    """Of the weights: the strictest of the corpora they are trained on."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train_distance: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=6000, batch_size=12, learning_rate=1e-3, warmup=200, final_ratio=0.2, ema=0.998, clip=5.0
        )
    )
    train_adversarial: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000, batch_size=8, learning_rate=3e-4, warmup=100, betas=(0.8, 0.98), ema=0.998, clip=5.0
        )
    )


_TINY = TrainConfig(steps=4, batch_size=2, warmup=1, validate_every=2, save_every=2, log_every=1, ema=0.5)
MINIATURE = VocoderConfig(
    generator=GeneratorConfig(width=16, hidden=32, blocks=2),
    discriminator=DiscriminatorConfig((2, 3), (4, 8), (256, 512), 4),
    data=DataConfig(frames=16, valid_utterances=1),
    train_distance=_TINY,
    train_adversarial=replace(_TINY, betas=(0.8, 0.98)),
)
"""A vocoder small enough for tests."""
