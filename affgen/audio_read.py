"""Open, check and decode sound files that nobody vouches for.

What a file is, is read from its first bytes and never from its name. Accepted are WAV (PCM, float, A-law, mu-law),
FLAC, OGG (Vorbis, Opus) and MP3, with what :data:`MAX_CHANNELS` and its neighbours allow. Everything else, every ADPCM
among it, is refused before libsndfile sees a byte: its headers alone have been enough to overflow it
(CVE-2026-37555, IMA-ADPCM in libsndfile 1.2.2).
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from affgen.errors import AffgenError

if TYPE_CHECKING:
    from soundfile import SoundFile

ACCEPTED = "accepted: WAV (PCM, float, A-law, mu-law), FLAC, OGG (Vorbis, Opus), MP3"
SUBTYPES = {
    "WAV": {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"},
    "FLAC": {"PCM_S8", "PCM_16", "PCM_24"},
    "OGG": {"VORBIS", "OPUS"},
    "MP3": {"MPEG_LAYER_III"},
}
SUBTYPES["WAVEX"] = SUBTYPES["WAV"]
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 192_000
MAX_SECONDS = 7_200.0
"""Longest sound read unless a caller says otherwise."""
MAX_LEVEL = 1_000.0
"""Largest sample of a float file, 60 dB above full scale; beyond it the numbers are no sound."""
MAX_BYTES = 2**31
"""Largest standard input or output of a command."""

_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE  # format tags of WAV
_TAGS = {
    2: "MS ADPCM",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x40: "G.721 ADPCM",
    0x14: "G.723 ADPCM",
    0x55: "MP3 in WAV",
}
_STREAMED = (
    0x7FFF_0000  # from here up, a data size means "unknown", as sox (0x7FFFF000) and ffmpeg (2**32 - 1) write it
)
_MAX_CHUNKS = 1_000
_SLACK = {"OGG": 8_192, "MP3": 8_192}  # frames that may be missing: coders' delay and padding
PIECE = 1 << 16
"""Frames decoded at once, and bytes copied at once."""


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[IO[bytes], str]]:
    """Yield the binary file ``path`` (``-``: all of standard input, kept in a temporary file) and its name in errors.

    Raises :class:`AffgenError` for anything but a regular file that can be read, and for an input that does not begin
    as a sound file does or is larger than :data:`MAX_BYTES`.
    """
    if str(path) == "-":
        with spooled(lambda: sys.stdin.buffer.read(PIECE), "standard input") as spool:
            yield spool, "standard input"
        return
    try:
        mode = os.stat(path).st_mode  # before it is opened: a pipe that nobody writes to would be waited for
        file = open(path, "rb") if stat.S_ISREG(mode) else None  # noqa: SIM115, closed below
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise AffgenError(f"{path}: cannot be read ({reason}); name a sound file") from None
    if file is None:
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise AffgenError(f"{path}: is {kind}; name a sound file, or - for standard input")
    with file:
        yield file, str(path)


@contextmanager
def spooled(read: Callable[[], bytes], name: str) -> Iterator[IO[bytes]]:
    """Yield a temporary file with all that ``read`` gives until it gives nothing; refuse early what is no sound."""
    with tempfile.TemporaryFile() as file:
        while piece := read():
            file.write(piece)
            if file.tell() > MAX_BYTES:
                raise AffgenError(f"{name}: is larger than {MAX_BYTES >> 30} GiB, the most that is accepted")
            if file.tell() > PIECE >= file.tell() - len(piece):
                _family(file, name)
                file.seek(0, os.SEEK_END)
        file.flush()
        yield file


@contextmanager
def checked(file: IO[bytes], name: str, max_seconds: float = MAX_SECONDS) -> Iterator[SoundFile]:
    """Yield the opened sound of ``file`` once its header says nothing that is not accepted; no sample is decoded yet.

    Raises :class:`AffgenError` with one line that begins with ``name``.
    """
    family = _sniffed(file, name)
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # libsndfile starts where the descriptor stands, which file.seek may leave
    with _decoder_errors(name), _quiet(family):
        sound = _forward()(file.fileno(), closefd=False)  # a number, so that no suffix is looked at
    with sound:
        if sound.subtype not in SUBTYPES.get(sound.format, ()) or not sound.format.startswith(family):
            raise AffgenError(f"{name}: holds {sound.format} {sound.subtype}; {ACCEPTED}")
        _check_shape(sound.channels, sound.samplerate, name)
        if sound.frames < 1:
            raise AffgenError(f"{name}: holds no samples; accepted: one or more")
        if not _unknown(sound.frames) and sound.frames > max_seconds * sound.samplerate:
            raise AffgenError(f"{name}: lasts {_length(sound.frames / sound.samplerate)}; {_up_to(max_seconds)}")
        yield sound


def mono_pieces(sound: SoundFile, name: str, max_seconds: float = MAX_SECONDS) -> Iterator[np.ndarray]:
    """Yield ``sound``, its channels averaged, in pieces (L,) float32 of :data:`PIECE` samples; the last has fewer.

    Raises :class:`AffgenError` for what the decoder refuses, samples that are not finite or above :data:`MAX_LEVEL`,
    more than ``max_seconds``, and less than the header promises.
    """
    done, limit = 0, max_seconds * sound.samplerate
    while True:
        with _decoder_errors(name), _quiet(sound.format):
            block = sound.read(PIECE, dtype="float32", always_2d=True)  # (L, C)
        if not len(block):
            break
        _check_samples(block, done, name)
        done += len(block)
        if done > limit:
            raise AffgenError(f"{name}: lasts longer than its header says; {_up_to(max_seconds)}")
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    if not done:
        raise AffgenError(f"{name}: no sample of it can be decoded; accepted: one or more")
    if not _unknown(sound.frames) and sound.frames - done > _SLACK.get(sound.format, 0):
        raise AffgenError(f"{name}: is cut short: {done} of {sound.frames} samples can be decoded; get the whole file")


def _check_shape(channels: int, rate: int, name: str) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise AffgenError(f"{name}: has {channels} channels; accepted: 1 to {MAX_CHANNELS}")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AffgenError(f"{name}: has a rate of {rate} Hz; accepted: {MIN_RATE} to {MAX_RATE} Hz")


def _check_samples(block: np.ndarray, done: int, name: str) -> None:
    """Refuse a block (L, C), ``done`` samples into the sound, that holds numbers which are no sound."""
    low, high = float(block.min()), float(block.max())  # NaN if any sample is
    if np.isfinite(low) and np.isfinite(high):
        if max(-low, high) > MAX_LEVEL:
            peak = max(-low, high)
            raise AffgenError(f"{name}: has a sample of {peak:.6g}; accepted: up to {MAX_LEVEL:g}, full scale is 1")
        return
    first = done + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
    raise AffgenError(f"{name}: sample {first} is not finite; accepted: finite samples")


def _up_to(seconds: float) -> str:
    return f"accepted: up to {_length(seconds)}"


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:.3g} s"


def _unknown(frames: int) -> bool:
    """Whether a number of frames is libsndfile's way to say that the header names none (FLAC written to a pipe)."""
    return frames >= 2**62


