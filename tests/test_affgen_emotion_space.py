"""Prototypes and directions: found where they were planted, signed, and anchored at neutral."""

from __future__ import annotations

import numpy as np
import pytest

from affgen.emotion.space import EmotionSpace
from affgen.errors import AffgenError

WIDTH = 12
WAYS = {"angry": np.eye(WIDTH)[0], "sad": -np.eye(WIDTH)[0] + np.eye(WIDTH)[1]}


def planted(
    seed: int = 0, *, noise: float = 0.1, speakers: int = 6
) -> tuple[np.ndarray, list[str], list[float], list[str]]:
    """Embeddings = speaker + intensity * way of the label + noise, most of it along one axis that means nothing."""
    rng = np.random.default_rng(seed)
    x, labels, levels, who = [], [], [], []
    for speaker in range(speakers):
        centre = rng.normal(size=WIDTH)
        for label, level in [("neutral", 0.0)] * 6 + [(name, i) for name in WAYS for i in (0.5, 1.0)] * 4:
            nuisance = 20 * noise * rng.normal() * (np.eye(WIDTH)[0] + np.eye(WIDTH)[5])
            way = WAYS.get(label, np.zeros(WIDTH))
            x.append(centre + level * way + noise * rng.normal(size=WIDTH) + nuisance)
            labels.append(label)
            levels.append(level)
            who.append(f"s{speaker}")
    return np.array(x), labels, levels, who


def test_prototypes_lie_where_they_were_planted() -> None:
    space = EmotionSpace.fit(*planted(noise=1e-3))
    assert space.labels == ("neutral", "angry", "sad")
    for label, way in WAYS.items():
        np.testing.assert_allclose(space.direction(label), way, atol=0.02)
    np.testing.assert_allclose(
        space.direction("sad", source="angry"), space.direction("sad") - space.direction("angry"), atol=1e-6
    )
    assert not space.directions[0].any()


def test_projection_is_0_at_the_anchor_1_at_the_prototype_and_signed() -> None:
    space = EmotionSpace.fit(*planted())
    for row, label in enumerate(space.labels[1:], 1):
        neutral, full = space.prototypes[0], space.prototypes[row]
        points = np.stack([neutral, full, (neutral + full) / 2, 2 * neutral - full])
        np.testing.assert_allclose(space.project(points, label), [0, 1, 0.5, -1], atol=1e-4)
        np.testing.assert_allclose(space.project(points[1:2], label, full), [0], atol=1e-6)
        anchors = np.stack([full, neutral])
        np.testing.assert_allclose(space.project(np.stack([full, full]), label, anchors), [0, 1], atol=1e-4)


def test_strong_clips_of_unseen_speakers_score_higher_despite_the_nuisance() -> None:
    space = EmotionSpace.fit(*planted(seed=0))
    x, labels, levels, who = planted(seed=9)
    means = {s: x[[w == s and n == "neutral" for w, n in zip(who, labels, strict=True)]].mean(0) for s in set(who)}
    anchors = np.stack([means[s] for s in who])
    chosen = [k for k, label in enumerate(labels) if label == "sad"]
    scores = space.project(x[chosen], "sad", anchors[chosen])
    plain = (x[chosen] - anchors[chosen]) @ space.direction("sad")
    strong = np.array([levels[k] == 1.0 for k in chosen])

    def order(values: np.ndarray) -> float:
        return float(np.mean(values[strong][:, None] > values[~strong][None]))

    assert order(scores) > 0.95 > order(plain)  # a plain difference of means hears the nuisance


def test_speakers_do_not_move_the_directions() -> None:
    x, labels, levels, who = planted()
    shift = np.stack([np.full(WIDTH, float(speaker[1:]) * 50) for speaker in who])
    a, b = (EmotionSpace.fit(values, labels, levels, who) for values in (x, x + shift))
    np.testing.assert_allclose(a.directions, b.directions, atol=1e-4)


def test_unknown_intensities_count_as_the_middle_of_the_known() -> None:
    x, labels, levels, who = planted(noise=1e-3)
    part = [float("nan") if s == "s0" else level for s, level in zip(who, levels, strict=True)]
    np.testing.assert_allclose(EmotionSpace.fit(x, labels, part, who).direction("angry"), WAYS["angry"], atol=0.1)
    none = EmotionSpace.fit(x, labels, [float("nan")] * len(x), who)
    np.testing.assert_allclose(none.direction("angry"), 0.75 * WAYS["angry"], atol=0.05)


def test_arrays_give_the_same_space() -> None:
    space = EmotionSpace.fit(*planted())
    again = EmotionSpace.from_arrays(space.labels, space.arrays())
    x = planted(seed=3)[0]
    np.testing.assert_array_equal(again.project(x, "angry"), space.project(x, "angry"))


def test_what_makes_no_space_is_refused() -> None:
    x, labels, levels, who = planted()
    with pytest.raises(AffgenError, match="no speaker has neutral"):
        EmotionSpace.fit(x, ["sad"] * len(x), levels, who)
    with pytest.raises(AffgenError, match="label, intensity and speaker"):
        EmotionSpace.fit(x, labels[1:], levels, who)
    x[0, 0] = np.nan
    with pytest.raises(AffgenError, match="not finite"):
        EmotionSpace.fit(x, labels, levels, who)
    with pytest.raises(AffgenError, match="one row of each"):
        EmotionSpace(("neutral",), np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(AffgenError, match=r"'bored'.*neutral, angry, sad"):
        EmotionSpace.fit(*planted()).project(np.zeros((1, WIDTH)), "bored")
