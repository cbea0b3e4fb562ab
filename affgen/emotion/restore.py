"""Networks from tensors of unknown origin: nothing is allocated before names and shapes have been found to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from affgen.checkpoint import check_match, load_into

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def restored(make: Callable[[], NetworkT], tensors: Mapping[str, Tensor], where: str | Path) -> NetworkT:
    """Return the network that ``make`` builds, with ``tensors`` as its state, in evaluation mode.

    It is built without memory first, so that a config that asks for a giant costs nothing. Every buffer must be in
    the state. Raises :class:`ModelError` that begins with ``where`` for the first tensor that does not fit.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = make()
    check_match({name: value.shape for name, value in network.state_dict().items()}, tensors, where)
    network = network.to_empty(device="cpu")
    load_into(network, tensors, where)
    return network.eval()
