"""Convolution and pooling by their definitions, in float64 NumPy, and what the tests draw and compare.

Nothing is shared with daskconv: sizes, paddings and gradients are worked out again from the definition.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from daskconv.errors import InputError

METHODS = ("direct", "lowering", "pipelined", "implicit", "fft")
if os.environ.get("DASKCONV_JIT") == "0":
    METHODS = ("lowering", "pipelined", "fft")  # the others are refused, as test_jit.py tests
MIXED = ("fft",)
"""Methods in which all pixels of a tile meet: rounding errors are relative to norms, not to a result's own terms."""
EXACT = tuple(method for method in METHODS if method not in MIXED)
PASSES = ("forward", "input_grad", "weight_grad")


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def extent_of(kernel, dilation):
    return tuple((k - 1) * d + 1 for k, d in zip(pair(kernel), pair(dilation)))


def pads_of(padding, image, kernel, stride, dilation):
    """((top, bottom), (left, right)) of whatever a user may give."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        pads = []
        for size, extent, step in zip(image, extent_of(kernel, dilation), pair(stride)):
            outputs = (size + step - 1) // step
            missing = max(0, (outputs - 1) * step + extent - size)
            pads.append((missing // 2, missing - missing // 2))
        return tuple(pads)
    return tuple(pair(side) for side in pair(padding))


def taps_of(padded, kernel, stride, dilation):
    """Yield (row, column, pixels): what each tap reads for all outputs, as a view (n, p, q, c)."""
    p, q = outputs_of(padded.shape[1:3], kernel, stride, dilation)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (p - 1) * stride[0] + 1, stride[0])
            cols = slice(left, left + (q - 1) * stride[1] + 1, stride[1])
            yield i, j, padded[:, rows, cols]


def outputs_of(padded_size, kernel, stride, dilation):
    spans = zip(padded_size, extent_of(kernel, dilation), stride)
    return tuple((size - extent) // step + 1 for size, extent, step in spans)


def pad(x, pads):
    return np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))


def patches(x, kernel, stride, pads, dilation):
    """All pixels that each output reads: (n, p, q, r, s, c)."""
    padded = pad(x, pads)
    p, q = outputs_of(padded.shape[1:3], kernel, stride, dilation)
    result = np.zeros((len(x), p, q, *kernel, x.shape[3]))
    for i, j, pixels in taps_of(padded, kernel, stride, dilation):
        result[:, :, :, i, j] = pixels
    return result


@dataclass(frozen=True)
class Case:
    """A convolution: shapes, options as a user would give them, and a seed for the numbers."""

    n: int = 2
    image: tuple[int, int] = (6, 5)
    channels: int = 2  # of a group
    filters: int = 3  # of a group
    groups: int = 1
    kernel: tuple[int, int] = (3, 2)
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    bias: bool = True
    data_format: str = "NHWC"
    dtype: str = "float64"
    seed: int = 0

    @property
    def options(self) -> dict:
        names = ("stride", "padding", "dilation", "groups", "data_format")
        return {name: getattr(self, name) for name in names}

    @property
    def pads(self):
        return pads_of(self.padding, self.image, self.kernel, self.stride, self.dilation)

    @property
    def window(self):
        return self.kernel, pair(self.stride), self.pads, pair(self.dilation)

    @property
    def x_shape(self):
        return (self.n, *self.image, self.channels * self.groups)

    @property
    def w_shape(self):
        return (*self.kernel, self.channels, self.filters * self.groups)

    @property
    def y_shape(self):
        padded = [size + sum(pads) for size, pads in zip(self.image, self.pads)]
        return (
            self.n,
            *outputs_of(padded, self.kernel, pair(self.stride), pair(self.dilation)),
            self.w_shape[3],
        )

    def arrays(self):
        """x, w, bias, dy, channels last."""
        rng = np.random.default_rng(self.seed)
        shapes = (self.x_shape, self.w_shape, self.w_shape[3:], self.y_shape)
        x, w, bias, dy = (rng.standard_normal(shape).astype(self.dtype) for shape in shapes)
        return x, w, bias if self.bias else None, dy

    def as_given(self, array):
        """A channels-last image array, in the case's data format."""
        return array if self.data_format == "NHWC" else array.transpose(0, 3, 1, 2)

    def forward(self, x, w, bias):
        n, p, q, k = self.y_shape
        grouped = patches(x, *self.window).reshape(n, p, q, *self.kernel, self.groups, self.channels)
        weights = w.astype(np.float64).reshape(*self.w_shape[:3], self.groups, self.filters)
        y = np.einsum("npqrsgc,rscgk->npqgk", grouped, weights).reshape(n, p, q, k)
        return y if bias is None else y + bias

    def input_grad(self, dy, w):
        """Each output sends its gradient back to all pixels it read."""
        kernel, stride, pads, dilation = self.window
        (top, bottom), (left, right) = pads
        n, h, width, c = self.x_shape
        padded = np.zeros((n, h + top + bottom, width + left + right, c))
        weights = w.astype(np.float64).reshape(*self.w_shape[:3], self.groups, self.filters)
        grouped = dy.astype(np.float64).reshape(*dy.shape[:3], self.groups, self.filters)
        for i, j, pixels in taps_of(padded, kernel, stride, dilation):
            pixels += np.einsum("npqgk,cgk->npqgc", grouped, weights[i, j]).reshape(pixels.shape)
        return padded[:, top : top + h, left : left + width]

    def weight_grad(self, x, dy):
        n, p, q, _ = self.y_shape
        grouped = patches(x, *self.window).reshape(n, p, q, *self.kernel, self.groups, self.channels)
        gradient = dy.astype(np.float64).reshape(n, p, q, self.groups, self.filters)
        return np.einsum("npqrsgc,npqgk->rscgk", grouped, gradient).reshape(self.w_shape)

    def expected(self, x, w, bias, dy):
        """The result of each pass, in the case's data format."""
        return {
            "forward": self.as_given(self.forward(x, w, bias)),
            "input_grad": self.as_given(self.input_grad(dy, w)),
            "weight_grad": self.weight_grad(x, dy),
        }

    def magnitudes(self, x, w, bias, dy):
        """The sum of the absolute terms of each result: what rounding errors are relative to."""
        return self.expected(*(None if array is None else abs(array) for array in (x, w, bias, dy)))

    def norms(self, x, w, bias, dy):
        """The product of the largest norms that meet in a result: no sum of terms is more (Cauchy and Schwarz)."""

        def largest(array, *axes):
            return np.sqrt(np.max(np.sum(np.square(array, dtype=np.float64), axes), initial=0))

        images, gradients = largest(x, 1, 2, 3), largest(dy, 1, 2, 3)
        added = 0 if bias is None else abs(bias).max()
        return {
            "forward": images * largest(w, 0, 1, 2) + added,
            "input_grad": gradients * largest(w, 0, 1, 3),
            "weight_grad": largest(x, 0, 1, 2) * largest(dy, 0, 1, 2),
        }


