"""Syllables of words matched to the pieces that are written."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from affgen.errors import AffgenError
from svs.languages import language
from svs.matching import MAX_LETTERS, match


def matched(word: str, name: str = "en") -> tuple[str, bool]:
    """Return the phones of each piece, "-" between pieces and "." inside one, and whether they are guessed."""
    found, guessed = match(word.split("-"), language(name))
    return "-".join(".".join("".join(s.phones) for s in syllables) for syllables in found), guessed


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ("o-pen", "oʊ-pən"),
        ("open", "oʊ.pən"),
        ("fire", "faɪɹ"),  # of two pronunciations the one with one syllable
        ("fi-re", "faɪ-ɚ"),
        ("ev'-ry", "ɛv-ɹi"),
        ("ev-er-y", "ɛ-vɚ-i"),
        ("beauti-ful", "bju.tə-fəl"),
        ("beau-tiful", "bju-tə.fəl"),
        ("rhy-thm", "ɹɪ-ðəm"),
        ("hmm", "hm"),
    ],
)
def test_words_of_the_dictionary_are_shared_out(pieces: str, sounds: str) -> None:
    assert matched(pieces) == (sounds, False)


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ("do-or", "dɔ-ɔɹ"),
        ("do-o-or", "dɔ-ɔ-ɔɹ"),
        ("e-ye", "aɪ-aɪ"),
        ("ni-ight", "naɪ-aɪt"),
        ("glo-o-o-ri-a", "glɔ-ɔ-ɔ-ɹi-ə"),
        ("lo-ve", "lə-əv"),
        ("lov-ed", "lə-vɛd"),
    ],
)
def test_a_vowel_is_sung_anew_where_a_syllable_is_split(pieces: str, sounds: str) -> None:
    assert matched(pieces) == (sounds, False)


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ("zor-blax", "zɔɹ-blæks"),
        ("zorblax", "zɔɹ.blæks"),
        ("zyg-omorphia", "zɪg-oʊ.mɔɹ.fi.ə"),
        ("zo-o-blax", "zoʊ-oʊ-blæks"),
        ("ca-fard", "kæ-fɑɹd"),
    ],
)
def test_unknown_words_are_guessed(pieces: str, sounds: str) -> None:
    assert matched(pieces) == (sounds, True)


def test_known_words_in_pieces_with_a_vowel_each_are_read_as_spelled() -> None:
    assert matched("on-ce-a") == ("ɑn-si-ə", True)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ("d-oor", "'door' has 1 syllable for 2 notes; mark a melisma or split it as do-or"),
        ("d-o-or", "'door' has 1 syllable for 3 notes; mark a melisma or split it as do-o-or"),
        ("wor-ld", "'world' has 1 syllable for 2 notes; mark a melisma or split it as wo-orld"),
        ("w-on-der-ful", "'wonderful' has 3 syllables for 4 notes; mark a melisma or split it as wo-on-der-ful"),
        ("blub-brt", "'blubbrt' has 1 syllable for 2 notes; mark a melisma or split it as blu-ubbrt"),
        ("漢字", "'漢字' cannot be read as English; write its phonemes instead, as in [d ao r]"),
    ],
)
def test_what_cannot_be_sung_is_refused_with_what_can(pieces: str, message: str) -> None:
    with pytest.raises(AffgenError, match=f"^{re.escape(message)}$"):
        matched(pieces)


WORDS = ("door", "night", "strength", "wonderful", "heaven", "my", "fly", "through", "eye", "world", "window", "hmm")


@given(st.sampled_from(WORDS), st.integers(1, 5), st.randoms(use_true_random=False))
@example("door", 1, None)
@settings(deadline=None)
def test_a_split_that_is_proposed_is_accepted(word: str, cuts: int, random: object) -> None:
    places = sorted(random.sample(range(1, len(word)), min(cuts, len(word) - 1))) if random else [1]  # type: ignore[attr-defined]
    pieces = [word[start:stop] for start, stop in zip([0, *places], [*places, len(word)], strict=True)]
    try:
        match(pieces, language("en"))
    except AffgenError as error:
        if "hmm" in pieces or word == "hmm":
            return  # it has no vowel that could be drawn out
        proposed = str(error).rpartition(" split it as ")[2].split("-")
        assert len(proposed) == len(pieces)
        found, guessed = match(proposed, language("en"))
        assert len(found) == len(pieces)
        assert not guessed


@given(st.lists(st.text("abeilnorstuy", min_size=1, max_size=6), min_size=1, max_size=6))
@settings(deadline=None)
def test_every_piece_gets_a_syllable_or_the_word_is_refused(pieces: list[str]) -> None:
    try:
        found, _ = match(pieces, language("en"))
    except AffgenError as error:
        assert "syllable" in str(error) or "cannot be read" in str(error)
        return
    assert len(found) == len(pieces)
    assert all(found)


def test_words_without_end_are_refused_and_long_ones_take_no_time() -> None:
    with pytest.raises(AffgenError, match="has more than 100 letters; leave the dash away"):
        match(["la", *["a"] * 100], language("en"))
    language("en").readings("warm")
    start = time.perf_counter()
    match(["banana" * 2] * (MAX_LETTERS // 12), language("en"))
    assert time.perf_counter() - start < 5
