"""LRN: local response normalisation, of AlexNet and GoogLeNet."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels.lrn import lrn, lrn_grad
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape


@dataclass(frozen=True)
class LRN(Layer):
    """``x / (k + alpha / size * sum of squares of size channels) ** beta`` (Krizhevsky et al. 2012).

    The channels are those around x; of an even ``size`` the one more lies after it, as in ONNX.

    Parameters
    ----------
    size : int
        Channels of a sum.
    alpha, beta, k : float

    Examples
    --------
    >>> LRN(1, alpha=1.0, beta=0.5, k=0.0).forward({}, np.array([[3.0, -4.0]]), Context())[0].tolist()
    [[1.0, -1.0]]
    """

    is_pointwise: ClassVar[bool] = True

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        if not shape or not isinstance(self.size, Integral) or self.size < 1:
            raise InputError(
                f"LRN has size {self.size} and an input of shape {shape}: give an int of at least 1, and channels."
            )
        return shape

    @property
    def _window(self) -> tuple[int, int]:
        return (self.size - 1) // 2, self.size // 2

    @property
    def _numbers(self) -> tuple[float, float, float]:
        return self.alpha / self.size, self.k, self.beta

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output; backward needs the input and the sums."""
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        y, scale = lrn(rows, self._window, self._numbers)
        return y.reshape(x.shape), (rows, scale)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        rows, scale = saved
        dys = np.ascontiguousarray(dy).reshape(rows.shape)
        return lrn_grad(dys, rows, scale, self._window, self._numbers).reshape(dy.shape), {}
