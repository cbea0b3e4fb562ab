"""Training data: a stream that is a pure function of the step, cuts at bar lines, what each row is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affgen.corpora import prepare
from affgen.emotion.labels import QUADRANTS, coordinates
from affgen.errors import DataError
from affgen.score import Note, Score, write_midi
from affgen.testing import fabricated_emopia
from music.config import MINIATURE, PUBLISHED_TOKENS, DataConfig, TokenConfig, with_model
from music.data import (
    FEWEST_BARS,
    Clip,
    Example,
    bars_left,
    clip_batches,
    collate,
    load_clips,
    places,
    split_songs,
    whole_batches,
)
from music.keys import transpose_key
from music.model import BARS_LEFT, KEYS, PLACES, Batch
from music.tokens import (
    BAR,
    BEAT,
    EMOTION,
    EMOTION_ROW,
    EOS,
    METRICAL,
    NOTE,
    TYPE,
    bars_of_rows,
    grid_from_rows,
    rows_from_grid,
)

TOKENS = MINIATURE.tokens
PLAIN = replace(MINIATURE, data=DataConfig(transpose=0, drop_emotion=0.0, drop_hints=0.0))
ROOMY = with_model(PLAIN, max_rows=4096)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    prepare("emopia", fabricated_emopia(folder / "emopia", songs=10, seed=1), folder / "data", say=lambda line: None)
    return folder / "data" / "train"


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Clip]:
    return load_clips(corpus, TOKENS)


def equal(one: Batch, two: Batch) -> bool:
    tensors = [
        [batch.x, batch.y, batch.mask, *(getattr(batch.conditions, name) for name in ("va", "key", "left", "place"))]
        for batch in (one, two)
    ]
    return one.names == two.names and all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def pieces(batch: Batch) -> list[np.ndarray]:
    """Rows (T, 8) of each piece: what is heard and the last row to come."""
    lengths = batch.mask.sum(dim=1).int().tolist()
    return [torch.cat([x[:n], y[n - 1 : n]]).numpy() for x, y, n in zip(batch.x, batch.y, lengths, strict=True)]


def test_clips_know_their_rows_songs_and_labels(clips: list[Clip]) -> None:
    assert len(clips) == 16 and len({clip.song for clip in clips}) == 8
    for clip in clips:
        rows = rows_from_grid(clip.grid, TOKENS)
        assert clip.name.startswith(QUADRANTS[clip.quadrant - 1])
        assert clip.grid.bars == 8 and 1 <= clip.key <= 24
        assert clip.ends[0] == 1 and clip.ends[-1] == len(rows) and len(clip.ends) == 9
        for bar in range(1, 8):  # a bar ends where the next begins
            assert rows[clip.ends[bar], BEAT] == BAR and rows[clip.ends[bar], TYPE] == METRICAL


def test_the_cache_gives_the_same_clips(corpus: Path, clips: list[Clip], tmp_path: Path) -> None:
    cache = tmp_path / "clips.npz"
    for _ in range(2):
        for mine, other in zip(load_clips(corpus, TOKENS, cache=cache), clips, strict=True):
            assert (mine.name, mine.song, mine.quadrant, mine.key) == (
                other.name,
                other.song,
                other.quadrant,
                other.key,
            )
            for name in ("notes", "tempos", "chords"):
                np.testing.assert_array_equal(getattr(mine.grid, name), getattr(other.grid, name))
    assert [path.name for path in tmp_path.iterdir()] == ["clips.npz"]


def test_a_cache_of_another_corpus_is_made_anew(corpus: Path, clips: list[Clip], tmp_path: Path) -> None:
    cache, other = tmp_path / "clips.npz", tmp_path / "other"
    load_clips(corpus, TOKENS, cache=cache)
    other.mkdir()
    for table in ("midi.scp", "utt2emo", "utt2spk"):
        lines = (corpus / table).read_text().splitlines()[:3]
        (other / table).write_text("".join(f"{line}\n" for line in lines))
    assert [clip.name for clip in load_clips(other, TOKENS, cache=cache)] == [clip.name for clip in clips[:3]]
    assert len(load_clips(corpus, TOKENS, cache=cache)) == len(clips)


def test_labels_that_are_no_quadrants_and_short_clips(tmp_path: Path) -> None:
    write_midi(Score(tuple(Note(float(k), 1.0, 60) for k in range(4 * FEWEST_BARS - 4))), tmp_path / "short.mid")
    write_midi(Score(tuple(Note(float(k), 1.0, 60) for k in range(4 * FEWEST_BARS))), tmp_path / "long.mid")
    (tmp_path / "midi.scp").write_text(f"long {tmp_path}/long.mid\nshort {tmp_path}/short.mid\n")
    (tmp_path / "utt2emo").write_text("long happy\nshort Q2\n")
    with pytest.raises(DataError, match=r"utt2emo: long has label 'happy'; accepted: Q1, Q2, Q3, Q4"):
        load_clips(tmp_path, TOKENS)
    (tmp_path / "utt2emo").write_text("long Q3\nshort Q2\n")
    assert [(clip.name, clip.song, clip.quadrant) for clip in load_clips(tmp_path, TOKENS)] == [("long", "long", 3)]
    (tmp_path / "midi.scp").write_text(f"short {tmp_path}/short.mid\n")
    (tmp_path / "utt2emo").write_text("short Q2\n")
    with pytest.raises(DataError, match="no clip of at least 4 bars"):
        load_clips(tmp_path, TOKENS)


def test_songs_are_split_apart_and_always_alike(clips: list[Clip]) -> None:
    for share in (0.0, 0.05, 0.5, 1.0):
        training, tuning = split_songs(clips, share)
        assert not {clip.song for clip in training} & {clip.song for clip in tuning}
        assert sorted(clip.name for clip in training + tuning) == sorted(clip.name for clip in clips)
        backwards = split_songs(clips[::-1], share)
        assert {clip.name for clip in backwards[1]} == {clip.name for clip in tuning}
    many = [replace(clips[0], song=f"song{k}") for k in range(2000)]
    assert 60 <= len(split_songs(many)[1]) <= 140  # 5 %
    assert not split_songs(clips, 0.0)[1] and not split_songs(clips, 1.0)[0]


# -------------------------------------------------------------------------------------------------- the stream


def test_batches_are_pure_functions_of_the_step(clips: list[Clip]) -> None:
    batches = clip_batches(clips, MINIATURE, seed=5, batch_size=4)
    later = batches(7, 0, 1)
    [batches(step, 0, 1) for step in range(3)]
    assert equal(batches(7, 0, 1), later)
    assert equal(clip_batches(clips, MINIATURE, seed=5, batch_size=4)(7, 0, 1), later)
    assert not equal(clip_batches(clips, MINIATURE, seed=6, batch_size=4)(7, 0, 1), later)
    assert not equal(batches(8, 0, 1), later)


def test_two_processes_share_one_stream(clips: list[Clip]) -> None:
    batches = clip_batches(clips, MINIATURE, seed=5, batch_size=4)
    for index in range(6):
        assert equal(batches(index // 2, index % 2, 2), batches(index, 0, 1))


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_every_clip_once_per_epoch(clips: list[Clip], batch_size: int) -> None:
    batches = clip_batches(clips, MINIATURE, seed=5, batch_size=batch_size)
    stream = [name for step in range(-(-32 // batch_size)) for name in batches(step, 0, 1).names]
    names = sorted(clip.name for clip in clips)
    assert sorted(stream[:16]) == names and sorted(stream[16:32]) == names
    assert stream[:16] != stream[16:32]


def test_cuts_start_at_bar_lines_fit_and_are_parts_of_the_clip(clips: list[Clip]) -> None:
    batches = clip_batches(clips, PLAIN, seed=5, batch_size=16)
    by_name = {clip.name: clip for clip in clips}
    starts = []
    for step in range(6):
        batch = batches(step, 0, 1)
        assert batch.x.shape[1] <= PLAIN.model.max_rows
        for name, rows in zip(batch.names, pieces(batch), strict=True):
            assert rows[0, TYPE] == EMOTION_ROW and rows[1, BEAT] == BAR
            part, whole = grid_from_rows(rows, TOKENS), by_name[name].grid
            matches = [k for k in range(9 - part.bars) if same_notes(part.notes, whole.slice(k, k + part.bars).notes)]
            assert matches, f"{name}: {part.bars} bars that are not in the clip"
            starts += matches[:1]
            assert (rows[-1, TYPE] == EOS) == (part.bars + matches[-1] == whole.bars) or len(matches) > 1
    assert 0.3 < np.mean([start == 0 for start in starts]) < 0.95  # about half begin with the clip


def same_notes(mine: np.ndarray, other: np.ndarray) -> bool:
    """Steps and pitches alike; loudness is rounded and the ring of the last notes cut."""
    return mine.shape == other.shape and bool((mine[:, :2] == other[:, :2]).all())


def test_what_is_heard_and_what_comes_are_one_row_apart(clips: list[Clip]) -> None:
    batch = clip_batches(clips, MINIATURE, seed=5, batch_size=8)(0, 0, 1)
    both = (batch.mask[:, 1:] == 1).unsqueeze(-1)
    assert torch.equal(batch.x[:, 1:] * both, batch.y[:, :-1] * both)
    padding = batch.mask == 0
    assert padding.any() and (batch.x[padding] == 0).all() and (batch.y[padding] == 0).all()
    assert (batch.mask.diff(dim=1) <= 0).all()
    assert (batch.y[batch.mask == 1][:, TYPE] != EMOTION_ROW).all()


def test_transposition_keeps_intervals_and_moves_the_key(clips: list[Clip]) -> None:
    moved = clip_batches(clips, replace(ROOMY, data=replace(PLAIN.data, transpose=5)), seed=5, batch_size=16)(0, 0, 1)
    still = clip_batches(clips, ROOMY, seed=5, batch_size=16)(0, 0, 1)
    shifts = set()
    for index, (mine, other) in enumerate(zip(pieces(moved), pieces(still), strict=True)):
        mine, other = grid_from_rows(mine, TOKENS), grid_from_rows(other, TOKENS)
        difference = mine.notes - other.notes
        shift = int(difference[0, 1])
        assert (difference == [0, shift, 0, 0]).all() and -5 <= shift <= 5
        np.testing.assert_array_equal(mine.chords, other.transpose(shift).chords)
        np.testing.assert_array_equal(mine.tempos, other.tempos)
        before, after = int(still.conditions.key[index, 0]), int(moved.conditions.key[index, 0])
        assert after == transpose_key(before, shift)
        shifts.add(shift)
    assert len(shifts) > 4


def widest(clip: Clip, low: int, high: int, tokens: TokenConfig) -> set[int]:
    """Shifts of a clip that reaches from ``low`` to ``high``; fails where the range of the tokens bends it."""
    notes = clip.grid.notes.copy()
    notes[0, 1], notes[1, 1] = low, high
    wide = [replace(clip, grid=replace(clip.grid, notes=notes[np.lexsort((-notes[:, 1], notes[:, 0]))]))]
    config = replace(ROOMY, tokens=tokens, data=DataConfig(transpose=5))
    batches, shifts = clip_batches(wide, config, seed=1, batch_size=1), set()
    for step in range(12):
        part = grid_from_rows(pieces(batches(step, 0, 1))[0], tokens)
        difference = part.notes[:, 1] - wide[0].grid.notes[:, 1]
        assert np.ptp(difference) == 0
        shifts.add(int(difference[0]))
    return shifts


def test_transposition_stays_in_the_range_of_the_piano(clips: list[Clip]) -> None:
    assert widest(clips[0], 21, 108, TOKENS) == {0}
    assert widest(clips[0], 23, 107, TOKENS) <= {-2, -1, 0, 1}


def test_transposition_stays_in_the_range_of_the_published_tokens(clips: list[Clip]) -> None:
    assert widest(clips[0], 22, 107, PUBLISHED_TOKENS) == {0}


# ------------------------------------------------------------------------------------------------- conditions


def test_conditions_have_shapes_and_ranges(clips: list[Clip]) -> None:
    batch = clip_batches(clips, MINIATURE, seed=5, batch_size=8)(1, 0, 1)
    told, shape = batch.conditions, batch.x.shape[:2]
    assert told.va.shape == (*shape, 2) and told.va.dtype == torch.float32 and told.va.abs().max() <= 1
    for ids, size in ((told.key, KEYS), (told.left, BARS_LEFT), (told.place, PLACES)):
        assert ids.shape == shape and ids.dtype == torch.int64
        assert ids.min() >= 0 and ids.max() < size
    assert (told.va == told.va[:, :1]).all() and (told.key == told.key[:, :1]).all()


def test_rows_are_told_the_emotion_the_key_the_bars_left_and_the_place(clips: list[Clip]) -> None:
    batch = next(iter(whole_batches(clips, ROOMY)))
    for index, (clip, rows) in enumerate(zip(clips, pieces(batch), strict=True)):
        count = len(rows) - 1
        np.testing.assert_allclose(batch.conditions.va[index, 0], coordinates(QUADRANTS[clip.quadrant - 1]), atol=1e-6)
        assert (batch.conditions.key[index] == clip.key).all()
        bar, beat = 0, 0
        for row in range(count):
            if rows[row, TYPE] == METRICAL:
                beat = rows[row, BEAT]
                bar += int(beat == BAR)
            assert batch.conditions.place[index, row] == beat
            assert batch.conditions.left[index, row] == min(1 + 8 - max(bar, 1), BARS_LEFT - 1)
        assert batch.conditions.left[index, count - 1] == 1 and rows[-1, TYPE] == EOS


def test_a_cut_is_told_the_bars_of_the_clip_that_follow(clips: list[Clip]) -> None:
    clip = clips[0]
    batch = collate([Example(clip.name, clip.grid.slice(2, 4), clip.quadrant, clip.key, 4)], PLAIN)
    heard = bars_of_rows(batch.x[0].numpy())
    assert batch.conditions.left[0, heard == 1].unique().tolist() == [1 + 5]
    assert batch.conditions.left[0, heard == 2].unique().tolist() == [1 + 4]
    assert (batch.y[0, :, TYPE] != EOS).all()


def test_what_is_hidden_is_zero(clips: list[Clip]) -> None:
    clip = clips[0]
    valence, arousal = coordinates(QUADRANTS[clip.quadrant - 1])
    for show in ((False, True), (True, False), (False, False)):
        example = Example(clip.name, clip.grid, clip.quadrant, 0, 0, False, *show)
        told = collate([example], ROOMY).conditions
        torch.testing.assert_close(told.va[0, 3], torch.tensor([valence * show[0], arousal * show[1]]))
        assert (told.left == 0).all() and (told.key == 0).all()


def test_hiding_happens_as_often_as_asked(clips: list[Clip]) -> None:
    config = replace(MINIATURE, data=DataConfig(drop_emotion=0.2, drop_hints=0.3))
    batches = clip_batches(clips, config, seed=3, batch_size=16)
    told = [batches(step, 0, 1).conditions for step in range(40)]
    valence, arousal = (np.concatenate([c.va[:, 0, axis] == 0 for c in told]) for axis in (0, 1))
    both = 0.2 + 0.8 * 0.2 * 0.2
    assert np.mean(valence & arousal) == pytest.approx(both, abs=0.05)
    assert np.mean(valence) == pytest.approx(0.36, abs=0.05)
    assert np.mean(arousal) == pytest.approx(0.36, abs=0.05)
    assert np.mean(np.concatenate([c.key[:, 0] == 0 for c in told])) == pytest.approx(0.3, abs=0.05)
    assert np.mean(np.concatenate([c.left[:, 0] == 0 for c in told])) == pytest.approx(0.3, abs=0.05)


def test_token_mode_writes_the_emotion_into_the_first_row(clips: list[Clip]) -> None:
    token = next(iter(whole_batches(clips, with_model(PLAIN, conditioning="token"))))
    rows = next(iter(whole_batches(clips, PLAIN)))
    assert token.x[:, 0, EMOTION].tolist() == [clip.quadrant for clip in clips]
    assert (rows.x[..., EMOTION] == 0).all()
    assert torch.equal(token.x[..., :EMOTION], rows.x[..., :EMOTION])


def test_a_bar_longer_than_the_model_is_cut_only_where_it_must_be(clips: list[Clip]) -> None:
    notes = np.array([[16 * bar + step, 100 - k, 1, 64] for bar in range(4) for step in range(16) for k in range(6)])
    grid = replace(clips[0].grid.slice(0, 4), notes=notes)
    example = Example("dense", grid.slice(0, 1), 1, 1, 3)
    assert collate([example], with_model(PLAIN, reduction="mean")).x.shape[1] > 64
    batch = collate([example], with_model(PLAIN, reduction="trans"))
    assert batch.x.shape[1] == 64 and batch.mask.sum() == 64


def test_whole_batches_are_the_clips_in_order(clips: list[Clip]) -> None:
    batches = list(whole_batches(clips, MINIATURE, batch_size=6))
    assert [len(batch.names) for batch in batches] == [6, 6, 4]
    assert [name for batch in batches for name in batch.names] == [clip.name for clip in clips]
    assert all(batch.x.shape[1] <= 64 for batch in batches)


def test_places_and_bars_left() -> None:
    rows = np.zeros((2, 6, 8), dtype=np.int64)
    rows[:, :, TYPE] = [EMOTION_ROW, METRICAL, METRICAL, NOTE, METRICAL, EOS]
    rows[0, :, BEAT], rows[1, :, BEAT] = [0, 1, 2, 0, 7, 0], [0, 1, 17, 0, 1, 0]
    assert places(rows).tolist() == [[0, 1, 2, 2, 7, 7], [0, 1, 17, 17, 1, 1]]
    assert bars_left(3, np.array([0, 1, 2, 3, 4])).tolist() == [3, 3, 2, 1, 1]
    assert bars_left(np.array([30, 8]), np.array([1, 1])).tolist() == [9, 8]
