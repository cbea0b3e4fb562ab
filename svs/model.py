"""Muse-SVS: a score, a singer, an emotion and its intensity to a mel.

Kim, Kim, Jun and Kim, "Muse-SVS: Multi-Singer Emotional Singing Voice Synthesizer That Controls Emotional Intensity"
(IEEE/ACM TASLP 2023, arXiv 2203.00931), re-implemented from what is published of it: no code, sizes or corpus are. What
is open there is a field of :mod:`svs.config`.

====  =======================  ============================  ========================================================
step  code                     symbol or name in the paper   where the equations are
====  =======================  ============================  ========================================================
1     ``encoder``              lyric-pitch encoder, h_0      :mod:`svs.front`, of ASPP-Transformers :mod:`svs.aspp`
2     ``joint``                unified joint embedding, h_2  :mod:`svs.embedding`
3     ``durations``            CRDP, d_n                     :mod:`svs.duration`
4     ``regulator``            length regulator              :class:`svs.variance.LengthRegulator`
5     ``pitch``                SPP, mu_n, sigma_n, F0        :mod:`svs.pitch`
6     ``energy``               energy predictor              :class:`svs.variance.EnergyPredictor`
7     ``decoder``, ``head``    decoder                       ASPP-Transformers, then linear to 80 bands
8     :mod:`svs.adversary`     adversarial training          a second player of the training
====  =======================  ============================  ========================================================

Steps 3 to 6 are the variance adaptor. Training tells the decoder real durations, F0 and energy. That the embedding is
linear in intensity needs no loss: h_2 is so by its form. The mel is that of :mod:`affgen.features`, for any vocoder of
:mod:`affgen.vocoder`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from affgen.emotion.spec import MAX_INTENSITY
from affgen.errors import AffgenError
from affgen.features import BANDS
from svs.aspp import Stack
from svs.config import NEUTRAL, MuseConfig
from svs.duration import ContextAwareResidualDurationPredictor
from svs.embedding import AdditiveEmbedding, UnifiedJointEmbedding
from svs.front import LyricPitchEncoder, ScoreBatch, ScoreInput
from svs.pitch import DeterministicPitchPredictor, RealPitch, StatisticalPitchPredictor, f0_of, vibrato
from svs.variance import EnergyPredictor, Frames, LengthRegulator, ScalarEmbedding, average

LONGEST = 1 << 16
"""Frames that one call may make, about 12 minutes: the memory of a song grows with them, so long ones go in phrases."""
NEPER = math.log(10) / 20  # natural logarithm of a gain of 1 dB


@dataclass(frozen=True, eq=False)
class SingingBatch:
    """Recordings with their scores, padded at the end.

    ``singer`` and ``emotion`` (B,) int64, their places in the config; ``intensity`` (B,) or (B, N); ``durations``
    (B, N) int64 in frames, which sum to those of each recording; ``mel`` (B, 80, T), ``f0`` (B, T) in Hz, 0 where
    unvoiced, ``energy`` (B, T) natural logarithm; T is that of the longest. ``names`` are for messages.
    """

    score: ScoreBatch
    singer: Tensor
    emotion: Tensor
    intensity: Tensor
    durations: Tensor
    mel: Tensor
    f0: Tensor
    energy: Tensor
    names: Sequence[str] = ()

    def to(self, device: torch.device) -> SingingBatch:
        """The same on ``device``."""
        moved = {one.name: getattr(self, one.name).to(device) for one in fields(self) if one.name != "names"}
        return SingingBatch(**moved, names=self.names)


@dataclass(frozen=True, eq=False)
class Control:
    """Knobs of a performance, each a number or one for each phoneme, (N,); the defaults change nothing.

    ``sigma_scale`` on the predicted deviation of pitch, ``vibrato`` on what of it is quick, ``shift`` in semitones,
    ``gain_db`` on the energy.
    """

    sigma_scale: float | np.ndarray = 1.0
    vibrato: float | np.ndarray = 1.0
    shift: float | np.ndarray = 0.0
    gain_db: float | np.ndarray = 0.0


@dataclass(frozen=True, eq=False)
class Performance:
    """What is sung: ``mel`` (80, T) float32, ``f0`` (T,) in Hz, 0 where unvoiced, ``energy`` (T,) natural logarithm,
    ``durations`` (N,) int64 in frames.
    """

    mel: np.ndarray
    f0: np.ndarray
    energy: np.ndarray
    durations: np.ndarray


class MuseSVS(nn.Module):
    """The system; the buffers are means and deviations of the corpus, to be set before training."""

    mel_mean: Tensor
    mel_scale: Tensor
    energy_mean: Tensor
    energy_scale: Tensor

    def __init__(self, config: MuseConfig):
        super().__init__()
        self.config, width = config, config.blocks.width
        self.register_buffer("mel_mean", torch.full((BANDS,), -5.0))
        self.register_buffer("mel_scale", torch.full((BANDS,), 2.0))
        self.register_buffer("energy_mean", torch.zeros(()))
        self.register_buffer("energy_scale", torch.ones(()))
        self.encoder = LyricPitchEncoder(config)
        self.joint = (UnifiedJointEmbedding if config.embedding == "residual" else AdditiveEmbedding)(config)
        self.durations = ContextAwareResidualDurationPredictor(config)
        self.regulator = LengthRegulator(width)
        self.pitch = (StatisticalPitchPredictor if config.pitch == "statistical" else DeterministicPitchPredictor)(
            config
        )
        self.energy = EnergyPredictor(width, config.energy)
        self.pitch_embedding, self.energy_embedding = ScalarEmbedding(width, 5.0), ScalarEmbedding(width, 5.0)
        self.decoder = Stack(config.block, config.blocks, config.decoder_layers)
        self.head = nn.Linear(width, BANDS)

    def rows(self, score: ScoreBatch, singer: Tensor, emotion: Tensor, intensity: Tensor) -> Tensor:
        """Return h_2 (B, N, D) of ``score``; the others as :class:`SingingBatch` has them: steps 1 and 2."""
        h2: Tensor = self.joint(self.encoder(score), singer, emotion, intensity)
        return h2

    def decode(self, frames: Frames, f0: Tensor, energy: Tensor) -> Tensor:
        """Return the mel (B, 80, T) in standard units, 0 where ``frames.mask`` is: step 7.

        ``f0`` (B, T) in Hz, 0 where unvoiced, ``energy`` (B, T) in standard units.
        """
        voiced = (f0 > 0).unsqueeze(2)
        height = self.pitch_embedding(12 * torch.log2(f0.clamp(min=1) / 440))
        x = frames.hidden + voiced * height + self.energy_embedding(energy)
        mel: Tensor = self.head(self.decoder(x, frames.mask))
        return mel.transpose(1, 2) * frames.mask.unsqueeze(1)

    def standard(self, mel: Tensor) -> Tensor:
        """Return ``mel`` (B, 80, T) in standard units."""
        return (mel - self.mel_mean[:, None]) / self.mel_scale[:, None]

    def losses(self, batch: SingingBatch) -> dict[str, Tensor]:
        """Return the losses that ``config.weights`` names."""
        return self.taught(batch)[0]

    def taught(self, batch: SingingBatch) -> tuple[dict[str, Tensor], Tensor, Frames]:
        """Return the losses, the mel (B, 80, T) in standard units, made of what was measured, and its frames."""
        score = batch.score
        h2 = self.rows(score, batch.singer, batch.emotion, batch.intensity)
        frames = self.regulator(h2, score, batch.durations)
        if frames.mask.shape != batch.f0.shape:
            raise AffgenError(f"durations of {frames.mask.shape[1]} frames for recordings of {batch.f0.shape[1]}")
        real = RealPitch.of(batch.f0, frames)
        energy = (batch.energy - self.energy_mean) / self.energy_scale
        mel = self.decode(frames, batch.f0 * real.voiced, energy)
        lengths = self.durations(h2, score, batch.durations)
        losses = {"mel": average((mel - self.standard(batch.mel)).abs(), frames.mask.unsqueeze(1))}
        losses |= self.pitch.losses(self.pitch(h2, score.mask, frames, real), real, frames)
        losses |= self.durations.losses(lengths, batch.durations, score)
        losses["energy"] = self.energy.loss(self.energy(h2, score.mask, frames), energy, frames)
        return losses, mel, frames

    @torch.inference_mode()
    def generate(
        self,
        score: ScoreInput,
        singer: str,
        emotion: str = NEUTRAL,
        intensity: float | np.ndarray = 1.0,
        control: Control | None = None,
    ) -> Performance:
        """Sing ``score`` as ``singer``; in evaluation mode equal arguments give equal bytes.

        ``intensity`` is from 0, neutral whatever the ``emotion``, to 1.5; a number or one for each phoneme, (N,).
        Raises :class:`AffgenError` for an unknown singer or emotion, intensities and knobs of another shape or range,
        and a score of more than :data:`LONGEST` frames.
        """
        level = self._told("intensity", intensity, len(score), (0, MAX_INTENSITY))
        who, what = _index("singer", singer, self.config.singers), _index("emotion", emotion, self.config.emotions)
        if score.frames > LONGEST:
            raise AffgenError(f"score of {score.frames} frames; accepted: up to {LONGEST} at once, sing it in phrases")
        batch = ScoreBatch.of([score]).to(level.device)
        h2 = self.rows(batch, torch.tensor([who]).to(level.device), torch.tensor([what]).to(level.device), level)
        durations = self.durations.whole(h2, batch)
        if int(durations.sum()) > 2 * LONGEST:
            raise AffgenError(f"{int(durations.sum())} frames for a score of {score.frames}: this model is not trained")
        return self._perform(h2, batch, durations, control or Control())

    def _perform(self, h2: Tensor, score: ScoreBatch, durations: Tensor, control: Control) -> Performance:
        """Steps 4 to 7 for one score."""
        count = h2.shape[1]
        frames = self.regulator(h2, score, durations)
        pitch = self.pitch(h2, score.mask, frames, None, self._told("sigma_scale", control.sigma_scale, count, (0, 10)))
        factor = frames.spread(self._told("vibrato", control.vibrato, count, (0, 10)))
        contour = vibrato(pitch.contour, pitch.voiced, factor, self.config.contours.vibrato_window)
        contour = contour + frames.spread(self._told("shift", control.shift, count, (-48, 48)))
        f0 = f0_of(contour, pitch.voiced, frames)
        gain = NEPER * self._told("gain_db", control.gain_db, count, (-60, 60)) / self.energy_scale
        energy = self.energy(h2, score.mask, frames)[1] + frames.spread(gain)
        mel = self.decode(frames, f0, energy) * self.mel_scale[:, None] + self.mel_mean[:, None]
        loudness = energy * self.energy_scale + self.energy_mean
        arrays = (value[0].cpu().numpy() for value in (mel.float(), f0, loudness, durations))
        return Performance(*(np.ascontiguousarray(value) for value in arrays))

    def _told(self, name: str, value: float | np.ndarray, count: int, limits: tuple[float, float]) -> Tensor:
        """A knob as (1, N), where the weights are."""
        told = np.asarray(value, dtype=np.float32)
        if told.shape not in ((), (count,)) or not ((told >= limits[0]) & (told <= limits[1])).all():
            raise AffgenError(
                f"{name} {str(value)[:60]}; accepted: {limits[0]} to {limits[1]}, one or {count}, one for each phoneme"
            )
        return torch.from_numpy(np.array(np.broadcast_to(told, (1, count)))).to(self.mel_mean.device)


def _index(what: str, name: str, known: Sequence[str]) -> int:
    if name not in known:
        raise AffgenError(f"{what} {name[:40]!r} is not known; there are {', '.join(known)}")
    return list(known).index(name)
