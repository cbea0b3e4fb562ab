"""What a training tells the world: ``train.jsonl``, a line on stderr and, where asked for, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affgen.files import atomic_write

logger = logging.getLogger(__name__)

_REFRESH_S = 0.2  # seconds between two refreshes of the terminal line


class Reporter:
    """Writes the log of one training run; with ``out=None`` (processes other than the first) it writes nothing.

    Each line of ``train.jsonl`` is one JSON object with the key "step" and, as the only key that differs between
    two equal runs, "seconds" since this process began. A number that is not finite is written as null.
    """

    def __init__(self, out: Path | None, steps: int, *, quiet: bool = False, tensorboard: bool = False) -> None:
        self.steps = steps
        self.live = out is not None and not quiet and sys.stderr.isatty()
        self.plain = out is not None and not quiet and not self.live
        self.began, self.drawn = time.monotonic(), 0.0
        self.first: int | None = None
        self.stream = open(out / "train.jsonl", "a", encoding="utf-8") if out is not None else None  # noqa: SIM115
        self.board = _summary_writer(out / "tb") if out is not None and tensorboard else None

    def step(self, step: int, loss: float) -> None:
        """Refresh the terminal line after step number ``step``."""
        self.first = step - 1 if self.first is None else self.first
        now = time.monotonic()
        if self.live and (now - self.drawn > _REFRESH_S or step == self.steps):
            self.drawn = now
            sys.stderr.write(f"\r\x1b[K{self._status(step, loss)}")
            sys.stderr.flush()

    def record(self, values: Mapping[str, Any]) -> None:
        """Append one line to the log; outside a terminal training lines are also printed."""
        if self.stream is None:
            return
        line = {**_finite(values), "seconds": round(time.monotonic() - self.began, 3)}
        self.stream.write(json.dumps(line, allow_nan=False) + "\n")
        self.stream.flush()
        if self.board is not None:
            for name, value in _scalars(values).items():
                self.board.add_scalar(name, value, values["step"])
        if self.plain and "total" in values:
            print(self._status(values["step"], values["total"]), file=sys.stderr, flush=True)
        elif self.plain or (self.live and "total" not in values):
            print(("\r\x1b[K" if self.live else "") + _words(line), file=sys.stderr, flush=True)

    def sync(self) -> None:
        """Bring the log to the disk, so that it never lacks lines of a state saved afterwards."""
        if self.stream is not None:
            os.fsync(self.stream.fileno())

    def close(self) -> None:
        """End the terminal line and close the files."""
        if self.live and self.first is not None:
            sys.stderr.write("\n")
        for target in (self.stream, self.board):
            if target is not None:
                target.close()

    def _status(self, step: int, loss: float) -> str:
        done = step - (self.first or 0)
        speed = done / max(time.monotonic() - self.began, 1e-9)
        left = int((self.steps - step) / max(speed, 1e-9))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        return f"step {step}/{self.steps}  loss {loss:.4f}  {speed:.2f} steps/s  {clock} left"


def truncate_log(path: Path, step: int, validated: int) -> None:
    """Keep the lines of ``path`` up to ``step`` and the validations up to ``validated``; a torn last line goes."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
            if values["step"] <= (validated if "validation" in values else step):
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    atomic_write(path, "".join(kept))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten nested numbers: {"losses": {"mel": 0.1}} -> {"losses/mel": 0.1}."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and key != "step":
            flat[prefix + key] = value
    return flat


def _words(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{key} {value}" for key, value in values.items() if key != "seconds")


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed; the log is train.jsonl alone (pip install tensorboard)")
        return None
    return SummaryWriter(str(folder))
