"""The one training loop: AdamW, warm-up and cosine, averaged weights, validation, exact resume, several processes.

Every random draw is a pure function of the seed and the position. The caller's ``batches(index, rank, world)`` is
one, and before each micro-batch torch's generators are seeded from (seed, global index), the global index being
``index * world + rank``. So nothing needs to be saved of any generator, a resumed run equals an undisturbed one bit
for bit (same machine, build and thread count, deterministic kernels), and two processes draw what one process with
``accumulate=2`` draws. Models must draw from torch's default generators only.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from affgen.checkpoint import read_tensors
from affgen.errors import AffgenError
from affgen.progress import Reporter, truncate_log
from affgen.training_config import Interrupted, StopRequest, TrainConfig, stop_requests
from affgen.training_state import (
    State,
    averaged,
    averaged_tensors,
    new_state,
    resume_state,
    roll_back,
    save_best,
    save_interrupted,
    save_regular,
    saved_state_exists,
    trainable_parameters,
    update_average,
)

Batches = Callable[[int, int, int], Any]
"""(micro-batch index, rank, world size) -> batch, a pure function."""
Validate = Callable[[nn.Module], Mapping[str, float]]
"""Model with averaged weights, in evaluation mode -> metrics; "loss" decides which weights are best."""

_MOST_NAMES = 32  # batch names kept for one message


@dataclass(frozen=True)
class TrainResult:
    """The end of a training: the result is ``tensors``, from which the caller makes the model directory."""

    step: int
    best: float | None
    """Lowest validation loss; None without validation."""
    best_step: int
    """Step that ``tensors`` are from."""
    history: Path
    """``train.jsonl``."""
    tensors: dict[str, Tensor]
    """Averaged weights (and buffers) of the best validation, or of the last step, by their name in the model."""


@dataclass(frozen=True)
class _Run:
    """What stays the same during one call of :func:`fit`."""

    batches: Batches
    config: TrainConfig
    out: Path
    weights: Mapping[str, float]
    rank: int
    world: int
    device: torch.device


def fit(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    out: str | Path,
    *,
    weights: Mapping[str, float] | None = None,
    validate: Validate | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> TrainResult:
    """Train ``model`` where its parameters are and return the best averaged weights.

    ``model.losses(batch)`` returns scalar tensors by name; their sum weighted by ``weights`` (missing = 1, 0 = only
    logged) is minimised. A game of several players is one such sum in which no loss reaches another player's weights;
    ``model.players()``, where it exists, names their modules, whose gradients are then clipped apart (AdamW works per
    parameter, so one optimiser is as many as there are players).

    ``batches(index, rank, world)`` gives micro-batch ``index`` (step * accumulate + i) of one process: a tensor, a
    mapping of tensors or anything with ``.to(device)``; an attribute or key ``names`` (list of str) is quoted when its
    loss is not finite. ``out`` receives ``train.jsonl``, ``state/`` and ``best.safetensors``.

    Under torchrun every process calls ``fit``; gradients and floating buffers are averaged, the first one writes.
    Ctrl-C and SIGTERM save the state and raise :class:`Interrupted`. Raises :class:`AffgenError` when ``out`` holds
    a state and ``resume`` is off, when the state does not fit, and when the loss stays non-finite.
    """
    device = next(model.parameters()).device
    with _process_group(device) as (rank, world), stop_requests() as stop:
        run = _Run(batches, config, Path(out), weights or {}, rank, world, device)
        state = _begin(model, run, resume)
        report = Reporter(run.out if rank == 0 else None, config.steps, quiet=quiet, tensorboard=config.tensorboard)
        try:
            _loop(state, run, validate, stop, report)
        except KeyboardInterrupt:
            if rank == 0:
                report.sync()
                save_interrupted(state, config, run.out, world)
            raise Interrupted(state.step, stop.number or signal.SIGINT) from None
        finally:
            report.close()
        return _result(state, run)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of the 0-based ``step``: linear warm-up, then half a cosine to the final ratio."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = min(1.0, (step - config.warmup) / max(1, config.steps - 1 - config.warmup))
    share = config.final_ratio + (1 - config.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * share


def derived_seed(seed: int, *position: object) -> int:
    """Return a 63-bit seed that depends on ``seed`` and ``position`` alone."""
    digest = hashlib.blake2b(repr((seed, *position)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def to_device(batch: Any, device: torch.device) -> Any:
    """Return ``batch`` with its tensors on ``device``: anything with ``.to``, or a mapping or sequence of such."""
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


# ------------------------------------------------------------------------------------------------------ the loop


def _begin(model: nn.Module, run: _Run, resume: bool) -> State:
    """Return the state to start from, with the log cut to it."""
    model.train()
    state = new_state(model, run.config)
    found = saved_state_exists(run.out)
    if found and not resume:
        raise AffgenError(f"{run.out}: holds a training already; --resume continues it, another folder starts anew")
    if run.rank == 0:
        (run.out / "state").mkdir(parents=True, exist_ok=True)
        _remove_litter(run.out)
    if found:
        _one_by_one(run, lambda: resume_state(state, run.config, run.out, run.world))
    elif run.world > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, 0)
        state = new_state(model, run.config)
    if run.rank == 0:
        truncate_log(run.out / "train.jsonl", state.step, state.validated)
    return state


def _loop(state: State, run: _Run, validate: Validate | None, stop: StopRequest, report: Reporter) -> None:
    config = run.config
    while True:
        _halt_if_asked(stop, run)
        last = state.step >= config.steps
        if validate and state.validated < state.step and (last or state.step % config.validate_every == 0):
            _validate(state, run, validate, stop, report)
        # A state in the middle of a non-finite streak would be a bad one to roll back to.
        due = state.step % config.save_every == 0 and not state.skipped
        if run.rank == 0 and (due or last) and state.saved != state.step:
            report.sync()
            save_regular(state, config, run.out, run.world)
        if last:
            break
        _step(state, run, report)
    _halt_if_asked(stop, run)


def _step(state: State, run: _Run, report: Reporter) -> None:
    """Take one optimiser step, or skip it when loss or gradient is not finite."""
    config = run.config
    buffers = [buffer.clone() for buffer in state.model.buffers()]
    rate = learning_rate(config, state.step)
    losses, suspects = _gradients(state, run)
    norm = _clip(state.model, config.clip)
    total = losses.pop("total")
    state.step += 1
    if math.isfinite(total) and math.isfinite(norm):
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        update_average(state, config.ema)
        state.skipped, state.suspects = 0, []
        report.step(state.step, total)
        if state.step % config.log_every == 0 or state.step == config.steps:
            line = {"step": state.step, "total": total, "losses": losses, "lr": rate, "grad_norm": norm}
            report.record(line)
        return
    for buffer, before in zip(state.model.buffers(), buffers, strict=True):
        buffer.copy_(before)
    state.skipped += 1
    state.suspects = (state.suspects + suspects)[:_MOST_NAMES]
    report.record({"step": state.step, "skipped": suspects, "losses": losses, "grad_norm": norm})
    if state.skipped >= config.patience_nan:
        _recover(state, run, report)


def _clip(model: nn.Module, limit: float) -> float:
    """Clip the gradient norm of each player on its own; return the largest norm, not finite if any is not."""
    players = cast(Callable[[], Sequence[nn.Module]], model.players)() if hasattr(model, "players") else (model,)
    norms = [nn.utils.clip_grad_norm_(player.parameters(), limit or math.inf).item() for player in players]
    return max(norms, key=lambda norm: math.inf if math.isnan(norm) else norm)


def _recover(state: State, run: _Run, report: Reporter) -> None:
    """Roll back to the last saved state, or give up and name the batches."""
    if state.rollbacks >= run.config.max_rollbacks:
        names = ", ".join(state.suspects) or "unnamed"
        raise AffgenError(
            f"{run.out}: loss or gradient not finite in {state.skipped} steps up to {state.step}, after "
            f"{state.rollbacks} roll-backs; look at the batches {names}, or lower learning_rate"
        )
    report.record({"step": state.step, "rolled_back_to": roll_back(state, run.out)})


def _gradients(state: State, run: _Run) -> tuple[dict[str, float], list[str]]:
    """Leave the mean gradient of all micro-batches on the parameters; return mean losses and names of suspects.

    Suspects are the batches with a non-finite loss, or all of the step if only a gradient went wrong.
    """
    config = run.config
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    seen: list[str] = []
    bad: list[str] = []
    for i in range(config.accumulate):
        index = state.step * config.accumulate + i
        torch.manual_seed(derived_seed(config.seed, index * run.world + run.rank))
        batch = run.batches(index, run.rank, run.world)
        losses = _losses(state.model, to_device(batch, run.device), run)
        (losses["total"] / config.accumulate).backward()
        for name, value in losses.items():
            share = value.detach().float() / config.accumulate
            sums[name] = sums[name] + share if name in sums else share
        seen += _names(batch, index)
        bad += [] if bool(losses["total"].isfinite()) else _names(batch, index)
    if run.world > 1:
        return _share(state.model, sums, run), _gather(bad or seen, run)
    return {name: value.item() for name, value in sums.items()}, bad or seen


def _losses(model: nn.Module, batch: Any, run: _Run) -> dict[str, Tensor]:
    """Return the named losses of ``batch`` and their weighted sum under "total"."""
    weights = run.weights
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.config.precision == "bf16"):
        losses: dict[str, Tensor] = dict(cast(Callable[[Any], dict[str, Tensor]], model.losses)(batch))
        unknown = set(weights) - set(losses)
        if unknown or "total" in losses or not any(weights.get(k, 1.0) for k in losses):
            raise AffgenError(f"loss weights {dict(weights)} do not fit the model's losses {sorted(losses)}")
        wanted = [weights.get(k, 1.0) * v for k, v in losses.items() if weights.get(k, 1.0)]
        losses["total"] = cast(Tensor, sum(wanted))
    return losses


def _names(batch: Any, index: int) -> list[str]:
    """Return what to call ``batch`` in a message; a tensor's own ``names`` are those of its axes."""
    names = batch.get("names") if isinstance(batch, Mapping) else getattr(batch, "names", None)
    if isinstance(batch, Tensor) or not names:
        return [f"batch {index}"]
    return [str(name) for name in names]


