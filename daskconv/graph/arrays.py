"""Convolutions of whole arrays, the public functions: NumPy in gives NumPy out, Dask in gives lazy Dask out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.geometry import Padding, Window
from daskconv.graph import chunked, conv
from daskconv.graph.choose import ConvShape, choose
from daskconv.graph.gather import Gather, added, lazy
from daskconv.graph.halo import folded_parts, places, whole
from daskconv.graph.threads import available_threads
from daskconv.graph.tuning_file import load_table

if TYPE_CHECKING:
    import dask.array as da

    Array = NDArray[Any] | da.Array

Shape = tuple[int, ...]

BOUNDARIES = ("zeros", "reflect", "edge", "wrap")
_BY_IMAGES = ("auto", -1, -1, -1)


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    data_format: str = "NHWC",
) -> Array:
    """Convolve images with filters (cross-correlation, as every deep-learning library calls it).

    Parameters
    ----------
    x : array (n, h, w, c), or (n, c, h, w) with ``data_format="NCHW"``
        float32 or float64. NumPy is computed now on this process's threads; a Dask array, chunked
        in any way along any axis, gives a lazy Dask array. Its chunks follow those of ``x``, along k those of
        ``w``: with stride 1 and padding "same" they are the same. They are at most of Dask's ``array.chunk-size``.
        Chunks may be smaller than the kernel; only halos travel; chunks of c are summed in a fixed tree.
    w : array (r, s, c / groups, k)
        Filters, of the dtype of ``x``; a NumPy array is one task of a Dask graph, a Dask array may be chunked.
    bias : array (k,), optional
        Added to each output channel.
    stride, dilation : int or (int, int)
        Rows, columns.
    padding : int, (int, int), ((int, int), (int, int)), "same" or "valid"
        Zeros around the image: all sides, (rows, columns) or ((top, bottom), (left, right)). "same" is
        TensorFlow's and ONNX's SAME_UPPER.
    groups : int
        Channel groups; c and k are multiples of it.
    boundary : {"zeros", "reflect", "edge", "wrap"}
        What the padding shows: zeros, or the image's pixels as :func:`numpy.pad` repeats them.
    method : {"auto", "direct", "lowering", "pipelined", "implicit", "winograd", "fft"}
        ``direct`` loops over the output; ``lowering`` is im2col of a thread's whole block and one product
        (Chellapilla et al. 2006); ``pipelined`` cuts both into tasks of one Dask graph so that one thread
        lowers while another multiplies (Sakiyama et al., Deep Learning on Large-scale Multicore Clusters);
        ``implicit`` reads the image where it lies and makes no lowered copy; ``winograd`` does 3x3 and 5x5
        kernels of stride 1 with a fraction of the products (Lavin and Gray 2016); ``fft`` multiplies
        frequencies, for kernels from about 11x11: its rounding errors, and a NaN, reach a whole tile of an
        image. ``auto`` picks by shape, or as ``daskconv tune`` has measured on this machine.
    precision : {"fast", "exact"}, optional
        "fast" lets ``auto`` take ``winograd`` and ``fft``, whose float32 results differ by up to 5e-5 of their
        largest element; "exact" does not. Dask's configuration ``daskconv.precision`` when not given, else "fast".
    data_format : {"NHWC", "NCHW"}
        Order of the axes of ``x`` and of the result.

    Returns
    -------
    array (n, p, q, k), or (n, k, p, q) with NCHW

    Raises
    ------
    InputError
        Where shapes, dtypes or options do not fit, before anything is computed.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> x = np.ones((1, 4, 4, 2), np.float32)
    >>> w = np.ones((3, 3, 2, 5), np.float32)
    >>> daskconv.conv2d(x, w, padding="same").shape
    (1, 4, 4, 5)
    >>> float(daskconv.conv2d(x, w)[0, 0, 0, 0])
    18.0
    """
    x = _channels_last(x, data_format, "x")
    _check_sizes(w=w, bias=bias)
    window = _window(x.shape, w.shape, stride, padding, dilation, groups)
    _check_dtypes(x=x, w=w, bias=bias)
    if bias is not None and bias.shape != (w.shape[3],):
        raise InputError(f"bias has shape {bias.shape}: give one value for each of the {w.shape[3]} filters.")
    mode = _mode(boundary, window)
    method = _choose(method, window, x.shape, w.shape, precision, "forward", x, w)
    if not _any_dask(x, w, bias):
        images, inner = _padded(_now(x), window, mode)
        now = conv.forward(images, _now(w), _now(bias), inner, method, available_threads())
        return _restore(now, data_format)
    bias = None if bias is None else lazy(bias, -1)
    y = chunked.forward(lazy(x, _BY_IMAGES), lazy(w, -1), bias, window, mode, method)
    return _restore(y, data_format)


def conv2d_input_grad(
    dy: Array,
    w: Array,
    x_shape: Shape,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    data_format: str = "NHWC",
) -> Array:
    """Return the gradient of a convolution by its input.

    Parameters
    ----------
    dy : array (n, p, q, k), or (n, k, p, q) with NCHW
        The gradient by the output; NumPy or Dask as in :func:`conv2d`.
    w : array (r, s, c / groups, k)
        The filters.
    x_shape : tuple of int
        The shape of the input, in ``data_format``.
    stride, padding, dilation, groups, boundary, method, precision, data_format
        As in :func:`conv2d`.

    Returns
    -------
    array of shape ``x_shape``

    Raises
    ------
    InputError
        Where shapes, dtypes or options do not fit.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> dy, w = np.ones((1, 2, 2, 5)), np.ones((3, 3, 2, 5))
    >>> float(daskconv.conv2d_input_grad(dy, w, (1, 4, 4, 2))[0, 1, 1, 0])
    20.0
    """
    dy = _channels_last(dy, data_format, "dy")
    x_shape = _shape_last(x_shape, data_format)
    _check_sizes(w=w)
    window = _window(x_shape, w.shape, stride, padding, dilation, groups)
    _check_dy(dy.shape, x_shape, w.shape, window)
    _check_dtypes(dy=dy, w=w)
    mode = _mode(boundary, window)
    method = _choose(method, window, x_shape, w.shape, precision, "input_grad", dy, w)
    if not _any_dask(dy, w):
        now = _input_grad_now(_now(dy), _now(w), x_shape, window, mode, method)
        return _restore(now, data_format)
    dx = chunked.input_grad(lazy(dy, _BY_IMAGES), lazy(w, -1), x_shape[1:3], window, mode, method)
    return _restore(dx, data_format)


def conv2d_weight_grad(
    x: Array,
    dy: Array,
    w_shape: Shape,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    data_format: str = "NHWC",
) -> Array:
    """Return the gradient of a convolution by its filters, summed over all images.

    Parameters
    ----------
    x : array (n, h, w, c), or (n, c, h, w) with NCHW
        The input; NumPy or Dask as in :func:`conv2d`.
    dy : array (n, p, q, k), or (n, k, p, q) with NCHW
        The gradient by the output.
    w_shape : tuple of int
        (r, s, c / groups, k).
    stride, padding, dilation, groups, boundary, method, precision, data_format
        As in :func:`conv2d`.

    Returns
    -------
    array (r, s, c / groups, k)

    Raises
    ------
    InputError
        Where shapes, dtypes or options do not fit.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> x, dy = np.ones((1, 4, 4, 2)), np.ones((1, 2, 2, 5))
    >>> float(daskconv.conv2d_weight_grad(x, dy, (3, 3, 2, 5))[0, 0, 0, 0])
    4.0
    """
    x, dy = _channels_last(x, data_format, "x"), _channels_last(dy, data_format, "dy")
    window = _window(x.shape, w_shape, stride, padding, dilation, groups)
    _check_dy(dy.shape, x.shape, w_shape, window)
    _check_dtypes(x=x, dy=dy)
    mode, w_shape = _mode(boundary, window), tuple(int(size) for size in w_shape)
    method = _choose(method, window, x.shape, w_shape, precision, "weight_grad", x, dy)
    if not _any_dask(x, dy):
        images, inner = _padded(_now(x), window, mode)
        return conv.weight_grad(images, _now(dy), w_shape, inner, method, available_threads())
    return chunked.weight_grad(lazy(x, _BY_IMAGES), lazy(dy, _BY_IMAGES), w_shape, window, mode, method)


def _choose(
    method: str,
    window: Window,
    x_shape: Shape,
    w_shape: Shape,
    precision: str | None,
    pass_: str,
    images: Any,
    filters: Any,
) -> str:
    """Return the method of a pass, chosen here and now for its largest block: workers get the choice."""
    n, h, w, c, k = len(images), x_shape[1], x_shape[2], x_shape[3], w_shape[3]
    if _any_dask(images):
        n, h, w = (max(chunks) for chunks in images.chunks[:3])
        h, w = (max(size, extent) for size, extent in zip((h, w), window.extent, strict=True))
    if window.groups == 1:
        c, k = (
            max(array.chunks[3]) if _any_dask(array) and array.shape[3] == size else size
            for array, size in ((images, c), (filters, k))
        )
    tuned = load_table().at(str(images.dtype), n)
    return choose(method, ConvShape(window, (h, w), c, k), precision, pass_, tuned)


def _mode(boundary: str, window: Window) -> str | None:
    """Return numpy.pad's mode, None for zeros or where there is no padding."""
    if boundary not in BOUNDARIES:
        raise InputError(
            f"boundary is {boundary!r}: choose {', '.join(BOUNDARIES[:-1])} or {BOUNDARIES[-1]}."
        )
    return None if boundary == "zeros" or not any(map(any, window.padding)) else boundary


