"""Emotion encoders over networks that others pre-trained: WavLM, HuBERT and emotion2vec, from local files alone.

An upstream network makes frames; a small head of the form that emotion2vec was judged with (linear, ReLU, mean,
linear) makes the 256-d embedding and the readings of it. Published weights come as safetensors in a folder:

=============  ================================================================================================
backend        what the folder holds
=============  ================================================================================================
wavlm hubert   ``config.json`` and ``model.safetensors`` of Hugging Face's WavLMModel or HubertModel; or the
               arguments and the state of torchaudio's own models (``torchaudio.pipelines``), in the same two files
emotion2vec    ``model.safetensors`` with the keys of the published checkpoint
=============  ================================================================================================

:meth:`UpstreamEncoder.from_published` puts an untrained head on such a folder, :func:`affgen.emotion.train.train_head`
trains it, and :meth:`UpstreamEncoder.save` writes both as one model directory, which needs the folder no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.checkpoint import read_tensors, save_model
from affgen.emotion.config import EMBEDDING
from affgen.emotion.emotion2vec import Emotion2vec
from affgen.emotion.encoder import TASK, Reading, joined, pack_space, reading, require_sound, unpack_space
from affgen.emotion.labels import LABELS
from affgen.emotion.network import Heard
from affgen.emotion.restore import restored
from affgen.emotion.space import EmotionSpace
from affgen.errors import AffgenError, ModelError

if TYPE_CHECKING:
    from affgen.audio import Audio

RATE = 16_000
LONGEST_S = 30.0
"""Longer sounds are read in parts of this many seconds: attention grows with the square of the length."""
SPEECH = ("wavlm", "hubert")
LARGEST = 8192  # of any size in a config


class Head(nn.Module):
    """Frames to readings: Linear, ReLU, masked mean = embedding; every reading is linear in it."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = nn.Linear(width, EMBEDDING)
        self.label = nn.Linear(EMBEDDING, len(LABELS))
        self.plane = nn.Linear(EMBEDDING, 2)
        self.intensity = nn.Linear(EMBEDDING, len(LABELS))

    def forward(self, frames: Tensor, mask: Tensor) -> Heard:
        """``frames (B, N, D)``, ``mask (B, N)`` of valid ones."""
        x = F.relu(self.enter(frames)) * mask[..., None]
        mean = x.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        plane, strength = torch.tanh(self.plane(mean)), self.intensity(mean)
        return Heard(frames.transpose(1, 2), mask, mean, self.label(mean), plane, strength, ())


class Speech(nn.Module):
    """A WavLM or HuBERT of torchaudio; frames are the output of the last transformer layer."""

    def __init__(self, backend: str, settings: Mapping[str, Any], normalise: bool):
        super().__init__()
        self.backend, self.settings, self.normalise = backend, dict(settings), normalise
        self.network = _build(backend, settings)

    @classmethod
    def from_published(cls, backend: str, folder: str | Path) -> Speech:
        """Read ``config.json`` and ``model.safetensors`` of ``folder``, named as Hugging Face or torchaudio do.

        Raises :class:`ModelError` for files that are missing, damaged, or of another network.
        """
        folder = Path(folder)
        published = _read_config(folder / "config.json")
        _, tensors = read_tensors(folder / "model.safetensors")
        state = {name: value.float() for name, value in tensors.items()}
        if "encoder_embed_dim" in published:
            settings = dict(published)
        else:
            settings = _settings(backend, published, folder / "config.json")
            state = _renamed(backend, state)
        state = {name: value for name, value in state.items() if not name.startswith(("aux.", "mask_generator"))}
        state = {f"network.{name}": value for name, value in state.items()}
        return cls.from_state(backend, settings, state, folder / "model.safetensors")

    @classmethod
    def from_state(
        cls, backend: str, settings: Mapping[str, Any], state: Mapping[str, Tensor], where: str | Path
    ) -> Speech:
        """Build the network that ``settings`` (torchaudio's arguments) and ``state`` describe."""
        normalise = settings.get("extractor_mode") == "layer_norm"
        return restored(lambda: cls(backend, settings, normalise), state, where)

    def forward(self, wave: Tensor) -> Tensor:
        """``wave (B, L)`` at 16 kHz -> frames (B, N, D)."""
        if self.normalise:  # as those with layer normalisation were pre-trained
            wave = F.layer_norm(wave, wave.shape[1:])
        extract: Any = self.network.extract_features
        frames: Tensor = extract(wave)[0][-1]
        return frames


