"""The process that runs pocketsphinx: ``python -m affgen.align.sphinx_worker``, one JSON object per line in and out.

In: ``{"samples": base64 of 16-bit samples at 16 kHz, "words": "hello world"}``. Out: ``{"phones": [[START, FRAMES,
NAME], ...]}`` in frames of 10 ms, or ``{"error": TEXT}``. It is a process of its own because the decoder can end the
one that it runs in; ``hyp()`` does so when it is called after the pass over the phones.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any


def main() -> None:
    """Answer the lines of standard input until it ends."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000, bestpath=False, loglevel="FATAL", beam=1e-80, wbeam=1e-60, pbeam=1e-80)
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"phones": aligned(decoder, json.loads(line))}
        except (RuntimeError, ValueError, KeyError) as error:
            answer = {"error": " ".join(str(error).split())[:200]}
        print(json.dumps(answer), flush=True)


def aligned(decoder: Any, job: dict[str, str]) -> list[list[Any]]:
    """Return [start, frames, name] of each phone; raises RuntimeError where the decoder finds no path."""
    samples = base64.b64decode(job["samples"])
    decoder.set_align_text(job["words"])
    _decode(decoder, samples)
    if decoder.hyp() is None:
        raise RuntimeError("no path through the words was found")
    decoder.set_alignment()
    _decode(decoder, samples)
    found = [[phone.start, phone.duration, phone.name] for word in decoder.get_alignment() for phone in word]
    if not found:
        raise RuntimeError("no path through the phones was found")
    return found


def _decode(decoder: Any, samples: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()


if __name__ == "__main__":
    main()
