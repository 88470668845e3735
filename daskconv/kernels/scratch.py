"""Memory: arrays that begin at a cache line, and scratch buffers that a thread reuses.

A vector register is as long as a line: one that is stored across two lines costs twice. A fresh large array for each
block would cost more than its arithmetic.
"""

from __future__ import annotations

import threading
from math import prod

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LINE = 64  # bytes
# Linux gives memory in pages of so many bytes, cheaper than as many small ones, where they lie whole in an array.
_PAGE = 2 << 20

_buffers = threading.local()


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """Return an uninitialised array that begins at a cache line, a large one at a page; NumPy's begin anywhere."""
    size = prod(shape) * np.dtype(dtype).itemsize
    # What lies before and behind a large array is never touched, so that it takes no memory.
    start_at = _LINE if size < 2 * _PAGE else _PAGE
    memory = np.empty(size + start_at, np.uint8)
    start = -memory.ctypes.data % start_at
    return memory[start : start + size].view(dtype).reshape(shape)


def empty_like(array: NDArray) -> NDArray:
    """Return an uninitialised array of an array's shape and dtype."""
    return empty(array.shape, array.dtype)


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """Return this thread's buffer of that name, uninitialised; the next call of the name hands it out again."""
    needed = prod(shape) * np.dtype(dtype).itemsize
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.nbytes < needed:
        buffer = empty((needed,), np.uint8)
        setattr(_buffers, name, buffer)
    return buffer[:needed].view(dtype).reshape(shape)
