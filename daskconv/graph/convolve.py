"""Filters with one kernel for every channel, the public functions: scipy.ndimage's ``convolve`` and ``correlate``."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from daskconv.errors import InputError
from daskconv.graph.choose import check_precision
from daskconv.graph.gather import lazy
from daskconv.graph.halo import places
from daskconv.graph.stencil import filter_lazily, filter_now, sums_of
from daskconv.kernels.stencil import stencil_of

if TYPE_CHECKING:
    import dask.array as da

    Array = NDArray[Any] | da.Array

MODES = {
    "reflect": "symmetric",
    "constant": "constant",
    "nearest": "edge",
    "mirror": "reflect",
    "wrap": "wrap",
    "grid-mirror": "symmetric",
    "grid-constant": "constant",
    "grid-wrap": "wrap",
}
"""scipy.ndimage's names of what lies beyond an image, and numpy.pad's."""


def convolve(
    image: Array,
    kernel: ArrayLike,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: Sequence[int] | None = None,
    precision: str | None = None,
) -> Array:
    """Convolve an image with a 2-D kernel, as :func:`scipy.ndimage.convolve` does (the kernel is flipped).

    A drop-in for ``dask_image.ndfilters.convolve``. Chunks of a Dask array may be smaller than the kernel.

    Parameters
    ----------
    image : array (y, x), or of more axes with ``axes``
        float32, float64, integers or bool. NumPy is computed now on this process's threads, a Dask array gives a lazy
        one of the same chunks.
    kernel : array (r, s)
        Its sums are of float32 for float32 images, else of float64.
    mode : {"reflect", "constant", "nearest", "mirror", "wrap"}
        What lies beyond the image, by scipy.ndimage's names: "reflect" repeats the outermost pixels, "mirror" does not.
    cval : float
        The value beyond the image with "constant".
    origin : int or (int, int)
        How far the kernel is moved, rows and columns; positive is right and down.
    axes : (int, int), optional
        The image's axes that are the kernel's rows and columns, where it has more than two: each slice along the others
        (channels, bands, times) is filtered by itself.
    precision : {"fast", "exact"}, optional
        "fast" filters with kernels of rank 1 in two passes and with large ones by frequencies, where the rounding
        errors of float32 are about 1e-6 of the largest pixel nearby; "exact" adds tap by tap, in scipy.ndimage's order.
        Dask's configuration ``daskconv.precision`` when not given, else "fast". Integer images are always "exact".

    Returns
    -------
    array of the image's shape and dtype
        As in scipy.ndimage, sums of integer images lose their fraction.

    Raises
    ------
    InputError
        Where shapes, dtypes or options do not fit.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> image = np.array([[1, 2, 0, 0], [5, 3, 0, 4], [0, 0, 0, 7], [9, 3, 0, 0]])
    >>> daskconv.convolve(image, [[1, 1, 1], [1, 1, 0], [1, 0, 0]], mode="constant")
    array([[11, 10,  7,  4],
           [10,  3, 11, 11],
           [15, 12, 14,  7],
           [12,  3,  7,  0]])
    """
    taps = _taps(kernel)
    # The flipped kernel of an even size has its middle one pixel further.
    centres = [(size - 1) // 2 - moved for size, moved in zip(taps.shape, _origins(origin), strict=True)]
    _check_centres(centres, taps, origin)
    return _filtered("convolve", image, taps[::-1, ::-1], centres, (mode, cval), axes, precision)


def correlate(
    image: Array,
    kernel: ArrayLike,
    mode: str = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: Sequence[int] | None = None,
    precision: str | None = None,
) -> Array:
    """Correlate an image with a 2-D kernel, as :func:`scipy.ndimage.correlate` does (the kernel is not flipped).

    All parameters, the result and the errors are as in :func:`convolve`.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> daskconv.correlate(np.array([[1.0, 2.0, 4.0]]), [[0.0, 0.0, 1.0]], mode="nearest")
    array([[2., 4., 4.]])
    """
    taps = _taps(kernel)
    centres = [size // 2 + moved for size, moved in zip(taps.shape, _origins(origin), strict=True)]
    _check_centres(centres, taps, origin)
    return _filtered("correlate", image, taps, centres, (mode, cval), axes, precision)


def _filtered(
    name: str,
    image: Any,
    taps: NDArray,
    centres: Sequence[int],
    beyond: tuple[str, float],
    axes: Sequence[int] | None,
    precision: str | None,
) -> Array:
    """Return sums over windows in which tap ``centres`` lies on the pixel that is written."""
    image = image if hasattr(image, "dask") else np.asarray(image)
    rows, cols = _check_image(image, axes)
    mode, fill = _check_beyond(*beyond)
    mixing = check_precision(precision) == "fast" and image.dtype.kind == "f"
    if image.size == 0:
        return image
    if rows > cols:
        rows, cols, taps, centres = cols, rows, taps.T, centres[::-1]
    apart = cols != rows + 1
    if apart:  # rows and columns become neighbours, what lies between them goes behind
        image = _moveaxis(image, (rows, cols), (0, 1))
    axis = 0 if apart else rows
    shape = image.shape[axis], image.shape[axis + 1]
    stencil = stencil_of(taps, sums_of(image.dtype), shape, mixing)
    pads = [(centre, size - 1 - centre) for centre, size in zip(centres, taps.shape, strict=True)]
    shown = [places(size, pad, mode) for size, pad in zip(shape, pads, strict=True)]
    result: Any
    if hasattr(image, "dask"):
        result = filter_lazily(name, lazy(image, None), axis, shown, stencil, fill)
    else:
        result = filter_now(image, axis, shown, stencil, fill)
    return _moveaxis(result, (0, 1), (rows, cols)) if apart else result


def _taps(kernel: ArrayLike) -> NDArray:
    taps = np.asarray(kernel)
    if taps.ndim != 2 or not taps.size:
        raise InputError(
            f"kernel has shape {taps.shape}: give two axes, rows and columns, of at least one tap."
        )
    if taps.dtype.kind not in "fiub":
        raise InputError(f"kernel is {taps.dtype}: give real numbers.")
    return taps.astype(np.float64)


def _origins(origin: int | Sequence[int]) -> tuple[int, int]:
    try:
        rows, cols = map(index, origin if isinstance(origin, Sequence | np.ndarray) else (origin, origin))
    except (TypeError, ValueError):
        raise InputError(f"origin is {origin!r}: give an int or a pair (rows, columns).") from None
    return rows, cols


def _check_centres(centres: Sequence[int], taps: NDArray, origin: Any) -> None:
    if any(not 0 <= centre < size for centre, size in zip(centres, taps.shape, strict=True)):
        raise InputError(
            f"origin is {origin!r}, which moves the kernel of {taps.shape[0]} x {taps.shape[1]} taps off its pixel: "
            "give about half its size at most."
        )


def _check_beyond(mode: str, cval: float) -> tuple[str, float]:
    if mode not in MODES:
        raise InputError(f"mode is {mode!r}: choose {', '.join(list(MODES)[:4])} or wrap.")
    if not isinstance(cval, Real):
        raise InputError(f"cval is {cval!r}: give a real number.")
    return MODES[mode], float(cval)


def _check_image(image: Any, axes: Sequence[int] | None) -> tuple[int, int]:
    """Return the axes that are rows and columns, from 0 on."""
    if image.dtype.kind not in "fiub" or image.dtype == np.float16 or not image.dtype.isnative:
        raise InputError(f"image is {image.dtype}: convert to float32, float64, integers or bool first.")
    if any(np.isnan(size) for size in image.shape):
        raise InputError("image has chunks of unknown size: call compute_chunk_sizes() first.")
    if axes is None and image.ndim != 2:
        raise InputError(
            f"image has shape {image.shape}: name its two axes that are rows and columns, such as axes=(0, 1)."
        )
    asked = (0, 1) if axes is None else axes
    try:
        rows, cols = (index(axis) for axis in asked)
        rows, cols = (range(image.ndim)[axis] for axis in (rows, cols))
    except (TypeError, ValueError, IndexError):
        rows = cols = 0
    if rows == cols:
        raise InputError(f"axes is {axes!r}: give two different axes of an image of shape {image.shape}.")
    return rows, cols


def _moveaxis(array: Any, source: Any, destination: Any) -> Any:
    if hasattr(array, "dask"):
        import dask.array as da

        return da.moveaxis(array, source, destination)
    return np.moveaxis(array, source, destination)
