"""The optimiser's step in one pass over memory: NumPy's and numexpr's expressions read the arrays again for each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit


class Rates(NamedTuple):
    """The numbers of a step of momentum: factors on the gradient, the velocity, the parameter, and of the move."""

    scale: float
    momentum: float
    decay: float
    rate: float


def momentum_step(
    param: NDArray, velocity: NDArray, gradient: NDArray, rates: Rates, nesterov: bool = False
) -> None:
    """Move a parameter and its velocity in place.

    ``velocity = momentum * velocity + scale * gradient + decay * param``; then ``param -= rate * velocity``, or with
    ``nesterov`` (Sutskever et al. 2013) by what the velocity would become once more.
    """
    arrays = param, velocity, gradient
    dtype = param.dtype.type
    numbers = Rates(*(dtype(number) for number in rates))
    if all(array.flags.c_contiguous and array.dtype == param.dtype for array in arrays):
        _step(*(array.reshape(-1) for array in arrays), numbers, nesterov)
    else:
        plain.momentum_step(*arrays, numbers, nesterov)


class Adaptive(NamedTuple):
    """The numbers of a step that is scaled by each element's past: see :func:`adaptive_step`."""

    scale: float
    decay: float
    first: float
    second: float
    fresh: float
    rate: float
    correction: float
    epsilon: float
    shrink: float


def adaptive_step(
    param: NDArray, mean: NDArray | None, square: NDArray, gradient: NDArray, numbers: Adaptive
) -> None:
    """Move a parameter and two running sums of its gradient in place; without ``mean`` the gradient itself moves it.

    With ``g = scale * gradient + decay * param``: ``mean = first * mean + (1 - first) * g``, ``square = second * square
    + fresh * g * g``, and ``param = shrink * param - rate * mean / (sqrt(correction * square) + epsilon)``.
    """
    arrays = param, mean, square, gradient
    exact = Adaptive(*(param.dtype.type(number) for number in numbers))
    if all(a is None or (a.flags.c_contiguous and a.dtype == param.dtype) for a in arrays):
        _adaptive(*(None if a is None else a.reshape(-1) for a in arrays), exact)
    else:
        plain.adaptive_step(*arrays, exact)


@njit(otherwise=plain.adaptive_step, nogil=True, cache=True, error_model="numpy")
def _adaptive(param, mean, square, gradient, numbers):  # type: ignore[no-untyped-def]
    scale, decay, first, second, fresh, rate, correction, epsilon, shrink = numbers
    rest = param.dtype.type(1) - first
    for i in range(len(param)):
        pull = gradient[i] * scale + decay * param[i]
        square[i] = second * square[i] + fresh * pull * pull
        if mean is not None:
            mean[i] = first * mean[i] + rest * pull
            pull = mean[i]
        param[i] = shrink * param[i] - rate * pull / (np.sqrt(correction * square[i]) + epsilon)


@njit(otherwise=plain.momentum_step, nogil=True, cache=True)
def _step(param, velocity, gradient, rates, nesterov):  # type: ignore[no-untyped-def]
    scale, momentum, decay, rate = rates
    for i in range(len(param)):
        pull = gradient[i] * scale
        velocity[i] = momentum * velocity[i] + pull + decay * param[i]
        ahead = momentum * velocity[i] + pull + decay * param[i] if nesterov else velocity[i]
        param[i] = param[i] - rate * ahead
