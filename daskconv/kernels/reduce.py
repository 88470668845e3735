"""Sums over rows, as a bias needs them for its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit


def sum_rows(rows: NDArray) -> NDArray:
    """Return the sum of a matrix's rows (rows, k) as (k,), first to last; NumPy's takes several times as long."""
    out = np.zeros(rows.shape[1], rows.dtype)
    _sum_rows(np.ascontiguousarray(rows), out)
    return out


@njit(otherwise=plain.sum_rows, nogil=True, cache=True)
def _sum_rows(rows, out):  # type: ignore[no-untyped-def]
    for m in range(rows.shape[0]):
        row = rows[m]
        for f in range(np.uint64(rows.shape[1])):
            out[f] += row[f]
