"""The threads of this process: how many, and one BLAS thread each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import dask
from threadpoolctl import OpenBLASController, ThreadpoolController

from daskconv.errors import check_count
from daskconv.graph.crew import Crew
from daskconv.graph.team import cores_of
from daskconv.kernels import heap

# Added to the niceness of what reads or writes beside the steps: they need the cores, it has a step's time.
_NICE = 10


def available_threads() -> int:
    """Return the threads to use: Dask's configuration ``daskconv.threads``, else the cores of this process."""
    threads = dask.config.get("daskconv.threads")
    return check_threads(threads) if threads else len(cores())


def cores() -> list[int]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(cores_of(threading.get_native_id()))
    return list(range(os.cpu_count() or 1))


@cache
def share_cores(system: str = "/sys/devices/system/cpu") -> bool:
    """Return whether some of this process's cores are threads of one core (SMT), as far as Linux tells."""
    siblings = (Path(system, f"cpu{core}", "topology", "thread_siblings_list") for core in cores())
    lists = [path.read_text() for path in siblings if path.exists()]
    return len(set(lists)) < len(lists)


def check_threads(threads: int) -> int:
    """Return ``threads``, or raise InputError unless it is an int of at least 1."""
    return check_count(threads, "threads")


def step_back() -> None:
    """Give this thread all cores of the process, and what the others leave of them."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a container may forbid it: it is a matter of speed only
            os.sched_setaffinity(0, cores_of(os.getpid()))
            nice = os.getpriority(os.PRIO_PROCESS, os.getpid()) + _NICE
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(nice, 19))


def execute(graph: Mapping, keys: Sequence[Any], threads: int) -> Any:
    """Run a graph on so many threads, this one among them, and return the values of ``keys``."""
    with serial_blas():
        return Crew(graph).run(keys, threads)


class _Cap:
    """A process-wide setting held at 1 while anybody needs it so; the last one to leave restores it."""

    def __init__(self, hold: Callable[[], Callable[[], Any]]) -> None:
        self.hold, self.users, self.lock = hold, 0, threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.restore = self.hold()
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.users == 0:
                    self.restore()


def _hold_blas() -> Callable[[], Any]:
    _free_blas()
    limit = _controller().limit(limits=1, user_api="blas")

    def restore() -> None:
        _free_blas()
        limit.restore_original_limits()
        _free_blas()

    return restore


def _free_blas() -> None:
    """Let any thread set the limit: from threadpoolctl 3.8 on only the first one can, the others do nothing unsaid."""
    clear = getattr(OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


def _hold_numexpr() -> Callable[[], Any]:
    import numexpr

    threads = numexpr.set_num_threads(1)
    return lambda: numexpr.set_num_threads(threads)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


serial_blas = _Cap(_hold_blas)
"""Context: BLAS keeps to one thread. Blocks are the parallelism, and the bits stay as they are."""

_serial_numexpr = _Cap(_hold_numexpr)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep BLAS and numexpr to one thread; changing numexpr's takes a millisecond, so hold it for many blocks.

    Whoever runs a network's blocks comes by here, so that it is here that the process begins to keep its heap.
    """
    heap.keep()
    with serial_blas(), _serial_numexpr():
        yield
