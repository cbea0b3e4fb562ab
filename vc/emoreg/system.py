"""EmoReg as a whole: average voice, directions of emotion, score network, diffusion.

EmoReg (Gudmalwar et al., AAAI 2025, arXiv 2412.20359), figure 3; numbers are those of the steps in the code.

=====  ============================  ==============  =================================================================
step   code                          symbol          equation
=====  ============================  ==============  =================================================================
1      :meth:`EmoReg.average_voice`  X-bar           phi(X_0), without gradient ("stop-grad")
2      ``e_s  target``               e_s, e_r        embeddings by :mod:`affgen.emotion`, of source and reference
3      :meth:`EmoReg.shifted`        e_ir            e_s + i PCA^-1(PCA(e_r - e_s)), :class:`affgen.emotion.dvm.DVM`
4      ``self.score``                s_theta         s_theta(X_t, X-bar, e_ir, t)
5      :meth:`EmoReg.losses`         L               || s sqrt(1 - gamma^2) + z ||^2, t ~ U(1e-5, 1 - 1e-5), e_ir = e_s
6      :meth:`EmoReg.convert`        X_1 ... X_0     reverse SDE from gamma X_0 + (1 - gamma) X-bar + z at t = 1
=====  ============================  ==============  =================================================================

In training source and reference are one utterance, so that e_ir = e_s and the target is the source itself. The score
network's reference (where its sizes ask for one) is another stretch of that utterance; in conversion it is that of the
reference clip, or the source where a label says the emotion: figure 3 draws no reference mel, but the stated 118 M
parameters are those of DiffVC with it. Both are diffused to t without noise, as DiffVC does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affgen import config as configs
from affgen.checkpoint import halves, load_model, save_model
from affgen.emotion.config import EMBEDDING
from affgen.emotion.dvm import DVM
from affgen.emotion.restore import restored
from affgen.emotion.space import NEUTRAL
from affgen.emotion.spec import MAX_INTENSITY
from affgen.errors import AffgenError, ModelError
from affgen.features import BANDS
from vc.diffusion import SAMPLERS, SDE, Sampler, draw_times, score_loss, seeded
from vc.emoreg.average import AverageEncoder
from vc.emoreg.config import EmoRegConfig
from vc.emoreg.data import ScoreBatch
from vc.emoreg.unet import ScoreUNet

TASK = "emoreg"
SCORED = ("pf", "em", "ml")
"""Samplers that take a score; the others of :mod:`vc.diffusion` take a velocity."""
CARD = """# EmoReg, as published

