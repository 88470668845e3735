"""MatMul: the product of two inputs' matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.layers.merge import aligned, reduced


@dataclass(frozen=True)
class MatMul(Layer):
    """The product of the last two axes of two inputs; axes before them are broadcast.

    Examples
    --------
    >>> MatMul().output_shape(((4, 2, 3), (3, 5)))
    (4, 2, 5)
    """

    stage: ClassVar[str] = "product"

    def output_shape(self, shape: Any) -> Shape:
        """Return the matrices' shape."""
        fits = len(shape) == 2 and all(isinstance(s, tuple) and len(s) > 1 for s in shape)
        if not fits or shape[0][-1] != shape[1][-2]:
            raise InputError(
                f"MatMul gets inputs of shapes {shape}: it needs two matrices (..., i, k) and (..., k, j)."
            )
        try:
            several = np.broadcast_shapes(shape[0][:-2], shape[1][:-2])
        except ValueError:
            raise InputError(
                f"MatMul gets inputs of shapes {shape}: the axes before the matrices have to be equal, or of size 1."
            ) from None
        return (*several, shape[0][-2], shape[1][-1])

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the product; backward needs both inputs."""
        one, other = aligned(x)
        return np.matmul(one, other), x

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient by both."""
        one, other = aligned(saved)
        by_one = np.matmul(dy, other.swapaxes(-1, -2))
        by_other = np.matmul(one.swapaxes(-1, -2), dy)
        return (reduced(by_one, saved[0].shape), reduced(by_other, saved[1].shape)), {}
