"""Model directories of the converter: decoder, emotions, prosody and calibration in one file, half precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affgen import config as configs
from affgen.checkpoint import halves, load_model, save_model
from affgen.emotion.restore import restored
from affgen.errors import AffgenError, ModelError
from vc.config import VcConfig
from vc.feeling import Feeling
from vc.model import Decoder
from vc.prosody import Prosody
from vc.wanted import Calibration

TASK = "vc"
SHIPPED = Path(__file__).parent / "pretrained" / "converter"
CARD = """# A voice converter of affgen

Emotional voice conversion after EmoReg (Gudmalwar et al., AAAI 2025), with a decoder over time only.
"""


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that a model directory of the converter holds."""

    config: VcConfig
    decoder: Decoder
    feeling: Feeling
    prosody: Prosody
    calibration: Calibration


def pack(parts: Parts, folder: str | Path, card: str = CARD) -> None:
    """Write a model directory; the decoder's weights as float16, the rest as float32."""
    values = configs.to_dict(parts.config) | {"labels": list(parts.feeling.labels)}
    tensors = {f"decoder.{name}": value for name, value in halves(parts.decoder.state_dict()).items()}
    for prefix, part in (("feeling", parts.feeling), ("prosody", parts.prosody), ("calibration", parts.calibration)):
        for name, array in part.arrays().items():
            tensors[f"{prefix}.{name}"] = torch.from_numpy(np.array(array, np.float32))
    save_model(folder, values, tensors, card, task=TASK)


def unpack(folder: str | Path) -> Parts:
    """Read a model directory. Raises :class:`ModelError` for one that is missing, damaged or of another kind."""
    values, tensors = load_model(folder, task=TASK)
    where = Path(folder) / "config.json"
    try:
        labels = tuple(str(label) for label in values["labels"])
        config = configs.from_dict(VcConfig, {key: value for key, value in values.items() if key != "labels"})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: {error}; get the model directory again") from error
    decoder = restored(
        lambda: Decoder(config.decoder, config.feeling.rank),
        _own(tensors, "decoder"),
        Path(folder) / "model.safetensors",
    )
    arrays = {
        prefix: {name: value.float().numpy() for name, value in _own(tensors, prefix).items()}
        for prefix in ("feeling", "prosody", "calibration")
    }
    try:
        return Parts(
            config,
            decoder,
            Feeling.from_arrays(labels, arrays["feeling"]),
            Prosody.from_arrays(arrays["prosody"], labels[1:]),
            Calibration.from_arrays(labels, arrays["calibration"]),
        )
    except (KeyError, AffgenError) as error:
        raise ModelError(f"{where}: {error}; get the model directory again") from error


def _own(tensors: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part, without its prefix."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
