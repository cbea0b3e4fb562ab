"""The network of emotion2vec as published, for inference: frames of 768 numbers at 50 Hz from sound at 16 kHz.

Z. Ma et al., "emotion2vec: Self-Supervised Pre-Training for Speech Emotion Representation", ACL Findings 2024; the
architecture is that of data2vec 2.0 for audio (Baevski et al. 2023). Modules are named so that the state of the
published checkpoint fits key by key; every size but the stride of the convolutions is read from its tensors.

==================================================  ==========================================================
key in the checkpoint                               part
==================================================  ==========================================================
``modality_encoders.AUDIO.local_encoder``           7 convolutions, 320 samples to a frame
``modality_encoders.AUDIO.project_features``        layer normalisation, 512 to 768
``modality_encoders.AUDIO.relative_positional_...`` 5 grouped convolutions, added
``modality_encoders.AUDIO.extra_tokens``            10 learned rows before the first frame, cut off at the end
``modality_encoders.AUDIO.alibi_scale``             weight of the distance penalty for each head (ALiBi)
``modality_encoders.AUDIO.context_encoder``         layer normalisation and 4 transformer blocks
``blocks``                                          8 transformer blocks, post-norm
==================================================  ==========================================================

What only pre-training or the nine classes of the fine-tuned models need (``decoder``, ``proj``) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen.checkpoint import read_tensors
from affgen.emotion.restore import restored
from affgen.errors import ModelError

AUDIO = "modality_encoders.AUDIO."
UNUSED = (f"{AUDIO}decoder.", "proj.", "decoder.", "recon_proj.", "_ema")
LARGEST = 4096  # of any width; a hostile file must not make the memory run out


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network, the published ones by default."""

    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    channels: int = 512
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    prenet: int = 4
    blocks: int = 8
    tokens: int = 10
    positions: tuple[int, int, int] = (5, 19, 16)
    """Layers, kernel and groups of the positional convolutions."""

    @property
    def stride(self) -> int:
        """Samples at 16 kHz for each frame."""
        return math.prod(_step(kernel) for kernel in self.kernels)


