"""The compiled kernels' twins in plain NumPy, for where nothing is compiled: same arguments, same results.

They loop over the taps of a window, never over pixels: each tap is one strided view of all images.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numexpr
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from daskconv.geometry import Pair

Slices = tuple[slice, ...]


def lower(
    x: NDArray,
    shape: NDArray,
    row_offsets: NDArray,
    col_offsets: NDArray,
    step: Pair,
    size: Pair,
    rows: Pair,
    channels: Pair,
    out: NDArray,
) -> None:
    """Write lowered rows, box by box of output pixels: one copy of a view in which windows overlap."""
    images = x.reshape(shape)[..., slice(*channels)]
    width = len(row_offsets) * len(col_offsets) * (channels[1] - channels[0])
    at = 0
    for number, lines, columns in _boxes(rows, size):
        view = _windows(images[slice(*number)], (row_offsets, col_offsets), step, (lines, columns))
        count = prod(view.shape[:3]) * width
        out[at : at + count].reshape(view.shape)[...] = view
        at += count


def _boxes(rows: Pair, size: Pair) -> Iterator[tuple[Pair, Pair, Pair]]:
    """Yield ranges of output pixels as boxes (images, rows, columns): parts of a row, whole rows, whole images."""
    (p, q), (at, stop) = size, rows
    while at < stop:
        line, j = divmod(at, q)
        n, i = divmod(line, p)
        left = stop - at
        if j or left < q:
            box = (n, n + 1), (i, i + 1), (j, min(j + left, q))
        elif i or left < p * q:
            box = (n, n + 1), (i, min(i + left // q, p)), (0, q)
        else:
            box = (n, n + left // (p * q)), (0, p), (0, q)
        yield box
        at += prod(end - first for first, end in box)


def _windows(
    images: NDArray, offsets: tuple[NDArray, NDArray], step: Pair, box: tuple[Pair, Pair]
) -> NDArray:
    """Return what a box of output pixels reads as a view (n, p, q, r, s, c), of a padded copy where it needs one."""
    axes = [
        (first * move + taps[0], (end - 1) * move + taps[-1] + 1, size)
        for (first, end), taps, move, size in zip(box, offsets, step, images.shape[1:3], strict=True)
    ]
    if all(start >= 0 and stop <= size for start, stop, size in axes):
        read = images[:, slice(*axes[0][:2]), slice(*axes[1][:2])]
    else:
        read = np.zeros(
            (len(images), *(stop - start for start, stop, _ in axes), images.shape[3]), images.dtype
        )
        (to_y, y), (to_z, z) = (_inside(*axis) for axis in axes)
        read[:, to_y, to_z] = images[:, y, z]
    extents = [taps[-1] - taps[0] + 1 for taps in offsets]
    gaps = [taps[1] - taps[0] if len(taps) > 1 else 1 for taps in offsets]
    view = sliding_window_view(read, extents, axis=(1, 2))
    return view[:, :: step[0], :: step[1], :, :: gaps[0], :: gaps[1]].transpose(0, 1, 2, 4, 5, 3)


def _inside(start: int, stop: int, size: int) -> tuple[slice, slice]:
    """Return the part of a range that lies in 0 .. size, counted from its start and from 0."""
    low = min(max(start, 0), size)
    high = max(min(stop, size), low)
    return slice(max(low - start, 0), max(high - start, 0)), slice(low, high)


def max_pool(
    x: NDArray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, out: NDArray, winner: NDArray
) -> None:
    """Write maxima and the taps they came from: a later tap has to be larger, or NaN."""
    out[...] = -np.inf
    winner[...] = 0
    for tap, here, there in _taps(kernel, stride, pad, dilation, out.shape[1:3], x.shape[1:3]):
        pixels, best, taps = x[there], out[here], winner[here]
        wins = pixels > best
        wins |= pixels != pixels
        np.maximum(best, pixels, out=best)
        # The numbers of taps rise, so the last that won is the largest: several times as fast as a masked copy.
        np.maximum(taps, wins * np.uint32(tap), out=taps)


def max_pool_alone(x: NDArray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, out: NDArray) -> None:
    """Write maxima; NaN wins."""
    out[...] = -np.inf
    for _, here, there in _taps(kernel, stride, pad, dilation, out.shape[1:3], x.shape[1:3]):
        np.maximum(out[here], x[there], out=out[here])


def max_pool_grad(
    dy: NDArray, winner: NDArray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, dx: NDArray
) -> None:
    """Add each output's gradient to the tap that won."""
    for tap, here, there in _taps(kernel, stride, pad, dilation, dy.shape[1:3], dx.shape[1:3]):
        dx[there] += np.where(winner[here] == tap, dy[here], 0)


def avg_pool(
    x: NDArray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, scale: NDArray, out: NDArray
) -> None:
    """Add the scaled sums over windows to ``out``, which is 0."""
    for _, here, there in _taps(kernel, stride, pad, dilation, out.shape[1:3], x.shape[1:3]):
        out[here] += x[there]
    out *= scale[..., None]