def _padded(x: NDArray, window: Window, mode: str | None) -> tuple[NDArray, Window]:
    """Return images with their padding, and the window on these."""
    if mode is None:
        return x, window
    pads: Any = ((0, 0), *window.padding, (0, 0))
    return np.pad(x, pads, mode=mode), replace(window, padding=((0, 0), (0, 0)))  # type: ignore[call-overload]


def _input_grad_now(
    dy: NDArray, w: NDArray, x_shape: Shape, window: Window, mode: str | None, method: str
) -> NDArray:
    """Return the gradient by the input; pixels that the padding repeats get the gradients of all their places."""
    if mode is None:
        return conv.input_grad(dy, w, x_shape, window, method, available_threads())
    inner = replace(window, padding=((0, 0), (0, 0)))
    shape = (x_shape[0], *(size + sum(pads) for size, pads in zip(x_shape[1:3], window.padding, strict=True)))
    padded = conv.input_grad(dy, w, (*shape, x_shape[3]), inner, method, available_threads())
    reads = [whole((x_shape[0],))]
    for size, pads in zip(x_shape[1:3], window.padding, strict=True):
        reads += folded_parts(places(size, pads, mode), [0, size + sum(pads)], [0, size])
    reads.append(whole((x_shape[3],)))
    count = prod(len(read.runs) for read in reads)
    return added(Gather(tuple(reads), (-1,) * count), padded.dtype, *(padded for _ in range(count)))


