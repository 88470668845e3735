"""Resize: images of another size, by interpolation along rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, isfinite
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError, are_ints
from daskconv.kernels.interpolate import interpolate
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.layers.conv import images_shape
from daskconv.nn.reach import Reach

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Resize(Layer):
    """Images interpolated to another size, with the options of ONNX's Resize.

    Parameters
    ----------
    size : (int, int), optional
        Rows and columns of the output; or else
    scale : float or (float, float), optional
        What to multiply them by; the output's size is rounded down. Beside a ``size`` it says only where in the input
        the output's pixels lie.
    mode : {"nearest", "linear", "cubic"}
        The nearest pixel, or sums of 2x2 or 4x4 pixels.
    coordinates : str
        Which place of the input an output pixel has: "half_pixel" (centres of pixels), "half_pixel_symmetric",
        "pytorch_half_pixel", "align_corners", "asymmetric" (upper left corners) or "tf_crop_and_resize".
    nearest : {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}
        How a place is rounded to a pixel.
    cubic : float
        The cubic's coefficient: -0.75 (PyTorch, ONNX) or -0.5 (Keys 1981).
    exclude_outside : bool
        Pixels outside of the image count nothing, instead of those of its edge.
    antialias : bool
        Widen the sums where the output is smaller.
    roi : ((float, float), (float, float)), optional
        For "tf_crop_and_resize": first and last place of rows and columns, as shares of the image.
    extrapolation : float
        For "tf_crop_and_resize": the value of places outside of the image.

    Examples
    --------
    >>> Resize(scale=2).output_shape((4, 5, 3))
    (8, 10, 3)
    """

    size: tuple[int, int] | None = None
    scale: float | tuple[float, float] | None = None
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    roi: tuple[tuple[float, float], tuple[float, float]] | None = None
    extrapolation: float = 0.0

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h, w, c)."""
        h, w, c = images_shape(shape, "Resize")
        self._check()
        sizes = _outputs(self, 0, h), _outputs(self, 1, w)
        if min(sizes) < 1:
            raise InputError(
                f"Resize makes nothing, {sizes}, of images of ({h}, {w}) pixels: use a larger scale."
            )
        return (*sizes, c)

    def reach(self, shape: Shape) -> tuple[Reach, Reach] | None:
        """Return where the pixels lie that an output is the sum of; all where places depend on the images' size."""
        scales = [_fraction(scale) for scale in _scales(self)]
        places = self.coordinates in (
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "asymmetric",
        )
        # A size that is rounded moves the places of half_pixel_symmetric.
        whole = all(scale and (size * scale).denominator == 1 for size, scale in zip(shape, scales))
        if not places or None in scales or (self.coordinates == "half_pixel_symmetric" and not whole):
            return None
        rows, columns = (_reach(self, scale) for scale in scales if scale)
        return rows, columns

    def _check(self) -> None:
        for name, value, known in (
            ("mode", self.mode, MODES),
            ("coordinates", self.coordinates, COORDINATES),
            ("nearest", self.nearest, ROUNDINGS),
        ):
            if value not in known:
                raise InputError(f"Resize has {name} {value!r}: choose one of {', '.join(known)}.")
        if self.size is None and self.scale is None:
            raise InputError("Resize has size None and scale None: give one of them.")
        if self.size is not None and not are_ints(self.size, 2):
            raise InputError(f"Resize has size {self.size}: give a pair of ints (rows, columns).")
        if self.scale is not None and not _numbers(_scales(self)):
            raise InputError(
                f"Resize has scale {self.scale}: give a finite number, or a pair (rows, columns)."
            )
        if self.roi is not None and not (len(self.roi) == 2 and all(map(_numbers, self.roi))):
            raise InputError(
                f"Resize has roi {self.roi}: give a pair of finite numbers for rows and one for columns."
            )

    def _tables(self, image: tuple[int, int]) -> tuple[Table, Table]:
        return _table(self, 0, image[0]), _table(self, 1, image[1])

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the images in their new size; backward needs the shape."""
        rows, columns = self._tables(x.shape[1:3])
        y = interpolate(np.ascontiguousarray(x), 1, rows.index, rows.weight)
        y = interpolate(y, 2, columns.index, columns.weight)
        y[:, rows.outside] = self.extrapolation
        y[:, :, columns.outside] = self.extrapolation
        return y, x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient: each pixel gets what it gave."""
        rows, columns = self._tables(saved[1:3])
        dy = np.array(dy)
        dy[:, rows.outside] = 0
        dy[:, :, columns.outside] = 0
        dx = interpolate(dy, 2, columns.back_index, columns.back_weight)
        return interpolate(dx, 1, rows.back_index, rows.back_weight), {}


def Upsample(scale: int | tuple[int, int], mode: str = "nearest") -> Resize:
    """Return a Resize by a whole number: each pixel ``scale`` times, or linear between the centres of pixels.

    Examples
    --------
    >>> Upsample(2).forward({}, np.array([[[[1.0], [2.0]]]]), Context())[0].tolist()
    [[[[1.0], [1.0], [2.0], [2.0]], [[1.0], [1.0], [2.0], [2.0]]]]
    """
    if mode == "nearest":
        return Resize(scale=scale, coordinates="asymmetric", nearest="floor")
    return Resize(scale=scale, mode=mode)


@dataclass(frozen=True, eq=False)
class Table:
    """How one axis is interpolated, forwards and back, and which outputs lie outside of the image."""

    index: NDArray[np.int64]
    weight: NDArray[np.float64]
    back_index: NDArray[np.int64]
    back_weight: NDArray[np.float64]
    outside: NDArray[np.bool_]


