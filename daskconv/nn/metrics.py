"""Metrics: sums over blocks of images that add up to a figure for a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.targets import check_classes


@dataclass(frozen=True)
class Metric:
    """A custom metric subclasses this, as a frozen dataclass with a name."""

    name: str

    def size(self, scores: int) -> int:
        """Return how many sums the metric needs for so many scores of an image, or a pixel."""
        return 1

    def check(self, y: NDArray, output: tuple[int, ...], name: str) -> None:
        """Raise InputError where targets, called ``name``, are none that the metric takes."""

    def sums(self, scores: NDArray, y: NDArray, weight: NDArray) -> NDArray:
        """Return a block's sums (size,), which are added over blocks in float64."""
        raise NotImplementedError

    def result(self, sums: NDArray, weight: float) -> Any:
        """Return the figure from the sums and the sum of all weights."""
        return float(sums[0] / weight)


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of images, or pixels, whose class is among the ``k`` highest scores.

    Parameters
    ----------
    k : int
    ignore_index : int, optional
        Targets of this number are neither right nor wrong.

    Examples
    --------
    >>> Accuracy().sums(np.eye(2), np.array([0, 0]), np.ones(2))
    array([1.])
    """

    name: str = "accuracy"
    k: int = 1
    ignore_index: int | None = None

    def size(self, scores: int) -> int:
        """Return 1 sum, of what is right; a second one, of what counts, where something does not."""
        return 1 if self.ignore_index is None else 2

    def check(self, y: NDArray, output: tuple[int, ...], name: str) -> None:
        """Raise InputError unless targets are classes."""
        _check_for(self, y, output, name, self.ignore_index)

    def sums(self, scores: NDArray, y: NDArray, weight: NDArray) -> NDArray:
        """Return the weight of what is right: the first of equal scores wins, for k > 1 all of them do."""
        counts = np.ones(y.shape, bool) if self.ignore_index is None else y != self.ignore_index
        if self.k == 1:
            right = scores.argmax(-1) == y
        else:
            own = np.take_along_axis(scores, np.where(counts, y, 0)[..., None], -1)
            # Written so that a score that is NaN ranks above: a net that diverged is not right.
            right = (~(scores < own)).sum(-1) <= self.k
        shares = (right & counts, counts)[: self.size(scores.shape[-1])]
        return np.array(
            [np.sum(weight * each.reshape(len(y), -1).mean(1), dtype=np.float64) for each in shares]
        )

    def result(self, sums: NDArray, weight: float) -> float:
        """Return what is right as a share of all that counts."""
        counts = float(sums[1]) if len(sums) == 2 else weight
        return float(sums[0]) / (counts or 1.0)


@dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """Images, or pixels as parts of an image, of each true class (rows) by predicted class (columns)."""

    name: str = "confusion_matrix"

    def size(self, scores: int) -> int:
        """Return classes squared."""
        return scores * scores

    def check(self, y: NDArray, output: tuple[int, ...], name: str) -> None:
        """Raise InputError unless targets are classes."""
        _check_for(self, y, output, name)

    def sums(self, scores: NDArray, y: NDArray, weight: NDArray) -> NDArray:
        """Return the matrix, flat."""
        classes = scores.shape[-1]
        pairs = y.reshape(len(y), -1).astype(np.int64) * classes + scores.argmax(-1).reshape(len(y), -1)
        each = np.broadcast_to(weight.astype(np.float64)[:, None] / max(1, pairs.shape[1]), pairs.shape)
        return np.bincount(pairs.ravel(), each.ravel(), classes * classes)

    def result(self, sums: NDArray, weight: float) -> NDArray:
        """Return the matrix (classes, classes) of weights."""
        side = round(len(sums) ** 0.5)
        return sums.reshape(side, side)


def _check_for(
    metric: Metric, y: NDArray, output: tuple[int, ...], name: str, ignored: int | None = None
) -> None:
    try:
        check_classes(y, output, name, ignored)
    except InputError as error:
        raise InputError(f"The metric {metric.name} needs classes, or leave it out: {error}") from None


METRICS = {"accuracy": Accuracy(), "top5": Accuracy("top5", 5), "confusion_matrix": ConfusionMatrix()}


def resolve_metrics(metrics: tuple[str | Metric, ...]) -> tuple[Metric, ...]:
    """Return the metrics of the names, and those given as they are."""
    for metric in metrics:
        if not isinstance(metric, Metric) and metric not in METRICS:
            raise InputError(
                f"metric {metric!r}: choose one of {', '.join(METRICS)} or give a daskconv.Metric."
            )
    return tuple(METRICS[metric] if isinstance(metric, str) else metric for metric in metrics)
