"""Losses: scores and targets in, the weighted sum of the loss and its gradient out.

A loss is a function ``loss(scores, y, weight) -> (sum, gradient)`` of one block: scores (n, classes), targets
(n, ...) and a weight for each image (n,). ``sum`` is the weighted sum over images and ``gradient`` its
derivative by the scores; whoever adds blocks divides by the sum of weights at the end. A loss that counts images,
or their pixels, in another way is a frozen dataclass that is called like a function and has a method ``weights(y,
weight)``: what it counts each image for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numexpr
import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.metrics import Accuracy, Metric
from daskconv.nn.targets import check_classes, check_shares, check_values

Loss = Callable[[Any, NDArray, NDArray], tuple[float, Any]]


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
    """Return -log softmax(scores)[y], weighted and summed over images, and its gradient; a mean over an image's pixels.

    Parameters
    ----------
    scores : array (n, classes) or (n, h, w, classes)
        Logits, before the softmax.
    y : array of int, (n,) or (n, h, w)
        Classes.
    weight : array (n,)
        Weight of each image.

    Examples
    --------
    >>> loss, gradient = softmax_cross_entropy(np.zeros((1, 2)), np.array([0]), np.ones(1))
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.5, 0.5]])
    """
    if y.ndim > 1:
        return SoftmaxCrossEntropy()(scores, y, weight / max(1, y[:1].size))
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


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Softmax cross-entropy with smoothed labels, weighted classes, classes that do not count, and of each pixel.

    The mean is PyTorch's: the sum over all pixels over the sum of their classes' weights.

    Parameters
    ----------
    label_smoothing : float
        Share of the target that is spread evenly over all classes (Szegedy et al. 2016).
    class_weights : tuple of float
        A weight of at least 0 for each class; all 1 when empty.
    ignore_index : int, optional
        Targets of this number count nothing, such as a border's pixels.

    Examples
    --------
    >>> loss = SoftmaxCrossEntropy(ignore_index=255)
    >>> total, gradient = loss(np.zeros((1, 1, 2, 4)), np.array([[[3, 255]]]), np.ones(1))
    >>> round(total, 4), loss.weights(np.array([[[3, 255]]]), np.ones(1)).tolist(), gradient[0, 0, 1].tolist()
    (1.3863, [1.0], [0.0, 0.0, 0.0, 0.0])
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_weights", tuple(map(float, self.class_weights)))
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}: give at least 0 and below 1.")
        if not all(weight >= 0 for weight in self.class_weights) or (
            self.class_weights and not any(self.class_weights)
        ):
            raise InputError(
                f"class_weights are {self.class_weights}: give numbers of at least 0, not all 0."
            )

    def __call__(self, scores: NDArray, y: NDArray, weight: NDArray) -> tuple[float, NDArray]:
        """Return the sum over the images' pixels, and its gradient.

        Parameters
        ----------
        scores : array (n, ..., classes)
        y : array of int, (n, ...)
        weight : array (n,)
        """
        classes = scores.shape[-1]
        rows, targets = scores.reshape(-1, classes), y.reshape(-1)
        counted = targets != self.ignore_index
        targets = np.where(counted, targets, 0).astype(np.int64)
        pixels = np.repeat(weight, y[0].size if len(y) else 1) * counted
        by_class = np.asarray(self.class_weights or np.ones(classes), np.float64)
        hard = (1 - self.label_smoothing) * by_class[targets] * pixels
        soft = self.label_smoothing / classes * pixels
        exps, top = _shifted_exps(rows)
        log_norm = np.log(exps.sum(1, dtype=np.float64)) + top[:, 0]
        at = np.arange(len(rows))
        loss = np.sum(hard * (log_norm - rows[at, targets]), dtype=np.float64)
        loss += np.sum(soft * (by_class.sum() * log_norm - rows @ by_class), dtype=np.float64)
        gradient = exps * ((hard + soft * by_class.sum()) / exps.sum(1))[:, None].astype(exps.dtype)
        gradient -= (soft[:, None] * by_class).astype(exps.dtype)
        gradient[at, targets] -= hard.astype(exps.dtype)
        return float(loss), gradient.reshape(scores.shape)

    def weights(self, y: NDArray, weight: NDArray) -> NDArray:
        """Return what each image counts for: the sum over its pixels of their classes' weights."""
        counted = y != self.ignore_index
        each = counted.astype(np.float64)
        if self.class_weights:
            each *= np.asarray(self.class_weights)[np.where(counted, y, 0)]
        return weight * each.reshape(len(y), -1).sum(1)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross-entropy of independent yes and no questions, averaged over each image's outputs.

    Scores are logits, before a sigmoid; targets (n, ...) lie between 0 and 1, one for each of an image's outputs.

    Examples
    --------
    >>> loss, gradient = BinaryCrossEntropy()(np.zeros((1, 2)), np.array([[1, 0]]), np.ones(1))
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.25, 0.25]])
    """

    def __call__(self, scores: NDArray, y: NDArray, weight: NDArray) -> tuple[float, NDArray]:
        """Return the sum over images, and its gradient."""
        count = scores[0].size if len(scores) else 1
        factor = (weight.reshape(-1, *(1,) * (scores.ndim - 1)) / count).astype(scores.dtype)
        targets = y.reshape(scores.shape).astype(scores.dtype)
        # log(1 + exp(-|x|)) never overflows.
        each = np.maximum(scores, 0) - scores * targets + np.log1p(np.exp(-np.abs(scores)))
        gradient = factor * ((1 + np.tanh(scores / 2)) / 2 - targets)
        return float(np.sum(factor * each, dtype=np.float64)), gradient


@dataclass(frozen=True)
class WeightedLosses:
    """The weighted sum of one loss of each of a network's outputs, such as those of GoogLeNet's auxiliary heads.

    All outputs have the same targets; metrics read the first output. Validation and ``evaluate`` leave the outputs out
    that are for training alone (``Outputs(auxiliary=2)``), and the factor where one output is left.

    Parameters
    ----------
    loss : str or spec
        The loss of each output: the name of one, or a spec such as :class:`SoftmaxCrossEntropy`.
    factors : tuple of float
        What each output's loss counts.

    Examples
    --------
    >>> loss = WeightedLosses("mean_squared_error", (1.0, 0.3))
    >>> total, gradients = loss((np.array([[3.0]]), np.array([[2.0]])), np.array([[1.0]]), np.ones(1))
    >>> round(total, 4), [gradient.tolist() for gradient in gradients]
    (4.3, [[[4.0]], [[0.6]]])
    """

    loss: str | BinaryCrossEntropy | SoftmaxCrossEntropy = "softmax_cross_entropy"
    factors: tuple[float, ...] = (1.0, 0.3, 0.3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(map(float, self.factors)))
        known = isinstance(self.loss, str) and self.loss in LOSSES
        if not known and not isinstance(self.loss, BinaryCrossEntropy | SoftmaxCrossEntropy):
            raise InputError(
                f"loss is {self.loss!r}: give one of {', '.join(LOSSES)}, or a spec such as "
                "daskconv.SoftmaxCrossEntropy()."
            )
        if len(self.factors) < 2 or not all(np.isfinite(factor) and factor >= 0 for factor in self.factors):
            raise InputError(
                f"factors are {self.factors}: give a number of at least 0 for each of several outputs."
            )

    @property
    def each(self) -> Loss:
        """The loss of each output."""
        return resolve_loss(self.loss)

    def __call__(
        self, scores: tuple[NDArray, ...], y: NDArray, weight: NDArray
    ) -> tuple[float, tuple[NDArray, ...]]:
        """Return the sum over the outputs, and its gradient by each of them."""
        parts = [self.each(output, y, weight) for output in scores]
        total = sum(factor * loss for factor, (loss, _) in zip(self.factors, parts, strict=True))
        gradients = [
            gradient * gradient.dtype.type(factor)
            for factor, (_, gradient) in zip(self.factors, parts, strict=True)
        ]
        return float(total), tuple(gradients)

    def weights(self, y: NDArray, weight: NDArray) -> NDArray:
        """Return what each image counts for, which is the same for all outputs."""
        return loss_weights(self.each, y, weight)


def first_output(several: Any) -> Any:
    """Return the first of several outputs, or of their shapes; what is one stays as it is.

    Examples
    --------
    >>> first_output(((10,), (5,))), first_output((10,))
    ((10,), (10,))
    """
    return (
        several[0] if isinstance(several, tuple) and several and not isinstance(several[0], int) else several
    )


def loss_of_first(loss: Loss, outputs: int) -> Loss | None:
    """Return the loss of the first outputs of a network, without the others; None of a user's function of all of them.

    Examples
    --------
    >>> loss_of_first(WeightedLosses("mean_squared_error", (1.0, 0.5, 0.3)), 2).factors
    (1.0, 0.5)
    """
    if isinstance(loss, WeightedLosses):
        return loss.each if outputs == 1 else replace(loss, factors=loss.factors[:outputs])
    return loss if loss in LOSSES.values() or isinstance(loss, SPECS) else None


def loss_weights(loss: Loss, y: NDArray, weight: NDArray) -> NDArray:
    """Return what a loss counts each image for: its weight, where the loss does not say otherwise."""
    return loss.weights(y, weight) if hasattr(loss, "weights") else weight


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


SPECS = (BinaryCrossEntropy, SoftmaxCrossEntropy, WeightedLosses)
"""Losses that are frozen dataclasses: a checkpoint holds their options."""

LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": BinaryCrossEntropy(),
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
    """Return whether the targets are class numbers; of a user's function, whether they could be."""
    loss = _of_one_output(loss)
    if loss is softmax_cross_entropy or isinstance(loss, SoftmaxCrossEntropy):
        return True
    return not takes_values(loss) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)


