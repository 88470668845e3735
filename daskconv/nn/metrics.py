"""Metrics: sums over blocks of images that add up to a figure for a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError


@dataclass(frozen=True)
class Metric:
    """A custom metric subclasses this, as a frozen dataclass with a name."""

    name: str

    def size(self, outputs: int) -> int:
        """Return how many sums the metric needs for a network of so many outputs."""
        return 1

    def sums(self, scores: NDArray, y: NDArray, weight: NDArray) -> NDArray:
        """Return the block's sums (size,), which are added over blocks in float64."""
        raise NotImplementedError

    def result(self, sums: NDArray, weight: float) -> Any:
        """Return the figure from the sums and the sum of all weights."""
        return float(sums[0] / weight)


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of images, or of each image's pixels, whose class is among the ``k`` highest scores.

    Examples
    --------
    >>> Accuracy().sums(np.eye(2), np.array([0, 0]), np.ones(2))
    array([1.])
    """

    name: str = "accuracy"
    k: int = 1

    def sums(self, scores: NDArray, y: NDArray, weight: NDArray) -> NDArray:
        """Return the weight of the images that are right: the first of equal scores wins, for k > 1 all of them do."""
        if self.k == 1:
            right = scores.argmax(-1) == y
        else:
            own = np.take_along_axis(scores, y[..., None].astype(np.int64), -1)
            # Written so that a score that is NaN ranks above: a net that diverged is not right.
            right = (~(scores < own)).sum(-1) <= self.k
        share = right.reshape(len(y), -1).mean(1) if right.ndim > 1 else right
        return np.array([np.sum(weight * share, dtype=np.float64)])


@dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """Images of each true class (rows) by predicted class (columns)."""

    name: str = "confusion_matrix"

    def size(self, outputs: int) -> int:
        """Return classes squared."""
        return outputs * outputs

    def sums(self, scores: NDArray, y: NDArray, weight: NDArray) -> NDArray:
        """Return the matrix, flat."""
        classes = scores.shape[1]
        pairs = y.astype(np.int64) * classes + scores.argmax(1)
        return np.bincount(pairs, weight.astype(np.float64), classes * classes)

    def result(self, sums: NDArray, weight: float) -> NDArray:
        """Return the matrix (classes, classes) of weights."""
        side = round(len(sums) ** 0.5)
        return sums.reshape(side, side)


METRICS = {"accuracy": Accuracy(), "top5": Accuracy("top5", 5), "confusion_matrix": ConfusionMatrix()}


def resolve_metrics(metrics: tuple[str | Metric, ...]) -> tuple[Metric, ...]:
    """Return the metrics of the names, and those given as they are."""
    for metric in metrics:
        if not isinstance(metric, Metric) and metric not in METRICS:
            raise InputError(
                f"metric {metric!r}: choose one of {', '.join(METRICS)} or give a daskconv.Metric."
            )
    return tuple(METRICS[metric] if isinstance(metric, str) else metric for metric in metrics)
