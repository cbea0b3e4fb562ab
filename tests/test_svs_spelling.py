"""Letter-to-sound rules for English, measured against the CMU dictionary."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import random
import re

import pytest

from affgen.align.phones import from_arpabet
from svs.languages import _dictionary
from svs.spelling import spell_out
from svs.syllables import is_vowel


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("zorblax", "z ɔ ɹ b l æ k s"),
        ("moonlight", "m u n l aɪ t"),
        ("starlit", "s t ɑ ɹ l ɪ t"),
        ("stroked", "s t ɹ oʊ k t"),
        ("ed", "ɛ d"),
        ("me", "m i"),
        ("la", "l ɑ"),
        ("phrygation", "f ɹ ɪ g eɪ ʃ ə n"),
        ("", ""),
    ],
)
def test_words_of_no_dictionary_are_read(word: str, phones: str) -> None:
    assert " ".join(spell_out(word)) == phones


def test_the_measured_accuracy_of_the_docstring_holds() -> None:
    words = sorted(word for word in _dictionary() if re.fullmatch("[a-z]+", word))
    assert len(words) == 117_493
    errors = phones = right = 0
    for word in random.Random(0).sample(words, 2000):
        read, known = spell_out(word), [tuple(map(from_arpabet, entry.split())) for entry in _dictionary()[word]]
        distance, length = min((edits(read, reading), len(reading)) for reading in known)
        errors, phones = errors + distance, phones + length
        right += sum(map(is_vowel, read)) in {sum(map(is_vowel, reading)) for reading in known}
    assert right / 2000 > 0.945, right / 2000  # 0.9525 when written
    assert errors / phones < 0.155, errors / phones  # 0.148 when written


def edits(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
