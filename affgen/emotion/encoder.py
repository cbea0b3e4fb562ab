"""Emotion from a voice: sound to frames, a 256-d embedding, label probabilities, valence and arousal.

Three kinds of encoder share one protocol, :class:`Encoder`, and one kind of model directory (task "emotion"):

================  ===========================================================================================
``affgen-small``  :class:`EmotionEncoder`: log-mel and F0, trained by this project, shipped in the package
``wavlm hubert``  :class:`affgen.emotion.backends.UpstreamEncoder` over torchaudio's networks
``emotion2vec``   the same over :class:`affgen.emotion.emotion2vec.Emotion2vec`
================  ===========================================================================================

:func:`load_encoder` reads any of them. All are told loudness-normalised sound only: a loud voice is not an angry one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from affgen import config as configs
from affgen.checkpoint import load_model, save_model
from affgen.emotion.config import EMBEDDING, EmotionConfig
from affgen.emotion.labels import LABELS
from affgen.emotion.network import STRIDE, Heard, Network
from affgen.emotion.restore import restored
from affgen.emotion.space import EmotionSpace
from affgen.errors import AffgenError, ModelError
from affgen.frames import HOP, SAMPLE_RATE

if TYPE_CHECKING:
    from affgen.audio import Audio
    from affgen.features import Features

TASK = "emotion"
SMALL = "affgen-small"
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "emotion"
LONGEST_S = 60.0
"""Longer sounds are read in parts of this many seconds, whose readings are averaged by length."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What is heard in a voice: ``embedding (256,)``, ``posterior`` {label: probability} over the eight labels,
    ``valence`` and ``arousal`` in [-1, 1], and ``frames (N, D)`` before pooling, at the encoder's ``frame_rate``.
    """

    embedding: np.ndarray
    posterior: dict[str, float]
    valence: float
    arousal: float
    frames: np.ndarray

    @property
    def label(self) -> str:
        """The likeliest label."""
        return max(self.posterior, key=lambda name: self.posterior[name])


class Encoder(Protocol):
    """What every emotion encoder offers, whatever its backend."""

    @property
    def backend(self) -> str:
        """The name of the backend, such as ``affgen-small``."""

    @property
    def frame_rate(self) -> float:
        """Frames per second of :attr:`Reading.frames`."""

    @property
    def space(self) -> EmotionSpace | None:
        """Prototypes and directions among the embeddings; None if none were fitted."""

    @property
    def card_line(self) -> str:
        """How far to trust the encoder, in one line."""

    def encode(self, audio: Audio) -> Reading:
        """Read a sound of any rate and loudness; raises :class:`AffgenError` for one that is too short or silent."""


class EmotionEncoder:
    """The encoder ``affgen-small``; :meth:`from_pretrained` gives the one shipped in the package."""

    backend = SMALL
    frame_rate = SAMPLE_RATE / HOP / STRIDE

    def __init__(
        self, config: EmotionConfig, network: Network, space: EmotionSpace | None = None, figures: str = ""
    ) -> None:
        """Take a trained ``network``, the ``space`` of its embeddings, and what it scored in one line."""
        self.config = config
        self.network = network.eval()
        self.space = space
        self.card_line = figures or "emotion encoder: no figures were measured"

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> EmotionEncoder:
        """Load the model directory ``folder`` (default: the shipped one).

        Raises :class:`ModelError` for a directory that is missing, damaged or of another backend.
        """
        folder = PRETRAINED if folder is None else Path(folder)
        return cls._unpack(folder, *load_model(folder, task=TASK))

    @classmethod
    def _unpack(cls, folder: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> EmotionEncoder:
        where = folder / "config.json"
        if values.get("backend") != SMALL:
            raise ModelError(f"{where}: backend {str(values.get('backend'))[:40]!r}; {SMALL!r} is needed here")
        chosen = {key: value for key, value in values.items() if key not in ("backend", "space", "figures")}
        try:
            config = configs.from_dict(EmotionConfig, chosen)
        except ValueError as error:  # an AffgenError, or what a dataclass makes of a wrong length
            raise ModelError(f"{where}: {error}") from error
        space, rest = unpack_space(values.get("space"), tensors, folder)
        network = restored(lambda: Network(config.encoder), rest, folder / "model.safetensors")
        return cls(config, network, space, str(values.get("figures", "")))

    def save(self, folder: str | Path, card: str) -> None:
        """Write a model directory with ``card`` as its README.md; weights in half precision."""
        values = configs.to_dict(self.config) | {"backend": SMALL, "figures": self.card_line}
        tensors = {name: _half(value) for name, value in self.network.state_dict().items()}
        values["space"], more = pack_space(self.space)
        save_model(folder, values, tensors | more, card, task=TASK)

    def encode(self, audio: Audio) -> Reading:
        """Read a sound of any rate and loudness.

        Raises :class:`AffgenError` for one shorter than 1,024 samples at 22,050 Hz, or silent.
        """
        from affgen.audio import normalise
        from affgen.features import extract

        require_sound(audio.samples)
        return self.read(extract(normalise(audio)))

    def read(self, features: Features) -> Reading:
        """Read features of the front end, of any loudness."""
        mel, f0 = torch.from_numpy(features.mel), torch.from_numpy(features.f0)
        size = round(LONGEST_S * SAMPLE_RATE / HOP)
        starts = range(0, max(1, len(features)), size)
        if len(starts) > 1 and len(features) - starts[-1] < size // 4:
            starts = starts[:-1]  # a short rest is read with the part before it
        ends = [*starts[1:], len(features)]
        return joined([self._part(mel[:, a:b], f0[a:b]) for a, b in zip(starts, ends, strict=True)])

    @torch.inference_mode()
    def _part(self, mel: Tensor, f0: Tensor) -> Reading:
        mask = torch.ones(1, mel.shape[1], dtype=torch.bool)
        return reading(self.network(mel[None].contiguous(), f0[None], mask))


def reading(heard: Heard) -> Reading:
    """Return the output of a network for a batch of one as a :class:`Reading`."""
    chances = heard.logits[0].softmax(dim=0).tolist()
    valence, arousal = heard.plane[0].tolist()
    frames = heard.frames[0].T.numpy().copy()  # (N, D)
    return Reading(heard.embedding[0].numpy().copy(), dict(zip(LABELS, chances, strict=True)), valence, arousal, frames)


def joined(readings: list[Reading]) -> Reading:
    """Return the readings of consecutive parts as one, averaged by their numbers of frames."""
    if len(readings) == 1:
        return readings[0]
    share = np.array([len(part.frames) for part in readings], dtype=float)
    share /= share.sum()

    def mean(values: list[Any]) -> Any:
        return sum(weight * value for weight, value in zip(share, values, strict=True))

    return Reading(
        mean([part.embedding for part in readings]).astype(np.float32),
        {name: float(mean([part.posterior[name] for part in readings])) for name in LABELS},
        float(mean([part.valence for part in readings])),
        float(mean([part.arousal for part in readings])),
        np.concatenate([part.frames for part in readings]),
    )


def require_sound(samples: np.ndarray) -> None:
    """Raise :class:`AffgenError` for ``samples`` (L,) that are not finite or silent throughout."""
    if not np.isfinite(samples).all():
        raise AffgenError("samples that are not finite; accepted: finite numbers")
    if not np.any(np.abs(samples) > 1e-6):
        raise AffgenError("the sound is silent; an emotion can be read from a voice")


# ------------------------------------------------------------------------------------------------------- registry


def _small(folder: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> Encoder:
    return EmotionEncoder._unpack(folder, values, tensors)


def _upstream(folder: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> Encoder:
    from affgen.emotion.backends import UpstreamEncoder

    return UpstreamEncoder.unpack(folder, values, tensors)


BACKENDS: dict[str, Callable[[Path, dict[str, Any], dict[str, Tensor]], Encoder]] = {
    SMALL: _small,
    "wavlm": _upstream,
    "hubert": _upstream,
    "emotion2vec": _upstream,
}
"""What makes an encoder of a model directory, by the ``backend`` its config names; further ones may be added."""


def load_encoder(folder: str | Path | None = None) -> Encoder:
    """Load an emotion encoder of any backend from its model directory (default: the shipped ``affgen-small``).

    Raises :class:`ModelError` for a directory that is missing, damaged, or of a backend that is not known.
    """
    folder = PRETRAINED if folder is None else Path(folder)
    values, tensors = load_model(folder, task=TASK)
    backend = str(values.get("backend"))
    if backend not in BACKENDS:
        raise ModelError(f"{folder / 'config.json'}: backend {backend[:40]!r}; accepted: {', '.join(BACKENDS)}")
    return BACKENDS[backend](folder, values, tensors)


# ------------------------------------------------------------------------------------- parts of a model directory


def pack_space(space: EmotionSpace | None) -> tuple[list[str] | None, dict[str, Tensor]]:
    """Return the labels of ``space`` for the config, and its arrays as tensors; None and none without one."""
    if space is None:
        return None, {}
    return list(space.labels), {f"space.{name}": torch.from_numpy(array) for name, array in space.arrays().items()}


def unpack_space(
    labels: Any, tensors: dict[str, Tensor], folder: Path
) -> tuple[EmotionSpace | None, dict[str, Tensor]]:
    """Return the space in ``tensors``, if ``labels`` say that there is one, and the other tensors."""
    own = {name.removeprefix("space."): value for name, value in tensors.items() if name.startswith("space.")}
    rest = {name: value for name, value in tensors.items() if not name.startswith("space.")}
    if labels is None:
        return None, rest
    where = folder / "model.safetensors"
    if set(own) != {"prototypes", "directions"} or own["prototypes"].shape[1:] != (EMBEDDING,):
        raise ModelError(f"{where}: the space of emotions is incomplete; get the model directory again")
    try:
        return EmotionSpace.from_arrays(labels, {name: value.float().numpy() for name, value in own.items()}), rest
    except (AffgenError, TypeError) as error:
        raise ModelError(f"{where}: {error}") from error


def _half(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value