def _of_one_output(loss: Loss) -> Loss:
    return loss.each if isinstance(loss, WeightedLosses) else loss


def takes_values(loss: Loss) -> bool:
    """Return whether the targets are numbers, one for each of an image's outputs."""
    loss = _of_one_output(loss)
    return loss is mean_squared_error or isinstance(loss, BinaryCrossEntropy)


def check_targets(loss: Loss, y: NDArray, output: tuple[Any, ...], name: str) -> None:
    """Raise InputError where targets, called ``name``, do not fit the loss of a network with this output.

    Of a user's function nothing is known: integers (n,) are taken for classes where there is one output, anything else
    is not looked at.
    """
    outputs = output if output and isinstance(output[0], tuple) else (output,)
    if isinstance(loss, WeightedLosses):
        if len(outputs) != len(loss.factors):
            raise InputError(
                f"The network has {len(outputs)} outputs and the loss {len(loss.factors)} factors: give one for each."
            )
        for each in outputs:
            check_targets(loss.each, y, each, name)
    elif len(outputs) > 1 and (loss in LOSSES.values() or isinstance(loss, SPECS)):
        raise InputError(
            f"The network has {len(outputs)} outputs and the loss takes one: give daskconv.WeightedLosses(loss, "
            "factors)."
        )
    elif isinstance(loss, BinaryCrossEntropy):
        check_shares(y, output, name)
    elif loss is mean_squared_error:
        check_values(y, output, name)
    elif len(outputs) == 1 and takes_classes(loss, y):
        check_classes(y, output, name, getattr(loss, "ignore_index", None))
        weights = getattr(loss, "class_weights", ())
        if weights and len(weights) != output[-1]:
            raise InputError(
                f"class_weights are {len(weights)} but there are {output[-1]} classes: give one for each."
            )


def default_metrics(loss: Loss) -> tuple[Metric, ...]:
    """Return what is measured where nobody says: the accuracy, of what the loss counts, unless it takes values."""
    loss = _of_one_output(loss)
    return () if takes_values(loss) else (Accuracy(ignore_index=getattr(loss, "ignore_index", None)),)
