"""MusicXML files from bytes to elements: no byte is trusted, and every limit holds before memory is spent.

Source: W3C MusicXML 4.0 (https://www.w3.org/2021/06/musicxml40/), its container format for ``.mxl``; XML 1.0.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Protocol
from xml.etree.ElementTree import TreeBuilder
from xml.parsers import expat

from affgen.errors import AffgenError

MAX_BYTES = 20_000_000
MAX_UNZIPPED = 50_000_000
MAX_RATIO = 200  # of deflate's 1032; scores of real songs reach 40
MAX_MEMBERS = 1000
MAX_STRETCH = 100_000  # bytes between two tags: a bound for attributes and text, which expat hands over whole
MAX_NAMES = 2000  # MusicXML knows 700 names of elements and attributes
MAX_ELEMENTS = 2_500_000

SCORES = "scores by parts as MusicXML (.musicxml, .xml, .mxl)"
MEDIA_TYPE = "application/vnd.recordare.musicxml"
ENCODINGS = ("utf-8", "utf-16", "iso-8859-1", "us-ascii")  # those that expat knows by itself


class Damage(Exception):
    """What is wrong with a file and what is accepted; ``read_musicxml`` adds the name of the file."""

    def __init__(self, wrong: str, accepted: str = SCORES) -> None:
        super().__init__(f"{wrong}; accepted: {accepted}")


def load(path: Path) -> bytes:
    """Return the bytes of ``path``, one more than the limit at most; raises :class:`AffgenError` if there are none."""
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise AffgenError(f"{path}: no such file; accepted: {SCORES}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise AffgenError(f"{path}: cannot be read ({reason}); accepted: {SCORES}") from None


class Target(Protocol):
    """What takes the elements of an XML file."""

    def start(self, tag: str, attributes: dict[str, str], /) -> object:
        """Take the begin of an element."""

    def end(self, tag: str, /) -> object:
        """Take its end."""

    def data(self, text: str, /) -> object:
        """Take text within it."""


def feed_score(data: bytes, target: Target) -> None:
    """Give the elements of a score, compressed or not, to ``target``; raises :class:`Damage` for any other bytes."""
    if not data:
        raise Damage("it is empty")
    if len(data) > MAX_BYTES:
        raise Damage(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    _feed(_unzipped(data) if data.startswith(b"PK\3\4") else data, target)


def _unzipped(data: bytes) -> bytes:
    """Return the score of a ``.mxl`` file: what its container names first."""
    try:
        if data.count(b"PK\1\2") > MAX_MEMBERS:
            raise Damage(f"it holds more than {MAX_MEMBERS:,} files")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            builder = TreeBuilder()
            _feed(_member(archive, "META-INF/container.xml"), builder)
            for root in builder.close().iter("rootfile"):
                if root.get("media-type", MEDIA_TYPE).startswith(MEDIA_TYPE):
                    return _member(archive, root.get("full-path", ""))
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError):
        raise Damage("it is damaged as a compressed file") from None
    raise Damage("its META-INF/container.xml names no score")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if name not in archive.namelist():
        raise Damage(f"it holds no {shown(name)}")
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Damage(f"its {shown(name)} is compressed in an unusual way", "deflate")
    with archive.open(info) as stream:
        # what the archive says of its sizes is not trusted, and nothing is unpacked beyond the limit
        limit = min(MAX_UNZIPPED, max(1_000_000, MAX_RATIO * info.compress_size))
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise Damage(f"its {shown(name)} unpacks to more than {limit // 1_000_000} MB")
    return data


def _feed(data: bytes, target: Target) -> None:
    """Give what ``data`` holds to ``target``; refuse what makes XML expand, reach out or exhaust."""
    if re.search(rb"<[^<]{%d}" % MAX_STRETCH, data):
        raise Damage(f"it has {MAX_STRETCH:,} bytes without a tag")
    names: dict[str, str] = {}
    parser = expat.ParserCreate(intern=names)
    count = 0

    def declared(version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ENCODINGS:
            raise Damage(f"its encoding is {shown(encoding)}", "UTF-8 or UTF-16")

    def doctype(name: str, system: str | None, public: str | None, internal: int) -> None:
        if internal:
            raise Damage("its document type has declarations of its own", "MusicXML without entities")

    def skipped(name: str, parameter: int) -> None:
        raise Damage(f"it uses the entity {shown(name)}", "MusicXML without entities")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS or len(names) > MAX_NAMES:
            raise Damage("it has more elements, or more names of them, than any song")
        target.start(tag, attributes)

    parser.buffer_text = True
    parser.XmlDeclHandler, parser.StartDoctypeDeclHandler, parser.SkippedEntityHandler = declared, doctype, skipped
    parser.StartElementHandler, parser.EndElementHandler = start, target.end
    parser.CharacterDataHandler = target.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise Damage(f"it is not well-formed XML ({error})") from None


def shown(text: str | None) -> str:
    """Return ``text`` short enough, and on one line, for a message."""
    return repr((text or "")[:40])
