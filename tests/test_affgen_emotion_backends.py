"""Networks that others pre-trained, as random miniatures in the form in which the real ones are published."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from affgen import config as configs
from affgen.audio import Audio
from affgen.datadir import DataDir, speakers
from affgen.emotion.backends import LONGEST_S, Speech, UpstreamEncoder
from affgen.emotion.config import EmotionConfig
from affgen.emotion.emotion2vec import AUDIO, Emotion2vec, Sizes, _slopes
from affgen.emotion.encoder import Encoder, load_encoder
from affgen.emotion.labels import LABELS
from affgen.emotion.space import EmotionSpace
from affgen.emotion.train import train_head
from affgen.errors import AffgenError, ModelError
from affgen.featuredir import write_index, write_shard

PUBLISHED: dict[str, Any] = {  # the keys of a config.json of Hugging Face that matter here
    "conv_dim": [16] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "hidden_size": 24,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "do_stable_layer_norm": False,
    "hidden_dropout": 0.1,
}
BUCKETS = {"num_buckets": 20, "max_bucket_distance": 40}
MINI = Sizes(channels=16, width=24, heads=6, hidden=48, prenet=1, blocks=2, tokens=3, positions=(2, 19, 4))


def sound(seconds: float = 0.4, rate: int = 16000, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    wave = rng.normal(size=round(seconds * rate)) * np.hanning(round(seconds * rate))
    return Audio((0.05 * wave).astype(np.float32), rate)


def published_state(backend: str, config: dict[str, Any]) -> dict[str, Tensor]:
    """A random state under the names of Hugging Face's WavLMModel or HubertModel, written down layer by layer."""
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {"masked_spec_embed": (width,)}
    inputs = [1, *config["conv_dim"]]
    for i, kernel in enumerate(config["conv_kernel"]):
        shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] = (inputs[i + 1], inputs[i], kernel)
        if i == 0 or config["feat_extract_norm"] == "layer":
            shapes |= _affine(f"feature_extractor.conv_layers.{i}.layer_norm", inputs[i + 1])
    shapes |= _affine("feature_projection.layer_norm", inputs[-1]) | _affine("encoder.layer_norm", width)
    shapes |= _linear("feature_projection.projection", inputs[-1], width)
    kernel, groups = config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
    place = "encoder.pos_conv_embed.conv"
    shapes |= {f"{place}.weight_g": (1, 1, kernel), f"{place}.weight_v": (width, width // groups, kernel)}
    shapes[f"{place}.bias"] = (width,)
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}"
        for name in "qkv":
            shapes |= _linear(f"{layer}.attention.{name}_proj", width, width)
        shapes |= _linear(f"{layer}.attention.out_proj", width, width)
        shapes |= _linear(f"{layer}.feed_forward.intermediate_dense", width, inner)
        shapes |= _linear(f"{layer}.feed_forward.output_dense", inner, width)
        shapes |= _affine(f"{layer}.layer_norm", width) | _affine(f"{layer}.final_layer_norm", width)
        if backend == "wavlm":
            shapes |= _linear(f"{layer}.attention.gru_rel_pos_linear", width // heads, 8)
            shapes[f"{layer}.attention.gru_rel_pos_const"] = (1, heads, 1, 1)
    if backend == "wavlm":
        shapes["encoder.layers.0.attention.rel_attn_embed.weight"] = (config["num_buckets"], heads)
    return {name: 0.3 * torch.randn(shape) + (name.endswith("norm.weight")) for name, shape in shapes.items()}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _affine(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def write(folder: Path, config: dict[str, Any] | None, state: dict[str, Tensor]) -> Path:
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder


def published(backend: str, folder: Path, *, prefix: str = "", **changes: Any) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(1)
    config = {**PUBLISHED, "model_type": backend, **(BUCKETS if backend == "wavlm" else {}), **changes}
    state = published_state(backend, config)
    return write(folder, config, {prefix + name: value for name, value in state.items()}), state


def mini_emotion2vec() -> dict[str, Tensor]:
    """A random state whose keys are those of the published checkpoint, decoder included."""
    torch.manual_seed(2)
    network = Emotion2vec(MINI)
    state = {name: value + 0.2 * torch.randn_like(value) for name, value in network.state_dict().items()}
    return state | {f"{AUDIO}decoder.proj.weight": torch.zeros(3, 3), "proj.weight": torch.zeros(9, 24)}


@pytest.mark.parametrize("backend", ["wavlm", "hubert"])
@pytest.mark.parametrize(("norm", "stable"), [("group", False), ("layer", True)])
def test_published_weights_equal_torchaudios_own_import(backend: str, norm: str, stable: bool, tmp_path: Path) -> None:
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    changes = {"feat_extract_norm": norm, "do_stable_layer_norm": stable}
    folder, state = published(backend, tmp_path / "hf", prefix=f"{backend}.", **changes)
    values = json.loads((folder / "config.json").read_text())
    rest = ("feat_proj_dropout", "attention_dropout", "activation_dropout", "layerdrop")
    place = "pos_conv_embed.conv"
    renamed = {name.replace(f"{place}.weight_g", f"{place}.parametrizations.weight.original0"): value.clone()
               for name, value in state.items()}  # fmt: skip
    renamed = {
        k.replace(f"{place}.weight_v", f"{place}.parametrizations.weight.original1"): v for k, v in renamed.items()
    }

    def part(prefix: str) -> SimpleNamespace:
        own = {k[len(prefix) :]: v for k, v in renamed.items() if k.startswith(prefix)}
        return SimpleNamespace(state_dict=lambda: own)

    kind = type({"wavlm": "WavLMModel", "hubert": "HubertModel"}[backend], (), {})
    original: Any = kind()
    original.config = SimpleNamespace(**(values | dict.fromkeys(rest, 0.0)))
    for name in ("feature_extractor", "feature_projection", "encoder"):
        setattr(original, name, part(f"{name}."))
    theirs = import_huggingface_model(original).eval()
    ours = Speech.from_published(backend, folder)
    assert ours.normalise == (norm == "layer")
    wave = torch.from_numpy(sound().samples)[None]
    with torch.inference_mode():
        heard = F.layer_norm(wave, wave.shape[1:]) if ours.normalise else wave
        torch.testing.assert_close(ours(wave), theirs.extract_features(heard)[0][-1])


def test_torchaudios_own_names_are_read(tmp_path: Path) -> None:
    folder, _ = published("wavlm", tmp_path / "hf")
    speech = Speech.from_published("wavlm", folder)
    again = write(tmp_path / "ta", speech.settings, dict(speech.network.state_dict()))
    wave = torch.from_numpy(sound().samples)[None]
    with torch.inference_mode():
        torch.testing.assert_close(Speech.from_published("wavlm", again)(wave), speech(wave))


def test_emotion2vec_equals_its_equations(tmp_path: Path) -> None:
    state = mini_emotion2vec()
    folder = write(tmp_path / "e2v", None, {f"d2v_model.{name}": value for name, value in state.items()})
    network = Emotion2vec.from_published(folder)
    assert network.sizes == MINI and MINI.stride == 320
    wave = torch.from_numpy(sound().samples)[None]
    with torch.inference_mode():
        torch.testing.assert_close(network(wave), plain_emotion2vec(state, wave), atol=2e-5, rtol=2e-4)


def plain_emotion2vec(state: dict[str, Tensor], wave: Tensor) -> Tensor:
    """The published computation, one equation at a time and one head at a time."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred**2).mean(-1, keepdim=True).add(1e-5).sqrt() * state[f"{name}.weight"]
            + state[f"{name}.bias"]
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = ((wave - wave.mean()) / (wave.var(unbiased=False) + 1e-5).sqrt())[:, None]
    for i, kernel in enumerate(MINI.kernels):
        name = f"{AUDIO}local_encoder.conv_layers.{i}"
        x = F.conv1d(x, state[f"{name}.0.weight"], stride=5 if kernel == 10 else 2)
        x = F.gelu(norm(x.transpose(1, 2), f"{name}.2.1")).transpose(1, 2)
    x = linear(norm(x.transpose(1, 2), f"{AUDIO}project_features.1"), f"{AUDIO}project_features.2")
    place = x.transpose(1, 2)
    for i in (1, 2):
        name = f"{AUDIO}relative_positional_encoder.{i}.0"
        place = F.conv1d(place, state[f"{name}.weight"], state[f"{name}.bias"], padding=9, groups=4).transpose(1, 2)
        place = F.gelu(F.layer_norm(place, (24,))).transpose(1, 2)
    x = torch.cat([state[f"{AUDIO}extra_tokens"], x + place.transpose(1, 2)], dim=1)
    x = norm(x, f"{AUDIO}context_encoder.norm")
    rows = x.shape[1]
    slopes = [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]  # 6 heads: those of 4, then every other one of 8
    for name in (f"{AUDIO}context_encoder.blocks.0", "blocks.0", "blocks.1"):
        q, k, v = linear(x, f"{name}.attn.qkv")[0].split(24, dim=1)
        heads = []
        for h in range(6):
            part = slice(4 * h, 4 * h + 4)
            scores = q[:, part] @ k[:, part].T / math.sqrt(4)
            scale = max(0.0, float(state[f"{AUDIO}alibi_scale"][0, 0, h, 0, 0]))
            for i in range(3, rows):
                for j in range(3, rows):
                    scores[i, j] -= scale * slopes[h] * abs(i - j)
            heads.append(scores.softmax(dim=1) @ v[:, part])
        x = norm(x + linear(torch.cat(heads, dim=1)[None], f"{name}.attn.proj"), f"{name}.norm1")
        x = norm(x + linear(F.gelu(linear(x, f"{name}.mlp.fc1")), f"{name}.mlp.fc2"), f"{name}.norm2")
    return x[:, 3:]


def test_the_published_sizes_of_emotion2vec() -> None:
    with torch.device("meta"):
        network = Emotion2vec(Sizes())
    count = sum(value.numel() for value in network.parameters())
    assert 93_000_000 < count < 94_500_000  # 93.3 M published, without the decoder of the pre-training
    names = set(network.state_dict())
    for name in (
        "modality_encoders.AUDIO.local_encoder.conv_layers.6.2.1.bias",
        "modality_encoders.AUDIO.project_features.2.weight",
        "modality_encoders.AUDIO.relative_positional_encoder.5.0.bias",
        "modality_encoders.AUDIO.context_encoder.blocks.3.attn.qkv.bias",
        "modality_encoders.AUDIO.alibi_scale",
        "blocks.7.mlp.fc2.weight",
    ):
        assert name in names
    assert len(_slopes(12)) == 12 and _slopes(8)[0] == 0.5 and _slopes(8)[-1] == 2**-8


def any_backend(backend: str, folder: Path) -> UpstreamEncoder:
    source = write(folder, None, mini_emotion2vec()) if backend == "emotion2vec" else published(backend, folder)[0]
    return UpstreamEncoder.from_published(backend, source)


@pytest.mark.parametrize("backend", ["wavlm", "hubert", "emotion2vec"])
def test_every_backend_has_the_same_readings_and_directory(backend: str, tmp_path: Path) -> None:
    encoder = any_backend(backend, tmp_path / "published")
    rng = np.random.default_rng(0)
    labels = [LABELS[k % 8] for k in range(80)]
    levels = [float(k % 8 > 0) for k in range(80)]
    encoder.space = EmotionSpace.fit(rng.normal(size=(80, 256)), labels, levels, ["s"] * 80)
    encoder.save(tmp_path / "model", "# a mini\n")
    loaded: Encoder = load_encoder(tmp_path / "model")
    assert loaded.backend == backend and loaded.space is not None
    a, b = encoder.encode(sound(0.5, 22050)), loaded.encode(sound(0.5, 22050))
    assert a.embedding.shape == (256,) and a.frames.shape == (24, 24) and loaded.frame_rate == 50
    assert set(a.posterior) == set(LABELS) and sum(a.posterior.values()) == pytest.approx(1)
    assert -1 <= a.valence <= 1 and -1 <= a.arousal <= 1 and a.label in LABELS
    np.testing.assert_allclose(b.embedding, a.embedding, atol=0.02)
    np.testing.assert_allclose(loaded.space.prototypes, encoder.space.prototypes)


def test_gain_changes_nothing_and_long_sounds_are_read_in_parts(tmp_path: Path) -> None:
    encoder = any_backend("hubert", tmp_path / "published")
    quiet, loud = (encoder.encode(Audio(sound().samples * gain, 16000)) for gain in (0.05, 5.0))
    np.testing.assert_allclose(quiet.embedding, loud.embedding, atol=1e-4)
    long = encoder.encode(sound(LONGEST_S + 2))
    assert len(long.frames) == pytest.approx(50 * (LONGEST_S + 2), abs=4)


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    encoder = any_backend("emotion2vec", tmp_path / "e2v")
    for samples, problem in ((np.zeros(8000), "silent"), (np.ones(50), "0.05 s or more")):
        with pytest.raises(AffgenError, match=problem):
            encoder.encode(Audio(samples.astype(np.float32), 16000))
    with pytest.raises(AffgenError, match="accepted: wavlm, hubert, emotion2vec"):
        UpstreamEncoder.from_published("whisper", tmp_path / "e2v")
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        UpstreamEncoder.from_published("wavlm", tmp_path / "e2v")
    folder, state = published("wavlm", tmp_path / "hf")
    with pytest.raises(ModelError, match="is not emotion2vec"):
        UpstreamEncoder.from_published("emotion2vec", folder)
    with pytest.raises(ModelError, match="'hubert' is needed"):
        UpstreamEncoder.from_published("hubert", folder)
    config = json.loads((folder / "config.json").read_text())
    for number, (key, value, problem) in enumerate(
        [
            ("hidden_size", 10**9, "sizes of wavlm"),
            ("num_buckets", None, "num_buckets|sizes|makes no|kind"),
            ("hidden_size", 25, "makes no wavlm"),
            ("num_hidden_layers", 3, "is missing"),
            ("intermediate_size", 8000, "has shape"),
        ],
        start=0,
    ):
        changed = {k: v for k, v in (config | {key: value}).items() if v is not None}
        with pytest.raises(ModelError, match=problem):
            Speech.from_published("wavlm", write(tmp_path / f"bad{number}", changed, state))


def test_a_model_directory_with_parts_exchanged_is_refused(tmp_path: Path) -> None:
    encoder = any_backend("hubert", tmp_path / "published")
    encoder.save(tmp_path / "model", "# a mini\n")
    path = tmp_path / "model" / "config.json"
    text = path.read_text()
    for old, new in (('"hubert"', '"emotion2vec"'), ('"encoder_embed_dim": 24', '"encoder_embed_dim": 32')):
        path.write_text(text.replace(old, new))
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            load_encoder(tmp_path / "model")


def test_a_head_is_trained_on_the_frames(tmp_path: Path) -> None:
    folder, tensors, index = tmp_path / "data", {}, {}
    tables: dict[str, dict[str, str]] = {name: {} for name in ("wav.scp", "utt2spk", "utt2emo", "utt2intensity")}
    for number in range(16):
        label, name = ("neutral", "angry")[number % 2], f"s-{number:02d}"
        wave = sound(0.3, 22050, number).samples if number % 2 else np.tile(sound(0.01, 22050, number).samples, 30)
        count = len(wave) // 256
        tensors |= {f"{name}/mel": np.zeros((80, count), np.float16), f"{name}/f0": np.zeros(count, np.float32)}
        tensors |= {f"{name}/energy": np.zeros(count, np.float32), f"{name}/wave": (32767 * wave).astype(np.int16)}
        index[name] = ("00000.safetensors", count)
        for table, value in zip(tables.values(), ("x.wav", "s", label, str(number % 2)), strict=True):
            table[name] = value
    DataDir(folder, tables | {"spk2utt": speakers(tables["utt2spk"])}).write()
    (folder / "features").mkdir()
    write_shard(folder / "features" / "00000.safetensors", tensors, {})
    write_index(folder / "features", index)
    settings = ["train.steps=30", "train.batch_size=8", "train.learning_rate=1e-2", "train.warmup=2", "train.ema=0"]
    encoder = any_backend("hubert", tmp_path / "published")
    train_head(encoder, configs.load(EmotionConfig, None, settings), [folder], tmp_path / "exp", quiet=True)
    loaded = load_encoder(tmp_path / "exp" / "model")
    assert loaded.space is not None and loaded.space.labels == ("neutral", "angry")
    buzz = Audio(np.tile(sound(0.01, 22050, 102).samples, 30), 22050)
    noise, other = (loaded.encode(x).posterior["angry"] for x in (sound(0.3, 22050, 101), buzz))
    assert noise > other + 0.05