# --- what a file is ------------------------------------------------------------------------------------------------


def _sniffed(file: IO[bytes], name: str) -> str:
    """Return WAV, FLAC, OGG or MP3; raise for anything else that the first bytes tell."""
    family = _family(file, name)
    {"WAV": _check_wav, "OGG": _check_ogg, "MP3": _check_mp3}.get(family, lambda file, name: None)(file, name)
    return family


def _family(file: IO[bytes], name: str) -> str:
    head = _at(file, 0, 16, name)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"fLaC":
        return "FLAC"
    if head[:4] == b"OggS":
        return "OGG"
    if head[:3] == b"ID3" or _mpeg(head):
        return "MP3"
    raise AffgenError(f"{name}: {'is no sound file that is read here' if head else 'is empty'}; {ACCEPTED}")


def _check_wav(file: IO[bytes], name: str) -> None:
    """Walk the chunks to the samples; refuse formats but the accepted ones, and data that the file cannot hold."""
    end = file.seek(0, os.SEEK_END)
    offset, known = 12, False
    for _ in range(_MAX_CHUNKS):
        marker, size = struct.unpack("<4sI", _at(file, offset, 8, name).ljust(8, b"\0"))
        offset += 8
        if marker == b"fmt " and not known:  # libsndfile heeds the first one only
            _check_wav_format(_at(file, offset, min(size, 40), name), name)
            known = True
        elif marker == b"data" or not marker.isascii() or not marker.decode("ascii").isprintable():
            break
        offset += size + size % 2
    if marker != b"data" or not known:
        raise AffgenError(f"{name}: is a damaged WAV file, without format and samples in their order; {ACCEPTED}")
    if end - offset < size < _STREAMED:
        raise AffgenError(f"{name}: is cut short: {end - offset} of {size} bytes are there; get the whole file")


