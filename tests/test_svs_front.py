"""From a score to the rows the network reads, and the encoder of them."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from affgen.align.phones import PHONES
from affgen.align.segments import FRAME_S
from affgen.errors import AffgenError
from affgen.score import Note, Score, Tempo
from svs.config import MINIATURE
from svs.front import ROLES, LyricPitchEncoder, ScoreBatch, ScoreFrontEnd, ScoreInput
from svs.text import sung

SECOND = (Tempo(0, 60.0),)
"""One beat is one second."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def read(*notes: tuple[float, float, int, str]) -> ScoreInput:
    """Notes of (onset, duration, pitch, lyric)."""
    score = Score(tuple(Note(a, b, p, lyric=text) for a, b, p, text in notes), tempos=SECOND)
    return ScoreFrontEnd({"d": 0.1, "s": 0.2, "t": 0.1})(score, sung(score))


LINE = ((1.0, 1.0, 60, "do"), (2.0, 1.0, 64, ""), (3.5, 1.0, 67, "star"))


def test_every_column_says_what_the_score_says() -> None:
    made = read(*LINE)
    assert [PHONES[k] for k in made.phone] == ["sil", "d", "u", "u", "sil", "s", "t", "ɑ", "ɹ"]
    assert made.note.tolist() == [-1, 0, 0, 1, -1, 2, 2, 2, 2]
    assert made.midi.tolist() == [0, 60, 60, 64, 0, 67, 67, 67, 67]
    assert made.slur.tolist() == [False, False, False, True] + 5 * [False]
    names = ["rest", "onset", "nucleus", "nucleus", "rest", "onset", "onset", "nucleus", "coda"]
    assert [ROLES[k] for k in made.role] == names
    seconds = np.array([0.9, 1, 1, 1, 0.2, 1, 1, 1, 1])
    assert made.note_frames * FRAME_S == pytest.approx(seconds, abs=1e-5)
    assert made.start[:7] * FRAME_S == pytest.approx(np.array([0, 0.9, 1, 2, 3, 3.2, 3.4]), abs=1e-9)


def test_vowels_and_rests_are_beats_and_nothing_else_is() -> None:
    made = read(*LINE)
    assert made.beat.tolist() == [True, False, True, True, True, False, False, True, False]
    assert made.start[made.beat][[1, 2, 4]] * FRAME_S == pytest.approx([1, 2, 3.5])


def test_an_offglide_is_no_beat_but_a_second_syllable_on_the_note_is() -> None:
    glide = Score((Note(0, 1, 60, phonemes=("i", "ɐ")),), tempos=SECOND)
    front = ScoreFrontEnd()
    assert front(glide, sung(glide, "de")).beat.tolist() == [True, False]
    two = front(score := Score((Note(0, 1, 60, lyric="body"),), tempos=SECOND), sung(score))
    assert two.beat.sum() == 2 and set(two.note) == {0}


def test_frames_are_those_of_the_score() -> None:
    for length in (0.4, 1.0, 7.77):
        made = read((0, length, 60, "la"))
        assert made.frames == round(length / FRAME_S)
        assert made.nominal.sum() == pytest.approx(made.frames)
        assert (made.nominal >= 0).all()


def test_an_empty_score_is_refused() -> None:
    with pytest.raises(AffgenError, match="nothing to sing"):
        ScoreFrontEnd()(Score(()), [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phone": np.array([0, 999])}, "phone outside"),
        ({"midi": np.array([0, 128])}, "midi outside"),
        ({"role": np.array([0, -1])}, "role outside"),
        ({"note": np.array([0])}, "shapes"),
        ({"start": np.array([1.0, 2.0])}, "rise from 0"),
        ({"start": np.array([0.0, 11.0])}, "at most 10"),
        ({"frames": 0}, "at most 0"),
        ({"note_frames": np.array([1.0, np.nan])}, "finite"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, object], said: str) -> None:
    two = np.array([1, 1])
    made = ScoreInput(two, two, two, two, two, two, two, np.array([0.0, 5.0]), 10)
    with pytest.raises(AffgenError, match=said):
        replace(made, **change)


def test_a_batch_holds_its_scores_and_pads_them_with_nothing() -> None:
    short, long = read((0, 1, 60, "la")), read(*LINE)
    batch = ScoreBatch.of([short, long])
    count = len(short)
    assert batch.mask.sum(dim=1).tolist() == [count, len(long)]
    assert batch.phone[0, :count].tolist() == short.phone.tolist() and batch.note[0, count:].eq(-1).all()
    assert batch.nominal[1].numpy() == pytest.approx(long.nominal)
    assert batch.nominal[0, :count].numpy() == pytest.approx(short.nominal)
    assert batch.nominal[0, count:].eq(0).all() and batch.nominal.sum(dim=1).tolist() == batch.frames.tolist()
    assert batch.span[1].tolist() == [1, 1, 2, 3, 4, 4, 4, 5, 5]


def test_the_encoder_gives_a_score_the_same_rows_alone_and_in_a_batch() -> None:
    encoder = LyricPitchEncoder(MINIATURE).eval()
    inputs = [read((0, 1, 60, "la")), read(*LINE), read((0, 2, 50, "to"), (2, 1, 55, "do"))]
    together = encoder(ScoreBatch.of(inputs))
    for row, one in enumerate(inputs):
        alone = encoder(ScoreBatch.of([one]))[0]
        assert (together[row, : len(one)] - alone).abs().max() <= 1e-5
        assert together[row, len(one) :].eq(0).all()


@pytest.mark.parametrize("column", ["phone", "midi", "note_frames", "slur", "role"])
def test_the_encoder_reads_every_column(column: str) -> None:
    encoder = LyricPitchEncoder(MINIATURE).eval()
    one = read(*LINE)
    value = np.array(getattr(one, column))
    value[2] = 1 - value[2] if column == "slur" else 2 * value[2] if column == "note_frames" else 3
    before, after = (encoder(ScoreBatch.of([made])) for made in (one, replace(one, **{column: value})))
    assert (before - after).abs().max() > 1e-4


def test_all_of_the_encoder_learns() -> None:
    encoder = LyricPitchEncoder(MINIATURE)
    encoder(ScoreBatch.of([read(*LINE)])).pow(3).sum().backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
