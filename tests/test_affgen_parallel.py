"""The parallel map: same results in the same order however it runs, errors that name the item, no leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affgen.errors import AffgenError
from affgen.parallel import AHEAD, pmap

ROOT = str(Path(__file__).resolve().parents[1])

# Functions for workers must be importable by name in a fresh process, which a test module need not be.
FUNCTIONS = """
import os, time
import numpy as np
from affgen.errors import AffgenError

def noise(seed):
    time.sleep(0.02 if seed % 3 == 0 else 0.0)  # so that results arrive out of order
    return np.random.default_rng(seed).standard_normal(100).tobytes()

def threads(_):
    return os.environ["OMP_NUM_THREADS"]

def picky(name):
    if name == "bad.mid":
        raise AffgenError("has no notes")
    if name == "worse.mid":
        raise ZeroDivisionError("division by zero")
    return name

def die(_):
    os._exit(9)
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "parallel_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), ROOT]))
    monkeypatch.delitem(sys.modules, "parallel_functions", raising=False)
    import parallel_functions

    yield parallel_functions
    sys.modules.pop("parallel_functions", None)


def test_results_do_not_depend_on_engine_or_jobs(work):
    expected = [work.noise(seed) for seed in range(40)]
    assert list(pmap(work.noise, range(40), engine="serial")) == expected
    assert list(pmap(work.noise, range(40), jobs=1)) == expected
    assert list(pmap(work.noise, range(40), jobs=2)) == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_name_the_item(work, jobs):
    with pytest.raises(AffgenError, match=r"^bad\.mid: has no notes$"):
        list(pmap(work.picky, ["a.mid", "bad.mid", "c.mid"], jobs=jobs))
    with pytest.raises(RuntimeError, match=r"^worse\.mid: ZeroDivisionError: division by zero$"):
        list(pmap(work.picky, ["worse.mid"], jobs=jobs))


def test_a_worker_that_dies_is_reported_not_waited_for(work):
    with pytest.raises(RuntimeError, match=r"^1: a worker died"):
        list(pmap(work.die, [1], jobs=2))


def test_workers_have_one_thread_and_this_process_keeps_its_own(work, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert list(pmap(work.threads, [0], jobs=2)) == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_items_are_taken_only_as_needed():
    taken = []
    results = pmap(abs, (taken.append(i) or i for i in range(1000)), jobs=2)
    assert next(results) == 0
    assert len(taken) <= 2 * AHEAD
    results.close()


def test_nothing_in_nothing_out():
    assert list(pmap(abs, [], jobs=2)) == []


def test_refusals():
    with pytest.raises(AffgenError, match="accepted: 1 or more"):
        pmap(abs, [1], jobs=0)
    with pytest.raises(AffgenError, match="accepted: process, serial, ray"):
        pmap(abs, [1], engine="threads")


def test_ray_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it now raises ImportError
    with pytest.raises(AffgenError, match=r"affgen\[dist\]"):
        pmap(abs, [1], jobs=2, engine="ray")


def test_ray_gives_the_same(work):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    try:
        assert list(pmap(work.noise, range(20), jobs=2, engine="ray")) == [work.noise(seed) for seed in range(20)]
        assert list(pmap(work.threads, [0], jobs=2, engine="ray")) == ["1"]
        with pytest.raises(AffgenError, match=r"^bad\.mid: has no notes$"):
            list(pmap(work.picky, ["bad.mid"], jobs=2, engine="ray"))
        with pytest.raises(RuntimeError, match=r"^worse\.mid: ZeroDivisionError"):
            list(pmap(work.picky, ["worse.mid"], jobs=2, engine="ray"))
    finally:
        ray.shutdown()


def test_killed_parent_leaves_no_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from affgen.parallel import pmap\n"
        "def work(i):\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    results = pmap(work, range(1000), jobs=2)\n"
        "    print(next(results), flush=True)\n"
        "    time.sleep(60)\n"
    )
    command, environment = [sys.executable, script], {**os.environ, "PYTHONPATH": ROOT}
    silent = subprocess.DEVNULL  # the resource tracker tells of the semaphores it cleans up
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=silent, text=True, env=environment) as process:
        worker = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(worker):
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie that nobody has reaped yet is dead
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
