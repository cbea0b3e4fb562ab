"""The faithful EmoReg as a whole: gradients stop at the average voice, intensity 0 is the source, files agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affgen.emotion.dvm import DVM
from affgen.emotion.spec import MAX_INTENSITY
from affgen.errors import AffgenError, ModelError
from affgen.features import BANDS
from vc.diffusion import SDE
from vc.emoreg.config import MINIATURE, PUBLISHED, SMALL, TINY, EmoRegConfig, ScoreConfig, ShiftConfig
from vc.emoreg.data import AverageBatch, ScoreBatch
from vc.emoreg.system import EmoReg, pack, unpack

LABELS = ("neutral", "happy", "sad")


def directions(rank: int | None = None) -> DVM:
    rng = np.random.default_rng(0)
    labels = [label for label in LABELS for _ in range(6)]
    centres = {label: 2 * rng.standard_normal(256) for label in LABELS}
    embeddings = np.stack([centres[label] + 0.3 * rng.standard_normal(256) for label in labels])
    return DVM.fit(embeddings.astype(np.float32), labels, n_comp=rank)


def made(config: EmoRegConfig = MINIATURE, rank: int | None = None) -> EmoReg:
    torch.manual_seed(0)
    return EmoReg(config, directions(rank)).eval()


@pytest.fixture(scope="module")
def system() -> EmoReg:
    return made()


def mel(frames: int = 13, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-8, 0, (BANDS, frames)).astype(np.float32)


def embedding(seed: int) -> np.ndarray:
    return np.random.default_rng([7, seed]).standard_normal(256).astype(np.float32)


def batch(count: int = 2, frames: int = 8) -> ScoreBatch:
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(count, 1, frames)
    mask[0, :, frames // 2 :] = 0
    return ScoreBatch(
        [str(k) for k in range(count)],
        torch.randn(count, BANDS, frames, generator=generator) * mask,
        mask,
        torch.randn(count, 256, generator=generator),
        torch.randn(count, BANDS, frames, generator=generator),
        torch.ones(count, 1, frames),
    )


# --- training ---


def test_no_gradient_reaches_the_average_voice() -> None:
    system = made()
    system.average.requires_grad_(True)  # even if somebody forgot to freeze it
    sum(system.losses(batch()).values()).backward()
    assert all(p.grad is None for p in system.average.parameters())
    assert all(p.grad is not None for p in system.score.parameters())


def test_the_average_voice_is_frozen_and_stays_in_evaluation_mode() -> None:
    system = EmoReg(MINIATURE).train()
    assert not any(p.requires_grad for p in system.average.parameters())
    assert system.score.training and not any(part.training for part in system.average.modules())


def test_the_loss_is_that_of_the_paper_and_padding_does_not_count() -> None:
    system = made(replace(MINIATURE, score=replace(MINIATURE.score, reference=False)))
    torch.nn.init.zeros_(system.score.out.weight)
    torch.nn.init.zeros_(system.score.out.bias)
    values = batch(32, 16)
    torch.manual_seed(0)
    assert system.losses(values)["score"].item() == pytest.approx(1, abs=0.03)  # a score of 0: the noise itself is left
    values.mel[:, :, 8:] = 1e6
    torch.manual_seed(0)
    assert system.losses(replace(values, mask=values.mask * (torch.arange(16) < 8)))["score"].isfinite()


def test_the_loss_of_a_true_score_is_small() -> None:
    """Where X0 is known, the score of p(X_t | X_0) is -z / sqrt(1 - gamma^2), and the loss of that is 0."""
    system, sde, values = made(), SDE(), batch(16, 8)
    average = system.average_voice(values.mel, values.mask)

    def score(x_t, xbar, time, emotion, mask, **more):
        kept, variance = sde.gamma(0.0, time)[:, None, None], sde.variance(0.0, time)[:, None, None]
        assert (
            torch.equal(xbar, average)
            and torch.equal(emotion, values.emotion)
            and set(more)
            == {
                "reference",
                "reference_mask",
            }
        )
        return -(x_t - kept * values.mel - (1 - kept) * average) / variance

    system.score.forward = score
    assert system.losses(values)["score"].item() < 1e-4


def test_both_networks_train_in_half_precision(system: EmoReg) -> None:
    values = batch(2, 16)
    spoken = AverageBatch(values.names, values.mel, values.mask, values.reference)
    for module, given in ((system, values), (system.average, spoken)):
        found = []
        for half in (False, True):
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found.append(sum(module.losses(given).values()).item())
        assert found[1] == pytest.approx(found[0], rel=0.05)


# --- emotion ---


def test_intensity_0_is_the_source_and_1_the_reference_at_full_rank(system: EmoReg) -> None:
    e_s, e_r = embedding(0), embedding(1)
    assert np.array_equal(system.shifted(e_s, e_r, 0), e_s)
    assert system.shifted(e_s, e_r, 1) == pytest.approx(e_r, abs=1e-5)
    low = made(rank=1)
    assert np.abs(low.shifted(e_s, e_r, 1) - e_r).max() > 0.1
    assert (
        np.linalg.matrix_rank(np.stack([low.shifted(e_s, embedding(k), 1) - e_s for k in range(2, 6)]), tol=1e-3) == 1
    )


def test_the_shift_is_linear_in_the_intensity_and_follows_a_curve(system: EmoReg) -> None:
    e_s, curve = embedding(0), np.array([0, 0.5, 1, 1.5])
    rows = system.shifted(e_s, "happy", curve)
    assert rows.shape == (4, 256) and rows.dtype == np.float32
    assert rows == pytest.approx(e_s + curve[:, None] * (rows[2] - e_s), abs=1e-5)
    assert not np.allclose(rows[2], system.shifted(e_s, "happy", 1, source="sad"), atol=1e-3)


@pytest.mark.parametrize(
    ("target", "i", "source", "match"),
    [
        ("angry", 1, "neutral", "angry.*neutral, happy, sad"),
        ("happy", 1, "calm", "calm"),
        ("happy", -0.1, "neutral", f"0 to {MAX_INTENSITY}"),
        ("happy", 1.6, "neutral", f"0 to {MAX_INTENSITY}"),
        ("happy", float("nan"), "neutral", f"0 to {MAX_INTENSITY}"),
        ("happy", np.zeros((2, 13)), "neutral", "one for each frame"),
        ("happy", np.zeros(12), "neutral", "12 intensities for 13 frames"),
        (np.zeros(255), 1, "neutral", "255"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(system: EmoReg, target, i, source: str, match: str) -> None:
    with pytest.raises(AffgenError, match=match):
        system.convert(mel(), embedding(0), target, i, source=source, steps=1)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (mel()[:79], {}),
        (mel(0), {}),
        (np.full((BANDS, 4), np.nan, np.float32), {}),
        (mel(), {"reference": mel()[:, :0]}),
        (mel(), {"sampler": "flow"}),
        (mel(), {"sampler": "ddim"}),
        (mel(), {"steps": 0}),
    ],
)
def test_what_cannot_be_converted_is_refused(system: EmoReg, values: np.ndarray, options: dict) -> None:
    with pytest.raises(AffgenError):
        system.convert(values, embedding(0), "happy", 1, **options)


# --- conversion ---


@pytest.mark.parametrize("sampler", ["pf", "em", "ml"])
def test_conversion_keeps_length_and_depends_on_the_seed_alone(system: EmoReg, sampler: str) -> None:
    one, again, other = (
        system.convert(mel(), embedding(0), "happy", 0.7, steps=3, sampler=sampler, seed=seed) for seed in (1, 1, 2)
    )
    assert one.shape == (BANDS, 13) and one.dtype == np.float32 and np.isfinite(one).all()
    assert one.tobytes() == again.tobytes() and not np.allclose(one, other)


def test_a_constant_curve_is_a_number_and_no_intensity_forgets_the_target(system: EmoReg) -> None:
    def convert(target, i):
        return system.convert(mel(), embedding(0), target, i, steps=2)

    assert convert("happy", np.full(13, 0.7)) == pytest.approx(convert("happy", 0.7), abs=1e-3)
    assert np.array_equal(convert("happy", 0), convert(embedding(5), 0))
    assert not np.allclose(convert("happy", 1), convert("sad", 1), atol=1e-4)


def test_the_reference_mel_is_heard_where_the_sizes_say_so(system: EmoReg) -> None:
    plain = made(replace(MINIATURE, score=replace(MINIATURE.score, reference=False)))
    for one, heard in ((system, True), (plain, False)):
        own, other = (one.convert(mel(), embedding(0), "sad", 1, steps=2, reference=r) for r in (None, mel(20, 9)))
        assert np.allclose(own, other, atol=1e-5) != heard


def test_the_ablation_passes_the_plain_difference() -> None:
    none = made()
    none.dvm = directions(1).ablated()
    e_s, e_r = embedding(0), embedding(1)
    assert none.shifted(e_s, e_r, 0.5) == pytest.approx(e_s + 0.5 * (e_r - e_s), abs=1e-6)


# --- configurations and model directories ---


def test_named_sizes_are_those_published() -> None:
    assert EmoRegConfig() == PUBLISHED and PUBLISHED.score.reference
    assert (PUBLISHED.score.dim, SMALL.score.dim, TINY.score.dim) == (256, 64, 32)
    assert SMALL.average == TINY.average == PUBLISHED.average
    assert (PUBLISHED.train_encoder.batch_size, PUBLISHED.train_encoder.learning_rate) == (128, 5e-4)
    assert (PUBLISHED.train_decoder.batch_size, PUBLISHED.train_decoder.learning_rate) == (32, 1e-4)
    assert PUBLISHED.data.frames == 128 and PUBLISHED.train_decoder.clip == PUBLISHED.train_encoder.clip == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda: ScoreConfig(dim=12),
        lambda: ScoreConfig(dim=10**6),
        lambda: ShiftConfig(n_comp=2.5),
        lambda: ShiftConfig(n_comp=0),
        lambda: ShiftConfig(n_mix=0),
        lambda: replace(MINIATURE.average, kernel=4),
        lambda: replace(MINIATURE.average, heads=3),
        lambda: replace(MINIATURE.data, frames=126),
        lambda: replace(MINIATURE.sde, beta_min=0.0),
        lambda: replace(MINIATURE.ser, train=True, backend="emotion2vec"),
    ],
)
def test_sizes_that_make_no_system_are_refused(change) -> None:
    with pytest.raises(AffgenError):
        change()


def test_components_are_a_count_or_a_share() -> None:
    assert ShiftConfig(n_comp=3).components == 3 and isinstance(ShiftConfig(n_comp=3).components, int)
    assert ShiftConfig(n_comp=0.9).components == 0.9


def test_a_packed_system_says_the_same(tmp_path: Path) -> None:
    one = made(rank=1)
    pack(one, tmp_path / "model")
    two = unpack(tmp_path / "model")
    assert two.config == one.config and two.labels == LABELS and two.dvm is not None and two.dvm.rank == 1
    a, b = (s.convert(mel(), embedding(0), "happy", 1, steps=3) for s in (one, two))
    assert np.square(a - b).mean() < 1e-3 * np.square(a).mean()
    assert not any(p.requires_grad for p in two.average.parameters())
    about = json.loads((tmp_path / "model" / "config.json").read_text())
    assert about["task"] == "emoreg" and about["config"]["labels"] == list(LABELS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"dim": 8', '"dim": 16'),
        ('"dim": 8', '"dim": 10000000'),
        ('"system": "emoreg"', '"system": "vc"'),
        ('"labels": [\n      "neutral",', '"labels": [\n      "joyful",'),
        ('"task": "emoreg"', '"task": "vc"'),
    ],
)
def test_a_damaged_model_directory_is_refused(tmp_path: Path, old: str, new: str) -> None:
    pack(made(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ModelError, match="model"):
        unpack(tmp_path / "model")


def test_a_system_without_a_dvm_says_so() -> None:
    with pytest.raises(AffgenError, match="stage dvm"):
        EmoReg(MINIATURE).convert(mel(), embedding(0), "happy", 1)
