"""Syllables: a row of phones cut into onsets, nuclei and codas.

Between two vowels as many consonants as can begin a word go to the second one (the maximal onset principle: Kahn,
"Syllable-based Generalizations in English Phonology", 1976). What can begin an English word is listed in Roach,
"English Phonetics and Phonology", 4th edition 2009, chapter 8; for other languages sonority has to rise towards the
vowel, after a sibilant or not (Clements, "The role of the sonority cycle in core syllabification", 1990).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from affgen.align.phones import FRICATIVES, SONORANTS, STOPS, VOWELS

Phones = tuple[str, ...]


@dataclass(frozen=True)
class Syllable:
    """Consonants before the vowel, the vowel (with an offglide, or a consonant sung in its place), those after it."""

    onset: Phones
    nucleus: Phones
    coda: Phones

    @property
    def phones(self) -> Phones:
        """All of it in order."""
        return self.onset + self.nucleus + self.coda

    def sustained(self, times: int) -> list[Syllable]:
        """Return the syllable sung ``times`` over: the vowel each time, what is before and after it only once."""
        if times == 1:
            return [self]
        held = Syllable((), self.nucleus[:1], ())
        first = replace(held, onset=self.onset)
        return [first, *[held] * (times - 2), replace(self, onset=())]


_ENGLISH = """
pl pɹ pj tɹ tw tj kl kɹ kw kj bl bɹ bj dɹ dw dj gl gɹ gw fl fɹ fj θɹ θw ʃɹ vj mj nj lj hj hw
sp st sk sf sm sn sl sw sj spl spɹ spj stɹ stj skl skɹ skw skj
"""
ENGLISH_ONSETS = frozenset(
    [(), *((p,) for p in (*STOPS, *FRICATIVES, *SONORANTS) if p != "ŋ"), *(tuple(c) for c in _ENGLISH.split())]
)
"""Rows of consonants that begin English words."""

_SONORITY = {
    **dict.fromkeys(STOPS, 0),
    **dict.fromkeys(FRICATIVES, 1),
    **dict.fromkeys(("m", "n", "ɲ", "ŋ"), 2),
    **dict.fromkeys(("l", "r", "ɹ", "ʁ"), 3),
    **dict.fromkeys(("j", "w"), 4),
}
_SIBILANTS = ("s", "z", "ʃ", "ʒ", "ʂ", "ʐ", "ɕ", "ʑ")


def is_vowel(phone: str) -> bool:
    """Say whether ``phone`` is a vowel of the inventory."""
    return phone in VOWELS


def english_onset(phones: Phones) -> bool:
    """Say whether an English word can begin with the consonants ``phones``."""
    return phones in ENGLISH_ONSETS


def rising_onset(phones: Phones) -> bool:
    """Say whether sonority rises all through the consonants ``phones``, a first sibilant aside."""
    tail = phones[1:] if phones and phones[0] in _SIBILANTS else phones
    return "ŋ" not in phones and all(_SONORITY[a] < _SONORITY[b] for a, b in pairwise(tail))


def syllabify(phones: Phones, legal: Callable[[Phones], bool] = english_onset, offglide: str = "") -> list[Syllable]:
    """Return the syllables of one word; ``legal`` says which consonants may begin one inside the word.

    A vowel ``offglide`` right after a vowel that is no diphthong belongs to it (German "ihr": i ɐ). Without any vowel
    the most sonorous consonant, the last of equals, is the nucleus ("mm"). No phones give no syllables.
    """
    nuclei = _nuclei(phones, offglide)
    if not nuclei:
        return []
    found: list[Syllable] = []
    start = 0
    for number, (first, stop) in enumerate(nuclei):
        following = nuclei[number + 1][0] if number + 1 < len(nuclei) else len(phones)
        cut = len(phones)
        if number + 1 < len(nuclei):
            cut = next(k for k in range(stop, following + 1) if k == following or legal(phones[k:following]))
        found.append(Syllable(phones[start:first], phones[first:stop], phones[stop:cut]))
        start = cut
    return found


def _nuclei(phones: Phones, offglide: str) -> list[tuple[int, int]]:
    """Return (start, stop) of every nucleus."""
    spans: list[tuple[int, int]] = []
    for at, phone in enumerate(phones):
        if not is_vowel(phone):
            continue
        if phone == offglide and spans and spans[-1] == (at - 1, at) and len(phones[at - 1]) == 1:
            spans[-1] = (at - 1, at + 1)
        else:
            spans.append((at, at + 1))
    if not spans and phones:
        at = max(range(len(phones)), key=lambda at: (min(_SONORITY.get(phones[at], 0), 2), at))
        spans = [(at, at + 1)]
    return spans
