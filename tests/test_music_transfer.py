"""Element transfer: what was asked for comes from the other piece, everything else stays note for note."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.score import Control, Note, Score, Tempo, midi_bytes, read_midi
from affgen.testing import fabricated_score
from music.beats import grid_of
from music.compose import MOST_BARS, Composer
from music.config import MINIATURE
from music.tokens import BAR, BEAT, CHORDS, METRICAL, TYPE, Grid, chord_pitch_classes, rows_from_grid
from music.transfer import TRANSFERABLE, _redraw_positions, follow_chords, match_rows, parse_elements, transfer

OWN = fabricated_score(5, bars=4, quadrant="Q1")
DONOR = fabricated_score(6, bars=4, quadrant="Q3")
LINE = Score(tuple(Note(float(k), 1.0, (60, 67, 64, 72)[k % 4], 41 + 2 * k) for k in range(16)))
"""One note at a time over one chord, so that nothing can collide."""
MARK = "affgen 0.1.0 music transferred "


def columns(score: Score, *names: str) -> list[tuple[float, ...]]:
    return sorted(tuple(getattr(note, name) for name in names) for note in score.notes)


def bpm(score: Score) -> np.ndarray:
    return np.array([60 / float(np.diff(score.seconds(np.array([beat, beat + 1])))[0]) for beat in range(16)])


# ----------------------------------------------------------------------------------------------------- which elements


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("velocity", ("velocity",)),
        ("pitch, duration", ("pitch", "duration")),
        (",".join(TRANSFERABLE), TRANSFERABLE),
        (["chord", "beat"], ("chord", "beat")),
    ],
)
def test_elements_are_read(text: Any, names: tuple[str, ...]) -> None:
    assert parse_elements(text) == names


@pytest.mark.parametrize("text", ["", ",", "velocity,", "loudness", "type", "emotion", "Velocity", "pitch,pitch", []])
def test_other_elements_are_refused_with_the_list(composer: Composer, text: Any) -> None:
    with pytest.raises(AffgenError, match=r"^[^\n]+$") as caught:
        transfer(composer, OWN, DONOR, text)
    assert "accepted: one or more of velocity,duration,pitch,tempo,chord,beat" in str(caught.value)


def test_another_alignment_is_refused(composer: Composer) -> None:
    with pytest.raises(AffgenError, match="align 'notes'; accepted: bars, rows"):
        transfer(composer, OWN, DONOR, "pitch", align="notes")


@pytest.mark.parametrize("place", [0, 1])
def test_pieces_too_long_are_refused(composer: Composer, place: int) -> None:
    pieces = [OWN, OWN]
    pieces[place] = Score((Note(0.0, 1.0, 60), Note(4.0 * MOST_BARS, 1.0, 60)))
    with pytest.raises(AffgenError, match="at most 512"):
        transfer(composer, *pieces, "velocity")


# ------------------------------------------------------------------------------------------ one element, others kept


def test_velocity_alone_moves_velocity_alone(composer: Composer) -> None:
    result = transfer(composer, OWN, DONOR, "velocity")
    assert columns(result, "onset", "pitch", "duration") == columns(OWN, "onset", "pitch", "duration")
    assert columns(result, "onset", "pitch", "velocity") != columns(OWN, "onset", "pitch", "velocity")
    np.testing.assert_allclose(bpm(result), bpm(OWN))


def test_duration_alone_moves_duration_alone(composer: Composer) -> None:
    result = transfer(composer, OWN, DONOR, "duration")
    assert columns(result, "onset", "pitch", "velocity") == columns(OWN, "onset", "pitch", "velocity")
    assert columns(result, "onset", "pitch", "duration") != columns(OWN, "onset", "pitch", "duration")
    np.testing.assert_allclose(bpm(result), bpm(OWN))


def test_tempo_alone_moves_tempo_alone(composer: Composer) -> None:
    result = transfer(composer, OWN, DONOR, "tempo")
    everything = ("onset", "pitch", "duration", "velocity")
    assert columns(result, *everything) == columns(OWN, *everything)
    assert np.abs(bpm(result) - bpm(OWN)).max() > 1


def test_pitch_alone_keeps_the_rhythm(composer: Composer) -> None:
    result = transfer(composer, LINE, DONOR, "pitch")
    assert columns(result, "onset") == columns(LINE, "onset")
    assert columns(result, "onset", "pitch") != columns(LINE, "onset", "pitch")
    np.testing.assert_allclose(bpm(result), bpm(LINE))


def test_chord_alone_moves_chord_tones_alone(composer: Composer) -> None:
    result = transfer(composer, OWN, DONOR, "chord")
    assert columns(result, "onset") == columns(OWN, "onset")
    np.testing.assert_allclose(bpm(result), bpm(OWN))
    before, after = grid_of(OWN, beats="file"), {m.beat: m.text for m in result.markers}
    assert after != {m.beat: m.text for m in OWN.markers} and set(after.values()) <= set(CHORDS)
    kept = {(note.onset, note.pitch) for note in result.notes}
    for step, pitch, _, _ in before.notes.tolist():
        if pitch % 12 not in chord_pitch_classes(int(before.chords[step // 4])):
            assert (step / 4, pitch) in kept


def test_beat_alone_keeps_the_notes_of_each_bar(composer: Composer) -> None:
    for seed in range(4):
        result = transfer(composer, LINE, DONOR, "beat", seed=seed)
        for bar in range(4):
            old, new = ([n.pitch for n in s.notes if n.onset // 4 == bar] for s in (LINE, result))
            assert new == old
        assert columns(result, "onset") != columns(LINE, "onset")
        np.testing.assert_allclose(bpm(result), bpm(LINE))


def test_positions_that_are_drawn_anew_increase_within_each_bar() -> None:
    rows = rows_of(OWN)
    for seed in range(8):
        uniform = np.random.default_rng(seed).random(len(rows))
        moved = rows.copy()
        _redraw_positions(moved, np.zeros((len(rows), MINIATURE.tokens.sizes()[BEAT])), uniform, 1.0)
        metrical = moved[moved[:, TYPE] == METRICAL, BEAT]
        assert all(later > earlier or later == BAR for earlier, later in pairwise(metrical))


@pytest.mark.parametrize("element", ["pitch", "chord", "beat"])
def test_velocities_that_were_not_asked_for_are_not_rounded(composer: Composer, element: str) -> None:
    result = transfer(composer, LINE, DONOR, element)
    assert columns(result, "velocity") == columns(LINE, "velocity")


def test_pitches_that_were_not_asked_for_are_not_moved(composer: Composer) -> None:
    score = Score((Note(0.0, 1.0, 12), Note(1.0, 1.0, 60), Note(2.0, 2.0, 115)))
    assert columns(transfer(composer, score, DONOR, "velocity"), "pitch") == columns(score, "pitch")


@pytest.mark.xfail(strict=True, reason="durations are cut to one bar, the longest that the tokens have")
def test_durations_that_were_not_asked_for_are_not_cut(composer: Composer) -> None:
    score = replace(OWN, notes=(*OWN.notes, Note(0.0, 8.0, 30)))
    assert columns(transfer(composer, score, DONOR, "velocity"), "duration") == columns(score, "duration")


def test_the_pedal_stays(composer: Composer) -> None:
    score = replace(OWN, controls=(Control(0.0, 64, 127), Control(3.5, 64, 0)))
    assert transfer(composer, score, DONOR, "velocity").controls == score.controls


@pytest.mark.parametrize("elements", ["pitch", "beat", "pitch,chord"])
def test_any_piece_can_take_any_element(composer: Composer, elements: str) -> None:
    for seed in range(24):
        transfer(composer, fabricated_score(seed, bars=4), DONOR, elements, seed=seed)


def test_all_elements_at_once_keep_the_bars(composer: Composer) -> None:
    result = transfer(composer, OWN, DONOR, "velocity,duration,tempo,chord")
    assert columns(result, "onset") == columns(OWN, "onset")


@pytest.mark.parametrize(("elements", "align"), [("duration", "bars"), ("velocity", "rows")])
def test_a_piece_ends_with_its_bars(composer: Composer, elements: str, align: str) -> None:
    for seed in range(12):
        assert transfer(composer, OWN, DONOR, elements, align=align, seed=seed).end <= 16


# ------------------------------------------------------------------------------------------------------------ donors


@pytest.mark.parametrize(
    "donor",
    [fabricated_score(1, bars=1), fabricated_score(2, bars=9, quadrant="Q2"), Score((Note(0.3, 0.1, 60),))],
    ids=["shorter", "longer", "one note"],
)
@pytest.mark.parametrize("align", ["bars", "rows"])
def test_a_donor_may_have_any_length(composer: Composer, donor: Score, align: str) -> None:
    result = transfer(composer, OWN, donor, "velocity,tempo", align=align)
    assert len(read_midi(midi_bytes(result)).notes) == len(result.notes) > 0
    assert {int(note.onset // 4) for note in result.notes} == {0, 1, 2, 3}


def test_the_donor_and_the_seed_decide(composer: Composer) -> None:
    results = [
        midi_bytes(transfer(composer, OWN, donor, "velocity", seed=seed))
        for donor, seed in ((DONOR, 1), (DONOR, 1), (DONOR, 2), (fabricated_score(9, quadrant="Q2"), 1))
    ]
    assert results[0] == results[1]
    assert len(set(results)) == 3


def test_a_performance_is_put_on_the_grid(composer: Composer) -> None:
    rng = np.random.default_rng(1)
    notes = [Note(0.5 + 1.2 * k + float(rng.uniform(-0.02, 0.02)), 1.0, 60 + k % 7, 50 + k) for k in range(24)]
    result = transfer(composer, Score(tuple(notes)), DONOR, "velocity")
    assert [n.pitch for n in result.notes] == [n.pitch for n in notes]
    assert all((4 * n.onset).is_integer() for n in result.notes)


def test_the_result_carries_the_remarks_of_the_piece_and_its_own(composer: Composer) -> None:
    for align in ("bars", "rows"):
        assert transfer(composer, OWN, DONOR, "tempo,velocity", align=align).texts == (
            *OWN.texts,
            MARK + "tempo,velocity",
        )


# -------------------------------------------------------------------------------------------------- row by row


def test_rows_draw_everything_anew_over_as_many_bars(composer: Composer) -> None:
    result = transfer(composer, OWN, DONOR, "velocity", align="rows", seed=1)
    assert len(result.bar_lines()) - 1 == 4
    assert {int(note.onset // 4) for note in result.notes} == {0, 1, 2, 3}
    assert columns(result, "onset", "pitch") != columns(OWN, "onset", "pitch")
    assert midi_bytes(result) == midi_bytes(transfer(composer, OWN, DONOR, "velocity", align="rows", seed=1))
    assert result.notes != transfer(composer, OWN, DONOR, "velocity", align="rows", seed=2).notes


def test_rows_decode_the_joined_latents(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of the wanted element is the donor's, row by row with its last row held, all other parts are its own."""
    seen: list[Any] = []
    decode = Composer.decode
    monkeypatch.setattr(Composer, "decode", lambda self, requests: seen.extend(requests) or decode(self, requests))
    transfer(composer, OWN, DONOR, "pitch", align="rows")
    own, other = (
        composer.model.quantise.codebook.numpy()[composer.codes(rows_from_grid(grid_of(s), MINIATURE.tokens))]
        for s in (OWN, DONOR)
    )
    part = slice(4 * own.shape[1] // 7, 5 * own.shape[1] // 7)
    wanted = own.copy()
    wanted[:, part] = other[np.minimum(np.arange(len(own)), len(other) - 1), part]
    np.testing.assert_array_equal(seen[0].latents, wanted)
    assert len(other) < len(own)


# ----------------------------------------------------------------------------------------------------- matching rows


def rows_of(score: Score) -> np.ndarray:
    return rows_from_grid(grid_of(score), MINIATURE.tokens).astype(np.int64)[1:]


def test_a_piece_answers_to_itself() -> None:
    rows = rows_of(OWN)
    np.testing.assert_array_equal(match_rows(rows, rows), np.arange(len(rows)))


def test_rows_answer_to_rows_of_their_kind_and_bar() -> None:
    own, other = rows_of(OWN), rows_of(DONOR)
    answers = match_rows(own, other)
    np.testing.assert_array_equal(own[:, TYPE], other[answers, TYPE])
    notes = own[:, TYPE] == 3
    bar, bar_of_answer = np.cumsum(own[:, 2] == 1), np.cumsum(other[:, 2] == 1)[answers]
    np.testing.assert_array_equal(bar[notes], bar_of_answer[notes])


def test_a_shorter_donor_starts_again() -> None:
    own, other = rows_of(fabricated_score(3, bars=4)), rows_of(fabricated_score(3, bars=2))
    bars = np.cumsum(own[:, 2] == 1)
    answers = match_rows(own, other)
    answered = np.cumsum(other[:, 2] == 1)[answers]
    inner = own[:, TYPE] == 3
    np.testing.assert_array_equal(answered[inner], (bars[inner] - 1) % 2 + 1)


def test_matching_long_pieces_takes_little_memory() -> None:
    """Two thousand rows are some forty bars; with ten times as many the table of all pairs takes ten gigabytes."""
    rows = rows_of(Score(tuple(Note(step / 4, 0.25, 40 + k) for step in range(400) for k in range(4))))
    assert len(rows) > 2000
    tracemalloc.start()
    try:
        match_rows(rows, rows)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------------------------------------------- following


def following(before: str, after: str, pitches: list[int]) -> list[int]:
    notes = np.array([[0, pitch, 4, 80] for pitch in pitches])
    chords = [np.full(4, CHORDS.index(name)) for name in (before, after)]
    return follow_chords(Grid(notes, np.full(4, 100.0), chords[1], 1), chords[0]).notes[:, 1].tolist()


def test_chord_tones_follow_to_the_nearest_tones() -> None:
    assert following("C_maj", "A_min", [60, 64, 67]) == [60, 64, 69]
    assert following("C_maj", "F_maj", [48, 64, 67, 76]) == [48, 65, 65, 77]
    assert following("C_maj", "Db_maj", [60, 67]) == [61, 68]


def test_chord_tones_stay_within_midi() -> None:
    assert following("G_maj", "Ab_maj", [127]) == [123]  # the nearest tone is 128
    assert following("C_maj", "B_maj", [0]) == [3]


def test_other_notes_and_other_cases_stay() -> None:
    assert following("C_maj", "A_min", [62, 65, 71]) == [62, 65, 71]
    assert following("C_maj", "C_maj", [60, 61]) == [60, 61]
    assert following("C_maj", "N_N", [60, 64]) == [60, 64]
    assert following("N_N", "A_min", [60, 67]) == [60, 67]


def test_the_tempo_map_of_the_piece_is_its_own(composer: Composer) -> None:
    score = replace(OWN, tempos=(Tempo(0.0, 97.3), Tempo(5.0, 140.1)))
    np.testing.assert_allclose(bpm(transfer(composer, score, DONOR, "velocity")), bpm(score), rtol=1e-6)
