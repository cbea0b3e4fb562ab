"""Model directories of the vocoder: the generator alone, half precision."""

from __future__ import annotations

from pathlib import Path

import torch

from affgen import config as configs
from affgen.checkpoint import halves, load_configured, load_into, save_model
from affgen.vocoder.config import VocoderConfig
from affgen.vocoder.model import Generator

TASK = "vocoder"
SHIPPED = Path(__file__).parents[1] / "pretrained" / "vocoder"
CARD = """# A vocoder of affgen

Log-mel and F0 to wave: a ConvNeXt predicts filters for pulses and noise, an inverse STFT makes the sound.
"""


def pack(config: VocoderConfig, generator: Generator, folder: str | Path, card: str = CARD) -> None:
    """Write the generator as float16."""
    save_model(folder, configs.to_dict(config), halves(generator.state_dict()), card, task=TASK)


def unpack(folder: str | Path) -> tuple[VocoderConfig, Generator]:
    """Configuration and generator of a model directory, in evaluation mode. Raises :class:`ModelError`."""
    config, tensors = load_configured(folder, VocoderConfig, task=TASK)
    with torch.random.fork_rng(devices=[]):
        generator = Generator(config.generator)
    load_into(generator, tensors, folder)
    return config, generator.eval()
