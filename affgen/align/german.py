"""German letters to phones: rules for the native spelling, and a list of common words that break them.

Vowels are long (tense) before one consonant letter and a vowel, before h and doubled, and short (lax) before two
consonant letters (Eisenberg, "Das Wort", 2013, chapter 8). Compounds are not taken apart and stress is not found, so
expect errors in long words: give ``phones`` instead where it matters.
"""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet
from __future__ import annotations

import re

_WORDS = """
ab:a p|als:a l s|am:a m|an:a n|ans:a n s|auf:aʊ f|aus:aʊ s|bin:b ɪ n|bis:b ɪ s|da:d a|das:d a s|dem:d e m|den:d e n
der:d e ɐ|des:d ɛ s|die:d i|du:d u|ein:aɪ n|er:e ɐ|es:ɛ s|für:f y ɐ|hat:h a t|her:h e ɐ|hin:h ɪ n|ich:ɪ ç|ihm:i m
ihn:i n|ihr:i ɐ|im:ɪ m|in:ɪ n|ins:ɪ n s|ja:j a|man:m a n|mit:m ɪ t|nach:n a x|nun:n u n|ob:ɔ p|oder:o d ɐ|sie:z i
so:z o|um:ʊ m|und:ʊ n t|uns:ʊ n s|vom:f ɔ m|von:f ɔ n|vor:f o ɐ|war:v a ɐ|was:v a s|weg:v ɛ k|wen:v e n|wer:v e ɐ
wir:v i ɐ|wird:v ɪ ɐ t|wo:v o|zu:t s u|zum:t s ʊ m|zur:t s u ɐ|abend:a b ə n t|abgeben:a p g e b ə n|agnes:a g n ɛ s
befindet:b ə f ɪ n d ə t|besucht:b ə z u x t|gefahren:g ə f a ʁ ə n|gerade:g ə ʁ a d ə|getragen:g ə t ʁ a g ə n
habe:h a b ə|haben:h a b ə n|hause:h aʊ z ə|hinlegen:h ɪ n l e g ə n|hochgetragen:h o x g ə t ʁ a g ə n|hoch:h o x
holzstück:h ɔ l t s ʃ t ʏ k|immer:ɪ m ɐ|jetzt:j ɛ t s t|karl:k a ʁ l|mittwoch:m ɪ t v ɔ x|neben:n e b ə n
papier:p a p i ɐ|sein:z aɪ n|soweit:z o v aɪ t|unter:ʊ n t ɐ|wegbringen:v ɛ k b ʁ ɪ ŋ ə n|wieder:v i d ɐ
wochenenden:v ɔ x ə n ɛ n d ə n|eisschrank:aɪ s ʃ ʁ a ŋ k|stehen:ʃ t e ə n|gehen:g e ə n|runter:ʁ ʊ n t ɐ
"""
WORDS = {word: tuple(phones.split()) for word, _, phones in (e.partition(":") for e in re.split(r"[|\n]", _WORDS) if e)}

_V = "aeiouäöüy"
_LONG = f"(?=h|[bcdfgjklmnpqrstvwxzß](?:[{_V}]|$))"
_TENSE = {"a": "a", "e": "e", "i": "i", "o": "o", "u": "u", "ä": "ɛ", "ö": "ø", "ü": "y", "y": "y"}
_LAX = {"a": "a", "e": "ɛ", "i": "ɪ", "o": "ɔ", "u": "ʊ", "ä": "ɛ", "ö": "œ", "ü": "ʏ", "y": "ʏ"}
_FINAL = "(?=$|[ptkfsßz])"  # where b, d and g lose their voice

_LETTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tsch", ("tʃ",)),
    ("s(?=sch)", ("s",)),
    ("sch", ("ʃ",)),
    ("^s(?=[pt])", ("ʃ",)),
    ("chs", ("k", "s")),
    ("^ch(?=[aorlu])", ("k",)),
    ("(?<=[aou])ch", ("x",)),
    ("ch", ("ç",)),
    ("ck|kk", ("k",)),
    ("ph|ff", ("f",)),
    ("pf", ("p", "f")),
    ("qu", ("k", "v")),
    ("tz|zz|ts|z|c(?=[eiäöüy])", ("t", "s")),
    ("ng", ("ŋ",)),
    ("n(?=k)", ("ŋ",)),
    ("tt|th|dt|t", ("t",)),
    ("ei|ai|ay|ey", ("aɪ",)),
    ("eu|äu", ("ɔɪ",)),
    ("au", ("aʊ",)),
    (f"(?:ieh?|ih)r(?![{_V}])", ("i", "ɐ")),
    ("ieh?|ih", ("i",)),
    ("er$|er(?=[ns]t?$)", ("ɐ",)),
    *((f"{v}[{v}h](?![{_V}])", (_TENSE[v],)) for v in "aeouäöü"),
    (f"(?<=[{_V}])h", ()),
    ("(?<=^[bg])e(?=[bdfgkpstvwz])", ("ə",)),
    ("(?<=.)e(?=$|[nlmst]$|st$|nd$|te[nt]?$|ne?[nrs]$)", ("ə",)),
    *((v + _LONG, (_TENSE[v],)) for v in _TENSE),
    *((f"{v}(?=[{_V}]|$)", (_TENSE[v],)) for v in _TENSE),
    *((v, (_LAX[v],)) for v in _LAX),
    (f"(?<=[{_V}])r(?![{_V}r])", ("ɐ",)),
    ("rr|r", ("ʁ",)),
    ("ss|ß", ("s",)),
    (f"s(?=[{_V}])", ("z",)),
    ("s", ("s",)),
    ("b" + _FINAL, ("p",)),
    ("d" + _FINAL, ("t",)),
    ("g" + _FINAL, ("k",)),
    ("v", ("f",)),
    ("w", ("v",)),
    ("c", ("k",)),
    ("x", ("k", "s")),
    *((f"{c}{c}?", (c,)) for c in "bdfghjklmnp"),
)
_RULES = tuple((re.compile(pattern), tuple(phones)) for pattern, phones in _LETTERS)


def german(word: str) -> tuple[str, ...] | None:
    """Return the phones of a German ``word`` in lower case; None if it holds a letter that no rule reads."""
    if word in WORDS:
        return WORDS[word]
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
    return tuple(found)