def run_passes(case: Case, method: str, arrays=None):
    """The three results of daskconv's public functions; arrays are channels last."""
    import daskconv

    x, w, bias, dy = arrays or case.arrays()
    x, dy = case.as_given(x), case.as_given(dy)
    options = {**case.options, "method": method}
    return {
        "forward": daskconv.conv2d(x, w, bias, **options),
        "input_grad": daskconv.conv2d_input_grad(dy, w, x.shape, **options),
        "weight_grad": daskconv.conv2d_weight_grad(x, dy, w.shape, **options),
    }


def assert_close(got, want, magnitude, dtype) -> None:
    """Each element is within a few rounding errors of its magnitude."""
    assert got.dtype == dtype and got.shape == want.shape
    roundings = 8 if got.dtype == np.float32 else 16  # the float64 reference has errors of its own
    allowed = roundings * np.finfo(got.dtype).eps / 2 * magnitude
    wrong = ~(abs(got - want) <= allowed)
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} differ: {got[wrong][:3]} is not {want[wrong][:3]}"


def pairs(low: int, high: int):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def paddings():
    sides = st.tuples(pairs(0, 3), pairs(0, 3))
    return st.one_of(sides, st.sampled_from(["same", "valid"]), st.integers(0, 2), pairs(0, 2))


