"""Polish letters to phones: the spelling is regular enough for rules, with voicing carried over inside a word.

After Gussmann, "The Phonology of Polish" (2007), chapters 1 and 7, simplified: nasal vowels before stops and affricates
become a vowel and a nasal of the same place, before fricatives a vowel and w; obstruents take the voice of the next
one and lose it at the end of a word; voice does not cross words.
"""

from __future__ import annotations

import re

VOICED = {
    **{"b": "p", "d": "t", "g": "k", "v": "f", "z": "s", "ʐ": "ʂ", "ʑ": "ɕ", "dz": "ts", "dʐ": "tʂ", "dʑ": "tɕ"},
}
VOICELESS = {low: high for high, low in VOICED.items()}

_PLAIN = "aeioóuybdfghjklłmnprstwvz"
_LETTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("dzi(?=[aeioóuyąę])", ("dʑ",)),
    ("dz(?=i)", ("dʑ",)),
    ("dź", ("dʑ",)),
    ("dż", ("dʐ",)),
    ("dz", ("dz",)),
    ("d(?=rz)", ("d",)),
    ("ch", ("x",)),
    ("cz", ("tʂ",)),
    ("sz", ("ʂ",)),
    ("rz", ("rz",)),  # devoiced by what stands before it, below
    ("ci(?=[aeoóuyąę])", ("tɕ",)),
    ("c(?=i)", ("tɕ",)),
    ("ć", ("tɕ",)),
    ("c", ("ts",)),
    ("si(?=[aeoóuyąę])", ("ɕ",)),
    ("s(?=i)", ("ɕ",)),
    ("ś", ("ɕ",)),
    ("zi(?=[aeoóuyąę])", ("ʑ",)),
    ("z(?=i)", ("ʑ",)),
    ("ź", ("ʑ",)),
    ("ż", ("ʐ",)),
    ("ni(?=[aeoóuyąę])", ("ɲ",)),
    ("n(?=i)", ("ɲ",)),
    ("ń", ("ɲ",)),
    ("n(?=[kg])", ("ŋ",)),
    ("(?<=[pbfwmkgtdrlh])i(?=[aeoóuyąę])", ("j",)),
    ("ę$", ("ɛ",)),
    ("ę(?=[łl])", ("ɛ",)),
    ("ą(?=[łl])", ("ɔ",)),
    ("ę(?=[pb])", ("ɛ", "m")),
    ("ą(?=[pb])", ("ɔ", "m")),
    ("ę(?=[kg])", ("ɛ", "ŋ")),
    ("ą(?=[kg])", ("ɔ", "ŋ")),
    ("ę(?=ć|ci|dź|dzi)", ("ɛ", "ɲ")),
    ("ą(?=ć|ci|dź|dzi)", ("ɔ", "ɲ")),
    ("ę(?=[tdc])", ("ɛ", "n")),
    ("ą(?=[tdc])", ("ɔ", "n")),
    ("ę", ("ɛ", "w")),
    ("ą", ("ɔ", "w")),
    ("eu", ("ɛ", "w")),
    ("au", ("a", "w")),
    ("x", ("k", "s")),
    ("qu?", ("k",)),
    *((letter, (phone,)) for letter, phone in zip(_PLAIN, "aɛiɔuuɨbdfgxjklwmnprstvvz", strict=True)),
)
_RULES = tuple((re.compile(pattern), phones) for pattern, phones in _LETTERS)


def polish(word: str) -> tuple[str, ...] | None:
    """Return the phones of a Polish ``word`` in lower case; None if it holds a letter that no rule reads."""
    found: list[str] = []
    at = 0
    while at < len(word):
        for pattern, phones in _RULES:
            match = pattern.match(word, at)
            if match:
                found += phones
                at = match.end()
                break
        else:
            return None
    return tuple(_voice(found))


def _voice(phones: list[str]) -> list[str]:
    """Carry voicing backwards from obstruent to obstruent, and devoice the end; v and rz follow what is before them."""
    out = list(phones)
    for i, phone in enumerate(phones):
        before = out[i - 1] if i else ""
        if phone in ("v", "rz"):
            voiceless = before in VOICELESS or before == "x"
            out[i] = ("f" if voiceless else "v") if phone == "v" else ("ʂ" if voiceless else "ʐ")
    following = ""
    for i in range(len(out) - 1, -1, -1):
        phone = out[i]
        devoiced = i == len(out) - 1 or (following in VOICELESS or following == "x")
        if phone in VOICED and devoiced:
            out[i] = VOICED[phone]
        elif phone in VOICELESS and following in VOICED and following != "v" and phones[i + 1] != "rz":
            out[i] = VOICELESS[phone]
        following = out[i]
    return out
