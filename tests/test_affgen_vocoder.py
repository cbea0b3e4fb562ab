"""The vocoder: excitation, filters, losses, training in two stages, chunks that equal the whole, model directories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affgen.audio import Audio
from affgen.errors import AffgenError, ModelError
from affgen.features import BANDS, HOP, SAMPLE_RATE, extract, log_mel
from affgen.testing_voice import fabricated_voice
from affgen.vocoder import Vocoder
from affgen.vocoder.config import MINIATURE, GeneratorConfig, VocoderConfig
from affgen.vocoder.data import Batch, Clip, batches, split
from affgen.vocoder.discriminators import Discriminators
from affgen.vocoder.losses import SpectralDistance, energy_distance
from affgen.vocoder.model import Generator
from affgen.vocoder.pack import SHIPPED, pack, unpack
from affgen.vocoder.source import fill_gaps, noise, per_sample, pulses
from affgen.vocoder.train import AdversarialTask, DistanceTask
from affgen.vocoder.vocoder import start_phases

FRAMES = 96


@pytest.fixture(scope="module")
def miniature() -> Generator:
    torch.manual_seed(0)
    generator = Generator(MINIATURE.generator)
    with torch.no_grad():
        generator.leave.weight.normal_(std=0.3)  # filters that differ from frame to frame
    return generator.eval()


def contour(frames: int = FRAMES) -> np.ndarray:
    """A gliding F0 with two gaps."""
    f0 = (180 + 60 * np.sin(np.arange(frames) / 9)).astype(np.float32)
    f0[20:27] = 0
    f0[60:80] = 0
    return f0


def mel(frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-6, -1, (BANDS, frames)).astype(np.float32)


def batch(count: int = 2, frames: int = 16) -> Batch:
    rng = np.random.default_rng(3)
    wave = torch.from_numpy(rng.normal(0, 0.1, (count, frames * HOP)).astype(np.float32))
    mels = torch.from_numpy(np.stack([mel(frames, i) for i in range(count)]))
    return Batch(mels, torch.full((count, frames), 200.0), torch.ones(count, frames), wave, ["a"] * count)


# --- excitation ---


def test_pulses_have_harmonics_of_f0_and_nothing_between_them() -> None:
    f0 = 220.5  # 100 samples
    wave = pulses(torch.full((1, SAMPLE_RATE), f0), torch.zeros(1))
    spectrum = np.abs(np.fft.rfft(wave[0].numpy())) / SAMPLE_RATE * 2
    lines = spectrum[np.round(f0 * np.arange(1, 49)).astype(int)]
    assert spectrum[[110, 331, 5000, 10_990]].max() < 0.02 * lines.max()
    exact = spectrum[441::441][:20]  # every second harmonic falls on a bin
    assert np.allclose(exact, np.sqrt(4 * f0 / SAMPLE_RATE), rtol=0.02)


def test_pulses_and_noise_have_the_same_power_per_hertz() -> None:
    wave = pulses(torch.full((1, 4 * SAMPLE_RATE), 147.0), torch.zeros(1))
    assert float(wave.square().mean()) == pytest.approx(1.0, abs=0.05)
    assert float(np.square(noise(0, 4 * SAMPLE_RATE, 1)).mean()) == pytest.approx(1.0, abs=0.02)


def test_a_train_goes_on_from_the_phase_it_had_reached() -> None:
    f0 = torch.linspace(100, 300, 8 * HOP).unsqueeze(0)
    whole = pulses(f0, torch.zeros(1))
    phase = f0[:, : 3 * HOP].double().sum(dim=1) / SAMPLE_RATE % 1
    assert torch.allclose(pulses(f0[:, 3 * HOP :], phase), whole[:, 3 * HOP :], atol=2e-3)


def test_start_phases_are_those_of_the_interpolated_pitch() -> None:
    f0 = fill_gaps(contour())
    summed = np.cumsum(per_sample(torch.from_numpy(f0).double().unsqueeze(0))[0].numpy() / SAMPLE_RATE)
    apart = (start_phases(f0)[1:] - summed[HOP - 1 : -1 : HOP]) % 1
    assert np.minimum(apart, 1 - apart).max() < 1e-5


def test_noise_is_a_function_of_the_position() -> None:
    whole = noise(0, 20_000, seed=4)
    assert np.array_equal(whole[5000:13_000], noise(5000, 8000, seed=4))
    assert not np.array_equal(whole[:100], noise(0, 100, seed=5))


def test_gaps_are_filled() -> None:
    assert fill_gaps(np.array([0, 100, 0, 0, 130, 0], np.float32)).tolist() == [100, 100, 110, 120, 130, 130]
    assert set(fill_gaps(np.zeros(5, np.float32))) == {200.0}


# --- network ---


def test_the_inverse_undoes_the_spectrum(miniature: Generator) -> None:
    wave = torch.randn(2, 16 * HOP)
    again = miniature.inverse(miniature.spectrum(wave))
    assert again.shape == wave.shape
    inner = slice(512, -512)
    assert torch.allclose(again[:, inner], wave[:, inner], atol=1e-4)


def test_an_untrained_network_already_has_the_envelope_of_the_mel() -> None:
    """The mel of noise, given back as noise, is that noise's mel: the envelope and its gain are right."""
    hiss = 0.1 * np.random.default_rng(0).standard_normal(200 * HOP).astype(np.float32)
    wanted = log_mel(hiss)
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(width=8, hidden=8, blocks=1))
    torch.nn.init.zeros_(generator.leave.weight)
    with torch.inference_mode():
        silent = torch.zeros(1, wanted.shape[1])
        made = generator(torch.from_numpy(wanted).unsqueeze(0), silent + 200, silent)[0, 0].numpy()
    difference = (log_mel(made) - wanted)[:, 5:-5].mean(axis=1)
    assert np.abs(difference[10:]).mean() < 0.1


