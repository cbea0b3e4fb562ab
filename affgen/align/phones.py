"""One inventory of phonemes for every language, in IPA, and the alphabets that are read into it.

It is phonemic, not narrow: a stop is closure, burst and aspiration in one, vowels have no length, and what the labels
of a corpus mark inside a phoneme (creak, devoicing, nasality) is left out. ``sil`` stands for silence and breath.
"""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import re
from collections.abc import Iterable

from affgen.errors import AffgenError

SILENCE = "sil"

VOWELS = (
    *("a", "ɑ", "æ", "ɐ", "ə", "ɚ", "e", "ɛ", "i", "ɪ", "ɨ", "o", "ɔ", "u", "ʊ", "y", "ʏ", "ø", "œ"),
    *("aɪ", "aʊ", "ɔɪ", "eɪ", "oʊ"),
)
STOPS = ("p", "b", "t", "d", "k", "g", "ʔ", "tʃ", "dʒ", "ts", "dz", "tʂ", "dʐ", "tɕ", "dʑ")
FRICATIVES = ("f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "ʂ", "ʐ", "ɕ", "ʑ", "ç", "x", "h")
SONORANTS = ("m", "n", "ɲ", "ŋ", "l", "r", "ɹ", "ʁ", "j", "w")

PHONES = (SILENCE, *VOWELS, *STOPS, *FRICATIVES, *SONORANTS)
"""Every symbol, in the order of the network's outputs; silence is 0, the blank of CTC."""
INDEX = {phone: number for number, phone in enumerate(PHONES)}

CLASSES = ("silence", "vowel", "stop", "fricative", "sonorant")
CLASS_OF = {
    SILENCE: 0,
    **{phone: number for number, group in enumerate((VOWELS, STOPS, FRICATIVES, SONORANTS), 1) for phone in group},
}
"""Phone -> number of its class in :data:`CLASSES`."""

ARPABET = {
    **{"AA": "ɑ", "AE": "æ", "AH": "ə", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "EH": "ɛ", "ER": "ɚ", "EY": "eɪ", "IH": "ɪ"},
    **{"IY": "i", "OW": "oʊ", "OY": "ɔɪ", "UH": "ʊ", "UW": "u", "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "F": "f"},
    **{"G": "g", "HH": "h", "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ"},
    **{"S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ"},
    **{"SIL": SILENCE, "SP": SILENCE, "SPN": SILENCE},
}
"""Symbols of the CMU dictionary; its AH is both the stressed and the unstressed vowel."""

SAMPA = {
    **{"a": "a", "e": "e", "E": "ɛ", "i": "i", "I": "ɪ", "o": "o", "O": "ɔ", "u": "u", "U": "ʊ", "y": "y", "Y": "ʏ"},
    **{"2": "ø", "8": "ø", "9": "œ", "@": "ə", "6": "ɐ", "aI": "aɪ", "aU": "aʊ", "OY": "ɔɪ", "AU": "aʊ", "AO": "aʊ"},
    **{"aO": "aʊ", "ao": "aʊ", "OU": "oʊ", "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "g", "?": "ʔ"},
    **{"B": "b", "D": "d", "G": "g", "f": "f", "v": "v", "V": "v", "s": "s", "z": "z", "S": "ʃ", "Z": "ʒ", "C": "ç"},
    **{"x": "x", "h": "h", "H": "h", "m": "m", "n": "n", "N": "ŋ", "l": "l", "L": "l", "R": "ʁ", "X": "ʁ", "4": "ʁ"},
    **{"r": "ʁ", "j": "j", "J": "j", "w": "w", "A": "a"},
}
"""German SAMPA with the symbols of EmoDB's labels for weakened stops (B D G), flaps (4) and voiceless r and l (X L)."""


def from_arpabet(symbol: str) -> str:
    """Return the phone of a symbol of the CMU dictionary, with or without a stress digit.

    Raises :class:`AffgenError` that names an unknown symbol.
    """
    bare = re.sub(r"[0-2]$", "", symbol.upper())
    if bare not in ARPABET:
        raise AffgenError(f"phone {symbol!r} is not ARPAbet; accepted: {' '.join(ARPABET)}")
    return ARPABET[bare]


def from_sampa(symbol: str) -> tuple[str, ...]:
    """Return the phones of one German SAMPA symbol: two for a vowel and a vowel in one ("i6"), one for "nn".

    Raises :class:`AffgenError` that names an unknown symbol.
    """
    if symbol in SAMPA:
        return (SAMPA[symbol],)
    if len(symbol) == 2 and all(part in SAMPA for part in symbol):
        first, second = SAMPA[symbol[0]], SAMPA[symbol[1]]
        return (first,) if first == second else (first, second)
    raise AffgenError(f"phone {symbol!r} is not German SAMPA; accepted: {' '.join(SAMPA)} and pairs of vowels")


def checked(phones: Iterable[str]) -> tuple[str, ...]:
    """Return ``phones`` as a tuple; raise :class:`AffgenError` that names the first one not in :data:`PHONES`."""
    found = tuple(phones)
    for phone in found:
        if phone not in INDEX:
            raise AffgenError(f"phone {phone!r} is not known; accepted: {' '.join(PHONES)}")
    return found
