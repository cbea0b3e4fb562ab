"""Features of the letters of IPA, the phone of the inventory that is nearest to one, and languages read from a file.

Places, manners and heights are those of the chart of the International Phonetic Association (2020), laid out on scales
so that a difference is a number; that phones are compared by their features is the idea of PanPhon (Mortensen et al.,
COLING 2016). The weights are this project's: rounding counts for less than the way from central to
back, so that [ɯ] goes to [u], and one place for less than voice, so that [ɣ] goes to [ʁ].

A language is a TSV file: letters, a tab, phones in IPA with blanks between them, or none for letters that are silent.
Of several rows that fit the longest counts; ``^`` and ``$`` stand for the ends of the word, and ``#`` starts a remark::

    ch<TAB>tʃ
    ^h<TAB>
    a<TAB>a
"""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import math
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from affgen.align.phones import PHONES, SILENCE
from affgen.errors import AffgenError

MAX_TABLE = 1 << 20
"""Largest table, in bytes."""


class Consonant(NamedTuple):
    """``place`` from 0 (lips) to 10 (glottis) and ``stricture`` from 0 (closed) to 4 (open), the rest 0 or 1."""

    place: float
    stricture: float
    voiced: float
    sibilant: float = 0.0
    nasal: float = 0.0
    lateral: float = 0.0
    rounded: float = 0.0


class Vowel(NamedTuple):
    """``height`` from 0 (close) to 6 (open) and ``backness`` from 0 (front) to 2 (back), the rest 0 or 1."""

    height: float
    backness: float
    rounded: float
    rhotic: float = 0.0


_CONSONANT_WEIGHTS = Consonant(1.1, 1.0, 1.5, 1.5, 3.0, 3.0, 1.0)
_VOWEL_WEIGHTS = Vowel(1.0, 1.3, 1.2, 2.0)

_PLACES = {
    **{"p": 0, "t": 3, "ʈ": 4.5, "c": 6, "k": 7, "q": 8, "ʔ": 10, "ɸ": 0, "f": 1, "θ": 2, "s": 3, "ʃ": 4, "ʂ": 4.5},
    **{"ɕ": 5, "ç": 6, "x": 7, "χ": 8, "ħ": 9, "h": 10, "m": 0, "ɱ": 1, "n": 3, "ɳ": 4.5, "ɲ": 6, "ŋ": 7, "ɴ": 8},
    **{"ʙ": 0, "r": 3, "ʀ": 8, "ɾ": 3, "ɽ": 4.5, "ɬ": 3, "ʋ": 1, "ɹ": 3, "ɻ": 4.5, "j": 6, "ɰ": 7, "w": 7, "ɥ": 6},
    **{"l": 3, "ɭ": 4.5, "ʎ": 6, "ʟ": 7},
}
_VOICED = {
    **{"p": "b", "t": "d", "ʈ": "ɖ", "c": "ɟ", "k": "g", "q": "ɢ", "ɸ": "β", "f": "v", "θ": "ð", "s": "z", "ʃ": "ʒ"},
    **{"ʂ": "ʐ", "ɕ": "ʑ", "ç": "ʝ", "x": "ɣ", "χ": "ʁ", "ħ": "ʕ", "h": "ɦ", "ɬ": "ɮ"},
}
_AFFRICATES = ("tʃ", "dʒ", "ts", "dz", "tʂ", "dʐ", "tɕ", "dʑ")
_VOWELS = {
    **{"i": (0, 0, 0), "y": (0, 0, 1), "ɨ": (0, 0.9, 0), "ʉ": (0, 0.9, 1), "ɯ": (0, 2, 0), "u": (0, 2, 1)},
    **{"ɪ": (0.8, 0.3, 0), "ʏ": (0.8, 0.3, 1), "ʊ": (0.8, 1.7, 1), "e": (2, 0, 0), "ø": (2, 0, 1), "ɘ": (2, 0.9, 0)},
    **{"ɵ": (2, 0.9, 1), "ɤ": (2, 2, 0), "o": (2, 2, 1), "ə": (3, 0.9, 0), "ɛ": (4, 0, 0), "œ": (4, 0, 1)},
    **{"ɜ": (4, 0.9, 0), "ɞ": (4, 0.9, 1), "ʌ": (4, 1.3, 0), "ɔ": (4, 2, 1), "æ": (5.2, 0, 0), "ɐ": (5.2, 0.9, 0)},
    **{"a": (6, 0, 0), "ɶ": (6, 0, 1), "ɑ": (6, 2, 0), "ɒ": (6, 2, 1)},
}
"""[ʌ] stands nearer to the centre than in the chart, as it is spoken in English (Roach 2009, chapter 2)."""

_ALIASES = {"ɡ": "g", "ɫ": "l", "ɝ": "ɚ", "ʧ": "tʃ", "ʤ": "dʒ", "ʦ": "ts", "ʣ": "dz", "ʨ": "tɕ", "ʥ": "dʑ", "ʍ": "w"}
_MARKS = "ːˑˈˌ.ʰʱʲʷˠˤʼⁿˡ͜͡‿"
"""Length, stress, syllable, secondary articulation and ties: what the inventory does not tell apart."""


def _consonant(letter: str) -> Consonant:
    place = float(_PLACES[letter])
    if letter in "ptʈckqʔ":
        return Consonant(place, 0, 0)
    if letter in "ɸfθsʃʂɕçxχħhɬ":
        return Consonant(place, 2, 0, sibilant=letter in "sʃʂɕ", lateral=letter == "ɬ")
    if letter in "mɱnɳɲŋɴ":
        return Consonant(place, 3, 1, nasal=1)
    if letter in "ʙrʀɾɽ":
        return Consonant(place, 3.4 if letter in "ʙrʀ" else 3.2, 1)
    return Consonant(place, 4, 1, lateral=letter in "lɭʎʟ", rounded=letter in "wɥ")


