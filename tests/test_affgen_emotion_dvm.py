"""Directions of emotions: exact at both ends, linear between, found where they were planted, saved without loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from affgen.emotion.dvm import DVM
from affgen.errors import AffgenError

WIDTH = 16
WAYS = {"angry": np.eye(WIDTH)[0] + 0.5 * np.eye(WIDTH)[1], "sad": -np.eye(WIDTH)[0], "happy": np.eye(WIDTH)[2]}


def planted(*, noise: float = 0.05, voices: float = 0.0, seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Embeddings = voice + way of the label + noise, with labels and speakers."""
    rng = np.random.default_rng(seed)
    x, labels, speakers = [], [], []
    for speaker in range(6):
        voice = voices * rng.normal(size=WIDTH)
        # a speaker acts some emotions more often: without anchoring voices leak into the means
        for label in ["neutral"] * 4 + [
            name for k, name in enumerate(WAYS) for _ in range(2 + 3 * ((k + speaker) % 2))
        ]:
            x.append(voice + WAYS.get(label, 0) + noise * rng.normal(size=WIDTH))
            labels.append(label)
            speakers.append(f"s{speaker}")
    return np.array(x), labels, speakers


@pytest.fixture(scope="module")
def dvm() -> DVM:
    x, labels, _ = planted()
    return DVM.fit(x, labels, n_mix=2, n_comp=3)


@pytest.fixture
def ends() -> tuple[np.ndarray, np.ndarray]:
    e_s, e_r = np.random.default_rng(1).normal(size=(2, 5, WIDTH))
    return e_s, e_r


# -------------------------------------------------------------------------------------------------- directions


@pytest.mark.parametrize("n_comp", [1, 3, 0.9, None])
def test_no_intensity_gives_the_source_bit_for_bit(
    dvm: DVM, ends: tuple[np.ndarray, np.ndarray], n_comp: float | None
) -> None:
    e_s, e_r = ends
    model = dvm.keeping(n_comp)
    assert np.array_equal(model.apply(e_s, model.direction(e_s, e_r), 0), e_s)
    assert np.array_equal(model.apply(e_s, model.direction_to("sad"), np.zeros(5)), e_s)


def test_full_rank_and_full_intensity_give_the_reference(dvm: DVM, ends: tuple[np.ndarray, np.ndarray]) -> None:
    e_s, e_r = ends
    full = dvm.keeping(None)
    np.testing.assert_allclose(full.apply(e_s, full.direction(e_s, e_r), 1), e_r, rtol=0, atol=1e-14)
    assert np.abs(dvm.apply(e_s, dvm.direction(e_s, e_r), 1) - e_r).max() > 0.5
    kept = dvm.basis  # and by way of the axes, for they are complete
    np.testing.assert_allclose((e_r - e_s) @ kept.T @ kept, e_r - e_s, atol=1e-5)


def test_the_result_is_linear_in_the_intensity(dvm: DVM, ends: tuple[np.ndarray, np.ndarray]) -> None:
    e_s, e_r = ends
    way = dvm.direction(e_s, e_r)
    at = {i: dvm.apply(e_s, way, i) for i in (0, 0.3, 0.6, 1.5)}
    np.testing.assert_allclose(at[0.6] - at[0], 2 * (at[0.3] - at[0]), atol=1e-12)
    np.testing.assert_allclose(at[1.5] - at[0], 5 * (at[0.3] - at[0]), atol=1e-12)


