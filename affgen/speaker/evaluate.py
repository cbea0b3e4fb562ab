"""Figures of speaker verification: the equal error rate over all pairs of utterances, and over harder subsets.

A trial is a pair of utterances, scored by the cosine of their embeddings; a target is a pair of one speaker. The equal
error rate is the share of targets rejected at the threshold where as many non-targets are accepted. Over speakers of
several corpora the recording gives many non-targets away, so the figures inside one corpus are the honest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affgen.errors import AffgenError, DataError
from affgen.speaker.data import Clip, load_clips
from affgen.speaker.embed import SpeakerEncoder

MFCC = 20


@dataclass(frozen=True, eq=False)
class Trials:
    """All pairs of utterances, P = N (N - 1) / 2: ``score``, ``target``, ``first`` and ``second`` (P,)."""

    score: np.ndarray
    target: np.ndarray
    first: np.ndarray
    second: np.ndarray


def evaluate(
    folders: Sequence[str | Path], model: str | Path | None = None, *, baseline: bool = False
) -> dict[str, Any]:
    """Return the figures of a model (default: the shipped one) on data directories with features.

    With ``baseline`` utterances are compared by the mean and deviation of their cepstra instead.
    Raises :class:`DataError` for directories without a target or without a non-target.
    """
    clips = load_clips(folders)
    mels = [clip.mel for clip in clips]
    vectors = cepstra(mels) if baseline else SpeakerEncoder.from_pretrained(model).embed_mels(mels)
    name = "cepstral statistics" if baseline else str(model or "shipped")
    return {"model": name, "data": [str(folder) for folder in folders], **figures(clips, vectors)}


def figures(clips: Sequence[Clip], vectors: np.ndarray) -> dict[str, Any]:
    """Return the equal error rates of ``vectors`` (N, D) of unit length, with the counts behind them.

    ``pooled``: all pairs. ``balanced``: every speaker's targets and every two speakers' non-targets weigh alike.
    ``within``: non-targets of the same corpus only, over all corpora together and by corpus; ``across_emotions`` and
    ``across_folders`` (speech against song) are the pairs of these that differ so, non-targets too.
    """
    trials = pairs(vectors, np.array([clip.speaker for clip in clips]))
    corpus, emotion, folder = (np.array([getattr(c, name) for c in clips]) for name in ("corpus", "emotion", "folder"))
    same = corpus[trials.first] == corpus[trials.second]
    subsets = {
        "all": same,
        "across_emotions": same & (emotion[trials.first] != emotion[trials.second]),
        "across_folders": same & (folder[trials.first] != folder[trials.second]),
    }
    within: dict[str, Any] = {}
    for place in ("all", *sorted(set(corpus))):
        here = True if place == "all" else corpus[trials.first] == place
        found = {name: _figure(trials, subset & here) for name, subset in subsets.items()}
        within[place] = {name: figure for name, figure in found.items() if figure}
    everything = np.ones(len(same), bool)
    pooled = _figure(trials, everything)
    if pooled is None:
        raise DataError("no two utterances of one speaker, or none of two speakers; accepted: several of several")
    speakers = np.unique([clip.speaker for clip in clips], return_inverse=True)[1]
    balanced = _figure(trials, everything, balance(trials, speakers))
    within = {place: found for place, found in within.items() if found}
    return {"utterances": len(clips), "speakers": int(speakers.max()) + 1} | {
        "pooled": pooled, "balanced": balanced, "within": within
    }  # fmt: skip


def pairs(vectors: np.ndarray, speakers: np.ndarray) -> Trials:
    """Score all pairs of ``vectors`` (N, D) of unit length, whose speakers are ``speakers`` (N,)."""
    first, second = np.triu_indices(len(vectors), 1)
    score = (vectors @ vectors.T)[first, second]
    return Trials(score, speakers[first] == speakers[second], first, second)


def balance(trials: Trials, speakers: np.ndarray) -> np.ndarray:
    """Weights (P,) by which all trials of two given speakers, or of one, count as much as those of any others.

    ``speakers`` (N,) are whole numbers from 0.
    """
    one, other = speakers[trials.first], speakers[trials.second]
    cell = np.minimum(one, other) * (int(speakers.max()) + 1) + np.maximum(one, other)
    return 1.0 / np.bincount(cell)[cell]


def equal_error_rate(score: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
    """Return the equal error rate (0 to 1) and the threshold of scores (P,), targets (P,) and weights (P,).

    Between two scores the error rates are linear; equal scores are accepted or rejected together. Raises
    :class:`AffgenError` without a target or without a non-target.
    """
    if not target.any() or target.all():
        raise AffgenError("an equal error rate needs targets and non-targets")
    order = np.argsort(-score, kind="stable")
    score, target = score[order], target[order]
    weight = np.ones(len(score)) if weight is None else weight[order]
    last = np.append(score[1:] != score[:-1], True)  # the last of equal scores
    accepted = [np.append(0.0, np.cumsum(weight * side)[last]) for side in (target, ~target)]
    miss, alarm = 1 - accepted[0] / accepted[0][-1], accepted[1] / accepted[1][-1]
    at = int(np.argmax(alarm >= miss))  # at least 1: at 0 nothing is accepted
    before, after = miss[at - 1] - alarm[at - 1], alarm[at] - miss[at]
    part = before / (before + after)
    return float(miss[at - 1] + part * (miss[at] - miss[at - 1])), float(score[last][at - 1])


def cepstra(mels: Sequence[np.ndarray]) -> np.ndarray:
    """Return a baseline (N, 40): mean and deviation of mel cepstra 1 to 20, each made alike in spread over the N."""
    place = (np.arange(80) + 0.5) * np.pi / 80
    basis = np.cos(np.arange(1, MFCC + 1)[:, None] * place)
    rows = []
    for mel in mels:
        loudness = np.sum(np.exp(2 * mel.astype(np.float32)), axis=0)
        cepstrum = basis @ mel.astype(np.float32)[:, loudness > 1e-3 * loudness.max()]
        rows.append(np.concatenate([cepstrum.mean(axis=1), cepstrum.std(axis=1)]))
    table = np.array(rows)
    table = (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-9)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def _figure(trials: Trials, chosen: np.ndarray, weight: np.ndarray | None = None) -> dict[str, Any] | None:
    """Equal error rate, threshold and counts of the chosen trials; None where targets or non-targets lack."""
    target = trials.target[chosen]
    if not target.any() or target.all():
        return None
    rate, threshold = equal_error_rate(trials.score[chosen], target, None if weight is None else weight[chosen])
    return {"eer": rate, "threshold": threshold, "targets": int(target.sum()), "others": int((~target).sum())}
