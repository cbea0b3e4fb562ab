"""Settings of the training loop and the ways to ask it to stop; free of torch."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from affgen.errors import AffgenError


@dataclass(frozen=True)
class TrainConfig:
    """Settings of :func:`affgen.training.fit`; one that makes no sense raises :class:`AffgenError`."""

    steps: int = 10_000
    """Optimiser steps of the whole run; the learning rate is planned over them."""
    batch_size: int = 16
    """Items of one micro-batch on one process; read by the caller's ``batches``."""
    accumulate: int = 1
    """Micro-batches whose gradients are averaged into one step."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    warmup: int = 200
    """Steps over which the learning rate rises linearly to its peak."""
    final_ratio: float = 0.1
    """Learning rate of the last step as a share of the peak, reached along half a cosine."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of AdamW's first and second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay; parameters with fewer than two axes (biases, scales) are spared."""
    clip: float = 1.0
    """Largest global gradient norm; 0 = no clipping."""
    ema: float = 0.999
    """Decay of the moving average of the weights, ramped up from 0.1 as (1 + step) / (10 + step); 0 = none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """"bf16" runs the forward pass under autocast; weights and optimiser stay in float32."""
    log_every: int = 50
    """Steps between two lines of the log."""
    validate_every: int = 500
    """Steps between two validations; the last step is always validated."""
    save_every: int = 500
    """Steps between two saved training states; the first and the last state are always saved."""
    save_best: bool = True
    """Keep the averaged weights of the validation with the lowest loss; otherwise the last ones are the result."""
    patience_nan: int = 5
    """Non-finite steps in a row after which the weights roll back to the last saved state."""
    max_rollbacks: int = 3
    """Roll-backs after which one more ends the training with an error."""
    seed: int = 0
    """Seed of every random draw made while training."""
    tensorboard: bool = False
    """Also write TensorBoard scalars to ``tb/``; needs the tensorboard package."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "validate_every", "save_every", "patience_nan"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("warmup", "weight_decay", "clip", "max_rollbacks"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self._require("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        self._require("final_ratio", 0 <= self.final_ratio <= 1, "0 to 1")
        self._require(
            "betas", len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "two of 0 to below 1"
        )
        self._require("ema", 0 <= self.ema < 1, "0 to below 1")
        self._require("precision", self.precision in ("fp32", "bf16"), "fp32 or bf16")

    def _require(self, name: str, holds: bool, accepted: str) -> None:
        if not holds:
            raise AffgenError(f"training setting {name}={getattr(self, name)!r}; accepted: {accepted}")


class Interrupted(KeyboardInterrupt):
    """Training stopped on request after ``step`` steps, state saved; ``exit_code`` is 130 (Ctrl-C) or 143 (TERM)."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        super().__init__(f"stopped after step {step}; the state is saved, --resume continues from it")
        self.step = step
        self.exit_code = 128 + int(number)


class StopRequest:
    """A stop asked for by a signal: noted, and carried out between two steps or at once where that is harmless."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.immediate = False

    def note(self, number: int, frame: object) -> None:
        """Handle SIGINT or SIGTERM."""
        self.number = number
        if self.immediate:
            self.immediate = False
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a request break off the block, one from before as well; nothing in the block may change the state."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.immediate = True
        try:
            yield
        finally:
            self.immediate = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into requests; only the main thread may, elsewhere signals are left alone."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