def _validate(state: State, run: _Run, validate: Validate, stop: StopRequest, report: Reporter) -> None:
    """Run ``validate`` on the first process with averaged weights, log it and keep the weights if they are the best."""
    value = math.nan
    if run.rank == 0:
        torch.manual_seed(derived_seed(run.config.seed, "validation"))  # the same draws each time
        with averaged(state) as model, torch.inference_mode(), stop.at_once():
            metrics = {name: float(value) for name, value in validate(model).items()}
        value = metrics["loss"]
    if run.world > 1:
        shared = torch.tensor([value], dtype=torch.float64, device=run.device)
        dist.broadcast(shared, 0)
        value = shared.item()
    if math.isfinite(value) and (state.best is None or value < state.best):
        state.best, state.best_step = value, state.step
        if run.rank == 0 and run.config.save_best:
            save_best(state, run.out)
    state.validated = state.step
    if run.rank == 0:
        report.record({"step": state.step, "validation": metrics, "best": state.best})


def _result(state: State, run: _Run) -> TrainResult:
    history = run.out / "train.jsonl"
    if run.world > 1:
        dist.barrier()
    if run.config.save_best and state.best is not None:
        _, tensors = read_tensors(run.out / "best.safetensors")
        return TrainResult(state.step, state.best, state.best_step, history, tensors)
    return TrainResult(state.step, state.best, state.step, history, averaged_tensors(state))


