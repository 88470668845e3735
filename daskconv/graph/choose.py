"""Which method a convolution pass uses: a rule by shape or a table made before, never a measurement in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask

from daskconv.errors import InputError
from daskconv.geometry import Correlation, Pair, Window, forward_correlation
from daskconv.kernels import winograd_tiles
from daskconv.kernels.jit import enabled, refusal

if TYPE_CHECKING:
    from daskconv.graph.tuning import Tuned

METHODS = ("direct", "lowering", "pipelined", "implicit", "winograd", "fft")
COMPILED = ("direct", "implicit", "winograd")
PASSES = ("forward", "input_grad", "weight_grad")
FAST = ("winograd", "fft")
PRECISIONS = ("fast", "exact")
# One pipelined pass changes the blocks of its whole network, so it is never the choice of a single pass.
TUNABLE = tuple(method for method in METHODS if method != "pipelined")

# What transforming one channel of a tile's point costs, in multiplications of its products.
_TRANSFORM_MACS = 16
# Kernels of at least so many rows and columns are worth transforming whole images.
_FFT_KERNEL = 11


@dataclass(frozen=True)
class ConvShape:
    """What a choice depends on: a window on images of (h, w) pixels, c input and k output channels.

    Examples
    --------
    >>> shape = ConvShape(Window.of(3, (28, 28), padding=1), (28, 28), 96, 128)
    >>> choose("auto", shape), choose("auto", shape, "exact")
    ('winograd', 'implicit')
    """

    window: Window
    image: Pair
    c: int
    k: int

    @property
    def channels(self) -> Pair:
        """Input and output channels of a group."""
        return self.c // self.window.groups, self.k // self.window.groups


def check_method(method: str) -> str:
    """Return the method, or raise InputError that names those which work here."""
    if method not in (*METHODS, "auto"):
        raise InputError(f"method is {method!r}: choose one of auto, {', '.join(METHODS)}.")
    if not enabled() and method in COMPILED:
        raise InputError(refusal(method))
    return method


def check_precision(precision: str | None) -> str:
    """Return the precision; for None that of Dask's configuration ``daskconv.precision``, else "fast"."""
    asked = dask.config.get("daskconv.precision") if precision is None else precision
    if asked not in PRECISIONS:
        raise InputError(f"precision is {asked!r}: choose fast or exact.")
    return asked


def choose(
    method: str,
    shape: ConvShape,
    precision: str | None = None,
    pass_: str = "forward",
    tuned: Tuned | None = None,
) -> str:
    """Return the method of a convolution's pass; "auto" becomes a real one.

    Parameters
    ----------
    method : str
    shape : ConvShape
    precision : {"fast", "exact"}, optional
        "fast" allows methods whose error is up to 5e-5 of the largest result in float32, "exact" only those
        that differ from the definition by the rounding of its sums.
    pass_ : {"forward", "input_grad", "weight_grad"}
    tuned : Tuned, optional
        What was measured on this machine; the rule chooses what it does not know.
    """
    allowed = check_precision(precision)
    if check_method(method) in FAST:
        _check_fast(method, shape, allowed)
    if method != "auto":
        return method
    measured = tuned.method(shape, pass_, allowed) if tuned else None
    return measured if measured and _can(measured, shape, allowed) else _rule(shape, allowed)


def choose_all(
    method: str, shape: ConvShape, precision: str | None = None, tuned: Tuned | None = None
) -> Mapping[str, str]:
    """Return the method of each of the three passes."""
    return {pass_: choose(method, shape, precision, pass_, tuned) for pass_ in PASSES}


def candidates(shape: ConvShape, precision: str) -> tuple[str, ...]:
    """Return the methods among which a measurement may pick."""
    return tuple(method for method in TUNABLE if _can(method, shape, precision))


def _rule(shape: ConvShape, precision: str) -> str:
    if not enabled():
        return "lowering"
    # A product of a group with few channels leaves most of a vector register empty: the simple loops win. Where
    # each channel has one filter, channels fill the register.
    if min(shape.channels) < 4 and shape.window.groups > 1:
        return "implicit" if max(shape.channels) == 1 else "direct"
    if precision == "fast" and winograd_tiles.fits(shape.window) and _saves_products(shape):
        return "winograd"
    return "fft" if precision == "fast" and _is_large(shape.window) else "implicit"


def _can(method: str, shape: ConvShape, precision: str) -> bool:
    try:
        if check_method(method) in FAST:
            _check_fast(method, shape, precision)
    except InputError:
        return False
    return True


def _is_large(window: Window) -> bool:
    """Return whether products of frequencies are fewer than a kernel's, by what was measured (bench_layers.py)."""
    return min(window.kernel) >= _FFT_KERNEL and window.stride == window.dilation == (1, 1)


def _check_fast(method: str, shape: ConvShape, precision: str) -> None:
    if method == "winograd" and not winograd_tiles.fits(shape.window):
        window, known = shape.window, " and ".join(f"{r}x{r}" for r in winograd_tiles.KERNELS)
        raise InputError(
            f"method winograd does kernels of {known} with stride and dilation 1, but the kernel is {window.kernel} "
            f"with stride {window.stride} and dilation {window.dilation}: choose auto or implicit for this layer."
        )
    if precision == "exact":
        raise InputError(
            f"method {method} is not exact to rounding: choose implicit for this layer, or precision fast."
        )


def _saves_products(shape: ConvShape) -> bool:
    """Return whether Winograd's tiles, their transforms counted, multiply less than the taps inside the image do."""
    correlation = forward_correlation(shape.window, *shape.image)
    c, k = shape.channels
    points = winograd_tiles.count_points(correlation)
    return points * (c * k + _TRANSFORM_MACS * (c + k)) < _products(correlation, shape.image) * c * k


def _products(correlation: Correlation, image: Pair) -> int:
    """Return how many pixels the taps of all outputs of an image read, padding not counted."""
    inside = [
        sum(0 <= i + offset < size for i in range(outputs) for offset in offsets)
        for offsets, outputs, size in zip(
            (correlation.rows, correlation.cols), correlation.size, image, strict=True
        )
    ]
    return inside[0] * inside[1]
