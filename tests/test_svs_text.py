"""Lyrics to syllables on notes."""

# ruff: noqa: RUF001 - the letters of IPA and kana look like those of the alphabet
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affgen.align.phones import PHONES
from affgen.errors import AffgenError
from affgen.score import Meter, Note, Score
from svs.text import Sung, guesses, phonemes, sung


def song(*lyrics: str) -> Score:
    return Score(tuple(Note(float(at), 1.0, 60, lyric=lyric) for at, lyric in enumerate(lyrics)))


def sounds(score: Score, language: str = "en") -> list[tuple[tuple[int, ...], str]]:
    return [(s.notes, "".join((*s.onset, *s.nucleus, *s.coda))) for s in sung(score, language)]


def test_a_line_is_sung_syllable_by_syllable() -> None:
    found = sung(song("Twin-", "kle,", "lit-", "", "tle", "STAR!"))
    assert found[0] == Sung((0,), "Twin", ("t", "w"), ("ɪ",), ("ŋ",), False, False)
    assert found[1] == Sung((1,), "kle", ("k",), ("ə",), ("l",), True, False)
    assert found[2] == Sung((2, 3), "lit", ("l",), ("ɪ",), (), False, False)
    assert found[4] == Sung((5,), "STAR", ("s", "t"), ("ɑ",), ("ɹ",), True, False)


@pytest.mark.parametrize(
    ("lyrics", "expected"),
    [
        (["open"], [((0,), "oʊ"), ((0,), "pən")]),
        (["open", ""], [((0,), "oʊ"), ((1,), "pən")]),
        (["open", "", ""], [((0,), "oʊ"), ((1, 2), "pən")]),
        (["beautiful", ""], [((0,), "bju"), ((1,), "tə"), ((1,), "fəl")]),
        (["of‿the", "", "-", "_"], [((0,), "əv"), ((1, 2, 3), "ðə")]),
        (["the o-", "pen"], [((0,), "ðə"), ((0,), "oʊ"), ((1,), "pən")]),
        (["do-", "or"], [((0,), "dɔ"), ((1,), "ɔɹ")]),
        (["don\u2019t"], [((0,), "doʊnt")]),
        (["o-"], [((0,), "oʊ")]),
        ([], []),
    ],
)
def test_syllables_are_spread_over_the_notes(lyrics: list[str], expected: list[tuple[tuple[int, ...], str]]) -> None:
    assert sounds(song(*lyrics)) == expected


def test_words_end_where_they_end() -> None:
    found = sung(song("the o-", "pen", "win-", "dow"))
    assert [(s.text, s.word_end) for s in found] == [
        *[("the", True), ("o", False), ("pen", True), ("win", False), ("dow", True)]
    ]


def test_guessed_words_are_named_once_as_they_are_written() -> None:
    found = sung(song("Zor-", "blax", "loves", "Zor-", "blax", "and", "[z aa]", "plimsy"))
    assert guesses(found) == ["Zorblax", "plimsy"]
    assert guesses(sung(song("plim-", "[b ao]-"))) == ["plim"]
    assert guesses([]) == []


def test_phonemes_in_brackets_take_the_place_of_a_syllable() -> None:
    found = sung(song("[D ao1 R]", "[oʊ]-", "[p ə n]", "[m]"))
    assert [(s.onset, s.nucleus, s.coda, s.word_end) for s in found] == [
        (("d",), ("ɔ",), ("ɹ",), True),
        ((), ("oʊ",), (), False),
        (("p",), ("ə",), ("n",), True),
        ((), ("m",), (), True),
    ]
    assert not any(s.guessed for s in found)


def test_phonemes_break_a_word_in_two() -> None:
    found = sung(song("win-", "[d uw]-", "row"))
    assert ["".join(s.onset + s.nucleus + s.coda) for s in found] == ["wɪn", "du", "ɹoʊ"]
    assert [s.word_end for s in found] == [False, False, True]


def test_the_phonemes_of_a_note_count_and_its_word_is_still_known() -> None:
    notes = (
        Note(0, 1, 60, lyric="o-", phonemes=("a",)),
        Note(1, 1, 60, lyric="pen"),
        Note(2, 1, 60, phonemes=("l", "aa")),
    )
    assert sounds(Score(notes)) == [((0,), "a"), ((1,), "pən"), ((2,), "lɑ")]
    given = (Note(0, 1, 60, lyric="99", phonemes=("n", "aɪ", "n")), Note(1, 1, 60))
    assert sounds(Score(given)) == [((0, 1), "naɪn")]


