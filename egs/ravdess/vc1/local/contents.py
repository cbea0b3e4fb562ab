"""Which content: clips of the speakers left out, copied without any change, from what each kind of content tells.

    python local/contents.py --data DIR --train DIR [--train DIR ...] [--model MODEL] [--leave_out ravdess-13 ...]

Prints a table in Markdown: phone and word errors beyond those of the vocoded source, in points; the similarity to the
speaker's other neutral clips by Resemblyzer; and the mel-cepstral distortion to the source, in dB.

* ``cepstra``: the decoder's average mel from the content it was trained on;
* ``pseudo-phonemes``: the same decoder from the phone that the aligner hears in each frame, as the mean content of that
  phone over the utterances of ``--train``: the information of an average voice (EmoReg), without the text;
* ``cepstra and what they miss``: what is shipped, :meth:`vc.decode.Decoding.missed` added frame by frame.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from tune import heard, shown

from affgen.align import Aligner
from affgen.audio import Audio
from affgen.cli import guard
from affgen.features import SAMPLE_RATE, Features, extract
from affgen.vocoder.source import fill_gaps
from vc import content
from vc.convert import VoiceConverter
from vc.decode import Voice, analyse, given_of, unchanged
from vc.evaluate_rows import chosen, load
from vc.instruments import instruments
from vc.judge import Judge

UTTERANCES = 400
"""Utterances of each directory that the means of the phones are taken over."""
Content = Callable[[Features, np.ndarray], np.ndarray]
"""From a recording and its content (C, T) to the content (C, T) that the decoder is given."""


def main(arguments: list[str]) -> int:
    """Copy, read and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="data directory of RAVDESS speech, its training speakers")
    parser.add_argument("--train", action="append", required=True, help="directory for the means of the phones")
    parser.add_argument("--model", help="model directory (default: the shipped one)")
    parser.add_argument("--leave_out", nargs="+", default=[f"ravdess-{actor}" for actor in (13, 14, 15, 16)])
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    converter, aligner = VoiceConverter.from_pretrained(args.model), Aligner.from_pretrained()
    clips = [clip for clip in load([args.data]) if any(fnmatchcase(clip.speaker, own) for own in args.leave_out)]
    picked = chosen(clips, None)
    reader, missing = instruments(Judge.from_pretrained(), {clip.text for clip in picked})
    print("\n".join(missing), file=sys.stderr)
    sources = heard(reader, clips, picked, converter.vocoder)
    means = phone_means(converter, aligner, args.train, args.leave_out)

    def by_phone(features: Features, own: np.ndarray) -> np.ndarray:
        return means[aligner.posteriors(features.mel).argmax(axis=1)].T

    print("| content | phones | words | Resemblyzer | MCD |\n| --- | --- | --- | --- | --- |")
    for name, change, whole in (
        ("cepstra", lambda features, own: own, False),
        ("pseudo-phonemes", by_phone, False),
        ("cepstra and what they miss", lambda features, own: own, True),
    ):
        readings = [reader.read(s, copied(converter, s.audio, change, whole), "happy", 0.0) for s in sources]
        print(row(name, readings), flush=True)
    return 0


def phone_means(
    converter: VoiceConverter, aligner: Aligner, folders: Sequence[str], leave_out: Sequence[str]
) -> np.ndarray:
    """Return the mean content (phones, C) of the frames in which the aligner hears each phone; 0 if it never does."""
    cepstra = converter.parts.config.decoder.cepstra
    sums, counts = 0.0, 0.0
    for folder in folders:
        clips = [clip for clip in load([folder]) if not any(fnmatchcase(clip.speaker, own) for own in leave_out)]
        for clip in clips[:: max(1, len(clips) // UTTERANCES)]:
            features = extract(clip.audio)
            voice, _ = analyse(features, converter.speakers, cepstra)
            posteriors = aligner.posteriors(features.mel)
            likeliest = np.eye(posteriors.shape[1])[posteriors.argmax(axis=1)]
            sums = sums + likeliest.T @ content_of(features, voice).T
            counts = counts + likeliest.sum(axis=0)
    found: np.ndarray = sums / np.maximum(counts, 1)[:, None]
    return found


def content_of(features: Features, voice: Voice) -> np.ndarray:
    """Return the content (C, T) that the decoder is trained on."""
    mel = content.levelled(features.mel, voice.level)
    return content.cepstra(mel, features.f0, len(voice.timbre)) - voice.timbre[:, None]


@torch.inference_mode()
def copied(converter: VoiceConverter, audio: Audio, change: Content, whole: bool) -> Audio:
    """Return ``audio`` through decoder and vocoder, nothing moved; with what is missed if ``whole``."""
    decoder, features = converter.parts.decoder, extract(audio)
    voice, energy = analyse(features, converter.speakers, converter.parts.config.decoder.cepstra)
    still, pitch = unchanged(features.f0, energy), np.log2(fill_gaps(features.f0))
    origin, part = np.zeros(converter.parts.config.feeling.rank), slice(0, len(features))
    given = given_of(features, voice, still, pitch, np.tile(origin, (len(features), 1)), part)
    spoken = change(features, given.content[0].numpy())
    average = decoder.average(replace(given, content=torch.from_numpy(spoken.astype(np.float32))[None]))[0]
    mel = decoder.finished(average, torch.zeros_like(average))[0].numpy()
    if whole:
        decoding = converter.decoding(converter.request())
        mel = mel + decoding.missed(features, voice, still, pitch, origin, part)
    mel = mel + (energy - content.log_energy(mel)) + voice.level
    return Audio(converter.vocoder.synthesize(mel, features.f0), SAMPLE_RATE)


def row(name: str, readings: Sequence[dict]) -> str:
    """Return a line of the table."""
    columns = [shown([[r["numbers"][key] for r in readings]], 1) for key in ("phones_change", "words_change")]
    voices = shown([[r["speaker_likeness"].get("resemblyzer", {}).get("others") for r in readings]], 3)
    return f"| {' | '.join([name, *columns, voices, shown([[r['numbers']['mcd'] for r in readings]], 1)])} |"


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
