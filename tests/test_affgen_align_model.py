"""The aligner's network, its first alignment, its paths, its training and its command."""

# ruff: noqa: RUF001 - the letters of IPA look like those of the alphabet

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affgen.align import Aligner, Segment, aligner, evaluate, path
from affgen.align.__main__ import main
from affgen.align.bootstrap import bootstrap
from affgen.align.config import MINIATURE, AlignerConfig, NetworkConfig, PathConfig
from affgen.align.material import Item, batches, collate, flat, load_items, loud
from affgen.align.network import Network
from affgen.align.pack import SHIPPED
from affgen.align.phones import INDEX, PHONES
from affgen.align.segments import FRAME_S
from affgen.align.train import CtcTask, FrameTask, train
from affgen.audio import Audio
from affgen.cli import guard
from affgen.datadir import DataDir
from affgen.errors import AffgenError, DataError, ModelError
from affgen.featuredir import write_index, write_shard
from affgen.files import atomic_write

WORDS = {"pan": "pan", "mama": "mama", "sum": "sum", "lot": "lɔt"}


def fabricated(seed: int, count: int = 30) -> list[tuple[str, np.ndarray, list[Segment]]]:
    """Utterances of Polish words: text, log-mel (80, T) of one spectrum for each phone, and the truth."""
    rng = np.random.default_rng(seed)
    spectra = {phone: np.random.default_rng(ord(phone)).normal(-3, 1.5, 80) for phone in "panmsulɔt"}
    found = []
    for _ in range(count):
        text = " ".join(rng.choice(list(WORDS), 3))
        at, columns, truth = 0, [], []
        for phone in ["sil", *"".join(WORDS[word] for word in text.split()), "sil"]:
            length = int(rng.integers(5, 13))
            spectrum = np.full(80, -11.0) if phone == "sil" else spectra[phone]
            columns.append(np.repeat(spectrum[:, None], length, axis=1) + rng.normal(0, 0.7, (80, length)))
            truth.append(Segment(at * FRAME_S, (at + length) * FRAME_S, phone))
            at += length
        found.append((text, np.concatenate(columns, axis=1).astype(np.float32), truth))
    return found


def items(seed: int, count: int = 30) -> tuple[list[Item], list[list[Segment]]]:
    made, truths = [], []
    for number, (_, mel, truth) in enumerate(fabricated(seed, count)):
        spoken = tuple(segment.phone for segment in truth if segment.phone != "sil")
        made.append(Item(f"u{number}", mel.astype(np.float16), spoken, flat(mel, spoken)))
        truths.append(truth)
    return made, truths


def data_directory(folder: Path, seed: int = 0, count: int = 12) -> Path:
    """A data directory of fabricated utterances with packed features."""
    texts, shard, index = {}, {}, {}
    for number, (text, mel, _) in enumerate(fabricated(seed, count)):
        name = f"s1-{number:02d}"
        texts[name] = text
        frames = mel.shape[1]
        shard |= {f"{name}/mel": mel.astype(np.float16), f"{name}/f0": np.zeros(frames, np.float32)}
        shard[f"{name}/energy"] = np.zeros(frames, np.float32)
        index[name] = ("00000.safetensors", frames)
    tables = {"wav.scp": dict.fromkeys(texts, "none.wav"), "utt2spk": dict.fromkeys(texts, "s1"), "text": texts}
    DataDir(folder, {**tables, "spk2utt": {"s1": " ".join(texts)}}).write()
    (folder / "features").mkdir()
    write_shard(folder / "features/00000.safetensors", shard, {})
    write_index(folder / "features", index)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_directory(tmp_path_factory.mktemp("data") / "train")


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exp") / "tiny"
    train(MINIATURE, [("pl", data)], out, quiet=True)
    return out / "model"


# -------------------------------------------------------------------------------------------------- first alignment


