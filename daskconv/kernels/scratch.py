"""Scratch buffers that a thread reuses: a fresh large array for each block costs more than its arithmetic."""

from __future__ import annotations

import threading
from math import prod

import numpy as np
from numpy.typing import DTypeLike, NDArray

_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """Return this thread's buffer of that name, uninitialised; the next call of the name hands it out again."""
    needed = prod(shape) * np.dtype(dtype).itemsize
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.nbytes < needed:
        buffer = np.empty(needed, np.uint8)
        setattr(_buffers, name, buffer)
    return buffer[:needed].view(dtype).reshape(shape)
