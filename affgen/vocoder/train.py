"""Training of the vocoder in two stages on the shared loop: the energy distance alone, then with discriminators.

In the second stage each step moves two players: the generator, by distance, adversarial and matching losses, and the
discriminators by theirs. They share a backward pass but no gradient: the discriminators see a detached wave, and their
weights are constants while they judge for the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from affgen import config as configs
from affgen.checkpoint import load_into
from affgen.training import fit
from affgen.vocoder.config import VocoderConfig
from affgen.vocoder.data import Batch, Clip, batches, collate, load_clips, split
from affgen.vocoder.discriminators import Discriminators
from affgen.vocoder.losses import (
    SpectralDistance,
    adversarial_loss,
    discriminator_loss,
    energy_distance,
    matching_loss,
)
from affgen.vocoder.model import Generator


class DistanceTask(nn.Module):
    """The generator as a thing to train on the energy distance alone."""

    def __init__(self, generator: Generator, rounds: int = 0):
        super().__init__()
        self.generator = generator
        self.distance = SpectralDistance()
        self.rounds = rounds

    def distances(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The two halves of the energy distance, and a wave (B, T * 256)."""
        first, second = self.generator(batch.mel, batch.f0, batch.voiced, draws=2, rounds=self.rounds)
        return energy_distance(self.distance, batch.wave, first, second), first

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The two halves of the energy distance."""
        return self.distances(batch)[0]


class AdversarialTask(DistanceTask):
    """The generator and its discriminators, two players in one step."""

    def __init__(self, generator: Generator, discriminators: Discriminators):
        super().__init__(generator, generator.config.rounds_trained)
        self.discriminators = discriminators

    def players(self) -> tuple[nn.Module, nn.Module]:
        """Parts whose gradients are clipped apart; asked for by :func:`affgen.training.fit`."""
        return self.generator, self.discriminators

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Distance, adversarial and matching losses of the generator; the loss of the discriminators."""
        losses, first = self.distances(batch)
        real, caught = self.discriminators(batch.wave), self.discriminators(first.detach())
        with frozen(self.discriminators):
            judged = self.discriminators(first)
        losses["adversarial"] = adversarial_loss(judged)
        losses["matching"] = matching_loss(real, judged)
        losses["discriminators"] = discriminator_loss(real, caught)
        return losses


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``module`` but not into its weights."""
    for p in module.parameters():
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in module.parameters():
            p.requires_grad_(True)


def train(
    config: VocoderConfig,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> None:
    """Train on data directories with packed features and waves; leave a model directory in ``out/model``.

    ``out`` receives config.yaml, distance/ and adversarial/ (states and logs). With ``resume`` it goes on where it was
    stopped, stage by stage.
    """
    out = Path(out)
    training, tuning = split(load_clips(data, config.data.frames), config.data)
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")
    torch.manual_seed(config.data.seed)
    generator = Generator(config.generator).to(device)
    judges = Discriminators(config.discriminator).to(device)
    for name, task, plan in (
        ("distance", DistanceTask(generator), config.train_distance),
        ("adversarial", AdversarialTask(generator, judges), config.train_adversarial),
    ):
        weights = {"adversarial": config.loss.adversarial, "matching": config.loss.matching}
        result = fit(
            task.to(device),
            batches(training, config.data, plan.batch_size, plan.seed),
            plan,
            out / name,
            weights=weights if name == "adversarial" else None,
            validate=_validation(tuning or training[0][:1], config, device),
            resume=resume,
            quiet=quiet,
        )
        load_into(task, result.tensors, out / name)
    from affgen.vocoder.pack import pack

    pack(config, generator, out / "model")


def _validation(clips: list[Clip], config: VocoderConfig, device: str) -> Callable[[nn.Module], dict[str, float]]:
    """The energy distance over the middle of the tuning clips."""
    frames = config.data.frames
    chosen = [(clip, (clip.mel.shape[1] - frames) // 2, 0.0) for clip in clips]
    parts = [collate(chosen[i : i + 8], frames).to(torch.device(device)) for i in range(0, len(chosen), 8)]

    def validate(task: nn.Module) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch in parts:
            for name, value in task.distances(batch)[0].items():  # type: ignore[operator]
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.names) / len(chosen)
        return {"loss": sum(sums.values()), **sums}

    return validate
