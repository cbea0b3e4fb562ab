"""From the lyrics of a score to phones on its notes.

The lyric of a note is the syllable that starts there, with a trailing ``-`` when its word goes on; notes without one,
or with a dash or a line alone, are the further notes of a melisma, also after a rest, where the vowel begins anew.

- Words are read as :mod:`svs.matching` says. Case and punctuation do not matter; numbers are refused.
- A piece of text with more syllables than notes is sung all the same: "open" on one note has both its syllables there,
  on two notes one each. Each syllable takes a note as far as there are notes, the last syllable the notes that are
  left, or a share of the last note.
- Phonemes in brackets, ``[d ao r]``, are sung in the place of a syllable, and so are the ``phonemes`` of a note. They
  are ARPAbet (in any case) if all of them are and one is a vowel, else symbols of the inventory first, then ARPAbet.
- Lyrics that are kana throughout are Japanese, whatever the language (:mod:`svs.kana`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from affgen.align.phones import ARPABET, PHONES, SILENCE, from_arpabet
from affgen.errors import AffgenError
from affgen.score import Score
from svs import kana
from svs.languages import language
from svs.matching import match
from svs.syllables import Phones, Syllable, is_vowel, syllabify


@dataclass(frozen=True)
class Sung:
    """A syllable: its ``notes`` (the first one and the rest of its melisma), the text that it starts, and its phones.

    Syllables that share a note all name it. ``text`` is empty for the further syllables of what is written on one note;
    ``guessed`` says that the letters were read by rules because the dictionary lacks the word.
    """

    notes: tuple[int, ...]
    text: str
    onset: Phones
    nucleus: Phones
    coda: Phones
    word_end: bool
    guessed: bool


@dataclass
class _Piece:
    """What is written under one note: ``text`` without the dash or ``phones``, and the notes it is sung on."""

    notes: list[int]
    text: str
    goes_on: bool
    phones: Phones
    syllables: list[_Part] = field(default_factory=list)


class _Part(NamedTuple):
    syllable: Syllable
    text: str
    word_end: bool
    guessed: bool


class _Token(NamedTuple):
    """A word, or the part of it that stands in one piece."""

    piece: _Piece
    text: str


def sung(score: Score, language: str = "en", *, name: str = "score") -> list[Sung]:
    """Return the syllables of ``score`` in the order of its notes; ``name`` stands for the score in errors.

    ``language`` is "en", "de", "pl", "ja" or the path of a table (:func:`svs.ipa.read_table`). Raises
    :class:`AffgenError` that names bar and note: for two notes at once, a first note without a lyric, numbers, unknown
    phonemes, letters of another language, and a word in more pieces than can be sung; and for an unknown language.
    """
    pieces = list(_pieces(score, name))
    texts = [piece.text for piece in pieces if piece.text]
    if language == "ja" or (texts and all(kana.is_kana(text) for text in texts)):
        _read_kana(score, pieces, name)
    else:
        _read_words(score, pieces, name, language)
    return [one for piece in pieces for one in _spread(piece)]


def guesses(sungs: Sequence[Sung]) -> list[str]:
    """Return the words, each once, that were read by letter-to-sound rules and may be wrong."""
    words, parts, guessed = dict[str, None](), list[str](), False
    for one in sungs:
        parts.append(one.text)
        guessed |= one.guessed
        if one.word_end or one is sungs[-1]:
            if guessed:
                words["".join(parts)] = None
            parts, guessed = [], False
    return list(words)


def phonemes(symbols: Sequence[str]) -> Phones:
    """Return the phones of ``symbols``; raise :class:`AffgenError` that lists what is accepted for an unknown one."""
    known = [re.sub("[0-2]$", "", symbol.upper()) in ARPABET for symbol in symbols]
    arpabet = all(known) and any(is_vowel(from_arpabet(symbol)) for symbol in symbols)
    found = []
    for symbol, is_arpabet in zip(symbols, known, strict=True):
        phone = from_arpabet(symbol) if is_arpabet and (arpabet or symbol not in PHONES) else symbol
        if phone not in PHONES or phone == SILENCE:
            sounds = " ".join(key for key, value in ARPABET.items() if value != SILENCE)
            raise AffgenError(f"phoneme {symbol!r} is not known; accepted: {sounds}, or {' '.join(PHONES[1:])}")
        found.append(phone)
    return tuple(found)


def _place(score: Score, index: int, name: str) -> str:
    """Say where ``score.notes[index]`` is: "song.mid: bar 7, note 3", both counted from 1, the note inside its bar."""
    onsets = np.array([note.onset for note in score.notes]) + 1e-6
    bars = np.searchsorted(score.bar_lines(), onsets, side="right")
    return f"{name}: bar {bars[index]}, note {index - int(np.searchsorted(bars, bars[index])) + 1}"


def _pieces(score: Score, name: str) -> Iterator[_Piece]:
    """Yield what is written under the notes, each with the notes without a lyric that follow."""
    piece: _Piece | None = None
    for index, note in enumerate(score.notes):
        if index and note.onset == score.notes[index - 1].onset:
            raise AffgenError(
                f"{_place(score, index, name)} starts with the one before it; one voice sings one note at a time"
            )
        try:
            text, phones = _written(note.lyric, note.phonemes)
        except AffgenError as error:
            raise AffgenError(f"{_place(score, index, name)} {error}") from None
        if text or phones:
            if piece:
                yield piece
            piece = _Piece([index], text, note.lyric.rstrip().endswith(("-", "\u2010")), phones)
        elif piece:
            piece.notes.append(index)
        else:
            raise AffgenError(f"{_place(score, index, name)} has no lyric; give it one, or phonemes such as [l aa]")
    if piece:
        yield piece


def _written(lyric: str, given: Sequence[str]) -> tuple[str, Phones]:
    """Return the text of a lyric without brackets, and the phones of the note or of the brackets."""
    text = unicodedata.normalize("NFC", lyric).replace("\u2019", "'").strip()
    if given:
        return text, phonemes(given)
    bracket = re.fullmatch(r"\[([^\[\]]*)\]\s*[-\u2010]?", text)
    if bracket:
        if not bracket[1].split():
            raise AffgenError(f"{lyric!r} holds no phonemes; accepted are some with blanks between them: [d ao r]")
        return "", phonemes(bracket[1].split())
    if "[" in text or "]" in text:
        raise AffgenError(f"{lyric!r}; accepted are letters, or phonemes in one pair of brackets: [d ao r]")
    if any(letter.isnumeric() and not letter.isalpha() for letter in text):
        raise AffgenError(f"{lyric!r} holds a number; write it in words, as it is sung")
    return text if any(letter.isalpha() for letter in text) else "", ()


def _read_kana(score: Score, pieces: Sequence[_Piece], name: str) -> None:
    """Give ``pieces`` their syllables, from kana."""
    for piece in pieces:
        if piece.text and not piece.phones and not kana.is_kana(piece.text):
            where = _place(score, piece.notes[0], name)
            raise AffgenError(f"{where} {piece.text!r} is not kana; write what is sung in hiragana or katakana")
    try:
        found = kana.read(["" if piece.phones else piece.text for piece in pieces])
    except AffgenError as error:
        first = next(piece for piece in pieces if not piece.phones)
        raise AffgenError(f"{_place(score, first.notes[0], name)} {error}") from None
    for piece, syllables in zip(pieces, found, strict=True):
        _fill(piece, syllables or syllabify(piece.phones), piece.text, not piece.goes_on, False)


def _read_words(score: Score, pieces: Sequence[_Piece], name: str, code: str) -> None:
    """Give ``pieces`` their syllables, from words."""
    spoken = language(code)
    for tokens, ends in _words(pieces):
        if all(token.piece.phones for token in tokens):
            continue
        try:
            found, guessed = match([token.text.lower() for token in tokens], spoken)
        except AffgenError as error:
            raise AffgenError(f"{_place(score, tokens[0].piece.notes[0], name)} {error}") from None
        for token, syllables in zip(tokens, found, strict=True):
            _fill(token.piece, syllables, token.text, ends and token is tokens[-1], guessed)
    for piece in pieces:
        if piece.phones:
            piece.syllables = []
            _fill(piece, spoken.syllables(piece.phones), piece.text, not piece.goes_on, False)


def _words(pieces: Sequence[_Piece]) -> Iterator[tuple[list[_Token], bool]]:
    """Yield the words, in tokens, and whether they end there; phonemes without text break a word in two."""
    word: list[_Token] = []
    for piece in pieces:
        tokens = [_Token(piece, text) for text in re.findall(r"'?[^\W\d_]+(?:'[^\W\d_]*)*", piece.text)]
        if not tokens and word:
            yield word, False
            word = []
        for token in tokens:
            word.append(token)
            if token is not tokens[-1] or not piece.goes_on:
                yield word, True
                word = []
    if word:
        yield word, True


def _fill(piece: _Piece, syllables: list[Syllable], text: str, ends: bool, guessed: bool) -> None:
    """Add ``syllables`` to ``piece``; the first one bears the ``text``, the last one may end the word."""
    for number, syllable in enumerate(syllables):
        last = number == len(syllables) - 1
        piece.syllables.append(_Part(syllable, "" if number else text, ends and last, guessed))


def _spread(piece: _Piece) -> Iterator[Sung]:
    """Yield the syllables of ``piece`` on its notes: one each as far as they go, what is left over at the end."""
    for number, part in enumerate(piece.syllables):
        start = min(number, len(piece.notes) - 1)
        stop = len(piece.notes) if number == len(piece.syllables) - 1 else start + 1
        syllable = part.syllable
        notes = tuple(piece.notes[start:stop])
        yield Sung(notes, part.text, syllable.onset, syllable.nucleus, syllable.coda, part.word_end, part.guessed)