def avg_pool_grad(
    dy: NDArray, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, scale: NDArray, dx: NDArray
) -> None:
    """Add each output's scaled gradient to all its pixels."""
    shares = dy * scale[..., None]
    for _, here, there in _taps(kernel, stride, pad, dilation, dy.shape[1:3], dx.shape[1:3]):
        dx[there] += shares[here]


def _taps(
    kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, outputs: Pair, image: Pair
) -> Iterator[tuple[int, Slices, Slices]]:
    """Yield each tap's number, the outputs (n, p, q) whose tap lies in the image, and the pixels it reads there."""
    for a in range(kernel[0]):
        i, y = _progressions(a * dilation[0] - pad[0], stride[0], outputs[0], image[0])
        for b in range(kernel[1]):
            j, z = _progressions(b * dilation[1] - pad[1], stride[1], outputs[1], image[1])
            yield a * kernel[1] + b, (slice(None), i, j), (slice(None), y, z)


def _progressions(first: int, step: int, count: int, size: int) -> tuple[slice, slice]:
    """Return the i in 0 .. count for which ``first + i * step`` lies in 0 .. size, and these places."""
    low = min(max(-(first // step), 0), count)
    high = min(max((size - 1 - first) // step + 1, low), count)
    start = first + low * step
    return slice(low, high), slice(start, start + (high - low - 1) * step + 1, step) if high > low else slice(
        0
    )


def sum_rows(rows: NDArray, out: NDArray) -> None:
    """Write the sum of a matrix's rows, first to last."""
    if len(rows) and rows.shape[1] == 1:
        out[:] = np.add.accumulate(rows, axis=0)[-1]  # a reduction would add one column in pairs
    else:
        np.add.reduce(rows, axis=0, out=out)


def momentum_step(
    param: NDArray, velocity: NDArray, gradient: NDArray, rates: tuple[Any, ...], nesterov: bool
) -> None:
    """Move a parameter and its velocity in place."""
    values = {"p": param, "v": velocity, "g": gradient}
    values |= dict(zip(("scale", "momentum", "decay", "rate"), rates, strict=True))
    _evaluate("momentum * v + g * scale + decay * p", values, velocity)
    ahead = "(momentum * v + g * scale + decay * p)" if nesterov else "v"
    _evaluate(f"p - rate * {ahead}", values, param)


def _evaluate(expression: str, values: dict[str, Any], out: NDArray) -> None:
    numexpr.evaluate(expression, local_dict=values, global_dict={}, out=out, casting="same_kind")


def moments(rows: NDArray, mean: NDArray, squares: NDArray) -> None:
    """Write means, and sums of squared distances from them."""
    mean[:] = rows.mean(0, dtype=np.float64)
    squares[:] = np.square(rows - mean.astype(rows.dtype)).sum(0, dtype=np.float64)


def normalize(
    rows: NDArray,
    mean: NDArray,
    factor: NDArray,
    offset: NDArray,
    add: NDArray,
    flags: tuple[bool, bool],
    out: NDArray,
) -> None:
    """Write normalised rows, plus others and their positive part where the flags say so."""
    names = {"rows": rows, "mean": mean, "factor": factor, "offset": offset, "out": out}
    numexpr.evaluate("(rows - mean) * factor + offset", local_dict=names, global_dict={}, out=out)
    finish(out, add, flags)


def normalize_grad_sums(dy: NDArray, rows: NDArray, mean: NDArray, sums: NDArray, products: NDArray) -> None:
    """Write the sums of dy and of dy times rows that are centred."""
    sums[:] = dy.sum(0, dtype=np.float64)
    products[:] = np.einsum("mc,mc->c", dy, rows - mean, dtype=np.float64)


def normalize_grad(
    dy: NDArray,
    rows: NDArray,
    mean: NDArray,
    of_dy: NDArray,
    of_rows: NDArray,
    rest: NDArray,
    dx: NDArray,
) -> None:
    """Write the gradient by the rows."""
    names = {"dy": dy, "rows": rows, "mean": mean, "of_dy": of_dy, "of_rows": of_rows, "rest": rest}
    numexpr.evaluate("dy * of_dy + (rows - mean) * of_rows + rest", local_dict=names, global_dict={}, out=dx)


def finish(out: NDArray, add: NDArray, flags: tuple[bool, bool]) -> None:
    """Add an array, and keep the positive part, where the flags say so."""
    if flags[0]:
        out += add
    if flags[1]:
        np.maximum(out, 0, out=out)


def relu_grad(dy: NDArray, y: NDArray, dx: NDArray) -> None:
    """Write the gradient where the output is positive."""
    dx[:] = np.where(y > 0, dy, 0)


def leaky_relu(x: NDArray, slopes: NDArray, y: NDArray) -> None:
    """Write x, times its channel's slope where it is negative."""
    y[:] = np.where(x < 0, x * slopes, x)


def leaky_relu_grad(dy: NDArray, x: NDArray, slopes: NDArray, dx: NDArray) -> None:
    """Write the gradient, times its channel's slope where x is negative."""
    dx[:] = np.where(x < 0, dy * slopes, dy)


def prelu_grad(dy: NDArray, x: NDArray, slopes: NDArray, dx: NDArray, of_slopes: NDArray) -> None:
    """Write the gradients by x and by the channels' slopes."""
    leaky_relu_grad(dy, x, slopes, dx)
    of_slopes[:] = np.einsum("mc,mc->c", dy, np.where(x < 0, x, 0))


def hard_swish(x: NDArray, y: NDArray) -> None:
    """Write x times its hard sigmoid."""
    values = {"x": x} | {name: x.dtype.type(number) for name, number in _HARD.items()}
    _evaluate("where(x > three, x, where(x < -three, zero, x * (x + three) * sixth))", values, y)


def hard_swish_grad(dy: NDArray, x: NDArray, dx: NDArray) -> None:
    """Write the gradient of :func:`hard_swish`."""
    values = {"dy": dy, "x": x} | {name: x.dtype.type(number) for name, number in _HARD.items()}
    _evaluate("where(x > three, dy, where(x < -three, zero, dy * (x * third + half)))", values, dx)


_HARD = {"three": 3, "zero": 0, "sixth": 1 / 6, "third": 1 / 3, "half": 0.5}


def between_grad(dy: NDArray, x: NDArray, numbers: tuple[float, float, float], dx: NDArray) -> None:
    """Write slope * dy where x lies between two numbers."""
    low, high, slope = numbers
    dx[:] = np.where((low < x) & (x < high), slope * dy, 0)


def lrn(x: NDArray, window: Pair, numbers: tuple[float, float, float], y: NDArray, scale: NDArray) -> None:
    """Write x over a power of the sum of squares of neighbouring channels, and that sum."""
    factor, bias, beta = numbers
    scale[:] = bias + factor * neighbour_sums(x * x, window)
    y[:] = x * scale**-beta


def lrn_grad(
    dy: NDArray,
    x: NDArray,
    scale: NDArray,
    window: Pair,
    numbers: tuple[float, float, float],
    dx: NDArray,
) -> None:
    """Write the gradient of :func:`lrn`."""
    factor, _, beta = numbers
    inverse = scale**-beta
    shared = neighbour_sums(dy * x * inverse / scale, window[::-1])
    dx[:] = dy * inverse - 2 * beta * factor * x * shared


def neighbour_sums(rows: NDArray, window: Pair) -> NDArray:
    """Return each channel's sum over the channels from so many before it to so many after it."""
    padded = np.pad(rows, ((0, 0), window))
    return sliding_window_view(padded, sum(window) + 1, axis=1).sum(2)


def interpolate(x: NDArray, index: NDArray, weight: NDArray, y: NDArray) -> None:
    """Write sums of weighted lines along the middle axis."""
    y[:] = 0
    for tap in range(index.shape[1]):
        y += x[:, index[:, tap]] * weight[:, tap, None]


def adaptive_step(
    param: NDArray, mean: NDArray | None, square: NDArray, gradient: NDArray, numbers: tuple[float, ...]
) -> None:
    """Move a parameter and the running sums of its gradient."""
    scale, decay, first, second, fresh, rate, correction, epsilon, shrink = numbers
    pull = gradient * scale + decay * param
    square[...] = second * square + fresh * pull * pull
    if mean is not None:
        mean[...] = first * mean + (1 - first) * pull
        pull = mean
    param[...] = shrink * param - rate * pull / (np.sqrt(correction * square) + epsilon)


def jitter(
    images: NDArray, factors: NDArray, contrast: bool, saturation: bool, limited: bool, out: NDArray
) -> None:
    """Write images (n, pixels, c) with other colours."""
    brightness, apart, colourful = (factors[:, i, None, None] for i in range(3))
    np.multiply(images, brightness, out=out, casting="same_kind")
    if contrast:
        mean = out.mean((1, 2), keepdims=True)
        out[...] = mean + (out - mean) * apart
    if saturation:
        grey = out.mean(2, keepdims=True)
        out[...] = grey + (out - grey) * colourful
    if limited:
        np.clip(out, 0, 255, out=out)


def rearrange(images: NDArray, rows: NDArray, columns: NDArray, out: NDArray) -> None:
    """Write images whose pixels come from other places, or are 0 where that is negative."""
    for image, row, column, target in zip(images, rows, columns, out, strict=True):
        target[...] = image.take(row, 0, mode="wrap").take(column, 1, mode="wrap")
        target[row < 0] = 0
        target[:, column < 0] = 0
