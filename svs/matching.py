"""Syllables of a word matched to the pieces in which it is written under the notes.

1. The pieces are joined and looked up; a letter written on both sides of a break counts once if the word is not known
   with both (ni-ight, glo-o-ri-a). Of several pronunciations the one counts whose number of syllables comes nearest.
2. As many syllables as pieces: one each.
3. More syllables than pieces: each piece gets those that its letters sound most like (beauti-ful: bju.ti, fəl).
4. Fewer syllables than pieces: pieces are taken together where a vowel meets a vowel (do-or) or no vowel sounds in the
   last one (lo-ve), and the vowel is sung anew on each. Where that does not do, the pieces are read as they are spelled
   if each has one vowel, and refused otherwise (d-oor).
5. A word that is not known is read from its letters, whole if that gives a syllable for each piece, else in pieces.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise

from affgen.errors import AffgenError
from svs.languages import Language
from svs.syllables import Phones, Syllable, is_vowel

Matched = list[list[Syllable]]
"""Syllables of each piece."""

MAX_LETTERS = 100
"""Letters of the longest word."""
MAX_REPEATS = 8
"""Breaks with one letter on both sides for which both ways of spelling are tried."""


def match(pieces: Sequence[str], language: Language) -> tuple[Matched, bool]:
    """Return the syllables of every piece (letters in lower case, apostrophes), and whether they are guessed.

    Raises :class:`AffgenError` for a word that cannot be read, and one that has fewer syllables than pieces.
    """
    if sum(map(len, pieces)) > MAX_LETTERS:
        where = f"{''.join(pieces)[:20]!r}... has more than {MAX_LETTERS} letters"
        raise AffgenError(f"{where}; leave the dash away where a word ends")
    word, readings = next(
        ((form, readings) for form in _joined(pieces) if (readings := language.readings(form))), ("", ())
    )
    if not readings:
        return _guessed(pieces, language), True
    options = [language.syllables(reading) for reading in readings]
    best = min(options, key=lambda syllables: abs(len(syllables) - len(pieces)))
    known = _fitted(best, pieces, language)
    if known:
        return known, False
    spelled = [language.spelled(piece) for piece in pieces]
    if all(len(syllables) == 1 and is_vowel(syllables[0].nucleus[0]) for syllables in spelled):
        return spelled, True
    raise _too_few(word, best, pieces, language)


def _guessed(pieces: Sequence[str], language: Language) -> Matched:
    """Read a word that is in no dictionary by its letters."""
    word = "".join(pieces)
    whole = language.spelled(word)
    if not whole:
        raise AffgenError(f"{word!r} cannot be read as {language.name}; write its phonemes instead, as in [d ao r]")
    apart = [language.spelled(piece) for piece in pieces]
    if len(whole) != len(pieces) and all(any(is_vowel(s.nucleus[0]) for s in piece) for piece in apart):
        return apart
    fitted = _fitted(whole, pieces, language)
    if fitted:
        return fitted
    raise _too_few(word, whole, pieces, language)


def _fitted(syllables: list[Syllable], pieces: Sequence[str], language: Language) -> Matched | None:
    """Share ``syllables`` out among ``pieces``; None where there are too few that can be drawn out."""
    if len(syllables) >= len(pieces):
        letters = [language.letters(piece) for piece in pieces]
        bounds = _parted(
            len(syllables),
            len(pieces),
            lambda piece, start, stop: _unlike(letters[piece], _phones(syllables[start:stop])),
        )
        return [syllables[start:stop] for start, stop in pairwise(bounds or ())]
    soft = [False, *(_runs_on(a, b, language) for a, b in pairwise(pieces))]

    def cost(syllable: int, start: int, stop: int) -> float:
        joined = language.letters("".join(pieces[start:stop]))
        return _unlike(joined, syllables[syllable].phones) if all(soft[start + 1 : stop]) else math.inf

    bounds = _parted(len(pieces), len(syllables), cost)
    spans = pairwise(bounds or ())
    drawn = [syllable.sustained(stop - start) for syllable, (start, stop) in zip(syllables, spans, strict=False)]
    return [[syllable] for several in drawn for syllable in several] or None


def _runs_on(first: str, second: str, language: Language) -> bool:
    """Say whether no new vowel begins between the pieces ``first`` and ``second``."""
    if language.mute and language.mute.fullmatch(second):
        return True
    if first[-1] in "aeiouy" and second[0] in "aeiouy":
        return True
    before, after = language.letters(first), language.letters(second)
    return bool(before and after) and is_vowel(before[-1]) and is_vowel(after[0])


def _joined(pieces: Sequence[str]) -> Iterator[str]:
    """Yield the word, first as written, then with more and more of the letters left out that breaks repeat."""
    repeated = [k for k in range(1, len(pieces)) if pieces[k][:1] == pieces[k - 1][-1:]][:MAX_REPEATS]
    for count in range(len(repeated) + 1):
        for once in combinations(repeated, count):
            yield "".join(piece[1:] if k in once else piece for k, piece in enumerate(pieces))


def _parted(size: int, parts: int, cost: Callable[[int, int, int], float]) -> list[int] | None:
    """Cut ``size`` items into ``parts`` rows of at least one so that the sum of cost(part, start, stop) is least.

    Returns the ``parts`` + 1 bounds, or None where every way costs infinitely much.
    """
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    for part in range(parts):
        ways = [
            (total + cost(part, start, stop), [*bounds, stop])
            for start, (total, bounds) in best.items()
            for stop in range(start + 1, size - (parts - part - 1) + 1)
        ]
        best = {}
        for total, bounds in ways:
            if total < best.get(bounds[-1], (math.inf, []))[0]:
                best[bounds[-1]] = (total, bounds)
    return best[size][1] if size in best else None


def _unlike(first: Phones, second: Phones) -> int:
    """Return the fewest substitutions, insertions and deletions that turn one row of phones into the other."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def _phones(syllables: Sequence[Syllable]) -> Phones:
    return tuple(phone for syllable in syllables for phone in syllable.phones)


def _too_few(word: str, syllables: list[Syllable], pieces: Sequence[str], language: Language) -> AffgenError:
    """Return the error for a ``word`` that is written in more ``pieces`` than it has ``syllables``."""
    have = f"{len(syllables)} syllable{'s' * (len(syllables) != 1)} for {len(pieces)} notes"
    split = _split(word, syllables, pieces, language)
    return AffgenError(f"{word!r} has {have}; mark a melisma or split it as {split}")


def _split(word: str, syllables: list[Syllable], pieces: Sequence[str], language: Language) -> str:
    """Return ``word`` split for as many notes as there are ``pieces``, its first vowel drawn out: do-or, ni-ight."""

    def cost(syllable: int, start: int, stop: int) -> float:
        return _unlike(language.letters(word[start:stop]), syllables[syllable].phones)

    bounds = _parted(len(word), len(syllables), cost) or [0, len(word)]
    first, *rest = (word[start:stop] for start, stop in pairwise(bounds))
    before, vowel, after = re.fullmatch(r"([^aeiouy]*)(.?)(.*)", first).groups()  # type: ignore[union-attr]
    last = after if after[:1] and after[0] in "aeiouy" else vowel + after
    return "-".join([before + vowel, *[vowel] * (len(pieces) - len(syllables) - 1), last, *rest])
