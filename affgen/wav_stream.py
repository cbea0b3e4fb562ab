"""WAV through pipes: decoded while it is still being written, and written before it is known how long it becomes.

What has an end is better read by :mod:`affgen.audio`, which takes more formats and refuses what is cut short.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from affgen.audio_read import _EXTENSIBLE, _MAX_CHUNKS, _STREAMED, _check_samples, _check_wav_format
from affgen.errors import AffgenError

ACCEPTED = "accepted as a stream: WAV (PCM, float, A-law, mu-law)"
SUBTYPES = {
    **{(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32"},
    **{(3, 32): "FLOAT", (3, 64): "DOUBLE", (6, 8): "ALAW", (7, 8): "ULAW"},
}
"""Format tag and bits of a sample -> libsndfile's name."""
UNKNOWN = 2**32 - 1
"""The size in a header whose length nobody knows yet."""
LONGEST_CHUNK = 1 << 24
"""Bytes of a chunk before the samples that are passed over at most."""


@dataclass(frozen=True, slots=True)
class WavStream:
    """A WAV whose header was read: ``width`` bytes a frame, ``size`` bytes of samples to come (None: nobody knows)."""

    stream: IO[bytes]
    name: str
    sample_rate: int
    channels: int
    subtype: str
    width: int
    size: int | None

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Yield mono blocks (L,) float32 of ``seconds`` at the stream's own rate, as they come; the last is shorter.

        Raises :class:`AffgenError` for a stream without samples, and for samples that are not finite or far above
        full scale; when the stream ends before its header says, after the last block that came.
        """
        import soundfile

        done, frames = 0, max(1, round(seconds * self.sample_rate))
        total = None if self.size is None else self.size // self.width
        while total is None or done < total:
            wanted = frames if total is None else min(frames, total - done)
            data = self.stream.read(wanted * self.width)
            data = data[: len(data) // self.width * self.width]
            if not data:
                break
            form = {"samplerate": self.sample_rate, "channels": self.channels, "subtype": self.subtype}
            block = soundfile.read(
                io.BytesIO(data), dtype="float32", always_2d=True, format="RAW", endian="LITTLE", **form
            )[0]  # (L, C)
            _check_samples(block, done, self.name)
            done += len(block)
            yield block.mean(axis=1, dtype=np.float32)
        if not done:
            raise AffgenError(f"{self.name}: holds no samples; accepted: one or more")
        if total is not None and done < total:
            raise AffgenError(f"{self.name}: is cut short: {done} of {total} samples came; send the whole sound")


def open_wav(stream: IO[bytes], name: str) -> WavStream:
    """Read the header of a WAV from ``stream`` up to its first sample; ``name`` is what errors call it.

    Raises :class:`AffgenError` for anything but a WAV of an accepted kind.
    """
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise AffgenError(f"{name}: {'is no WAV' if head else 'is empty'}; {ACCEPTED}")
    form = b""
    for _ in range(_MAX_CHUNKS):
        marker, size = struct.unpack("<4sI", stream.read(8).ljust(8, b"\0"))
        if marker == b"data" or size > LONGEST_CHUNK or not marker.strip(b"\0"):
            break
        body = stream.read(size + size % 2)
        if marker == b"fmt " and not form:
            form = body[:40]
            _check_wav_format(form, name)
    if marker != b"data" or not form:
        raise AffgenError(f"{name}: is a damaged WAV, without format and samples in their order; {ACCEPTED}")
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", form[:16])
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(form[24:26], "little")
    if (tag, bits) not in SUBTYPES or align != channels * bits // 8:
        raise AffgenError(f"{name}: holds samples of {bits} bits in frames of {align} bytes; {ACCEPTED}")
    known = 0 < size < _STREAMED  # a writer that cannot go back leaves 0 or the largest number
    return WavStream(stream, name, rate, channels, SUBTYPES[tag, bits], align, size if known else None)


def write_wav(stream: IO[bytes], blocks: Iterable[np.ndarray], sample_rate: int, name: str) -> int:
    """Write ``blocks`` (L,) as 16-bit mono WAV of unknown length, each passed on at once; return how many samples.

    The header goes out with the first block, so that input which is refused leaves nothing. The samples are those that
    :func:`affgen.audio.save_blocks` writes. Raises :class:`AffgenError` for none, or samples that are not finite.
    """
    import soundfile

    done = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AffgenError(f"{name}: not written, {np.sum(~np.isfinite(block))} samples are not finite")
        if not len(block):
            continue
        if not done:
            stream.write(_header(sample_rate))
        data = io.BytesIO()
        soundfile.write(data, block.clip(-1, 1), sample_rate, "PCM_16", endian="LITTLE", format="RAW")
        stream.write(data.getvalue())
        stream.flush()
        done += len(block)
    if not done:
        raise AffgenError(f"{name}: there are no samples to write")
    return done


def _header(rate: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE") + form + struct.pack("<4sI", b"data", UNKNOWN)