class Emotion2vec(nn.Module):
    """The network; :meth:`from_published` reads a checkpoint that was converted to safetensors."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        self.modality_encoders = nn.ModuleDict({"AUDIO": _AudioEncoder(sizes)})
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.blocks))

    @classmethod
    def from_published(cls, folder: str | Path) -> Emotion2vec:
        """Read ``folder/model.safetensors``, whose keys are those of the published checkpoint (``d2v_model.`` or not).

        Raises :class:`ModelError` for a file that is missing, damaged, or of another network.
        """
        path = Path(folder) / "model.safetensors"
        _, tensors = read_tensors(path)
        state = {name.removeprefix("d2v_model."): value.float() for name, value in tensors.items()}
        return cls.from_state({n: v for n, v in state.items() if not n.startswith(UNUSED)}, path)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], where: str | Path) -> Emotion2vec:
        """Build the network that ``state`` is of; raises :class:`ModelError` that begins with ``where``."""
        sizes = _sizes(state, where)
        return restored(lambda: cls(sizes), state, where)

    def forward(self, wave: Tensor) -> Tensor:
        """``wave (B, L)`` at 16 kHz -> frames (B, N, D); each sound is normalised to mean 0 and variance 1."""
        audio = self.modality_encoders["AUDIO"]
        x, bias = audio(F.layer_norm(wave, wave.shape[1:]))
        for block in self.blocks:
            x = block(x, bias)
        return x[:, self.sizes.tokens :]


class _AudioEncoder(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.width
        self.local_encoder = nn.Module()
        inputs = [1] + [sizes.channels] * len(sizes.kernels)
        self.local_encoder.conv_layers = nn.ModuleList(
            nn.ModuleDict({"0": _conv(a, sizes.channels, k), "2": nn.ModuleDict({"1": nn.LayerNorm(sizes.channels)})})
            for a, k in zip(inputs, sizes.kernels, strict=False)
        )
        self.project_features = nn.ModuleDict(
            {"1": nn.LayerNorm(sizes.channels), "2": nn.Linear(sizes.channels, width)}
        )
        layers, kernel, groups = sizes.positions
        self.relative_positional_encoder = nn.ModuleDict(
            {
                str(i + 1): nn.ModuleDict({"0": nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)})
                for i in range(layers)
            }
        )
        self.extra_tokens = nn.Parameter(torch.zeros(1, sizes.tokens, width))
        self.alibi_scale = nn.Parameter(torch.ones(1, 1, sizes.heads, 1, 1))
        self.context_encoder = nn.Module()
        self.context_encoder.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.prenet))
        self.context_encoder.norm = nn.LayerNorm(width)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """``wave (B, L)`` -> rows (B, tokens + N, D) and the bias (1, H, R, R) of every attention after."""
        local: Any = self.local_encoder
        context: Any = self.context_encoder
        x = wave[:, None]
        for layer in local.conv_layers:
            x = F.gelu(_over_channels(layer["2"]["1"], layer["0"](x)))
        x = self.project_features["2"](self.project_features["1"](x.transpose(1, 2)))
        place = x.transpose(1, 2)
        for layer in self.relative_positional_encoder.values():
            place = layer.get_submodule("0")(place)[..., : x.shape[1]]  # an even kernel gives one too many
            place = F.gelu(F.layer_norm(place.transpose(1, 2), place.shape[1:2]).transpose(1, 2))
        x = x + place.transpose(1, 2)
        tokens = self.extra_tokens.shape[1]
        bias = _alibi(x.shape[1], self.alibi_scale.shape[2]).to(x) * self.alibi_scale[0].clamp(min=0)
        bias = F.pad(bias, (tokens, 0, tokens, 0))
        x = context.norm(torch.cat([self.extra_tokens.expand(len(x), -1, -1), x], dim=1))
        for block in context.blocks:
            x = block(x, bias)
        return x, bias


class _Block(nn.Module):
    """Post-norm transformer block: attention, then a feed-forward layer, each added and normalised."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, sizes.hidden), "fc2": nn.Linear(sizes.hidden, width)})

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, R, D), bias (1, H, R, R) -> (B, R, D)."""
        batch, rows, width = x.shape
        parts = self.attn["qkv"](x).reshape(batch, rows, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, H, R, D / H)
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.norm1(x + self.attn["proj"](heard.transpose(1, 2).reshape(batch, rows, width)))
        return self.norm2(x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x))))


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, kernel, _step(kernel), bias=False)


def _step(kernel: int) -> int:
    """The stride that goes with a kernel in the published network; the checkpoint does not hold it."""
    return 5 if kernel == 10 else 2


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = norm(x.transpose(1, 2)).transpose(1, 2)
    return normed


def _alibi(rows: int, heads: int) -> Tensor:
    """Distance penalties (1, H, R, R), symmetric (Press et al. 2022, "Train Short, Test Long")."""
    place = torch.arange(rows)
    distance = (place[None] - place[:, None]).abs().float()
    return -torch.tensor(_slopes(heads))[None, :, None, None] * distance


def _slopes(heads: int) -> list[float]:
    """A geometric series; where ``heads`` is no power of 2, filled up with every other slope of the next one."""
    power = 2 ** int(math.log2(heads))
    start = 2.0 ** (-8.0 / power)
    slopes = [start ** (i + 1) for i in range(power)]
    return slopes if power == heads else slopes + _slopes(2 * power)[0::2][: heads - power]


def _sizes(state: Mapping[str, Tensor], where: str | Path) -> Sizes:
    """Return the sizes of the network that ``state`` is of."""
    try:
        convolutions = [
            state[f"{AUDIO}local_encoder.conv_layers.{i}.0.weight"]
            for i in range(_count(state, f"{AUDIO}local_encoder.conv_layers."))
        ]
        place = state[f"{AUDIO}relative_positional_encoder.1.0.weight"]
        width, hidden = place.shape[0], state["blocks.0.mlp.fc1.weight"].shape[0]
        sizes = Sizes(
            kernels=tuple(weight.shape[2] for weight in convolutions),
            channels=convolutions[0].shape[0],
            width=width,
            heads=state[f"{AUDIO}alibi_scale"].shape[2],
            hidden=hidden,
            prenet=_count(state, f"{AUDIO}context_encoder.blocks."),
            blocks=_count(state, "blocks."),
            tokens=state[f"{AUDIO}extra_tokens"].shape[1],
            positions=(_count(state, f"{AUDIO}relative_positional_encoder."), place.shape[2], width // place.shape[1]),
        )
        sound = sizes.heads > 0 and width % sizes.heads == 0 and width % sizes.positions[2] == 0
        sound = sound and max(width, hidden // 4, sizes.channels, sizes.tokens, place.shape[2]) <= LARGEST
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{where}: is not emotion2vec: {str(error)[:120]} is missing or of another shape") from error
    if not sound:
        raise ModelError(f"{where}: is not emotion2vec: sizes {sizes} do not fit together")
    return sizes


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbered modules there are under ``prefix``."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
