"""Halos, in integers only: which part of which chunk a part of a result reads, one axis at a time.

A result's chunks follow those of the array it is made of; what it reads beyond its own chunk is the halo. A
chunk may be smaller than the halo, then several are read. Boundaries that repeat the image's pixels are runs of
the same kind, backwards where they reflect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.geometry import Window
from daskconv.graph.tiles import split

Range = tuple[int, int]

# numpy.pad's names of what lies beyond an image; "constant" is nowhere in it.
_OUTSIDE = -1


class Run(NamedTuple):
    """Elements of one chunk that go next to each other: ``to`` .. ``to + length`` is read from ``at``, by ``step``.

    ``step`` is 1, -1 where the run is reversed, 0 where one element is repeated.
    """

    chunk: int
    to: int
    length: int
    at: int
    step: int

    @property
    def span(self) -> Range:
        """The elements of the chunk that are read, as an ascending range."""
        last = self.at + (self.length - 1) * self.step
        return min(self.at, last), max(self.at, last) + 1


class Read(NamedTuple):
    """What one part of a result reads of an axis: an axis of ``length`` with ``pads`` of zeros that nobody stores."""

    length: int
    runs: tuple[Run, ...]
    pads: Range = (0, 0)

    @property
    def home(self) -> int:
        """The chunk of which most is read, -1 where none is."""
        return max(self.runs, key=lambda run: run.length).chunk if self.runs else -1


class WindowAxis(NamedTuple):
    """One axis of a window on an image of ``size`` pixels."""

    size: int
    kernel: int
    stride: int
    dilation: int
    pads: Range

    @property
    def extent(self) -> int:
        """Pixels from the first to the last tap."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return (self.size + sum(self.pads) - self.extent) // self.stride + 1


def window_axes(window: Window, image: Sequence[int]) -> tuple[WindowAxis, WindowAxis]:
    """Return the rows and the columns of a window on an image of (h, w) pixels."""
    rows, cols = (
        WindowAxis(*numbers)
        for numbers in zip(image, window.kernel, window.stride, window.dilation, window.padding, strict=True)
    )
    return rows, cols


def edges(chunks: Iterable[int]) -> list[int]:
    """Return where chunks begin and end.

    Examples
    --------
    >>> edges((3, 2))
    [0, 3, 5]
    """
    return list(accumulate(chunks, initial=0))


def ranges(chunks: Iterable[int]) -> list[Range]:
    """Return the ranges of an axis that are its chunks, empty ones left out; an axis of no elements is one range.

    Examples
    --------
    >>> ranges((3, 0, 2))
    [(0, 3), (3, 5)]
    """
    found = [(start, stop) for start, stop in pairwise(edges(chunks)) if start < stop]
    return found or [(0, 0)]


