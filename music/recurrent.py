"""The networks one row at a time, in NumPy: what decoding runs on a processor, where a row is too small for
anything heavier.

Same numbers as :mod:`music.model` and :mod:`music.prior` (tests hold both to 1e-5), arranged for speed:
embeddings, code vectors
and conditions are multiplied into the first layer beforehand, so that the input of a row is a sum of table rows,
and attention
is the recurrence S += phi(k) v^T, z += phi(k) of Katharopoulos et al. (2020, eq. 16-20), at constant cost per row.

Shapes: n rows decoded side by side, G independent networks (1, or 7 element decoders), H heads, D width per head,
C width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from affgen.layers import EPSILON, Linear, Stack, State, sinusoids
from music.config import ELEMENTS, FIELDS
from music.model import ConditionEmbedding, Conditions, MusER, RowEmbedding
from music.prior import Prior
from music.tokens import TYPE

Sums = tuple[np.ndarray, np.ndarray]
"""phi(k) v^T (G, n, H, D, D) and phi(k) (G, n, H, D), of one layer."""


Affine = tuple[np.ndarray, np.ndarray]
"""Weight (G, inputs, outputs) and bias (G, 1, outputs) of a layer, or scale and shift of a normalisation."""


@dataclass
class Running:
    """What a network remembers: the sums of each layer (``stacks``), fixed sums over latents (``memory``), rows
    heard (n,).
    """

    stacks: list[list[Sums]]
    row: np.ndarray
    memory: list[Sums] = field(default_factory=list)

    def select(self, index: np.ndarray) -> Running:
        """The memory of some of the rows, in the order of ``index`` (m,)."""

        def pick(layers: list[Sums]) -> list[Sums]:
            return [(sums[:, index], norm[:, index]) for sums, norm in layers]

        return Running([pick(layers) for layers in self.stacks], self.row[index], pick(self.memory))


def join(parts: list[Running]) -> Running:
    """One memory for all pieces: the first copies of all pieces, then the second copies; each part holds those of
    one piece.
    """

    def merge(arrays: list[np.ndarray]) -> np.ndarray:  # each (G, copies, ...) -> (G, copies x pieces, ...)
        stacked = np.stack(arrays, axis=2)
        return stacked.reshape(len(stacked), -1, *stacked.shape[3:])

    def layers(each: list[list[Sums]]) -> list[Sums]:
        return [(merge([s for s, _ in sums]), merge([z for _, z in sums])) for sums in zip(*each, strict=True)]

    stacks = [layers([part.stacks[k] for part in parts]) for k in range(len(parts[0].stacks))]
    row = np.stack([part.row for part in parts], axis=1).reshape(-1)
    return Running(stacks, row, layers([part.memory for part in parts]))


class FastStack:
    """A :class:`affgen.layers.Stack` of causal blocks, one row at a time."""

    def __init__(self, stack: Stack, groups: int = 1):
        self.groups = groups
        self.blocks: list[tuple[dict[str, Affine], list[Affine]]] = []
        blocks: list[Any] = list(stack.blocks)
        for block in blocks:
            parts = {"out": _affine(block.out), "inner": _affine(block.inner), "outer": _affine(block.outer)}
            weights, biases = zip(*map(_affine, block.qkv), strict=True)
            parts["qkv"] = np.concatenate(weights, axis=-1), np.concatenate(biases, axis=-1)
            if block.cross_qkv is not None:
                parts |= {"cross": _affine(block.cross_qkv[0]), "cross_out": _affine(block.cross_out)}
            self.blocks.append((parts, [_norm(norm) for norm in block.norms]))
        self.norm = _norm(stack.norm)
        self.heads: int = blocks[0].heads if blocks else 1

    def start(self, rows: int, width: int) -> list[Sums]:
        """Sums before the first row."""
        depth = width // self.heads
        shape = (self.groups, rows, self.heads, depth)
        return [(np.zeros((*shape, depth), np.float32), np.zeros(shape, np.float32)) for _ in self.blocks]

    def __call__(self, x: np.ndarray, layers: list[Sums], memory: list[Sums] | None = None) -> np.ndarray:
        """x (G, n, C) -> (G, n, C); the sums in ``layers`` are advanced in place."""
        width = x.shape[-1]
        heads = (*x.shape[:2], self.heads, width // self.heads)
        for index, (parts, norms) in enumerate(self.blocks):
            qkv = _apply(parts["qkv"], x)
            both = _phi(qkv[..., : 2 * width])
            q, k = both[..., :width].reshape(heads), both[..., width:].reshape(heads)
            sums, norm = layers[index]
            sums += k[..., None] * qkv[..., 2 * width :].reshape(heads)[..., None, :]
            norm += k
            x = _normalise(x + _apply(parts["out"], _attend(q, sums, norm).reshape(x.shape)), norms[0])
            if memory:
                q = _phi(_apply(parts["cross"], x)).reshape(heads)
                x = _normalise(x + _apply(parts["cross_out"], _attend(q, *memory[index]).reshape(x.shape)), norms[1])
            x = _normalise(x + _apply(parts["outer"], _gelu(_apply(parts["inner"], x))), norms[-1])
        return _normalise(x, self.norm)


class FastConditions:
    """Conditions as a sum of table rows."""

    def __init__(self, module: ConditionEmbedding | None):
        self.tables = (
            []
            if module is None
            else [_array(t) for t in (module.emotion, *(e.weight for e in (module.key, module.left, module.place)))]
        )

    def __call__(self, va: np.ndarray, told: tuple[np.ndarray, ...]) -> np.ndarray | float:
        """va (n, 2), told: key, left, place (n,) each -> (n, C)."""
        if not self.tables:
            return 0.0
        emotion = np.concatenate([va, va[:, :1] * va[:, 1:]], axis=1).astype(np.float32) @ self.tables[0]
        return emotion + self.tables[1][told[0]] + self.tables[2][told[1]] + self.tables[3][told[2]]


class FastPrior:
    """:class:`music.prior.Prior`, one code at a time."""

    def __init__(self, prior: Prior):
        weight, bias = _affine(prior.inner)
        self.codes = _array(prior.embedding.weight) @ weight[0] + bias[0]
        self.rows = (
            _row_table(prior.rows, prior.rows_in) if prior.rows is not None and prior.rows_in is not None else None
        )
        self.conditions = FastConditions(prior.conditions)
        self.stack, self.width = FastStack(prior.stack), prior.config.dim
        self.head, self.temperature = _affine(prior.head), prior.config.temperature
        self.waves = _waves(prior.config.positions, self.width)

    def start(self, rows: int) -> Running:
        """Before the first code."""
        return Running([self.stack.start(rows, self.width)], np.zeros(rows, np.int64))

    def step(
        self, code: np.ndarray, row: np.ndarray, va: np.ndarray, told: tuple[np.ndarray, ...], state: Running
    ) -> np.ndarray:
        """Scores (n, K) of the next code after ``code`` (n,) and ``row`` (n, 8); the state is advanced."""
        x = self.codes[code] + self.conditions(va, told) + self.waves(state.row)
        if self.rows is not None:
            x = x + self.rows(row)
        state.row = state.row + 1
        return _apply(self.head, self.stack(x[None], state.stacks[0]))[0] / self.temperature


class FastModel:
    """The decoding half of :class:`music.model.MusER`, one row at a time."""

    def __init__(self, model: MusER):
        config = model.config
        self.config = config
        latent_width = config.latent if model.global_decoder is not None and config.fusion == "concat" else 0
        self.rows = _row_table(model.embedding, model.decoder_in)
        self.latent = np.ascontiguousarray(_array(model.decoder_in.weight).T[-latent_width:]) if latent_width else None
        self.conditions = FastConditions(model.conditions)
        self.width = model.decoder_in.weight.shape[0]
        self.overall = FastStack(model.global_decoder) if model.global_decoder is not None else None
        self.elements = FastStack(model.element_decoders, len(ELEMENTS)) if model.element_decoders is not None else None
        if self.elements is not None:
            self.part = tuple(array[0] for array in _affine(model.latent_in))
            self.narrow = _affine(model.narrow) if model.narrow is not None else None
        self.waves = _waves(config.positions, self.width)
        self.element_waves = _waves(config.positions, config.element_dim)
        weight, bias = _affine(model.given_type)
        types: Any = model.embedding.tables[TYPE]
        kinds = _array(types.weight) * math.sqrt(types.embedding_dim)
        self.given, self.kinds = weight[0][: -kinds.shape[1]], kinds @ weight[0][-kinds.shape[1] :] + bias[0]
        self.heads = [tuple(part[0] for part in _affine(head)) for head in model.heads]

    def start(self, rows: int, memory: list[State] | None = None) -> Running:
        """Before the first row; ``memory``: sums over the latents of the whole piece for ``fusion="ca"``."""
        stacks = []
        if self.overall is not None:
            stacks.append(self.overall.start(rows, self.width))
        if self.elements is not None:
            stacks.append(self.elements.start(rows, self.config.element_dim))
        return Running(stacks, np.zeros(rows, np.int64), [to_sums(state, 1) for state in memory or []])

    def step(
        self, row: np.ndarray, latent: np.ndarray, va: np.ndarray, told: tuple[np.ndarray, ...], state: Running
    ) -> np.ndarray:
        """Features (7, n, C) of the row after ``row`` (n, 8), whose latent (n, C) is known; the state is advanced."""
        x = self.rows(row) + self.conditions(va, told) + self.waves(state.row)
        if self.latent is not None:
            x = x + latent @ self.latent
        x = x[None]
        if self.overall is not None:
            x = self.overall(x, state.stacks[0], state.memory)
        if self.elements is None:
            x = np.broadcast_to(x, (len(ELEMENTS), *x.shape[1:]))
        else:
            x = x if self.narrow is None else _apply(self.narrow, x)
            parts = latent.reshape(len(latent), len(ELEMENTS), -1).swapaxes(0, 1)  # (7, n, D)
            x = x + parts @ self.part[0] + self.part[1] + self.element_waves(state.row)
            x = self.elements(x, state.stacks[-1])
        state.row = state.row + 1
        return x

    def type_scores(self, features: np.ndarray) -> np.ndarray:
        """Scores (n, 4) of the row type."""
        weight, bias = self.heads[TYPE]
        return features[TYPE] @ weight + bias

    def scores(self, column: int, features: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """Scores (n, size) of one other column given the row types (n,)."""
        weight, bias = self.heads[column]
        return (features[column] @ self.given + self.kinds[kind]) @ weight + bias


Fast = tuple[FastModel, FastPrior]
"""Both networks, ready for decoding."""


def prepare(model: MusER, prior: Prior) -> Fast:
    """Both networks with everything multiplied out that can be."""
    return FastModel(model), FastPrior(prior)


def prime(
    model: MusER, prior: Prior, x: np.ndarray, codes: np.ndarray, latents: np.ndarray, conditions: Conditions
) -> tuple[Running, Running]:
    """Memories of both networks after rows x (n, T, 8) with codes (n, T) and latents (n, T, C)."""
    rows, ids = torch.from_numpy(x), torch.from_numpy(codes)
    stacks = model.prime(rows, torch.from_numpy(latents), conditions)
    before = torch.cat([prior.first_token(rows[:, 0]).unsqueeze(1), ids[:, :-1]], dim=1)
    heard = np.full(len(x), x.shape[1])
    groups = [1] if model.element_decoders is None else [1, len(ELEMENTS)][-len(stacks) :]
    decoder = [[to_sums(state, count) for state in states] for states, count in zip(stacks, groups, strict=True)]
    return Running(decoder, heard), Running(
        [[to_sums(state, 1) for state in prior.prime(before, rows, conditions)]], heard
    )


def to_sums(state: State, groups: int) -> Sums:
    """Sums of the training form, groups folded into the batch, as arrays (G, n, H, ...)."""
    sums, norm = (part.detach().float().numpy().copy() for part in state)
    return sums.reshape(groups, -1, *sums.shape[1:]), norm.reshape(groups, -1, *norm.shape[1:])


def _row_table(embedding: RowEmbedding, layer: Linear) -> Callable[[np.ndarray], np.ndarray]:
    """Rows (n, 8) -> their sum (n, C) after the first layer: every column's table is multiplied by its part of the
    layer.
    """
    weight, bias = _array(layer.weight).T, _array(layer.bias)
    tables, start, columns = [], 0, list[Any](embedding.tables)
    for table in columns:
        stop = start + table.embedding_dim
        tables.append(_array(table.weight) * math.sqrt(table.embedding_dim) @ weight[start:stop])
        start = stop
    offsets = np.cumsum([0, *(len(table) for table in tables[:-1])])
    joined = np.concatenate(tables)
    return lambda rows: joined[rows[:, : len(FIELDS)] + offsets].sum(axis=1) + bias


def _waves(used: bool, width: int, longest: int = 4096) -> Callable[[np.ndarray], np.ndarray | float]:
    """Row numbers (n,) -> sinusoids (n, C), or 0."""
    if not used:
        return lambda row: 0.0
    table = sinusoids(torch.arange(longest), width).numpy()
    return lambda row: table[np.minimum(row, longest - 1)]


def _affine(layer: Any) -> Affine:
    weight, bias = _array(layer.weight), _array(layer.bias)
    if weight.ndim == 2:
        weight, bias = weight[None], bias[None]
    return np.ascontiguousarray(weight.swapaxes(1, 2)), bias[:, None]


def _norm(layer: Any) -> Affine:
    weight, bias = _array(layer.weight), _array(layer.bias)
    return (weight, bias) if weight.ndim == 1 else (weight[:, None], bias[:, None])


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().float().numpy()


# Small arrays: what counts is the number of operations and of new arrays, so results are reused in place.


def _apply(layer: Affine, x: np.ndarray) -> np.ndarray:
    out = np.dot(x[0], layer[0][0])[None] if len(x) == 1 else np.matmul(x, layer[0])
    out += layer[1]
    return out


def _attend(q: np.ndarray, sums: np.ndarray, norm: np.ndarray) -> np.ndarray:
    out = np.matmul(q[..., None, :], sums)[..., 0, :]
    out /= np.add.reduce(q * norm, axis=-1, keepdims=True) + EPSILON
    return out


def _phi(x: np.ndarray) -> np.ndarray:
    out = np.exp(np.minimum(x, 0))
    out += np.maximum(x, 0)
    return out


def _normalise(x: np.ndarray, norm: Affine) -> np.ndarray:
    share = np.float32(1 / x.shape[-1])
    out = x - np.add.reduce(x, axis=-1, keepdims=True) * share
    variance = np.add.reduce(out * out, axis=-1, keepdims=True) * share
    out /= np.sqrt(variance + np.float32(1e-5))
    out *= norm[0]
    out += norm[1]
    return out


def _gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x); Phi by Abramowitz & Stegun (1964), formula 7.1.26, whose error of 1.5e-7 is that of float32."""
    distance = np.abs(x)
    t = np.float32(0.3275911 * math.sqrt(0.5)) * distance
    t += 1
    np.reciprocal(t, out=t)
    tail = np.float32(1.061405429) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient)
        tail *= t
    bell = x * x
    bell *= np.float32(-0.5)
    tail *= np.exp(bell, out=bell)  # 1 - erf(|x| / sqrt 2)
    tail *= distance
    tail *= np.float32(0.5)
    return np.maximum(x, 0) - tail
