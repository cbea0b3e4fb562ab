"""The average voice: tables of phones, what is pasted from them, and the encoder that imitates it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from affgen.align.formats import read_ctm, read_textgrid, write_ctm, write_textgrid
from affgen.align.phones import PHONES
from affgen.align.segments import FRAME_S, Segment, frame_phones
from affgen.errors import AffgenError
from affgen.features import BANDS
from vc.emoreg.average import AverageEncoder, AverageTable, Run, runs
from vc.emoreg.config import MINIATURE, PUBLISHED
from vc.emoreg.data import AverageBatch


def segments(*parts: tuple[float, float, str]) -> list[Segment]:
    """Segments with times in frames."""
    return [Segment(a * FRAME_S, b * FRAME_S, phone) for a, b, phone in parts]


def level(*values: float) -> np.ndarray:
    """A mel whose frames are all of one value each."""
    return np.tile(np.array(values, dtype=np.float32), (BANDS, 1))


# --- runs ---


def test_gaps_are_silence_and_every_frame_is_of_one_run() -> None:
    found = runs(segments((1, 3, "a"), (5, 6.2, "AH0"), (6.2, 6.4, "t"), (6.4, 99, "u7")), 8)
    assert found == [(0, 1, "sil"), (1, 3, "a"), (3, 5, "sil"), (5, 6, "AH0"), (6, 8, "u7")]
    assert runs([], 3) == [(0, 3, "sil")] and runs(segments((0, 9, "a")), 2) == [(0, 2, "a")]


def test_frames_belong_to_phones_as_elsewhere() -> None:
    rng = np.random.default_rng(0)
    edges = np.sort(rng.uniform(0, 40, 13))
    made = segments(*((a, b, "aeiou"[k % 5]) for k, (a, b) in enumerate(pairwise(edges))))
    names = [phone for first, last, phone in runs(made, 45) for _ in range(first, last)]
    assert names == [PHONES[k] for k in frame_phones(made, 45)]


# --- the table ---


CORPUS: list[tuple[np.ndarray, list[Run]]] = [
    (level(1.04, 1.02, 9.0, 5.0, 5.0), [(0, 3, "a"), (3, 5, "sil")]),  # median 1.04
    (level(0.98, 0.98, 7.0), [(0, 2, "a"), (2, 3, "b")]),
    (level(4.0, 4.0), [(0, 1, "a"), (1, 2, "a")]),  # two segments
    (level(1.01), [(0, 1, "a")]),
]


@pytest.mark.parametrize(
    ("statistic", "value"), [("mode", 1.0), ("median", 1.04), ("mean", (1.04 + 0.98 + 4 + 4 + 1.01) / 5)]
)
def test_averages_are_over_segments_not_frames(statistic: str, value: float) -> None:
    table = AverageTable.fit(CORPUS, statistic)
    assert table.phones == ("a", "b", "sil") and table.counts.tolist() == [5, 1, 1]
    assert table.values[0] == pytest.approx(np.full(BANDS, value), abs=1e-5)
    assert table.values[1:, 0].tolist() == [7.0, 5.0]


def test_the_mode_is_taken_band_by_band_and_the_lowest_of_equals() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-40, 5, (200, BANDS)) / 10 + rng.uniform(-0.04, 0.04, (200, BANDS))
    table = AverageTable.fit([(row[:, None], [(0, 1, "a")]) for row in values], "mode")
    for band in range(0, BANDS, 9):
        found, counts = np.unique(np.rint(values[:, band].astype(np.float32) * 10), return_counts=True)
        assert table.values[0, band] == pytest.approx(found[counts.argmax()] / 10)


def test_averages_are_pasted_over_their_runs() -> None:
    table = AverageTable.fit(CORPUS, "mean")
    target = table.target([(0, 2, "sil"), (2, 3, "b")])
    assert target.shape == (BANDS, 3) and target.dtype == np.float32 and target[0].tolist() == [5, 5, 7]


def test_a_table_survives_its_arrays() -> None:
    table = AverageTable.fit(CORPUS, "mode")
    again = AverageTable.from_arrays(table.phones, table.arrays())
    assert again.phones == table.phones and np.array_equal(again.values, table.values)
    assert np.array_equal(again.counts, table.counts)


def test_alignments_in_files_make_the_same_table(tmp_path) -> None:
    made = segments((0, 3, "a"), (3, 5, "sil"), (5, 9, "tʃ"))
    write_ctm(tmp_path / "phones.ctm", {"u": made})
    write_textgrid(tmp_path / "u.TextGrid", made)
    mel = np.random.default_rng(0).normal(size=(BANDS, 9)).astype(np.float32)
    read = (made, read_ctm(tmp_path / "phones.ctm")["u"], read_textgrid(tmp_path / "u.TextGrid"))
    tables = [AverageTable.fit([(mel, runs(part, 9))]) for part in read]
    assert all(np.array_equal(table.values, tables[0].values) for table in tables)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(AffgenError, match="accepted: mode, median, mean"):
        AverageTable.fit(CORPUS, "modus")
    with pytest.raises(AffgenError, match="no segments"):
        AverageTable.fit([])
    with pytest.raises(AffgenError, match="'zh'"):
        AverageTable.fit(CORPUS).index([(0, 1, "zh")])
    with pytest.raises(AffgenError, match="needed"):
        AverageTable.from_arrays(("a", "b"), AverageTable.fit(CORPUS).arrays())


# --- the encoder ---


@pytest.fixture
def encoder() -> AverageEncoder:
    torch.manual_seed(0)
    made = AverageEncoder(MINIATURE.average).eval()
    torch.nn.init.normal_(made.prenet.out.weight)  # begins at 0
    return made


def test_the_size_is_that_of_diffvc() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in AverageEncoder(PUBLISHED.average).parameters()) == 8_464_529


@pytest.mark.parametrize("frames", [1, 3, 4, 30])
def test_padding_is_not_heard_and_stays_empty(encoder: AverageEncoder, frames: int) -> None:
    mel = torch.randn(2, BANDS, frames)
    mask = torch.ones(2, 1, frames)
    alone = encoder(mel, mask)
    longer = torch.cat([mel, torch.full((2, BANDS, 7), 30.0)], dim=2)
    beside = encoder(longer, torch.cat([mask, torch.zeros(2, 1, 7)], dim=2))
    assert alone.shape == mel.shape and torch.allclose(alone, beside[:, :, :frames], atol=1e-5)
    assert beside[:, :, frames:].abs().max() == 0


def test_attention_knows_distances_within_its_window_alone(encoder: AverageEncoder) -> None:
    attention = encoder.layers[0].attention
    x, mask = torch.randn(1, 8, 20), torch.ones(1, 1, 20)
    plain = attention(x, mask)
    assert not torch.allclose(attention(x.flip(2), mask).flip(2), plain, atol=1e-6)
    torch.nn.init.zeros_(attention.keys)
    torch.nn.init.zeros_(attention.values)
    order = torch.randperm(20)
    assert torch.allclose(attention(x[:, :, order], mask), attention(x, mask)[:, :, order], atol=1e-5)


def test_relative_attention_is_that_of_the_equations(encoder: AverageEncoder) -> None:
    attention = encoder.layers[0].attention
    frames, width, heads = 9, 8, attention.heads
    x = torch.randn(1, width, frames)
    q, k, v = (layer(x)[0].T.reshape(frames, heads, -1) for layer in attention.qkv)
    heard = torch.zeros(frames, heads, width // heads)
    for h in range(heads):
        for i in range(frames):
            keys = [k[j, h] + (attention.keys[j - i + 4] if abs(j - i) <= 4 else 0) for j in range(frames)]
            weights = torch.softmax(torch.stack([q[i, h] @ key for key in keys]) / (width // heads) ** 0.5, dim=0)
            values = [v[j, h] + (attention.values[j - i + 4] if abs(j - i) <= 4 else 0) for j in range(frames)]
            heard[i, h] = sum(w * value for w, value in zip(weights, values, strict=True))
    wanted = attention.out(heard.reshape(frames, width).T[None])
    assert torch.allclose(attention(x, torch.ones(1, 1, frames)), wanted, atol=1e-5)


def test_the_loss_is_the_mean_square_over_what_is_valid(encoder: AverageEncoder) -> None:
    mel, mask = torch.randn(2, BANDS, 6), torch.ones(2, 1, 6)
    mask[1, :, 2:] = 0
    target = encoder(mel, mask).detach() + 3 * mask
    batch = AverageBatch(["a", "b"], mel, mask, target + 100 * (1 - mask))
    assert encoder.losses(batch)["average"].item() == pytest.approx(9, rel=1e-4)