class UpstreamEncoder:
    """A pre-trained network with a head: the same readings as those of ``affgen-small``, 256-d embedding included."""

    frame_rate = 50.0

    def __init__(
        self,
        backend: str,
        upstream: Speech | Emotion2vec,
        head: Head,
        *,
        space: EmotionSpace | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the networks; ``about`` may hold ``licence`` and ``figures`` (what the encoder scored, in one line)."""
        self.backend, self.upstream, self.head, self.space = backend, upstream.eval(), head.eval(), space
        self.about = dict(about or {})
        self.card_line = str(self.about.get("figures") or "emotion encoder: no figures were measured")

    @classmethod
    def from_published(cls, backend: str, folder: str | Path, *, seed: int = 0) -> UpstreamEncoder:
        """Put an untrained head, drawn by ``seed``, on a network in its published form; raises :class:`ModelError`."""
        upstream = _published(backend, folder)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            width = upstream(torch.zeros(1, RATE // 10)).shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(backend, upstream, Head(width))

    @classmethod
    def unpack(cls, folder: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> UpstreamEncoder:
        """Make the encoder of the content of a model directory; raises :class:`ModelError`."""
        where, backend = folder / "model.safetensors", str(values.get("backend"))
        space, rest = unpack_space(values.get("space"), tensors, folder)
        parts: dict[str, dict[str, Tensor]] = {"upstream": {}, "head": {}}
        for name, value in rest.items():
            owner, _, key = name.partition(".")
            if owner not in parts:
                raise ModelError(f"{where}: tensor {name!r} belongs to neither upstream. nor head.")
            parts[owner][key] = value.float()
        upstream = _restored(backend, values, parts["upstream"], folder)
        enter = parts["head"].get("enter.weight")
        if enter is None or enter.dim() != 2:
            raise ModelError(f"{where}: tensor 'head.enter.weight' is missing; the file is of another model")
        head = restored(lambda: Head(enter.shape[1]), parts["head"], where)
        return cls(backend, upstream, head, space=space, about=values)

    def save(self, folder: str | Path, card: str) -> None:
        """Write both networks as one model directory, in half precision, with ``card`` as its README.md."""
        labels, tensors = pack_space(self.space)
        for name, part in (("upstream", self.upstream), ("head", self.head)):
            tensors |= {f"{name}.{key}": value.half() for key, value in part.state_dict().items()}
        settings = self.upstream.settings if isinstance(self.upstream, Speech) else {}
        values: dict[str, Any] = {"licence": str(self.about.get("licence", "")), "figures": self.card_line}
        values |= {"backend": self.backend, "upstream": settings, "space": labels}
        save_model(folder, values, tensors, card, task=TASK)

    @torch.inference_mode()
    def frames(self, audio: Audio) -> Tensor:
        """Return the frames (N, D) of the upstream network for a sound of up to 30 s, loudness-normalised."""
        from affgen.audio import normalise, resample

        require_sound(audio.samples)
        level = normalise(audio)
        wave = torch.from_numpy(resample(level.samples, level.sample_rate, RATE))
        if len(wave) < RATE // 20:
            raise AffgenError(f"a sound of {len(wave) / RATE:.3f} s; accepted: 0.05 s or more")
        frames: Tensor = self.upstream(wave[None])[0]
        return frames

    @torch.inference_mode()
    def encode(self, audio: Audio) -> Reading:
        """Read a sound of any rate and loudness; raises :class:`AffgenError` for one under 0.05 s or silent."""
        from affgen.audio import Audio as Sound

        size = round(LONGEST_S * audio.sample_rate)
        starts = list(range(0, len(audio.samples), size)) or [0]
        if len(starts) > 1 and len(audio.samples) - starts[-1] < audio.sample_rate:
            starts.pop()  # less than a second is read with the part before it
        ends = [*starts[1:], len(audio.samples)]
        parts = []
        for start, end in zip(starts, ends, strict=True):
            frames = self.frames(Sound(audio.samples[start:end], audio.sample_rate))[None]
            parts.append(reading(self.head(frames, torch.ones(frames.shape[:2], dtype=torch.bool))))
        return joined(parts)


def _published(backend: str, folder: str | Path) -> Speech | Emotion2vec:
    if backend == "emotion2vec":
        return Emotion2vec.from_published(folder)
    if backend in SPEECH:
        return Speech.from_published(backend, folder)
    raise AffgenError(f"backend {backend[:40]!r}; accepted: {', '.join(SPEECH)}, emotion2vec")


def _restored(backend: str, values: Mapping[str, Any], state: dict[str, Tensor], folder: Path) -> Speech | Emotion2vec:
    where = folder / "model.safetensors"
    if backend == "emotion2vec":
        return Emotion2vec.from_state(state, where)
    settings = values.get("upstream")
    if not isinstance(settings, dict):
        raise ModelError(f"{folder / 'config.json'}: 'upstream' must be the arguments of the network")
    return Speech.from_state(backend, settings, state, where)


# ------------------------------------------------------------------------------ torchaudio's networks from other names


def _build(backend: str, settings: Mapping[str, Any]) -> nn.Module:
    """Return an untrained WavLM or HuBERT; raises :class:`ModelError` for arguments that make none."""
    from torchaudio.models import wav2vec2_model, wavlm_model

    if any(not 0 <= number <= LARGEST for value in settings.values() for number in _numbers(value)):
        raise ModelError(f"the sizes of {backend} must lie between 0 and {LARGEST}")
    make = wavlm_model if backend == "wavlm" else wav2vec2_model  # HuBERT's network is that of wav2vec 2.0
    layers = settings.get("extractor_conv_layer_config")
    chosen = {**settings, "extractor_conv_layer_config": [tuple(x) for x in layers] if layers else None}
    try:
        model: nn.Module = make(**{**chosen, "aux_num_out": None})
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(f"the config makes no {backend}: {' '.join(str(error).split())[:160]}") from error
    return model


def _numbers(value: Any) -> list[float]:
    """Return the numbers in a setting, which may be a list of lists."""
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, (int, float)) else []


def _settings(backend: str, published: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return torchaudio's arguments for a config of Hugging Face; dropout is left out, nothing is trained."""
    if published.get("model_type") != backend:
        raise ModelError(f"{where}: model_type {str(published.get('model_type'))[:40]!r}; {backend!r} is needed")
    try:
        rows = zip(published["conv_dim"], published["conv_kernel"], published["conv_stride"], strict=True)
        settings: dict[str, Any] = {
            "extractor_mode": f"{published['feat_extract_norm']}_norm",
            "extractor_conv_layer_config": [list(row) for row in rows],
            "extractor_conv_bias": bool(published["conv_bias"]),
            "encoder_embed_dim": published["hidden_size"],
            "encoder_pos_conv_kernel": published["num_conv_pos_embeddings"],
            "encoder_pos_conv_groups": published["num_conv_pos_embedding_groups"],
            "encoder_num_layers": published["num_hidden_layers"],
            "encoder_num_heads": published["num_attention_heads"],
            "encoder_ff_interm_features": published["intermediate_size"],
            "encoder_layer_norm_first": bool(published["do_stable_layer_norm"]),
        }
        if backend == "wavlm":
            settings["encoder_num_buckets"] = published["num_buckets"]
            settings["encoder_max_distance"] = published["max_bucket_distance"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: {str(error)[:80]} is missing or of another kind") from error
    still = ("encoder_projection", "encoder_attention", "encoder_ff_interm", "encoder")
    return settings | {f"{name}_dropout": 0.0 for name in still} | {"encoder_layer_drop": 0.0}


def _renamed(backend: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of Hugging Face's model under torchaudio's names."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.removeprefix(f"{backend}.")
        if name.startswith("encoder."):
            name = "encoder.transformer." + name.removeprefix("encoder.")
        elif name.startswith("feature_projection."):
            name = f"encoder.{name}"
        elif not name.startswith("feature_extractor."):
            continue  # masked_spec_embed, lm_head: what only training needs
        name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
        renamed[name.replace("conv.weight_v", "conv.parametrizations.weight.original1")] = value
    return _joined_attention(renamed) if backend == "wavlm" else renamed


def _joined_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the three projections of each WavLM attention into one tensor, as torch's own attention has them."""
    for name in [name for name in state if name.endswith("attention.q_proj.weight")]:
        stem = name.removesuffix("q_proj.weight")
        for kind in ("weight", "bias"):
            keys = [f"{stem}{part}_proj.{kind}" for part in "qkv"]
            if not all(key in state for key in keys):
                continue  # load_into names what is missing
            state[f"{stem}attention.in_proj_{kind}"] = torch.cat([state.pop(key) for key in keys])
            if f"{stem}out_proj.{kind}" in state:
                state[f"{stem}attention.out_proj.{kind}"] = state.pop(f"{stem}out_proj.{kind}")
    return state


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > 1_000_000:
            raise ModelError(f"{path}: {path.stat().st_size} bytes; accepted: up to 1000000")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); the folder needs a config.json") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not valid JSON") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: is no JSON object")
    return values
