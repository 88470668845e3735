"""Threads that share a pass's lines, and the packing of its weights, from inside compiled code."""

import threading

import numpy as np
import pytest

from daskconv.geometry import Window, forward_correlation
from daskconv.kernels.jit import importable

if not importable():
    pytest.skip("turns are taken by compiled code", allow_module_level=True)

from daskconv.kernels.packed import packed
from daskconv.kernels.turns import Turns, take


def together(work, threads=4):
    """Call ``work`` on some threads at once; return what each returned."""
    start, found = threading.Barrier(threads), []

    def run():
        start.wait(timeout=20)
        found.append(work())

    crew = [threading.Thread(target=run) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(timeout=60)
    assert len(found) == threads
    return found


def test_each_turn_is_taken_once():
    ranges = [(i, i + 1) for i in range(5000)]
    turns = Turns.of(ranges)

    def each():
        mine = []
        while (turn := take(turns.taken)) < len(ranges):
            mine.append((turn, tuple(turns.lines[turn].tolist())))
        return mine

    taken = sorted(turn for mine in together(each) for turn in mine)
    assert taken == list(enumerate(ranges))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_weights_that_threads_pack_together_are_those_of_one(groups, transposed):
    w = np.random.default_rng(0).standard_normal((3, 3, 150 // groups, 90), np.float32)
    correlation = forward_correlation(Window.of(3, (9, 9), padding=1), 9, 9)
    alone = packed(w, correlation, groups, transposed=transposed)
    alone.panels[:] = np.nan
    alone.fill()
    want = alone.panels.copy()
    assert np.isfinite(want).all() and np.isin(w, want).all()
    for _ in range(20):
        shared = packed(w, correlation, groups, transposed=transposed)
        shared.panels[:] = np.nan

        def whole(shared=shared):
            shared.fill()
            return bool((shared.panels == want).all())

        assert all(together(whole)), "whoever returns finds all of them packed"
