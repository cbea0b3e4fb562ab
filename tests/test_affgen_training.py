"""The training loop: what one step computes, the guard against non-finite numbers, several processes, the log.

Run as a script this file is one of the processes that torchrun starts.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affgen.checkpoint import load_into, read_tensors
from affgen.errors import AffgenError
from affgen.training import derived_seed, fit, learning_rate, to_device
from affgen.training_config import TrainConfig

CONFIG = TrainConfig(
    steps=14, warmup=3, learning_rate=3e-2, accumulate=2, log_every=1, validate_every=3, save_every=4, ema=0.9, seed=7
)


class Plain(nn.Module):
    """Least squares without buffers or randomness."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Linear(4, 1)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Squared error against the sum of x (B, 4)."""
        x = batch["x"] if isinstance(batch, dict) else batch
        return {"error": (self.net(x)[:, 0] - x.sum(1)).square().mean()}


def batches(index: int, rank: int, world: int) -> Tensor:
    """Micro-batch ``index``: (16, 4) normal numbers that depend on the global index alone."""
    generator = torch.Generator().manual_seed(index * world + rank)
    return torch.randn(16, 4, generator=generator)


def validate(model: nn.Module) -> dict[str, float]:
    assert not model.training and torch.is_inference_mode_enabled()
    return {"loss": model.losses(batches(10**6, 0, 1))["error"].item()}  # type: ignore[operator]


def log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


# ------------------------------------------------------------------------------------------------ what it computes


def test_loss_falls_and_the_best_weights_come_back(tmp_path: Path) -> None:
    result = fit(Plain(), batches, replace(CONFIG, steps=60), tmp_path, validate=validate, quiet=True)
    validations = {line["step"]: line["validation"]["loss"] for line in log(tmp_path) if "validation" in line}
    assert list(validations) == [*range(3, 60, 3), 60]
    assert result.best == min(validations.values()) < 0.3 * validations[3]
    assert validations[result.best_step] == result.best
    model = Plain()
    load_into(model, result.tensors, "result")
    with torch.inference_mode():
        assert validate(model.eval())["loss"] == result.best
    assert read_tensors(tmp_path / "best.safetensors")[0] == {"step": result.best_step, "loss": result.best}


def test_one_step_is_adamw_by_hand(tmp_path: Path) -> None:
    """The first step of AdamW moves each weight by rate * (sign of gradient), after the decay of matrices only."""
    config = TrainConfig(steps=1, warmup=0, learning_rate=0.1, weight_decay=0.5, ema=0, clip=0)
    model, start = Plain(), Plain()
    start.losses(batches(0, 0, 1))["error"].backward()  # type: ignore[no-untyped-call]
    result = fit(model, batches, config, tmp_path, quiet=True)
    weight, bias = start.net.weight, start.net.bias
    assert weight.grad is not None and bias.grad is not None
    torch.testing.assert_close(result.tensors["net.weight"], weight.detach() * 0.95 - 0.1 * weight.grad.sign())
    torch.testing.assert_close(result.tensors["net.bias"], bias.detach() - 0.1 * bias.grad.sign())
    norm = torch.cat([weight.grad.flatten(), bias.grad]).norm().item()
    assert log(tmp_path)[0]["grad_norm"] == pytest.approx(norm)


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    def whole(index: int, rank: int, world: int) -> Tensor:
        return torch.cat([batches(2 * index + i, rank, world) for i in range(2)])

    parts = fit(Plain(), batches, CONFIG, tmp_path / "parts", quiet=True)
    large = fit(Plain(), whole, replace(CONFIG, accumulate=1), tmp_path / "whole", quiet=True)
    torch.testing.assert_close(parts.tensors, large.tensors, atol=1e-5, rtol=1e-5)
    for line, other in zip(log(tmp_path / "parts"), log(tmp_path / "whole"), strict=True):
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_learning_rate_warms_up_and_ends_at_the_final_ratio() -> None:
    config = TrainConfig(steps=101, warmup=10, learning_rate=2.0, final_ratio=0.1)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(2.0) and rates[-1] == pytest.approx(0.2)
    assert rates[55] == pytest.approx((2.0 + 0.2) / 2)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_weights_scale_losses_and_zero_only_logs(tmp_path: Path) -> None:
    class TwoLosses(Plain):
        def losses(self, batch: Any) -> dict[str, Tensor]:
            return super().losses(batch) | {"broken": self.net.weight.sum() * math.nan}

    fit(TwoLosses(), batches, CONFIG, tmp_path / "a", weights={"broken": 0.0, "error": 3.0}, quiet=True)
    for line in log(tmp_path / "a"):
        assert line["total"] == pytest.approx(3 * line["losses"]["error"])
        assert line["losses"]["broken"] is None
    with pytest.raises(AffgenError, match=r"'errr'.*\['error'\]"):
        fit(Plain(), batches, CONFIG, tmp_path / "b", weights={"errr": 1.0}, quiet=True)


