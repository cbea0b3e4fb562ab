"""Calibration: which strength is heard as which intensity, measured on speakers that the decoder has not seen.

First the decoder's colour, and F0 and energy: clips of each label are compared with conversions of their neutral
twins, and what is lacking is made up for. Then, within bounds, the height of F0: so much of it that full strength is
heard as strong as is wanted. Last the strength: neutral clips are converted at rising strengths, and a
listener model says how far each result has moved from its source towards the label, in units of how far the same
speakers' own strong clips are from their neutral ones. The medians, made monotone, are inverted: intensity i then asks
for the strength that is heard as i times what the full strength is heard as.

The listener is the shipped emotion encoder with its directions, not the judge of :mod:`vc.evaluate`: what is reported
is not what was tuned on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from affgen.audio import Audio
from affgen.emotion.encoder import EmotionEncoder
from affgen.emotion.space import NEUTRAL
from affgen.errors import DataError
from affgen.featuredir import FeatureDir
from affgen.features import SAMPLE_RATE, extract
from vc import content
from vc.convert import VoiceConverter
from vc.pack import Parts
from vc.prosody import NAMES, Prosody, response
from vc.twins import Measured, find, measure
from vc.wanted import GRID, Calibration

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Strengths tried; the prosody goes no further than the last."""
LEAST_GAP = 0.1
"""Speakers whose strong clips are hardly heard as such give no smaller unit than this."""
COLOURS = (0.5, 3.0)
"""Least and most that a label's coordinates are multiplied by."""
COLOUR_CLIPS = 16
"""Pairs of each label that colour and prosody are measured on."""
CORRECTED = ("pitch", "range", "motion", "slope", "dynamics", "tilt")
AT = [NAMES.index(name) for name in CORRECTED]
"""Controls of the prosody that are corrected, and where they stand."""
TRUST = 0.6


class Listener:
    """The shipped emotion encoder as a measure of intensity, in units of how far ``strong`` clips are from neutral."""

    def __init__(self, strong: Mapping[str, Sequence[tuple[Audio, Audio]]]) -> None:
        self.encoder, self.gaps = EmotionEncoder.from_pretrained(), dict.fromkeys(strong, 1.0)
        if self.encoder.space is None:
            raise DataError("the emotion encoder has no directions; calibration needs them")
        self.space = self.encoder.space
        for label, pairs in strong.items():
            moved = [self.moved(self.hear(clip), self.hear(neutral), label) for clip, neutral in pairs]
            self.gaps[label] = max(float(np.median(moved)), LEAST_GAP)

    def hear(self, audio: Audio) -> np.ndarray:
        """Return the embedding (256,) of a sound, whatever its loudness."""
        return self.encoder.encode(audio).embedding

    def moved(self, heard: np.ndarray, anchor: np.ndarray, label: str) -> float:
        """Return how far ``heard`` is from ``anchor`` towards ``label``: 1 is as far as natural strong clips are."""
        return float(self.space.project(heard[None], label, anchor)[0] / self.gaps[label])


