"""The facade: reproducible, of the asked length, tempo and key, steered bar by bar, true to what it goes on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affgen.emotion.spec import parse_emotion
from affgen.errors import AffgenError, ModelError
from affgen.score import Control, Marker, Meter, Note, Score, Tempo, midi_bytes, read_midi
from affgen.testing import fabricated_score
from music.beats import align, on_grid
from music.compose import MOST_BARS, Composer, Piece, append, ring_out
from music.config import MINIATURE, with_model
from music.keys import parse_key, scale_pitch_classes
from music.pack import pack
from music.tokens import Grid
from music.train import build

CURVE = "Q4@0b,Q1@8b"


RISE = (np.arange(8) + 0.5) / 4 - 1
"""What CURVE asks of the arousal of eight bars, each in its middle, up to a factor."""


def shape(curve: np.ndarray) -> np.ndarray:
    """The curve up to a factor, which is the model's."""
    return curve / np.abs(curve).max()


def silent(score: Score) -> Score:
    """The score without what it says of its origin."""
    return replace(score, texts=())


def spy(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Requests that reach the decoder from here on; each ``told`` is the last steering it was given."""
    seen, decode = [], Composer.decode

    def watched(self: Composer, requests: list[Any]) -> Any:
        for request in requests:
            request.told = []
            request.steer = lambda bars, bpm, r=request, real=request.steer: (
                r.told.append(real(bars, bpm)) or r.told[-1]
            )
        seen.extend(requests)
        return decode(self, requests)

    monkeypatch.setattr(Composer, "decode", watched)
    return seen


def performance(bars: int = 8, seed: int = 4) -> Score:
    """Off the grid of its file, as a recording is: uneven onsets, a pedal, an odd resolution, texts and a marker."""
    rng = np.random.default_rng(seed)
    notes = []
    for beat in range(4 * bars):
        onset = 0.4 + 1.13 * beat + float(rng.uniform(-0.03, 0.03))
        for pitch in (40 + beat % 5, 60 + int(rng.integers(12))):
            notes.append(Note(onset, float(rng.uniform(0.3, 1.0)), pitch, int(rng.integers(30, 110))))
    controls = [Control(0.4 + 4.52 * k + shift, 64, value) for k in range(bars) for shift, value in ((0, 101), (4, 0))]
    score = Score(tuple(notes), controls=tuple(controls), markers=(Marker(0.0, "intro"),), texts=("take 3",))
    return read_midi(midi_bytes(replace(score, ticks_per_beat=384)))


# --------------------------------------------------------------------------------------------------- the same again


def test_equal_calls_give_equal_bytes_and_other_seeds_other_notes(composer: Composer) -> None:
    one = midi_bytes(composer.compose("Q1", bars=4, seed=3).score)
    composer.compose("Q3", bars=2, seed=9, tempo=60)
    assert midi_bytes(composer.compose("Q1", bars=4, seed=3).score) == one
    assert composer.compose("Q1", bars=4, seed=4).score.notes != composer.compose("Q1", bars=4, seed=3).score.notes


def test_a_fresh_composer_gives_the_same_bytes(composer: Composer, miniature: Any) -> None:
    again = Composer.from_pretrained(str(miniature))
    assert midi_bytes(again.compose("sad", seed=5, bars=3).score) == midi_bytes(
        composer.compose("sad", seed=5, bars=3).score
    )


@pytest.mark.parametrize("length", [{"bars": 5}, {"seconds": 21.0}, {"seconds": 21.0, "tempo": 70.0}])
def test_pieces_made_side_by_side_are_those_made_one_by_one(composer: Composer, length: dict[str, Any]) -> None:
    seeds = [7, 0, 123, 2**63 - 1]
    for piece, seed in zip(composer.compose_many(seeds, CURVE, **length), seeds, strict=True):
        assert midi_bytes(piece.score) == midi_bytes(composer.compose(CURVE, seed=seed, **length).score)


def test_nothing_outside_is_disturbed(composer: Composer) -> None:
    torch.manual_seed(8)
    np.random.seed(8)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    composer.compose("Q2", bars=2)
    composer.extend(fabricated_score(1, bars=2), "Q2", bars=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.randint(2**31) == np.random.RandomState(8).randint(2**31)
    assert torch.get_num_threads() == threads


# ------------------------------------------------------------------------------------------------- length and tempo


@pytest.mark.parametrize("bars", [1, 2, 5, 24])
def test_bars_are_exact(composer: Composer, bars: int) -> None:
    """Also of pieces that outgrow the context of the miniature, 64 rows."""
    for piece in composer.compose_many(range(4), "Q1", bars=bars):
        score = read_midi(midi_bytes(piece.score))
        assert score.end == pytest.approx(4 * bars)
        assert piece.grid.bars == len(score.bar_lines()) - 1 == bars
        assert {int(note.onset // 4) for note in score.notes} == set(range(bars))
        assert score.meters == (Meter(0.0, 4, 4),)


def test_sixteen_bars_where_no_length_is_asked(composer: Composer) -> None:
    assert composer.compose().score.end == 64


LENGTHS = [(10, None), (1, None), (7.3, None), (61.5, None), (10, 90), (7.3, 120), (30, 47.5), (12, 224), (20.01, 32)]


@pytest.mark.parametrize(("seconds", "tempo"), LENGTHS)
def test_seconds_are_met(composer: Composer, seconds: float, tempo: float | None) -> None:
    for piece in composer.compose_many([1, 2, 5], "Q2", seconds=seconds, tempo=tempo):
        score = read_midi(midi_bytes(piece.score))
        assert score.duration_s == pytest.approx(seconds, abs=0.05)
        assert max(marker.beat for marker in score.markers) < score.end
        if tempo is not None:
            assert [t.bpm for t in score.tempos] == pytest.approx([tempo], abs=0.01)


def test_a_second_at_the_slowest_tempo(composer: Composer) -> None:
    for piece in composer.compose_many(range(64), "Q2", seconds=1.0, tempo=32.0):
        assert piece.score.duration_s == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("tempo", [32, 61.7, 120, 224])
def test_the_tempo_asked_for_is_the_one_in_the_file(composer: Composer, tempo: float) -> None:
    piece = composer.compose("Q3", bars=3, tempo=tempo, seed=2)
    assert piece.tempo == tempo
    assert [t.bpm for t in read_midi(midi_bytes(piece.score)).tempos] == pytest.approx([tempo], abs=0.01)
    assert piece.score.end == 12


# --------------------------------------------------------------------------------------------------------- the key


def share_in_scale(notes: Iterable[Note], scale: str) -> float:
    """Of the notes that are not very low: at the foot of a chord there may be little to choose from."""
    mask = scale_pitch_classes(parse_key(scale))
    inside = [bool(mask[note.pitch % 12]) for note in notes if note.pitch > 36]
    assert len(inside) > 60
    return float(np.mean(inside))


@pytest.fixture
def strict(composer: Composer) -> Composer:
    """What keeps to the key is the training and a penalty; networks that learnt nothing have the penalty alone."""
    sampling = replace(composer.config.sampling, out_of_key=4.0)
    return Composer(replace(composer.config, sampling=sampling), composer.model, composer.prior)


@pytest.mark.parametrize("key", ["C", "F# minor", "Bbm"])
def test_the_key_asked_for_is_kept(composer: Composer, strict: Composer, key: str) -> None:
    """By far most notes lie in its scale, and fewer in the scale a tritone away."""
    notes = [n for piece in strict.compose_many(range(6), "Q1", bars=8, key=key) for n in piece.score.notes]
    assert share_in_scale(notes, key) > 0.95
    assert share_in_scale(notes, {"C": "F#", "F# minor": "C minor", "Bbm": "E minor"}[key]) < 0.75
    usual, free = (
        [n for piece in composer.compose_many(range(6), "Q1", bars=8, key=k) for n in piece.score.notes]
        for k in (key, None)
    )
    assert share_in_scale(usual, key) > share_in_scale(free, key) + 0.1


# ---------------------------------------------------------------------------------------------------------- emotion


def test_the_emotion_changes_the_notes(composer: Composer) -> None:
    asked = ("Q1", "Q2", "Q3", "Q4", "va:0.1/0.9", "happy:0.5+angry:0.5", CURVE)
    assert len({composer.compose(emotion, bars=4, seed=1).score.notes for emotion in asked}) == len(asked)
    same = [midi_bytes(silent(composer.compose(e, bars=4, seed=1).score)) for e in ("joy", "happy", "happy:1")]
    assert same[0] == same[1] == same[2]


def test_a_curve_reaches_the_decoder_bar_by_bar(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    composer.compose(CURVE, intensity="0.5@0b,1.5@8b", bars=8)
    (request,) = seen
    valence, arousal, guidance = request.told[-1].T[:3]
    assert valence.min() == valence.max() > 0
    np.testing.assert_allclose(shape(arousal), shape(RISE), atol=1e-9)
    np.testing.assert_allclose(guidance, MINIATURE.sampling.guidance * (0.5 + (np.arange(8) + 0.5) / 8), atol=1e-9)


def test_a_curve_in_seconds_is_placed_by_the_tempo(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 59 beats per minute, the nearest that the tokens have to 60, a bar lasts four seconds."""
    seen = spy(monkeypatch)
    composer.compose("Q4@0s,Q1@32s", bars=8, tempo=60)
    np.testing.assert_allclose(shape(seen[0].told[-1][:, 1]), shape(RISE), atol=0.04)


def test_percent_and_bars_mean_the_same_in_a_piece_of_known_length(composer: Composer) -> None:
    one, two = (composer.compose(spec, bars=8, seed=6).score for spec in ("Q3@0%,Q1@50%", "Q3@0b,Q1@4b"))
    assert one.notes == two.notes


def test_only_the_bars_after_the_change_differ(composer: Composer) -> None:
    """Curves that part in the fifth bar give the same first four bars."""
    one, two = (composer.compose(f"Q1@0b,Q1@4b,{end}@4.1b", bars=8, seed=2).score for end in ("Q1", "Q3"))
    early = [[n.onset for n in score.notes if n.onset < 16] for score in (one, two)]
    assert early[0] == early[1]
    assert one.notes != two.notes


def without_intensity(composer: Composer, emotion: str) -> list[bool]:
    """Of a few seeds, whether the piece is the neutral one."""
    pairs = [
        [composer.compose(e, intensity=0, bars=4, seed=seed).score for e in (emotion, "neutral")] for seed in range(3)
    ]
    return [midi_bytes(silent(steered)) == midi_bytes(silent(neutral)) for steered, neutral in pairs]


@pytest.mark.parametrize("emotion", ["Q1", "sad", "va:-0.4/0.9"])
def test_no_intensity_is_neutral(composer: Composer, emotion: str) -> None:
    assert all(without_intensity(composer, emotion))


def test_a_curve_without_intensity_is_neutral(composer: Composer) -> None:
    assert all(without_intensity(composer, "va:0/0@0b,va:-0.9/0.9@4b"))


def test_neutral_is_neutral_at_any_intensity(composer: Composer) -> None:
    pieces = [composer.compose("neutral", intensity=i, bars=4, seed=2).score for i in (0, 0.3, 1, 1.5)]
    assert all(piece.notes == pieces[0].notes for piece in pieces)


def test_the_first_row_names_a_quadrant_only_to_models_trained_so(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [part.eval() for part in build(published())]
    seen = spy(monkeypatch)
    Composer(published(), *networks).compose("Q3", bars=1)
    assert seen[0].quadrant == 3


def test_intensity_matters(composer: Composer) -> None:
    notes = {composer.compose("Q2", intensity=i, bars=4, seed=2).score.notes for i in (0, 0.5, 1, "1.5")}
    assert len(notes) == 4


# --------------------------------------------------------------------------------------------------------- the piece


def test_a_piece_says_what_it_is(composer: Composer, tmp_path: Any) -> None:
    piece = composer.compose("Q4", intensity=0.8, bars=2, seed=11)
    piece.save(tmp_path / "piece.mid")
    assert (tmp_path / "piece.mid").read_bytes() == midi_bytes(piece.score)
    (text,) = read_midi(tmp_path / "piece.mid").texts
    for part in ("affgen", "music composed", "seed=11", "model=tiny", "emotion=Q4", "intensity=0.8"):
        assert part in text
    assert (piece.seed, str(piece.emotion), str(piece.intensity)) == (11, "Q4", "0.8")
    assert piece.score.duration_s <= piece.render(sample_rate=8000).duration_s <= piece.score.duration_s + 2.1


def test_what_was_asked_is_scaled_by_the_intensity_up_to_one(composer: Composer) -> None:
    positions, va = composer.compose("Q1", intensity="0@0b,1.5@2b", bars=4, tempo=120).asked()
    np.testing.assert_allclose(positions, [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(va, 0.7 * np.array([0.375, 1, 1, 1])[:, None] * np.ones(2))


def test_a_model_in_an_experiment_is_named_after_it(tmp_path: Any) -> None:
    pack(MINIATURE, *build(MINIATURE), tmp_path / "exp7" / "model")
    assert Composer.from_pretrained(tmp_path / "exp7" / "model").name == "exp7"
    with pytest.raises(ModelError, match="is not a folder"):
        Composer.from_pretrained(tmp_path / "exp8")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no bars": ({"bars": 0}, "0 bars; accepted: 1 to 512"),
    "negative bars": ({"bars": -3}, "-3 bars"),
    "too many bars": ({"bars": 10_000}, "10000 bars"),
    "both lengths": ({"bars": 4, "seconds": 10}, "bars and seconds"),
    "short": ({"seconds": 0.5}, "0.5 seconds; accepted: 1 to 1800"),
    "long": ({"seconds": 1801}, "1801 seconds"),
    "seconds not a number": ({"seconds": float("nan")}, "nan seconds"),
    "slow": ({"tempo": 31.9}, "32 to 224"),
    "fast": ({"tempo": 1e9}, "32 to 224"),
    "tempo not a number": ({"tempo": float("nan")}, "nan"),
    "key": ({"key": "H major"}, "'H major' is not a key"),
    "emotion": ({"emotion": "melancholy"}, "accepted: neutral, calm, happy"),
    "empty emotion": ({"emotion": ""}, "accepted: neutral"),
    "unsorted curve": ({"emotion": "Q1@4b,Q2@2b"}, "sort the times"),
    "intensity": ({"intensity": 1.6}, "accepted: 0 to 1.5"),
    "negative intensity": ({"intensity": -0.1}, "accepted: 0 to 1.5"),
    "intensity not a number": ({"intensity": float("nan")}, "accepted: 0 to 1.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_piece_can_be_is_refused_in_one_line(composer: Composer, name: str) -> None:
    options, words = REFUSED[name]
    with pytest.raises(AffgenError) as caught:
        composer.compose(**options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def published() -> Any:
    config = with_model(MINIATURE, fusion="ca", reduction="trans", conditioning="token")
    return replace(config, prior=replace(config.prior, context="codes", conditioning="token"))


def test_a_model_of_the_published_kind_composes_but_cannot_continue() -> None:
    torch.manual_seed(1)
    composer = Composer(published(), *(part.eval() for part in build(published())))
    assert composer.compose("Q2", bars=3, seed=1).score.end == 12
    with pytest.raises(AffgenError, match="cannot continue"):
        composer.extend(fabricated_score(1, bars=2))


def test_notes_ring_to_the_last_bar_line_and_no_further() -> None:
    notes = np.array([[0, 60, 16, 80], [8, 64, 16, 80], [12, 72, 1, 80], [12, 48, 1, 80]])
    grid = ring_out(Grid(notes, np.full(4, 100.0), np.zeros(4, int), 1))
    assert grid.notes[:, 2].tolist() == [16, 8, 4, 4]
    assert notes[:, 2].tolist() == [16, 16, 1, 1]


# ------------------------------------------------------------------------------------------------------- going on


def changing_tempo() -> Score:
    """On the grid of a file whose tempo changes."""
    score = fabricated_score(3, bars=4, quadrant="Q3")
    return replace(score, tempos=(Tempo(0.0, 100.0), Tempo(6.0, 75.0), Tempo(13.0, 60.0)))


GIVEN = {
    "on the grid": lambda: fabricated_score(2, bars=4),
    "one note": lambda: Score((Note(0.0, 1.0, 60),)),
    "tempo changes": changing_tempo,
    "performed": performance,
}


def added(piece: Piece, score: Score) -> list[Note]:
    """Notes of the piece that are not the given ones; all the given ones are there."""
    rest = Counter(piece.score.notes)
    rest.subtract(score.notes)
    assert min(rest.values()) >= 0
    return sorted(rest.elements(), key=lambda note: note.onset)


@pytest.mark.parametrize("name", GIVEN)
def test_going_on_keeps_everything_and_adds_after(composer: Composer, name: str) -> None:
    score = GIVEN[name]()
    piece = composer.extend(score, "Q1", bars=3, seed=4)
    new = added(piece, score)
    assert new and new[0].onset >= max(note.onset for note in score.notes)
    assert piece.score.tempos == score.tempos and piece.score.meters == score.meters
    assert piece.score.controls[: len(score.controls)] == score.controls
    assert piece.score.markers[: len(score.markers)] == score.markers
    assert piece.score.texts[:-1] == score.texts and "continued from bar" in piece.score.texts[-1]
    assert piece.score.ticks_per_beat == score.ticks_per_beat


@pytest.mark.parametrize("name", GIVEN)
def test_going_on_is_kept_by_the_file(composer: Composer, name: str) -> None:
    """A piece that was read from a file comes back from the file of its continuation."""
    score = read_midi(midi_bytes(GIVEN[name]()))
    longer = read_midi(midi_bytes(composer.extend(score, "Q2", bars=3, seed=1).score))
    assert not Counter(score.notes) - Counter(longer.notes)
    assert longer.tempos == score.tempos


def test_a_piece_on_the_grid_goes_on_upon_it(composer: Composer) -> None:
    piece = composer.extend(changing_tempo(), "Q1", bars=3, seed=4)
    assert all(4 * n.onset == pytest.approx(round(4 * n.onset), abs=1e-6) for n in piece.score.notes)
    assert piece.score.end == pytest.approx(28)


def test_a_note_that_rings_into_the_new_bars_keeps_its_length_in_the_file() -> None:
    score = Score((Note(0.0, 1.0, 60), Note(3.75, 3.0, 60)))
    fresh = Grid(np.array([[0, 60, 4, 80]]), np.full(4, 120.0), np.zeros(4, int), 1)
    longer = read_midi(midi_bytes(append(score, fresh, align(score))))
    assert longer.notes == score.notes  # the new note of that pitch gives way


@pytest.mark.parametrize("bars", [1, 6])
def test_the_new_bars_are_counted_and_end_on_a_bar_line(composer: Composer, bars: int) -> None:
    score = fabricated_score(2, bars=4)
    for seed in range(4):
        piece = composer.extend(score, "Q3", bars=bars, seed=seed)
        assert piece.score.end == pytest.approx(16 + 4 * bars)
        assert {int(note.onset // 4) for note in added(piece, score)} == set(range(4, 4 + bars))
        assert piece.grid.bars == bars


def test_a_performance_goes_on_at_its_own_pace(composer: Composer) -> None:
    """The new sixteenths follow the beats of the playing, here 1.13 beats of the file apart, not the file's own."""
    score = performance()
    assert not on_grid(score)
    piece = composer.extend(score, "Q1", bars=6, seed=2)
    gaps = np.diff(np.unique([note.onset for note in added(piece, score)]))
    steps = gaps / (1.13 / 4)
    assert len(gaps) > 8
    assert np.abs(steps - np.rint(steps)).max() < 0.25
    assert piece.score.end - max(note.onset for note in score.notes) == pytest.approx(6 * 4 * 1.13, rel=0.2)


def test_a_pedal_that_is_down_is_lifted_where_the_new_bars_begin(composer: Composer) -> None:
    score = replace(fabricated_score(1, bars=2), controls=(Control(0.0, 64, 127), Control(6.0, 1, 5)))
    controls = composer.extend(score, "Q1", bars=1).score.controls
    assert controls == (*score.controls, Control(8.0, 64, 0))
    lifted = fabricated_score(1, bars=2)
    assert composer.extend(lifted, "Q1", bars=1).score.controls == lifted.controls


def test_a_curve_runs_over_the_new_bars(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    composer.extend(fabricated_score(1, bars=2), CURVE, bars=8)
    np.testing.assert_allclose(shape(seen[0].told[-1][2:, 1]), shape(RISE), atol=1e-9)


def test_a_curve_in_seconds_runs_at_the_tempo_of_the_piece(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    slow = replace(fabricated_score(1, bars=2), tempos=(Tempo(0.0, 60.0),))
    composer.extend(slow, "Q4@0s,Q1@32s", bars=8)
    np.testing.assert_allclose(shape(seen[0].told[-1][2:, 1]), shape(RISE), atol=0.05)


def test_what_was_asked_of_the_new_bars_is_what_they_were_told(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    even = replace(fabricated_score(1, bars=4), tempos=(Tempo(0.0, 101.0),))  # a tempo that the tokens have
    piece = composer.extend(even, "Q4@0s,Q1@9s", bars=4)
    middles = (np.arange(4) + 0.5) * 240 / 101
    wanted = parse_emotion("Q4@0s,Q1@9s").valence_arousal(middles, "s")
    np.testing.assert_allclose(piece.asked()[1], wanted, atol=0.02)


def test_the_key_of_the_new_bars_is_kept(strict: Composer) -> None:
    score = fabricated_score(2, bars=2)
    new = [n for seed in range(6) for n in added(strict.extend(score, "Q1", bars=6, key="Eb", seed=seed), score)]
    assert share_in_scale(new, "Eb") > 0.95


def test_going_on_twice_the_same_way_gives_the_same_bytes(composer: Composer) -> None:
    score = performance()
    one, two, other = (midi_bytes(composer.extend(score, "Q2", bars=2, seed=s).score) for s in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bars": 0}, "0 bars"),
        ({"bars": -3}, "-3 bars"),
        ({"bars": 513}, "513 bars"),
        ({"key": "?"}, "is not a key"),
        ({"emotion": "blue"}, "unknown emotion 'blue'"),
        ({"intensity": 2}, "accepted: 0 to 1.5"),
    ],
)
def test_what_cannot_be_added_is_refused(composer: Composer, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AffgenError, match=r"^[^\n]+$") as caught:
        composer.extend(fabricated_score(1, bars=1), **options)
    assert words in str(caught.value)


def test_a_piece_too_long_to_be_heard_is_refused(composer: Composer) -> None:
    with pytest.raises(AffgenError, match="has 513 bars; at most 512"):
        composer.extend(Score((Note(0.0, 1.0, 60), Note(4.0 * MOST_BARS, 1.0, 60))), bars=1)