def _scales(layer: Resize) -> tuple[float, float] | tuple[None, None]:
    """Return what rows and columns are multiplied by, if anything."""
    return layer.scale if isinstance(layer.scale, tuple) else (layer.scale, layer.scale)  # type: ignore[return-value]


def _fraction(scale: float | None) -> Fraction | None:
    """Return a scale as a fraction with a small denominator, if it is one."""
    near = None if scale is None else Fraction(scale).limit_denominator(64)
    return near if near and float(near) == scale else None


def _reach(layer: Resize, scale: Fraction) -> Reach:
    """Return the reach along one axis."""
    step = 1 / scale
    if layer.mode == "nearest" and layer.coordinates == "asymmetric" and layer.nearest == "floor":
        return Reach(step, first=Fraction(1, scale.numerator) - 1)
    shrink = min(scale, Fraction(1)) if layer.antialias else 1
    most = {"nearest": 1, "linear": 1, "cubic": 2}[layer.mode] / Fraction(shrink)
    centre = Fraction(0) if layer.coordinates == "asymmetric" else step / 2 - Fraction(1, 2)
    return Reach(step, centre - ceil(most), centre + ceil(most))


def _numbers(pair: Any) -> bool:
    """Whether a value is a pair of finite numbers."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    return all(isinstance(number, Real) and isfinite(number) for number in pair)


def _outputs(layer: Resize, axis: int, size: int) -> int:
    """Return how many pixels an axis of so many becomes."""
    if layer.size is not None:
        return layer.size[axis]
    return floor(size * _scales(layer)[axis])  # type: ignore[operator]


@lru_cache(maxsize=256)
def _table(layer: Resize, axis: int, size: int) -> Table:
    given, outputs = _scales(layer)[axis], _outputs(layer, axis, size)
    scale = outputs / size if given is None else given
    roi = layer.roi[axis] if layer.roi else (0.0, 1.0)
    outside = np.zeros(outputs, bool)
    places, shares = [], []
    for output in range(outputs):
        place = _place(layer.coordinates, output, scale, size, outputs, roi)
        outside[output] = layer.coordinates == "tf_crop_and_resize" and not 0 <= place <= size - 1
        taps, weights = _taps(layer, place, scale)
        if layer.exclude_outside:
            weights = np.where((taps >= 0) & (taps < size), weights, 0)
            # None is inside where a crop leaves the image; that output is not a sum.
            weights = weights / (weights.sum() or 1)
        places.append(output * size + np.clip(taps, 0, size - 1))
        shares.append(weights)
    # Taps past an edge are the same pixel: what they weigh is added.
    pairs, which = np.unique(np.concatenate(places), return_inverse=True)
    weight = np.zeros(len(pairs))
    np.add.at(weight, which, np.concatenate(shares))
    output_of, pixel = np.divmod(pairs[weight != 0], size)
    weight = weight[weight != 0]
    back = np.argsort(pixel, kind="stable")
    forth = _compact(output_of, pixel, weight, outputs)
    return Table(*forth, *_compact(pixel[back], output_of[back], weight[back], size), outside)


def _place(
    coordinates: str, output: int, scale: float, size: int, outputs: int, roi: tuple[float, float]
) -> float:
    """Return the place in the input that an output pixel has."""
    length = scale * size  # of the output, before it is rounded
    if coordinates == "align_corners":
        return output * (size - 1) / (length - 1) if outputs > 1 else 0.0
    if coordinates == "asymmetric":
        return output / scale
    if coordinates == "tf_crop_and_resize":
        start, end = roi
        if outputs == 1:
            return (start + end) * (size - 1) / 2
        return start * (size - 1) + output * (end - start) * (size - 1) / (length - 1)
    if coordinates == "pytorch_half_pixel" and outputs == 1:
        return 0.0
    place = (output + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        place += size / 2 * (1 - outputs / length)
    return place


def _taps(layer: Resize, place: float, scale: float) -> tuple[NDArray, NDArray]:
    """Return the pixels that an output is the sum of, and their weights."""
    if layer.mode == "nearest":
        return np.array([_rounded(place, layer.nearest)]), np.ones(1)
    shrink = min(scale, 1.0) if layer.antialias else 1.0
    reach = 1 if layer.mode == "linear" else 2
    first = floor(place)
    start = floor(-reach / shrink) + 1
    offsets = np.arange(start, 2 - start)
    distances = np.abs(offsets - (place - first)) * shrink
    weights = np.maximum(1 - distances, 0) if layer.mode == "linear" else _cubic(distances, layer.cubic)
    return first + offsets, weights / weights.sum()


def _rounded(place: float, rounding: str) -> int:
    if rounding == "floor":
        return floor(place)
    if rounding == "ceil":
        return -floor(-place)
    return -floor(-(place - 0.5)) if rounding == "round_prefer_floor" else floor(place + 0.5)


def _cubic(distance: NDArray, a: float) -> NDArray:
    """Return the cubic convolution kernel (Keys 1981) at distances of at least 0."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _compact(
    rows: NDArray, places: NDArray, values: NDArray, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return numbers of ``count`` rows, row by row, as equally long lines of places and values.

    A short line is filled with its own first place and 0, so that what is not finite spreads to no other pixel.
    """
    lengths = np.bincount(rows, minlength=count)
    starts = np.cumsum(lengths) - lengths
    column = np.arange(len(rows)) - starts[rows]
    most = max(int(lengths.max()), 1)
    index, weight = np.zeros((count, most), np.int64), np.zeros((count, most))
    index[lengths > 0] = places[starts[lengths > 0], None]
    index[rows, column], weight[rows, column] = places, values
    return index, weight
