"""The figures of symbolic music against values worked by hand, and against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.metrics import music as metrics
from affgen.score import Note, Score, Tempo


def line(*pitches: int, start: float = 0.0, step: float = 1.0) -> Score:
    return Score(tuple(Note(start + step * i, step, pitch) for i, pitch in enumerate(pitches)))


@pytest.fixture
def piece() -> Score:
    """Bar 1: C4 for four beats under E4 for two; bar 2: C5 for one beat, then silence; bar 4: two D4 that overlap."""
    return Score(
        (
            Note(0.0, 4.0, 60, 50),
            Note(0.0, 2.0, 64, 70),
            Note(4.0, 1.0, 72, 90),
            Note(12.0, 2.0, 62, 60),
            Note(13.0, 2.0, 62, 80),
        ),
        tempos=(Tempo(0.0, 60.0),),
    )


BARS = np.array([0.0, 4.0, 8.0, 12.0])


def test_per_file(piece: Score) -> None:
    assert metrics.pitch_range(piece) == 12.0
    assert metrics.pitch_classes(piece) == 3.0
    assert metrics.polyphony(piece) == pytest.approx((4 + 2 + 1 + 3) / (4 + 1 + 3))  # the struck-again D4 counts once
    assert metrics.note_density(piece) == pytest.approx(5 / 15)
    assert metrics.mean_velocity(piece) == pytest.approx(70.0)


def test_per_bar_counts_the_last_bar_and_skips_empty_ones(piece: Score) -> None:
    assert metrics.bar_pitch_range(piece, BARS) == pytest.approx((4 + 0 + 0) / 3)
    assert metrics.bar_pitch_classes(piece, BARS) == pytest.approx((2 + 1 + 1) / 3)
    assert metrics.bar_polyphony(piece, BARS) == pytest.approx((6 / 4 + 1 + 1) / 3)
    closed = np.append(BARS, 16.0)  # a closing bar line, as Score.bar_lines gives it, changes nothing
    assert metrics.bar_polyphony(piece, closed) == metrics.bar_polyphony(piece, BARS)


def test_no_notes_is_zero_everywhere() -> None:
    empty = Score(())
    per_file = (metrics.pitch_range, metrics.pitch_classes, metrics.polyphony, metrics.note_density)
    per_bar = (metrics.bar_pitch_range, metrics.bar_pitch_classes, metrics.bar_polyphony)
    assert [f(empty) for f in per_file] + [f(empty, BARS) for f in per_bar] == [0.0] * 7
    assert metrics.mean_velocity(empty) == 0.0


def test_bar_lines_must_rise(piece: Score) -> None:
    with pytest.raises(AffgenError, match="rising"):
        metrics.bar_polyphony(piece, np.array([0.0, 4.0, 4.0]))


def test_overlap_of_known_distributions() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 4000)
    assert metrics.overlap(a, a) == pytest.approx(1.0, abs=2e-3)
    assert metrics.overlap(a, a + 1000) == pytest.approx(0.0, abs=1e-6)
    # two unit normals 2 apart overlap by 2 * Phi(-1) = 0.3173; the kernel widens both a little
    assert metrics.overlap(a, rng.normal(2, 1, 4000)) == pytest.approx(0.33, abs=0.02)
    assert metrics.overlap(a, a[:500]) == metrics.overlap(a[:500], a)


def test_overlap_against_scipy_kernels() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = rng.gamma(2, 2, 300), rng.integers(0, 9, 200).astype(float)
    grid = np.linspace(-20, 60, 20_001)
    expected = np.minimum(stats.gaussian_kde(a)(grid), stats.gaussian_kde(b)(grid)).sum() * (grid[1] - grid[0])
    assert metrics.overlap(a, b) == pytest.approx(expected, abs=2e-3)


def test_overlap_without_spread() -> None:
    assert metrics.overlap([3.0, 3.0], [3.0]) == 1.0
    assert metrics.overlap([3.0, 3.0], [4.0]) == 0.0
    assert 0.0 < metrics.overlap([3.0], [2.0, 3.0, 4.0]) <= 1.0
    for bad in ([], [np.nan, 1.0]):
        with pytest.raises(AffgenError, match="finite"):
            metrics.overlap(bad, [1.0])


def test_spearman() -> None:
    assert metrics.spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1.0)
    assert metrics.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert metrics.spearman([1, 1, 1], [1, 2, 3]) == 0.0
    assert metrics.spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.948683, abs=1e-6)  # ranks 1 2.5 2.5 4
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 20, 200), rng.integers(0, 20, 200)
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    with pytest.raises(AffgenError, match="equally long"):
        metrics.spearman([1, 2], [1, 2, 3])


def test_silhouette() -> None:
    # a = 1 and b = 10.5, 9.5 or mirrored: (9.5 / 10.5 + 8.5 / 9.5) / 2
    assert metrics.silhouette(np.array([[0.0], [1.0], [10.0], [11.0]]), [0, 0, 1, 1]) == pytest.approx(
        0.899749, abs=1e-6
    )
    cluster = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    labels[0] = 7  # alone in its cluster
    assert metrics.silhouette(x, labels) == pytest.approx(cluster.silhouette_score(x, labels))
    with pytest.raises(AffgenError, match="clusters"):
        metrics.silhouette(x, np.zeros(60))


def test_confusion() -> None:
    table = metrics.confusion(["Q1", "Q1", "Q2"], ["Q1", "Q2", "Q2"], ["Q1", "Q2", "Q3"])
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    with pytest.raises(AffgenError, match="'Q9'"):
        metrics.confusion(["Q9"], ["Q1"], ["Q1"])
    with pytest.raises(AffgenError, match="one for one"):
        metrics.confusion(["Q1"], [], ["Q1"])


def test_verbatim_run_by_hand() -> None:
    corpus = [line(60, 62, 64, 65), line(70, 71, 72)]
    assert metrics.longest_verbatim_run(line(50, 62, 64, 65, 70), corpus) == 3  # the end of one piece joins no other
    assert metrics.longest_verbatim_run(line(50, 51), corpus) == 0
    assert metrics.longest_verbatim_run(line(62, 64, 65, step=0.5), corpus) == 3
    assert metrics.longest_verbatim_run(line(62, 64, 65, step=0.5), corpus, mode="rhythm") == 1
    assert metrics.longest_verbatim_run(line(62, 64, 65, start=9.0), corpus, mode="rhythm") == 3
    assert metrics.longest_verbatim_run(Score(()), corpus) == metrics.longest_verbatim_run(line(60), []) == 0
    for mode in ("pitch", "rhythm"):
        assert metrics.longest_verbatim_run(corpus[0], corpus, mode=mode) == 4
    with pytest.raises(AffgenError, match="'melody'"):
        metrics.longest_verbatim_run(line(60), corpus, mode="melody")


def slow_run(piece: Score, corpus: list[Score], rhythm: bool) -> int:
    """The definition, compared note by note."""
    best = 0
    p, t = piece.arrays()["pitch"], np.round(piece.arrays()["onset"] * 4)
    for other in corpus:
        q, u = other.arrays()["pitch"], np.round(other.arrays()["onset"] * 4)
        for i in range(len(p)):
            for j in range(len(q)):
                k = 0
                while i + k < len(p) and j + k < len(q) and p[i + k] == q[j + k]:
                    if rhythm and k and t[i + k] - t[i + k - 1] != u[j + k] - u[j + k - 1]:
                        break
                    k += 1
                best = max(best, k)
    return best


@pytest.mark.parametrize("mode", ["pitch", "rhythm"])
def test_verbatim_run_equals_the_definition(mode: str) -> None:
    rng = np.random.default_rng(4)

    def random_piece() -> Score:
        size, pitches = int(rng.integers(1, 35)), int(rng.integers(1, 6))
        onsets = np.cumsum(rng.integers(0, 3, size)) / 4
        return Score(tuple(Note(float(onset), 0.25, 60 + int(rng.integers(pitches))) for onset in onsets))

    for _ in range(25):
        corpus = [random_piece() for _ in range(int(rng.integers(1, 4)))]
        index = metrics.VerbatimIndex(corpus, mode=mode)
        for piece in (random_piece(), random_piece(), Score(corpus[0].notes[3:])):
            assert metrics.longest_verbatim_run(piece, index) == slow_run(piece, corpus, mode == "rhythm")