def _any_dask(*arrays: Any) -> bool:
    return any(hasattr(array, "dask") for array in arrays)


def _now(array: Any) -> Any:
    """Return a contiguous NumPy array, or None."""
    return None if array is None else np.ascontiguousarray(array)


def _channels_last(array: Any, data_format: str, name: str) -> Any:
    if not hasattr(array, "ndim"):
        array = np.asarray(array)
    if data_format not in ("NHWC", "NCHW"):
        raise InputError(f"data_format is {data_format!r}: choose NHWC or NCHW.")
    if array.ndim != 4:
        raise InputError(f"{name} has shape {array.shape}: give four axes, {data_format}.")
    _check_sizes(**{name: array})
    return array if data_format == "NHWC" else array.transpose(0, 2, 3, 1)


def _check_sizes(**arrays: Any) -> None:
    for name, array in arrays.items():
        if array is not None and any(np.isnan(size) for size in array.shape):
            raise InputError(f"{name} has chunks of unknown size: call compute_chunk_sizes() first.")


def _shape_last(shape: Shape, data_format: str) -> Shape:
    if len(shape) != 4:
        raise InputError(f"x_shape is {shape}: give four sizes, {data_format}.")
    n, a, b, c = (int(size) for size in shape)
    return (n, a, b, c) if data_format == "NHWC" else (n, b, c, a)


def _restore(array: Any, data_format: str) -> Any:
    return array if data_format == "NHWC" else array.transpose(0, 3, 1, 2)


def _window(
    x_shape: Shape,
    w_shape: Shape,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
) -> Window:
    """Resolve the options and check that channels and groups fit."""
    if len(w_shape) != 4:
        raise InputError(f"w has shape {tuple(w_shape)}: give (r, s, c / groups, k).")
    r, s, cg, k = w_shape
    check_channels(x_shape[3], k, groups)
    if cg * groups != x_shape[3]:
        raise InputError(
            f"x has {x_shape[3]} channels but w reads {cg} x {groups} groups: "
            f"w has shape {tuple(w_shape)}, it should be (r, s, {x_shape[3] // groups}, k)."
        )
    return Window.of(
        (r, s), (x_shape[1], x_shape[2]), stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def check_channels(c: int, k: int, groups: int) -> None:
    """Raise InputError unless ``groups`` divides input and output channels."""
    whole = isinstance(groups, int | np.integer) and groups >= 1
    if not whole or c % groups or k % groups or min(c, k) < 1:
        raise InputError(f"groups is {groups!r}: it has to divide the {c} input and the {k} output channels.")


def _check_dy(dy_shape: Shape, x_shape: Shape, w_shape: Shape, window: Window) -> None:
    expected = (x_shape[0], *window.output_size(*x_shape[1:3]), w_shape[3])
    if tuple(dy_shape) != expected:
        raise InputError(f"dy has shape {tuple(dy_shape)} (NHWC): for these options it should be {expected}.")


def _check_dtypes(**arrays: Array | None) -> None:
    dtypes = {name: array.dtype for name, array in arrays.items() if array is not None}
    wrong = [f"{name} is {dtype}" for name, dtype in dtypes.items() if dtype not in (np.float32, np.float64)]
    if wrong:
        raise InputError(f"{', '.join(wrong)}: convert to float32 or float64 first.")
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise InputError(f"The dtypes differ ({listed}): convert to one of them.")
