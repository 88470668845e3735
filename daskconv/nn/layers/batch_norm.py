"""BatchNorm: each channel to mean 0 and variance 1, over the images of a shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels.normalize import moments, normalize, normalize_grad, normalize_grad_sums
from daskconv.nn.initializers import Constant, Initializer
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015).

    While training, mean and variance are those of a shard's images, as they are those of one process's images in
    other libraries' data parallelism: with ``shards=1`` they are the whole batch's. The running statistics are the
    Model's ``state``; after each step they follow the mean over all shards. Outside of training they are what the
    layer normalises by. So they are in a frozen layer, none of whose parameters a Trainer trains: it uses its running
    statistics and keeps them, as in Keras. One without scale and offset has nothing to freeze.

    Parameters
    ----------
    momentum : float
        Share of a step's statistics in the running ones, as in PyTorch.
    epsilon : float
        Added to the variance.
    scale, offset : bool
        Multiply by, and add, a learnt value for each channel.
    scale_init, offset_init : Initializer
        How "scale" (c,) and "offset" (c,) start.

    Examples
    --------
    >>> import numpy as np
    >>> layer = BatchNorm()
    >>> params = {"scale": np.ones(1), "offset": np.zeros(1)}
    >>> y, _ = layer.forward(params, np.array([[1.0], [3.0]]), Context(training=True))
    >>> y.round(3).tolist()
    [[-1.0], [1.0]]
    """

    is_pointwise: ClassVar[bool] = True
    fuses: ClassVar[bool] = True
    momentum: float = 0.1
    epsilon: float = 1e-5
    scale: bool = True
    offset: bool = True
    scale_init: Initializer = Constant(1.0)
    offset_init: Initializer = Constant(0.0)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        if not shape:
            raise InputError("BatchNorm gets single numbers: it needs inputs with channels, (..., c).")
        if not (0 <= self.momentum <= 1 and self.epsilon >= 0):
            raise InputError(
                f"BatchNorm has momentum {self.momentum} and epsilon {self.epsilon}: give a momentum from 0 to 1 "
                "and an epsilon of at least 0."
            )
        return shape

    def weights(self, shape: Shape) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return "scale" (c,) and "offset" (c,)."""
        learnt = {"scale": (self.scale, self.scale_init), "offset": (self.offset, self.offset_init)}
        return {name: ((shape[-1],), start) for name, (wanted, start) in learnt.items() if wanted}

    def statistics(self, shape: Shape) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return the running "mean" (c,) and "variance" (c,)."""
        return {"mean": ((shape[-1],), Constant(0.0)), "variance": ((shape[-1],), Constant(1.0))}

    def follow(self, running: NDArray, batch: NDArray) -> NDArray:
        """Return the running statistic moved towards the batch's by ``momentum``."""
        return running + running.dtype.type(self.momentum) * (batch - running)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the normalised input; backward needs the input, mean and 1 / deviation."""
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        if context.training:
            mean, variance = moments(rows)
            unbiased = variance * (len(rows) / max(len(rows) - 1, 1))
            context.batch_statistics.update(mean=mean, variance=unbiased)
        else:
            mean, variance = (context.statistics[name].astype(np.float64) for name in ("mean", "variance"))
        y, inverse, factor = self.normalized(params, rows, mean, variance, context)
        return y.reshape(x.shape), (rows, mean, inverse, factor)

    def normalized(
        self, params: Arrays, rows: NDArray, mean: NDArray, variance: NDArray, context: Context
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Return the normalised rows, 1 / deviation, and what rows are multiplied by."""
        inverse = 1 / np.sqrt(variance + self.epsilon)
        factor = inverse * params["scale"] if self.scale else inverse
        offset = params["offset"] if self.offset else np.zeros(rows.shape[-1])
        return normalize(rows, mean, factor, offset, context.epilogue), inverse, factor

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the input gradient and those of scale and offset."""
        rows, mean, inverse, factor = saved
        dys = np.ascontiguousarray(dy).reshape(rows.shape)
        sums, products = normalize_grad_sums(dys, rows, mean, inverse)
        grads = {"scale": products, "offset": sums}
        grads = {name: grads[name].astype(rows.dtype) for name in self.weights(rows.shape)}
        if not context.needs_input_grad:
            return None, grads
        # The batch's mean and deviation depend on each row, too; running ones do not.
        share = -factor / len(rows) if context.training else np.zeros_like(factor)
        factors = factor, share * products * inverse, share * sums
        return normalize_grad(dys, rows, mean, factors).reshape(dy.shape), grads