def _remove_litter(out: Path) -> None:
    """Delete temporary files, ours and those of safetensors, that a killed process left behind."""
    for folder in (out, out / "state"):
        for path in folder.glob(".*tmp*"):
            path.unlink(missing_ok=True)


def _halt_if_asked(stop: StopRequest, run: _Run) -> None:
    """Raise KeyboardInterrupt in every process as soon as one of them was asked to stop."""
    asked = stop.number is not None
    if run.world > 1:
        flag = torch.tensor([float(asked)], device=run.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        asked = bool(flag.item())
    if asked:
        raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------- several processes


@contextmanager
def _process_group(device: torch.device) -> Iterator[tuple[int, int]]:
    """Yield (rank, world size) as torchrun set them; the group is made here unless the caller has made one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        if ours:
            dist.destroy_process_group()


def _share(model: nn.Module, losses: Mapping[str, Tensor], run: _Run) -> dict[str, float]:
    """Average gradients, floating buffers and losses over all processes; return the losses."""
    parameters = list(trainable_parameters(model).values())
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    names = sorted(losses)
    values = torch.stack([losses[name] for name in names])
    tensors = [cast(Tensor, p.grad) for p in parameters] + [b for b in model.buffers() if b.is_floating_point()]
    for tensor in [*tensors, values]:
        dist.all_reduce(tensor)
        tensor /= run.world
    return dict(zip(names, values.tolist(), strict=True))


def _gather(names: list[str], run: _Run) -> list[str]:
    gathered: list[list[str]] = [[] for _ in range(run.world)]
    dist.all_gather_object(gathered, names)
    return [name for part in gathered for name in part]


def _one_by_one(run: _Run, action: Callable[[], None]) -> None:
    """Let the first process act before the others: it may repair a file that they read next."""
    if run.rank == 0:
        action()
    if run.world > 1:
        dist.barrier()
    if run.rank != 0:
        action()
