"""The picture of a piece: where the asked and the read curve lie, and that it is drawn the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.score import Meter, Score, Tempo
from affgen.testing import fabricated_score
from music import picture
from music.compose import Composer, Piece
from music.evaluator import Evaluator
from music.picture import plot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator.from_pretrained()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is handed to the drawing, in place of drawing it."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(picture, "piano_roll", lambda score, path, **options: calls.append({"score": score, **options}))
    return calls


def test_a_picture_is_drawn_and_equal_pieces_give_equal_bytes(
    composer: Composer, evaluator: Evaluator, tmp_path: Path
) -> None:
    piece = composer.compose("Q4@0b,Q1@4b", bars=6, seed=1)
    for name in ("one.png", "two.png"):
        plot(piece, evaluator, tmp_path / name)
    data = (tmp_path / "one.png").read_bytes()
    assert data.startswith(PNG) and len(data) > 10_000
    assert data == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_the_curves_are_what_was_asked_and_what_is_read(
    composer: Composer, evaluator: Evaluator, drawn: list[dict[str, Any]]
) -> None:
    piece = composer.compose("Q4@0b,Q1@8b", bars=8, tempo=100, seed=5)
    plot(piece, evaluator, "unused.png")
    (call,) = drawn
    assert call["score"] is piece.score
    assert call["title"] == "Q4@0b,Q1@8b  intensity 1  seed 5"
    positions, va = call["asked"]
    np.testing.assert_allclose(positions, np.arange(8) + 0.5)
    np.testing.assert_allclose(va[:, 1], -0.7 + 1.4 * (np.arange(8) + 0.5) / 8)
    where, read = call["read"]
    np.testing.assert_allclose(where, [2, 4, 6])
    windows = np.array([[0, 4], [2, 6], [4, 8]]) * 2.4
    np.testing.assert_allclose(read, evaluator.trajectory(piece.score, windows))


@pytest.mark.parametrize("bars", [1, 2, 3, 4, 5])
def test_short_pieces_have_their_reading_too(
    composer: Composer, evaluator: Evaluator, drawn: list[dict[str, Any]], bars: int
) -> None:
    plot(composer.compose("Q2", bars=bars), evaluator, "unused.png")
    where, read = drawn[0]["read"]
    assert len(where) == len(read) == max(1, (bars - 2) // 2)
    assert np.isfinite(read).all() and np.abs(read).max() <= 1 and 0 < where[0] <= bars


def test_a_continuation_was_asked_for_in_its_new_bars(
    composer: Composer, evaluator: Evaluator, drawn: list[dict[str, Any]]
) -> None:
    plot(composer.extend(fabricated_score(1, bars=4), "Q3@0b,Q1@3b", bars=3), evaluator, "unused.png")
    np.testing.assert_allclose(drawn[0]["asked"][0], [4.5, 5.5, 6.5])


def test_in_a_performance_the_new_bars_are_drawn_where_they_sound(
    composer: Composer, evaluator: Evaluator, drawn: list[dict[str, Any]]
) -> None:
    """Beats of 1.5 beats of the file: four new bars of the playing are six bars of the file."""
    score = fabricated_score(3, bars=8)
    notes = tuple(replace(n, onset=0.11 + 1.5 * n.onset, duration=1.5 * n.duration) for n in score.notes)
    piece = composer.extend(replace(score, notes=notes, markers=(), controls=()), "Q1", bars=4)
    plot(piece, evaluator, "unused.png")
    new = sorted(n.onset for n in set(piece.score.notes) - set(notes))
    positions = drawn[0]["asked"][0]
    assert positions[0] == pytest.approx(new[0] // 6 * 6 / 4 + 0.75, abs=0.8)


def test_other_meters_and_tempi_are_drawn_by_their_own_bar_lines(
    composer: Composer, evaluator: Evaluator, drawn: list[dict[str, Any]]
) -> None:
    piece = composer.compose("Q1", bars=6)
    waltz: Score = replace(piece.score, meters=(Meter(0.0, 3, 4),), tempos=(Tempo(0.0, 60.0), Tempo(6.0, 120.0)))
    plot(Piece(waltz, piece.grid, piece.emotion, piece.intensity, 0), evaluator, "unused.png")
    np.testing.assert_allclose(drawn[0]["read"][0], [2, 4, 6])
    np.testing.assert_allclose(drawn[0]["read"][1][0], evaluator.trajectory(waltz, np.array([[0.0, 9.0]]))[0])


def test_only_pictures_that_can_be_written_are_drawn(composer: Composer, evaluator: Evaluator, tmp_path: Path) -> None:
    piece = composer.compose("Q1", bars=1)
    for name in ("x.jpg", "none/x.png"):
        with pytest.raises(AffgenError):
            plot(piece, evaluator, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
