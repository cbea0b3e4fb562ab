"""Copy synthesis measured: waves made from the features of recordings, against the recordings.

F0, voicing and periodicity are judged twice: by librosa's pYIN (Mauch & Dixon 2014), which decides since no vocoder
here is driven by it, and by the tracker of this project (columns "own"). Needs the extra ``eval``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from affgen.errors import AffgenError, DataError
from affgen.features import HOP, SAMPLE_RATE, energy
from affgen.files import atomic_path
from affgen.metrics import speech

F0_RANGE = (65.0, 1100.0)
SILENCE_DB = -60.0
"""Frames weaker than this, relative to the reference's loudest, count as unvoiced and not periodic (CARGAN: same)."""
PIECE = 689
"""Frames, about 8 s; longer recordings are cut into equal pieces no longer than one and a half times this."""
_OF_PITCH = ("f0", "f0_rms", "voicing", "periodicity")
FIGURES = ("mcd", "stft", "pesq", *_OF_PITCH, *(f"own_{name}" for name in _OF_PITCH))
"""Columns, from :mod:`affgen.metrics.speech`: f0 is the mean absolute error, f0_rms the root mean square, in cents."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Item:
    """A recording and its features: ``mel`` (80, T) natural log, ``f0`` (T,) in Hz, ``wave`` (T * 256,) float32."""

    name: str
    corpus: str
    mel: np.ndarray
    f0: np.ndarray
    wave: np.ndarray


Synthesizer = Callable[[Item], np.ndarray]
"""From an item to a wave of about its length; what of the item it looks at is its own business."""


@dataclass(frozen=True)
class Report:
    """Means over recordings: ``rows[vocoder][corpus][figure]``, the corpus "all" being all recordings alike.

    ``values[vocoder][recording][figure]`` are those of single recordings, for comparing in pairs. ``items`` counts the
    recordings of each corpus; ``failures`` those a figure could not be had for (NaN), which its mean leaves out.
    """

    rows: dict[str, dict[str, dict[str, float]]]
    values: dict[str, dict[str, dict[str, float]]]
    items: dict[str, int]
    seconds: float
    failures: dict[str, int]

    def json(self) -> str:
        """The report as JSON; null where there is no figure."""
        return json.dumps(_no_nan(asdict(self)), indent=1, allow_nan=False) + "\n"

    def table(self, corpus: str = "all") -> str:
        """A table in Markdown, one line for each vocoder."""
        lines = [["", *(name.replace("_", " ") for name in FIGURES)], ["---"] * (len(FIGURES) + 1)]
        for vocoder, figures in self.rows.items():
            lines.append([vocoder, *(f"{figures[corpus][name]:{_places(name)}}" for name in FIGURES)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def evaluate(vocoders: Mapping[str, Synthesizer], items: Sequence[Item], *, cache: str | Path | None = None) -> Report:
    """Measure each of ``vocoders`` on ``items``.

    ``cache`` is a folder (made if absent) where the slow tracker's findings are kept by the content of the wave.
    Raises :class:`AffgenError` for no items, for a vocoder whose wave is much shorter than its item or not finite,
    and where the extra ``eval`` is not installed.
    """
    if not items:
        raise AffgenError("no recordings to evaluate on")
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    found = {
        name: [_measure(synthesize(item), item, name, cache) for item in items] for name, synthesize in vocoders.items()
    }
    corpora = [item.corpus for item in items]
    failures = {
        f"{name} {figure}": count
        for name, rows in found.items()
        for figure in FIGURES
        if (count := sum(bool(np.isnan(row[figure])) for row in rows))
    }
    return Report(
        {name: _means(rows, corpora) for name, rows in found.items()},
        {name: {item.name: row for item, row in zip(items, rows, strict=True)} for name, rows in found.items()},
        {corpus: corpora.count(corpus) for corpus in sorted(set(corpora))},
        sum(len(item.wave) for item in items) / SAMPLE_RATE,
        failures,
    )


def world(item: Item) -> np.ndarray:
    """Copy by WORLD (Morise, Yokomori & Ozawa 2016): Harvest, CheapTrick and D4C of the wave, frames of 5 ms.

    It hears the wave itself, not the mel. Raises :class:`AffgenError` where ``pyworld`` is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks setuptools for its version
            import pyworld
    except ImportError as error:
        raise AffgenError("the WORLD copy needs the package pyworld; install affgen[eval]") from error
    wave = item.wave.astype(np.float64)
    f0, times = pyworld.harvest(wave, SAMPLE_RATE, *F0_RANGE)
    envelope = pyworld.cheaptrick(wave, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(wave, f0, times, SAMPLE_RATE)
    return pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE).astype(np.float32)


def griffin_lim_copy(item: Item, *, momentum: float = 0.99) -> np.ndarray:
    """Copy by 60 iterations of :func:`affgen.vocoder.griffin_lim.griffin_lim` from the mel alone."""
    from affgen.vocoder.griffin_lim import griffin_lim

    return griffin_lim(item.mel, 60, momentum=momentum)


# ----------------------------------------------------------------------------------------------------- the items