Sound = tuple[Consonant, Consonant] | tuple[Vowel, Vowel]
"""What a sound begins and ends with; the two differ in diphthongs only."""


def _affricate(stop: Consonant, fricative: Consonant) -> Consonant:
    return fricative._replace(stricture=1, voiced=stop.voiced)


def _inventory() -> tuple[dict[str, Consonant], dict[str, Vowel]]:
    """Return the consonants and the vowels without the diphthongs."""
    consonants = {letter: _consonant(letter) for letter in _PLACES}
    consonants |= {voiced: consonants[letter]._replace(voiced=1) for letter, voiced in _VOICED.items()}
    consonants |= {pair: _affricate(consonants[pair[0]], consonants[pair[1]]) for pair in _AFFRICATES}
    vowels = {letter: Vowel(*values) for letter, values in _VOWELS.items()}
    return consonants, vowels | {"ɚ": vowels["ə"]._replace(rhotic=1)}


_CONSONANTS, _MONOPHTHONGS = _inventory()
FEATURES: dict[str, Sound] = {
    **{letter: (sound, sound) for letter, sound in _CONSONANTS.items()},
    **{letter: (sound, sound) for letter, sound in _MONOPHTHONGS.items()},
    **{pair: (_MONOPHTHONGS[pair[0]], _MONOPHTHONGS[pair[1]]) for pair in ("aɪ", "aʊ", "ɔɪ", "eɪ", "oʊ")},
}
"""Symbol -> features, for every phone of the inventory and the further letters of the chart."""


def features(ipa: str) -> Sound:
    """Return the features of one sound; length, stress, tone and secondary articulation are left out.

    Two vowels make a diphthong, a stop and a fricative an affricate. Raises :class:`AffgenError` for anything else.
    """
    plain = "".join(part for letter in unicodedata.normalize("NFC", ipa) for part in _plain(letter))
    if plain in FEATURES:
        return FEATURES[plain]
    first, last = plain[:1], plain[1:]
    if first in _MONOPHTHONGS and last == "˞":
        sound = _MONOPHTHONGS[first]._replace(rhotic=1)
        return sound, sound
    if first in _MONOPHTHONGS and last in _MONOPHTHONGS:
        return _MONOPHTHONGS[first], _MONOPHTHONGS[last]
    if first in _CONSONANTS and last in _CONSONANTS and _CONSONANTS[first].stricture == 0:
        both = _affricate(_CONSONANTS[first], _CONSONANTS[last])
        return both, both
    raise AffgenError(f"sound {ipa!r} is not known; accepted are letters of IPA: {' '.join(FEATURES)}")


def _plain(letter: str) -> str:
    """Return ``letter`` as it stands in the tables, without diacritics; nothing for a mark of its own."""
    letter = _ALIASES.get(letter, letter)
    if letter in _MARKS:
        return ""
    if letter in FEATURES or len(letter) > 1:
        return letter
    return "".join(part for part in unicodedata.normalize("NFD", letter) if not unicodedata.combining(part))


def distance(first: Sound, second: Sound) -> float:
    """Return how far two sounds are apart: 0 for equal features, infinite from a vowel to a consonant."""
    total = 0.5 * ((first[0] == first[1]) != (second[0] == second[1]))  # only one of them glides
    for share, a, b in zip((0.6, 0.4), first, second, strict=True):  # what a diphthong begins with is heard longer
        if isinstance(a, Vowel) != isinstance(b, Vowel):
            return math.inf
        weights = _VOWEL_WEIGHTS if isinstance(a, Vowel) else _CONSONANT_WEIGHTS
        total += share * sum(weight * abs(x - y) for weight, x, y in zip(weights, a, b, strict=True))
    return total


@lru_cache(maxsize=1024)
def nearest(ipa: str) -> str:
    """Return the phone of the inventory whose features are nearest to ``ipa``; raises as :func:`features` does."""
    sound = features(ipa)
    return min((phone for phone in PHONES if phone != SILENCE), key=lambda phone: distance(sound, FEATURES[phone]))


def read_table(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return a language of a file: letters in lower case -> phones of the inventory, the nearest to those given.

    Raises :class:`AffgenError` that names the file, and the line where there is one, for a file that cannot be read, is
    larger than :data:`MAX_TABLE` or has no rows, and for rows without letters, with other than two columns, with
    unknown sounds, or with letters that stood before.
    """
    wanted = "accepted is a table of letters, a tab, and phones in IPA"
    try:
        if Path(path).stat().st_size > MAX_TABLE:
            raise AffgenError(f"{path}: larger than {MAX_TABLE} bytes; {wanted}")
        lines = unicodedata.normalize("NFC", Path(path).read_bytes().decode("utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise AffgenError(f"{path}: {reason}; {wanted}") from error
    table: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                letters, phones = _row(line)
                if letters in table:
                    raise AffgenError(f"letters {letters!r} stood before; keep one of the rows")
            except AffgenError as error:
                raise AffgenError(f"{path}: line {number}: {error}") from None
            table[letters] = phones
    if not table:
        raise AffgenError(f"{path}: holds no rows; {wanted}")
    return table


def _row(line: str) -> tuple[str, tuple[str, ...]]:
    letters, tab, phones = line.partition("\t")
    letters = letters.strip().lower()
    if not tab or "\t" in phones or not letters.strip("^$"):
        raise AffgenError(f"{line[:60]!r}; accepted are letters, a tab, and phones in IPA with blanks between them")
    return letters, tuple(nearest(phone) for phone in phones.split())
