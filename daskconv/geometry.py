"""Window: what a kernel sees of an image, in integers only.

Axes follow one alphabet everywhere: images ``n h w c``, weights ``r s c k``, outputs ``n p q k``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from operator import index
from typing import Any

from daskconv.errors import InputError

Pair = tuple[int, int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Window:
    """A sliding window with every option resolved to integers.

    Attributes
    ----------
    kernel, stride, dilation : (int, int)
        Rows, columns.
    padding : ((int, int), (int, int))
        ((top, bottom), (left, right)), in pixels.
    groups : int
        Channel groups; 1 for pooling.
    ceil_mode : bool
        Round the output size up; the last window starts inside the image or its left padding. Caffe's
        pooling always does, PyTorch's with ``ceil_mode=True``.

    Examples
    --------
    >>> window = Window.of((5, 5), (32, 32), padding="same")
    >>> window.output_size(32, 32)
    (32, 32)
    >>> Window.of(3, (32, 32), stride=2, ceil_mode=True).output_size(32, 32)
    (16, 16)
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    ceil_mode: bool = False

    @classmethod
    def of(
        cls,
        kernel: int | Sequence[int],
        image: Pair,
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        ceil_mode: bool = False,
    ) -> Window:
        """Resolve a user's options for an image of (h, w) pixels; "same" depends on its size."""
        kernel, stride, dilation = (
            as_pair(value, name)
            for value, name in ((kernel, "kernel"), (stride, "stride"), (dilation, "dilation"))
        )
        extent = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
        pads = resolve_padding(padding, image, extent, stride)
        window = cls(kernel, stride, pads, dilation, groups, ceil_mode)
        window.check(image)
        return window

    @property
    def extent(self) -> Pair:
        """Rows and columns from the first to the last tap, holes of the dilation included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))  # type: ignore[return-value]

    @property
    def taps(self) -> int:
        """Pixels that one output pixel reads: r * s."""
        return prod(self.kernel)

    def check(self, image: Pair) -> None:
        """Raise InputError where the window does not fit an image of (h, w) pixels."""
        for axis, size, extent, pad, step in zip(
            "hw", image, self.extent, self.padding, self.stride, strict=True
        ):
            if size < 1:
                raise InputError(f"{axis} is {size}: an image needs at least one pixel.")
            if _positions(size, extent, pad, step, self.ceil_mode) < 1:
                raise InputError(
                    f"The kernel spans {extent} pixels of {axis} but the padded image has {size + sum(pad)}: "
                    "use a smaller kernel or dilation, or more padding."
                )

    def output_size(self, h: int, w: int) -> Pair:
        """Return (p, q), the output pixels of an image of (h, w) pixels."""
        return tuple(  # type: ignore[return-value]
            _positions(size, extent, pad, step, self.ceil_mode)
            for size, extent, pad, step in zip((h, w), self.extent, self.padding, self.stride, strict=True)
        )

    def flops(self, images: int, h: int, w: int, c: int, k: int) -> int:
        """Return the floating-point operations of one convolution pass, padded taps included."""
        p, q = self.output_size(h, w)
        return 2 * images * p * q * self.taps * (c // self.groups) * k


@dataclass(frozen=True)
class Correlation:
    """One plain sum over taps: ``y[n, i, j] = sum of x[n, i * step + rows, j * step + cols]``.

    A convolution's forward pass is one of these. Its input gradient is ``stride_h * stride_w`` of
    them, one for each residue of the input pixel modulo the stride, with step 1 and the weights
    flipped: no tap is computed that the stride would have skipped.

    Attributes
    ----------
    rows, cols : tuple of int
        Offsets of the taps in the image that is read; may lie outside of it (zeros are read).
    step : (int, int)
        Distance of neighbouring outputs in the image that is read.
    size : (int, int)
        Output rows and columns.
    kernel_rows, kernel_cols : tuple of int
        The row r and column s of the weight that each offset goes with.
    phase, spacing : (int, int)
        The output pixel (i, j) is written at ``phase + spacing * (i, j)`` of the whole result.
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    step: Pair
    size: Pair
    kernel_rows: tuple[int, ...]
    kernel_cols: tuple[int, ...]
    phase: Pair = (0, 0)
    spacing: Pair = (1, 1)


