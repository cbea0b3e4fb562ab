from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.plots import latent_map, piano_roll, va_plane
from affgen.score import Marker, Note, Score
from affgen.testing import fabricated_score

POSITIONS = np.arange(8.0)
VALUES = np.stack([np.linspace(-0.8, 0.8, 8), np.linspace(0.7, -0.7, 8)], axis=1)
BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    return np.rint(imread(path) * 255).astype(int)[..., :3]


def count(path, colour) -> int:
    return int((pixels(path) == colour).all(axis=-1).sum())


def test_piano_roll_shows_notes_and_the_curves_it_was_given(tmp_path):
    score = fabricated_score(1)
    piano_roll(score, tmp_path / "bare.png")
    piano_roll(score, tmp_path / "asked.png", title="a $ piece", asked=(POSITIONS, VALUES))
    piano_roll(score, tmp_path / "read.png", read=(POSITIONS, VALUES))
    assert pixels(tmp_path / "bare.png").shape[1] == pixels(tmp_path / "asked.png").shape[1] == 1200
    for colour in (BLUE, VERMILLION):
        bare, asked, read = (count(tmp_path / f"{name}.png", colour) for name in ("bare", "asked", "read"))
        assert bare == 0 < 100 < read < asked


def test_velocity_and_pitch_are_seen(tmp_path):
    def dark(velocity: int) -> tuple[float, float]:
        piano_roll(Score((Note(0, 4, 60, velocity), Note(0, 4, 84, 1))), tmp_path / "a.png")
        box = pixels(tmp_path / "a.png")[40:360, 80:1090]
        lower = box[len(box) // 2 + 20 :].reshape(-1, 3)
        return float(lower.sum(axis=1).min()), float(np.ptp(box.sum(axis=2)))

    assert dark(127)[0] < dark(60)[0] < dark(5)[0]


def test_a_marker_may_hold_any_text(tmp_path):
    markers = tuple(Marker(i / 100, text) for i, text in enumerate(["$\\frac", "a\nb", "x" * 500, "C_maj"] * 30))
    piano_roll(Score((Note(0, 8, 60),), markers=markers), tmp_path / "a.png", title="$\\oops$")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_va_plane_and_latent_map_are_drawn_with_every_label(tmp_path):
    rng = np.random.default_rng(0)
    asked, labels = rng.uniform(-1, 1, (20, 2)), ["a", "b"] * 10
    va_plane(asked, tmp_path / "plain.png")
    va_plane(asked, tmp_path / "moved.png", read=asked * 0.5, labels=labels, title="asked and read")
    latent_map(asked, labels, tmp_path / "map.png")
    latent_map(asked, [str(i) for i in range(20)], tmp_path / "many.png")
    assert count(tmp_path / "plain.png", VERMILLION) == 0
    assert count(tmp_path / "moved.png", VERMILLION) > 500
    # half see-through on white, so the pure colour is not there
    assert len(np.unique(pixels(tmp_path / "map.png").reshape(-1, 3), axis=0)) > 20


def test_equal_content_gives_equal_bytes_also_from_threads(tmp_path):
    score = fabricated_score(2, bars=2)

    def draw(number: int) -> bytes:
        path = tmp_path / f"{number}.png"
        piano_roll(score, path, title="same", asked=(POSITIONS[:2], VALUES[:2]))
        return path.read_bytes()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(draw, range(4)))) == 1
    assert b"Software" not in draw(0) and b"tIME" not in draw(0)


def test_importing_costs_nothing_and_pyplot_is_never_touched(tmp_path):
    code = (
        "import sys, affgen.plots as p; assert 'matplotlib' not in sys.modules; "
        "p.latent_map([[0, 0], [1, 1]], 'ab', sys.argv[1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True, timeout=60)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda path: piano_roll(Score(()), path), "no notes"),
        (lambda path: piano_roll(fabricated_score(0), path.with_suffix(".pdf")), r"\.png"),
        (lambda path: piano_roll(fabricated_score(0), path, asked=(POSITIONS[:3], VALUES)), "one each"),
        (lambda path: piano_roll(fabricated_score(0), path, read=(POSITIONS, VALUES * np.nan)), "finite"),
        (lambda path: va_plane(np.zeros((0, 2)), path), "N > 0"),
        (lambda path: va_plane(np.zeros((3, 2)), path, read=np.zeros((2, 2))), "one each"),
        (lambda path: latent_map(np.zeros((3, 3)), ["a"] * 3, path), "accepted"),
        (lambda path: latent_map(np.zeros((3, 2)), ["a"] * 2, path), "one each"),
    ],
)
def test_what_cannot_be_drawn_leaves_no_file(tmp_path, draw, words):
    with pytest.raises(AffgenError, match=words):
        draw(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
