"""Rows of phones cut into syllables."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affgen.align.phones import PHONES
from svs.syllables import Syllable, english_onset, is_vowel, rising_onset, syllabify


def cut(phones: str, **how: object) -> str:
    """Return the syllables as "onset|nucleus|coda" with blanks between them."""
    syllables = syllabify(tuple(phones.split()), **how)  # type: ignore[arg-type]
    return " ".join("|".join("".join(part) for part in (s.onset, s.nucleus, s.coda)) for s in syllables)


@pytest.mark.parametrize(
    ("phones", "syllables"),
    [
        ("d ɔ ɹ", "d|ɔ|ɹ"),
        ("ɛ k s t ɹ ə", "|ɛ|k stɹ|ə|"),
        ("æ θ l i t", "|æ|θ l|i|t"),
        ("s ɪ ŋ ɪ ŋ", "s|ɪ|ŋ |ɪ|ŋ"),
        ("f j u ɹ i ə s", "fj|u| ɹ|i| |ə|s"),
        ("æ t l ə s", "|æ|t l|ə|s"),
        ("s t ɹ ɛ ŋ θ s", "stɹ|ɛ|ŋθs"),
        ("v l ɑ d ɪ m ɪ ɹ", "vl|ɑ| d|ɪ| m|ɪ|ɹ"),  # what begins the word stays at its beginning, legal or not
    ],
)
def test_english_syllables_have_the_longest_legal_onsets(phones: str, syllables: str) -> None:
    assert cut(phones) == syllables


@pytest.mark.parametrize(
    ("phones", "syllables"),
    [("h m", "h|m|"), ("m m", "m|m|"), ("ʃ", "|ʃ|"), ("p s t", "p|s|t"), ("b ɹ", "b|ɹ|"), ("t", "|t|"), ("", "")],
)
def test_without_a_vowel_the_most_sonorous_consonant_is_sung(phones: str, syllables: str) -> None:
    assert cut(phones) == syllables


def test_elsewhere_sonority_rises() -> None:
    assert cut("k a t l a", legal=english_onset) == "k|a|t l|a|"
    assert cut("k a t l a", legal=rising_onset) == "k|a| tl|a|"
    assert cut("k a s t a", legal=rising_onset) == "k|a| st|a|"
    assert cut("k a l t a ŋ a", legal=rising_onset) == "k|a|l t|a|ŋ |a|"


def test_an_offglide_belongs_to_a_plain_vowel_before_it() -> None:
    assert cut("i ɐ", offglide="ɐ") == "|iɐ|"
    assert cut("f ɔɪ ɐ", offglide="ɐ") == "f|ɔɪ| |ɐ|"
    assert cut("m ʊ t ɐ", offglide="ɐ") == "m|ʊ| t|ɐ|"
    assert cut("i ɐ") == "|i| |ɐ|"


def test_a_sustained_syllable_has_its_consonants_once() -> None:
    once, twice = Syllable(("d",), ("i", "ɐ"), ("t",)), Syllable(("d",), ("i",), ())
    assert once.sustained(1) == [once]
    assert once.sustained(2) == [twice, Syllable((), ("i", "ɐ"), ("t",))]
    assert once.sustained(3) == [twice, Syllable((), ("i",), ()), Syllable((), ("i", "ɐ"), ("t",))]


@given(st.lists(st.sampled_from(PHONES[1:]), max_size=12), st.sampled_from([english_onset, rising_onset]))
def test_syllables_keep_every_phone_in_order(phones: list[str], legal: object) -> None:
    found = syllabify(tuple(phones), legal)  # type: ignore[arg-type]
    assert [phone for syllable in found for phone in syllable.phones] == phones
    assert len(found) == max(sum(map(is_vowel, phones)), bool(phones))
    assert all(syllable.nucleus for syllable in found)
