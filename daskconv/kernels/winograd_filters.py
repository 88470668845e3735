"""Winograd's filters: transformed weights, packed by the threads that are about to multiply them, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.panels import copy_panels, copy_transposed_panel, options, tap_order, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.transform import FILTER, Transforms, transform, transforms_of
from daskconv.kernels.turns import end_turn, take, wait_for
from daskconv.kernels.winograd_tiles import tile_size
from daskconv.layout import even_parts

# Transformed filters: more than fit are done one part after another.
_FILTER_BYTES = 12 << 20
# Filters that wait in L2 to be transformed, read in the order of the weights.
_COPY_BYTES = 256 << 10


class Source(NamedTuple):
    """What filters are made from.

    Attributes
    ----------
    weights : array (r, s, c / groups, k), flat
    taps : array
        The number of each tap, row by row.
    transposed : bool
        Whether filters are those of the input gradient, which reads k channels and writes c.
    spans : array (number, 2)
        Ranges of a group's filters that a thread packs at a time.
    turns : array of 2
        How many spans were taken by a thread, and how many are packed.
    """

    weights: NDArray
    taps: NDArray[np.int64]
    transposed: bool
    spans: NDArray[np.int64]
    turns: NDArray[np.int64]


@dataclass(frozen=True)
class Filters:
    """Transformed weights in the order in which tiles of the micro-kernel read them.

    Attributes
    ----------
    panels : array (owners or 1, groups, points, panels, channels, panel width), flat but for the first axis
        Points are a ``stride`` apart.
    stride : int
    groups, channels, filters : int
        Groups, and the input and output channels of one.
    first, whole : int
        These filters are those from ``first`` on, of the ``whole`` number that a group has. With owners they are as
        many as the longest span.
    m, r : int
        Output pixels of a tile, and taps, along one axis.
    source : Source
    owned : bool
        Whether each thread has room for one span, instead of all threads for all of them.
    """

    panels: NDArray
    stride: int
    groups: int
    channels: int
    filters: int
    first: int
    whole: int
    m: int
    r: int
    source: Source
    owned: bool

    def copies(self, threads: int) -> NDArray:
        """Return room for what each thread copies before it transforms it (threads, panels, taps, some, width)."""
        source, dtype = self.source, self.panels.dtype
        width, taps = width_of(dtype), self.r * self.r
        longest = max(int(stop - first) for first, stop in source.spans)
        panels = 1 if source.transposed else -(-longest // width)
        some = _COPY_BYTES // (taps * panels * width * dtype.itemsize)
        channels = self.channels if source.transposed else min(self.channels, max(some, 1))
        return scratch("copy", (threads, panels, taps, channels, width), dtype)


def filter_spans(
    w: NDArray, correlation: Correlation, groups: int, parts: int, *, transposed: bool
) -> list[Pair]:
    """Return at least so many ranges of a group's filters, each small enough to be packed at once."""
    r, _, c, k = w.shape
    c, k = (k // groups, c) if transposed else (c, k // groups)
    points, width = (tile_size(correlation) + r - 1) ** 2, width_of(w.dtype)
    panels = -(-k // width)
    fit = max(_FILTER_BYTES // (points * c * width * w.itemsize * groups), 1)
    return panel_spans(w.dtype, (0, k), max(-(-panels // fit), parts))


def panel_spans(dtype: DTypeLike, span: Pair, parts: int) -> list[Pair]:
    """Cut a range of a group's channels, in whole panels: so often, or into single panels where these are fewer."""
    (first, end), width = span, width_of(dtype)
    panels = -(-(end - first) // width)
    return [
        (first + i * width, min(first + j * width, end)) for i, j in even_parts(panels, min(parts, panels))
    ]


def unpacked(
    w: NDArray,
    correlation: Correlation,
    groups: int,
    spans: Sequence[Pair],
    *,
    transposed: bool,
    owners: int = 0,
) -> Filters:
    """Return room for neighbouring ranges of a group's filters, of weights (r, s, c / groups, k).

    Threads share all of them, or, with ``owners``, each of so many has room for one. ``transposed`` swaps the
    channels, as the input gradient needs: it reads k and writes c.
    """
    r, _, c, k = w.shape
    c, k = (k // groups, c) if transposed else (c, k // groups)
    transforms = transforms_of(tile_size(correlation), r, w.dtype)
    first, end = spans[0][0], spans[-1][1]
    most = max(stop - start for start, stop in spans) if owners else end - first
    stride = odd_lines(padded(most, w.dtype) * c, transforms.itemsize)
    panels = scratch("panels", (max(owners, 1), groups * transforms.points**2 * stride), w.dtype)
    source = Source(
        w.reshape(-1), tap_order(correlation, r), transposed, np.array(spans, np.int64), np.zeros(2, np.int64)
    )
    return Filters(panels, stride, groups, c, most, first, k, transforms.m, r, source, owners > 0)


def padded(filters: int, dtype: DTypeLike) -> int:
    """Return how many filters that many take in whole panels."""
    width = width_of(dtype)
    return -(-filters // width) * width


def address_lists(transforms: Transforms, threads: int) -> NDArray[np.int64]:
    """Return room for the addresses that transforms read and write: four lists of a tile's points, a thread."""
    return scratch("addresses", (threads, 4, transforms.points**2), np.int64)


def odd_lines(elements: int, itemsize: int) -> int:
    """Return at least so many elements that make an odd number of cache lines: points never share a set."""
    line = 64 // itemsize
    return (-(-elements // line) | 1) * line


@njit(**options)
def fill(source, copy, packed, lists, transforms, sizes):  # type: ignore[no-untyped-def]
    """Transform and pack what other threads leave, span by span, and wait for theirs.

    ``packed`` are the panels, how far points lie apart, and the first filter; ``sizes`` are groups, and the channels
    and filters of one.
    """
    spans, turns = source.spans, source.turns
    turn = take(turns)
    while turn < len(spans):
        pack(source, copy, packed, lists, transforms, sizes, (spans[turn, 0], spans[turn, 1]))
        end_turn(turns)
        turn = take(turns)
    wait_for(turns, len(spans))


@njit(**options)
def pack(source, copy, packed, lists, transforms, sizes, span):  # type: ignore[no-untyped-def]
    """Transform filters from a copy in which those of a panel are neighbours: some channels of all, or a panel's."""
    (panels, stride, start), (groups, c, _) = packed, sizes
    w, order, transposed, _, _ = source
    points, size, width, some = transforms.points**2, transforms.itemsize, copy.shape[3], copy.shape[2]
    for g in range(groups):
        for point in range(points):
            lists[1, point] = panels.ctypes.data + size * (g * points + point) * stride
        if transposed:
            for first in range(span[0], span[1], width):
                copy_transposed_panel(w, order, sizes, g, first, copy[0])
                _transform_panel(transforms, copy[0], lists, (first - start) * c, c)
            continue
        for channel in range(0, c, some):
            end = min(channel + some, c)
            copy_panels(w, order, sizes, g, span, (channel, end), copy)
            for panel, first in enumerate(range(span[0], span[1], width)):
                _transform_panel(
                    transforms, copy[panel], lists, (first - start) * c + channel * width, end - channel
                )


@njit(**options)
def _transform_panel(transforms, panel, lists, to, channels):  # type: ignore[no-untyped-def]
    """Transform the first channels of a panel (taps, channels, width) of filters."""
    for tap in range(len(panel)):
        lists[0, tap] = panel[tap].ctypes.data
    transform(transforms, FILTER, lists[0], lists[1], 0, to, channels * panel.shape[2])
