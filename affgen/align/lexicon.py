"""From words to phones: the CMU dictionary for English, rules of spelling for Polish and German."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from affgen.align.german import german
from affgen.align.phones import from_arpabet
from affgen.align.polish import polish
from affgen.errors import AffgenError

LANGUAGES = ("en", "de", "pl")


@dataclass(frozen=True)
class Word:
    """A word as written, without its punctuation, and its phones."""

    text: str
    phones: tuple[str, ...]


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, without punctuation; an apostrophe inside a word stays."""
    plain = unicodedata.normalize("NFC", text).lower().replace("\u2019", "'")
    return [word for word in (w.strip("'") if len(w) > 1 else w for w in re.findall(r"[\w']+", plain)) if word]


def pronounce(text: str, language: str) -> list[Word]:
    """Return the words of ``text`` with their phones; of several pronunciations the first one of the dictionary.

    Raises :class:`AffgenError` for a language other than :data:`LANGUAGES`, for text without words, and naming every
    word whose pronunciation is not known (numbers have to be written as words).
    """
    if language not in LANGUAGES:
        raise AffgenError(f"language {language!r}; accepted: {', '.join(LANGUAGES)}, or give the phones")
    found = [Word(word, _LOOKUP[language](word) or ()) for word in words(text)]
    if not found:
        raise AffgenError(f"text {text[:60]!r} holds no words; give the text that is spoken")
    unknown = sorted({word.text for word in found if not word.phones})
    if unknown:
        source = "not in the CMU dictionary" if language == "en" else "cannot be read by the rules of spelling"
        raise AffgenError(
            f"{', '.join(map(repr, unknown[:8]))}: {source}; spell out numbers and abbreviations, or give the phones"
        )
    return found


def english(word: str) -> tuple[str, ...] | None:
    """Return the phones of an English ``word`` in lower case, or None; raises as :func:`cmu_dictionary` does."""
    symbols = cmu_dictionary().get(word)
    return tuple(from_arpabet(symbol) for symbol in symbols.split()) if symbols else None


@lru_cache(maxsize=1)
def cmu_dictionary() -> dict[str, str]:
    """Return the CMU dictionary that pocketsphinx brings along: {word: symbols}, the first pronunciation of each.

    Raises :class:`AffgenError` where pocketsphinx is not installed.
    """
    path = sphinx_models() / "cmudict-en-us.dict"
    entries: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, symbols = line.partition(" ")
        entries.setdefault(re.sub(r"\([0-9]+\)$", "", word), symbols)
    return entries


def sphinx_models() -> Path:
    """Return the folder of the models inside the pocketsphinx package, found without importing it.

    Raises :class:`AffgenError` where pocketsphinx is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("pocketsphinx")
    if spec is None or not spec.origin:
        raise AffgenError("English words need the CMU dictionary of pocketsphinx; run: pip install 'affgen[align]'")
    return Path(spec.origin).parent / "model" / "en-us"


_LOOKUP = {"en": english, "de": german, "pl": polish}
