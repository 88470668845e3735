"""Filters side by side: the order in which the micro-kernel reads weights, a vector's filters as neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.kernels.tile import VECTORS, tiles_of

options: Any = {"nogil": True, "cache": True}


def width_of(dtype: Any) -> int:
    """Return the filters of a panel: those of a tile's vectors."""
    return VECTORS * tiles_of(dtype).lanes


def tap_order(correlation: Correlation, columns: int) -> NDArray[np.int64]:
    """Return the number, row by row, of the weights' tap that each tap of a correlation goes with."""
    rows, cols = np.array(correlation.kernel_rows), np.array(correlation.kernel_cols)
    return (rows[:, None] * columns + cols).reshape(-1).astype(np.int64)


@njit(**options)
def copy_panel(w, taps, transposed, sizes, group, first, panel):  # type: ignore[no-untyped-def]
    """Copy filters of a group from ``first`` on into a panel (taps, channels, width); those that are none become 0.

    ``w`` is flat. ``sizes`` are groups, and the channels and filters of one; ``transposed`` says that w has
    what are filters here as its channels, as the input gradient needs it.
    """
    groups, c, k = sizes
    filters = min(panel.shape[2], k - first)
    if filters < panel.shape[2]:
        panel[:] = 0
    for number, tap in enumerate(taps):
        to = panel[number]
        if transposed:
            at = ((tap * k + first) * groups + group) * c
            for f in range(filters):
                for channel in range(c):
                    to[channel, f] = w[at + f * groups * c + channel]
        else:
            at = (tap * c * groups + group) * k + first
            for channel in range(c):
                for f in range(filters):
                    to[channel, f] = w[at + channel * groups * k + f]
