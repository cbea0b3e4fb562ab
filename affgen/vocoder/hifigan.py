"""HiFi-GAN generators in their published form (Kong, Kim & Bae 2020), from checkpoints converted to safetensors.

A folder holds ``config.json`` with the public keys (``resblock``, ``upsample_rates``, ...) and
``generator.safetensors`` with the public names: ``conv_pre``, ``ups.N``, ``resblocks.N.convs1.M``, ``conv_post``, each
with ``weight``, or with ``weight_g`` and ``weight_v`` where weight normalisation was left in. The mel must be that of
:mod:`affgen.features`: 80 bands from 0 to 8,000 Hz at 22,050 Hz, window 1,024, hop 256, which is the published one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affgen.checkpoint import check_match, load_into, read_tensors
from affgen.errors import AffgenError, ModelError
from affgen.features import BANDS, FMAX, FMIN, HOP, N_FFT, SAMPLE_RATE

CONFIG, WEIGHTS = "config.json", "generator.safetensors"
SLOPE, LAST_SLOPE = 0.1, 0.01  # of the leaky rectifiers; the public code leaves the last one at torch's default
CHUNK = 512
"""Frames synthesised at once, about 6 s."""
MEL = {
    "num_mels": BANDS,
    "sampling_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop_size": HOP,
    "win_size": N_FFT,
    "fmin": FMIN,
    "fmax": FMAX,
}
"""What the published config.json has to say about the mel; keys may be left out."""
_CONFIG_LIMIT = 1 << 16  # bytes
_MOST = {"stages": 8, "channels": 4096, "rate": 64, "kernel": 127, "dilation": 64, "branches": 8}


@dataclass(frozen=True)
class HifiGanConfig:
    """Sizes of a generator, named as in the published files; the defaults are V1.

    Raises :class:`AffgenError` for sizes that do not make 256 samples of a frame, or beyond any published ones.
    """

    resblock: str = "1"
    """"1": pairs of convolutions, the second undilated; "2": single ones."""
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def __post_init__(self) -> None:
        rates, kernels = self.upsample_rates, self.upsample_kernel_sizes
        if self.resblock not in ("1", "2"):
            raise AffgenError(f"resblock {self.resblock[:20]!r}; accepted: '1', '2'")
        _check_sizes("upsample_rates", rates, _MOST["rate"], _MOST["stages"])
        _check_sizes("upsample_kernel_sizes", kernels, _MOST["kernel"], _MOST["stages"])
        if math.prod(rates) != HOP:
            raise AffgenError(f"upsample_rates {list(rates)} make {math.prod(rates)} samples of a frame; needed: {HOP}")
        if len(kernels) != len(rates) or any(k < r or (k - r) % 2 for k, r in zip(kernels, rates, strict=True)):
            raise AffgenError("upsample_kernel_sizes: one for each rate, not below it, the difference even")
        channels = self.upsample_initial_channel
        if not 0 < channels <= _MOST["channels"] or channels % 2 ** len(rates):
            raise AffgenError(f"upsample_initial_channel {channels}: 1..4096 and halved {len(rates)} times")
        _check_sizes("resblock_kernel_sizes", self.resblock_kernel_sizes, _MOST["kernel"], _MOST["branches"])
        if any(size % 2 == 0 for size in self.resblock_kernel_sizes):
            raise AffgenError("resblock_kernel_sizes: odd numbers only")
        if len(self.resblock_dilation_sizes) != len(self.resblock_kernel_sizes):
            raise AffgenError("resblock_dilation_sizes: one list for each of resblock_kernel_sizes")
        for sizes in self.resblock_dilation_sizes:
            _check_sizes("resblock_dilation_sizes", sizes, _MOST["dilation"], _MOST["branches"])

    @property
    def context(self) -> int:
        """Frames on either side that a sample of the output depends on, at most."""
        samples = 3.0  # conv_post; then backwards through the stages, in samples of the stage
        reach = max(
            (kernel - 1) // 2 * (sum(dilations) + (len(dilations) if self.resblock == "1" else 0))
            for kernel, dilations in zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True)
        )
        for rate, kernel in reversed(list(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True))):
            samples = (samples + reach + kernel) / rate
        return math.ceil(samples) + 4  # conv_pre reaches 3 further


class HifiGan:
    """A HiFi-GAN generator ready for use; holds no state between calls."""

    def __init__(self, generator: Generator):
        self.generator = generator.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> HifiGan:
        """Load the folder described at the head of the module.

        Raises :class:`ModelError`, one line that names the file, for anything missing, damaged, hostile, of another
        model or made for another mel.
        """
        folder = Path(folder)
        config = read_config(folder / CONFIG)
        path = folder / WEIGHTS
        tensors = fold(read_tensors(path)[1], path)
        with torch.device("meta"):
            generator = Generator(config)
        # Before any memory is taken for the sizes that the config claims.
        check_match({name: value.shape for name, value in generator.state_dict().items()}, tensors, path)
        generator = generator.to_empty(device="cpu")
        load_into(generator, tensors, path)
        return cls(generator)

    def synthesize(self, mel: np.ndarray, *, chunk: int = CHUNK) -> np.ndarray:
        """Return the wave (T * 256,) float32 at 22,050 Hz of mel (80, T), natural log.

        Done in chunks that overlap by the reach of the network, so that memory stays bounded and the result is that
        of the whole. Raises :class:`AffgenError` for other shapes and for values that are not finite.
        """
        if mel.ndim != 2 or mel.shape[0] != BANDS or not mel.shape[1] or not np.isfinite(mel).all() or chunk < 1:
            raise AffgenError(
                f"mel {mel.shape}, chunk {chunk}: accepted is ({BANDS}, T), finite, T and chunk at least 1"
            )
        total, context = mel.shape[1], self.generator.config.context
        parts = []
        for first in range(0, total, chunk):
            low, high = max(0, first - context), min(total, first + chunk + context)
            piece = torch.from_numpy(np.ascontiguousarray(mel[:, low:high], dtype=np.float32))
            with torch.inference_mode():
                wave = self.generator(piece.unsqueeze(0))[0].numpy()
            parts.append(wave[(first - low) * HOP : (min(first + chunk, total) - low) * HOP])
        return np.concatenate(parts)


class Generator(nn.Module):
    """Transposed convolutions, each followed by residual blocks of several kernel sizes side by side (section 2.2)."""

    def __init__(self, config: HifiGanConfig):
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(BANDS, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        block = PairedBlock if config.resblock == "1" else SingleBlock
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(block(channels, size, dilations))
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        """Wave (B, T * 256) in -1..1 of mel (B, 80, T)."""
        hidden = self.conv_pre(mel)
        branches = len(self.config.resblock_kernel_sizes)
        for stage, up in enumerate(self.ups):
            hidden = up(F.leaky_relu(hidden, SLOPE))
            total = torch.zeros_like(hidden)
            for block in list(self.resblocks)[stage * branches : (stage + 1) * branches]:
                total = total + block(hidden)
            hidden = total / branches
        return torch.tanh(self.conv_post(F.leaky_relu(hidden, LAST_SLOPE))).squeeze(1)


class PairedBlock(nn.Module):
    """Residual pairs: a dilated convolution and an undilated one (``resblock`` "1")."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(_convolution(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_convolution(channels, kernel, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """From x (B, C, L) to the same shape."""
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class SingleBlock(nn.Module):
    """Residual dilated convolutions (``resblock`` "2")."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(_convolution(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """From x (B, C, L) to the same shape."""
        for convolution in self.convs:
            x = x + convolution(F.leaky_relu(x, SLOPE))
        return x


def _convolution(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


# ---------------------------------------------------------------------------------------------------- the files


def read_config(path: Path) -> HifiGanConfig:
    """Read a published ``config.json``; what concerns training is not looked at. Raises :class:`ModelError`."""
    try:
        if not path.is_file():
            raise ModelError(f"{path}: is not a file; a HiFi-GAN folder holds {CONFIG} and {WEIGHTS}")
        if path.stat().st_size > _CONFIG_LIMIT:
            raise ModelError(f"{path}: {path.stat().st_size} bytes; at most {_CONFIG_LIMIT} are accepted")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: is no JSON that can be read: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: is a JSON {type(values).__name__}; an object is needed")
    for name, needed in MEL.items():
        got = values.get(name, needed)
        if isinstance(got, bool) or got != needed:
            raise ModelError(f"{path}: {name} is {str(got)[:20]}; a model for {needed:g} is needed")
    try:
        return HifiGanConfig(**{name: _plain(name, values) for name in HifiGanConfig.__dataclass_fields__})
    except AffgenError as error:
        raise ModelError(f"{path}: {error}") from error


def _plain(name: str, values: Mapping[str, Any]) -> Any:
    """The value of a key as the dataclass has it: text, a whole number or tuples of whole numbers."""
    if name not in values:
        raise AffgenError(f"has no {name!r}; the config.json of a published HiFi-GAN is needed")
    value = values[name]
    if name == "resblock" and isinstance(value, (str, int)):
        return str(value)
    depth = 2 if name == "resblock_dilation_sizes" else 1 if name.endswith(("rates", "sizes")) else 0
    return _whole(name, value, depth)


def _whole(name: str, value: Any, depth: int) -> Any:
    if depth:
        if not isinstance(value, list) or len(value) > 16:
            raise AffgenError(f"{name}: needs a list of up to 16")
        return tuple(_whole(name, item, depth - 1) for item in value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise AffgenError(f"{name}: {str(value)[:20]!r} is no whole number")
    return value


def fold(tensors: Mapping[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    """Replace each ``weight_g`` and ``weight_v`` by the ``weight`` they stand for: g * v / ||v||.

    The norm is over all but the first axis (Salimans & Kingma 2016), also of transposed convolutions. Raises
    :class:`ModelError` that begins with ``where`` for a half without the other or of another shape.
    """
    halves = (".weight_g", ".weight_v")
    folded = {name: value for name, value in tensors.items() if not name.endswith(halves)}
    for stem in sorted({name[: -len("_g")] for name in tensors if name.endswith(halves)}):
        gain, direction = tensors.get(f"{stem}_g"), tensors.get(f"{stem}_v")
        if gain is None or direction is None or stem in folded:
            raise ModelError(f"{where}: tensor {stem!r}: needs both weight_g and weight_v, or weight alone")
        if direction.ndim != 3 or gain.shape != (direction.shape[0], 1, 1):
            raise ModelError(f"{where}: tensor {stem!r}: weight_g {tuple(gain.shape)} does not fit weight_v")
        gain, direction = gain.float(), direction.float()
        folded[stem] = gain * (direction / direction.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1))
    return folded


def _check_sizes(name: str, sizes: tuple[int, ...], most: int, count: int) -> None:
    if not 0 < len(sizes) <= count or not all(0 < size <= most for size in sizes):
        raise AffgenError(f"{name}: accepted are 1 to {count} numbers of 1 to {most}")
