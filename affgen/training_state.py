"""What changes while training, and how it is saved and brought back: one dataclass and functions on it.

Randomness is not part of the state: every micro-batch seeds torch from (seed, index), see :mod:`affgen.training`.
``OUT/state/`` holds ``last.safetensors`` (written every ``save_every`` steps), the one before it as
``last.safetensors.previous`` and, after a stop on request, ``interrupted.safetensors`` until the next regular save.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from affgen.checkpoint import check_match, load_into, load_state, previous, read_tensors, save_state, write_tensors
from affgen.errors import AffgenError, ModelError
from affgen.training_config import TrainConfig

logger = logging.getLogger(__name__)


@dataclass
class State:
    """Everything that a saved training state holds; a copy of it and the data are all that resuming needs."""

    model: nn.Module
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor]
    """Trainable parameter -> its moving average in float32; empty when averaging is off."""
    step: int = 0
    """Finished steps."""
    validated: int = 0
    """Last step whose validation is in the log."""
    best: float | None = None
    """Lowest validation loss so far."""
    best_step: int = 0
    skipped: int = 0
    """Non-finite steps in a row."""
    suspects: list[str] = field(default_factory=list)
    """Names of the batches of those steps."""
    rollbacks: int = 0
    saved: int = -1
    """Step of ``last.safetensors``; known from the file, so not part of it."""


_COUNTERS = ("step", "validated", "best", "best_step", "skipped", "suspects", "rollbacks")


def new_state(model: nn.Module, config: TrainConfig) -> State:
    """Return the state before the first step; vectors and scalars (biases, norms) get no weight decay."""
    trainable = trainable_parameters(model)
    groups = [
        {"params": [p for p in trainable.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, betas=config.betas)
    average = {name: p.detach().float().clone() for name, p in trainable.items()} if config.ema else {}
    return State(model, optimizer, average)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients by name, tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def update_average(state: State, decay: float) -> None:
    """Move the averages towards the weights: ``a <- d a + (1 - d) w`` with ``d = min(decay, (1 + t) / (10 + t))``."""
    if not state.average:
        return
    decay = min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, p in trainable_parameters(state.model).items():
            state.average[name].lerp_(p.float(), 1 - decay)


@contextmanager
def averaged(state: State) -> Iterator[nn.Module]:
    """Give the model its averaged weights and evaluation mode, and both back at the end."""
    trainable = trainable_parameters(state.model)
    kept = {name: trainable[name].detach().clone() for name in state.average}
    modes = [(module, module.training) for module in state.model.modules()]
    _assign(trainable, state.average)
    state.model.eval()
    try:
        yield state.model
    finally:
        _assign(trainable, kept)
        for module, mode in modes:
            module.training = mode


def _assign(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def averaged_tensors(state: State) -> dict[str, Tensor]:
    """Return a copy, on the CPU, of the model's state with the averaged weights in it."""
    with averaged(state) as model:
        return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


# ------------------------------------------------------------------------------------------------------- saving


def save_regular(state: State, config: TrainConfig, out: Path, world: int) -> None:
    """Write ``last.safetensors``, keep the one before it, drop the state of an earlier interruption."""
    save_state(_last(out), _tensors(state), _meta(state, config, world))
    _interrupted(out).unlink(missing_ok=True)
    state.saved = state.step


def save_interrupted(state: State, config: TrainConfig, out: Path, world: int) -> None:
    """Write the state of a stop on request beside the regular ones, which thus stay those of an undisturbed run."""
    if state.saved < 0:
        save_regular(state, config, out, world)
    elif state.saved != state.step:
        write_tensors(_interrupted(out), _tensors(state), _meta(state, config, world))


def save_best(state: State, out: Path) -> None:
    """Write the averaged weights to ``best.safetensors`` with step and loss in the header."""
    write_tensors(out / "best.safetensors", averaged_tensors(state), {"step": state.best_step, "loss": state.best})


