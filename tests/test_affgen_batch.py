"""Many inputs: which there are, what is skipped, what fails without stopping the rest, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from affgen import batch
from affgen.errors import AffgenError
from affgen.files import atomic_write

ReadOnly = Callable[[], AbstractContextManager[Path]]
TYPES = (".mid", ".midi")


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ----------------------------------------------------------------------------------------------------------- sources


def test_a_folder_gives_its_files_by_name_in_order(tmp_path: Path) -> None:
    files(tmp_path, "b.mid", "a.MIDI", "sub/deep/c.mid", "note.txt", "d.midi.bak")
    assert batch.sources(tmp_path, TYPES) == {
        "a": tmp_path / "a.MIDI",
        "b": tmp_path / "b.mid",
        "sub/deep/c": tmp_path / "sub/deep/c.mid",
    }
    assert list(batch.sources(str(tmp_path), TYPES) or ()) == ["a", "b", "sub/deep/c"]


def test_a_list_gives_its_paths_by_key(tmp_path: Path) -> None:
    (tmp_path / "x.scp").write_text("one  /music/first piece.mid\n\ntwo\t\n song/3 rel/three.mid \n".replace("\t", " "))
    assert batch.sources(tmp_path / "x.scp", TYPES) == {
        "one": Path("/music/first piece.mid"),
        "two": Path(""),
        "song_3": Path("rel/three.mid"),
    }


@pytest.mark.parametrize("name", ["piece.mid", "missing.mid", "missing.scp"])
def test_anything_else_is_one_input(tmp_path: Path, name: str) -> None:
    files(tmp_path, "piece.mid")
    assert batch.sources(tmp_path / name, TYPES) is None


def test_an_empty_folder_or_list_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "folder/note.txt")
    (tmp_path / "x.scp").write_text("\n\n")
    for name in ("folder", "x.scp"):
        with pytest.raises(AffgenError, match=r"holds no \.mid or \.midi file$"):
            batch.sources(tmp_path / name, TYPES)


def test_commands_in_a_list_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "x.scp").write_text(f"one a.mid\ntwo touch {tmp_path}/ran |\n")
    with pytest.raises(AffgenError, match="two is a command; only paths"):
        batch.sources(tmp_path / "x.scp", TYPES)
    assert not (tmp_path / "ran").exists()


def test_files_that_differ_in_the_suffix_alone_are_refused(tmp_path: Path) -> None:
    """Both would be written to one output; neither is dropped in silence."""
    files(tmp_path, "a.mid", "a.midi")
    with pytest.raises(AffgenError, match="'a' comes twice"):
        batch.sources(tmp_path, TYPES)


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.scp").write_text("one a.mid\none b.mid\n")
    with pytest.raises(AffgenError):
        batch.sources(tmp_path / "x.scp", TYPES)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.scp").write_bytes(b"one \xff\xfe.mid\n")
    with pytest.raises(AffgenError):
        batch.sources(tmp_path / "x.scp", TYPES)


# --------------------------------------------------------------------------------------------------------------- run


def work(source: Path, out: Path) -> None:
    """Copy the name of the input; inputs called bad cannot be used."""
    if source.stem.startswith("bad"):
        raise AffgenError(f"{source}: is bad; accepted: good ones")
    atomic_write(out, source.name)


def run(names: list[str], out: Path, **options: Any) -> int:
    inputs = {name: Path(f"{name}.mid") for name in names}
    return batch.run(inputs, out, ".txt", options.pop("work", work), overwrite=options.pop("overwrite", False))


def test_every_input_has_its_output(tmp_path: Path) -> None:
    assert run(["a", "sub/b"], tmp_path / "out") == 0
    assert listing(tmp_path / "out") == ["a.txt", "sub", "sub/b.txt"]
    assert (tmp_path / "out/sub/b.txt").read_text() == "b.mid"


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["a", "bad1", "bad2", "z"], tmp_path / "out") == batch.FAILED == 3
    assert listing(tmp_path / "out") == ["a.txt", "failures.tsv", "z.txt"]
    rows = [line.split("\t") for line in (tmp_path / "out/failures.tsv").read_text().splitlines()]
    assert rows == [[f"bad{k}.mid", f"bad{k}.mid: is bad; accepted: good ones"] for k in (1, 2)]
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [f"error: {row[1]}" for row in rows]


def test_what_is_there_is_skipped_unless_it_is_to_be_overwritten(tmp_path: Path) -> None:
    out = files(tmp_path / "out", "a.txt", "failures.tsv")
    assert run(["a", "b"], out) == 0
    assert (out / "a.txt").read_text() == "a.txt" and (out / "b.txt").read_text() == "b.mid"
    assert not (out / "failures.tsv").exists()  # that of an earlier run, which no longer holds
    assert run(["a", "b"], out, overwrite=True) == 0
    assert (out / "a.txt").read_text() == "a.mid"


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    assert run(["a", "bad"], tmp_path / "out") == 3
    assert run(["a", "bad"], tmp_path / "out") == 3
    tried = []
    assert run(["a", "bad"], tmp_path / "out", work=lambda source, out: tried.append(source.stem)) == 0
    assert tried == ["bad"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_or_a_failure_of_ours_stops_the_run(tmp_path: Path, error: type[BaseException]) -> None:
    def stopped(source: Path, out: Path) -> None:
        if source.stem == "b":
            raise error
        work(source, out)

    with pytest.raises(error):
        run(["a", "b", "c"], tmp_path / "out", work=stopped)
    assert listing(tmp_path / "out") == ["a.txt"]


def test_an_output_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "file")
    for place, words in (("file", "is a file"), ("none/out", "does not exist; make it first")):
        with pytest.raises(AffgenError, match=words):
            run(["a"], tmp_path / place)
    assert listing(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_refused(read_only: ReadOnly) -> None:
    with read_only() as folder, pytest.raises(AffgenError):
        run(["a"], folder / "out")


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(read_only: ReadOnly) -> None:
    tried: list[Path] = []
    with read_only() as folder, pytest.raises(AffgenError, match="cannot be written to"):
        run(["a", "b"], folder, work=lambda source, out: tried.append(source) or work(source, out))
    assert tried == []


def test_odd_names_break_neither_the_line_nor_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bad\nerror: x\x1b[31m\ty"], tmp_path / "out") == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err
    (line,) = (tmp_path / "out/failures.tsv").read_text().splitlines()
    assert line.count("\t") == 1
