"""The system as a whole, and its adversaries: losses fall, all of it learns, switches switch, and 0 is neutral."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from affgen.errors import AffgenError
from affgen.features import BANDS
from affgen.score import Note, Score, Tempo
from affgen.training import fit
from affgen.training_config import TrainConfig
from svs import model as model_module
from svs.adversary import AdversarialTask, MelDiscriminators
from svs.config import MINIATURE, MuseConfig
from svs.front import ScoreBatch, ScoreFrontEnd, ScoreInput
from svs.model import Control, MuseSVS, SingingBatch
from svs.text import sung

SWITCHES: dict[str, tuple[str, ...]] = {
    "block": ("aspp", "fft"),
    "embedding": ("residual", "additive"),
    "pitch": ("statistical", "deterministic"),
    "duration": ("residual", "boundary", "plain"),
}
ABLATIONS = [{}, *({name: value} for name, values in SWITCHES.items() for value in values[1:])]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def read(*notes: tuple[float, float, int, str]) -> ScoreInput:
    """Notes of (onset, duration, pitch, lyric), a beat of half a second."""
    score = Score(tuple(Note(a, b, p, lyric=text) for a, b, p, text in notes), tempos=(Tempo(0, 120.0),))
    return ScoreFrontEnd()(score, sung(score))


SHORT = read((0, 0.5, 60, "la"))
LINE = read((0.2, 0.5, 60, "do"), (0.7, 0.3, 64, ""), (1.2, 0.6, 67, "star"))


def batch(*inputs: ScoreInput, seed: int = 0) -> SingingBatch:
    """Recordings of nothing in particular, sung as written but for one frame."""
    rng, score = np.random.default_rng(seed), ScoreBatch.of(inputs)
    ends = score.nominal.cumsum(dim=1).round().long()
    durations = torch.diff(ends, dim=1, prepend=torch.zeros_like(ends[:, :1]))
    shape = len(inputs), int(ends[:, -1].max())
    f0 = rng.uniform(200, 400, shape) * (rng.random(shape) < 0.8)
    return SingingBatch(
        score=score,
        singer=torch.arange(len(inputs)) % 2,
        emotion=1 + torch.arange(len(inputs)) % 3,
        intensity=torch.linspace(0.5, 1, len(inputs)),
        durations=durations,
        mel=torch.from_numpy(rng.normal(-5, 2, (shape[0], BANDS, shape[1])).astype(np.float32)),
        f0=torch.from_numpy(f0.astype(np.float32)),
        energy=torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32)),
    )


def singer(**switches: Any) -> MuseSVS:
    return MuseSVS(replace(MINIATURE, **switches))


def bytes_of(made: Any) -> list[bytes]:
    return [np.ascontiguousarray(value).tobytes() for value in vars(made).values()]


@pytest.mark.parametrize("switches", ABLATIONS, ids=str)
def test_losses_fall_and_all_weights_learn(switches: dict[str, str]) -> None:
    net, data = singer(**switches), batch(LINE, SHORT)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    totals = []
    for _ in range(12):
        optimizer.zero_grad()
        losses = net.losses(data)
        assert set(losses) == set(net.config.weights)
        assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
        total = sum(net.config.weights[name] * loss for name, loss in losses.items())
        total.backward()  # type: ignore[union-attr]
        if not totals:
            for name, p in net.named_parameters():
                assert p.grad is not None and p.grad.abs().sum() > 0, name
        optimizer.step()
        totals.append(total.item())  # type: ignore[union-attr]
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.parametrize("switches", ABLATIONS, ids=str)
def test_a_recording_teaches_the_same_alone_and_beside_a_longer_one(switches: dict[str, str]) -> None:
    net = singer(**switches).eval()
    both = batch(SHORT, LINE)
    count, frames = len(SHORT), SHORT.frames
    alone = SingingBatch(
        ScoreBatch.of([SHORT]),
        *(both.singer[:1], both.emotion[:1], both.intensity[:1], both.durations[:1, :count]),
        *(both.mel[:1, :, :frames], both.f0[:1, :frames], both.energy[:1, :frames]),
    )
    together = net.taught(both)[1][:1]
    losses, made, _ = net.taught(alone)
    assert (together[..., :frames] - made).abs().max() <= 1e-5
    assert together[..., frames:].eq(0).all()
    doubled = batch(SHORT, LINE)
    doubled.mel[:1, :, frames:] = 99.0
    doubled.f0[:1, frames:] = 300.0
    doubled.energy[:1, frames:] = 99.0
    for name, loss in net.losses(doubled).items():
        assert torch.equal(loss, net.losses(both)[name]) and losses[name].isfinite()


@pytest.mark.parametrize(
    ("embedding", "duration", "pitch"), list(product(SWITCHES["embedding"], SWITCHES["duration"], SWITCHES["pitch"]))
)
def test_intensity_0_is_neutral_to_the_bit(embedding: str, duration: str, pitch: str) -> None:
    net = singer(embedding=embedding, duration=duration, pitch=pitch).eval()
    neutral = bytes_of(net.generate(LINE, "bob", "neutral", 1.3))
    assert bytes_of(net.generate(LINE, "bob", "sad", 0.0)) == neutral
    assert bytes_of(net.generate(LINE, "bob", "sad", np.zeros(len(LINE)))) == neutral
    assert bytes_of(net.generate(LINE, "bob", "sad", 1.0)) != neutral != bytes_of(net.generate(LINE, "ada", "sad", 0.0))


def test_a_performance_has_the_frames_of_its_durations() -> None:
    for duration in SWITCHES["duration"]:
        made = singer(duration=duration).eval().generate(LINE, "ada", "happy", 0.8)
        frames = int(made.durations.sum())
        assert made.mel.shape == (BANDS, frames) and made.f0.shape == made.energy.shape == (frames,)
        assert made.mel.dtype == np.float32 and np.isfinite(made.mel).all() and (made.f0 >= 0).all()
        assert duration != "boundary" or frames == LINE.frames


def test_intensity_may_change_from_phoneme_to_phoneme() -> None:
    net = singer().eval()
    same = bytes_of(net.generate(LINE, "ada", "happy", 0.8))
    assert bytes_of(net.generate(LINE, "ada", "happy", np.full(len(LINE), 0.8))) == same
    assert bytes_of(net.generate(LINE, "ada", "happy", np.linspace(0, 1.5, len(LINE)))) != same


def voiced_singer(**switches: Any) -> MuseSVS:
    net = singer(**switches)
    with torch.no_grad():
        net.pitch.curve.out.bias[1] = 9.0  # type: ignore[index, operator, union-attr]
    return net.eval()


def test_pitch_stays_by_the_notes_and_follows_the_knobs() -> None:
    net = voiced_singer(duration="boundary")
    made = net.generate(LINE, "ada", "sad")
    pitch = np.repeat(LINE.midi, made.durations)
    assert ((made.f0 > 0) == (pitch > 0)).all()
    heard = 69 + 12 * np.log2(np.maximum(made.f0, 1) / 440)
    assert np.abs(heard - pitch)[pitch > 0].max() < 12
    up = net.generate(LINE, "ada", "sad", control=Control(shift=np.full(len(LINE), 12.0)))
    assert up.f0 == pytest.approx(2 * made.f0, rel=1e-4)
    flat = net.generate(LINE, "ada", "sad", control=Control(sigma_scale=0.0))
    level = [np.ptp(part[part > 0]) for part in np.split(flat.f0, np.cumsum(flat.durations)) if (part > 0).any()]
    assert max(level) < 0.2
    still = net.generate(LINE, "ada", "sad", control=Control(vibrato=0.0))
    assert np.abs(np.diff(still.f0)).sum() < np.abs(np.diff(made.f0)).sum()
    loud = net.generate(LINE, "ada", "sad", control=Control(gain_db=20.0))
    assert loud.energy - made.energy == pytest.approx(np.full(len(made.energy), np.log(10)), abs=1e-4)


def test_the_mel_comes_in_the_units_of_the_front_end() -> None:
    net = singer(duration="boundary").eval()
    made = net.generate(LINE, "ada")
    net.mel_mean += 1.0
    assert net.generate(LINE, "ada").mel == pytest.approx(made.mel + 1, abs=1e-5)
    data = batch(LINE)
    assert net.standard(data.mel) * net.mel_scale[:, None] + net.mel_mean[:, None] == pytest.approx(data.mel, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("eve",), "there are ada, bob"),
        (("ada", "bored"), "there are neutral, calm, happy, sad"),
        (("ada", "sad", 1.6), "0 to 1.5"),
        (("ada", "sad", float("nan")), "0 to 1.5"),
        (("ada", "sad", np.zeros(3)), "one for each phoneme"),
        (("ada", "sad", 1.0, Control(vibrato=-1.0)), "vibrato"),
        (("ada", "sad", 1.0, Control(shift=99.0)), "shift"),
    ],
)
def test_what_cannot_be_sung_is_refused_in_one_line(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(AffgenError, match=said) as caught:
        singer().eval().generate(LINE, *arguments)
    assert "\n" not in str(caught.value)


def test_too_long_a_score_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "LONGEST", 40)
    with pytest.raises(AffgenError, match="in phrases"):
        singer().eval().generate(LINE, "ada")


def test_what_a_tracker_finds_in_rests_is_not_heard() -> None:
    net, data = singer().eval(), batch(LINE)
    _, made, frames = net.taught(data)
    other = replace(data, f0=torch.where(frames.note > 0, data.f0, 333.0))
    assert not torch.equal(other.f0, data.f0) and torch.equal(net.taught(other)[1], made)


def test_durations_that_are_not_those_of_the_recordings_are_refused() -> None:
    data = batch(LINE)
    with pytest.raises(AffgenError, match="durations of"):
        singer().losses(replace(data, f0=data.f0[:, 1:]))


def test_switches_change_what_is_built() -> None:
    whole = {name: value.shape for name, value in singer().state_dict().items()}
    for switches in ABLATIONS[1:]:
        assert {name: value.shape for name, value in singer(**switches).state_dict().items()} != whole
    assert MuseConfig().weights.keys() - replace(MuseConfig(), pitch="deterministic").weights.keys() == {"statistics"}


# --- adversaries ---


def test_each_discriminator_sees_its_band_of_its_stretch_alone() -> None:
    config = MINIATURE.adversary
    judges = MelDiscriminators(config)
    mel = torch.randn(2, BANDS, 40, requires_grad=True)
    places = [torch.tensor([3, 30]), torch.tensor([0, 9])]
    judged = judges(mel, places)
    assert len(judged) == len(config.bands) * len(config.segments)
    for number, (score, features) in enumerate(judged):
        size, start = config.segments[number // 3], places[number // 3][0]
        low, high = config.bands[number % 3]
        (grad,) = torch.autograd.grad(score[0].sum() + features[0][0].sum(), mel, retain_graph=True)
        seen = torch.zeros(BANDS, 40)
        seen[low:high, start : start + size] = 1
        assert grad[1].eq(0).all() and grad[0][seen == 0].eq(0).all() and grad[0][seen == 1].ne(0).any()


def test_stretches_lie_inside_the_recordings() -> None:
    judges = MelDiscriminators(MINIATURE.adversary)
    mask = torch.arange(40) < torch.tensor([[5], [16], [40]])
    drawn = torch.stack([torch.stack(judges.places(mask)) for _ in range(200)])  # (200, segments, B)
    assert drawn.min() == 0
    assert drawn.amax(dim=0).tolist() == [[0, 8, 32], [0, 0, 24]]


def test_no_player_moves_the_other() -> None:
    task, data = AdversarialTask(singer()), batch(LINE, SHORT)
    assert task.players() == (task.singer, task.discriminators)
    losses = task.losses(data)
    assert set(task.weights) | {"discriminators"} == set(losses)
    losses["discriminators"].backward(retain_graph=True)
    assert all(p.grad is None for p in task.singer.parameters())
    assert all(p.grad is not None and p.requires_grad for p in task.discriminators.parameters())
    task.zero_grad(set_to_none=True)
    (losses["adversarial"] + losses["matching"]).backward()
    assert all(p.grad is None for p in task.discriminators.parameters())
    assert task.singer.head.weight.grad is not None and task.singer.head.weight.grad.abs().sum() > 0


def test_both_players_train_in_the_shared_loop(tmp_path: Any) -> None:
    task, data = AdversarialTask(singer()), batch(LINE, SHORT)
    plan = TrainConfig(steps=3, batch_size=2, warmup=1, validate_every=9, save_every=9, log_every=1, ema=0.5)
    result = fit(task, lambda index, rank, world: data, plan, tmp_path / "run", weights=task.weights, quiet=True)
    assert result.step == 3 and any(name.startswith("discriminators.") for name in result.tensors)
