"""Features of sounds, the nearest phone, and languages from a file."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import math
from pathlib import Path

import pytest

from affgen.align.phones import PHONES
from affgen.errors import AffgenError
from svs import ipa


def test_every_phone_of_the_inventory_has_features_of_its_own() -> None:
    sounds = [ipa.FEATURES[phone] for phone in PHONES[1:]]
    assert len(set(sounds)) == len(sounds)
    assert [ipa.nearest(phone) for phone in PHONES[1:]] == list(PHONES[1:])


@pytest.mark.parametrize(
    ("sounds", "phones"),
    [
        ("ɯ ɾ ɸ ɴ ɣ β ʋ χ", "u r f ŋ ʁ v v x"),
        ("ʌ ɜː ɒ ɤ ʉ ɝ ə˞", "ə ə ɑ o y ɚ ɚ"),
        ("kʰ t͡s ʧ ɡ ɫ n̩ ã ç", "k ts tʃ g l n a ç"),
        ("ai au əʊ iə pf", "aɪ aʊ oʊ i f"),
    ],
)
def test_sounds_that_are_missing_go_to_the_nearest_phone(sounds: str, phones: str) -> None:
    assert " ".join(map(ipa.nearest, sounds.split())) == phones


@pytest.mark.parametrize("sound", ["%", "", "aaa", "ʘ", "at", "ta", "7", "sp"])
def test_what_is_no_sound_is_named(sound: str) -> None:
    with pytest.raises(AffgenError, match=r"^sound '.*' is not known; accepted are letters of IPA: p t "):
        ipa.nearest(sound)


def test_distance_is_symmetric_and_never_joins_vowels_and_consonants() -> None:
    sounds = list(ipa.FEATURES.values())
    for first in sounds[::5]:
        assert ipa.distance(first, first) == 0
        for second in sounds[::7]:
            assert ipa.distance(first, second) == ipa.distance(second, first)
    assert ipa.distance(ipa.features("i"), ipa.features("j")) == math.inf


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "it.tsv"
    path.write_text("# Italian\nch\tk\n\nGL\tʎ\nh\t\n^s$\ts ɾ\nè\tɛ\n", encoding="utf-8-sig")
    expected = {"ch": ("k",), "gl": (ipa.nearest("ʎ"),), "h": (), "^s$": ("s", "r"), "è": ("ɛ",)}
    assert ipa.read_table(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\ta\nch k\n", "line 2: 'ch k'; accepted are letters, a tab"),
        ("a\ta\tb\n", "line 1: 'a\\\\ta\\\\tb'; accepted are letters, a tab"),
        ("\ta\n", "line 1: .*accepted are letters"),
        ("^\ta\n", "line 1: .*accepted are letters"),
        ("a\t%\n", "line 1: sound '%' is not known"),
        ("a\ta\nA\te\n", "line 2: letters 'a' stood before; keep one"),
        ("# nothing\n", "holds no rows; accepted is a table"),
        ("a" * (ipa.MAX_TABLE + 1), "larger than 1048576 bytes; accepted is a table"),
        ("\udcff", "is no UTF-8 text; accepted is a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AffgenError, match=f"bad.tsv: {message}") as caught:
        ipa.read_table(path)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(AffgenError, match=f"{path}: .*; accepted is a table of letters"):
            ipa.read_table(path)
