"""Training in two stages on a made-up corpus: it learns, leaves a model that decodes, and resumes to the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affgen import config as configs
from affgen.checkpoint import load_into, read_tensors
from affgen.corpora import prepare
from affgen.errors import AffgenError, DataError
from affgen.testing import fabricated_emopia
from affgen.training_config import TrainConfig
from music import train as training
from music.config import MINIATURE, MusicConfig, with_model
from music.data import load_clips, split_songs, whole_batches
from music.decode import Request, decode
from music.grammar import first_invalid
from music.model import MusER
from music.pack import unpack
from music.train import PriorTask, build, train

PLAN = TrainConfig(
    steps=30, batch_size=4, warmup=3, learning_rate=5e-3, ema=0.95, log_every=5, validate_every=10, save_every=10
)
CONFIG = replace(MINIATURE, train_model=PLAN, train_prior=replace(PLAN, seed=1))
BRIEF = replace(PLAN, steps=4, validate_every=2, save_every=2)
SHORT = replace(MINIATURE, train_model=BRIEF, train_prior=BRIEF)
FILES = ("README.md", "config.json", "model.safetensors")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    prepare("emopia", fabricated_emopia(folder / "emopia", songs=10, seed=1), folder / "data", say=lambda line: None)
    return folder / "data" / "train"


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "exp"
    train(CONFIG, corpus, out, quiet=True)
    return out


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "exp"
    train(SHORT, corpus, out, quiet=True)
    return out


def validations(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [line["validation"] for line in lines if "validation" in line]


def same_model(one: Path, two: Path) -> bool:
    return all((one / "model" / name).read_bytes() == (two / "model" / name).read_bytes() for name in FILES)


def test_both_stages_learn(trained: Path) -> None:
    for stage, at_most in (("autoencoder", 0.85), ("prior", 0.85)):
        history = validations(trained / stage)
        assert len(history) == 3
        assert all(np.isfinite(list(losses.values())).all() for losses in history)
        assert history[-1]["nll"] < at_most * start(trained, stage), stage


def start(trained: Path, stage: str) -> float:
    """Likelihood in the first line of the log, after five steps."""
    lines = [json.loads(line) for line in (trained / stage / "train.jsonl").read_text().splitlines()]
    return float(lines[0]["losses"]["nll"])


def test_the_model_that_is_left_decodes(trained: Path) -> None:
    config, model, prior = unpack(trained / "model")
    assert config == CONFIG
    steering = np.tile([0.7, 0.7, 2.0, 0.0], (4, 1))
    for rows in decode(
        model, prior, config, [Request(seed=k, steer=lambda bars, bpm: steering, bars=4) for k in range(2)]
    ):
        assert first_invalid(rows, config.tokens, 4) is None


def test_the_folder_holds_what_is_promised(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "autoencoder",
        "clips.npz",
        "config.yaml",
        "model",
        "prior",
    ]
    assert configs.load(MusicConfig, trained / "config.yaml") == CONFIG
    assert sorted(path.name for path in (trained / "model").iterdir()) == list(FILES)


def test_the_saved_model_is_the_best_of_both_stages(trained: Path, corpus: Path) -> None:
    """The likelihood of what is packed, before it is rounded, is that of its best validation."""
    _, *packed = unpack(trained / "model")
    model, prior = build(CONFIG)
    for stage, part in (("autoencoder", model), ("prior", PriorTask(prior, model))):
        load_into(part.eval(), read_tensors(trained / stage / "best.safetensors")[1], stage)
    for mine, other in zip(packed, (model, prior), strict=True):
        wanted = other.state_dict()
        for name, value in mine.state_dict().items():
            if name != "quantise.sums":  # made anew from counts and codebook
                assert torch.equal(value, wanted[name].half().float()), name
    clips, tuning = split_songs(load_clips(corpus, CONFIG.tokens))
    sums, rows = {"autoencoder": 0.0, "prior": 0.0}, 0.0
    with torch.inference_mode():
        for batch in whole_batches(tuning or clips[:16], CONFIG):
            count = float(batch.mask.sum())
            sums["autoencoder"] += count * float(plain_nll(model, batch))
            sums["prior"] += count * float(PriorTask(prior, model).losses(batch)["nll"])
            rows += count
    for stage, total in sums.items():
        best = min(validations(trained / stage), key=lambda losses: losses["loss"])
        assert total / rows == pytest.approx(best["nll"], rel=1e-4), stage


def plain_nll(model: Any, batch: Any) -> torch.Tensor:
    losses: dict[str, torch.Tensor] = model.losses(batch)
    return losses["nll"]


def test_training_again_gives_the_same_model(undisturbed: Path, corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(77)
    train(SHORT, corpus, tmp_path / "exp", quiet=True)
    assert same_model(tmp_path / "exp", undisturbed)


@pytest.mark.parametrize("stop", ["between the stages", "before packing", "within the second"])
def test_resuming_gives_the_same_model(
    stop: str, undisturbed: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, out = training.fit, tmp_path / "exp"

    def stopped(task: Any, batches: Any, plan: TrainConfig, folder: Path, **how: Any) -> Any:
        if folder.name == "prior":
            if stop == "between the stages":
                raise KeyboardInterrupt
            if stop == "within the second":
                plain = batches
                batches = lambda index, rank, world: interrupt() if index == 3 else plain(index, rank, world)  # noqa: E731
        result = fit(task, batches, plan, folder, **how)
        if folder.name == "prior":
            raise KeyboardInterrupt
        return result

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(SHORT, corpus, out, quiet=True)
    assert not (out / "model").exists()
    torch.manual_seed(77)
    train(SHORT, corpus, out, resume=True, quiet=True)
    assert same_model(out, undisturbed)


def test_a_finished_training_is_not_overwritten_but_may_be_resumed(undisturbed: Path, corpus: Path) -> None:
    with pytest.raises(AffgenError, match="holds a training already"):
        train(SHORT, corpus, undisturbed, quiet=True)
    before = [(undisturbed / "model" / name).read_bytes() for name in FILES]
    train(SHORT, corpus, undisturbed, resume=True, quiet=True)
    assert [(undisturbed / "model" / name).read_bytes() for name in FILES] == before


@pytest.mark.parametrize(
    "change",
    [
        {"fusion": "ca", "reduction": "trans", "conditioning": "token", "dropout": 0.1},
        {"decoder": "E", "reduction": "none"},
        {"decoder": "G", "bottleneck": "none"},
    ],
    ids=["published kind", "elements only", "plain auto-encoder"],
)
def test_ablations_train_from_end_to_end(change: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    config = with_model(SHORT, **change)
    if change.get("fusion") == "ca":
        config = replace(config, prior=replace(config.prior, context="codes", conditioning="token"))
    plan = replace(BRIEF, steps=2)
    train(replace(config, train_model=plan, train_prior=plan), corpus, tmp_path / "exp", quiet=True)
    unpack(tmp_path / "exp" / "model")


def test_a_model_that_could_not_decode_is_refused_before_anything_is_written(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(AffgenError, match=r'set prior\.context to "codes"'):
        train(with_model(SHORT, fusion="ca"), corpus, tmp_path / "exp", quiet=True)
    assert not (tmp_path / "exp").exists()


def test_codes_for_the_prior_come_without_dropout(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, codes = [], MusER.codes
    monkeypatch.setattr(MusER, "codes", lambda self, *rows: modes.append(self.training) or codes(self, *rows))
    plan = replace(BRIEF, steps=2)
    train(
        replace(with_model(SHORT, dropout=0.5), train_model=plan, train_prior=plan),
        corpus,
        tmp_path / "exp",
        quiet=True,
    )
    assert modes and not any(modes)


def test_the_prior_task_trains_the_prior_alone(corpus: Path) -> None:
    torch.manual_seed(0)
    model, prior = build(MINIATURE)
    task = PriorTask(prior, model)
    assert {id(p) for p in task.parameters()} == {id(p) for p in prior.parameters()}
    assert all(name.startswith("prior.") for name in task.state_dict())
    batch = next(iter(whole_batches(load_clips(corpus, MINIATURE.tokens)[:3], MINIATURE)))
    task.losses(batch)["nll"].backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in prior.parameters())
    codes = model.eval().codes(batch.y, batch.mask)
    wanted = prior.losses(codes, batch.x, batch.mask, batch.conditions)["nll"]
    torch.testing.assert_close(task.losses(batch)["nll"], wanted)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError):
        train(SHORT, tmp_path / "data", tmp_path / "exp", quiet=True)
    assert not (tmp_path / "exp" / "model").exists()
