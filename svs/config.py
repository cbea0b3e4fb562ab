"""Configuration of the faithful Muse-SVS; imports no torch. ``MINIATURE`` is a model for tests.

Muse-SVS (Kim et al. 2023, arXiv 2203.00931) is re-implemented from its published description. What could be read of it
(abstracts and the authors' page) names the parts and what they are for, but no size, dilation, loss weight or corpus:
all numbers here are this project's.

=====================  =============================================================================================
field                  what the paper gives, and what it leaves open
=====================  =============================================================================================
``block``              "ASPP-Transformer"; ``fft``, the block of FastSpeech, is the ablation. Its inside is open
``embedding``          conditional residual embeddings in one joint space, linear in intensity; ``additive`` is the
                       ablation: singer and emotion each have a vector that is added whatever is sung
``pitch``              a statistical pitch predictor, whose variance follows the intensity; ``deterministic`` is the
                       ablation. What its statistics are of is open
``duration``           a context-aware residual predictor that keeps errors from accumulating; ``plain`` is the
                       ablation. How it does so is open. ``boundary`` is not in the paper: it cannot drift at all
=====================  =============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError
from affgen.frames import HOP, SAMPLE_RATE

LARGEST = 4096  # of any size: a config of unknown origin must not ask for a giant
NEUTRAL = LABELS[0]


@dataclass(frozen=True)
class BlockConfig:
    """Sizes of the Transformer blocks of encoder and decoder. The paper is silent on all of them."""

    width: int = 256
    """Channels between the blocks, D."""
    heads: int = 2
    """Attention heads, as in FastSpeech."""
    place: Literal["ffn", "parallel", "after"] = "ffn"
    """Where the pyramid stands: in the place of the feed-forward part, beside attention and before the feed-forward
    part, or after both. The paper is silent."""
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """Of the pyramid's branches with three taps; DeepLab's (6, 12, 18) hear further. The paper is silent."""
    branch: int = 128
    """Channels of each branch. The paper is silent."""
    hidden: int = 1024
    """Channels inside the feed-forward part of a FastSpeech block."""
    kernel: int = 9
    """Taps of its first convolution, odd; the second one has a single tap."""
    dropout: float = 0.1
    """Of all that is added to the residual path. The paper is silent."""

    def __post_init__(self) -> None:
        _require("blocks", self.width, self.heads, self.branch, self.hidden, self.kernel, *self.dilations)
        _require_dropout("blocks", self.dropout)
        if self.width % (2 * self.heads) or self.kernel % 2 == 0:
            raise AffgenError("blocks: width is a multiple of twice the heads, kernel is odd")
        if not self.dilations or self.place not in ("ffn", "parallel", "after"):
            raise AffgenError("blocks: one dilation or more; place is ffn, parallel or after")


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes of a predictor: convolutions, each with rectifier, normalisation and dropout, as in FastSpeech 2."""

    hidden: int = 256
    """Channels of its layers. The paper is silent."""
    layers: int = 2
    """The paper is silent."""
    kernel: int = 3
    """Taps of a layer; odd. The paper is silent."""
    dropout: float = 0.3
    """The paper is silent; FastSpeech 2 has 0.5, Muse-SVS had more data than there is here."""

    def __post_init__(self) -> None:
        _require("predictors", self.hidden, self.layers, self.kernel)
        _require_dropout("predictors", self.dropout)
        if self.kernel % 2 == 0:
            raise AffgenError("predictors: kernel is odd")


@dataclass(frozen=True)
class JointConfig:
    """Sizes of the joint space of singer and emotion."""

    rank: int = 64
    """Width of the vectors of singers and emotions, R, from which the joint table is made. The paper is silent."""
    hidden: int = 256
    """Channels inside the networks that make a residual of a phoneme. The paper is silent."""

    def __post_init__(self) -> None:
        _require("joint", self.rank, self.hidden)


@dataclass(frozen=True)
class PitchConfig:
    """What the pitch predictors do. The paper is silent on all of it."""

    statistics: PredictorConfig = field(default_factory=PredictorConfig)
    """Finds mean and deviation of each phoneme."""
    contour: PredictorConfig = field(default_factory=lambda: PredictorConfig(layers=4, kernel=9, dropout=0.1))
    """Finds the curve over frames, and what is voiced."""
    sigma_floor: float = 0.05
    """Least deviation in semitones inside a phoneme: about what a tracker's error is."""
    vibrato_window: int = 29
    """Frames of the moving average that the knob ``vibrato`` leaves alone, about two periods; odd."""

    def __post_init__(self) -> None:
        _require("pitch", self.vibrato_window)
        if not 0 < self.sigma_floor <= 1 or self.vibrato_window % 2 == 0:
            raise AffgenError("pitch: sigma_floor is above 0 to 1 semitone, vibrato_window is odd")


