"""Weights in the order in which tiles read them: packed by the threads that are about to, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.panels import copy_panels, copy_transposed_panel, options, tap_order, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.turns import end_turn, take, wait_for

# Channels of all filters that a thread packs at a time, of one tap or, where channels are fewer, of some.
_CHANNELS = 32
# The part of a panel that is read for one tile after another stays in L2.
_PANEL_BYTES = 192 << 10


class Source(NamedTuple):
    """What panels are packed from.

    Attributes
    ----------
    weights : array (r, s, c / groups, k), flat
    taps : array
        The number of each tap that is packed, row by row.
    sizes : (int, int, int)
        Groups, and the input channels and filters of one.
    width : int
        Filters of a panel.
    transposed : bool
        Whether filters are those of the input gradient, which reads k channels and writes c.
    turns : array of 2
        How many parts were taken by a thread, and how many are packed.
    """

    weights: NDArray
    taps: NDArray[np.int64]
    sizes: tuple[int, int, int]
    width: int
    transposed: bool
    turns: NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """Packed weights.

    Attributes
    ----------
    panels : array (groups, panels, rows, taps, channels, panel width), flat
        Each group's output channels in panels of :data:`VECTORS` vectors, padded with zeros; from :meth:`fill` on.
    groups, channels, filters : int
        Groups, and the input and output channels of one.
    macs : int
        Multiplications that one output pixel needs.
    source : Source, optional
        None of a part, which is filled with the whole.
    """

    panels: NDArray
    groups: int
    channels: int
    filters: int
    macs: int
    source: Source | None = None

    def part(self, group: int, start: int, stop: int) -> Packed:
        """Return some filters of a group, from the first of a panel on, as those of lowered rows."""
        width = width_of(self.panels.dtype)
        depth = self.macs // (self.groups * self.filters)
        panel = group * -(-self.filters // width) + start // width
        size = depth * width
        panels = self.panels[panel * size : (panel - (start - stop) // width) * size]
        return Packed(panels, 1, depth, stop - start, depth * (stop - start))

    def fill(self) -> None:
        """Write the panels, together with all threads that call this, and return once all are written."""
        assert self.source is not None
        fill(self.source, self.panels)


def packed(w: NDArray, correlation: Correlation, groups: int, *, transposed: bool) -> Packed:
    """Return where the weights (r, s, c / groups, k) of a correlation are packed, not yet filled.

    ``transposed`` swaps the channels, as the input gradient needs: it reads k and writes c.
    """
    c, k = (w.shape[3] // groups, w.shape[2]) if transposed else (w.shape[2], w.shape[3] // groups)
    taps, width = tap_order(correlation, w.shape[1]), width_of(w.dtype)
    panels = scratch(
        f"panels {correlation.phase}", (groups * -(-k // width) * len(taps) * c * width,), w.dtype
    )
    source = Source(w.reshape(-1), taps, (groups, c, k), width, transposed, np.zeros(2, np.int64))
    return Packed(panels, groups, c, k, len(taps) * c * groups * k, source)


def start_of(packed: Packed, bias: NDArray | None) -> NDArray:
    """Return what sums begin with: a row of panels, flat."""
    width = width_of(packed.panels.dtype)
    start = scratch("start", (packed.groups, -(-packed.filters // width) * width), packed.panels.dtype)
    start[:] = 0
    if bias is not None:
        start[:, : packed.filters] = bias.reshape(packed.groups, -1)
    return start.reshape(-1)


def cut_of(packed: Packed, taps: int) -> Pair:
    """Return the kernel rows, of so many taps, and the channels of a panel that are added at once."""
    row_bytes = width_of(packed.panels.dtype) * packed.panels.itemsize
    kernel_row = taps * packed.channels * row_bytes
    if kernel_row <= _PANEL_BYTES:
        return max(1, _PANEL_BYTES // kernel_row), packed.channels
    return 1, max(1, _PANEL_BYTES // (taps * row_bytes))


@njit(**options)
def fill(source, panels):  # type: ignore[no-untyped-def]
    """Pack what other threads leave, part by part, and wait for theirs."""
    w, taps, sizes, width, transposed, turns = source
    groups, c, k = sizes
    every = panels.reshape((groups, (k + width - 1) // width, len(taps), c, width))
    parts = every.shape[1] if transposed else (c + _CHANNELS - 1) // _CHANNELS
    at_once = max(1, _CHANNELS // c)
    steps = (len(taps) + at_once - 1) // at_once
    turn = take(turns)
    while turn < groups * parts * steps:
        place, step = turn // steps, turn % steps
        group, part, first, last = place // parts, place % parts, step * at_once, (step + 1) * at_once
        some = taps[first:last]
        if transposed:
            copy_transposed_panel(w, some, sizes, group, part * width, every[group, part, first:last])
        else:
            channels = (part * _CHANNELS, min((part + 1) * _CHANNELS, c))
            room = every[group, :, first:last, channels[0] : channels[1]]
            copy_panels(w, some, sizes, group, (0, k), channels, room)
        end_turn(turns)
        turn = take(turns)
    wait_for(turns, groups * parts * steps)
