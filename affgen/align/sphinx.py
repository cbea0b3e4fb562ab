"""English by pocketsphinx, whose package brings an acoustic model and the CMU dictionary along; in a process apart."""

from __future__ import annotations

import base64
import contextlib
import json
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from affgen.align.lexicon import pronounce, sphinx_models
from affgen.align.phones import SILENCE, from_arpabet
from affgen.align.segments import Segment
from affgen.errors import AffgenError

if TYPE_CHECKING:
    from affgen.audio import Audio

RATE = 16_000
FRAME_S = 0.01
LATE_S = 0.0128 - FRAME_S / 2
"""Frame i is a window of 25.6 ms that begins at i * 10 ms: its middle is later than that of the ten milliseconds."""
_LEVEL = 0.05
"""Root mean square that the sound is brought to: the decoder computes in 16 bits."""


class Sphinx:
    """A process of pocketsphinx that loads its model once; use it in a ``with`` block."""

    def __init__(self, *, timeout: float = 120.0) -> None:
        self.timeout = timeout
        self._worker: subprocess.Popen[str] | None = None
        sphinx_models()

    def __enter__(self) -> Sphinx:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def align(self, audio: Audio, text: str) -> list[Segment]:
        """Return the phones of English ``text`` in ``audio``, silences included; they fill it.

        Raises :class:`AffgenError` naming words that are not in the CMU dictionary, for a sound in which the words
        cannot be found, and when the process ends unasked or is silent for ``timeout`` seconds; the next call starts
        another one then.
        """
        words = " ".join(word.text for word in pronounce(text, "en"))
        answer = self._ask({"samples": base64.b64encode(_samples(audio)).decode(), "words": words})
        if "phones" not in answer:
            reason = answer.get("error", "its process ended or was silent too long")
            raise AffgenError(f"pocketsphinx: {reason}: {text[:60]!r}; accepted: a sound that holds these words")
        return _segments(answer["phones"], audio.duration_s)

    def _ask(self, job: dict[str, str]) -> dict[str, Any]:
        """Return the answer of the process, an empty one if there is none."""
        worker = self._worker = self._worker or self._start()
        line = ""
        if worker.stdin is not None and worker.stdout is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(json.dumps(job) + "\n")
                worker.stdin.flush()
                ready, _, _ = select.select([worker.stdout], [], [], self.timeout)
                line = worker.stdout.readline() if ready else ""
        if not line:
            self._stop()
        return json.loads(line) if line else {}

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "affgen.align.sphinx_worker"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            with contextlib.suppress(BrokenPipeError):
                self._worker.communicate()  # closes the pipes and waits
            self._worker = None


def align(audio: Audio, text: str) -> list[Segment]:
    """Return the phones of English ``text`` in ``audio``; raises as :meth:`Sphinx.align` does."""
    with Sphinx() as sphinx:
        return sphinx.align(audio, text)


def _samples(audio: Audio) -> bytes:
    from affgen.audio import resample

    x = resample(audio.samples, audio.sample_rate, RATE)
    level = float(np.sqrt(np.mean(x**2))) if len(x) else 0.0
    gain = min(_LEVEL / level, 0.99 / float(np.abs(x).max())) if level else 1.0
    return (np.clip(x * gain, -1, 1) * 32_767).astype("<i2").tobytes()


def _segments(phones: list[tuple[int, int, str]], duration_s: float) -> list[Segment]:
    """Return segments that fill ``duration_s`` of frames [start, frames, name]."""
    out: list[Segment] = []
    at = 0.0
    for start, frames, name in phones:
        begin, end = (0.0 if not i else min(i * FRAME_S + LATE_S, duration_s) for i in (start, start + frames))
        if begin > at + 1e-9:
            out.append(Segment(at, begin, SILENCE))
        if end <= begin:
            continue
        out.append(Segment(begin, end, SILENCE if name.startswith("+") else from_arpabet(name)))
        at = end
    if duration_s > at + 1e-9:
        out.append(Segment(at, duration_s, SILENCE))
    return _merged(out)


def _merged(segments: list[Segment]) -> list[Segment]:
    """Return the segments with silences that follow each other made one."""
    out: list[Segment] = []
    for segment in segments:
        if out and out[-1].phone == SILENCE == segment.phone:
            out[-1] = Segment(out[-1].start_s, segment.end_s, SILENCE)
        else:
            out.append(segment)
    return out
