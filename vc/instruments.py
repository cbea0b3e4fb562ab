"""The instruments that sounds are read with: those of this project, and others' where they are installed.

=================  ================================================================================================
measured by        what
=================  ================================================================================================
``vc.judge``       probability of each label, strength along each direction, anchored at the source
Resemblyzer        the speaker (Wan et al. 2018); no model here was trained with it. Needs the extra ``eval``.
affgen.speaker     the speaker again, by the encoder that converters here are trained with: a second column only
affgen.align       phones, greedily from the network's posteriors
pocketsphinx       words, with its English trigram model. Needs the extra ``align``.
speechmos          DNSMOS (Reddy et al. 2022), if the package happens to be there
=================  ================================================================================================
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from affgen.align.lexicon import sphinx_models, words
from affgen.audio import Audio, resample
from vc.evaluate_tools import Embed, Listener, Reader, spoken

VOCABULARY = 5000
"""Words besides those of the texts that the recogniser may hear."""
RATE = 16_000
LEAST_S = 0.25
"""Voice shorter than this is given to the speaker encoder with its pauses."""


def instruments(judge: Listener, texts: Iterable[str]) -> tuple[Reader, list[str]]:
    """Return the instruments that are installed, and what is missing, in one line each."""
    from affgen.speaker import SpeakerEncoder

    missing = []
    own = SpeakerEncoder.from_pretrained()
    encoders: dict[str, Embed] = {"affgen": own.embed}
    foreign = _resemblyzer()
    if foreign is None:
        missing.append("speaker similarity by Resemblyzer: not installed (extra eval); affgen's own encoder alone")
    else:
        encoders = {"resemblyzer": foreign, **encoders}
    recogniser = _words(texts)
    if recogniser is None:
        missing.append("word errors: no English text, or pocketsphinx not installed (extra align)")
    mos = _mos()
    if mos is None:
        missing.append("DNSMOS: speechmos and onnxruntime not installed")
    return Reader(judge, encoders, _phones(), recogniser, mos), missing


def _phones() -> Callable[[np.ndarray], tuple[str, ...]]:
    from affgen.align import Aligner
    from affgen.align.phones import PHONES, SILENCE

    aligner = Aligner.from_pretrained()

    def heard(mel: np.ndarray) -> tuple[str, ...]:
        likeliest = aligner.posteriors(mel).argmax(axis=1)
        return tuple(PHONES[k] for k, _ in groupby(likeliest.tolist()) if PHONES[k] != SILENCE)

    return heard


def _resemblyzer() -> Embed | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks scipy for a name that is going away
            from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError:
        return None
    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(audio: Audio) -> np.ndarray:
        samples = audio.samples.clip(-1, 1)
        voiced = preprocess_wav(samples, audio.sample_rate)
        heard = voiced if len(voiced) > LEAST_S * RATE else resample(samples, audio.sample_rate, RATE)
        vector: np.ndarray = encoder.embed_utterance(heard)
        return vector / np.linalg.norm(vector)

    return embed


def _words(texts: Iterable[str]) -> Callable[[Audio], tuple[str, ...]] | None:
    """Return a recogniser of the words of ``texts`` among :data:`VOCABULARY` others."""
    said = {word for text in texts if spoken(text) for word in words(text)}
    try:
        from pocketsphinx import Decoder
    except ImportError:
        return None
    if not said:
        return None
    lines = [line for line in (sphinx_models() / "cmudict-en-us.dict").read_text("utf-8").splitlines() if line]
    own = [line for line in lines if line.split()[0].split("(")[0] in said]
    rest = [line for line in lines if line[0].isalpha() and "(" not in line.split()[0] and line.split()[0] not in said]
    rest = rest[:: max(1, len(rest) // VOCABULARY)]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "words.dict"
        listed.write_text("\n".join(sorted(own + rest)) + "\n", "utf-8")
        # "batch": what it hears before changes nothing
        decoder = Decoder(samprate=RATE, loglevel="FATAL", dict=str(listed), cmn="batch")

    def heard(audio: Audio) -> tuple[str, ...]:
        samples = resample(audio.samples, audio.sample_rate, RATE).clip(-1, 1)
        decoder.start_utt()
        decoder.process_raw((samples * 32_767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return tuple(word.split("(")[0] for word in found.hypstr.split()) if found else ()

    return heard


def _mos() -> Callable[[Audio], float] | None:
    try:
        from speechmos import dnsmos
    except ImportError:
        return None

    def overall(audio: Audio) -> float:
        samples = resample(audio.samples, audio.sample_rate, RATE).clip(-1, 1)
        return float(dnsmos.run(samples, RATE)["ovrl_mos"])

    return overall
