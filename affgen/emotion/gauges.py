"""Gauges: numbers of the embedding that are given, after training, to measuring the intensity of each label.

What a network learns from some hundred pairs orders strong and normal clips of new speakers less well than a plain
ridge regression of the intensity over the utterance statistics, which has far less to learn. So the directions in
which the embedding hardly varies, one for each label but neutral, make room for the readings of such regressions.
All of it is linear: :func:`install` only rewrites the weights of ``embed`` and of the heads, its form stays.

==========  ==========================================================================
code        meaning
==========  ==========================================================================
``kept``    R (256 - G, 256): all principal axes of the embeddings but the last G
``ways``    W (G, S): ridge directions among the statistics (:mod:`affgen.emotion.space`)
embedding   z = [R e, a W f] in the place of e, for statistics f and a scale a
heads       H e = (H R') (R e) but for what lies along the G axes left out
==========  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from affgen.emotion.config import EMBEDDING
from affgen.emotion.labels import LABELS
from affgen.emotion.material import Clip, collate, plain
from affgen.emotion.network import Network
from affgen.emotion.space import NEUTRAL, EmotionSpace

RIDGE = 1.0
"""Shrinkage over the statistics, found by cross-validation over training speakers."""


def install(network: Network, clips: Sequence[Clip], scale: float) -> None:
    """Rewrite ``network`` so that its embedding ends in gauges found in ``clips``; nothing where none has intensities.

    ``scale`` is the length of a gauge from neutral to strong, in units of the mean length of the embedding's own
    directions.
    """
    chosen = graded(clips)
    if scale <= 0 or not chosen:
        return
    embeddings, facts = _both(network, chosen)
    own = EmotionSpace.fit(embeddings, *columns(chosen))
    space = EmotionSpace.fit(facts, *columns(chosen), ridge=RIDGE)
    names = [name for name in space.labels if name != NEUTRAL]
    length = float(np.mean([np.linalg.norm(own.direction(name)) for name in own.labels if name != NEUTRAL]))
    ways = scale * length * np.stack([space.directions[space.index(name)] for name in names])  # (G, S)
    origin = ways @ space.prototypes[0]
    _, axes = np.linalg.eigh(np.cov(embeddings.T.astype(np.float64)))  # the least variance first
    _rewrite(network, axes[:, len(names) :].T, ways, origin, embeddings.mean(axis=0))


def graded(clips: Sequence[Clip]) -> list[Clip]:
    """Return all ``clips`` of the speakers who have clips with a labelled intensity besides neutral ones."""
    speakers = {clip.speaker for clip in clips if clip.label and np.isfinite(clip.intensity)}
    return [clip for clip in clips if clip.speaker in speakers]


def columns(clips: Sequence[Clip]) -> tuple[list[str], list[float], list[str]]:
    """Return labels, intensities and speakers of ``clips``, as :meth:`EmotionSpace.fit` takes them."""
    return [LABELS[c.label] for c in clips], [c.intensity for c in clips], [c.speaker for c in clips]


@torch.inference_mode()
def _both(network: Network, clips: Sequence[Clip], size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (N, 256) and scaled statistics (N, S) of ``clips`` as they are."""
    embeddings, facts = [], []
    for start in range(0, len(clips), size):
        part = clips[start : start + size]
        batch = collate(part, [plain(clip) for clip in part], [[True] * len(LABELS)] * len(part))
        heard = network(batch.mel, batch.f0, batch.mask)
        embeddings.append(heard.embedding.numpy())
        facts.append(network.facts(batch.mel, batch.f0, batch.mask).numpy())
    return np.concatenate(embeddings), np.concatenate(facts)


@torch.no_grad()
def _rewrite(network: Network, kept: np.ndarray, ways: np.ndarray, origin: np.ndarray, mean: np.ndarray) -> None:
    weight, bias = network.embed.weight.double(), network.embed.bias.double()
    r, w = torch.from_numpy(kept), torch.from_numpy(ways).double()
    gauge = torch.zeros(len(w), weight.shape[1], dtype=torch.float64)
    gauge[:, -w.shape[1] :] = w  # the statistics are the last inputs of embed
    network.embed.weight.copy_(torch.cat([r @ weight, gauge]))
    network.embed.bias.copy_(torch.cat([r @ bias, -torch.from_numpy(origin).double()]))
    left_out = torch.from_numpy(mean).double() - r.T @ (r @ torch.from_numpy(mean).double())
    for head in (network.label, network.plane, network.intensity):
        _fold(head, r, left_out)


def _fold(head: nn.Linear, kept: Tensor, left_out: Tensor) -> None:
    """Let ``head`` read the new embedding; what lies along the axes left out counts with its mean."""
    weight = head.weight.double()
    head.bias.add_((weight @ left_out).to(head.bias))
    rest = torch.zeros(len(weight), EMBEDDING - len(kept), dtype=torch.float64)
    head.weight.copy_(torch.cat([weight @ kept.T, rest], dim=1))