def _tensors(state: State) -> dict[str, Tensor]:
    """Return the state as named tensors: ``model/NAME``, ``average/NAME``, ``optimizer/KEY/NAME`` (AdamW's moments)."""
    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in state.average.items()}
    for name, p in trainable_parameters(state.model).items():
        tensors |= {f"optimizer/{key}/{name}": value for key, value in state.optimizer.state.get(p, {}).items()}
    return tensors


def _meta(state: State, config: TrainConfig, world: int) -> dict[str, Any]:
    return {**{key: getattr(state, key) for key in _COUNTERS}, "world": world, "config": asdict(config)}


def _last(out: Path) -> Path:
    return out / "state" / "last.safetensors"


def _interrupted(out: Path) -> Path:
    return out / "state" / "interrupted.safetensors"


# ----------------------------------------------------------------------------------------------------- resuming


def saved_state_exists(out: Path) -> bool:
    """Say whether ``out`` holds a training state, whole or not."""
    return any(path.exists() for path in (_last(out), previous(_last(out)), _interrupted(out)))


def resume_state(state: State, config: TrainConfig, out: Path, world: int) -> None:
    """Bring ``state`` to the newest whole state in ``out``.

    Raises :class:`ModelError` when there is none that fits the model, :class:`AffgenError` when it was saved by
    another number of processes. Other changed settings are allowed and named in a warning.
    """
    meta, tensors = load_state(_last(out))
    saved = int(meta.get("step", 0))
    if _interrupted(out).exists():
        try:
            newer = read_tensors(_interrupted(out))
            meta, tensors = newer if newer[0].get("step", 0) > saved else (meta, tensors)
        except ModelError as error:
            logger.warning("%s; going on from %s", error, _last(out))
    if meta.get("world") != world:
        raise AffgenError(f"{out}: was trained by {meta.get('world')} processes and cannot be resumed by {world}")
    _warn_of_changes(config, meta.get("config", {}), out)
    _restore(state, tensors, _last(out))
    for key in _COUNTERS:
        setattr(state, key, meta[key])
    state.saved = saved


def roll_back(state: State, out: Path) -> int:
    """Take weights, averages and optimiser from the last regular state and return its step; the step count goes on.

    Going on with later data is the point: the same steps would end in the same non-finite numbers.
    """
    meta, tensors = load_state(_last(out))
    _restore(state, tensors, _last(out))
    state.skipped, state.suspects = 0, []
    state.rollbacks += 1
    return int(meta["step"])


def _warn_of_changes(config: TrainConfig, before: Mapping[str, Any], out: Path) -> None:
    now = asdict(config) | {"betas": list(config.betas)}
    changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
    if changed:
        logger.warning("%s: resumed with other settings (%s), so not as if undisturbed", out, ", ".join(changed))


def _restore(state: State, tensors: Mapping[str, Tensor], where: Path) -> None:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise ModelError(f"{where}: tensor {name!r} belongs to no part of a training state")
        parts[part][rest] = value
    check_match({name: value.shape for name, value in state.average.items()}, parts["average"], f"{where} (average)")
    load_into(state.model, parts["model"], where)
    for name, value in state.average.items():
        value.copy_(parts["average"][name])
    _restore_optimizer(state, parts["optimizer"], where)


def _restore_optimizer(state: State, tensors: Mapping[str, Tensor], where: Path) -> None:
    trainable = trainable_parameters(state.model)
    state.optimizer.state.clear()
    for name, value in tensors.items():
        key, _, owner = name.partition("/")
        if owner not in trainable:
            raise ModelError(f"{where}: optimiser state for {owner!r}, which is no trainable parameter of the model")
        # AdamW keeps its step counter on the CPU; the moments live beside the parameter.
        device = "cpu" if key == "step" else trainable[owner].device
        state.optimizer.state[trainable[owner]][key] = value.to(device, copy=True)
