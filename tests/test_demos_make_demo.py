"""What ``make demo`` says and writes about voices, over stand-ins for the models."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affgen.audio import Audio, read
from demos.make_demo import EMOTIONS, INTENSITIES, SENTENCE, Line, make_voices, table


def test_the_sentence_is_the_one_that_its_readme_describes() -> None:
    notes = (SENTENCE.parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(SENTENCE.read_bytes()).hexdigest() in notes
    sound = read(SENTENCE)
    assert sound.sample_rate == 16_000 and f"{sound.duration_s:.2f} s" in notes
    assert SENTENCE.stat().st_size < 150_000 and 0.1 < abs(sound.samples).max() < 1


def test_every_emotion_and_intensity_is_converted_drawn_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float]] = []
    drawn: list[str] = []

    def run(source: Audio, emotion: str, intensity: float, *, seed: int) -> Any:
        asked.append((emotion, intensity))
        audio = Audio(source.samples[: round(len(source.samples) * (1 - intensity / 2))], source.sample_rate)
        return types.SimpleNamespace(audio=audio, source=None, features=None, intensity=np.zeros(1))

    class Judge:
        def read(self, audio: Audio) -> float:
            return audio.duration_s

        def strength(self, judged: float, label: str, anchor: float) -> float:
            return 2 * (anchor - judged) / anchor

    heard = types.SimpleNamespace(label="calm", valence=0.1, arousal=-0.4)
    encoder = types.SimpleNamespace(encode=lambda audio: heard, card_line="encoder: a stub")
    for name, part in (
        (
            "vc.convert",
            {"VoiceConverter": types.SimpleNamespace(from_pretrained=lambda: types.SimpleNamespace(run=run))},
        ),
        ("vc.judge", {"Judge": types.SimpleNamespace(from_pretrained=Judge)}),
        ("vc.picture", {"plot": lambda source, made, curve, path, title: drawn.append(f"{path.name}: {title}")}),
        ("affgen.emotion.encoder", {"load_encoder": lambda folder: encoder}),
    ):
        module = types.ModuleType(name)
        vars(module).update(part)
        monkeypatch.setitem(sys.modules, name, module)
    lines, remark = make_voices(tmp_path, seed=5)
    assert remark == "encoder: a stub" and len(lines) == 1 + len(asked) == 13
    assert asked == [(emotion, intensity) for emotion in EMOTIONS for intensity in INTENSITIES]
    assert {path.name for path in tmp_path.iterdir()} == {f"{line.name}.wav" for line in lines}
    assert drawn[0] == "voice_angry_0.33.png: angry  intensity 0.33  seed 5" and len(drawn) == 12
    assert lines[0].strength is None and [line.strength for line in lines[1:4]] == pytest.approx(INTENSITIES, abs=1e-3)


def test_the_table_has_a_dash_where_there_is_nothing_to_say() -> None:
    voice = Line("voice", "(source)", "calm", 0.1, -0.4, 3.06, None)
    rows = table([voice, Line("piece", "Q1", "Q1", 0.5, 0.5, 30.0, 1.234, notes=200)]).splitlines()
    assert rows[1].split() == ["voice", "(source)", "calm", "+0.10", "-0.40", "-", "-", "3.1", "-"]
    assert rows[2].split() == ["piece", "Q1", "Q1", "+0.50", "+0.50", "-", "200", "30.0", "1.23"]
    assert rows[0].index("notes") == rows[2].index("200")