Emotional voice conversion by a diffusion model over the average voice, told an emotion embedding (arXiv 2412.20359).
"""


class EmoReg(nn.Module):
    """The system; ``dvm`` (of the whole rank: the ablation without DVM) is needed to convert, not to train."""

    def __init__(self, config: EmoRegConfig, dvm: DVM | None = None):
        super().__init__()
        self.config, self.dvm = config, dvm
        self.sde = SDE(config.sde.beta_min, config.sde.beta_max)
        self.average = AverageEncoder(config.average).requires_grad_(False).eval()
        self.score = ScoreUNet(config.score)

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions that can be asked for without a reference, neutral first."""
        return self._directions().labels

    def train(self, mode: bool = True) -> EmoReg:
        """Set the mode of the score network; the average-voice encoder is finished and stays as it is."""
        super().train(mode)
        self.average.eval()
        return self

    @torch.no_grad()
    def average_voice(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Return X-bar (B, 80, T) of ``mel`` (B, 80, T), ``mask`` (B, 1, T): step 1."""
        average: Tensor = self.average(mel, mask)
        return average

    def losses(self, batch: ScoreBatch) -> dict[str, Tensor]:
        """Return the score-matching loss; times and noise are drawn from torch's generator: step 5."""
        average = self.average_voice(batch.mel, batch.mask)
        time, z = draw_times(batch.mel), torch.randn_like(batch.mel)
        x_t = self.sde.diffuse(batch.mel, average, time, z) * batch.mask
        more = self._reference(batch.reference, batch.reference_mask)
        score = self.score(x_t, average, time, batch.emotion, batch.mask, **self._diffused(more, time))
        return {"score": score_loss(score, z, time, sde=self.sde, mask=batch.mask)}

    def shifted(
        self, e_s: np.ndarray, target: np.ndarray | str, i: float | np.ndarray, source: str = NEUTRAL
    ) -> np.ndarray:
        """Return e_ir (256,), or (T, 256) for ``i`` (T,): step 3.

        ``target`` is e_r (256,), or a label, whose prototype is then gone towards from that of the label ``source``.
        Raises :class:`AffgenError` for a label that the model lacks and an intensity outside 0 to 1.5.
        """
        dvm, level = self._directions(), np.asarray(i, dtype=np.float64)
        if level.ndim > 1 or not ((level >= 0) & (level <= MAX_INTENSITY)).all():
            raise AffgenError(f"intensity {str(i)[:60]}; accepted: 0 to {MAX_INTENSITY}, one or one for each frame")
        if np.shape(e_s) != (EMBEDDING,):
            raise AffgenError(f"embedding of shape {np.shape(e_s)}; accepted: ({EMBEDDING},)")
        way = dvm.direction_to(target, source) if isinstance(target, str) else dvm.direction(e_s, target)
        return np.asarray(dvm.apply(e_s, way, level), dtype=np.float32)

    @torch.inference_mode()
    def convert(
        self,
        mel: np.ndarray,
        e_s: np.ndarray,
        target: np.ndarray | str,
        i: float | np.ndarray,
        *,
        source: str = NEUTRAL,
        reference: np.ndarray | None = None,
        steps: int = 30,
        sampler: str = "ml",
        seed: int = 0,
    ) -> np.ndarray:
        """Return ``mel`` (80, T) in another emotion, (80, T) float32: step 6. Equal arguments give equal bytes.

        ``e_s`` (256,) and ``target``, e_r (256,) or a label, as for :meth:`shifted`; ``i`` is one intensity or (T,);
        ``reference`` (80, R) is the mel of the reference clip, by default the source. ``sampler`` is ``pf``, ``em``
        or ``ml``. Raises :class:`AffgenError` as :meth:`shifted` does, and for shapes that do not agree.
        """
        solve = _solver(sampler)
        source_mel = self._mel(mel)
        emotion = torch.from_numpy(self.shifted(e_s, target, i, source)).to(source_mel)
        emotion = (emotion.T if emotion.dim() == 2 else emotion).unsqueeze(0)  # (1, 256) or (1, 256, T)
        if emotion.dim() == 3 and emotion.shape[2] != source_mel.shape[2]:
            raise AffgenError(f"{emotion.shape[2]} intensities for {source_mel.shape[2]} frames; accepted: as many")
        other = source_mel if reference is None else self._mel(reference)
        mask = torch.ones_like(source_mel[:, :1])
        average = self.average_voice(source_mel, mask)
        more = self._reference(other, torch.ones_like(other[:, :1]))

        def score(x_t: Tensor, time: Tensor) -> Tensor:
            found: Tensor = self.score(x_t, average, time, emotion, mask, **self._diffused(more, time))
            return found

        noise = seeded([seed], source_mel)
        start = self.sde.diffuse(source_mel, average, torch.ones(1).to(source_mel), torch.zeros_like(average))
        made = solve(score, start + noise(0), average, steps, sde=self.sde, noise=noise, mask=mask)
        return np.ascontiguousarray(made[0].cpu().numpy())

    def _directions(self) -> DVM:
        if self.dvm is None:
            raise AffgenError("this system has no DVM yet; run the stage dvm of its training")
        return self.dvm

    def _mel(self, mel: np.ndarray) -> Tensor:
        """A mel (80, T) as a batch of one, where the weights are."""
        if mel.ndim != 2 or mel.shape[0] != BANDS or not mel.shape[1] or not np.isfinite(mel).all():
            raise AffgenError(f"log-mel of shape {mel.shape}: accepted is ({BANDS}, T) of finite values")
        device = next(self.parameters()).device
        return torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32))[None].to(device)

    def _reference(self, mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The reference, its average voice (B, 80, R) and its mask (B, 1, R), if the score network hears one."""
        return (mel, self.average_voice(mel, mask), mask) if self.config.score.reference else None

    def _diffused(self, reference: tuple[Tensor, Tensor, Tensor] | None, time: Tensor) -> dict[str, Tensor]:
        """What the score network is told of it at ``time`` (B,)."""
        if reference is None:
            return {}
        mel, average, mask = reference
        return {
            "reference": self.sde.diffuse(mel, average, time, torch.zeros_like(mel)) * mask,
            "reference_mask": mask,
        }


def _solver(name: str) -> Sampler:
    if name not in SCORED:
        raise AffgenError(f"sampler {name[:40]!r}; accepted: {', '.join(SCORED)}")
    return SAMPLERS[name]


# ------------------------------------------------------------------------------------------------- model directories


def pack(system: EmoReg, folder: str | Path, card: str = CARD) -> None:
    """Write a model directory, the networks as float16. Raises as :func:`affgen.checkpoint.save_model` does."""
    values = configs.to_dict(system.config) | {"labels": list(system.labels)}
    tensors = halves(system.state_dict())
    if system.dvm is not None:
        tensors |= {f"dvm.{name}": torch.from_numpy(value) for name, value in system.dvm.arrays().items()}
    save_model(folder, values, tensors, card, task=TASK)


def unpack(folder: str | Path) -> EmoReg:
    """Return the system in a model directory, in evaluation mode. Raises :class:`ModelError`."""
    values, tensors = load_model(folder, task=TASK)
    where = Path(folder) / "config.json"
    labels = values.pop("labels", None)
    try:
        config = configs.from_dict(EmoRegConfig, values)
        arrays = {name[4:]: tensors.pop(name).numpy() for name in list(tensors) if name.startswith("dvm.")}
        dvm = DVM.from_arrays([str(label) for label in labels or ()], arrays)
        if len(dvm.basis) != EMBEDDING:
            raise AffgenError(f"DVM of {len(dvm.basis)} dimensions; {EMBEDDING} are needed")
    except ValueError as error:  # an AffgenError, or what a dataclass makes of a wrong length
        raise ModelError(f"{where}: {error}") from error
    system = restored(lambda: EmoReg(config), tensors, Path(folder) / "model.safetensors")
    system.dvm = dvm
    return system
