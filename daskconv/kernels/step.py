"""The optimiser's step in one pass over memory: NumPy's and numexpr's expressions read the arrays again for each."""

from __future__ import annotations

from typing import NamedTuple

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


@njit(otherwise=plain.momentum_step, nogil=True, cache=True)
def _step(param, velocity, gradient, rates, nesterov):  # type: ignore[no-untyped-def]
    scale, momentum, decay, rate = rates
    for i in range(len(param)):
        pull = gradient[i] * scale
        velocity[i] = momentum * velocity[i] + pull + decay * param[i]
        ahead = momentum * velocity[i] + pull + decay * param[i] if nesterov else velocity[i]
        param[i] = param[i] - rate * ahead
