"""Losses: scores and targets in, the weighted sum of the loss and its gradient out.

A loss is a function ``loss(scores, y, weight) -> (sum, gradient)`` of one block: scores (n, classes), targets
(n, ...) and a weight for each image (n,). ``sum`` is the weighted sum over images and ``gradient`` its
derivative by the scores; whoever adds blocks divides by the sum of weights at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import numexpr
import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError

Loss = Callable[[NDArray, NDArray, NDArray], tuple[float, NDArray]]


def softmax(scores: NDArray, axis: int = 1) -> NDArray:
    """Return probabilities along an axis of scores, such as (n, classes).

    Examples
    --------
    >>> softmax(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    exps, _ = _shifted_exps(scores, axis)
    exps /= exps.sum(axis, keepdims=True)
    return exps


def softmax_cross_entropy(scores: NDArray, y: NDArray, weight: NDArray) -> tuple[float, NDArray]:
    """Return -log softmax(scores)[y], weighted and summed, and its gradient.

    Parameters
    ----------
    scores : array (n, classes)
        Logits, before the softmax.
    y : array of int, (n,)
        Classes.
    weight : array (n,)
        Weight of each image.

    Examples
    --------
    >>> loss, gradient = softmax_cross_entropy(np.zeros((1, 2)), np.array([0]), np.ones(1))
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.5, 0.5]])
    """
    exps, top = _shifted_exps(scores)
    rows = np.arange(len(y))
    # log p from the log of the sum, not from the log of a probability that may have rounded to 0.
    log_norm = np.log(exps.sum(1, dtype=np.float64)) + top[:, 0]
    loss = float(np.sum(weight * (log_norm - scores[rows, y]), dtype=np.float64))
    gradient = exps
    gradient /= exps.sum(1, keepdims=True)
    gradient[rows, y] -= 1
    gradient *= weight[:, None].astype(gradient.dtype)
    return loss, gradient


def _shifted_exps(scores: NDArray, axis: int = 1) -> tuple[NDArray, NDArray]:
    """Return exp(scores - top) and the largest score ``top`` (n, 1): no exponent is above 0."""
    top = scores.max(axis, keepdims=True)
    exps = numexpr.evaluate("exp(scores - top)", local_dict={"scores": scores, "top": top}, global_dict={})
    return exps, top


def mean_squared_error(scores: NDArray, y: NDArray, weight: NDArray) -> tuple[float, NDArray]:
    """Return the squared error, averaged over each image's outputs, weighted and summed over images.

    Examples
    --------
    >>> mean_squared_error(np.array([[3.0]]), np.array([[1.0]]), np.ones(1))
    (4.0, array([[4.]]))
    """
    count = scores[0].size if len(scores) else 1
    factor = (weight.reshape(-1, *(1,) * (scores.ndim - 1)) / count).astype(scores.dtype)
    names = {"scores": scores, "y": y.reshape(scores.shape).astype(scores.dtype), "factor": factor}
    error = numexpr.evaluate("scores - y", local_dict=names, global_dict={})
    loss = float(np.sum(factor * error * error, dtype=np.float64))
    return loss, 2 * factor * error


LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "mean_squared_error": mean_squared_error,
}


def resolve_loss(loss: str | Loss) -> Loss:
    """Return the loss of a name, or the function that was given."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"loss is {loss!r}: choose one of {', '.join(LOSSES)} or give a function.")
    return LOSSES[loss]


def takes_classes(loss: Loss, y: NDArray) -> bool:
    """Return whether the targets are class numbers, which then have to lie below the number of scores."""
    return loss is softmax_cross_entropy or (y.ndim == 1 and np.issubdtype(y.dtype, np.integer))
