"""Phones, words, segments and files of the aligner: all that needs no network."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.align import evaluate, formats, lexicon, marks, phones, units
from affgen.align.segments import FRAME_S, Segment, frame_phones, spoken
from affgen.errors import AffgenError, DataError


def spelled(text: str, language: str) -> str:
    return " ".join("".join(word.phones) for word in lexicon.pronounce(text, language))


def test_the_inventory_has_each_symbol_once_and_every_alphabet_maps_into_it() -> None:
    assert len(set(phones.PHONES)) == len(phones.PHONES)
    assert phones.PHONES[0] == phones.SILENCE
    assert set(phones.CLASS_OF) == set(phones.PHONES)
    assert {*phones.ARPABET.values(), *phones.SAMPA.values()} <= set(phones.PHONES)
    assert phones.from_arpabet("ah0") == "ə"
    assert phones.from_sampa("i6") == ("i", "ɐ")
    assert phones.from_sampa("nn") == ("n",)


@pytest.mark.parametrize("call", [lambda: phones.from_arpabet("QQ"), lambda: phones.from_sampa("%")])
def test_an_unknown_symbol_is_named(call: object) -> None:
    with pytest.raises(AffgenError, match=r"'QQ' is not ARPAbet|'%' is not German SAMPA"):
        call()  # type: ignore[operator]
    with pytest.raises(AffgenError, match="'zz' is not known"):
        phones.checked(["a", "zz"])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Lubię czytać przed snem.", "lubjɛ tʂɨtatɕ pʂɛt snɛm"),
        ("Twój ząb, dziecko!", "tfuj zɔmp dʑɛtskɔ"),
        ("książki rzeka trzeba", "kɕɔwʂki ʐɛka tʂɛba"),
        ("prośba kwiat wszedł", "prɔʑba kfjat fʂɛdw"),
        ("Gęś idzie w las", "gɛwɕ idʑɛ f las"),
    ],
)
def test_polish_is_read_by_its_rules(text: str, read: str) -> None:
    assert spelled(text, "pl") == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Das will sie am Mittwoch abgeben.", "das vɪl zi am mɪtvɔx apgebən"),
        ("Katze Wald spielen schöne Brücke", "katsə valt ʃpilən ʃønə bʁʏkə"),
        ("Mädchen wohnen hier", "mɛdçən vonən hiɐ"),
        ("Freund Tag singen Bank", "fʁɔɪnt tak zɪŋən baŋk"),
    ],
)
def test_german_is_read_by_rules_and_a_list(text: str, read: str) -> None:
    assert spelled(text, "de") == read


def test_english_is_read_from_the_dictionary() -> None:
    pytest.importorskip("pocketsphinx")
    assert spelled("Kids are talking, by the door", "en") == "kɪdz ɑɹ tɔkɪŋ baɪ ðə dɔɹ"
    assert spelled("Don’t", "en") == "doʊnt"


@pytest.mark.parametrize(
    ("text", "language", "part"),
    [
        ("two xqzzyv and 15 wrgl", "en", "'15', 'wrgl', 'xqzzyv': not in the CMU dictionary"),
        ("pięć 5", "pl", "'5': cannot be read"),
        ("hej, björk", "pl", "'björk'"),
        ("søster", "de", "'søster'"),
        ("... !", "de", "holds no words"),
        ("hello", "fr", "language 'fr'; accepted: en, de, pl"),
    ],
)
def test_what_cannot_be_pronounced_is_named(text: str, language: str, part: str) -> None:
    if language == "en":
        pytest.importorskip("pocketsphinx")
    with pytest.raises(AffgenError) as caught:
        lexicon.pronounce(text, language)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pocketsphinx_english_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AffgenError, match=r"pip install 'affgen\[align\]'"):
        lexicon.sphinx_models()


@given(st.text(alphabet="aąbcćdeęfghijklłmnńoópqrsśtuvwxyzźż", min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_every_polish_and_german_word_gives_known_phones(word: str) -> None:
    phones.checked(lexicon.polish(word) or ())
    phones.checked(lexicon.german(word) or ())


# ------------------------------------------------------------------------------------------------------ segments


SEGMENTS = [Segment(0, 0.1, "sil"), Segment(0.1, 0.18, "a"), Segment(0.18, 0.3, "t"), Segment(0.3, 0.5, "sil")]


def test_frames_have_the_phone_at_their_centre() -> None:
    found = frame_phones(SEGMENTS, 60)
    centres = (np.arange(60) + 0.5) * FRAME_S
    for frame, time in enumerate(centres):
        expected = next((s.phone for s in SEGMENTS if s.start_s <= time < s.end_s), "sil")
        assert phones.PHONES[found[frame]] == expected
    with pytest.raises(AffgenError, match="'u17' is not known"):
        frame_phones([Segment(0, 1, "u17")], 3)
    assert [segment.phone for segment in spoken(SEGMENTS)] == ["a", "t"]


def test_segments_between_the_digits_of_a_ctm_still_meet_when_read(tmp_path: Path) -> None:
    ends = np.cumsum(np.full(400, 0.01238))
    segments = [Segment(a, b, "a") for a, b in zip([0.0, *ends[:-1]], ends, strict=True)]
    formats.write_ctm(tmp_path / "a.ctm", {"u": segments})
    back = formats.read_ctm(tmp_path / "a.ctm")["u"]
    assert [s.end_s for s in back] == pytest.approx(ends.tolist(), abs=1e-4)


def test_ctm_and_textgrid_come_back_as_they_were(tmp_path: Path) -> None:
    quoted = [*SEGMENTS[:-1], Segment(0.3, 0.5, 'ʃ"x')]
    formats.write_ctm(tmp_path / "a.ctm", {"u1": SEGMENTS, "u2": SEGMENTS[1:3]})
    back = formats.read_ctm(tmp_path / "a.ctm")
    assert list(back) == ["u1", "u2"]
    for one, other in zip(SEGMENTS, back["u1"], strict=True):
        assert one.phone == other.phone
        assert (one.start_s, one.end_s) == pytest.approx((other.start_s, other.end_s), abs=1e-4)
    formats.write_textgrid(tmp_path / "a.TextGrid", quoted)
    assert formats.read_textgrid(tmp_path / "a.TextGrid") == quoted
    text = (tmp_path / "a.TextGrid").read_text(encoding="utf-8")
    (tmp_path / "b.TextGrid").write_bytes(text.encode("utf-16"))
    assert formats.read_textgrid(tmp_path / "b.TextGrid", None) == quoted


def test_a_textgrid_has_empty_intervals_where_nothing_is_said(tmp_path: Path) -> None:
    formats.write_textgrid(tmp_path / "a.TextGrid", [Segment(0.1, 0.2, "a"), Segment(0.3, 0.4, "b")])
    found = formats.read_textgrid(tmp_path / "a.TextGrid")
    assert [segment.phone for segment in found] == ["sil", "a", "sil", "b"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("u 1 0.1 a\n", "line 1: 'u 1 0.1 a'; accepted: UTT CHANNEL START LENGTH PHONE"),
        ("u 1 nan 0.1 a\n", "the time 'nan'"),
        ("u 1 0.1 -1 a\n", "the time '-1'"),
        ("u 1 0.1 0.2 a\nu 1 0.2 0.2 b\n", "segment 2 (b)"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_a_damaged_ctm_is_refused(tmp_path: Path, content: str | bytes, part: str) -> None:
    path = tmp_path / "a.ctm"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(AffgenError) as caught:
        formats.read_ctm(path)
    assert str(caught.value).startswith(str(path))
    assert part in str(caught.value)


def test_a_damaged_textgrid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    with pytest.raises(DataError, match="cannot be read"):
        formats.read_textgrid(path)
    path.write_text("hello")
    with pytest.raises(DataError, match="is no TextGrid"):
        formats.read_textgrid(path)
    formats.write_textgrid(path, SEGMENTS, tier="words")
    with pytest.raises(DataError, match="has no tier 'phones'; accepted: words"):
        formats.read_textgrid(path)
    for segments in ([], [Segment(0.2, 0.1, "a")]):
        with pytest.raises(AffgenError, match=r"a\.TextGrid: "):
            formats.write_textgrid(path, segments)


# --------------------------------------------------------------------------------------------- labels of a corpus


LABELS = """signal x
#
    0.080   -1 _t
    0.119   -1 !t\t+asp
    0.144   -1 E6
    0.244   -1 l
    0.300   -1 \t+lar
    0.348   -1 (
    0.500   -1 ?
    0.520   -1 a +lar   2
    0.560   -1   -lar
    0.600   -1 t
    0.640   -1 !d
    0.650   -1 dasp
    0.700   -1 .
"""


def test_marks_of_a_stop_are_one_and_manner_is_none(tmp_path: Path) -> None:
    path = tmp_path / "01a01Faxx.lablaut"
    path.write_text(LABELS)
    found = marks.read_lablaut(path)
    assert [(m.start_s, m.phones) for m in found] == [
        *((0.08, ("t",)), (0.144, ("ɛ", "ɐ")), (0.244, ("l",)), (0.348, ("sil",))),
        *((0.5, ("ʔ",)), (0.52, ("a",)), (0.6, ("t",))),
    ]
    assert found[-1].end_s == 0.7
    segments = marks.to_segments(found)
    assert [s.phone for s in segments] == ["t", "ɛ", "ɐ", "l", "sil", "ʔ", "a", "t"]
    assert segments[1].end_s == pytest.approx(0.194)
    assert marks.label_file(tmp_path, "emodb-01-01a01Fa") == path
    assert marks.label_file(tmp_path, "emodb-01-01a02Fa") is None


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("#\n", "holds no marks"),
        ("#\n 0.5 -1 a\n 0.4 -1 b\n", "the mark at 0.4 s comes after one at 0.5 s"),
        ("#\n 0.5 -1 a\n 0.6 -1 %%\n 0.7 -1 .\n", "'%%' is not German SAMPA"),
    ],
)
def test_labels_that_make_no_sense_are_refused(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "x.lablaut"
    path.write_text(content)
    with pytest.raises(DataError, match=part):
        marks.read_lablaut(path)


def test_errors_are_found_where_they_are_and_closures_out_of_silence_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.lablaut"
    path.write_text(LABELS)
    found = marks.read_lablaut(path)
    exact = marks.to_segments(found)
    perfect = evaluate.compare(found, exact)
    # t|ɛ, ɐ|l, l|sil, a after ʔ, a|t, t|sil; neither the first t nor the ʔ after the pause, nor the middle of ɛɐ
    assert [(b.before, b.after) for b in perfect] == [
        *(("t", "ɛ"), ("ɐ", "l"), ("l", "sil"), ("ʔ", "a"), ("a", "t"), ("t", "sil")),
    ]
    assert evaluate.summary(perfect)["p95_ms"] == pytest.approx(0, abs=1e-9)
    late = [Segment(s.start_s + 0.01, s.end_s + 0.01, s.phone) for s in exact]
    report = evaluate.summary(evaluate.compare(found, late))
    assert (report["median_ms"], report["late_ms"]) == pytest.approx((10, 10))
    assert report["within_20_ms"] == 1
    other = [s for s in late if s.phone != "l"]  # a phone that was not said: only what both have is compared
    assert [(b.before, b.after) for b in evaluate.compare(found, other)] == [
        *(("t", "ɛ"), ("ʔ", "a"), ("a", "t"), ("t", "sil")),
    ]
    table = evaluate.offsets(evaluate.compare(found, late) * 50, weight=1.0)
    assert table[phones.CLASS_OF["a"], phones.CLASS_OF["t"]] == pytest.approx(0.01, rel=0.05)
    assert table[phones.CLASS_OF["m"], phones.CLASS_OF["f"]] == 0
    assert evaluate.summary([]) == {"count": 0}


def test_purity_of_equal_and_of_unrelated_labels() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 4000)
    same = evaluate.purity(9 - truth, truth)
    assert (same["purity"], same["inverse"], same["nmi"]) == pytest.approx((1, 1, 1))
    assert evaluate.purity(rng.integers(0, 5, 4000), truth)["nmi"] < 0.01
    assert evaluate.purity(np.arange(4000) % 2, truth)["purity"] < 0.3


# ----------------------------------------------------------------------------------------------- pseudo-phonemes


def test_units_find_the_blobs_that_are_there() -> None:
    from affgen.align.config import UnitsConfig

    rng = np.random.default_rng(1)
    centres = rng.normal(0, 5, (6, 10))
    truth = np.repeat(rng.integers(0, 6, 120), 8)
    x = centres[truth] + rng.normal(0, 1.0, (len(truth), 10))
    config = UnitsConfig(count=6, dimensions=5, rounds=10)
    book = units.learn(x, config)
    found = book.units(x, config.switch, config.shortest)
    assert evaluate.purity(found, truth)["nmi"] > 0.95
    assert np.array_equal(found, units.learn(x, config).units(x, config.switch, config.shortest))
    assert book.units(x[:0], 1, 2).shape == (0,)
    with pytest.raises(AffgenError, match="3 frames for 6 units"):
        units.learn(x[:3], config)


def test_smoothing_removes_blips_and_keeps_runs() -> None:
    costs = np.ones((12, 3))
    for frame, unit in enumerate([0, 0, 0, 1, 0, 0, 2, 2, 2, 2, 2, 2]):
        costs[frame, unit] = 0
    assert units.smoothed(costs, 0.0).tolist() == [0, 0, 0, 1, 0, 0, 2, 2, 2, 2, 2, 2]
    assert units.smoothed(costs, 0.8).tolist() == [0] * 6 + [2] * 6
    assert units.without_short_runs(np.array([5, 0, 0, 0, 1, 2, 2, 2, 7]), 2).tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 2]
    assert units.without_short_runs(np.array([3]), 4).tolist() == [3]


# ------------------------------------------------------------------------------------------------------- singing


def test_singing_is_lowered_an_octave_and_compressed() -> None:
    pyworld = pytest.importorskip("pyworld")
    from affgen.align.singing import slowed, speechlike
    from affgen.audio import Audio
    from affgen.testing_voice import fabricated_voice

    voice = fabricated_voice(3, "woman", seconds=1.5)
    out = speechlike(Audio(voice.samples, 22_050))
    assert len(out.samples) == 22_050
    before, after = (np.median(v[v > 0]) for v in (voice.f0, pyworld.dio(out.samples.astype(float), 22_050)[0]))
    assert before / after == pytest.approx(2, rel=0.06)
    assert slowed([Segment(1, 2, "a")]) == [Segment(1.5, 3, "a")]


def test_singing_without_pyworld_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from affgen.align.singing import speechlike
    from affgen.audio import Audio

    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(AffgenError, match=r"pip install 'affgen\[align\]'"):
        speechlike(Audio(np.zeros(8000), 8000))
