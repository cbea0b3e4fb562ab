"""Map a function over a corpus: in this process, in a pool of processes, or on a Ray cluster; results in order.

The result does not depend on the engine or on the number of jobs, as long as the function is a pure function of its
item. Workers compute with one thread each, so that ``jobs`` is the number of busy cores.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, TypeVar

from affgen.errors import AffgenError

Item = TypeVar("Item")
Result = TypeVar("Result")
Engine = Literal["process", "serial", "ray"]

ENGINES = ("process", "serial", "ray")
AHEAD = 4
"""Items in work or waiting per job: enough to keep workers busy, few enough to bound memory."""

_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in _LIBRARIES}


def pmap(
    function: Callable[[Item], Result], items: Iterable[Item], *, jobs: int = 1, engine: Engine = "process"
) -> Iterator[Result]:
    """Yield ``function(item)`` for each of ``items``, in their order.

    With ``jobs`` > 1 and engine ``process`` or ``ray`` the function must be importable (no lambda, no local function);
    ``serial``, and ``process`` with one job, run in this process. Raises :class:`AffgenError` for ``jobs`` below 1, an
    unknown engine, Ray that is not installed, and, with the item named, for items that ``function`` refuses with one;
    :class:`RuntimeError`, with the item named, for whatever else ``function`` raises.
    """
    if engine not in ENGINES:
        raise AffgenError(f"engine {engine!r}; accepted: {', '.join(ENGINES)}")
    if jobs < 1:
        raise AffgenError(f"{jobs} jobs; accepted: 1 or more")
    if engine == "ray":
        return _ray(function, items, jobs)
    if engine == "serial" or jobs == 1:
        return (_call(function, item) for item in items)
    return _processes(function, items, jobs)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    """Call ``function``, adding the item to what it raises; runs in the worker, as exceptions must be picklable."""
    try:
        return function(item)
    except AffgenError as error:
        raise AffgenError(f"{_name(item)}: {error}") from error
    except Exception as error:
        raise RuntimeError(f"{_name(item)}: {type(error).__name__}: {error}") from error


def _name(item: object) -> str:
    return (item if isinstance(item, str) else repr(item))[:200]


def _processes(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Run in fresh processes (spawn: forking a process that has used threads may hang)."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    source = iter(items)
    try:
        while True:
            with _one_thread():  # a worker may start with any submission, and reads its environment then
                for item in islice(source, jobs * AHEAD - len(waiting)):
                    waiting.append((item, pool.submit(_call, function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool as error:
                raise RuntimeError(f"{_name(item)}: a worker died at or near it, perhaps for lack of memory") from error
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, which stops the pool, and end with the parent if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Set the environment that makes numerical libraries loaded by child processes use one thread."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _ray(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Run as Ray tasks, on the cluster this process is connected to or on a local one of ``jobs`` workers."""
    try:
        import ray
    except ImportError as error:
        raise AffgenError("engine ray: Ray is not installed; run: pip install 'affgen[dist]'") from error
    if not ray.is_initialized():
        ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": _ONE_THREAD})
    return _ray_results(ray, function, items, jobs)


def _ray_results(ray: Any, function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    task = ray.remote(_call)
    shared = ray.put(function)
    waiting: deque[Any] = deque()
    source = iter(items)
    try:
        while True:
            waiting.extend(task.remote(shared, item) for item in islice(source, jobs * AHEAD - len(waiting)))
            if not waiting:
                return
            try:
                result = ray.get(waiting.popleft())
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            yield result
    finally:
        for unfinished in waiting:
            ray.cancel(unfinished)