def test_the_bootstrap_finds_boundaries_that_a_flat_start_has_not() -> None:
    made, truths = items(0, 40)
    errors = []
    for labelled in (made, bootstrap(made)):
        late: list[evaluate.Boundary] = []
        for item, truth in zip(labelled, truths, strict=True):
            late += evaluate.agreement(truth, _runs(item.labels))
        errors.append(evaluate.summary(late)["median_ms"])
    assert errors[0] > 3 * FRAME_S * 1000 / 2
    assert errors[1] < FRAME_S * 1000


def test_a_sentence_that_is_repeated_does_not_lead_the_bootstrap_astray() -> None:
    """Its repetitions are aligned, but the model is fitted to a few of them only."""
    made, truths = items(6, 20)
    wrong = Item("w", made[0].mel, ("s", "u", "m"), flat(made[0].mel, ("s", "u", "m")))
    found = bootstrap([*[wrong] * 30, *made], repeats=1)
    assert len(found) == 50
    assert found[0].labels.shape == (made[0].mel.shape[1],)
    late = [
        b for item, truth in zip(found[30:], truths, strict=True) for b in evaluate.agreement(truth, _runs(item.labels))
    ]
    assert evaluate.summary(late)["median_ms"] < FRAME_S * 1000


def _runs(labels: np.ndarray) -> list[Segment]:
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
    return [Segment(a * FRAME_S, b * FRAME_S, PHONES[labels[a]]) for a, b in itertools.pairwise(edges)]


def test_a_flat_start_spreads_the_phones_over_the_loud_part() -> None:
    mel = np.full((80, 60), -11.0, np.float32)
    mel[:, 10:50] = -2.0
    assert loud(mel) == (10, 50)
    labels = flat(mel, ("p", "a", "n"))
    assert labels[:10].tolist() == [0] * 10 and labels[50:].tolist() == [0] * 10
    assert [PHONES[i] for i in dict.fromkeys(labels[10:50].tolist())] == ["p", "a", "n"]
    with pytest.raises(AffgenError, match="5 frames for 3 phones"):
        flat(mel[:, :5], ("p", "a", "n"))


# ------------------------------------------------------------------------------------------------ network and losses


def test_a_batch_gives_what_each_recording_alone_gives() -> None:
    torch.manual_seed(0)
    network = Network(NetworkConfig(width=16)).eval()
    made, _ = items(1, 4)
    batch = collate(made, MINIATURE)
    with torch.inference_mode():
        together = network(batch.mel, batch.mask)
        for i, item in enumerate(made):
            alone = network(batch.mel[i : i + 1, :, : item.mel.shape[1]], batch.mask[i : i + 1, : item.mel.shape[1]])
            torch.testing.assert_close(together[i, : item.mel.shape[1]], alone[0], atol=1e-4, rtol=1e-4)


def test_the_level_of_a_recording_does_not_matter() -> None:
    torch.manual_seed(0)
    network = Network(NetworkConfig(width=16)).eval()
    mel, mask = torch.from_numpy(fabricated(2, 1)[0][1])[None], None
    mask = torch.ones(1, mel.shape[2], dtype=torch.bool)
    with torch.inference_mode():
        torch.testing.assert_close(network(mel, mask), network(mel - 3.0, mask), atol=1e-3, rtol=1e-3)