def test_projecting_twice_changes_nothing(dvm: DVM, ends: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels, _ = planted()
    for model in (dvm, dvm.keeping(1), dvm.keeping(9), DVM.fit(x, labels, n_comp=2, centred=True)):
        once = model.project(ends[0])
        np.testing.assert_allclose(model.project(once), once, atol=1e-5)
        assert np.abs(once - ends[0]).max() > 0.1


def test_the_basis_is_orthonormal_ordered_and_finds_the_planted_axes(dvm: DVM) -> None:
    np.testing.assert_allclose(dvm.basis @ dvm.basis.T, np.eye(WIDTH), atol=1e-5)
    assert bool((np.diff(dvm.variances) <= 0).all())
    assert dvm.variances[:3].sum() > 0.98 * dvm.variances.sum()
    inside = dvm.project(np.eye(WIDTH)[:3])
    np.testing.assert_allclose(inside, np.eye(WIDTH)[:3], atol=0.15)


def test_prototypes_need_no_reference(dvm: DVM) -> None:
    for label, way in WAYS.items():
        np.testing.assert_allclose(dvm.direction_to(label), way, atol=0.06)
    back = dvm.direction_to("neutral", source="angry")
    np.testing.assert_allclose(back, -dvm.direction_to("angry"), atol=1e-6)
    np.testing.assert_allclose(
        dvm.direction_to("sad", source="happy"), dvm.direction_to("sad") - dvm.direction_to("happy"), atol=1e-6
    )


def test_none_is_the_plain_difference(dvm: DVM, ends: tuple[np.ndarray, np.ndarray]) -> None:
    e_s, e_r = ends
    assert np.array_equal(dvm.ablated().direction(e_s, e_r), e_r - e_s)
    x, labels, _ = planted()
    means = {name: x[[label == name for label in labels]].mean(axis=0) for name in set(labels)}
    np.testing.assert_allclose(dvm.ablated().direction_to("sad"), means["sad"] - means["neutral"], atol=1e-5)


def test_push_goes_on_where_apply_ends_along_the_first_axis_alone(
    dvm: DVM, ends: tuple[np.ndarray, np.ndarray]
) -> None:
    e_s, e_r = ends
    difference = e_r - e_s
    np.testing.assert_allclose(dvm.push(e_s, difference, 1), dvm.apply(e_s, dvm.direction(e_s, e_r), 1), atol=1e-12)
    more = dvm.push(e_s, difference, 1.5) - dvm.push(e_s, difference, 1)
    np.testing.assert_allclose(more, 0.5 * dvm.project(difference, 1), atol=1e-12)
    np.testing.assert_allclose(more, (more @ dvm.basis[0])[:, None] * dvm.basis[0], atol=1e-6)


def test_intensities_per_item_and_per_frame(dvm: DVM, ends: tuple[np.ndarray, np.ndarray]) -> None:
    e_s, e_r = ends
    way = dvm.direction(e_s, e_r)
    curve = np.linspace(0, 1, 7)
    frames = dvm.apply(e_s[0], way[0], curve)
    assert frames.shape == (7, WIDTH)
    np.testing.assert_array_equal(frames[3], dvm.apply(e_s[0], way[0], curve[3]))
    items = dvm.apply(e_s, dvm.direction_to("sad"), curve[:5])
    assert items.shape == (5, WIDTH)
    np.testing.assert_array_equal(items[2], dvm.apply(e_s[2], dvm.direction_to("sad"), curve[2]))
    for both in (dvm.apply(e_s, way, np.tile(curve, (5, 1))), dvm.apply(e_s, way, curve[None])):
        assert both.shape == (5, 7, WIDTH)
        np.testing.assert_array_equal(both[1, 4], dvm.apply(e_s[1], way[1], curve[4]))
    assert dvm.push(e_s, way, np.tile(curve, (5, 1))).shape == (5, 7, WIDTH)
    assert dvm.apply(e_s.astype(np.float32), way.astype(np.float32), np.float32(0.5)).dtype == np.float32


# ------------------------------------------------------------------------------------------------ fitting


@pytest.mark.parametrize("seed", range(5))
def test_the_mixture_finds_two_planted_means_of_unequal_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = np.stack([np.eye(WIDTH)[3] * 2, -np.eye(WIDTH)[4] * 2])
    x = np.concatenate([100 + c + 0.3 * rng.normal(size=(n, WIDTH)) for c, n in zip(centres, (70, 30), strict=True)])
    neutral = 100 + 0.3 * rng.normal(size=(40, WIDTH))
    model = DVM.fit(np.concatenate([x, neutral]), ["sad"] * 100 + ["neutral"] * 40, n_mix=2, seed=seed)
    np.testing.assert_allclose(model.means[1], 100 + centres, atol=0.2)
    np.testing.assert_allclose(model.weights[1], [0.7, 0.3], atol=0.02)
    np.testing.assert_allclose(model.weights.sum(axis=1), 1, atol=1e-6)


def test_the_mixture_tells_a_tight_cluster_from_a_wide_one_that_holds_it() -> None:
    rng = np.random.default_rng(0)  # nearest means, with which the fit starts, would cut the wide one in two
    tight, wide = 1 + 0.2 * rng.normal(size=(60, WIDTH)), 2 * rng.normal(size=(140, WIDTH))
    model = DVM.fit(np.concatenate([tight, wide, wide + 9]), ["sad"] * 200 + ["neutral"] * 140, n_mix=2)
    np.testing.assert_allclose(model.weights[1], [0.7, 0.3], atol=0.02)
    np.testing.assert_allclose(model.means[1], [wide.mean(axis=0), tight.mean(axis=0)], atol=0.05)


def test_several_means_per_emotion_give_more_rank_than_there_are_emotions() -> None:
    x, labels, _ = planted()
    assert [int((DVM.fit(x, labels, n_mix=m).variances > 1e-9).sum()) for m in (1, 2)] == [3, 7]


def test_components_by_count_by_share_of_variance_and_all(dvm: DVM) -> None:
    assert [dvm.keeping(n).rank for n in (1, 8, None)] == [1, 8, WIDTH]
    shares = np.cumsum(dvm.variances) / dvm.variances.sum()
    for share in (0.2, 0.6, 0.9, 0.999):
        rank = dvm.keeping(share).rank
        assert shares[rank - 1] >= share and (rank == 1 or shares[rank - 2] < share)


def test_centring_takes_the_mean_difference_from_the_axes() -> None:
    x, labels, _ = planted()
    plain, centred = DVM.fit(x, labels), DVM.fit(x, labels, centred=True)
    assert not plain.centre.any()
    differences = centred.means[1:, 0] - centred.means[0, 0]
    np.testing.assert_allclose(centred.centre, differences.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(centred.keeping(2).project(differences), differences, atol=1e-5)  # 3 points: 2 axes
    assert not plain.keeping(1).project(np.zeros(WIDTH)).any()


def test_anchoring_at_neutral_keeps_voices_out_of_the_directions() -> None:
    x, labels, speakers = planted(voices=2.0)
    loose, anchored = DVM.fit(x, labels), DVM.fit(x, labels, speakers=speakers)
    off = {
        model: max(np.abs(model.direction_to(label) - way).max() for label, way in WAYS.items())
        for model in (loose, anchored)
    }
    assert off[anchored] < 0.1 < 0.3 < off[loose]
    np.testing.assert_allclose(anchored.prototype("neutral"), 0, atol=1e-6)
    mute = [name if who != "s0" or name != "neutral" else "sad" for name, who in zip(labels, speakers, strict=True)]
    kept = [k for k, who in enumerate(speakers) if who != "s0"]
    without = DVM.fit(x[kept], [labels[k] for k in kept], speakers=[speakers[k] for k in kept])
    np.testing.assert_array_equal(DVM.fit(x, mute, speakers=speakers).basis, without.basis)


def test_equal_input_gives_equal_bytes_and_arrays_come_back() -> None:
    x, labels, speakers = planted(noise=0.5)
    first, again = (DVM.fit(x, labels, n_mix=3, n_comp=0.8, speakers=speakers, seed=4) for _ in range(2))
    back = DVM.from_arrays(first.labels, first.arrays())
    for other in (again, back):
        assert (other.labels, other.rank) == (first.labels, first.rank)
        for name, value in first.arrays().items():
            assert value.dtype in (np.float32, np.int64) and value.ndim > 0
            assert np.array_equal(other.arrays()[name], value)


def test_it_survives_clips_that_are_all_alike_and_more_axes_than_clips() -> None:
    alike = np.concatenate([np.zeros((3, WIDTH)), np.ones((3, WIDTH))])
    model = DVM.fit(alike, ["neutral"] * 3 + ["sad"] * 3, n_mix=2)
    np.testing.assert_allclose(model.direction_to("sad"), np.ones(WIDTH), atol=1e-6)
    wide = np.random.default_rng(0).normal(size=(12, 256))
    model = DVM.fit(wide, ["neutral", "sad"] * 6, n_mix=2, n_comp=4)
    np.testing.assert_allclose(model.basis @ model.basis.T, np.eye(256), atol=1e-5)
    assert np.isfinite(model.means).all()


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, n, s: DVM.fit(x[:, 0], n), "is needed"),
        (lambda x, n, s: DVM.fit(x, n[1:]), "is needed"),
        (lambda x, n, s: DVM.fit(x[:0], []), "is needed"),
        (lambda x, n, s: DVM.fit(np.where(x > 0, x, np.nan), n), "not finite"),
        (lambda x, n, s: DVM.fit(x, ["sad"] * len(n)), "needed are neutral and at least one other"),
        (lambda x, n, s: DVM.fit(x, ["neutral"] * len(n)), "needed are neutral and at least one other"),
        (lambda x, n, s: DVM.fit(np.ones_like(x), n), "no direction"),
        (lambda x, n, s: DVM.fit(x, n, n_mix=0), "accepted: n_mix 1 to"),
        (lambda x, n, s: DVM.fit(x, n, n_mix=99), "99 local means"),
        (lambda x, n, s: DVM.fit(x, n, n_comp=0), "accepted: 1 to 16"),
        (lambda x, n, s: DVM.fit(x, n, n_comp=17), "accepted: 1 to 16"),
        (lambda x, n, s: DVM.fit(x, n, n_comp=1.5), "share of variance"),
        (lambda x, n, s: DVM.fit(x, n, n_comp=True), "share of variance"),
        (lambda x, n, s: DVM.fit(x, n, speakers=s[1:]), "one each"),
        (lambda x, n, s: DVM.fit(x, n, speakers=[f"{k}" for k in range(len(n))]), "at least one other"),
        (lambda x, n, s: DVM.fit(x, n).direction_to("disgust"), "it has: neutral, angry, happy, sad"),
        (lambda x, n, s: DVM.fit(x, n).direction(x[0], x[0, :3]), "accepted: "),
        (lambda x, n, s: DVM.fit(x, n).project(x, 0), "rank 0"),
        (lambda x, n, s: DVM.fit(x, n).apply(x, x, np.nan), "not finite"),
        (lambda x, n, s: DVM.fit(x, n).apply(x[:3], x[:3], np.zeros(7)), "leading axes must agree"),
        (lambda x, n, s: DVM.from_arrays(["neutral", "sad"], {}), "no array 'means'"),
        (lambda x, n, s: DVM.from_arrays(["neutral", "sad"], DVM.fit(x, n).arrays()), "do not fit"),
        (lambda x, n, s: DVM.from_arrays(["a", "b", "c", "d"], DVM.fit(x, n).arrays()), "do not fit"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Callable[..., object], says: str) -> None:
    with pytest.raises(AffgenError, match=says) as caught:
        call(*planted())
    assert "\n" not in str(caught.value)
