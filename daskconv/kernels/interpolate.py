"""Interpolation along one axis by a table: each output line is a sum of weighted input lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit
from daskconv.kernels.scratch import empty

_options: Any = {"nogil": True, "cache": True}


def interpolate(x: NDArray, axis: int, index: NDArray, weight: NDArray) -> NDArray:
    """Return ``x`` with its axis as long as the table: ``y[o] = sum of weight[o, t] * x[index[o, t]]``.

    Parameters
    ----------
    x : array, C-contiguous
    axis : int
    index : array of int64, (outputs, taps)
    weight : array (outputs, taps)
    """
    before, after = int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis + 1 :]))
    y = empty((before, len(index), after), x.dtype)
    _interpolate(x.reshape(before, x.shape[axis], after), index, weight.astype(x.dtype), y)
    return y.reshape(*x.shape[:axis], len(index), *x.shape[axis + 1 :])


@njit(otherwise=plain.interpolate, **_options)
def _interpolate(x, index, weight, y):  # type: ignore[no-untyped-def]
    length = np.uint64(x.shape[2])
    for i in range(len(x)):
        for o in range(len(index)):
            line = y[i, o]
            for t in range(index.shape[1]):
                factor, source = weight[o, t], x[i, index[o, t]]
                if t == 0:
                    for at in range(length):
                        line[at] = factor * source[at]
                else:
                    for at in range(length):
                        line[at] += factor * source[at]