@st.composite
def cases(draw, most_images=3, dtypes=("float32", "float64")) -> Case:
    kernel, stride, dilation, padding = (
        draw(pairs(1, 4)),
        draw(st.one_of(st.integers(1, 3), pairs(1, 5))),
        draw(pairs(1, 3)),
        draw(paddings()),
    )
    image = []
    for axis, extent in enumerate(extent_of(kernel, dilation)):
        known = (0, 0) if padding in ("same", "valid") else pair(pair(padding)[axis])
        smallest = 1 if padding == "same" else max(1, extent - sum(known))
        image.append(smallest + draw(st.integers(0, 6)))
    return Case(
        n=draw(st.integers(1, most_images)),
        image=tuple(image),
        channels=draw(st.integers(1, 4)),
        filters=draw(st.integers(1, 3)),
        groups=draw(st.sampled_from([1, 1, 2, 3])),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        bias=draw(st.booleans()),
        data_format=draw(st.sampled_from(["NHWC", "NCHW"])),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def chunks(draw, shape):
    """Ragged chunks of each axis."""

    def axis(size):
        cuts = sorted(draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=3)) - {size})
        edges = [0, *cuts, size]
        return tuple(stop - start for start, stop in pairwise(edges))

    return tuple(map(axis, shape))


def optimized(result):
    """The graph of a Dask array, as it is run."""
    return dict(result.__dask_optimize__(result.dask, result.__dask_keys__()))


def small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut passes into many blocks and tiles, as large arrays are."""
    from daskconv.graph import tiles
    from daskconv.kernels.jit import importable

    if importable():
        from daskconv.kernels import copies, implicit

        monkeypatch.setattr(copies, "_COPIED_BYTES", 8000)
        # Three images make tiles of images, fewer make tiles of pixels.
        monkeypatch.setattr(implicit, "_MANY_IMAGES", 3)
        monkeypatch.setattr(implicit, "_SIDE_BY_SIDE", 3)
    monkeypatch.setattr(tiles, "_BLOCK_FLOPS", 20_000)
    monkeypatch.setattr(tiles, "_PIPELINED_FLOPS", 1)
    monkeypatch.setattr(tiles, "_FEWEST_ROWS", 40)


def pool_windows(image, kernel, stride, pads, dilation, ceil_mode):
    """For each output: the pixels inside the image, and how many taps lie inside image and padding."""

    def axis(size, kernel, stride, pads, dilation):
        starts = []
        at = -pads[0]
        extent = (kernel - 1) * dilation + 1
        while at + extent <= size + pads[1]:
            starts.append(at)
            at += stride
        if ceil_mode and at - stride + extent < size + pads[1] and at < size:
            starts.append(at)
        positions = [[start + t * dilation for t in range(kernel)] for start in starts]
        inside = [[t for t in taps if 0 <= t < size] for taps in positions]
        counted = [sum(-pads[0] <= t < size + pads[1] for t in taps) for taps in positions]
        return list(zip(inside, counted))

    rows, cols = (axis(*options) for options in zip(image, kernel, stride, pads, dilation))
    return [[(r, c, rn * cn) for c, cn in cols] for r, rn in rows]


def pool(x, dy_or_none, kind, image, kernel, stride, pads, dilation, ceil_mode, count_include_pad=True):
    """The pooled images, or with a gradient the gradient by x."""
    windows = pool_windows(image, kernel, stride, pads, dilation, ceil_mode)
    y = np.zeros((len(x), len(windows), len(windows[0]), x.shape[3]))
    dx = np.zeros(x.shape)
    for i, line in enumerate(windows):
        for j, (rows, cols, counted) in enumerate(line):
            block = x[:, rows][:, :, cols].reshape(len(x), -1, x.shape[3])
            if kind == "avg":
                count = counted if count_include_pad else len(rows) * len(cols)
                y[:, i, j] = block.sum(1) / max(count, 1)
                share = np.ones(block.shape) / max(count, 1)
            else:
                y[:, i, j] = block.max(1)
                share = np.zeros(block.shape)
                np.put_along_axis(share, block.argmax(1)[:, None], 1, axis=1)
            if dy_or_none is not None:
                part = (share * dy_or_none[:, i, j][:, None]).reshape(len(x), len(rows), len(cols), -1)
                dx[np.ix_(range(len(x)), rows, cols, range(x.shape[3]))] += part
    return y if dy_or_none is None else dx


def slope(function: Callable[[np.ndarray], Any], at: np.ndarray, direction: np.ndarray, step=1e-6) -> float:
    """The central difference of a scalar function along a direction."""
    return float(function(at + step * direction) - function(at - step * direction)) / (2 * step)


def refuse(match: str, function: Callable, *args, error: type = InputError, **kwargs) -> str:
    """The call raises `error` with one sentence that says `match`; returns the sentence."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    sentence = str(caught.value)
    assert match in sentence, sentence
    assert "\n" not in sentence and sentence.endswith(".") and not re.search(r"\. [A-Z]", sentence), sentence
    return sentence
