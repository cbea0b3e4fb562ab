"""Model directories of the speaker encoder: the network alone, half precision."""

from __future__ import annotations

from pathlib import Path

import torch

from affgen import config as configs
from affgen.checkpoint import halves, load_configured, load_into, save_model
from affgen.speaker.config import SpeakerConfig
from affgen.speaker.model import Network

TASK = "speaker"
SHIPPED = Path(__file__).parents[1] / "pretrained" / "speaker"
CARD = """# A speaker encoder of affgen

Log-mel to an embedding of unit length; the cosine of two embeddings tells whether they are one speaker's.
"""


def pack(config: SpeakerConfig, network: Network, folder: str | Path, card: str = CARD) -> None:
    """Write the network as float16."""
    save_model(folder, configs.to_dict(config), halves(network.state_dict()), card, task=TASK)


def unpack(folder: str | Path) -> tuple[SpeakerConfig, Network]:
    """Configuration and network of a model directory, in evaluation mode. Raises :class:`ModelError`."""
    config, tensors = load_configured(folder, SpeakerConfig, task=TASK)
    with torch.random.fork_rng(devices=[]):
        network = Network(config.encoder)
    load_into(network, tensors, folder)
    return config, network.eval()