def calibrate(
    converter: VoiceConverter,
    neutral: Sequence[Audio],
    strong: Mapping[str, Sequence[tuple[Audio, Audio]]],
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Parts:
    """Return the parts of ``converter`` with colour, prosody and strengths set by what is measured.

    ``neutral`` clips are converted; ``strong`` has pairs (strong clip, neutral clip) of each label. A label without
    such pairs keeps strength = intensity. Raises :class:`DataError` for no neutral clips.
    """
    if not neutral:
        raise DataError("no neutral clips to calibrate on; accepted: labelled intensities of speakers left out")
    listener, labels, config = Listener(strong), converter.labels, converter.parts.config
    colour = colours(converter, strong)
    colour[1:] *= config.colour_share
    plain = with_colour(converter, colour)
    shares = dict.fromkeys(("voiced", "unvoiced", "pause"), config.time_share)
    shares |= {"range": config.range_share, "slope": config.slope_share}
    shares |= {"dynamics": config.dynamics_share, "motion": config.motion_share}
    plain = plain.having(prosody=moved_as_far(plain, strong).shared(**shares))
    anchors = [listener.hear(clip) for clip in neutral]

    def heard(by: VoiceConverter, label: str, strength: float) -> float:
        made = [listener.hear(by.convert(clip, label, strength)) for clip in neutral]
        return float(np.median([listener.moved(one, anchor, label) for one, anchor in zip(made, anchors, strict=True)]))

    found = pitches(plain, [label for label in labels if strong.get(label)], heard)
    plain = plain.having(prosody=plain.parts.prosody.shared(pitch=found))
    rows = Calibration.identity(labels)
    strengths, reached = rows.strengths.copy(), rows.reached.copy()
    for row, label in enumerate(labels):
        if label == NEUTRAL or not strong.get(label):
            continue
        rising = [heard(plain, label, strength) for strength in STRENGTHS]
        strengths[row], reached[row] = inverted(np.array(rising), config.full_strength)
        told = f"heard {np.round(rising, 2).tolist()}, strengths {strengths[row].round(2).tolist()}"
        report(f"{label}: {told}, colour {colour[row]:.2f}, share of F0 {found[row - 1]:.2f}")
    return replace(plain.parts, calibration=Calibration(labels, strengths, reached, colour))


def pitches(
    converter: VoiceConverter, labels: Sequence[str], heard: Callable[[VoiceConverter, str, float], float]
) -> np.ndarray:
    """Return which share of its F0 height each label but neutral is to have (E - 1,): 1 for those not in ``labels``.

    It is the least, between the first and the last of ``pitch_shares``, with which full strength is ``heard`` (by,
    label, strength) as the ``heard`` of the configuration; but beyond the first it raises F0 by ``pitch_most`` at most.
    """
    config, prosody = converter.parts.config, converter.parts.prosody
    at, tried = NAMES.index("pitch"), np.array(config.pitch_shares)
    full = response(np.array(config.full_strength), prosody.half[:, at]) * np.abs(prosody.offset[:, at])
    found = np.ones(len(prosody.labels))
    for row, label in enumerate(prosody.labels):
        if label in labels:
            by = [converter.having(prosody=prosody.shared(pitch=share)) for share in tried]
            reached = monotone(np.array([heard(one, label, config.full_strength) for one in by]))
            wanted = float(np.interp(config.heard, reached + 1e-6 * np.arange(len(tried)), tried))
            found[row] = max(tried[0], min(wanted, config.pitch_most / max(full[row], 1e-6)))
    return found


def with_colour(converter: VoiceConverter, colour: np.ndarray) -> VoiceConverter:
    """Return ``converter`` with strength = intensity and the ``colour`` (E,) of its labels."""
    return converter.having(calibration=replace(Calibration.identity(converter.labels), colour=colour))


def colours(converter: VoiceConverter, strong: Mapping[str, Sequence[tuple[Audio, Audio]]]) -> np.ndarray:
    """Return by how much to enlarge each label's coordinates (E,): least squares over the bands of the mean envelope.

    Natural change n (80,), from neutral to strong clips; made change at colours 1 and 2, m1 and m2: with the slope
    s = m2 - m1, the colour is 1 + <n - m1, s> / <s, s>, held within :data:`COLOURS`.
    """
    found = np.ones(len(converter.labels))
    for row, label in enumerate(converter.labels):
        pairs = _some(strong.get(label, ()))
        if label == NEUTRAL or not pairs:
            continue
        before = np.mean([colour_of(neutral) for _, neutral in pairs], axis=0)
        natural = np.mean([colour_of(clip) for clip, _ in pairs], axis=0) - before
        made = [
            np.mean([colour_of(changed.convert(neutral, label, 1.0)) for _, neutral in pairs], axis=0) - before
            for changed in (with_colour(converter, factor * np.ones(len(found))) for factor in (1, 2))
        ]
        slope = made[1] - made[0]
        found[row] = np.clip(1 + (natural - made[0]) @ slope / max(slope @ slope, 1e-6), *COLOURS)
    return found


def moved_as_far(converter: VoiceConverter, strong: Mapping[str, Sequence[tuple[Audio, Audio]]]) -> Prosody:
    """Return the prosody of ``converter``, its controls nearer to how far these speakers move them.

    What lacks, the median over pairs of the natural change less that of conversions at strength 1, is made up for by
    :data:`TRUST`: a few speakers are no better an average than those that the prosody was learned from.
    """
    prosody = converter.parts.prosody
    offset = prosody.offset.copy()
    for row, label in enumerate(prosody.labels):
        rows = []
        for clip, neutral in _some(strong.get(label, ())):
            heard = [measure(extract(sound)) for sound in (neutral, clip, converter.convert(neutral, label, 1.0))]
            if None not in heard:
                before, natural, made = (_controls(one) for one in heard)
                rows.append((natural - before) - (made - before))
        if rows:
            offset[row, AT] += TRUST * np.median(rows, axis=0)
    return replace(prosody, offset=offset)


def _controls(heard: Measured | None) -> np.ndarray:
    """Return pitch, range and the other :data:`CORRECTED` controls of an utterance."""
    if heard is None:
        raise ValueError("an utterance without voice")
    values = {"pitch": heard.register.pitch, "range": float(np.log(heard.register.spread))}
    return np.array([values[name] if name in values else getattr(heard, name) for name in CORRECTED])


def _some(pairs: Sequence[tuple[Audio, Audio]]) -> list[tuple[Audio, Audio]]:
    """Return about :data:`COLOUR_CLIPS` of the pairs, spread over all of them."""
    return list(pairs[:: max(1, len(pairs) // COLOUR_CLIPS)])[:COLOUR_CLIPS]


def colour_of(audio: Audio) -> np.ndarray:
    """Return the mean levelled envelope (80,) of a voice where it is voiced, or where it is loud if it never is."""
    features = extract(audio)
    energy = content.log_energy(features.mel)
    mel = content.levelled(features.mel, content.level(energy))
    loud = content.active(energy)
    voiced = loud & (features.f0 > 0)
    voiced = voiced if voiced.any() else loud
    mean: np.ndarray = content.envelope(mel, features.f0)[:, voiced].mean(axis=1)
    return mean


def inverted(heard: np.ndarray, full: float = 1.0) -> tuple[np.ndarray, float]:
    """Return the strengths (7,) for the intensities :data:`vc.wanted.GRID`, and the intensity heard at the last.

    ``heard`` (6,) at :data:`STRENGTHS`. Intensity 1 is strength ``full``; below and beyond it what is heard rises in
    proportion. Where a model goes no further, neither does the strength.
    """
    tried = np.array((0.0, *STRENGTHS))
    rising = np.concatenate([[0.0], monotone(heard)])
    rising = rising / max(float(np.interp(full, tried, rising)), LEAST_GAP)
    enough = tried[np.argmax(rising >= rising[-1] - 1e-3)]  # no further than where it ceases to rise
    strengths = np.interp(GRID, rising + 1e-6 * np.arange(len(rising)), tried)  # np.interp wants no plateaus
    return np.minimum(strengths, enough), float(min(GRID[-1], rising[-1]))


def monotone(values: np.ndarray) -> np.ndarray:
    """Return the rising sequence (N,) nearest to ``values``, none below 0: pooling of adjacent violators."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([float(value)])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return np.maximum(np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools]), 0.0)


def clips_of(
    folders: Sequence[str | Path], patterns: Sequence[str], each: int = 2
) -> tuple[list[Audio], dict[str, list[tuple[Audio, Audio]]]]:
    """Return ``each`` neutral clips of every speaker that matches ``patterns``, and pairs (strong, neutral) by label.

    Only clips of intensity 1 count as strong. The directories need features with waves.
    """
    twins = [
        twin
        for twin in find(folders)
        if twin.intensity == 1 and any(fnmatchcase(twin.speaker, pattern) for pattern in patterns)
    ]
    sources = {folder: FeatureDir(folder) for folder in {twin.folder for twin in twins}}

    def sound(folder: Path, name: str) -> Audio:
        return Audio(sources[folder].wave(name), SAMPLE_RATE)

    chosen: dict[str, dict[str, Path]] = {}
    pairs: dict[str, list[tuple[Audio, Audio]]] = {}
    for twin in twins:
        chosen.setdefault(twin.speaker, {})[twin.neutral] = twin.folder
        pair = sound(twin.folder, twin.emotional), sound(twin.folder, twin.neutral)
        pairs.setdefault(twin.label, []).append(pair)
    neutral = []
    for own in chosen.values():
        names = sorted(own)
        neutral += [sound(own[name], name) for name in names[:: max(1, len(names) // each)][:each]]
    return neutral, pairs
