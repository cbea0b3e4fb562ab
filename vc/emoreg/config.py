"""Configurations of the faithful EmoReg; imports no torch. The defaults are the published sizes, ``PUBLISHED``.

=================================  =================================================================================
section                            what the papers give, and what they leave open
=================================  =================================================================================
:class:`AverageConfig`             DiffVC's average-voice encoder; EmoReg states 8.5 M parameters: the same sizes
:class:`TargetConfig`              DiffVC: mode of the segments' medians, segments by a forced aligner
:class:`ScoreConfig`               DiffVC's decoder; EmoReg states 118 M parameters: the same with its reference block
:class:`ShiftConfig`               EmoReg names a GMM and a PCA, but neither the mixtures nor the components: open
:class:`SdeConfig`                 DiffVC's noise schedule
``train_encoder train_decoder``    DiffVC's optimisers and passes over the data, at the size of ESD English; EmoReg's
                                   own are not published: open
=================================  =================================================================================

``SMALL`` and ``TINY`` are the same system with narrower score networks, ``MINIATURE`` is for tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from affgen.emotion.config import EMBEDDING, EmotionConfig
from affgen.errors import AffgenError
from affgen.training_config import TrainConfig

STAGES = ("ser", "dvm", "encoder", "decoder")
"""The four trainings, in the order in which they need each other."""
LARGEST = 4096  # of any size: a config of unknown origin must not ask for a giant


@dataclass(frozen=True)
class AverageConfig:
    """Sizes of the average-voice encoder."""

    channels: int = 192
    filters: int = 768
    """Channels inside the convolutional feed-forward part of a layer."""
    layers: int = 6
    heads: int = 2
    kernel: int = 3
    """Frames that its convolutions span; odd."""
    window: int = 4
    """Frames to either side whose distance attention knows."""
    dropout: float = 0.1
    prenet_layers: int = 3
    prenet_kernel: int = 5
    """Odd."""
    prenet_dropout: float = 0.5
    postnet: int = 128
    """Channels of the two-dimensional network at the end; a multiple of 8."""

    def __post_init__(self) -> None:
        sizes = (self.channels, self.filters, self.layers, self.heads, self.kernel, self.window, self.postnet)
        _require((*sizes, self.prenet_layers, self.prenet_kernel), "average")
        if self.channels % self.heads or self.postnet % 8 or not (self.kernel % 2 and self.prenet_kernel % 2):
            raise AffgenError("average: channels are a multiple of heads, postnet of 8, and kernels are odd")
        if not (0 <= self.dropout < 1 and 0 <= self.prenet_dropout < 1):
            raise AffgenError("average: dropout and prenet_dropout are 0 to below 1")


@dataclass(frozen=True)
class TargetConfig:
    """What the average-voice encoder learns to give: the mel with each phone replaced by its average."""

    phones: Literal["ctm", "textgrid", "units"] = "ctm"
    """Where the phones in time are: ``DIR/phones.ctm`` as 'affgen data align' writes it, ``DIR/textgrids/UTT.TextGrid``
    as it or the Montreal Forced Aligner do, or nowhere: pseudo-phonemes of the shipped aligner, which need no text.
    """
    tier: str = "phones"
    """Tier of a TextGrid."""
    statistic: Literal["mode", "median", "mean"] = "mode"
    """Over the segments of a phone, each of which is the median of its frames; ``mode`` rounds these to 0.1 first."""


@dataclass(frozen=True)
class ScoreConfig:
    """Sizes of the score network."""

    dim: int = 256
    """Channels at full resolution; twice and four times as many below."""
    condition: int = 128
    """Channels of the condition, the same in every place unless the emotion changes over time."""
    reference: bool = True
    """Whether it also sees the diffused mel of a reference: the source itself where no other is given."""

    def __post_init__(self) -> None:
        _require((self.dim, self.condition), "score")
        if self.dim % 8 or self.condition % 4:
            raise AffgenError("score: dim is a multiple of 8, condition of 4")


@dataclass(frozen=True)
class ShiftConfig:
    """How the direction from source to reference emotion is estimated (the DVM)."""

    model: Literal["gmm", "none"] = "gmm"
    """``none`` is the ablation of the paper, Diff-EVC: the plain difference of the embeddings."""
    n_mix: int = 2
    """Local means of each emotion, components of a Gaussian mixture."""
    n_comp: float = 8
    """Principal components that are kept: a count, or from 0 to 1 the share of the variance that they explain."""
    anchored: bool = False
    """Fit on embeddings measured from the speaker's own neutral mean; not in the paper."""

    def __post_init__(self) -> None:
        _require((self.n_mix,), "dvm")
        if not (0 < self.n_comp < 1 or (1 <= self.n_comp <= EMBEDDING and self.n_comp == int(self.n_comp))):
            raise AffgenError(f"dvm: n_comp={self.n_comp!r}; accepted: 1 to {EMBEDDING}, or a share between 0 and 1")

    @property
    def components(self) -> int | float:
        """``n_comp`` as :meth:`affgen.emotion.dvm.DVM.fit` takes it."""
        return self.n_comp if self.n_comp < 1 else int(self.n_comp)


