"""How far apart two cores are: what one of them wrote, the other one reads through a cache of both, or not."""

import os
import threading
from time import perf_counter

import numpy as np
from numba import njit

from daskconv.kernels.native import add_atomically

_ROUNDS = 5000


@njit(nogil=True)
def _answer(count, turn, rounds):  # type: ignore[no-untyped-def]
    """Raise a number whenever it is this thread's turn."""
    for number in range(rounds):
        while add_atomically(count.ctypes.data, 0) != 2 * number + turn:
            pass
        add_atomically(count.ctypes.data, 1)


def hand_over_ns() -> int | None:
    """Return the nanoseconds in which a number goes from one of the first two cores to the other, if there are two."""
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    _answer(np.zeros(1, np.int64), 0, 1)
    count, took = np.zeros(1, np.int64), []

    def take_part(turn: int) -> None:
        os.sched_setaffinity(0, {cores[turn]})
        started = perf_counter()
        _answer(count, turn, _ROUNDS)
        took.append(perf_counter() - started)

    threads = [threading.Thread(target=take_part, args=(turn,)) for turn in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(1e9 * min(took) / (2 * _ROUNDS))
