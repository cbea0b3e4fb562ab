"""Whatever the bytes, ``read_midi`` gives a score or one line; AFFGEN_FUZZ sets the number of damaged files."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from affgen.errors import AffgenError
from affgen.score import Note, Score, midi_bytes, read_midi
from affgen.testing import damaged_midis, fabricated_score

FILES = int(os.environ.get("AFFGEN_FUZZ", "600"))
SLOWEST_S = 5.0
NASTY = (0x00, 0x2F, 0x51, 0x58, 0x7F, 0x80, 0x90, 0x99, 0xB0, 0xF0, 0xF7, 0xFF)


def seeds() -> list[bytes]:
    """Sound files of a few kinds, small enough that a change often matters."""
    sung = Score((Note(0, 1, 60, 80, "la-"), Note(1, 1, 64, 80, "lo"), Note(1, 2, 60)), ticks_per_beat=96)
    running = (
        b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\x14\0\x90\x3c\x40\x60\x3c\0\0\x3e\x40\x60\x3e\0\0\xc0\1\0\xff\x2f\0"
    )
    pieces = [midi_bytes(fabricated_score(i, bars=1 + i, quadrant=f"Q{i + 1}")) for i in range(4)]
    return [midi_bytes(sung), running, *pieces]


def mutate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Damage ``data`` one to four times: bits, bytes, cuts, splices with ``other``, header fields, repeats."""
    buffer = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(buffer)))
        match rng.integers(7):
            case 0:
                buffer[at] ^= 1 << int(rng.integers(8))
            case 1:
                buffer[at] = NASTY[rng.integers(len(NASTY))]
            case 2:
                buffer[at:] = b""
            case 3:
                start = int(rng.integers(len(other)))
                buffer[at:at] = other[start : start + int(rng.integers(1, 200))]
            case 4:
                buffer[at : at + int(rng.integers(1, 40))] = b""
            case 5:
                field = int(rng.integers(4, 22))
                buffer[field : field + 1] = rng.bytes(1)
            case _:
                buffer[at:at] = buffer[at : at + 20] * int(rng.integers(1, 50))
        if not buffer:
            return b""
    return bytes(buffer)


def repaired(data: bytes) -> bytes:
    """Give a damaged file a sound frame again, so that the damage reaches the events."""
    body = data[22:] or b"\0"
    return b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + len(body).to_bytes(4, "big") + body


def check(data: bytes) -> bool:
    """Read ``data``; True for a score, False for a refusal in one line, in good time."""
    started = time.perf_counter()
    try:
        score = read_midi(data)
    except AffgenError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
        return False
    finally:
        assert time.perf_counter() - started < SLOWEST_S
    assert score.notes and 0 < score.duration_s <= 6 * 3600
    return True


@pytest.mark.timeout(max(60, FILES // 50))
def test_mutated_files_are_read_or_refused():
    rng = np.random.default_rng(20_240_601)
    sound = seeds()
    assert all(check(data) for data in sound)
    read = 0
    for number in range(FILES):
        first, second = rng.integers(len(sound), size=2)
        data = mutate(rng, sound[first], sound[second])
        data = repaired(data) if number % 2 else data
        try:
            good = check(data)
            read += good
            if good and number % 10 == 0:
                again = midi_bytes(read_midi(data))
                assert midi_bytes(read_midi(again)) == midi_bytes(read_midi(midi_bytes(read_midi(again))))
        except Exception as error:
            raise AssertionError(f"file {number} of the seed: {data.hex()}") from error
    # a fuzzer whose files are all refused at the door, or all pass, tests nothing
    assert FILES * 0.05 < read < FILES * 0.9


@pytest.mark.parametrize("seed", range(3))
def test_every_hostile_file_is_refused(seed):
    for name, data in damaged_midis(np.random.default_rng(seed)):
        assert not check(data), name
