"""Compare a layer's backward pass with finite differences of its forward pass, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers.base import Arrays, Context, Layer


def check_gradient(
    layer: Layer,
    input_shape: Any,
    *,
    images: int = 2,
    seed: int = 0,
    tolerance: float = 1e-5,
    context: Context | None = None,
) -> float:
    """Return the largest relative error of a layer's gradients; raise InputError above ``tolerance``.

    Each gradient is compared along a random direction with the central difference of the scalar
    ``sum(forward(x) * r)``.

    Parameters
    ----------
    layer : Layer
    input_shape : tuple of int
        Shape of one image; a tuple of shapes for a layer with several inputs.
    images : int
        Size of the batch that is drawn.
    seed : int
    tolerance : float
        Largest error allowed, relative to the size of the derivative.
    context : Context, optional
        The pass to check in: training or not, convolution methods.

    Examples
    --------
    >>> from daskconv import Conv2D
    >>> check_gradient(Conv2D(3, 3, stride=2, padding=1), (5, 5, 2)) < 1e-6
    True
    """
    context = context or Context(training=True)
    rng = np.random.default_rng(seed)
    several = bool(input_shape) and isinstance(input_shape[0], tuple)
    x = tuple(rng.standard_normal((images, *s)) for s in (input_shape if several else (input_shape,)))
    params = {name: rng.standard_normal(shape) for name, (shape, _) in layer.weights(input_shape).items()}
    first = {name: init.draw(rng, shape) for name, (shape, init) in layer.statistics(input_shape).items()}
    context = replace(context, statistics=first | context.statistics)

    def run(x: tuple[NDArray, ...], params: Arrays) -> tuple[NDArray, Any]:
        return layer.forward(params, x if several else x[0], context)

    y, saved = run(x, params)
    seed_grad = rng.standard_normal(y.shape)
    dx, grads = layer.backward(params, saved, seed_grad, context)
    dx = dx if several else (dx,)
    worst = 0.0
    for i, gradient in enumerate(dx):
        direction, slope = _slope(rng, x[i], gradient)
        moved = [(*x[:i], x[i] + step * direction, *x[i + 1 :]) for step in (1e-6, -1e-6)]
        rise = _rise([run(m, params)[0] for m in moved], seed_grad)
        worst = max(worst, _error(rise, slope, f"input {i}", tolerance, layer))
    for name, array in params.items():
        direction, slope = _slope(rng, array, grads[name])
        steps = [params | {name: array + step * direction} for step in (1e-6, -1e-6)]
        rise = _rise([run(x, p)[0] for p in steps], seed_grad)
        worst = max(worst, _error(rise, slope, name, tolerance, layer))
    return worst


def _slope(rng: np.random.Generator, array: NDArray, gradient: NDArray) -> tuple[NDArray, float]:
    direction = rng.standard_normal(array.shape)
    return direction, float(np.sum(gradient * direction))


def _rise(outputs: list[NDArray], seed_grad: NDArray) -> float:
    return float(np.sum((outputs[0] - outputs[1]) * seed_grad) / 2e-6)


def _error(rise: float, slope: float, name: str, tolerance: float, layer: Layer) -> float:
    error = abs(rise - slope) / max(abs(rise), abs(slope), 1.0)
    if not error <= tolerance:
        raise InputError(
            f"{type(layer).__name__}: the gradient by {name} gives {slope:.6g} where finite differences "
            f"give {rise:.6g}: forward and backward do not belong together."
        )
    return error
