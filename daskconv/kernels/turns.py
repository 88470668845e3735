"""Turns: ranges of lines that threads take one after another from inside compiled code, whoever is free.

A thread that enters its kernel late, because another one held Python's lock, takes fewer of them: all end together,
and no turn costs any Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.kernels.native import add_atomically
from daskconv.kernels.spin import give_way

Range = tuple[int, int]
"""A range of lines: output rows, counted over images and rows together, or pixels of all images."""


@dataclass(frozen=True)
class Turns:
    """Ranges of lines, an array (number, 2), and how many of them were taken, an array of one number.

    Examples
    --------
    >>> turns = Turns.of([(0, 4), (4, 6)])
    >>> [take(turns.taken) for _ in turns.lines], turns.longest
    ([0, 1], 4)
    """

    lines: NDArray[np.int64]
    taken: NDArray[np.int64]

    @classmethod
    def of(cls, lines: Sequence[Range]) -> Turns:
        """Return turns of which none is taken."""
        return cls(np.array(lines, np.int64).reshape(-1, 2), np.zeros(1, np.int64))

    @property
    def longest(self) -> int:
        """The lines of the longest turn."""
        return int((self.lines[:, 1] - self.lines[:, 0]).max(initial=0))


@njit(nogil=True, cache=True)
def take(taken):  # type: ignore[no-untyped-def]
    """Return the number of the next turn, which no other thread gets."""
    return add_atomically(taken.ctypes.data, 1)


@njit(nogil=True, cache=True)
def end_turn(taken):  # type: ignore[no-untyped-def]
    """Count a turn as done, for :func:`wait_for`: in the second of two numbers."""
    add_atomically(taken.ctypes.data + taken.itemsize, 1)


@njit(nogil=True, cache=True)
def wait_for(taken, number):  # type: ignore[no-untyped-def]
    """Return once so many turns are done."""
    while add_atomically(taken.ctypes.data + taken.itemsize, 0) < number:
        give_way()