def test_average_follows_its_formula(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watched(Plain):
        def losses(self, batch: Any) -> dict[str, Tensor]:
            seen.append(self.net.weight.detach().clone())
            return super().losses(batch)

    model = Watched()
    expected = model.net.weight.detach().clone()
    result = fit(model, batches, replace(CONFIG, accumulate=1, steps=5, ema=0.3), tmp_path, quiet=True)
    for step, weight in enumerate([*seen[1:], model.net.weight.detach()], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(result.tensors["net.weight"], expected)


def test_without_validation_the_last_weights_are_the_result(tmp_path: Path) -> None:
    model = Plain()
    result = fit(model, batches, replace(CONFIG, ema=0), tmp_path, quiet=True)
    assert (result.best, result.best_step) == (None, CONFIG.steps)
    assert torch.equal(result.tensors["net.weight"], model.net.weight)
    assert not (tmp_path / "best.safetensors").exists()


def test_bfloat16_keeps_the_weights_in_float32(tmp_path: Path) -> None:
    class Seen(Plain):
        kinds: set[torch.dtype] = set()  # noqa: RUF012

        def losses(self, batch: Any) -> dict[str, Tensor]:
            self.kinds.add(self.net(batch).dtype)
            return super().losses(batch)

    model = Seen()
    result = fit(model, batches, replace(CONFIG, precision="bf16"), tmp_path, quiet=True)
    assert model.kinds == {torch.bfloat16}
    assert result.tensors["net.weight"].dtype == torch.float32


# ------------------------------------------------------------------------------------------------- the NaN guard


def poisoned(*steps: int, names: bool = True) -> Callable[[int, int, int], Any]:
    """Batches of which those of the given steps (one micro-batch each) are not finite."""

    def give(index: int, rank: int, world: int) -> Any:
        x = batches(index, rank, world)
        x = x * math.nan if index in steps else x
        return {"x": x, "names": [f"utt{index}"]} if names else x

    return give


SINGLE = replace(CONFIG, accumulate=1, steps=12, save_every=3, patience_nan=2, max_rollbacks=1)


def test_a_poisoned_batch_is_skipped_named_and_reaches_no_weight(tmp_path: Path) -> None:
    result = fit(Plain(), poisoned(4, names=False), SINGLE, tmp_path, quiet=True)
    assert all(bool(value.isfinite().all()) for value in result.tensors.values())
    (skipped,) = [line for line in log(tmp_path) if "skipped" in line]
    assert skipped["step"] == 5 and skipped["skipped"] == ["batch 4"] and skipped["losses"]["error"] is None


def test_only_a_streak_rolls_back(tmp_path: Path) -> None:
    fit(Plain(), poisoned(3, 5, 7), SINGLE, tmp_path, quiet=True)
    assert not any("rolled_back_to" in line for line in log(tmp_path))


def test_nothing_is_saved_within_a_streak(tmp_path: Path) -> None:
    """Step 5 would be saved, but the weights that began a streak are none to go back to."""
    fit(Plain(), poisoned(4, 5), replace(SINGLE, save_every=5), tmp_path, quiet=True)
    assert {"step": 6, "rolled_back_to": 0} in log(tmp_path)


def test_a_gradient_that_is_not_finite_counts_too(tmp_path: Path) -> None:
    class Steep(Plain):
        def losses(self, batch: Any) -> dict[str, Tensor]:
            x = batch["x"]
            steep = (self.net.weight * 0).sum().sqrt() * (1.0 if x[0, 0] > 0 else 0.0)  # 0, with gradient 0 * inf
            return {"error": super().losses(batch)["error"] + steep}

    with pytest.raises(AffgenError, match="utt2, utt3"):
        fit(Steep(), poisoned(), SINGLE, tmp_path, quiet=True)


def test_rolls_back_then_gives_up_with_the_names(tmp_path: Path) -> None:
    result = fit(Plain(), poisoned(4, 5), SINGLE, tmp_path / "once", quiet=True)
    assert result.step == 12
    (line,) = [line for line in log(tmp_path / "once") if "rolled_back_to" in line]
    assert line == {"step": 6, "rolled_back_to": 3}
    with pytest.raises(AffgenError, match="utt8, utt9") as caught:
        fit(Plain(), poisoned(4, 5, 8, 9), SINGLE, tmp_path / "twice", quiet=True)
    assert "\n" not in str(caught.value) and "learning_rate" in str(caught.value)


# --------------------------------------------------------------------------------------------- several processes


def distributed(out: Path) -> None:
    """What each process that torchrun starts does."""
    fit(Plain(), batches, replace(CONFIG, accumulate=1), out, validate=validate, quiet=True)


def test_two_processes_equal_one_with_two_micro_batches(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    done = subprocess.run(
        [*launch, str(tmp_path / "two")], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    fit(Plain(), batches, CONFIG, tmp_path / "one", validate=validate, quiet=True)
    one, two = (read_tensors(tmp_path / name / "state" / "last.safetensors")[1] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5)
    for line, other in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert line.keys() == other.keys()
        for key in ("total", "grad_norm", "best"):
            assert key not in line or line[key] == pytest.approx(other[key], rel=1e-5)
    with pytest.raises(AffgenError, match="2 processes and cannot be resumed by 1"):
        fit(Plain(), batches, CONFIG, tmp_path / "two", resume=True, quiet=True)


# --------------------------------------------------------------------------------------------------- small things


@pytest.mark.parametrize(
    "change",
    [
        *({"steps": 0}, {"accumulate": 0}, {"learning_rate": math.nan}, {"learning_rate": 0.0}, {"warmup": -1}),
        *({"ema": 1.0}, {"final_ratio": 1.5}, {"precision": "fp16"}, {"clip": -1.0}, {"betas": (0.9, 1.0)}),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(AffgenError, match=f"{next(iter(change))}=.*accepted"):
        TrainConfig(**change)


def test_settings_import_no_torch() -> None:
    code = "import sys, affgen.training_config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_seeds_depend_on_every_part() -> None:
    seeds = {derived_seed(seed, index) for seed in range(20) for index in range(50)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)


def test_to_device_reaches_into_nested_batches() -> None:
    batch = {"x": torch.ones(2), "names": ["a"], "pair": (torch.ones(1), None)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["x"].is_meta and moved["pair"][0].is_meta and moved["names"] == ["a"] and moved["pair"][1] is None


def test_progress_is_plain_lines_outside_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Plain(), batches, replace(CONFIG, log_every=7), tmp_path, validate=validate)
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("step") and "steps/s" in line and "left" in line for line in lines) == 2
    assert "\x1b" not in "".join(lines)


if __name__ == "__main__":
    distributed(Path(sys.argv[1]))
    os._exit(0)  # threads of torch's store, when the other process is gone first, may abort an ordinary end
