"""Words read by the dictionary, by rules and by tables."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

from pathlib import Path

import pytest

from affgen.errors import AffgenError
from svs.languages import language


def read(word: str, name: str = "en") -> list[str]:
    return ["".join(phones) for phones in language(name).readings(word)]


def test_english_words_have_every_pronunciation_of_the_dictionary() -> None:
    assert read("every") == ["ɛvɚi", "ɛvɹi"]
    assert read("our") == ["aʊɚ", "aʊɹ", "ɑɹ"]
    assert read("zorblax") == []


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("ev'ry", "every"),
        ("heav'n", "heaven"),
        ("'door'", "door"),
        ("nooooo", "no"),
        ("oooh", "ooh"),
        ("yeahhh", "yeah"),
        ("lovin'", "loving"),
        ("café", "cafe"),
    ],
)
def test_what_songs_make_of_words_is_undone(written: str, known: str) -> None:
    assert read(written) == read(known) != []


def test_ed_can_be_a_syllable_of_its_own() -> None:
    assert read("loved") == ["ləvd", "ləvɛd"]
    assert read("needed") == ["nidəd", "nidɪd"]
    assert read("bed") == ["bɛd"]


def test_german_and_polish_go_by_the_rules_of_affgen() -> None:
    assert read("ihr", "de") == ["iɐ"]
    assert [s.nucleus for s in language("de").spelled("ihr")] == [("i", "ɐ")]
    assert read("gęś", "pl") == ["gɛwɕ"]
    assert read("漢", "pl") == []


def test_a_table_adds_a_language(tmp_path: Path) -> None:
    path = tmp_path / "it.tsv"
    rows = ("c k", "ch x", "ci tʃi", "i i", "a a", "o o", "n n", "t t", "h ", "^h ", "s$ s", "e ɛ")
    path.write_text("".join(row.replace(" ", "\t") + "\n" for row in rows[:2] + rows[3:]), encoding="utf-8")
    assert read("chi", str(path)) == ["xi"]
    assert read("canto", str(path)) == ["kanto"]
    assert read("has", str(path)) == ["as"]
    assert read("sa", str(path)) == []  # s is known at the end of a word only
    assert [s.phones for s in language(str(path)).spelled("canto")] == [("k", "a", "n"), ("t", "o")]


@pytest.mark.parametrize("name", ["xx", "", "english", "ja"])
def test_other_languages_are_refused(name: str) -> None:
    with pytest.raises(AffgenError, match=f"^language '{name}'; accepted: en, de, pl, ja "):
        language(name)
