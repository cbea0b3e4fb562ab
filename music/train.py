"""Training in two stages: the VQ-VAE on rows, then the prior on its codes; both by the one loop of the project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from affgen import config as configs
from affgen.checkpoint import load_into
from affgen.datadir import DataDir
from affgen.training import fit
from music.config import MusicConfig
from music.data import Clip, clip_batches, load_clips, split_songs, whole_batches
from music.model import Batch, MusER
from music.prior import Prior


class PriorTask(nn.Module):
    """The prior as a thing to train: codes come from a frozen VQ-VAE, which is no part of its weights."""

    def __init__(self, prior: Prior, model: MusER):
        super().__init__()
        self.prior = prior
        self._frozen = [model]  # in a list, so that it is not registered

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`music.prior.Prior.losses`."""
        with torch.no_grad():
            codes = self._frozen[0].eval().codes(batch.y, batch.mask)
        return self.prior.losses(codes, batch.x, batch.mask, batch.conditions)


def build(config: MusicConfig) -> tuple[MusER, Prior]:
    """Untrained networks of a configuration; torch's generator decides their first weights."""
    model = MusER(config.model, config.tokens)
    return model, Prior(config.prior, config.model.codes, config.tokens, config.model.embeddings)


def train(
    config: MusicConfig,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> None:
    """Train on a data directory of labelled MIDI and leave a model directory in ``out/model``.

    ``out`` receives config.yaml, clips.npz (the analysed corpus), autoencoder/ and prior/ (states and logs). With
    ``resume``
    it goes on where it was stopped, stage by stage.
    """
    config.require_decodable()
    out = Path(out)
    DataDir.read(data)  # what cannot be read is refused before anything is written
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")
    clips = load_clips(data, config.tokens, cache=out / "clips.npz")
    training, tuning = split_songs(clips)
    torch.manual_seed(config.data.seed)
    model, prior = (part.to(device) for part in build(config))
    weights = model.loss_weights()  # type: ignore[operator]
    for name, task, plan, weigh in (
        ("autoencoder", model, config.train_model, weights),
        ("prior", PriorTask(prior, model), config.train_prior, {"accuracy": 0.0}),  # type: ignore[arg-type]
    ):
        batches = clip_batches(training, config, seed=plan.seed, batch_size=plan.batch_size)
        validate = _validation(tuning or training[:16], config, weigh, device)
        result = fit(task, batches, plan, out / name, weights=weigh, validate=validate, resume=resume, quiet=quiet)
        load_into(task, result.tensors, out / name)
    from music.pack import pack

    pack(config, model, prior, out / "model")  # type: ignore[arg-type]


def _validation(
    clips: list[Clip], config: MusicConfig, weights: dict[str, float], device: str
) -> Callable[[nn.Module], dict[str, float]]:
    """Mean of each loss over the tuning clips; ``loss`` is the weighted total."""

    def validate(model: nn.Module) -> dict[str, float]:
        sums: dict[str, float] = {}
        rows = 0.0
        for batch in whole_batches(clips, config):
            batch = batch.to(device)
            count = float(batch.mask.sum())
            for name, value in model.losses(batch).items():  # type: ignore[operator]
                sums[name] = sums.get(name, 0.0) + count * float(value)
            rows += count
        means = {name: value / rows for name, value in sums.items()}
        return {"loss": sum(weights.get(name, 1.0) * value for name, value in means.items()), **means}

    return validate