@lru_cache(maxsize=1024)
def forward_correlation(window: Window, h: int, w: int) -> Correlation:
    """Return the correlation that is the forward pass on an image of (h, w) pixels."""
    (top, _), (left, _) = window.padding
    (r, s), (dr, ds) = window.kernel, window.dilation
    return Correlation(
        rows=tuple(i * dr - top for i in range(r)),
        cols=tuple(j * ds - left for j in range(s)),
        step=window.stride,
        size=window.output_size(h, w),
        kernel_rows=tuple(range(r)),
        kernel_cols=tuple(range(s)),
    )


@lru_cache(maxsize=1024)
def input_grad_correlations(window: Window, h: int, w: int) -> tuple[Correlation, ...]:
    """Return the correlations over the output gradient that together write each input pixel once."""
    return tuple(
        Correlation(
            rows=tuple(offset for offset, _ in row_taps),
            cols=tuple(offset for offset, _ in col_taps),
            step=(1, 1),
            size=(-(-(h - a) // window.stride[0]), -(-(w - b) // window.stride[1])),
            kernel_rows=tuple(tap for _, tap in row_taps),
            kernel_cols=tuple(tap for _, tap in col_taps),
            phase=(a, b),
            spacing=window.stride,
        )
        for a, row_taps in enumerate(_phases(window, 0))
        for b, col_taps in enumerate(_phases(window, 1))
        if a < h and b < w
    )


def _phases(window: Window, axis: int) -> list[list[tuple[int, int]]]:
    """For each residue of the input pixel: the (offset in dy, tap) that reach it, offsets ascending."""
    stride, dilation = window.stride[axis], window.dilation[axis]
    before = window.padding[axis][0]
    phases: list[list[tuple[int, int]]] = []
    for residue in range(stride):
        distances = ((residue + before - tap * dilation, tap) for tap in range(window.kernel[axis]))
        phases.append(sorted((d // stride, tap) for d, tap in distances if d % stride == 0))
    return phases


def as_pair(value: int | Sequence[int], name: str) -> Pair:
    """Return (value, value) for an int and (rows, columns) for a pair; each at least 1."""
    try:
        rows, cols = map(index, value if isinstance(value, Sequence) else (value, value))
    except (TypeError, ValueError):
        rows = cols = 0
    if min(rows, cols) < 1:
        raise InputError(f"{name} is {value!r}: give an int or a pair (rows, columns), each at least 1.")
    return rows, cols


def resolve_padding(padding: Padding, image: Pair, extent: Pair, stride: Pair) -> tuple[Pair, Pair]:
    """Return ((top, bottom), (left, right)) of an int, a pair, a pair of pairs, "same" or "valid".

    "same" is TensorFlow's and ONNX's SAME_UPPER: ceil(size / stride) outputs, the odd pixel at the end.
    """
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "same":
        totals = [
            max((-(-size // step) - 1) * step + span - size, 0)
            for size, step, span in zip(image, stride, extent, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)  # type: ignore[return-value]
    try:
        rows, cols = tuple(padding) if isinstance(padding, Sequence) else (padding, padding)
        sides = _two_sides(rows), _two_sides(cols)
    except (TypeError, ValueError):
        sides = ((-1, -1), (-1, -1))
    if min(map(min, sides)) < 0:
        raise InputError(
            f"padding is {padding!r}: give an int, a pair (rows, columns), "
            '((top, bottom), (left, right)) of ints of at least 0, "same" or "valid".'
        )
    return sides


def _two_sides(side: Any) -> Pair:
    before, after = map(index, side if isinstance(side, Sequence) else (side, side))
    return before, after


def _positions(size: int, extent: int, pad: Pair, step: int, ceil_mode: bool) -> int:
    span = size + sum(pad) - extent
    if not ceil_mode:
        return span // step + 1
    count = -(-span // step) + 1
    # The last window has to start inside the image or its left padding, or it would see nothing.
    return count - 1 if (count - 1) * step >= size + pad[0] else count