def output_ranges(axis: WindowAxis, chunks: Iterable[int]) -> list[Range]:
    """Return for each chunk of an image its outputs: output p is that of pixel p * stride.

    So a convolution of stride 1 with padding "same" has the chunks of its image.

    Examples
    --------
    >>> output_ranges(WindowAxis(6, 3, 2, 1, (1, 1)), (2, 4))
    [(0, 1), (1, 3)]
    """
    found = [min(-(-stop // axis.stride), axis.outputs) for _, stop in ranges(chunks)]
    return _between([0, *found[:-1], axis.outputs])


def pixel_ranges(axis: WindowAxis, chunks: Iterable[int]) -> list[Range]:
    """Return for each chunk of outputs the pixels from that of its first output to that of the next chunk's.

    Examples
    --------
    >>> pixel_ranges(WindowAxis(6, 3, 2, 1, (1, 1)), (2, 1))
    [(0, 4), (4, 6)]
    """
    found = [min(stop * axis.stride, axis.size) for _, stop in ranges(chunks)]
    return _between([0, *found[:-1], axis.size])


def _between(cuts: list[int]) -> list[Range]:
    return [(start, stop) for start, stop in pairwise(cuts) if start < stop]


def with_padding(axis: WindowAxis, spans: list[Range]) -> list[Range]:
    """Return the same ranges of pixels in the padded image, the padding with the first and the last.

    Examples
    --------
    >>> with_padding(WindowAxis(6, 3, 1, 1, (1, 2)), [(0, 4), (4, 6)])
    [(0, 5), (5, 9)]
    """
    cuts = [stop + axis.pads[0] for _, stop in spans[:-1]]
    return list(pairwise([0, *cuts, axis.size + sum(axis.pads)]))


def within(parts: list[list[Range]], limit: int, units: Sequence[int]) -> list[list[Range]]:
    """Cut the ranges of some axes further until no block has more than ``limit`` elements, first axes first.

    ``units`` are what each axis is cut in multiples of.

    Examples
    --------
    >>> within([[(0, 2)], [(0, 8)]], 4, (1, 1))
    [[(0, 1), (1, 2)], [(0, 4), (4, 8)]]
    """
    parts = list(parts)
    for i, (axis, unit) in enumerate(zip(parts, units, strict=True)):
        others = prod(max(stop - start for start, stop in other) for j, other in enumerate(parts) if j != i)
        most = max(limit // max(others, 1) // unit, 1)
        parts[i] = [
            (start + low * unit, start + high * unit)
            for start, stop in axis
            for low, high in split((stop - start) // unit, -(-((stop - start) // unit) // most))
        ]
    return parts


def whole(chunks: Sequence[int]) -> Read:
    """Return the read of a whole axis."""
    return part(edges(chunks), (0, sum(chunks)))


def part(at: list[int], span: Range) -> Read:
    """Return the read of a range of an axis whose chunks begin at ``at``."""
    start, stop = span
    runs = []
    for chunk in range(max(int(np.searchsorted(at, start, side="right")) - 1, 0), len(at) - 1):
        first, last = max(start, at[chunk]), min(stop, at[chunk + 1])
        if at[chunk] >= stop:
            break
        if first < last:
            runs.append(Run(chunk, first - start, last - first, first - at[chunk], 1))
    return Read(stop - start, tuple(runs))


def window_part(axis: WindowAxis, at: list[int], outputs: Range) -> Read:
    """Return what some outputs read of an image's axis, zeros beyond it."""
    start = outputs[0] * axis.stride - axis.pads[0]
    stop = (outputs[1] - 1) * axis.stride - axis.pads[0] + axis.extent
    low, high = max(start, 0), min(stop, axis.size)
    if low >= high:  # nothing but padding
        return Read(stop - start, ())
    return part(at, (low, high))._replace(pads=(low - start, stop - high))


def transposed_part(axis: WindowAxis, at: list[int], pixels: Range) -> Read:
    """Return which outputs' gradients some pixels need; the pads are those of a window on these pixels alone."""
    first = min(max(-(-(pixels[0] + axis.pads[0] - axis.extent + 1) // axis.stride), 0), axis.outputs - 1)
    # No window may begin after the first pixel: its padding would be less than none.
    first = min(first, (pixels[0] + axis.pads[0]) // axis.stride)
    last = min((pixels[1] - 1 + axis.pads[0]) // axis.stride, axis.outputs - 1)
    outputs = first, max(last, first) + 1
    before = axis.pads[0] + pixels[0] - outputs[0] * axis.stride
    spans = (outputs[1] - outputs[0] - 1) * axis.stride + axis.extent
    return part(at, outputs)._replace(pads=(before, max(spans - before - (pixels[1] - pixels[0]), 0)))


def places(size: int, pads: Range, mode: str) -> NDArray[np.int64]:
    """Return the pixel that each place of a padded axis shows; ``mode`` is one of numpy.pad's.

    Examples
    --------
    >>> places(3, (2, 1), "reflect"), places(3, (1, 1), "constant")
    (array([2, 1, 0, 1, 2, 1]), array([-1,  0,  1,  2, -1]))
    """
    outside = {"constant_values": _OUTSIDE} if mode == "constant" else {}
    return np.pad(np.arange(size), pads, mode=mode, **outside)  # type: ignore[call-overload]


def mapped_part(shown: NDArray, at: list[int]) -> Read:
    """Return the read of any sequence of pixels, such as a part of :func:`places`."""
    pixels = np.asarray(shown)
    chunks, steps = np.searchsorted(at, pixels, side="right") - 1, np.diff(pixels)
    linked = (abs(steps) <= 1) & (chunks[1:] == chunks[:-1])
    ends = np.flatnonzero(~linked[1:] | (steps[1:] != steps[:-1])) + 1
    runs, start = [], 0
    while start < len(pixels):
        stop, step = start + 1, 1
        if start < len(linked) and linked[start]:
            following = int(np.searchsorted(ends, start, side="right"))
            stop = int(ends[following]) + 1 if following < len(ends) else len(pixels)
            step = int(steps[start])
        if pixels[start] != _OUTSIDE:
            chunk = int(chunks[start])
            runs.append(Run(chunk, start, stop - start, int(pixels[start]) - at[chunk], step))
        start = stop
    return Read(len(pixels), tuple(runs))


def folded_parts(shown: NDArray, padded: list[int], at: list[int]) -> list[Read]:
    """Return for each chunk of an axis what of its padded copy is added to it: the pad's transpose.

    ``at`` and ``padded`` are where the chunks of either begin, ``shown`` are :func:`places`.
    """
    parts: list[list[Run]] = [[] for _ in pairwise(at)]
    for number, (start, stop) in enumerate(pairwise(padded)):
        for chunk, to, length, first, step in mapped_part(shown[start:stop], at).runs:
            if step == 0:
                parts[chunk] += [Run(number, first, 1, to + i, 1) for i in range(length)]
            elif step == 1:
                parts[chunk].append(Run(number, first, length, to, 1))
            else:
                parts[chunk].append(Run(number, first - length + 1, length, to + length - 1, -1))
    return [Read(stop - start, tuple(runs)) for (start, stop), runs in zip(pairwise(at), parts, strict=True)]
