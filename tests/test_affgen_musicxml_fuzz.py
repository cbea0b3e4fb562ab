"""Whatever the bytes, ``read_musicxml`` gives a score or one line; AFFGEN_FUZZ sets the number of damaged files."""

from __future__ import annotations

import copy
import io
import os
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from itertools import chain, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.musicxml import musicxml_bytes, read_musicxml
from affgen.score import Dynamic, Marker, Meter, Note, Score, Tempo

FILES = int(os.environ.get("AFFGEN_FUZZ", "600"))
SLOWEST_S = 10.0
WORDS = ("0", "-1", "1", "2", "4", "8", "1e308", "nan", "inf", "9" * 11, "0.5", "", "x", "C", "H", "1,2", "yes", "no")
WORDS += ("start", "stop", "begin", "end", "crescendo", "diminuendo", "forward", "backward", "1e-9", "\u2028")

RICH = b"""<score-partwise><part-list/><part id="P1"><measure number="0" implicit="yes">
<attributes><divisions>2</divisions><key/><time><beats>3+1</beats><beat-type>4</beat-type></time>
<transpose><chromatic>-2</chromatic></transpose></attributes><direction><direction-type>
<metronome><beat-unit>half</beat-unit><beat-unit-dot/><per-minute>40</per-minute></metronome></direction-type>
<offset sound="yes">1</offset><sound segno="s" tempo="90"/></direction><note><grace/><pitch>
<step>D</step><octave>4</octave></pitch><lyric><text>oh</text></lyric></note>
<note dynamics="110"><pitch><step>C</step><alter>1</alter><octave>4</octave></pitch><duration>2</duration>
<tie type="start"/><voice>1</voice></note></measure><measure number="1"><barline>
<repeat direction="forward"/></barline><note><pitch><step>C</step><alter>1</alter><octave>4</octave></pitch>
<duration>4</duration><tie type="stop"/><notations><dynamics><p/></dynamics></notations></note>
<direction><direction-type><wedge type="crescendo"/></direction-type></direction><note><rest/>
<duration>2</duration></note><forward><duration>2</duration></forward><backup><duration>8</duration></backup>
<note><pitch><step>E</step><octave>3</octave></pitch><duration>8</duration><voice>2</voice></note></measure>
<measure number="2"><barline><ending number="1" type="start"/></barline><note><pitch><step>F</step>
<octave>4</octave></pitch><duration>8</duration><lyric number="1"><syllabic>begin</syllabic>
<text>a</text><elision/><text>b</text></lyric></note><barline><ending type="stop"/>
<repeat direction="backward" times="2"/></barline></measure><measure><barline>
<ending number="2" type="start"/></barline><note><pitch><step>G</step><octave>4</octave></pitch>
<duration>8</duration></note><direction><direction-type><wedge type="stop"/></direction-type>
<sound dalsegno="s"/></direction><barline><ending type="stop"/></barline></measure></part>
<part id="P2"><measure/></part></score-partwise>"""


def packed(data: bytes, container: bytes = b'<container><rootfile full-path="s.xml"/></container>') -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("s.xml", data)
    return stream.getvalue()


def seeds() -> list[bytes]:
    """Sound files of a few kinds, small enough that a change often matters."""
    song = Score(
        tuple(Note(i * 0.75, 0.75, 60 + i, lyric=("la-", "lo", "", "é")[i % 4]) for i in range(12)),
        tempos=(Tempo(0, 90), Tempo(2, 70)),
        meters=(Meter(0, 3, 4), Meter(4, 6, 8)),
        markers=(Marker(1, "A"),),
        dynamics=(Dynamic(0, 60), Dynamic(3, 100), Dynamic(3, 50)),
    )
    return [RICH, musicxml_bytes(song), packed(RICH), packed(musicxml_bytes(song))]


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Damage the bytes of ``data`` one to three times: bits, cuts, repeats."""
    buffer = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(buffer)))
        match rng.integers(4):
            case 0:
                buffer[at] ^= 1 << int(rng.integers(8))
            case 1:
                buffer[at : at + int(rng.integers(1, 40))] = b""
            case 2:
                buffer[at:at] = buffer[at : at + 20] * int(rng.integers(1, 20))
            case _:
                buffer[at : at + 1] = rng.bytes(4)
    return bytes(buffer)


def rewrite(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Change what a score says and leave it XML: elements say something else, are doubled, moved, renamed, gone."""
    root = ElementTree.fromstring(data)
    strange = list(ElementTree.fromstring(other).iter())
    for _ in range(rng.integers(1, 6)):
        inner = [element for element in root.iter() if len(element)]
        if not inner:
            break
        parent = inner[rng.integers(len(inner))]
        at = int(rng.integers(len(parent)))
        child = parent[at]
        match rng.integers(6):
            case 0:
                leaf = next((element for element in child.iter() if (element.text or "").strip()), child)
                leaf.text = WORDS[rng.integers(len(WORDS))]
            case 1:
                known = [element for element in root.iter() if element.attrib]
                for element in known[rng.integers(len(known) + 1) :][:1]:
                    name = list(element.attrib)[rng.integers(len(element.attrib))]
                    element.set(name, WORDS[rng.integers(len(WORDS))])
            case 2:
                parent.insert(at, copy.deepcopy(child))
            case 3:
                parent.insert(at, copy.deepcopy(strange[rng.integers(len(strange))]))
            case 4:
                child.tag = strange[rng.integers(len(strange))].tag
            case _:
                del parent[at]
    return ElementTree.tostring(root)


