"""Japanese from hiragana and katakana: moras, and the syllables they make on the notes they are written on.

Sounds that the inventory lacks go to the nearest phone by :func:`svs.ipa.nearest`: [ɯ] u, [ɾ] r, [ɸ] f, [ɴ] ŋ. Kana are
sung as written: the particles は and へ have to be written わ and え. On one note a vowel that is written twice or
followed by ー, and おう, is one long vowel, and ん ends the syllable before it; on a note of their own ー goes on with
the vowel before, う is u, and ん is a syllable. ん takes the place of the stop or nasal after it; っ is the closure (ʔ)
before a stop or an affricate and the first half of a fricative (Vance, "The Sounds of Japanese", 2008). Vowels are not
devoiced: on a note they sound.
"""

# ruff: noqa: RUF001 - kana and the letters of IPA look like those of the alphabet
from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from affgen.align.phones import CLASS_OF, CLASSES
from affgen.errors import AffgenError
from svs.ipa import nearest
from svs.syllables import Phones, Syllable

_ROWS = {
    **{"あいうえお": "", "かきくけこ": "k", "さ すせそ": "s", "た  てと": "t", "な ぬねの": "n", "は  へほ": "h"},
    **{"まみむめも": "m", "や ゆ よ": "j", "らりるれろ": "ɾ", "わゐ ゑ": "w", "がぎぐげご": "g", "ざ ずぜぞ": "z"},
    **{"だ  でど": "d", "ばびぶべぼ": "b", "ぱぴぷぺぽ": "p", "  ゔ": "v", "    を": "", " し": "ɕ", " ち": "tɕ"},
    **{"  つ": "ts", " に": "ɲ", " ひ": "ç", "  ふ": "ɸ", " じ": "dʑ", " ぢ": "dʑ", "  づ": "z", "ゕ  ゖ": "k"},
}
_KANA = {kana: (onset, vowel) for row, onset in _ROWS.items() for kana, vowel in zip(row, "aiɯeo", strict=False)}
_SMALL = {"ゃ": "a", "ゅ": "ɯ", "ょ": "o", "ぁ": "a", "ぃ": "i", "ぅ": "ɯ", "ぇ": "e", "ぉ": "o", "ゎ": "a"}
_GLIDES = {"う": "w", "い": "j", "く": "w", "ぐ": "w"}  # before a small vowel: うぃ is w i
_PALATAL = ("ɕ", "tɕ", "dʑ", "ɲ", "ç")
_MORA = re.compile(f"[{''.join(_KANA).replace(' ', '')}][{''.join(_SMALL)}]?|[っんー]|[{''.join(_SMALL)}]")


def hiragana(text: str) -> str:
    """Return ``text`` without blanks and punctuation, katakana (narrow ones too) turned into hiragana."""
    kept = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c)[0] not in "PZC" or c == "ー")
    return "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in kept)


def is_kana(text: str) -> bool:
    """Say whether ``text`` holds kana and, blanks and punctuation aside, nothing else."""
    plain = hiragana(text)
    return bool(plain) and not _MORA.sub("", plain)


def read(pieces: Sequence[str]) -> list[list[Syllable]]:
    """Return the syllables of each of ``pieces``, the kana of one note or of several; none for an empty piece.

    Raises :class:`AffgenError` where ー or っ is all there is before the first vowel.
    """
    moras = [(number, mora) for number, piece in enumerate(pieces) for mora in _MORA.findall(hiragana(piece))]
    found: list[list[Syllable]] = [[] for _ in pieces]
    held = ""  # what ー goes on with
    for at, (number, mora) in enumerate(moras):
        here = found[number]
        if here and (mora == "ー" or (mora == "っ" and here[-1].coda) or (mora == "う" and here[-1].nucleus == ("o",))):
            continue
        onset, nucleus = _sounds(mora)
        coda = _coda(mora, moras[at + 1][1] if at + 1 < len(moras) else "")
        if not nucleus and here and not here[-1].coda:
            here[-1] = replace(here[-1], coda=coda)
        elif mora == "っ" and not here and moras[at + 1 : at + 2] and moras[at + 1][0] == number:
            _close(found[:number], coda)
        elif mora == "ん":
            here.append(Syllable((), coda, ()))
        elif mora in "っー":
            if not held:
                raise AffgenError(f"{pieces[number]!r} has no vowel before it; accepted is kana that begins a syllable")
            here.append(Syllable((), (held,), coda))
        elif onset or not here or here[-1].coda or here[-1].nucleus != nucleus:
            here.append(Syllable(onset, nucleus, ()))
        held = here[-1].nucleus[0] if here else held
    return found


def _sounds(mora: str) -> tuple[Phones, Phones]:
    """Return the consonants and the vowel of a mora; neither for those without a vowel of their own."""
    base, small = mora[0], mora[1:]
    if base in "っんー":
        return (), ()
    if base in _SMALL:
        onset, vowel = ("j" if base in "ゃゅょ" else "w" if base == "ゎ" else ""), _SMALL[base]
        return tuple(onset), (nearest(vowel),)
    onset, vowel = _KANA[base]
    glide = ""
    if small and _SMALL[small] != vowel:
        glide = _GLIDES.get(base, "")
    if small in ("ゃ", "ゅ", "ょ"):
        glide = "" if onset in _PALATAL else "j"
    elif small == "ゎ":
        glide = "w"
    return tuple(nearest(phone) for phone in (onset, glide) if phone), (nearest(_SMALL.get(small, vowel)),)


def _coda(mora: str, following: str) -> Phones:
    """Return what ん and っ sound like before the mora ``following``, nothing for others."""
    after = (*_sounds(following)[0], "")[0] if following else ""
    if mora == "ん":
        groups = {"pbm": "m", "tdnrz": "n", "ɲ": "ɲ"}
        return (next((nasal for group, nasal in groups.items() if after and after[0] in group), nearest("ɴ")),)
    if mora == "っ":
        return (after,) if after and CLASSES[CLASS_OF[after]] == "fricative" else ("ʔ",)
    return ()


def _close(before: list[list[Syllable]], coda: Phones) -> None:
    """Let ``coda`` end the last syllable of the pieces ``before``, if there is one that is open."""
    last = next((piece for piece in reversed(before) if piece), None)
    if last and not last[-1].coda:
        last[-1] = replace(last[-1], coda=coda)
