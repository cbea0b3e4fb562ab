"""The house rules that no linter knows: nothing that runs code from data, nothing overlong, every package checked."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("affgen", "vc", "svs", "music", "demos")

MAX_FILE, MAX_FUNCTION = 550, 60  # lines; the aim is 400 and 40
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    *("torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "os.system", "os.popen", "pandas.read_pickle"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.unsafe_load"),
    *("yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all", "eval", "exec", "compile"),
}
KEYWORDS = {"allow_pickle", "shell", "weights_only"}  # only False may be passed


def offences(source: str, package: bool) -> Iterator[str]:
    """Yield "LINE: what" for each offence; ``package`` adds the rules for code that users run."""
    tree = ast.parse(source)
    if len(source.splitlines()) > MAX_FILE:
        yield f"1: more than {MAX_FILE} lines"
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        for what in _of_node(node, names, package):
            yield f"{getattr(node, 'lineno', 1)}: {what}"


def _of_node(node: ast.AST, names: dict[str, str], package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
        yield f"imports {node.module}"
    elif isinstance(node, ast.Call):
        name = _dotted(node.func, names)
        if name in CALLS:
            yield f"calls {name}"
        for keyword in node.keywords:
            harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in KEYWORDS and not harmless:
                yield f"passes {keyword.arg}"
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION:
            yield f"{node.name} has {length} lines, more than {MAX_FUNCTION}"
    elif isinstance(node, ast.Assert) and package:
        yield "asserts, which python -O removes; raise an AffgenError"


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (name in the file, full name): ``import numpy as np`` -> ("np", "numpy")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.asname, a.name) for a in node.names if a.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def files() -> list[Path]:
    """Return the Python files of the project: those of git where there is one, else all outside hidden folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.py"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [p for p in ROOT.rglob("*.py") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.exists())


def test_no_file_offends() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{offence}"
        for path in files()
        for offence in offences(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parts[0] in PACKAGES)
    ]
    assert len(files()) > 20
    assert not found, "\n" + "\n".join(found)


PLANTED = {
    "import pickle": "imports pickle",
    "import joblib.hashing as x": "imports joblib.hashing",
    "from shelve import open": "imports shelve",
    "def f():\n    from dill import loads": "imports dill",
    "import torch\ntorch.load('x')": "calls torch.load",
    "import torch as t\nt.save({}, 'x')": "calls torch.save",
    "from torch import load as read\nread('x', weights_only=True)": "calls torch.load",
    "import numpy as np\nnp.load('x', allow_pickle=True)": "passes allow_pickle",
    "import numpy as np\nnp.load('x', allow_pickle=flag)": "passes allow_pickle",
    "eval('1')": "calls eval",
    "exec('1')": "calls exec",
    "compile('1', '', 'exec')": "calls compile",
    "import subprocess\nsubprocess.run('ls', shell=True)": "passes shell",
    "import os\nos.system('ls')": "calls os.system",
    "from os import popen\npopen('ls')": "calls os.popen",
    "import yaml\nyaml.load('a')": "calls yaml.load",
    "assert x": "asserts",
    "def f():\n" + "    x = 1\n" * 60: "f has 61 lines",
    "x = 1\n" * 551: "more than 550 lines",
}


@pytest.mark.parametrize("source", PLANTED, ids=PLANTED.values())
def test_a_planted_offence_is_found(source: str) -> None:
    assert any(PLANTED[source] in offence for offence in offences(source, package=True))


def test_harmless_code_is_left_alone() -> None:
    source = (
        """
import ast, re, numpy as np, torch, yaml
model.eval()
re.compile("x")
ast.literal_eval("1")
np.load("x", allow_pickle=False)
yaml.safe_load("a")
subprocess.run(["ls"], shell=False)
def f():
"""
        + "    x = 1\n" * 59
    )
    assert list(offences(source, package=True)) == []
    assert list(offences("assert x", package=False)) == []


def test_every_package_is_checked_for_layers_and_types() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    present = {name for name in PACKAGES if any((ROOT / name).glob("**/*.py"))}
    for pattern in (r"^root_packages = \[(.*)\]", r"^files = \[(.*)\]"):
        (listed,) = re.findall(pattern, text, re.MULTILINE)
        assert present <= set(re.findall(r"\w+", listed))
