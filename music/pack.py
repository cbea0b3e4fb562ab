"""Model directories of the music generator: both networks in one file, half precision."""

from __future__ import annotations

from pathlib import Path

import torch

from affgen import config as configs
from affgen.checkpoint import halves, load_configured, load_into, save_model
from affgen.errors import ModelError
from music.config import MusicConfig
from music.model import MusER
from music.prior import Prior

TASK = "music"
CARD = """# A music model of affgen

A VQ-VAE of compound words with element-regularised latents and a prior over its codes (MusER, AAAI 2024).
"""


def pack(config: MusicConfig, model: MusER, prior: Prior, folder: str | Path, card: str = CARD) -> None:
    """Write what decoding needs (the training-only dimension reduction is left out) as float16."""
    unused = ("reduction.", "quantise.sums")
    tensors = {f"model.{name}": value for name, value in model.state_dict().items() if not name.startswith(unused)}
    tensors |= {f"prior.{name}": value for name, value in prior.state_dict().items()}
    save_model(folder, configs.to_dict(config), halves(tensors), card, task=TASK)


def unpack(folder: str | Path) -> tuple[MusicConfig, MusER, Prior]:
    """Networks of a model directory, in evaluation mode. Raises :class:`ModelError`."""
    config, tensors = load_configured(folder, MusicConfig, task=TASK)
    with torch.random.fork_rng(devices=[]):
        model = MusER(config.model, config.tokens)
        prior = Prior(config.prior, config.model.codes, config.tokens, config.model.embeddings)
    model.reduction = None
    foreign = next((name for name in tensors if not name.startswith(("model.", "prior."))), None)
    if foreign:
        raise ModelError(f"{folder}/model.safetensors: tensor {foreign!r} belongs to neither model. nor prior.")
    codebook, counts = tensors.get("model.quantise.codebook"), tensors.get("model.quantise.counts")
    if codebook is not None and counts is not None and codebook.dim() == 2 and counts.shape == codebook.shape[:1]:
        tensors["model.quantise.sums"] = codebook.float() * counts.float().unsqueeze(1)  # beyond half precision
    for name, part in (("model", model), ("prior", prior)):
        prefix = f"{name}."
        load_into(part, {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}, folder)
    return config, model.eval(), prior.eval()
