"""Kana to syllables."""

# ruff: noqa: RUF001 - kana and the letters of IPA look like those of the alphabet
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affgen.align.phones import INDEX
from affgen.errors import AffgenError
from svs.kana import is_kana, read


def read_all(*pieces: str) -> str:
    """Return "phones phones" per piece, "," between pieces, "." between the syllables of one."""
    return ", ".join(".".join("".join(s.phones) for s in syllables) for syllables in read(pieces))


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ("さ く ら", "sa, ku, ra"),
        ("サ ク ラ", "sa, ku, ra"),
        ("ｶﾞ ｯ", "ga, aʔ"),
        ("し ち つ ひ ふ じ ぢ づ を", "ɕi, tɕi, tsu, çi, fu, dʑi, dʑi, zu, o"),
        ("きゃ しゅ ちょ にゃ ひょ りゅ じゃ", "kja, ɕu, tɕo, ɲa, ço, rju, dʑa"),
        ("ファ ティ ヴァ うぃ クァ くゎ シェ デュ トゥ ツァ イェ", "fa, ti, va, wi, kwa, kwa, ɕe, dju, tu, tsa, je"),
        ("らー めん", "ra, meŋ"),
        ("ら ー め ん", "ra, a, me, ŋ"),
        ("きょう こ う おお ねぇ", "kjo, ko, u, o, ne"),
        ("あい", "a.i"),
    ],
)
def test_moras_have_their_sounds(pieces: str, sounds: str) -> None:
    assert read_all(*pieces.split()) == sounds


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ("さ ん ぽ", "sa, m, po"),
        ("さん ぽ", "sam, po"),
        ("かんがえ", "kaŋ.ga.e"),
        ("せん ち", "sen, tɕi"),
        ("こん にゃく", "koɲ, ɲa.ku"),
        ("ほん", "hoŋ"),
        ("ほん や", "hoŋ, ja"),
        ("んー ー", "ŋ, ŋ"),
    ],
)
def test_the_moraic_nasal_takes_the_place_of_what_follows(pieces: str, sounds: str) -> None:
    assert read_all(*pieces.split()) == sounds


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ("がっ こう", "gaʔ, ko"),
        ("がっこう", "gaʔ.ko"),
        ("が っこう", "gaʔ, ko"),
        ("が っ こう", "ga, aʔ, ko"),
        ("い っしょ", "iɕ, ɕo"),
        ("ま っ て", "ma, aʔ, te"),
        ("って", "te"),
        ("あっ", "aʔ"),
        ("かんっ", "kaŋ"),
    ],
)
def test_small_tsu_closes_the_syllable_before_it(pieces: str, sounds: str) -> None:
    assert read_all(*pieces.split()) == sounds


def test_kana_are_told_from_other_writing() -> None:
    assert all(map(is_kana, ["か", "カ", "ー", "っ", "か。", "「ゔ」", "ｶﾞ"]))
    assert not any(map(is_kana, ["", "。", "ka", "漢字", "かa", "か1"]))


@pytest.mark.parametrize("piece", ["ー", "っ"])
def test_what_goes_on_needs_a_vowel_before_it(piece: str) -> None:
    with pytest.raises(AffgenError, match=f"'{piece}' has no vowel before it"):
        read(["", piece, "あ"])


KANA = [chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30F7), 0x30FC)]


@given(st.lists(st.text(st.sampled_from(KANA), min_size=1, max_size=4), max_size=6))
def test_all_kana_are_read_into_the_inventory(pieces: list[str]) -> None:
    assert all(map(is_kana, pieces))
    found = read(["あ", *pieces])
    assert all(found)
    assert all(phone in INDEX and s.nucleus for syllables in found for s in syllables for phone in s.phones)
