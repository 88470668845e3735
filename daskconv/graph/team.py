"""Threads that stand by: they wait for work awake at first, because waking a thread takes longer than many a task.

They call a function of Python, or join in a kernel that another thread runs (:mod:`daskconv.kernels.fork_join`).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np

from daskconv.kernels.jit import enabled

if TYPE_CHECKING:
    from daskconv.kernels.fork_join import Helpers

# Of the 20 nanoseconds that a round of spinning takes: what lies between two layers, and what a thread does
# with Python's lock held before its kernel lets it go.
_AWAKE, _GRACE = 25_000, 300

# Where the system tells a thread's core and lets it choose some, as Linux does.
_core_now = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


class Count:
    """A number that rises, and that threads wait for."""

    def __init__(self) -> None:
        self._value = np.zeros(1, np.int64)
        self._rise = threading.Condition()
        self._sleepers = 0

    @property
    def value(self) -> int:
        """The number now."""
        return int(self._value[0])

    def rise(self) -> None:
        """Add 1."""
        with self._rise:
            self._value[0] += 1
            if self._sleepers:
                self._rise.notify_all()

    def rouse(self) -> None:
        """Wake those who sleep."""
        if self._sleepers:
            with self._rise:
                self._rise.notify_all()

    def wait(self, least: int) -> None:
        """Return once the number is at least so large."""
        if self._value[0] >= least:
            return
        if enabled():
            from daskconv.kernels.spin import spin

            if spin(self._value, least, _AWAKE, _GRACE):
                return
        while self._value[0] < least:
            self._sleep(least)

    def wait_or_join(self, least: int, number: int, helpers: Helpers) -> None:
        """Return once the number is at least so large; meanwhile join, as a thread of a number, in every kernel."""
        from daskconv.kernels.fork_join import is_open, stand_by

        seen = np.zeros(1, np.int64)
        while not stand_by(self._value, least, helpers.gate, number, seen, _AWAKE, _GRACE):
            self._sleep(least, lambda: is_open(helpers.gate))

    def _sleep(self, least: int, unless: Callable[[], bool] = lambda: False) -> None:
        """Sleep until the number rises or somebody rouses, unless there is something to do already."""
        with self._rise:
            self._sleepers += 1
            try:
                if self._value[0] < least and not unless():
                    self._rise.wait()
            finally:
                self._sleepers -= 1


# The cores of threads that stay on one of them for a while.
_cores_else: dict[int, set[int]] = {}


def cores_of(thread: int) -> set[int]:
    """Return the cores that a thread may run on, in general: one that a team helps may stay on one of them."""
    return _cores_else.get(thread) or os.sched_getaffinity(thread)


def _stay_on(thread: int, cores: set[int]) -> None:
    with suppress(OSError):  # a container may forbid it: it is a matter of speed only
        os.sched_setaffinity(thread, cores)


class Team:
    """Some threads that call one function all together, again and again, or join in a kernel of the caller."""

    def __init__(self, size: int) -> None:
        self._helpers = _helpers_of(size)
        self._calls, self._ends = Count(), Count()
        self._work: Callable[[], None] | None = None
        self._parted: tuple[int, set[int]] = (-1, set())
        self._staying = 0
        self._threads = [
            threading.Thread(target=self._stand_by, args=(number,), name=f"daskconv-{number}", daemon=True)
            for number in range(1, size + 1)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, work: Callable[[], None]) -> None:
        """Let each thread call ``work``, which must not raise."""
        self._work = work
        if _core_now and self._threads:
            self._part_cores(_core_now(), threading.get_native_id(), stay=True)
        self._calls.rise()

    def rouse(self) -> Helpers:
        """Have the threads awake, and return how the caller's kernel calls them."""
        assert self._helpers is not None
        if _core_now and self._threads:
            self._part_cores(_core_now(), threading.get_native_id(), stay=False)
        self._calls.rouse()
        return self._helpers

    @property
    def idents(self) -> list[int]:
        """The threads as ``threading.get_ident`` calls them."""
        return [thread.ident for thread in self._threads if thread.ident is not None]

    def join(self) -> None:
        """Return once all calls have ended."""
        self._ends.wait(len(self._threads) * self._calls.value)
        self._work = None
        if self._staying:
            _stay_on(self._staying, _cores_else.pop(self._staying))
            self._staying = 0

    def _part_cores(self, core: int, caller: int, stay: bool) -> None:
        """Keep the threads off the caller's core, and let the caller stay on it where the threads need all others.

        Linux wakes a thread next to the one that wakes it, as whoever lets Python's lock go does, and takes
        milliseconds to move it to an idle core.
        """
        cores = cores_of(caller)
        if (core, cores) != self._parted:
            self._parted = core, cores
            for thread in self._threads if len(cores) > 1 else []:
                assert thread.native_id is not None
                _stay_on(thread.native_id, cores - {core})
        if stay and len(cores) == len(self._threads) + 1 and not _cores_else:
            self._staying = caller
            _cores_else[caller] = cores
            _stay_on(caller, {core})

    def _stand_by(self, number: int) -> None:
        calls = 0
        while True:
            calls += 1
            if self._helpers is None:
                self._calls.wait(calls)
            else:
                self._calls.wait_or_join(calls, number, self._helpers)
            assert self._work is not None
            self._work()
            self._ends.rise()


def _helpers_of(size: int) -> Helpers | None:
    """Return a gate for so many threads, where there are kernels to join in."""
    if not enabled():
        return None
    from daskconv.kernels.fork_join import Helpers, closed_gate

    return Helpers(closed_gate(), size)


_idle: dict[tuple[int, int], list[Team]] = {}


@contextmanager
def team_of(size: int) -> Iterator[Team]:
    """Draw an idle team of so many threads: the one that worked last, whose threads are awake."""
    idle = _idle.setdefault((size, os.getpid()), [])
    try:
        team = idle.pop()
    except IndexError:
        team = Team(size)
    try:
        yield team
    finally:
        idle.append(team)


@contextmanager
def helped(size: int, work: Callable[[], None]) -> Iterator[None]:
    """Let a team of so many threads call ``work`` while the caller does its own, and wait for them at the end."""
    with team_of(size) as team:
        team.start(work)
        try:
            yield
        finally:
            team.join()
