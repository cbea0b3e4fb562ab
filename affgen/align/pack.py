"""Model directories of the aligner: network, prior, corrections of boundaries and the codebook of pseudo-phonemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from affgen import config as configs
from affgen.align.config import AlignerConfig
from affgen.align.material import Item
from affgen.align.network import Network
from affgen.align.phones import CLASSES, PHONES
from affgen.align.units import Codebook, learn
from affgen.checkpoint import check_match, load_configured, load_into, save_model
from affgen.errors import ModelError

TASK = "aligner"
SHIPPED = Path(__file__).parents[1] / "pretrained" / "aligner"
CARD = """# An aligner of affgen

Log-mel to phones in time: a convolutional network trained by CTC with label priors, then on its own best paths.
"""


@dataclass(frozen=True, eq=False)
class Parts:
    """What a model directory holds: ``prior`` (V,), ``offsets`` (5, 5) seconds, and the codebook."""

    config: AlignerConfig
    network: Network
    prior: np.ndarray
    offsets: np.ndarray
    codebook: Codebook


def pack(parts: Parts, folder: str | Path, card: str = CARD) -> None:
    """Write a model directory, the network and the codebook as float16."""
    tensors = {f"network.{name}": value.detach().half() for name, value in parts.network.state_dict().items()}
    book = parts.codebook
    for name, value in (("mean", book.mean), ("basis", book.basis), ("centroids", book.centroids)):
        tensors[f"units.{name}"] = torch.from_numpy(value).half()
    for name, value in (("prior", parts.prior), ("offsets", parts.offsets), ("units.scale", np.array([book.scale]))):
        tensors[name] = torch.from_numpy(value).float()
    save_model(folder, configs.to_dict(parts.config), tensors, card, task=TASK)


def unpack(folder: str | Path) -> Parts:
    """Return what a model directory holds, the network in evaluation mode. Raises :class:`ModelError`."""
    config, tensors = load_configured(folder, AlignerConfig, task=TASK)
    with torch.random.fork_rng(devices=[]):
        network = Network(config.network)
    weights = {name[8:]: tensors.pop(name) for name in list(tensors) if name.startswith("network.")}
    load_into(network, weights, folder)
    count, width, dimensions = config.units.count, config.network.width, config.units.dimensions
    shapes = {
        "prior": (len(PHONES),),
        "offsets": (len(CLASSES), len(CLASSES)),
        "units.mean": (width,),
        "units.basis": (width, min(dimensions, width)),
        "units.centroids": (count, min(dimensions, width)),
        "units.scale": (1,),
    }
    check_match(shapes, tensors, folder)
    rest = {name: value.float().numpy() for name, value in tensors.items()}
    if not (rest["prior"] > 0).all():
        raise ModelError(f"{folder}: the prior holds values that are not above 0")
    book = Codebook(rest["units.mean"], rest["units.basis"], rest["units.centroids"], float(rest["units.scale"][0]))
    return Parts(config, network.eval(), rest["prior"], rest["offsets"], book)


def hidden(network: Network, mel: np.ndarray) -> np.ndarray:
    """Return the features (T, C) before the last layer of mel (80, T)."""
    x = torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32))[None]
    with torch.inference_mode():
        found: Tensor = network.hidden(x, torch.ones(1, x.shape[2], dtype=torch.bool))
    return found[0].T.float().numpy()


def learn_units(network: Network, items: Sequence[Item], config: AlignerConfig, seed: int = 0) -> Codebook:
    """Return the codebook of the hidden features of ``items``, from about ``config.units.frames`` frames of them."""
    total = sum(item.mel.shape[1] for item in items)
    keep = min(1.0, config.units.frames / max(1, total))
    rng = np.random.default_rng(seed)
    parts = []
    for item in items:
        chosen = rng.random(item.mel.shape[1]) < keep
        if chosen.any():
            parts.append(hidden(network, item.mel)[chosen])
    return learn(np.concatenate(parts), config.units, seed)