def test_the_gradient_of_ctc_with_priors_is_that_of_its_value() -> None:
    torch.manual_seed(0)
    made, _ = items(3, 2)
    task = CtcTask(Network(NetworkConfig(width=4, dilations=(1,))), np.full(len(PHONES), 1 / len(PHONES)), 0.7)
    task.prior.copy_(torch.rand(len(PHONES)) + 0.1)
    task.eval().double()
    batch = collate(made, MINIATURE)
    batch = type(batch)(batch.mel.double(), batch.mask, batch.targets, batch.counts, batch.labels, batch.names)
    weight = task.network.head.weight
    task.losses(batch)["ctc"].backward()
    assert weight.grad is not None
    gradient = weight.grad
    for place in ((0, 0, 0), (INDEX["a"], 1, 0), (INDEX["ʐ"], 2, 0)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
                values.append(task.losses(batch)["ctc"].item())
                weight[place] -= step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(gradient[place].item(), rel=1e-3, abs=1e-6)


def test_frames_without_a_label_are_not_trained_on() -> None:
    torch.manual_seed(0)
    task = FrameTask(Network(NetworkConfig(width=8, dilations=(1,))).eval())
    made, _ = items(4, 2)
    short, long = collate(made[:1], MINIATURE), collate(made, MINIATURE)
    alone = [task.losses(collate([item], MINIATURE))["frames"].item() * item.mel.shape[1] for item in made]
    total = task.losses(long)["frames"].item() * sum(item.mel.shape[1] for item in made)
    assert total == pytest.approx(sum(alone), rel=1e-4)
    assert (short.labels >= 0).all()


def test_batches_depend_on_their_number_alone_and_hold_every_utterance_once() -> None:
    made, _ = items(5, 20)
    draw, again = (batches(made, AlignerConfig(), 400, 0) for _ in range(2))
    count = round(sum(item.mel.shape[1] for item in made) / 400)
    names = [name for index in range(count) for name in draw(index, 0, 1).names]
    assert set(names) == {item.name for item in made}
    assert torch.equal(draw(count + 2, 0, 1).mel, again(count + 2, 0, 1).mel)
    assert draw(5, 1, 2).names == again(11, 0, 1).names


# --------------------------------------------------------------------------------------------------------- best path


def scores(text: str, sharp: float = 8.0) -> torch.Tensor:
    """Log-scores of frames that are each clearly of the phone written ("-" is silence)."""
    out = torch.zeros(len(text), len(PHONES))
    for frame, phone in enumerate(text):
        out[frame, 0 if phone == "-" else INDEX[phone]] = sharp
    return out.log_softmax(dim=1)


def segments(text: str, spoken: str, **settings: float) -> list[tuple[str, int]]:
    found = path.segments(scores(text), list(spoken), PathConfig(**settings))
    return [(segment.phone, round((segment.end_s - segment.start_s) / FRAME_S)) for segment in found]


def test_silence_is_a_pause_only_where_it_lasts() -> None:
    assert segments("--aaaa--nnnn---", "an", pause=0.07) == [("sil", 2), ("a", 4), ("n", 6), ("sil", 3)]
    assert segments("--aaaa--------nnnn-", "an", pause=0.07) == [
        *(("sil", 2), ("a", 4), ("sil", 8), ("n", 4), ("sil", 1)),
    ]
    assert segments("aaaa---tt", "at", closure=0.14) == [("a", 4), ("t", 5)]  # a stop begins with its closure


def test_equal_neighbours_stay_two() -> None:
    assert [phone for phone, _ in segments("aannnn-nnnaa", "anna")] == ["a", "n", "n", "a"]
    assert [phone for phone, _ in segments("aannnnnnnaa", "anna")] == ["a", "n", "n", "a"]


def test_a_boundary_lies_between_frames() -> None:
    values = torch.full((4, len(PHONES)), -20.0)
    for frame, (a, n) in enumerate(((0.0, -9.0), (0.0, -1.0), (-3.0, 0.0), (-9.0, 0.0))):
        values[frame, INDEX["a"]], values[frame, INDEX["n"]] = a, n
    found = path.segments(values, ["a", "n"], PathConfig())
    assert found[0].end_s / FRAME_S == pytest.approx(1.5 + 1 / 4)
    late = np.zeros((5, 5))
    late[1, 4] = 0.004
    assert path.segments(values, ["a", "n"], PathConfig(), late)[0].end_s == pytest.approx(found[0].end_s - 0.004)
    late[1, 4] = 1.0  # a correction larger than the phone leaves something of it
    assert path.segments(values, ["a", "n"], PathConfig(), late)[0].end_s == pytest.approx(0.002)


@pytest.mark.parametrize(("spoken", "part"), [([], "no phones"), (["a", "a", "a"], "too few for 3 phones")])
def test_what_cannot_be_aligned_is_refused(spoken: list[str], part: str) -> None:
    with pytest.raises(AffgenError, match=part):
        path.best_path(scores("aaa-"), spoken)


# -------------------------------------------------------------------------------------- training, model, command line


def test_training_goes_on_where_it_was_and_makes_the_same_model(data: Path, model: Path, tmp_path: Path) -> None:
    train(MINIATURE, [("pl", data)], model.parent, resume=True, quiet=True)
    train(MINIATURE, [("pl", data)], tmp_path / "again", quiet=True)
    one, other = (json.loads((folder / "config.json").read_text()) for folder in (model, tmp_path / "again/model"))
    assert one["files"] == other["files"]
    with pytest.raises(AffgenError, match="holds a training already"):
        train(MINIATURE, [("pl", data)], model.parent, quiet=True)


def test_marks_are_used_only_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = data_directory(tmp_path / "d", count=2)
    label = "#\n 0.10 -1 p\n 0.15 -1 a\n 0.22 -1 n\n 0.30 -1 .\n"
    atomic_write(tmp_path / "00.lablaut", label)
    for use in (False, True):
        found, dropped = load_items([("pl", folder)], AlignerConfig(marks=use), tmp_path)
        assert not dropped
        assert found[0].phones == ("p", "a", "n")
        assert (found[0].marks is not None) == use
        assert found[1].marks is None
    config = AlignerConfig(**{**vars(MINIATURE), "marks": True})
    train(config, [("pl", folder)], tmp_path / "exp", labels=tmp_path, quiet=True)
    assert (tmp_path / "exp/marks/train.jsonl").is_file()


def test_data_without_text_is_refused(tmp_path: Path) -> None:
    folder = data_directory(tmp_path / "d", count=2)
    (folder / "text").unlink()
    with pytest.raises(DataError, match="no utterance can be used"):
        load_items([("pl", folder)], MINIATURE)


def test_a_model_aligns_text_and_phones_and_gives_units(model: Path) -> None:
    loaded = Aligner.from_pretrained(model)
    text, mel, truth = fabricated(7, 1)[0]
    found = loaded.align(mel, text, "pl")
    assert [s.phone for s in found if s.phone != "sil"] == [s.phone for s in truth if s.phone != "sil"]
    assert found[0].start_s == 0 and found[-1].end_s == pytest.approx(mel.shape[1] * FRAME_S)
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(found))
    assert loaded.align(mel, phones=["sil", *(s.phone for s in truth)]) == found
    units = loaded.units(mel)
    assert units.shape == (mel.shape[1],) and units.max() < MINIATURE.units.count
    runs = loaded.unit_segments(mel)
    assert runs[-1].end_s == pytest.approx(mel.shape[1] * FRAME_S) and runs[0].phone == f"u{units[0]}"
    assert loaded.posteriors(mel).sum(axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"text": "pan", "phones": ["p"]}, "either the text or the phones"),
        ({}, "either the text or the phones"),
        ({"phones": ["p", "qq"]}, "phone 'qq' is not known"),
        ({"text": "pan", "language": "xx"}, "language 'xx'"),
        ({"text": "pan", "language": "pl", "method": "sphinx"}, "pocketsphinx aligns English text"),
        ({"text": "pan", "method": "mfa"}, "method 'mfa'; accepted: ctc, sphinx"),
        ({"text": "pan", "language": "pl", "singing": True}, "the sound itself is needed"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Path, arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(AffgenError, match=part):
        aligner.align(fabricated(8, 1)[0][1], model=model, **arguments)
    for mel in (np.zeros((40, 9)), np.full((80, 9), np.nan), np.zeros((80, 0))):
        with pytest.raises(AffgenError, match="log-mel of shape"):
            aligner.align(mel, "pan", "pl", model=model)


def test_a_model_of_another_kind_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        Aligner.from_pretrained(tmp_path / "none")


def test_the_command_aligns_a_data_directory(
    data: Path, model: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    from affgen import align_cli

    def run(*arguments: object) -> int:
        parser = argparse.ArgumentParser()
        align_cli.add_align(parser.add_subparsers())
        args = parser.parse_args(["align", *map(str, arguments)])
        return args.run(args)

    grids = tmp_path / "grids"
    out = tmp_path / "out.ctm"
    assert run(data, "--language", "pl", "--model", model, "--out", out, "--textgrids", grids, "--quiet") == 0
    assert len(list(grids.glob("*.TextGrid"))) == 12
    assert len({line.split()[0] for line in out.read_text().splitlines()}) == 12
    assert run(data, "--method", "units", "--model", model, "--out", out) == 0
    assert out.read_text().split()[4].startswith("u")
    table = data / "text"
    lines = table.read_text()
    try:
        table.write_text(lines.replace("mama", "m4m4", 1))
        assert run(data, "--language", "pl", "--model", model, "--out", out, "--quiet") == 3
        assert len({line.split()[0] for line in out.read_text().splitlines()}) == 11
        table.unlink()
        with pytest.raises(DataError, match="has no text"):
            run(data, "--language", "pl", "--model", model)
    finally:
        table.write_text(lines)


def test_the_training_command_refuses_an_unknown_language(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, override in ((f"fr={data}", "cap=3"), (f"pl={data}", "network.width=0")):
        arguments = ["--data", value, "--out", str(tmp_path / "e"), override]
        assert guard(lambda arguments=arguments: main(arguments)) == 2  # type: ignore[misc]
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "e").exists()


# ----------------------------------------------------------------------------------------------------- pocketsphinx


def test_answers_of_pocketsphinx_become_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pocketsphinx")
    from affgen.align.sphinx import Sphinx

    audio = Audio(np.zeros(8000, np.float32), 16_000)
    with Sphinx() as sphinx:
        answer: dict[str, Any] = {"phones": [[0, 5, "SIL"], [5, 10, "HH"], [15, 20, "AY"], [35, 5, "+NOISE+"]]}
        monkeypatch.setattr(sphinx, "_ask", lambda job: answer)
        assert [(s.phone, s.start_s) for s in sphinx.align(audio, "hi")] == [
            *(("sil", 0), ("h", pytest.approx(0.0578)), ("aɪ", pytest.approx(0.1578)), ("sil", pytest.approx(0.3578))),
        ]
        answer = {"error": "no path"}
        with pytest.raises(AffgenError, match="pocketsphinx: no path: 'hi'"):
            sphinx.align(audio, "hi")
        answer = {}
        with pytest.raises(AffgenError, match="its process ended"):
            sphinx.align(audio, "hi")
        with pytest.raises(AffgenError, match="'hzzi': not in the CMU dictionary"):
            sphinx.align(audio, "hzzi")


def test_pocketsphinx_refuses_noise_and_lives_on() -> None:
    pytest.importorskip("pocketsphinx")
    from affgen.align.sphinx import Sphinx

    with Sphinx() as sphinx:
        for seconds in (0.0, 0.05):
            with pytest.raises(AffgenError, match="pocketsphinx"):
                sphinx.align(Audio(np.zeros(int(16_000 * seconds), np.float32), 16_000), "one two three four")


# ----------------------------------------------------------------------------------------------------- shipped model


def test_the_shipped_model_is_small_and_says_what_it_is() -> None:
    loaded = Aligner.from_pretrained()
    assert loaded.parts.config.licence
    assert (SHIPPED / "model.safetensors").stat().st_size < 4 << 20
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "Licence of the weights" in card


def test_the_shipped_model_finds_the_marks_of_held_out_speakers() -> None:
    root = os.environ.get("AFFGEN_DATA")
    if not root:
        pytest.skip("needs EmoDB: set AFFGEN_DATA to the folder that holds the corpora")
    from affgen.align.marks import label_file, read_lablaut

    loaded = Aligner.from_pretrained()
    late: list[evaluate.Boundary] = []
    for file in sorted(Path(root).glob("emodb/wav/1[56]*.ogg"))[::12]:
        label = label_file(Path(root) / "emodb/phones", f"emodb-16-{file.stem}")
        if label:
            marks = read_lablaut(label)
            late += evaluate.compare(marks, loaded.align(file, phones=[p for m in marks for p in m.phones]))
    report = evaluate.summary(late)
    assert report["count"] > 100
    assert report["median_ms"] < 12
