"""Training of the converter in stages: emotions, decoder, prosody from twins, calibration of intensity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affgen import config as configs
from affgen.checkpoint import load_into
from affgen.datadir import DataDir
from affgen.emotion.labels import resolve
from affgen.emotion.space import NEUTRAL
from affgen.errors import DataError
from affgen.training import fit
from vc import content
from vc.calibrate import calibrate, clips_of
from vc.config import VcConfig
from vc.convert import VoiceConverter
from vc.data import (
    Batch,
    Clip,
    Twins,
    batches,
    collate,
    example,
    load_clips,
    neutral_clips,
    split,
    spoken_of,
    twins_of,
)
from vc.feeling import Feeling
from vc.model import Decoder
from vc.pack import Parts, pack
from vc.prosody import fit as learn_prosody
from vc.wanted import Calibration


class DecoderTask(nn.Module):
    """The decoder as a thing to train."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Regression of the average mel, and flow matching from it."""
        return self.decoder.losses(batch.mel, batch.given)


def find_feeling(clips: Sequence[Clip], config: VcConfig) -> tuple[Feeling, list[Clip]]:
    """Fit the emotions' coordinates on ``clips``, whose ``emotion`` is (256,); return them, and the clips in them."""
    voices = [f"{clip.folder} {clip.speaker}" for clip in clips]  # one who also sings has two neutral voices
    columns = ([c.label for c in clips], [c.intensity for c in clips], voices)
    feeling = Feeling.fit(np.stack([clip.emotion for clip in clips]), *columns, config.feeling)
    anchors = {voice: np.mean([clip.emotion for clip in own], axis=0) for voice, own in neutral_clips(clips).items()}
    return feeling, [
        replace(clip, emotion=feeling.coordinates(clip.emotion, anchors.get((clip.folder, clip.speaker))))
        for clip in clips
    ]


def train_decoder(
    config: VcConfig,
    clips: Sequence[Clip],
    feeling: Feeling,
    twins: Twins,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> Decoder:
    """Train the decoder on clips of all speakers but those left out."""
    training, tuning = split(clips, config.data)
    torch.manual_seed(config.data.seed)
    decoder = Decoder(config.decoder, config.feeling.rank)
    fit_scales(decoder, training)
    prototypes = {label: feeling.prototype(label) for label in feeling.labels}
    task = DecoderTask(decoder).to(device)
    result = fit(
        task,
        batches(training, prototypes, twins, config),
        config.train,
        out,
        validate=_validation(tuning, prototypes, twins, config, device),
        resume=resume,
        quiet=quiet,
    )
    load_into(task, result.tensors, out)
    return decoder.eval()


def fit_scales(decoder: Decoder, clips: Sequence[Clip]) -> None:
    """Set means and deviations of mel, content and timbre from a sample of ``clips``."""
    some = [clips[i] for i in np.random.default_rng(0).permutation(len(clips))[:400]]
    mels = np.concatenate([clip.mel[:, content.active(clip.energy)].astype(np.float32) for clip in some], axis=1)
    spoken = np.concatenate([spoken_of(clip)[:, content.active(clip.energy)] for clip in some], axis=1)
    timbres = np.stack([clip.timbre for clip in some])
    for name, values in (
        ("mel_mean", mels.mean(axis=1)),
        ("mel_scale", mels.std(axis=1)),
        ("content_scale", spoken.std(axis=1)),
        ("timbre_mean", timbres.mean(axis=0)),
        ("timbre_scale", timbres.std(axis=0) + 1e-3),
    ):
        getattr(decoder, name).copy_(torch.from_numpy(values))


def _validation(
    clips: Sequence[Clip], prototypes: dict[str, np.ndarray], twins: Twins, config: VcConfig, device: str
) -> Callable[[nn.Module], dict[str, float]]:
    """The losses on the same stretches of speakers left out each time."""
    rng, anchors = np.random.default_rng(1), neutral_clips(clips)
    chosen = [
        example(clip, anchors.get((clip.folder, clip.speaker)), twins.get(clip.name), prototypes, config.data, rng)
        for clip in clips
    ]
    parts = [
        collate(chosen[i : i + 16], config.data.frames).to(torch.device(device)) for i in range(0, len(chosen), 16)
    ]

    def validate(task: nn.Module) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch in parts:
            for name, value in task.losses(batch).items():  # type: ignore[operator]
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.names) / len(chosen)
        return {"loss": sum(sums.values()), **sums}

    return validate


def train(
    config: VcConfig,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    device: str = "cpu",
) -> None:
    """Train on data directories with packed features; leave a model directory in ``out/model``."""
    out = Path(out)
    clips = load_clips(data, config.decoder.cepstra)
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")
    feeling, placed = find_feeling(clips, config)
    acted, left_out = with_twins(data), config.data.leave_out
    if not any(fnmatchcase(clip.speaker, pattern) for clip in clips for pattern in left_out):
        left_out = ()  # other corpora: then everybody is trained on, and calibrated with
    moved = learn_prosody(acted, leave_out=left_out)
    if moved.labels != feeling.labels[1:]:
        raise DataError(f"prosody knows {', '.join(moved.labels)}, the decoder {', '.join(feeling.labels[1:])}")
    neutral, strong = clips_of(acted, left_out or ("*",), config.data.calibration_clips)
    if not neutral:
        raise DataError(f"no strong clips of {', '.join(left_out) or 'any speaker'}; calibration needs utt2intensity 1")
    twins = twins_of(placed, acted)
    decoder = train_decoder(config, placed, feeling, twins, out / "decoder", resume=resume, quiet=quiet, device=device)
    parts = Parts(config, decoder.cpu(), feeling, moved, Calibration.identity(feeling.labels))
    say = (lambda line: None) if quiet else print
    pack(calibrate(VoiceConverter(parts), neutral, strong, report=say), out / "model")


def with_twins(data: Sequence[str | Path]) -> list[str | Path]:
    """Return the directories with sentences in several emotions: those with ``text`` and labels besides neutral."""
    tables = {folder: DataDir.read(folder).tables for folder in data}
    return [f for f, t in tables.items() if "text" in t and set(map(resolve, t["utt2emo"].values())) - {NEUTRAL}]