def refusal(data: bytes) -> str:
    """Read ``data`` and return the line that refuses it, nothing for a score; both in good time."""
    started = time.perf_counter()
    try:
        score = read_musicxml(data)
    except AffgenError as error:
        assert type(error) is AffgenError and "\n" not in str(error) and len(str(error)) < 300
        assert str(error).startswith("MusicXML data: ") and "; accepted: " in str(error)
        return str(error)
    finally:
        assert time.perf_counter() - started < SLOWEST_S
    assert score.notes and 0 < score.duration_s <= 6 * 3600
    ends = [note.end for note in score.notes]
    assert all(note.onset >= end - 1e-9 for note, end in zip(score.notes[1:], ends, strict=False))
    return ""


@pytest.mark.timeout(max(60, FILES // 50))
def test_mutated_files_are_read_or_refused():
    rng = np.random.default_rng(20_260_801)
    sound = seeds()
    assert not any(refusal(data) for data in sound)
    read = 0
    for number in range(FILES):
        data = sound[number % len(sound)]
        if number % 8 < 4 and not data.startswith(b"PK"):
            data = rewrite(rng, data, sound[rng.integers(2)])
        else:
            data = mutate(rng, data)
        try:
            good = not refusal(data)
            read += good
            if good and number % 10 == 0:
                score = read_musicxml(data)
                if min(note.pitch for note in score.notes) >= 12:
                    again = musicxml_bytes(score)
                    assert musicxml_bytes(read_musicxml(again)) == again
        except Exception as error:
            raise AssertionError(f"file {number} of the seed: {data!r}") from error
    # a fuzzer whose files are all refused at the door, or all pass, tests nothing
    assert FILES * 0.05 < read < FILES * 0.9


# --- hostile files ---------------------------------------------------------------------------------------------------

NOTE = "<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration></note>"
TIME = "<attributes><divisions>1</divisions></attributes>"


def score(body: str, head: str = "") -> bytes:
    return f"{head}<score-partwise><part>{body}</part></score-partwise>".encode()


def bars(body: str, times: int = 1) -> bytes:
    return score(f"<measure>{TIME}{NOTE}</measure>" + f"<measure>{body}</measure>" * times)


def doctype(declarations: str) -> bytes:
    lyric = "<lyric><text>&a;</text></lyric></note>"
    return score(f"<measure>{TIME}{NOTE.replace('</note>', lyric)}</measure>", f"<!DOCTYPE x {declarations}>")


def wedges(number: int) -> str:
    return "<direction><direction-type>" + "<wedge type='crescendo'/>" * number + "</direction-type></direction>"


def lied(data: bytes = RICH, **untruths: int) -> bytes:
    """A ``.mxl`` whose directory says something else of its score than is so."""
    stream = io.BytesIO(packed(data))
    with zipfile.ZipFile(stream, "a") as archive:
        for name, value in untruths.items():
            setattr(archive.getinfo("s.xml"), name, value)
        archive.writestr("more.txt", bytes(50))  # which has the directory written anew
    return stream.getvalue()


LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("hgfedcba"))
REPEAT = '<barline><repeat direction="backward" times="{}"/></barline>'
ALL_OF_ITS_OWN = "document type has declarations of its own"
DAMAGED = "damaged as a compressed file"


def hostile_scores() -> Iterator[tuple[str, bytes, str]]:
    """Yield (name, contents, words of the refusal), made one by one since some are large."""
    yield "billion laughs", doctype(f'[<!ENTITY h "ha">{LAUGHS}]'), ALL_OF_ITS_OWN
    yield "an entity", doctype('[<!ENTITY a "b">]'), ALL_OF_ITS_OWN
    yield "an entity of a file", doctype('[<!ENTITY a SYSTEM "file:///etc/passwd">]'), ALL_OF_ITS_OWN
    yield "a parameter entity", doctype('[<!ENTITY % a SYSTEM "http://127.0.0.1:9/">%a;]'), ALL_OF_ITS_OWN
    yield "attributes by default", doctype('[<!ATTLIST note dynamics CDATA "90">]'), ALL_OF_ITS_OWN
    yield "an entity nobody declares", doctype('PUBLIC "-//x" "http://127.0.0.1:9/x.dtd"'), "uses the entity 'a'"
    yield "an odd encoding", score("", '<?xml version="1.0" encoding="utf-7"?>'), "encoding is 'utf-7'"
    yield "an encoding that is none", score("", '<?xml version="1.0" encoding="rot13"?>'), "encoding is 'rot13'"
    yield "too large", bars(NOTE) + b" " * 20_000_000, "larger than 20 MB"
    yield "too many elements", bars("<x/>" * 2_500_000), "more elements"
    yield (
        "elements without end",
        b"<score-partwise><part><measure>" + b"<note>" * 3_000_000,
        "bar 1 has more than 100,000",
    )
    yield "elements too deep", b"<score-partwise>" + b"<part>" * 3_000_000, "more than 100 deep"
    yield "too many names", score("".join(f"<x{i}/>" for i in range(100_000))), "more names"
    yield "too many attributes", score("<x " + " ".join(f'a{i}=""' for i in range(100_000)) + "/>"), "without a tag"
    yield "an attribute too long", bars(f'<note dynamics="{"9" * 10_000_000}"/>'), "100,000 bytes without a tag"
    yield (
        "a text too long",
        bars(f"<note><duration>{'9' * 10_000_000}</duration></note>"),
        "100,000 bytes without a tag",
    )
    yield (
        "a number too long",
        bars(f"<note><duration>{'9' * 50_000}</duration></note>"),
        "bar 2, note 1: its duration is",
    )
    yield "too many parts", f"<score-partwise>{'<part/>' * 1_000_000}</score-partwise>".encode(), "more than 500 parts"
    yield "too many bars", score(f"<measure>{TIME}{NOTE}</measure>" + "<measure/>" * 1_000_000), "too long; accepted"
    yield "too many notes", bars(NOTE * 100, 2_200), "too long; accepted: up to 200,000 notes"
    yield "a bar too full", bars(NOTE * 100_000), "bar 2 has more than 100,000 elements"
    yield "too many repeats", bars(NOTE + REPEAT.format(100_000)), "with its repeats; accepted: up to 100,000 bars"
    yield "repeats of repeats", bars(REPEAT.format(99_999), 50_000), "with its repeats; accepted: up to 100,000 bars"
    yield "more repeats than any", bars(REPEAT.format("9" * 400)), "bar 2: the times of its repeat"
    yield "D.C. everywhere", bars('<sound dacapo="yes" tocoda="x" dalsegno="y"/>', 50_000), "with its repeats"
    yield "marks repeated", bars(NOTE + wedges(20_000) + REPEAT.format(100)), "too much in its repeats"
    yield "notes repeated", bars(NOTE * 4_000 + REPEAT.format(60)), "up to 100,000 beats"
    yield "beats beyond the last", bars("<forward><duration>99999</duration></forward>", 3), "up to 100,000 beats"
    yield (
        "seven hours",
        bars(f"<sound tempo='1'/><forward><duration>420</duration></forward>{NOTE}"),
        "lasts 7.0 hours",
    )
    yield "divisions that are none", bars("<attributes><divisions>1e-300</divisions></attributes>"), "its divisions is"


def hostile_archives() -> Iterator[tuple[str, bytes, str]]:
    """The same of compressed files."""
    yield "a zip bomb", packed(bars("<!--" + " " * 60_000 + "--><x/>", 400)), "unpacks to more than"
    yield "a zip bomb that lies", lied(bars("<!--" + " " * 60_000 + "--><x/>", 900), compress_size=2**31), "than 50 MB"
    yield "many files", packed(RICH) + b"PK\1\2" * 1001, "more than 1,000 files"
    yield "an encrypted file", lied(flag_bits=1), DAMAGED
    yield "a file after the archive", lied(header_offset=2**31), DAMAGED
    yield "a file in the last bytes", lied(header_offset=len(lied()) - 10), DAMAGED
    yield "a file beyond all archives", lied(header_offset=2**63), DAMAGED
    yield "a file longer than the archive", lied(compress_type=0, compress_size=10**6, file_size=10**6), DAMAGED
    yield "an unknown compression", lied(compress_type=99), "unusual way; accepted: deflate"
    yield "a container of laughs", packed(RICH, doctype(f'[<!ENTITY h "ha">{LAUGHS}]')), ALL_OF_ITS_OWN
    yield "a container for nothing", packed(RICH, b"<container/>"), "names no score"
    yield "only the begin of an archive", b"PK\3\4" + bytes(1000), DAMAGED


def test_every_hostile_file_is_refused_for_what_it_is():
    for name, data, words in chain(hostile_scores(), hostile_archives()):
        assert words in refusal(data), name


@pytest.mark.parametrize(
    "body",
    [
        '<barline><ending number="7" type="start"/></barline>' + REPEAT.format(9),
        '<barline><ending number="1" type="start"/></barline>' + REPEAT.format(1),
        '<direction><offset sound="yes">99999</offset><sound tempo="9" dynamics="50"/></direction>',
        wedges(1),
        '<sound fine="yes" coda="a" segno="b" tocoda="c"/>',
    ],
)
def test_odd_files_are_read_in_good_time(body):
    assert not refusal(bars(body, 20_000))


def test_hostile_files_take_little_memory():
    for name, data, _ in chain(hostile_scores(), hostile_archives()):
        if name in ("billion laughs", "a zip bomb", "too many parts", "an attribute too long", "marks repeated"):
            tracemalloc.start()
            try:
                assert refusal(data)
                assert tracemalloc.get_traced_memory()[1] < 200_000_000, name
            finally:
                tracemalloc.stop()
