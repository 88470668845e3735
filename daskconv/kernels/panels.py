"""Filters side by side: the order in which the micro-kernel reads weights, a vector's filters as neighbours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.kernels.native import copy_bytes, prefetch
from daskconv.kernels.tile import VECTORS, tiles_of

# Rows of weights that are asked for before they are copied: one from memory takes as long as copying a few.
_ROWS_AHEAD = 4
_LINE = 64  # bytes

options: Any = {"nogil": True, "cache": True}


def width_of(dtype: Any) -> int:
    """Return the filters of a panel: those of a tile's vectors."""
    return VECTORS * tiles_of(dtype).lanes


@lru_cache(4096)
def tap_order(correlation: Correlation, columns: int) -> NDArray[np.int64]:
    """Return the number, row by row, of the weights' tap that each tap of a correlation goes with, to be read only."""
    rows, cols = np.array(correlation.kernel_rows), np.array(correlation.kernel_cols)
    return (rows[:, None] * columns + cols).reshape(-1).astype(np.int64)


@njit(**options)
def copy_panels(w, taps, sizes, group, span, channels, panels):  # type: ignore[no-untyped-def]
    """Copy a range of filters of a group, some channels of theirs, to panels (panels, taps, channels, width).

    Weights (r, s, c / groups, k), flat, are read in their order. ``sizes`` are groups, and the channels and
    filters of one. Filters of the last panel that are none become 0.
    """
    groups, c, k = sizes
    width, size = panels.shape[3], w.itemsize
    for number, tap in enumerate(taps):
        for channel in range(channels[1] - channels[0]):
            row = ((tap * c + channels[0] + channel) * groups + group) * k
            to = panels.ctypes.data + number * panels.strides[1] + channel * panels.strides[2]
            for panel, first in enumerate(range(span[0], span[1], width)):
                filters = min(width, span[1] - first)
                at = w.ctypes.data + size * (row + first)
                # A span of a row is too short for the processor to see where the next will be.
                for byte in range(0, size * width, _LINE):
                    prefetch(at + size * _ROWS_AHEAD * groups * k + byte)
                copy_bytes(to, at, size * filters)
                for f in range(filters, width):
                    panels[panel, number, channel, f] = 0
                to += panels.strides[0]


@njit(**options)
def copy_transposed_panel(w, taps, sizes, group, first, panel):  # type: ignore[no-untyped-def]
    """Copy filters of a group from ``first`` on into a panel (taps, channels, width), from weights that swap the two.

    So the input gradient needs them: its filters are the channels of w, flat. Those that are none become 0.
    """
    groups, c, k = sizes
    filters = min(panel.shape[2], k - first)
    if filters < panel.shape[2]:
        panel[:] = 0
    for number, tap in enumerate(taps):
        to = panel[number]
        at = ((tap * k + first) * groups + group) * c
        for f in range(filters):
            for channel in range(c):
                to[channel, f] = w[at + f * groups * c + channel]
