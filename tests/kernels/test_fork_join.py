"""Threads that join in a kernel: each at most once, nobody who is late is waited for, and failures are told."""

import os
import subprocess
import sys
import threading
from time import sleep

import numpy as np
import pytest
from dask.callbacks import Callback

from daskconv.kernels.jit import importable

if not importable():
    pytest.skip("they join in compiled code", allow_module_level=True)

from numba import njit

from daskconv.geometry import Window
from daskconv.graph import conv
from daskconv.graph.team import team_of
from daskconv.kernels.fork_join import bound, closed_gate, fork, is_open
from daskconv.kernels.turns import take
from daskconv.timeline import record


@njit(nogil=True)
def _tell(number, taken, who, places):
    turn = take(taken)
    while turn < len(who):
        rest = 0.0
        for i in range(20_000):
            rest += 1 / (i + 1)
        who[turn] = number if rest > 0 else -1
        turn = take(taken)
    places[number] += 1


@njit(nogil=True)
def _tell_together(gate, taken, who, places):
    return fork(gate, bound(_tell, (taken, who, places)))


@njit(nogil=True)
def _divide(number, by):
    by[number + 1] = 7 // by[0]


@njit(nogil=True)
def _divide_together(gate, by):
    return fork(gate, bound(_divide, (by,)))


def tell(helpers, turns=400):
    """Return who took each turn, how often each thread was there, and how many helpers came."""
    who, places = np.full(turns, -1), np.zeros(helpers.threads, np.int64)
    came = _tell_together(helpers.gate, np.zeros(1, np.int64), who, places)
    return who, places, came


@pytest.mark.parametrize("size", [1, 3])
def test_each_helper_joins_a_kernel_at_most_once_and_all_turns_are_taken(size):
    came = 0
    with team_of(size) as crew:
        for _ in range(50):
            who, places, some = tell(crew.rouse())
            assert places[0] == 1 and places[1:].sum() == some and places.max() == 1
            assert set(who) <= set(np.flatnonzero(places))
            came += some
    assert came >= 25, "helpers hardly ever came"


def test_a_thread_alone_does_all():
    with team_of(0) as crew:
        who, places, came = tell(crew.rouse())
    assert came == 0 and (who == 0).all() and places.tolist() == [1]


def test_helpers_that_went_to_sleep_come_again():
    with team_of(1) as crew:
        for _ in range(5):
            assert any(tell(crew.rouse())[2] for _ in range(20))
            while not crew._calls._sleepers:
                sleep(0.01)


def test_nobody_waits_for_a_helper_that_is_late():
    """Which stands still before the gate, as one whose core Linux gave to another process."""
    started, leave = threading.Event(), threading.Event()

    def hold():
        started.set()
        leave.wait(timeout=60)

    with team_of(1) as crew:
        crew.start(hold)
        started.wait(timeout=20)
        who, _, came = tell(crew.rouse())
        assert came == 0 and (who == 0).all()
        leave.set()
        crew.join()


def test_teams_work_beside_each_other():
    found = []

    def work():
        with team_of(1) as crew:
            for _ in range(30):
                who, places, some = tell(crew.rouse(), 40)
                found.append(set(who) <= {0, 1} and places.sum() == 1 + some)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert len(found) == 120 and all(found)


def test_a_kernel_that_fails_on_any_thread_is_told_and_the_gate_is_closed():
    with team_of(1) as crew:
        for _ in range(20):
            helpers = crew.rouse()
            with pytest.raises(RuntimeError, match="failed on one of its threads"):
                _divide_together(helpers.gate, np.zeros(3, np.int64))
            assert not is_open(helpers.gate)
        by = np.array([2, 0, 0])
        _divide_together(crew.rouse().gate, by)
        assert by[1] == 3


def test_a_gate_counts_on_where_its_state_is_large():
    gate = closed_gate()
    gate[0] += (1 << 31) - 2 << 32
    who, places = np.full(10, -1), np.zeros(1, np.int64)
    for _ in range(4):
        who[:] = -1
        assert _tell_together(gate, np.zeros(1, np.int64), who, places) == 0
        assert (who == 0).all() and not is_open(gate)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_has_teams_of_its_own():
    code = (
        "import os, numpy as np, daskconv\n"
        "x, w = np.ones((16, 28, 28, 16), np.float32), np.ones((3, 3, 16, 64), np.float32)\n"
        "conv = lambda: daskconv.conv2d(x, w, method='implicit')\n"
        "want = conv()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if np.array_equal(conv(), want) else 3)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_the_threads_of_a_team_are_told_apart():
    with team_of(2) as crew:
        assert len({*crew.idents, threading.get_ident()}) == 3


def test_a_recording_sees_the_helpers_that_came():
    x, w = np.ones((32, 28, 28, 32), np.float32), np.ones((3, 3, 32, 64), np.float32)
    window, seen = Window.of(3, (28, 28), padding=1), set()
    for _ in range(20):
        with record() as spans:
            conv.forward(x, w, None, window, "implicit", 2)
        assert {span.stage for span in spans} == {"convolve"}
        assert spans[0].thread == threading.get_ident() and len({span.thread for span in spans}) == len(spans)
        seen.add(len(spans))
    assert 2 in seen and seen <= {1, 2}


def test_callbacks_of_dask_see_a_pass_as_a_task():
    x, w = np.ones((32, 28, 28, 32), np.float32), np.ones((3, 3, 32, 64), np.float32)
    window, seen = Window.of(3, (28, 28), padding=1), []
    with Callback(posttask=lambda key, *_: seen.append(key)):
        watched = conv.forward(x, w, None, window, "implicit", 2)
    assert seen == [("block", 0)]
    assert np.array_equal(watched, conv.forward(x, w, None, window, "implicit", 2)) and len(seen) == 1
