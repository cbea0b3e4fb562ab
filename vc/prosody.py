"""How F0, energy and duration move with an emotion, learned from neutral-emotional twins (:mod:`vc.twins`).

====================  =================================================================================================
``offset`` (E, C)     how far each control moves at strength 1, for a voice of the middle register
``by_register``       what an octave of register adds: low voices rise further in anger
``half`` (E, C)       the part of it that is reached at strength 0.5; r(s) is linear from 0 to there, to 1 and beyond
``pull``              how far F0 range forgets the source's own: a lively source needs less to be lively
====================  =================================================================================================

For strengths w (E) with sum s the controls are c = sum_e w_e / s * r_e(s) * (offset_e + by_register_e (p - p0)), as a
track over time where w is one; 0 leaves everything as it is, to the bit. With the median m of the voice's log2 F0, the
place u of a frame in its phrase, from -1/2 to 1/2, and the mean E0 of the log energy,

    log2 F0' = log2 F0 + c_pitch + (log2 F0 - m - q) (exp c_range - 1) + q (exp c_motion - 1) + u c_slope
    E'       = E + a(E) ((E - E0) (exp c_dynamics - 1) + u c_tilt)         a(E): 1 in speech, 0 in pauses
    duration of a frame = exp(c_voiced), exp(c_unvoiced) or exp(c_pause)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from affgen.errors import AffgenError, ModelError
from vc import prosody_config as config
from vc.content import ACTIVE
from vc.content import log_energy as log_energy
from vc.prosody_config import CONTROLS

NAMES = tuple(CONTROLS)
LIMITS = np.array(list(CONTROLS.values()))
DB = 20 / np.log(10)
"""Decibels in a neper."""


@dataclass(frozen=True)
class Register:
    """Where a voice speaks: median ``pitch`` (log2 Hz) and ``spread`` of F0 (octaves), ``level`` and ``peak`` (nepers).

    ``spread`` lies between the tenth and the ninetieth percentile, ``level`` is the mean log energy of the active
    frames, ``peak`` that of the loudest speech.
    """

    pitch: float
    spread: float
    level: float
    peak: float


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be synthesised, T' frames.

    ``places`` (T') is the source frame that each is made from, a fraction; ``f0`` (T') in Hz with 0 unvoiced,
    ``energy`` (T') the log energy in nepers, ``gain_db`` (T') what the emotion adds to the level besides.
    """

    places: np.ndarray
    f0: np.ndarray
    energy: np.ndarray
    gain_db: np.ndarray


def peak(energy: np.ndarray) -> float:
    """Return how loud in nepers the loudest speech of a log energy (T,) is, however much silence there is."""
    return float(np.quantile(energy[energy > energy.max() - ACTIVE], config.LOUDEST))


def register(f0: np.ndarray, energy: np.ndarray) -> Register:
    """Return the register of a voice from ``f0`` (T,) in Hz, 0 = unvoiced, and its log energy (T,).

    Without enough voiced frames the register is that of a middle voice. Raises :class:`AffgenError` for tracks that
    are empty, of different lengths or not finite.
    """
    _check(f0, energy)
    loudest = peak(energy)
    loud = energy > loudest - ACTIVE
    voiced = loud & (f0 > 0)
    level = float(energy[loud].mean())
    if voiced.sum() < config.LEAST_VOICED:
        return Register(7.2, 0.5, level, loudest)
    low, middle, high = np.quantile(np.log2(f0[voiced]), [0.1, 0.5, 0.9])
    return Register(float(middle), float(max(high - low, config.NARROWEST)), level, loudest)


def _check(f0: np.ndarray, energy: np.ndarray) -> None:
    if f0.ndim != 1 or not f0.size or f0.shape != energy.shape:
        raise AffgenError(
            f"F0 of shape {f0.shape} and energy of {energy.shape}: accepted are both (T,), one frame or more"
        )
    if not (np.isfinite(f0).all() and np.isfinite(energy).all()):
        raise AffgenError("F0 or energy is not finite; accepted: Hz with 0 for unvoiced, and nepers")


