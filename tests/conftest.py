"""What several test modules share: one miniature of each model per session, and the command line called in process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from affgen import cli


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line came to: exit code, standard output as bytes, standard error as text."""

    code: int
    out: bytes
    err: str

    def done(self) -> Outcome:
        assert self.code == 0, self
        return self

    def refused(self, *parts: str) -> Outcome:
        """Exit 2 with one line that begins with "error: " and holds ``parts``, and nothing on standard output."""
        assert (self.code, self.out) == (2, b""), self
        assert self.err.startswith("error: ") and self.err.endswith("\n") and self.err.count("\n") == 1, self
        assert len(self.err) < 600, self
        for part in parts:
            assert part in self.err, self
        return self

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.out.endswith(b"}\n") and self.out.count(b"\n") == 1, self
        return json.loads(self.out)


def call(*arguments: object, stdin: bytes = b"") -> Outcome:
    """Run ``affgen ARGUMENTS`` in this process; a plain function, so that property tests may call it many times."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = cli.main([str(argument) for argument in arguments])
    out.flush()
    return Outcome(code, out.buffer.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> Callable[..., Outcome]:
    return call


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of untrained networks that heed the emotion they are told."""
    import torch

    from music.config import MINIATURE
    from music.pack import pack
    from music.train import build

    folder = tmp_path_factory.mktemp("miniature") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, prior = build(MINIATURE)
        for part in (model, prior):
            torch.nn.init.normal_(part.conditions.emotion, std=3.0)
    pack(MINIATURE, model.eval(), prior.eval(), folder)
    return folder


@pytest.fixture(scope="session")
def composer(miniature: Path) -> Any:
    from music.compose import Composer

    return Composer.from_pretrained(miniature)


@pytest.fixture(scope="session")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A voice converter, read from its files: an untrained decoder that heeds the emotion, and emotions, prosody and
    calibration made up: labels differ in all of them, happy is heard early, disgust is heard no further than 1.1.
    """
    import numpy as np
    import torch

    from affgen.emotion.labels import LABELS
    from vc.config import MINIATURE
    from vc.convert import VoiceConverter
    from vc.feeling import Feeling
    from vc.model import Decoder
    from vc.pack import Parts, pack
    from vc.prosody import NAMES, Prosody
    from vc.wanted import Calibration

    rng, count, rank = np.random.default_rng(0), len(LABELS), MINIATURE.feeling.rank
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(MINIATURE.decoder, rank).eval()
        torch.nn.init.normal_(decoder.feeling.weight, std=2.0)
        torch.nn.init.normal_(decoder.flow_head.weight, std=0.1)
        decoder.mel_mean.copy_(torch.linspace(-3, -7, 80))  # as a voice falls off
        decoder.mel_scale.fill_(0.5)
    basis = np.linalg.qr(rng.standard_normal((256, rank)))[0].T
    places = rng.standard_normal((count, rank)) * (np.arange(count) > 0)[:, None]
    feeling = Feeling.from_arrays(
        LABELS, {"basis": basis, "origin": np.zeros(256), "prototypes": places, "plain": places}
    )
    offset = np.zeros((count - 1, len(NAMES)))
    for name, most in (("pitch", 0.3), ("range", 0.2), ("voiced", 0.25), ("gain", 0.5)):
        offset[:, NAMES.index(name)] = most * np.linspace(-1, 1.1, count - 1)
    prosody = Prosody(
        LABELS[1:], offset, 0 * offset, np.full_like(offset, 0.5), np.array(0.2), np.array([7.2, 6.5, 8.0, -0.7])
    )
    arrays = Calibration.identity(LABELS).arrays()
    arrays["strengths"][LABELS.index("happy")] = (0, 0.5, 0.8, 1, 1.1, 1.2, 1.3)
    arrays["reached"][LABELS.index("disgust")] = 1.1
    folder = tmp_path_factory.mktemp("converter") / "tiny"
    pack(Parts(MINIATURE, decoder, feeling, prosody, Calibration.from_arrays(LABELS, arrays)), folder)
    return VoiceConverter.from_pretrained(folder)


@pytest.fixture(scope="session")
def read_only() -> Callable[[], contextlib.AbstractContextManager[Path]]:
    """Enter a folder that cannot be written to, as another user where the tests run as root; skips without users."""

    @contextlib.contextmanager
    def entered() -> Iterator[Path]:
        root = os.geteuid() == 0
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o555)
        try:
            if root:
                os.setresuid(65534, 65534, 0)
            yield folder
        finally:
            if root:
                os.setresuid(0, 0, 0)
            folder.chmod(0o700)
            folder.rmdir()

    if not hasattr(os, "setresuid"):
        pytest.skip("needs the users of Linux")
    return entered


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch, composer: Any) -> Iterator[None]:
    """Keep the model and the evaluator in memory between calls of the command line."""
    from music.compose import Composer
    from music.evaluator import Evaluator

    evaluator = Evaluator.from_pretrained()
    monkeypatch.setattr(Composer, "from_pretrained", classmethod(lambda cls, folder=None: composer))
    monkeypatch.setattr(Evaluator, "from_pretrained", classmethod(lambda cls, folder=None: evaluator))
    yield