@dataclass(frozen=True)
class DurationConfig:
    """What the duration predictor does."""

    context: PredictorConfig = field(default_factory=PredictorConfig)
    """Hears the phonemes around; the paper is silent on how."""
    bound_s: float = 0.12
    """Seconds by which mode ``boundary`` may move a beat; not in the paper."""

    def __post_init__(self) -> None:
        least = HOP / SAMPLE_RATE
        if not least <= self.bound_s <= 1:
            raise AffgenError(f"durations: bound_s={self.bound_s}; accepted: {least:.4f} (one frame) to 1 s")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; the paper is silent on all of them."""

    mel: float = 1.0
    statistics: float = 0.1
    """Likelihood of the frames' pitch; not of a deterministic predictor."""
    contour: float = 0.3
    """Distance in semitones."""
    voicing: float = 0.2
    duration: float = 1.0
    """Distance of log durations."""
    beat: float = 0.5
    """The same of the sums from beat to beat."""
    onset: float = 1.0
    """Distance in seconds of where phonemes begin."""
    energy: float = 0.1


@dataclass(frozen=True)
class AdversaryConfig:
    """Sizes of the discriminators. The paper is silent; the idea is XiaoiceSing 2's (Chunhui et al. 2022)."""

    bands: tuple[tuple[int, int], ...] = ((0, 40), (20, 60), (40, 80))
    """First mel band and the one after the last of what each discriminator sees."""
    segments: tuple[int, ...] = (32, 64, 128)
    """Frames of the stretches that are judged; each length has its own discriminator for every band."""
    channels: int = 32
    layers: int = 4
    """Convolutions; each but the first halves bands and frames."""
    adversarial: float = 0.1
    """Weight of the game in the losses of the singer."""
    matching: float = 0.3
    """Weight of feature matching."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(tuple(band) for band in self.bands))  # files have lists
        _require("adversary", self.channels, self.layers, *self.segments)
        if (
            not self.bands
            or not self.segments
            or any(len(band) != 2 or not 0 <= band[0] < band[1] <= 80 for band in self.bands)
        ):
            raise AffgenError("adversary: bands are pairs (first, after the last) within 0 to 80; one segment or more")


@dataclass(frozen=True)
class MuseConfig:
    """Everything the system depends on."""

    system: Literal["muse"] = "muse"
    """Tells these files from those of other singers."""
    block: Literal["aspp", "fft"] = "aspp"
    embedding: Literal["residual", "additive"] = "residual"
    pitch: Literal["statistical", "deterministic"] = "statistical"
    duration: Literal["residual", "boundary", "plain"] = "residual"
    singers: tuple[str, ...] = ("singer",)
    """Names of those it can sing as."""
    emotions: tuple[str, ...] = LABELS[:6]
    """Labels of the emotions, neutral first."""
    encoder_layers: int = 4
    """Blocks over phonemes. The paper is silent."""
    decoder_layers: int = 6
    """Blocks over frames. The paper is silent."""
    blocks: BlockConfig = field(default_factory=BlockConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    durations: DurationConfig = field(default_factory=DurationConfig)
    contours: PitchConfig = field(default_factory=PitchConfig)
    energy: PredictorConfig = field(default_factory=PredictorConfig)
    """Finds the energy, first of phonemes, then of frames. The paper is silent."""
    loss: LossConfig = field(default_factory=LossConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)

    def __post_init__(self) -> None:
        _require("muse", self.encoder_layers, self.decoder_layers)
        for name, found, accepted in (
            ("block", self.block, ("aspp", "fft")),
            ("embedding", self.embedding, ("residual", "additive")),
            ("pitch", self.pitch, ("statistical", "deterministic")),
            ("duration", self.duration, ("residual", "boundary", "plain")),
        ):
            if found not in accepted:
                raise AffgenError(f"{name} {found!r}; accepted: {', '.join(accepted)}")
        if not self.singers or len(set(self.singers)) < len(self.singers):
            raise AffgenError(f"singers {list(self.singers)}; accepted: one or more names, each once")
        unknown = [label for label in self.emotions if label not in LABELS]
        if self.emotions[:1] != (NEUTRAL,) or unknown or len(set(self.emotions)) < len(self.emotions):
            raise AffgenError(f"emotions {list(self.emotions)}; accepted: {NEUTRAL} first, then any of {LABELS[1:]}")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses by name, as :func:`affgen.training.fit` takes them."""
        weights = dict(vars(self.loss))
        if self.pitch == "deterministic":
            del weights["statistics"]
        return weights


def _require(section: str, *sizes: int) -> None:
    if not all(1 <= size <= LARGEST for size in sizes):
        raise AffgenError(f"{section}: sizes are 1 to {LARGEST}")


def _require_dropout(section: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise AffgenError(f"{section}: dropout is 0 to below 1")


_SMALL = PredictorConfig(hidden=8, layers=1, dropout=0.0)
MINIATURE = MuseConfig(
    singers=("ada", "bob"),
    emotions=LABELS[:4],
    encoder_layers=1,
    decoder_layers=1,
    blocks=BlockConfig(width=16, branch=8, dilations=(1, 2), hidden=16, kernel=3, dropout=0.0),
    joint=JointConfig(rank=4, hidden=8),
    durations=DurationConfig(context=_SMALL),
    contours=PitchConfig(statistics=_SMALL, contour=_SMALL),
    energy=_SMALL,
    adversary=AdversaryConfig(segments=(8, 16), channels=4, layers=2),
)
"""A system small enough for tests."""