@dataclass(frozen=True, eq=False)
class Prosody:
    """What has been learned for ``labels`` (E), neutral not among them; the table in the module docstring.

    ``centre`` (4,) is the middle register p0, the lowest and highest that were seen, and the middle log spread.
    """

    labels: tuple[str, ...]
    offset: np.ndarray
    by_register: np.ndarray
    half: np.ndarray
    pull: np.ndarray
    centre: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(NAMES))
        shapes = {"offset": shape, "by_register": shape, "half": shape, "pull": (), "centre": (4,)}
        for name, wanted in shapes.items():
            got = np.asarray(getattr(self, name), np.float64)
            if got.shape != wanted or not np.isfinite(got).all():
                raise ModelError(f"prosody: {name} has shape {got.shape}; accepted: finite numbers of shape {wanted}")
            object.__setattr__(self, name, got)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> Prosody:
        """Return what :meth:`arrays` gave; raises :class:`ModelError` for what is missing or of another shape."""
        names = [field.name for field in fields(cls)][1:]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ModelError(f"prosody: has no {missing[0]!r}; needed are {', '.join(names)}")
        return cls(tuple(labels), *(np.asarray(arrays[name]) for name in names))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers by name, float32, for a model file; the labels are kept elsewhere."""
        return {field.name: getattr(self, field.name).astype(np.float32) for field in fields(self)[1:]}

    def shared(self, **shares: float | np.ndarray) -> Prosody:
        """Return the same with each control named in ``shares`` moved by that share, one for all or (E,), of what was
        learned.
        """
        factor = np.ones(self.offset.shape)
        for name, share in shares.items():
            factor[:, NAMES.index(name)] = share
        return replace(self, offset=self.offset * factor, by_register=self.by_register * factor)

    def controls(self, strengths: np.ndarray, where: Register) -> np.ndarray:
        """Return how far each control moves, (T, C), for ``strengths`` (T, E) in a voice of that register."""
        octaves = np.clip(where.pitch, self.centre[1], self.centre[2]) - self.centre[0]
        full = self.offset + octaves * self.by_register
        at = NAMES.index("range")
        full[:, at] -= self.pull * np.clip(np.log(where.spread) - self.centre[3], -1, 1)
        moved = np.empty((len(strengths), len(NAMES)))
        for first in range(0, len(strengths), config.PIECE):
            piece = strengths[first : first + config.PIECE]
            total = piece.sum(axis=1, keepdims=True)
            share = np.divide(piece, total, out=np.zeros(piece.shape), where=total > 0)
            reached = response(total[:, :, None], self.half) * full
            moved[first : first + config.PIECE] = np.einsum("te,tec->tc", share, reached)
        most = LIMITS.copy()
        most[NAMES.index("pitch")] = np.clip(config.CEILING - where.pitch, config.ROOM, LIMITS[NAMES.index("pitch")])
        return np.clip(moved, -LIMITS, most)

    def neutral(self, where: Register, anchor: np.ndarray) -> Register:
        """Return the register that a voice of emotion ``anchor`` (E,) would have in neutral speech."""
        pitch, spread = where.pitch, where.spread
        for _ in range(8):  # how far it moved depends on where it came from
            moved = self.controls(np.atleast_2d(anchor), Register(pitch, spread, where.level, where.peak))[0]
            pitch, spread = where.pitch - moved[0], where.spread * np.exp(-moved[1])
        return Register(float(pitch), float(spread), where.level, where.peak)

    def plan(
        self,
        f0: np.ndarray,
        energy: np.ndarray,
        weights: np.ndarray,
        *,
        register: Register | None = None,
        keep_duration: bool = False,
        anchor: np.ndarray | None = None,
    ) -> Plan:
        """Return the prosody of a source in an emotion.

        ``f0`` (T,) in Hz, 0 = unvoiced; ``energy`` (T,) log energy; ``weights`` (T, E) or (E,) the strength of each
        label, sums of 0 to 1.5; ``anchor`` (E,) the strengths the source already has, which are taken off.

        Without ``register`` it is measured. With one, slopes over the phrase, which need its end, are left out; with
        ``keep_duration`` as well energy and gain of a frame depend on no other, and F0 only on its running mean: the
        blocks of a stream agree but near a cut, or near the unvoiced gap that it falls in. Raises
        :class:`AffgenError` for shapes that do not agree, strengths below 0, and whatever is not finite.
        """
        f0, energy = np.asarray(f0), np.asarray(energy)
        _check(f0, energy)
        strengths = self._strengths(weights, len(energy))
        own = _measured(f0, energy) if register is None else register
        whose = own if anchor is None else self.neutral(own, self._strengths(anchor, 1)[0])
        moved = self.controls(strengths, whose)
        if anchor is not None:
            moved = moved - self.controls(self._strengths(anchor, 1), whose)
        move = dict(zip(NAMES, moved.T, strict=True))
        phase = phrases(energy, own) if register is None else np.zeros(len(energy))
        pitched = _pitched(f0, phase, move, own)
        louder = _louder(energy, phase, move, own)
        gain = config.GAIN_DB * np.tanh(move["gain"] * DB / config.GAIN_DB)
        places = np.arange(len(energy), dtype=np.float64) if keep_duration else _places(f0, energy, move, own)
        return Plan(places, along(pitched, places), _between(louder, places), _between(gain, places))

    def _strengths(self, weights: np.ndarray, frames: int) -> np.ndarray:
        given = np.atleast_2d(np.asarray(weights, np.float64))
        count = len(self.labels)
        if given.ndim != 2 or given.shape[1] != count or len(given) not in (1, frames):
            raise AffgenError(
                f"strengths of shape {np.shape(weights)}: accepted are ({frames}, {count}) and ({count},)"
            )
        if not np.isfinite(given).all() or given.min(initial=0) < 0:
            raise AffgenError("strengths below 0 or not finite; accepted: 0 to 1.5")
        return np.broadcast_to(given, (frames, count))


_measured = register  # where an argument has that name


def response(strength: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return r(s), by broadcasting: 0 at 0, ``half`` at 0.5, 1 at 1, and on at most at unit slope up to 1.5."""
    s = np.minimum(strength, config.STRONGEST)
    weak = 2 * half * s
    strong = half + (2 * s - 1) * (1 - half)
    beyond = 1 + np.minimum(2 * (1 - half), 1) * (s - 1)
    out: np.ndarray = np.where(s < 0.5, weak, np.where(s < 1, strong, beyond))
    return out


