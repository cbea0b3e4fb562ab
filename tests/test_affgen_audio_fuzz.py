"""Whatever the bytes, a sound file is read as finite mono samples or refused in one line.

The files are read in a process of their own with limits on memory and time, so that a crash of a decoder is seen, and
so is whatever C code writes to standard error. AFFGEN_FUZZ sets the number of damaged files; file N of a run alone:
``python tests/test_affgen_audio_fuzz.py FOLDER N N+1``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from affgen.audio import blocks, read
from affgen.errors import AffgenError
from affgen.testing_audio import KINDS, encoded, tone

FILES = max(500, int(os.environ.get("AFFGEN_FUZZ", "600")))
SEED = 20_261_123
SLOWEST_S = 5.0
MEMORY = 4 << 30  # of address space: libraries map far more than they use
NASTY = (0x00, 0x01, 0x02, 0x11, 0x7F, 0x80, 0xF8, 0xFE, 0xFF)


def seeds() -> list[tuple[str, bytes]]:
    """One small file of every kind that is accepted, and a few more of those with much of a parser."""
    shapes = {"OPUS": (48_000, 1), "MPEG_LAYER_III": (44_100, 2), "FLAC": (22_050, 2)}
    made = []
    for kind, subtype in (*KINDS, ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        rate, channels = shapes.get(subtype, shapes.get(kind, (16_000, 1)))
        made.append((kind, encoded(tone(0.15, rate, channels=channels), rate, kind, subtype)))
    return made


def mutate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Damage ``data`` one to four times, half of the time near its begin: bits, bytes, fields, cuts, splices."""
    buffer = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(min(len(buffer), 120) if rng.random() < 0.5 else len(buffer)))
        match rng.integers(8):
            case 0 | 1:
                buffer[at] ^= 1 << int(rng.integers(8))
            case 2:
                buffer[at] = NASTY[rng.integers(len(NASTY))]
            case 3:
                buffer[at : at + 4] = rng.bytes(4) if rng.random() < 0.5 else b"\xff\xff\xff\xff"
            case 4:
                buffer[at:] = b"" if rng.random() < 0.3 else buffer[at:]
            case 5:
                start = int(rng.integers(len(other)))
                buffer[at:at] = other[start : start + int(rng.integers(1, 400))]
            case 6:
                buffer[at : at + int(rng.integers(1, 40))] = b""
            case _:
                buffer[at:at] = buffer[at : at + 20] * int(rng.integers(1, 50))
        if not buffer:
            return b""
    return bytes(buffer)


def outcome(path: Path) -> tuple[str, float]:
    """Read ``path``; return "read", "refused" or what is wrong, and the seconds it took."""
    started = time.perf_counter()
    try:
        audio = read(path, sample_rate=22_050)
        pieces = np.concatenate(list(blocks(path, seconds=0.05)))
    except AffgenError as error:
        text = str(error)
        spent = time.perf_counter() - started
        fine = text.startswith(f"{path}: ") and text.isprintable() and len(text) < 400 and ";" in text
        return "refused" if fine else f"message {text!r}", spent
    except BaseException as error:
        return f"{type(error).__name__}: {error}", time.perf_counter() - started
    spent = time.perf_counter() - started
    samples = audio.samples
    if samples.ndim != 1 or not samples.size or samples.dtype != np.float32 or not np.isfinite(samples).all():
        return f"samples {samples.shape} {samples.dtype}", spent
    same = pieces.shape == samples.shape and np.abs(pieces - samples).max() <= 1e-6 * max(1, np.abs(samples).max())
    return "read" if same else f"blocks {pieces.shape} differ from the whole {samples.shape}", spent


def read_all(folder: Path, first: int, last: int) -> None:
    """Damage and read files ``first`` to ``last``; print a JSON summary, keep the number of the file at hand."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sound = seeds()
    counts: Counter[str] = Counter()
    wrong, slowest = [], 0.0
    for number in range(first, last):
        rng = np.random.default_rng([SEED, number])
        one, two = rng.integers(len(sound), size=2)
        path = folder / f"damaged.{sound[one][0].lower()}"
        path.write_bytes(mutate(rng, sound[one][1], sound[two][1]))
        (folder / "number").write_text(str(number), encoding="ascii")
        result, spent = outcome(path)
        slowest = max(slowest, spent)
        counts[f"{sound[one][0]} {result}" if result in ("read", "refused") else "wrong"] += 1
        if result not in ("read", "refused") or spent > SLOWEST_S:
            wrong.append(f"file {number}: {result} in {spent:.2f} s")
    print(json.dumps({"counts": counts, "wrong": wrong, "slowest": slowest}))


@pytest.mark.timeout(max(120, FILES // 20))
def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path):
    call = [sys.executable, __file__, str(tmp_path), "0", str(FILES)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=max(100, FILES // 25))
    at = (tmp_path / "number").read_text(encoding="ascii") if (tmp_path / "number").exists() else "none"
    assert done.returncode == 0, f"exit {done.returncode} at file {at}: {done.stderr[-2000:]}"
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert not report["wrong"], "\n".join(report["wrong"][:20])
    counts = report["counts"]
    assert sum(counts.values()) == FILES
    for kind in ("WAV", "FLAC", "OGG", "MP3"):  # the damage is of the kind that tells readers apart
        assert counts[f"{kind} refused"] >= FILES // 50, counts
    assert sum(counts.get(f"{kind} read", 0) for kind in ("WAV", "WAVEX", "MP3", "OGG")) >= FILES // 20, counts


def test_every_seed_is_read(tmp_path):
    for number, (kind, data) in enumerate(seeds()):
        path = tmp_path / f"{number}.{kind.lower()}"
        path.write_bytes(data)
        assert outcome(path)[0] == "read", (kind, outcome(path))


if __name__ == "__main__":
    read_all(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