def select(folders: Mapping[str, str | Path], utterances: int = 60, *, seed: int = 0) -> list[Item]:
    """Choose about ``utterances`` recordings from data directories {corpus: folder} that have features with waves.

    Each corpus gives an equal share, its speakers in turn; a corpus with fewer gives all. Equal arguments choose
    equally. Long recordings become several items. Raises :class:`DataError` for folders without what is needed.
    """
    from affgen.datadir import DataDir
    from affgen.featuredir import FeatureDir

    items: list[Item] = []
    for corpus, folder in folders.items():
        data, rng = FeatureDir(folder), np.random.default_rng(seed)
        speakers = DataDir.read(folder).tables.get("utt2spk", {})
        share = -(-utterances // len(folders))
        for name in _in_turn([utt for utt in data.utterances if utt in speakers], speakers, rng)[:share]:
            features = data.features(name)
            items += pieces(name, corpus, features.mel, features.f0, data.wave(name))
    if not items:
        raise DataError(f"{', '.join(map(str, folders.values()))}: no utterances with features and sound")
    return items


def pieces(name: str, corpus: str, mel: np.ndarray, f0: np.ndarray, wave: np.ndarray) -> list[Item]:
    """Return a recording as items of up to 12 s: mel (80, T), f0 (T,), wave (at least T * 256,)."""
    count = max(1, round(len(f0) / PIECE))
    edges = np.linspace(0, len(f0), count + 1).round().astype(int)
    wave = np.pad(wave, (0, max(0, len(f0) * HOP - len(wave))))
    return [
        Item(
            name if count == 1 else f"{name}-{i}", corpus, mel[:, low:high], f0[low:high], wave[low * HOP : high * HOP]
        )
        for i, (low, high) in enumerate(pairwise(edges))
    ]


def _in_turn(names: list[str], speakers: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    """Shuffle, then order so that every speaker has had one before any has two."""
    seen: dict[str, int] = {}
    turns = []
    for name in (names[i] for i in rng.permutation(len(names))):
        seen[speakers[name]] = seen.get(speakers[name], 0) + 1
        turns.append((seen[speakers[name]], name))
    return [name for _, name in sorted(turns, key=lambda turn: turn[0])]


# ---------------------------------------------------------------------------------------------------- one figure


def _measure(copy: np.ndarray, item: Item, vocoder: str, cache: str | Path | None) -> dict[str, float]:
    if copy.ndim != 1 or len(copy) < 0.9 * len(item.wave) or not np.isfinite(copy).all():
        raise AffgenError(f"{vocoder}: {item.name}: a wave of {copy.shape}, for {item.wave.shape}, or not finite")
    ours, theirs = speech.align(item.wave, copy.astype(np.float32))
    try:
        quality = speech.pesq(ours, theirs)
    except AffgenError as error:
        if isinstance(error.__cause__, ImportError):
            raise
        logger.warning("%s: %s: %s", vocoder, item.name, error)
        quality = float("nan")
    figures = {"mcd": speech.mcd(ours, theirs), "stft": speech.stft_distance(ours, theirs), "pesq": quality}
    loudest = float(energy(ours).max())
    for prefix, track in (("", _cached(pyin, cache)), ("own_", own)):
        (f0, periodicity), (copied_f0, copied) = (_gated(track(wave), wave, loudest) for wave in (ours, theirs))
        figures[f"{prefix}f0"], figures[f"{prefix}f0_rms"] = speech.f0_error(f0, copied_f0)
        figures[f"{prefix}voicing"] = speech.voicing_error(f0, copied_f0)
        figures[f"{prefix}periodicity"] = speech.periodicity_error(periodicity, copied)
    return figures


def pyin(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F0 (T,) in Hz, 0 = unvoiced, and probability of voicing (T,), T = L // 256, by librosa's pYIN."""
    try:
        import librosa
    except ImportError as error:
        raise AffgenError("the pitch judge needs the package librosa; install affgen[eval]") from error
    floor, ceiling = F0_RANGE
    hertz, _, periodicity = librosa.pyin(wave, fmin=floor, fmax=ceiling, sr=SAMPLE_RATE, hop_length=HOP)
    count = len(wave) // HOP
    return np.nan_to_num(hertz[:count]).astype(np.float32), periodicity[:count].astype(np.float32)


def own(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F0 (T,) and periodicity (T,) by :func:`affgen.pitch.f0`."""
    from affgen import pitch

    return pitch.f0(wave, SAMPLE_RATE, floor=F0_RANGE[0], ceiling=F0_RANGE[1])


def _gated(found: tuple[np.ndarray, np.ndarray], wave: np.ndarray, loudest: float) -> tuple[np.ndarray, np.ndarray]:
    heard = energy(wave) > loudest * 10 ** (SILENCE_DB / 20)
    return found[0] * heard, found[1] * heard


def _cached(track: Callable[[np.ndarray], Any], folder: str | Path | None) -> Callable[[np.ndarray], Any]:
    """``track`` that reads what it found before in a wave of the same samples from ``folder``."""
    if folder is None:
        return track

    def remembered(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from safetensors.numpy import load_file, save_file

        digest = hashlib.sha256(np.ascontiguousarray(wave, np.float32).tobytes()).hexdigest()[:32]
        path = Path(folder) / f"{track.__name__}-{digest}.safetensors"
        if path.exists():
            kept = load_file(path)
            return kept["f0"], kept["periodicity"]
        f0, periodicity = track(wave)
        with atomic_path(path) as temporary:
            save_file({"f0": f0, "periodicity": periodicity}, temporary)
        return f0, periodicity

    return remembered


def _means(rows: list[dict[str, float]], corpora: list[str]) -> dict[str, dict[str, float]]:
    """Means of each figure over all rows and over those of each corpus; NaN where no recording has the figure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # mean of nothing
        return {
            corpus: {
                figure: float(
                    np.nanmean([row[figure] for row, of in zip(rows, corpora, strict=True) if corpus in (of, "all")])
                )
                for figure in FIGURES
            }
            for corpus in ("all", *sorted(set(corpora)))
        }


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def _places(figure: str) -> str:
    return ".1f" if "f0" in figure else ".4f" if figure.endswith(("voicing", "periodicity")) else ".3f"