@dataclass(frozen=True)
class SdeConfig:
    """The noise schedule: beta rises linearly over t from 0 to 1."""

    beta_min: float = 0.05
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max <= 1000:
            raise AffgenError("sde: 0 < beta_min <= beta_max <= 1000")


@dataclass(frozen=True)
class SerConfig:
    """The emotion encoder, whose training is that of :mod:`affgen.emotion.train`."""

    train: bool = False
    """Train one on the data directories; otherwise ``model`` is used as it is."""
    model: str = ""
    """Model directory of an emotion encoder of any backend; empty: the shipped one."""
    backend: Literal["affgen-small", "wavlm", "hubert", "emotion2vec"] = "affgen-small"
    """What is trained: a whole ``affgen-small``, or a head on the published weights in ``upstream``."""
    upstream: str = ""
    """Folder of published weights (see :mod:`affgen.emotion.backends`)."""
    emotion: EmotionConfig = field(default_factory=EmotionConfig)

    def __post_init__(self) -> None:
        if self.train and (self.backend == "affgen-small") == bool(self.upstream):
            raise AffgenError("ser: upstream names the weights of wavlm, hubert or emotion2vec, and of nothing else")


@dataclass(frozen=True)
class DataConfig:
    """What one example is and what is kept from training."""

    frames: int = 128
    """Length of an example; a multiple of 4."""
    leave_out: tuple[str, ...] = ()
    """Speakers (patterns) that nothing is trained on, not even for choosing weights."""
    valid_utterances: int = 64
    """Utterances kept to choose the best weights by."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require((self.frames,), "data")
        if self.frames % 4 or not 0 <= self.valid_utterances <= 100_000:
            raise AffgenError("data: frames is a multiple of 4, valid_utterances 0 to 100000")


_UTTERANCES = 15_750
"""Nine tenths of ESD English (10 speakers, 5 emotions, 350 sentences): what EmoReg was trained on."""
_ADAM = TrainConfig(betas=(0.9, 0.999), weight_decay=0.0, warmup=0, final_ratio=1.0, clip=1.0, ema=0.0)
"""Adam at a constant rate: AdamW without decay is that."""


@dataclass(frozen=True)
class EmoRegConfig:
    """Everything the system depends on."""

    system: Literal["emoreg"] = "emoreg"
    """Tells these files from those of the shipped converter."""
    licence: str = ""
    """Of the weights: the strictest of the corpora they are trained on."""
    average: AverageConfig = field(default_factory=AverageConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    dvm: ShiftConfig = field(default_factory=ShiftConfig)
    sde: SdeConfig = field(default_factory=SdeConfig)
    ser: SerConfig = field(default_factory=SerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train_encoder: TrainConfig = field(
        default_factory=lambda: replace(_ADAM, steps=300 * _UTTERANCES // 128, batch_size=128, learning_rate=5e-4)
    )
    train_decoder: TrainConfig = field(
        default_factory=lambda: replace(_ADAM, steps=110 * _UTTERANCES // 32, batch_size=32, learning_rate=1e-4)
    )


def _require(sizes: tuple[int, ...], section: str) -> None:
    if not all(1 <= size <= LARGEST for size in sizes):
        raise AffgenError(f"{section}: sizes are 1 to {LARGEST}")


PUBLISHED = EmoRegConfig()
"""The published sizes and settings."""
SMALL = EmoRegConfig(score=ScoreConfig(dim=64, reference=False))
"""A score network of 7.95 M parameters in the place of 117.8 M; everything else as published."""
TINY = EmoRegConfig(score=ScoreConfig(dim=32, reference=False))
"""The same with 2.28 M."""

_FEW = replace(_ADAM, steps=4, batch_size=2, validate_every=2, save_every=2, log_every=1, learning_rate=1e-3)
MINIATURE = EmoRegConfig(
    average=AverageConfig(channels=8, filters=16, layers=1, prenet_layers=1, postnet=8),
    target=TargetConfig(phones="units"),
    score=ScoreConfig(dim=8, condition=8),
    dvm=ShiftConfig(n_mix=1, n_comp=1),
    data=DataConfig(frames=16, valid_utterances=2),
    train_encoder=_FEW,
    train_decoder=_FEW,
)
"""A system small enough for tests."""
