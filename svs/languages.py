"""How the words of a language are read: English by the CMU dictionary, others by rules or a table from a file."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from affgen.align import lexicon
from affgen.align.phones import from_arpabet
from affgen.errors import AffgenError
from svs.ipa import read_table
from svs.spelling import spell_out
from svs.syllables import Phones, Syllable, english_onset, rising_onset, syllabify


@dataclass(frozen=True)
class Language:
    """A language: ``readings`` of a whole word, none for an unknown one, and ``letters``, the phones of any part.

    ``legal`` and ``offglide`` are those of :func:`svs.syllables.syllabify`; ``mute`` fits letters at the end of a word
    in which no vowel sounds.
    """

    name: str
    readings: Callable[[str], tuple[Phones, ...]]
    letters: Callable[[str], Phones]
    legal: Callable[[Phones], bool] = rising_onset
    offglide: str = ""
    mute: re.Pattern[str] | None = None

    def syllables(self, phones: Phones) -> list[Syllable]:
        """Return the syllables of ``phones``."""
        return syllabify(phones, self.legal, self.offglide)

    def spelled(self, text: str) -> list[Syllable]:
        """Return the syllables of the letters ``text``."""
        return self.syllables(self.letters(text))


def language(name: str) -> Language:
    """Return the language ``name``: "en", "de", "pl", or the path of a table that ends in ".tsv".

    Raises :class:`AffgenError` for other names, and as :func:`svs.ipa.read_table` does.
    """
    if name.lower().endswith(".tsv"):
        return _by_rules(name, partial(_by_table, table=read_table(name)))
    if name == "en":
        return Language("English", _english, _english_letters, english_onset, mute=re.compile("[^aeiouy]+es?"))
    if name == "de":
        return _by_rules("German", lexicon.german, "ɐ")
    if name == "pl":
        return _by_rules("Polish", lexicon.polish)
    raise AffgenError(f"language {name!r}; accepted: en, de, pl, ja (in kana), or the path of a table such as it.tsv")


def _by_rules(name: str, rules: Callable[[str], Phones | None], offglide: str = "") -> Language:
    """Return a language whose spelling is read by ``rules``, which find None for letters they do not know."""

    def letters(text: str) -> Phones:
        return rules(text.replace("'", "")) or ()

    def readings(word: str) -> tuple[Phones, ...]:
        phones = letters(word)
        return (phones,) if phones else ()

    return Language(name, readings, letters, offglide=offglide)


def _by_table(word: str, table: Mapping[str, Phones]) -> Phones | None:
    """Return the phones of ``word`` by the longest rows that fit; None if no row reads one of its letters."""
    text, found, at = f"^{word}$", list[str](), 0
    longest = max(map(len, table))
    while at < len(text):
        size = next((n for n in range(longest, 0, -1) if text[at : at + n] in table), 0)
        if size:
            found += table[text[at : at + size]]
        elif text[at] not in "^$":
            return None
        at += size or 1
    return tuple(found)


@lru_cache(maxsize=1)
def _dictionary() -> dict[str, list[str]]:
    """Return the CMU dictionary with every pronunciation; raises as :func:`lexicon.sphinx_models` does."""
    entries: dict[str, list[str]] = {}
    path = lexicon.sphinx_models() / "cmudict-en-us.dict"
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, symbols = line.partition(" ")
        entries.setdefault(re.sub(r"\([0-9]+\)$", "", word), []).append(symbols)
    return entries


def _english(word: str) -> tuple[Phones, ...]:
    """Return the pronunciations of ``word``, or of the first other spelling of it that the dictionary has."""
    entries = next((_dictionary()[form] for form in _spellings(_folded(word)) if form in _dictionary()), [])
    found = [tuple(from_arpabet(symbol) for symbol in entry.split()) for entry in entries]
    if found and re.fullmatch("..+[^e]ed", word) and found[0][-2] not in ("ə", "ɪ"):
        found.append((*found[0][:-1], "ɛ", "d"))  # lov-ed, as verse has it
    return tuple(found)


def _spellings(word: str) -> Iterator[str]:
    """Yield ``word`` and what songs make of words undone: lovin', ev'ry, 'tis in quotes, nooo."""
    for form in (word, re.sub("in'$", "ing", word), word.strip("'"), word.replace("'", "e"), word.replace("'", "")):
        yield form
        yield re.sub(r"(.)\1{2,}", r"\1\1", form)
        yield re.sub(r"(.)\1{2,}", r"\1", form)


def _folded(word: str) -> str:
    """Return ``word`` without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


def _english_letters(text: str) -> Phones:
    plain = _folded(text).replace("'", "")
    return spell_out(plain) if re.fullmatch("[a-z]+", plain) else ()
