"""What is saved while training: stopping, killing and damage change nothing of how a training ends.

Run as a script this file is the trainer that the tests kill: at every seventh system call that touches the disk and
at a few random moments; ``AFFGEN_SOAK=N`` takes every call, and N runs for each signal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affgen.checkpoint import read_tensors
from affgen.errors import AffgenError, ModelError
from affgen.training import TrainResult, fit
from affgen.training_config import Interrupted, StopRequest, TrainConfig
from affgen.training_state import averaged, new_state

CONFIG = TrainConfig(
    steps=14, warmup=3, learning_rate=3e-2, accumulate=2, log_every=1, validate_every=3, save_every=4, ema=0.9, seed=7
)


class Toy(nn.Module):
    """Regression with everything that makes exact resumption hard: dropout, batch statistics, an own moving buffer."""

    codes: Tensor

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 1))
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("codes", torch.zeros(4))

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """x (B, 4) -> "error", and "size" which the tests weight with 0.1."""
        if self.training:
            self.codes.lerp_(x.mean(0), 0.1)
        y = self.scale * self.net(x + self.codes)[:, 0]
        return {"error": (y - x.sum(1)).square().mean(), "size": y.abs().mean()}


def batches(index: int, rank: int, world: int) -> Tensor:
    """Micro-batch ``index``: (16, 4) normal numbers that depend on the global index alone."""
    generator = torch.Generator().manual_seed(index * world + rank)
    return torch.randn(16, 4, generator=generator)


def validate(model: nn.Module) -> dict[str, float]:
    assert not model.training and torch.is_inference_mode_enabled()
    return {"loss": model.losses(batches(10**6, 0, 1))["error"].item()}  # type: ignore[operator]


def train(out: Path, resume: bool = False, check: Callable[[nn.Module], dict[str, float]] = validate) -> TrainResult:
    return fit(Toy(), batches, CONFIG, out, weights={"size": 0.1}, validate=check, resume=resume, quiet=True)


def log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def fingerprint(out: Path) -> dict[str, str]:
    """SHA-256 of every file under ``out``, of the log without its times."""
    content = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    content["train.jsonl"] = json.dumps(log(out)).encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


# -------------------------------------------------------------------------------------- the trainer to be killed


def in_child(action: Callable[[], object], after: Callable[[int], None] = lambda pid: None) -> int:
    """Run ``action`` in a forked child, ``after(pid)`` here; return the exit status (negative: killed by a signal)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except Interrupted as stop:
            code = stop.exit_code
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    after(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(count: int) -> None:
    """Kill this process at its ``count``-th call of anything that changes the disk."""
    seen = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    import safetensors.torch

    for name in ("replace", "fsync", "chmod", "open", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    safetensors.torch.save_file = counted(safetensors.torch.save_file)


def train_until_killed(out: Path, count: int) -> None:
    die_at(count)
    train(out, resume=True)


def killed_while_saving(reference: dict[str, str], folder: Path, stride: int) -> int:
    """Kill before each (or each ``stride``-th) system call of the saves; return how many kills there were."""
    for kills, count in enumerate(range(1, 1000, stride)):
        out = folder / f"call{count}"

        if in_child(partial(train_until_killed, out, count)) == 0:
            return kills
        assert in_child(partial(train, out, resume=True)) == 0, count
        assert fingerprint(out) == reference, count
    raise AssertionError("the trainer never came to its end")


def killed_at_random(reference: dict[str, str], folder: Path, number: int, times: int) -> None:
    """Stop the same run up to three times at random moments with signal ``number``, then let it end."""
    chance = random.Random(number)
    for i in range(times):
        out = folder / f"random{number}-{i}"
        for _ in range(3):

            def strike(pid: int) -> None:
                time.sleep(chance.uniform(0.0, 0.25))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

            # Before the trainer has its handlers a SIGTERM kills as usual: exit status -15.
            assert in_child(partial(train, out, resume=True), strike) in (0, -number, 128 + number)
        assert in_child(partial(train, out, resume=True)) == 0
        assert fingerprint(out) == reference, (number, i)


def stopped_in_validation(reference: dict[str, str], out: Path) -> float:
    """SIGTERM during a validation that takes a minute; return how many seconds the stop took."""
    mark = out.with_suffix(".mark")

    def slow(model: nn.Module) -> dict[str, float]:
        mark.touch()
        time.sleep(60)
        return validate(model)

    asked = 0.0

    def strike(pid: int) -> None:
        nonlocal asked
        while not mark.exists():
            time.sleep(0.01)
        asked = time.monotonic()
        os.kill(pid, signal.SIGTERM)

    assert in_child(partial(train, out, check=slow), strike) == 143
    took = time.monotonic() - asked
    assert (out / "state" / "interrupted.safetensors").exists()
    assert in_child(partial(train, out, resume=True)) == 0
    assert fingerprint(out) == reference
    return took


def campaign(folder: Path, times: int, stride: int) -> None:
    """Run every way of being killed and print what happened as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that a child without handlers dies of it, status -2
    new_state(Toy(), CONFIG)  # the first optimiser imports for a second; better here than in every child
    assert in_child(partial(train, folder / "reference")) == 0
    reference = fingerprint(folder / "reference")
    saving = killed_while_saving(reference, folder, stride)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        killed_at_random(reference, folder, int(number), times)
    took = stopped_in_validation(reference, folder / "validation")
    print(json.dumps({"files": sorted(reference), "killed_while_saving": saving, "stop_s": took}))


def script(*arguments: str) -> str:
    """Run this file as a script and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280 if "AFFGEN_SOAK" not in os.environ else None,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_stopped_runs_end_like_undisturbed_ones(tmp_path: Path) -> None:
    times, stride = (os.environ["AFFGEN_SOAK"], "1") if "AFFGEN_SOAK" in os.environ else ("1", "7")
    result = json.loads(script(str(tmp_path), times, stride).splitlines()[-1])
    states = ["state/last.safetensors", "state/last.safetensors.previous"]
    assert result["files"] == ["best.safetensors", *states, "train.jsonl"]
    assert result["killed_while_saving"] >= 100 // int(stride)
    assert result["stop_s"] < 10


def test_the_average_is_an_exponential_one_and_leaves_no_trace() -> None:
    state = new_state(Toy(), CONFIG)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.average["net.0.weight"].fill_(5.0)
    with averaged(state) as model:
        assert not model.training
        assert bool((model.state_dict()["net.0.weight"] == 5).all())
    assert state.model.training
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_frozen_and_tied_parameters(tmp_path: Path) -> None:
    class Tied(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
            self.twin = nn.Linear(4, 8)
            self.twin.weight = self.net.get_submodule("0").weight  # type: ignore[assignment]

    result = fit(Tied(), batches, CONFIG, tmp_path, quiet=True)
    assert torch.equal(result.tensors["net.0.weight"], result.tensors["twin.weight"])
    assert torch.equal(result.tensors["frozen"], torch.ones(2))
    again = fit(Tied(), batches, CONFIG, tmp_path, resume=True, quiet=True)
    torch.testing.assert_close(again.tensors, result.tensors, atol=0, rtol=0)


def test_a_component_kept_in_evaluation_mode_stays_so_after_validation() -> None:
    state = new_state(Toy(), CONFIG)
    batch_norm = state.model.get_submodule("net.1").eval()
    with averaged(state):
        pass
    assert not batch_norm.training and state.model.training


def poisoned(*steps: int) -> Callable[[int, int, int], Tensor]:
    """Batches of which those of the given steps (one micro-batch each) are not finite."""
    return lambda index, rank, world: batches(index, rank, world) * (math.nan if index in steps else 1.0)


SINGLE = replace(CONFIG, accumulate=1, steps=12, save_every=3, patience_nan=2, max_rollbacks=1)


def test_a_skipped_step_leaves_weights_and_buffers_as_they_were(tmp_path: Path) -> None:
    clean = replace(SINGLE, steps=4, ema=0)
    fit(first := Toy(), batches, clean, tmp_path / "a", quiet=True)
    # The last step is poisoned: the state must be the one after three steps of the same plan.
    fit(second := Toy(), poisoned(3), clean, tmp_path / "b", quiet=True)
    meta, tensors = read_tensors(tmp_path / "a" / "state" / "last.safetensors.previous")
    assert meta["step"] == 3
    for name, value in second.state_dict().items():
        assert torch.equal(value, tensors[f"model/{name}"]), name
    assert not torch.equal(first.scale, second.scale)


def test_the_roll_back_restores_what_was_saved(tmp_path: Path) -> None:
    config = replace(SINGLE, steps=6, save_every=3)
    fit(model := Toy(), poisoned(4, 5), config, tmp_path, quiet=True)
    _, tensors = read_tensors(tmp_path / "state" / "last.safetensors.previous")
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[f"model/{name}"]), name


# --------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("last", range(12))
def test_stopping_after_any_step_changes_nothing(tmp_path: Path, last: int) -> None:
    """Also in the middle of a non-finite streak, before and after the roll-back it ends in."""
    give = poisoned(4, 5)

    def asking(index: int, rank: int, world: int) -> Tensor:
        if index == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return give(index, rank, world)

    fit(Toy(), give, SINGLE, tmp_path / "whole", validate=validate, quiet=True)
    with pytest.raises(Interrupted) as caught:
        fit(Toy(), asking, SINGLE, tmp_path / "parts", validate=validate, quiet=True)
    assert (caught.value.step, caught.value.exit_code) == (last + 1, 143)
    result = fit(Toy(), give, SINGLE, tmp_path / "parts", validate=validate, resume=True, quiet=True)
    assert result.step == SINGLE.steps
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    assert any("rolled_back_to" in line for line in log(tmp_path / "parts"))


def test_a_crash_after_a_validation_made_up_for_logs_it_once(tmp_path: Path) -> None:
    """Stopped in the validation of step 6, resumed, validated, and killed before the next regular state."""
    config = replace(SINGLE, save_every=4)

    def stop(model: nn.Module) -> dict[str, float]:
        if len([line for line in log(tmp_path / "parts") if "validation" in line]) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(model)

    def crash(index: int, rank: int, world: int) -> Tensor:
        raise RuntimeError("power cut")

    fit(Toy(), batches, config, tmp_path / "whole", validate=validate, quiet=True)
    with pytest.raises(Interrupted):
        fit(Toy(), batches, config, tmp_path / "parts", validate=stop, quiet=True)
    with pytest.raises(RuntimeError):
        fit(Toy(), crash, config, tmp_path / "parts", validate=validate, resume=True, quiet=True)
    assert log(tmp_path / "parts")[-1]["step"] == 6
    fit(Toy(), batches, config, tmp_path / "parts", validate=validate, resume=True, quiet=True)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


def test_litter_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    train(tmp_path)
    before = fingerprint(tmp_path)
    for folder in (tmp_path, tmp_path / "state"):
        (folder / ".tmpAb12Cd").touch()
        (folder / ".last.ab12.tmp.safetensors").touch()
    train(tmp_path, resume=True)
    assert fingerprint(tmp_path) == before


def test_a_request_from_before_breaks_off_at_once() -> None:
    stop = StopRequest()
    stop.note(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt), stop.at_once():
        raise AssertionError("the block was entered")


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    before = fingerprint(tmp_path)
    with pytest.raises(AffgenError, match=r"holds a training already; --resume continues it"):
        train(tmp_path)
    assert fingerprint(tmp_path) == before


def test_resuming_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    first = train(tmp_path)
    before = fingerprint(tmp_path)
    again = train(tmp_path, resume=True)
    assert fingerprint(tmp_path) == before
    assert (again.best, again.best_step) == (first.best, first.best_step)


def test_resume_from_a_truncated_state_ends_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path)
    before = fingerprint(tmp_path)
    last = tmp_path / "state" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    with open(tmp_path / "train.jsonl", "a") as stream:
        stream.write('{"step": 3, "tot')
    train(tmp_path, resume=True)
    assert "previous" in caplog.text
    # The state before the last but one is gone for good, everything else is as it was.
    assert fingerprint(tmp_path) == before


def test_resume_with_another_model_or_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path)
    with pytest.raises(ModelError, match=r"last\.safetensors"):
        fit(nn.Sequential(Toy()), batches, CONFIG, tmp_path, resume=True, quiet=True)
    config = replace(CONFIG, steps=16, learning_rate=1e-3)
    assert fit(Toy(), batches, config, tmp_path, resume=True, quiet=True).step == 16
    assert "learning_rate 0.03 -> 0.001" in caplog.text and "steps 14 -> 16" in caplog.text


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


if __name__ == "__main__":
    campaign(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
