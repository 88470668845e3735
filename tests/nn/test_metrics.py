"""Metrics: sums over blocks, and the figures from them."""

from dataclasses import dataclass

import numpy as np
import pytest

from daskconv.nn.metrics import METRICS, Accuracy, ConfusionMatrix, Metric, resolve_metrics
from reference import refuse

SCORES = np.random.default_rng(0).standard_normal((200, 8))
CLASSES = np.random.default_rng(1).integers(0, 8, 200)
WEIGHT = np.random.default_rng(2).uniform(0, 2, 200)


def figure(metric, scores, y, weight=None, cuts=()):
    """The metric over blocks cut at ``cuts``."""
    weight = np.ones(len(y)) if weight is None else weight
    blocks = zip(*(np.split(array, cuts) for array in (scores, y, weight)))
    sums = sum(metric.sums(*block) for block in blocks)
    assert sums.shape == (metric.size(scores.shape[1]),) and sums.dtype == np.float64
    return metric.result(sums, weight.sum())


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_accuracy_is_the_weighted_share_among_the_k_highest(k):
    best = np.argsort(-SCORES, axis=1)[:, :k]
    right = (best == CLASSES[:, None]).any(1)
    want = (WEIGHT * right).sum() / WEIGHT.sum()
    assert figure(Accuracy(k=k), SCORES, CLASSES, WEIGHT, cuts=[1, 90]) == pytest.approx(want)


def test_top5_counts_equal_scores_as_ranked_above():
    scores = np.zeros((2, 6))
    assert figure(METRICS["top5"], scores, np.array([0, 5])) == 0
    scores[:, :2] = -1
    assert figure(METRICS["top5"], scores, np.array([2, 0])) == 0.5


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_top5_of_at_most_five_classes_is_always_right(classes):
    y = np.arange(classes)
    assert figure(METRICS["top5"], np.random.default_rng(0).standard_normal((classes, classes)), y) == 1


def test_the_confusion_matrix_counts_true_rows_by_predicted_columns():
    scores = np.eye(3)[[0, 1, 1, 2, 0]]
    matrix = figure(ConfusionMatrix(), scores, np.array([0, 1, 2, 2, 1]), np.array([1, 1, 1, 1, 0.5]), [2])
    assert matrix.tolist() == [[1, 0, 0], [0.5, 1, 0], [0, 1, 1]]
    matrix = figure(ConfusionMatrix(), SCORES, CLASSES, WEIGHT, cuts=[7, 8, 150])
    predicted = SCORES.argmax(1)
    want = [[WEIGHT[(i == CLASSES) & (j == predicted)].sum() for j in range(8)] for i in range(8)]
    np.testing.assert_allclose(matrix, want)


def test_a_matrix_has_all_classes_of_the_network():
    matrix = figure(METRICS["confusion_matrix"], np.eye(4)[[0, 0]], np.array([0, 1]))
    assert matrix.shape == (4, 4) and matrix.sum() == 2


@dataclass(frozen=True)
class MeanScore(Metric):
    """A custom metric with two sums."""

    name: str = "mean_score"

    def size(self, outputs):
        return 2

    def sums(self, scores, y, weight):
        return np.array([(weight * scores[:, 0]).sum(), (weight * scores[:, 1]).sum()])

    def result(self, sums, weight):
        return (sums / weight).tolist()


def test_a_custom_metric_adds_up_like_the_others():
    want = np.average(SCORES[:, :2], axis=0, weights=WEIGHT).tolist()
    assert figure(MeanScore(), SCORES, CLASSES, WEIGHT, cuts=[3, 4]) == pytest.approx(want)
    assert resolve_metrics((MeanScore(), "accuracy")) == (MeanScore(), Accuracy())
    with pytest.raises(NotImplementedError):
        Metric("bare").sums(SCORES, CLASSES, WEIGHT)


def test_metrics_go_by_name():
    assert resolve_metrics(("accuracy", "top5")) == (Accuracy("accuracy", 1), Accuracy("top5", 5))
    assert resolve_metrics(()) == ()
    for name in ("f1", 3, None):
        match = f"metric {name!r}: choose one of accuracy, top5, confusion_matrix or give a daskconv.Metric"
        refuse(match, resolve_metrics, ("accuracy", name))


def test_scores_that_are_nan_are_never_among_the_best():
    scores = np.full((3, 8), np.nan)
    assert Accuracy("top5", 5).sums(scores, np.zeros(3, int), np.ones(3)).item() == 0


@pytest.mark.parametrize("k", [1, 3])
def test_pixels_count_as_parts_of_their_image_and_what_is_ignored_does_not(k):
    scores = np.random.default_rng(3).standard_normal((6, 4, 3, 5))
    y = np.random.default_rng(4).integers(0, 5, (6, 4, 3))
    right = (np.argsort(-scores, -1)[..., :k] == y[..., None]).any(-1)
    weight = WEIGHT[:6]
    want = np.average(right.mean((1, 2)), weights=weight)
    assert figure(Accuracy(k=k), scores, y, weight, [2, 3]) == pytest.approx(want)
    counts = np.random.default_rng(5).random(y.shape) < 0.6
    each = np.broadcast_to(weight[:, None, None], y.shape)[counts]
    metric = Accuracy(k=k, ignore_index=-1)
    found = metric.sums(scores, np.where(counts, y, -1), weight)
    assert found.shape == (metric.size(5),)
    assert metric.result(found, weight.sum()) == pytest.approx(np.average(right[counts], weights=each))
    assert metric.result(np.zeros(2), 1.0) == 0


def test_the_matrix_of_pixels():
    scores = np.random.default_rng(3).standard_normal((4, 3, 2, 5))
    y = np.random.default_rng(4).integers(0, 5, (4, 3, 2))
    matrix = ConfusionMatrix().result(ConfusionMatrix().sums(scores, y, WEIGHT[:4]), WEIGHT[:4].sum())
    flat = ConfusionMatrix().sums(scores.reshape(-1, 5), y.ravel(), np.repeat(WEIGHT[:4], 6)).reshape(5, 5)
    np.testing.assert_allclose(matrix, flat / 6)


def test_targets_that_are_no_classes_are_refused():
    for metric in (Accuracy(), ConfusionMatrix()):
        metric.check(np.zeros((3, 2, 2), int), (2, 2, 4), "y")
        refuse("needs classes, or leave it out", metric.check, np.zeros((3, 4)), (4,), "y")
        refuse("y[0, 1, 1] is 4", metric.check, np.full((3, 2, 2), [[0, 1], [2, 4]]), (2, 2, 4), "y")
    Accuracy(ignore_index=255).check(np.full(3, 255), (4,), "y")
    refuse("y[0] is 255", Accuracy().check, np.full(3, 255), (4,), "y")
