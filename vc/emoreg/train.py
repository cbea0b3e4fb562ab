"""The four trainers of EmoReg, one after the other; each can be stopped and gone on with.

====================  =====================================================  ==========================================
stage                 what it makes                                          where
====================  =====================================================  ==========================================
:func:`train_ser`     the emotion encoder, unless a trained one is used      ``OUT/ser/model``
:func:`fit_dvm`       embeddings of all utterances, and the DVM on them      ``OUT/dvm/{embeddings,dvm}.safetensors``
:func:`train_encoder` averages of the phones, the average-voice encoder      ``OUT/encoder/{table,encoder}.safetensors``
:func:`train_decoder` the score network, and the system as a whole           ``OUT/decoder``, ``OUT/model``
====================  =====================================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from affgen import config as configs
from affgen.checkpoint import load_into, read_tensors, write_tensors
from affgen.emotion.config import EMBEDDING
from affgen.emotion.dvm import DVM
from affgen.emotion.encoder import Encoder, load_encoder
from affgen.errors import AffgenError, ModelError
from affgen.training import fit
from vc.emoreg.average import AverageEncoder, AverageTable
from vc.emoreg.config import STAGES, EmoRegConfig
from vc.emoreg.data import (
    Batch,
    Clip,
    average_batch,
    average_batches,
    average_table,
    embed,
    load_clips,
    score_batch,
    score_batches,
    split,
    spoken,
    with_rows,
)
from vc.emoreg.system import EmoReg, pack

_TOGETHER = 16  # utterances of one batch of a validation


@dataclass(frozen=True)
class Job:
    """What every stage is told: ``data`` directories, where to write, whether to go on, and on what to compute."""

    config: EmoRegConfig
    data: tuple[Path, ...]
    out: Path
    resume: bool = False
    quiet: bool = False
    device: str = "cpu"

    def options(self) -> dict[str, Any]:
        """What :func:`affgen.training.fit` and trainings built on it take."""
        return {"resume": self.resume, "quiet": self.quiet}


def train(
    config: EmoRegConfig,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    stage: str = "all",
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> None:
    """Train on data directories with features; after the last stage ``out/model`` is a model directory.

    ``stage`` is one of :data:`vc.emoreg.config.STAGES`, which builds on what the earlier ones left in ``out``, or
    ``all``. Raises :class:`DataError` for data that cannot be used, and :class:`AffgenError` for another stage, one
    whose predecessors are missing, and a training that is there already without ``resume``.
    """
    if stage not in ("all", *STAGES):
        raise AffgenError(f"stage {stage[:40]!r}; accepted: all, {', '.join(STAGES)}")
    job = Job(config, tuple(map(Path, data)), Path(out), resume, quiet, device)
    job.out.mkdir(parents=True, exist_ok=True)
    configs.save(config, job.out / "config.yaml")
    trainers: tuple[Callable[[Job], Any], ...] = (train_ser, fit_dvm, train_encoder, train_decoder)
    for name, trainer in zip(STAGES, trainers, strict=True):
        if stage in ("all", name):
            trainer(job)


def train_ser(job: Job) -> None:
    """Train the emotion encoder if ``ser.train``, as :mod:`affgen.emotion.train` does."""
    from affgen.emotion.backends import UpstreamEncoder
    from affgen.emotion.train import train as train_small
    from affgen.emotion.train import train_head

    ser, out = job.config.ser, job.out / "ser"
    if not ser.train:
        return
    if ser.backend == "affgen-small":
        train_small(ser.emotion, job.data, out, device=job.device, **job.options())
    else:
        train_head(
            UpstreamEncoder.from_published(ser.backend, ser.upstream), ser.emotion, job.data, out, **job.options()
        )


def emotion_encoder(job: Job) -> Encoder:
    """Return the emotion encoder that :func:`train_ser` left, or the one that ``ser.model`` names."""
    ser = job.config.ser
    if not ser.train:
        return load_encoder(ser.model or None)
    return load_encoder(_present(job.out / "ser" / "model", "ser"))


def fit_dvm(job: Job) -> DVM:
    """Embed all utterances, unless that was done for the same ones, and fit the DVM on those to train on."""
    config, out = job.config, job.out / "dvm"
    clips = load_clips(job.data, config.data)
    file = out / "embeddings.safetensors"
    if not (job.resume and file.exists() and _names(file) == [clip.name for clip in clips]):
        values = embed(clips, emotion_encoder(job))
        out.mkdir(parents=True, exist_ok=True)
        write_tensors(file, {"embeddings": torch.from_numpy(values)}, {"names": [clip.name for clip in clips]})
    training, _ = split(_embedded(job, clips), config.data)
    dvm = DVM.fit(
        np.stack([clip.embedding for clip in training]),
        [clip.label for clip in training],
        n_mix=config.dvm.n_mix,
        n_comp=config.dvm.components,
        speakers=[clip.speaker for clip in training] if config.dvm.anchored else None,
        seed=config.data.seed,
    )
    dvm = dvm.ablated() if config.dvm.model == "none" else dvm
    arrays = {name: torch.from_numpy(value) for name, value in dvm.arrays().items()}
    write_tensors(out / "dvm.safetensors", arrays, {"labels": list(dvm.labels)})
    return dvm


def train_encoder(job: Job) -> AverageEncoder:
    """Average the phones, or take the averages that are there, and train the average-voice encoder on them."""
    config, plan, out = job.config, job.config.train_encoder, job.out / "encoder"
    clips = load_clips(job.data, config.data)
    found = spoken(clips, config.target)
    table = average_table(clips, found, config.target.statistic)
    clips = with_rows(clips, found, table)
    training, tuning = split(clips, config.data)
    torch.manual_seed(config.data.seed)
    encoder = AverageEncoder(config.average).to(job.device)
    rng = np.random.default_rng([config.data.seed, 2])
    parts = [average_batch(part, table, config.data.frames, rng) for part in _parts(tuning)]
    result = fit(
        encoder,
        average_batches(training, table, config.data, plan.batch_size, plan.seed),
        plan,
        out,
        validate=_validation(parts, job.device),
        **job.options(),
    )
    load_into(encoder, result.tensors, out)
    arrays = {name: torch.from_numpy(value) for name, value in table.arrays().items()}
    write_tensors(out / "table.safetensors", arrays, {"phones": list(table.phones)})
    write_tensors(out / "encoder.safetensors", result.tensors, {"step": result.step, "loss": result.best})
    return encoder.eval()


def read_table(path: str | Path) -> AverageTable:
    """Return the averages in ``OUT/encoder/table.safetensors``; raises :class:`ModelError` for a damaged file."""
    meta, tensors = read_tensors(path)
    try:
        arrays = {name: tensors[name].numpy() for name in ("values", "counts")}
        return AverageTable.from_arrays([str(phone) for phone in meta.get("phones", [])], arrays)
    except (AffgenError, KeyError) as error:
        raise ModelError(f"{path}: is no table of averages ({error})") from error


def train_decoder(job: Job) -> EmoReg:
    """Train the score network over the finished average-voice encoder and pack the whole into ``out/model``."""
    config, plan, out = job.config, job.config.train_decoder, job.out / "decoder"
    training, tuning = split(_embedded(job, load_clips(job.data, config.data)), config.data)
    system = _untrained(job).to(job.device)
    rng = np.random.default_rng([config.data.seed, 3])
    parts = [score_batch(part, config.data.frames, rng) for part in _parts(tuning)]
    result = fit(
        system,
        score_batches(training, config.data, plan.batch_size, plan.seed),
        plan,
        out,
        validate=_validation(parts, job.device),
        **job.options(),
    )
    load_into(system, result.tensors, out)
    pack(system, job.out / "model")
    return system.eval()


def _untrained(job: Job) -> EmoReg:
    """Return the system with all that the earlier stages made and a score network as it was drawn."""
    file = _present(job.out / "dvm" / "dvm.safetensors", "dvm")
    meta, tensors = read_tensors(file)
    try:
        dvm = DVM.from_arrays(meta.get("labels", []), {name: value.numpy() for name, value in tensors.items()})
    except AffgenError as error:
        raise ModelError(f"{file}: {error}") from error
    torch.manual_seed(job.config.data.seed)
    system = EmoReg(job.config, dvm)
    file = _present(job.out / "encoder" / "encoder.safetensors", "encoder")
    load_into(system.average, read_tensors(file)[1], file)
    return system


def _embedded(job: Job, clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips with their embeddings; raises :class:`AffgenError` if these are of other utterances."""
    file = _present(job.out / "dvm" / "embeddings.safetensors", "dvm")
    meta, tensors = read_tensors(file)
    values = tensors.get("embeddings", torch.zeros(0)).numpy()
    if meta.get("names") != [clip.name for clip in clips] or values.shape != (len(clips), EMBEDDING):
        raise AffgenError(f"{file}: is of other utterances than the data directories; run the stage dvm again")
    return [replace(clip, embedding=value) for clip, value in zip(clips, values, strict=True)]


def _names(file: Path) -> Any:
    try:
        return read_tensors(file)[0].get("names")
    except ModelError:  # damaged: made again
        return None


def _present(path: Path, stage: str) -> Path:
    if not path.exists():
        raise AffgenError(f"{path}: does not exist; run the stage {stage} first")
    return path


def _parts(clips: Sequence[Clip]) -> list[list[Clip]]:
    return [list(clips[i : i + _TOGETHER]) for i in range(0, len(clips), _TOGETHER)]


def _validation(parts: Sequence[Batch], device: str) -> Callable[[nn.Module], dict[str, float]]:
    """The losses on the same stretches of the tuning clips, and on the same draws, each time."""
    ready = [part.to(torch.device(device)) for part in parts]
    count = sum(len(part.names) for part in parts)

    def validate(task: nn.Module) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch in ready:
            for name, value in task.losses(batch).items():  # type: ignore[operator]
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.names) / count
        return {"loss": sum(sums.values()), **sums}

    return validate
