"""Fabricated sound files for tests: sound ones of every kind, and damaged ones that no reader may trust."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np

PCM, MS_ADPCM, FLOAT, IMA_ADPCM, GSM, EXTENSIBLE = 1, 2, 3, 0x11, 0x31, 0xFFFE
KINDS = (
    *(("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAVEX", "PCM_32")),
    *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
)


def tone(seconds: float, sample_rate: int, *, hertz: float = 220.0, channels: int = 1) -> np.ndarray:
    """Return a sine at a third of full scale, (L,) float32, or (L, C) with the channels an octave apart each."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    waves = [np.sin(2 * np.pi * hertz * 2**c * times) / 3 for c in range(channels)]
    return np.stack(waves, axis=1).astype(np.float32) if channels > 1 else waves[0].astype(np.float32)


def encoded(samples: np.ndarray, sample_rate: int, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """Return the bytes of a sound file of ``samples`` (L,) or (L, C), in a format and subtype that libsndfile names."""
    import soundfile

    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", sample_rate, channels, subtype, format=kind) as file:
        file.write(samples)
    return buffer.getvalue()


def wav(data: bytes, *, tag: int = PCM, channels: int = 1, rate: int = 16_000, bits: int = 16, **untrue: int) -> bytes:
    """Frame ``data`` as a WAV file; ``untrue`` sets ``riff_size`` or ``data_size`` to what they are not, ``real_tag``
    the format inside an extensible one, ``align`` the bytes of a frame.
    """
    align = untrue.get("align", max(1, channels * bits // 8))
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits)
    if tag == EXTENSIBLE:
        guid = struct.pack("<HHHHQ", untrue.get("real_tag", PCM), 0, 0, 0x10, 0x719B3800AA000080)
        form += struct.pack("<HHI", 22, bits, 0) + guid
    elif tag == IMA_ADPCM:
        form += struct.pack("<HH", 2, untrue.get("block", 505))
    elif tag == MS_ADPCM:
        form += struct.pack("<HHH", 32, 500, 7) + bytes(28)
    size = untrue.get("data_size", len(data))
    body = b"WAVE" + _chunk(b"fmt ", form) + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", untrue.get("riff_size", len(body))) + body


def flac_silence(seconds: int, *, rate: int = 4_000, promised: int | None = None, written: int | None = None) -> bytes:
    """Return a FLAC file of mono silence in blocks of 65,535 samples: two bytes hold a second.

    ``promised`` is the number of samples in its header (0: unknown; default: the truth), ``written`` how many of its
    blocks follow.
    """
    total = seconds * rate
    stream = struct.pack(">HH", 65_535, 65_535) + bytes(6)  # block sizes, frame sizes unknown
    packed = rate << 44 | 0 << 41 | 15 << 36 | (total if promised is None else promised)
    info = stream + packed.to_bytes(8, "big") + bytes(16)  # MD5 unknown
    blocks = [_flac_block(number) for number in range(-(-total // 65_535) if written is None else written)]
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + b"".join(blocks)


def damaged_sounds(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield (name, contents) of files that must be refused: cut, of the wrong kind, lying, or made to exhaust.

    ``rng`` chooses where files are cut and what noise they hold.
    """
    data = (rng.normal(0, 3000, 4000)).astype("<i2").tobytes()
    sound = wav(data)
    flac = encoded(rng.normal(0, 0.1, 8000).astype(np.float32), 16_000, "FLAC")
    yield from _wrong_kinds(rng, sound, flac)
    yield "cut.wav", sound[: int(rng.integers(60, len(sound)))]
    yield "header only.wav", sound[:44]
    yield "half a header.wav", sound[: int(rng.integers(4, 44))]
    yield "cut.flac", flac[: int(rng.integers(len(flac) // 4, len(flac) // 2))]
    yield "no samples.wav", wav(b"")
    yield "9 channels.wav", wav(data, channels=9)
    yield "1000 channels.wav", wav(data, channels=1000)
    yield "0 channels.wav", wav(data, channels=0)
    for rate in (0, 3_999, 192_001, 2**32 - 1):
        yield f"{rate} Hz.wav", wav(data, rate=rate)
    for value in (np.nan, np.inf, -np.inf, 1e30, 1001.0):
        numbers = np.zeros(3000, dtype="<f4")
        numbers[int(rng.integers(3000))] = value
        yield f"{value}.wav", wav(numbers.tobytes(), tag=FLOAT, bits=32)
    yield "1e300.wav", wav(np.full(100, 1e300).tobytes(), tag=FLOAT, bits=64)
    yield "samples before format.wav", b"RIFF\0\0\0\0WAVE" + _chunk(b"data", data) + sound[12:36]
    yield "format of 4 bytes.wav", b"RIFF\0\0\0\0WAVE" + _chunk(b"fmt ", b"\1\0\1\0") + _chunk(b"data", data)
    yield "chunk of 4 GiB.wav", b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff" + sound[12:]
    yield "3 h promised.wav", wav(data, data_size=3 * 3600 * 32_000)
    yield "24 h of silence.flac", flac_silence(24 * 3600)
    yield "3 h of silence, length unknown.flac", flac_silence(3 * 3600, promised=0)
    yield "1 h promised, 16 s written.flac", flac_silence(3600, written=1)


def _wrong_kinds(rng: np.random.Generator, sound: bytes, flac: bytes) -> Iterator[tuple[str, bytes]]:
    noise = rng.bytes(4096)
    yield "empty.wav", b""
    yield "text.wav", b"these are the samples: 1 2 3\n"
    yield "one byte.wav", b"R"
    yield "random.wav", b"\0" + noise
    yield "IMA ADPCM.wav", wav(noise, tag=IMA_ADPCM, bits=4, align=256)
    yield "IMA ADPCM that overflows.wav", wav(noise, tag=IMA_ADPCM, channels=2, bits=4, align=65_535, block=65_535)
    yield "MS ADPCM.wav", wav(noise, tag=MS_ADPCM, bits=4, align=256)
    yield "GSM.wav", wav(noise, tag=GSM, bits=0, align=65)
    yield "IMA ADPCM as extensible.wav", wav(noise, tag=EXTENSIBLE, real_tag=IMA_ADPCM, bits=4, align=256)
    yield "IMA ADPCM behind ID3.mp3", b"ID3\4\0\0\0\0\0\0" + wav(noise, tag=IMA_ADPCM, bits=4, align=256)
    yield "ID3 without end.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + noise
    yield "FLAC behind ID3.flac", b"ID3\4\0\0\0\0\0\0" + flac
    yield "big-endian.wav", b"RIFX" + sound[4:]
    yield "OGG of something.ogg", b"OggS" + bytes(22) + b"\1\7fishead" + noise
    samples = np.zeros(2000, dtype=np.float32)
    for kind in ("AIFF", "AU", "W64", "RF64", "CAF", "VOC", "NIST", "PAF", "SVX", "MAT5"):
        yield f"{kind}.wav", encoded(samples, 16_000, kind)
    yield "mu-law of Sun.au", encoded(samples, 8_000, "AU", "ULAW")


def _chunk(marker: bytes, data: bytes) -> bytes:
    return marker + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _flac_block(number: int) -> bytes:
    """One frame of 65,535 zeros: a constant subframe of 16 bits (FLAC format, RFC 9639, section 9)."""
    head = b"\xff\xf8\x70\x08" + chr(number).encode("utf-8", "surrogatepass") + struct.pack(">H", 65_534)
    head += bytes([_crc(head, 0x07, 8)])
    frame = head + b"\0\0\0"
    return frame + struct.pack(">H", _crc(frame, 0x8005, 16))


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    value, top = 0, 1 << bits - 1
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & (2 * top - 1)
    return value