def phrases(energy: np.ndarray, own: Register) -> np.ndarray:
    """Return the place (T,) of each frame in its phrase, -1/2 to 1/2, less in short ones; pauses lead to the next."""
    loud = np.flatnonzero(energy > own.peak - ACTIVE)
    if not len(loud):
        return np.zeros(len(energy))
    breaks = np.flatnonzero(np.diff(loud) > config.PHRASE_GAP)
    first = loud[np.concatenate([[0], breaks + 1])]
    last = loud[np.concatenate([breaks, [len(loud) - 1]])]
    reach = 0.5 * np.minimum((last - first + 1) / config.PHRASE_LEAST, 1)
    ends = np.stack([first, last + 0.5], axis=1).ravel()
    out: np.ndarray = np.interp(np.arange(len(energy)), ends, np.stack([-reach, reach], axis=1).ravel())
    return out


def along(f0: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return F0 (T,) at ``places`` (T'): on the log scale between voiced frames, else that of the nearest frame."""
    whole = np.floor(places)
    left = np.clip(whole.astype(int), 0, len(f0) - 1)
    right = np.minimum(left + 1, len(f0) - 1)
    part = np.clip(places - left, 0, 1)
    a, b = f0[left], f0[right]
    nearest = np.where(part < 0.5, a, b)
    between = np.exp((1 - part) * np.log(np.maximum(a, 1)) + part * np.log(np.maximum(b, 1)))
    between = np.clip(between, np.minimum(a, b), np.maximum(a, b))  # rounding leads out of the range
    inside = (a > 0) & (b > 0) & (part > 0) & (part < 1)
    return np.where(inside, between, nearest).astype(f0.dtype)


def _between(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.interp(places, np.arange(len(values)), values).astype(values.dtype)


def motion(f0: np.ndarray) -> np.ndarray:
    """Return how far log2 F0 is from its running mean (T,), in octaves; 0 where unvoiced."""
    voiced = np.flatnonzero(f0 > 0)
    if not len(voiced):
        return np.zeros(len(f0))
    contour = np.interp(np.arange(len(f0)), voiced, np.log2(f0[voiced]))
    reach = config.MOTION_REACH
    window = np.ones(2 * reach + 1) / (2 * reach + 1)
    quick = contour - np.convolve(np.pad(contour, reach, mode="edge"), window, mode="valid")
    return np.where(f0 > 0, np.clip(quick, -config.MOTION_MOST, config.MOTION_MOST), 0)


def _pitched(f0: np.ndarray, phase: np.ndarray, move: Mapping[str, np.ndarray], own: Register) -> np.ndarray:
    """Return F0 (T,) moved, timing kept."""
    quick = motion(f0)
    off = np.clip(np.log2(np.maximum(f0, 1)) - own.pitch, -config.WIDEST, config.WIDEST) - quick
    moved = off * np.expm1(move["range"]) + quick * np.expm1(move["motion"])
    octaves = move["pitch"] + moved + phase * move["slope"]
    held = np.clip(f0 * np.exp2(octaves), np.minimum(f0, config.LOWEST_HZ), np.maximum(f0, config.HIGHEST_HZ))
    return np.where(f0 > 0, held, 0).astype(f0.dtype)


def _louder(energy: np.ndarray, phase: np.ndarray, move: Mapping[str, np.ndarray], own: Register) -> np.ndarray:
    """Return the log energy (T,) moved, timing kept; pauses stay."""
    sure = np.clip((energy - own.peak + ACTIVE) / (ACTIVE - config.SURE), 0, 1)
    change = (energy - own.level) * np.expm1(move["dynamics"]) + phase * move["tilt"]
    return (energy + sure * change).astype(energy.dtype)


def _places(f0: np.ndarray, energy: np.ndarray, move: Mapping[str, np.ndarray], own: Register) -> np.ndarray:
    """Return the source frame (T') of every frame of the output; silence at the ends keeps its length."""
    loud = energy > own.peak - ACTIVE
    found = np.flatnonzero(loud)
    inner = np.zeros(len(energy), bool)
    if len(found):
        inner[found[0] : found[-1] + 1] = True
    kinds = {"voiced": loud & (f0 > 0), "unvoiced": loud & (f0 <= 0), "pause": inner & ~loud}
    window = np.ones(2 * config.SMOOTH + 1) / (2 * config.SMOOTH + 1)
    rate = np.zeros(len(energy))
    for name, frames in kinds.items():
        padded = np.pad(frames.astype(np.float64), config.SMOOTH, mode="edge")
        rate += move[name] * np.convolve(padded, window, mode="valid")
    ends = np.concatenate([[0], np.cumsum(np.exp(rate))])
    frames_out = max(round(float(ends[-1])), 1)
    middles = (np.arange(frames_out) + 0.5) * (ends[-1] / frames_out)
    return np.interp(middles, ends, np.arange(len(ends))) - 0.5


def fit(folders: Sequence[str | Path], *, leave_out: Sequence[str] = ()) -> Prosody:
    """Learn from the twins in Kaldi data directories with features; speakers that match ``leave_out`` are not used.

    Equal data give equal numbers. Raises :class:`AffgenError` if there is no twin of known intensity.
    """
    from vc.prosody_fit import fitted  # brings numba, which planning does without
    from vc.twins import changes, find

    return fitted(changes(find(folders, leave_out=leave_out)))