def _check_wav_format(chunk: bytes, name: str) -> None:
    if len(chunk) < 16:
        raise AffgenError(f"{name}: is a damaged WAV file, its format takes {len(chunk)} bytes; {ACCEPTED}")
    tag, channels, rate = struct.unpack("<HHI", chunk[:8])
    _check_shape(channels, rate, name)
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(chunk[24:26], "little")  # the GUID of the format begins with the tag
    if tag not in (_PCM, _FLOAT, _ALAW, _ULAW):
        raise AffgenError(f"{name}: is WAV of the kind {_TAGS.get(tag, f'{tag:#06x}')}; {ACCEPTED}")


def _check_ogg(file: IO[bytes], name: str) -> None:
    page = _at(file, 0, 27 + 255 + 8, name)
    packet = page[27 + page[26] :] if len(page) > 27 else b""
    if not packet.startswith((b"\x01vorbis", b"OpusHead")):
        raise AffgenError(f"{name}: is OGG with neither Vorbis nor Opus at its begin; {ACCEPTED}")


def _check_mp3(file: IO[bytes], name: str) -> None:
    """Skip ID3 tags, behind which libsndfile would accept any format, and ask for a frame of layer III."""
    offset = 0
    for _ in range(8):
        head = _at(file, offset, 10, name)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        offset += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    if not _mpeg(_at(file, offset, 4, name)):
        raise AffgenError(f"{name}: has no MP3 frame where one must be; {ACCEPTED}")


def _mpeg(head: bytes) -> bool:
    """Whether ``head`` begins with a possible header of an MPEG audio frame of layer III."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return version != 1 and layer == 1 and head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3


def _at(file: IO[bytes], offset: int, size: int, name: str) -> bytes:
    try:
        file.seek(offset)
        return file.read(size)
    except OSError as error:
        raise AffgenError(f"{name}: cannot be read ({error.strerror}); name a sound file") from None


# --- the decoders' manners -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _forward() -> type[SoundFile]:
    """Return the class of sounds that are read from begin to end.

    soundfile seeks to where it is after every read, which FLAC of unknown length and damaged MP3 do not survive.
    """
    import soundfile

    class Forward(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    return Forward


@contextmanager
def _decoder_errors(name: str) -> Iterator[None]:
    """Turn what soundfile raises into one line."""
    import soundfile

    try:
        yield
    except (soundfile.SoundFileError, MemoryError, OSError, ValueError, AssertionError) as error:
        text = (
            " ".join(str(getattr(error, "error_string", error)).split()).removeprefix("Error : ").rstrip(".")
            or type(error).__name__
        )
        raise AffgenError(f"{name}: cannot be decoded ({text}); {ACCEPTED}") from None


class _Hush:
    """Keeps C code from writing to standard error; counts its users, so that threads may overlap."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.saved = -1

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.saved = self._divert()

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.saved >= 0:
                os.dup2(self.saved, 2)
                os.close(self.saved)
                self.saved = -1

    @staticmethod
    def _divert() -> int:
        """Point descriptor 2 to nowhere; return a copy of what it was, or -1 when that cannot be done."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
        except OSError:
            return -1
        try:
            saved = os.dup(2)
        except OSError:
            os.close(nowhere)
            return -1
        os.dup2(nowhere, 2)
        os.close(nowhere)
        return saved


_hush = _Hush()


@contextmanager
def _quiet(family: str) -> Iterator[None]:
    """Silence descriptor 2 while an MP3 is decoded: libmpg123 reports damage there, past every setting.

    What other threads write to it in these moments is lost, so it is done for this format alone.
    """
    if family != "MP3":
        yield
        return
    _hush.enter()
    try:
        yield
    finally:
        _hush.leave()