def test_unvoiced_frames_have_no_pulses(miniature: Generator) -> None:
    voiced = torch.zeros(1, 40)
    voiced[:, 10:20] = 1
    gate = miniature.gate(voiced)[0]
    assert gate[: 7 * HOP].max() == 0 and gate[23 * HOP :].max() == 0 and gate[9 * HOP : 21 * HOP].min() == 1


def test_shipped_sizes() -> None:
    generator = Generator(VocoderConfig().generator)
    assert sum(p.numel() for p in generator.parameters()) == 3_720_966
    judges = Discriminators(VocoderConfig().discriminator)
    assert len(judges(torch.randn(1, 4096))) == 8


# --- losses ---


def test_the_energy_distance_prefers_the_right_amount_of_noise() -> None:
    """Target: noise of standard deviation 0.1. An ordinary distance would prefer less; the energy distance does not."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda scale: scale * torch.randn(8, 8192, generator=generator)  # noqa: E731
    distance = SpectralDistance()

    def value(scale: float) -> float:
        return float(sum(energy_distance(distance, draw(0.1), draw(scale), draw(scale)).values()))

    right = value(0.1)
    assert right < value(0.07) and right < value(0.14) and right < value(0.03)


def test_the_energy_distance_prefers_noise_to_a_tone_of_the_same_power() -> None:
    time = torch.arange(8192) / SAMPLE_RATE
    tone = (0.1 * torch.sqrt(torch.tensor(2.0)) * torch.cos(2 * torch.pi * 440 * time)).expand(4, -1)
    target, one, two = (0.1 * torch.randn(4, 8192) for _ in range(3))
    distance = SpectralDistance()
    assert sum(energy_distance(distance, target, one, two).values()) < sum(
        energy_distance(distance, target, tone, tone).values()
    )


def test_no_loss_reaches_the_other_player() -> None:
    torch.manual_seed(0)
    task = AdversarialTask(Generator(MINIATURE.generator), Discriminators(MINIATURE.discriminator))
    names = {"generator": ("adversarial", "matching", "attraction", "repulsion"), "discriminators": ("discriminators",)}
    for player, own in names.items():
        for name in sum(names.values(), ()):
            task.zero_grad(set_to_none=True)
            task.losses(batch())[name].backward()
            moved = any(p.grad is not None and p.grad.abs().max() > 0 for p in getattr(task, player).parameters())
            assert moved == (name in own), (player, name)


# --- training ---


def corpus(count: int = 6) -> list[Clip]:
    rng = np.random.default_rng(0)
    return [
        Clip(f"u{i}", mel(40, i).astype(np.float16), np.full(40, 200, np.float32), np.ones(40, np.float32),
             rng.integers(-3000, 3000, 40 * HOP).astype(np.int16))
        for i in range(count)
    ]  # fmt: skip


def test_batches_are_a_function_of_the_index_and_louder_mel_means_louder_wave() -> None:
    config = replace(MINIATURE.data, gain_db=6.0)
    draw = batches([corpus()], config, 3, seed=1)
    one, again, other = draw(5, 0, 1), draw(5, 0, 1), draw(6, 0, 1)
    assert torch.equal(one.wave, again.wave) and not torch.equal(one.wave, other.wave)
    clip = {c.name: c for c in corpus()}[one.names[0]]
    gain = float(one.mel[0].mean()) - float(clip.mel.mean())
    assert one.wave[0].abs().max() / (np.abs(clip.wave).max() / 32767) == pytest.approx(np.exp(gain), rel=0.15)


def test_tuning_clips_are_kept_from_training() -> None:
    training, tuning = split([corpus(6), corpus(1)], replace(MINIATURE.data, valid_utterances=4))
    assert [len(clips) for clips in training] == [4, 1] and len(tuning) == 2


def test_training_lowers_the_distance() -> None:
    torch.manual_seed(0)
    task = DistanceTask(Generator(MINIATURE.generator))
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    fixed, losses = batch(), []
    for _ in range(25):
        torch.manual_seed(1)
        loss = sum(task.losses(fixed).values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        losses.append(loss.item())  # type: ignore[union-attr]
    assert losses[-1] < 0.9 * losses[0]


# --- synthesis ---


@pytest.mark.parametrize("chunk", [7, 32, 50])
def test_chunks_equal_the_whole(miniature: Generator, chunk: int) -> None:
    vocoder = Vocoder(miniature)
    whole = vocoder.synthesize(mel(), contour(), seed=1, chunk=FRAMES)
    pieces = vocoder.synthesize(mel(), contour(), seed=1, chunk=chunk)
    assert whole.shape == (FRAMES * HOP,) and whole.dtype == np.float32
    residual = np.square(pieces - whole).mean() / np.square(whole).mean()
    assert 10 * np.log10(residual + 1e-20) < -60


def test_same_seed_same_samples_and_another_seed_other_noise(miniature: Generator) -> None:
    vocoder = Vocoder(miniature)
    one = vocoder.synthesize(mel(), contour(), seed=1)
    assert np.array_equal(one, vocoder.synthesize(mel(), contour(), seed=1))
    assert not np.array_equal(one, vocoder.synthesize(mel(), contour(), seed=2))


@pytest.mark.parametrize(
    ("values", "f0"),
    [
        (np.zeros((79, 4)), np.zeros(4)),
        (np.zeros((80, 4)), np.zeros(5)),
        (np.zeros((80, 0)), np.zeros(0)),
        (np.full((80, 4), np.nan), np.zeros(4)),
        (np.zeros((80, 4)), np.full(4, -1.0)),
        (np.zeros((80, 4)), np.full(4, 9000.0)),
    ],
)
def test_bad_features_are_refused(miniature: Generator, values: np.ndarray, f0: np.ndarray) -> None:
    with pytest.raises(AffgenError):
        Vocoder(miniature).synthesize(values.astype(np.float32), f0.astype(np.float32))


# --- model directories ---


def test_a_packed_model_says_the_same(miniature: Generator, tmp_path: Path) -> None:
    pack(MINIATURE, miniature, tmp_path / "model")
    one = Vocoder(miniature).synthesize(mel(), contour())
    two = Vocoder.from_pretrained(tmp_path / "model").synthesize(mel(), contour())
    assert np.square(one - two).mean() < 1e-3 * np.square(one).mean()
    about = json.loads((tmp_path / "model" / "config.json").read_text())
    assert about["task"] == "vocoder" and about["config"]["generator"]["width"] == 16


def test_a_model_of_another_kind_is_refused(miniature: Generator, tmp_path: Path) -> None:
    pack(MINIATURE, miniature, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"width": 16', '"width": 17'))
    with pytest.raises(ModelError, match="model"):
        unpack(tmp_path / "model")


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no vocoder is shipped yet")
@pytest.mark.parametrize("kind", ["man", "woman", "singer"])
def test_the_shipped_vocoder_keeps_envelope_pitch_and_voicing(kind: str) -> None:
    wanted = extract(Audio(fabricated_voice(1, kind, seconds=4.0).samples, SAMPLE_RATE))
    made = extract(Audio(Vocoder.from_pretrained().synthesize(wanted.mel, wanted.f0), SAMPLE_RATE))
    both = (wanted.f0 > 0) & (made.f0 > 0)
    assert np.median(np.abs(1200 * np.log2(made.f0[both] / wanted.f0[both]))) < 10
    assert ((wanted.f0 > 0) != (made.f0 > 0)).mean() < 0.1
    assert np.abs(made.mel - wanted.mel).mean() < 0.6


def test_the_command_line_refuses_what_holds_no_waves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from affgen.cli import main

    assert main(["vocoder", "evaluate", str(tmp_path), "--out", str(tmp_path / "m.json")]) == 2
    assert main(["vocoder", "train", "--data", str(tmp_path), "--out", str(tmp_path / "exp")]) == 2
    assert capsys.readouterr().err.count("\n") == 2 and not (tmp_path / "exp").exists()