@pytest.mark.parametrize(
    ("symbols", "phones"),
    [
        ("d ao r", "d ɔ ɹ"),
        ("d ɔ r", "d ɔ r"),  # not all ARPAbet: r is the phone of that name
        ("b y", "b y"),  # no vowel if it were ARPAbet
        ("y uw", "j u"),
        ("HH ʌ", ""),
        ("sil", ""),
        ("zz", ""),
        ("", None),
    ],
)
def test_symbols_are_arpabet_or_the_inventory(symbols: str, phones: str | None) -> None:
    if phones == "":
        with pytest.raises(AffgenError, match=r"^phoneme '.+' is not known; accepted: AA AE .* ZH, or a ɑ æ "):
            phonemes(symbols.split())
    else:
        assert phonemes(symbols.split()) == tuple((phones or "").split())


def test_kana_are_japanese_whatever_the_language() -> None:
    for language in ("en", "ja"):
        assert sounds(song("さ", "く", "ら", "", "ー"), language) == [
            *[((0,), "sa"), ((1,), "ku"), ((2, 3), "ra"), ((4,), "a")]
        ]
    found = sung(song("さ-", "く-", "ら", "[k a]"))
    assert [s.word_end for s in found] == [False, False, True, True]
    assert found[3].onset == ("k",)


def test_other_languages(tmp_path: Path) -> None:
    table = tmp_path / "xx.tsv"
    table.write_text("a\ta\nl\tl\n", encoding="utf-8")
    assert sounds(song("ih-", "ren"), "de") == [((0,), "i"), ((1,), "ʁən")]
    assert sounds(song("La-", "la"), str(table)) == [((0,), "la"), ((1,), "la")]


def bad(*lyrics: str) -> Score:
    """Return a song in 3/4 with ``lyrics`` from the third note of bar 7 on."""
    notes = (Note(18.0 + at, 1.0, 60, lyric=text) for at, text in enumerate(["la", "la", *lyrics]))
    return Score(tuple(notes), meters=(Meter(0, 3, 4),))


@pytest.mark.parametrize(
    ("score", "language", "message"),
    [
        (bad("d-", "oor"), "en", "'door' has 1 syllable for 2 notes; mark a melisma or split it as do-or"),
        (bad("99"), "en", "'99' holds a number; write it in words, as it is sung"),
        (bad("漢字"), "en", "'漢字' cannot be read as English; write its phonemes instead, as in [d ao r]"),
        (bad("[q]"), "en", "phoneme 'q' is not known; accepted: AA"),
        (bad("[]"), "en", "'[]' holds no phonemes; accepted are some"),
        (bad("a[b]"), "en", "'a[b]'; accepted are letters, or phonemes"),
    ],
)
def test_mistakes_are_refused_where_they_are(score: Score, language: str, message: str) -> None:
    with pytest.raises(AffgenError, match=f"^song.musicxml: bar 7, note 3 {re.escape(message)}") as caught:
        sung(score, language, name="song.musicxml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("score", "language", "message"),
    [
        (song("", "la"), "en", "score: bar 1, note 1 has no lyric; give it one, or phonemes"),
        (song("ー", "か"), "en", "score: bar 1, note 1 'ー' has no vowel before it"),
        (song("か", "la"), "ja", "score: bar 1, note 2 'la' is not kana"),
        (song("la"), "xx", "language 'xx'; accepted: en, de, pl, ja"),
        (
            Score((Note(0, 1, 60, lyric="a"), Note(0, 1, 64))),
            "en",
            "score: bar 1, note 2 starts with the one before it",
        ),
    ],
)
def test_what_is_no_song_is_refused(score: Score, language: str, message: str) -> None:
    with pytest.raises(AffgenError, match=f"^{re.escape(message)}"):
        sung(score, language)


@given(
    st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["", "la", "o-", "pen", "か", "[aa]-", "-"])), max_size=8)
)
@settings(deadline=None)
def test_any_lyrics_are_sung_on_all_notes_in_order_or_refused_in_one_line(lyrics: list[str]) -> None:
    try:
        found = sung(song(*lyrics))
    except AffgenError as error:
        assert str(error).startswith("score: bar ")
        assert len(str(error).splitlines()) == 1
        return
    assert sorted({note for one in found for note in one.notes}) == list(range(len(lyrics)))
    assert [one.notes[0] for one in found] == sorted(one.notes[0] for one in found)
    assert all(one.nucleus and {*one.onset, *one.nucleus, *one.coda} <= set(PHONES) for one in found)


def test_importing_brings_nothing_heavy() -> None:
    code = (
        "import sys, svs.text, svs.timing; print([m for m in ('torch', 'scipy', 'pocketsphinx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
