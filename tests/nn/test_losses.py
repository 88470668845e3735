"""Losses against their definitions, finite differences and extreme scores."""

import numpy as np
import pytest

from daskconv.nn.losses import (
    mean_squared_error,
    resolve_loss,
    softmax,
    softmax_cross_entropy,
    takes_classes,
)
from reference import refuse, slope

rng = np.random.default_rng(0)
SCORES = rng.standard_normal((6, 5))
CLASSES = np.array([0, 4, 2, 2, 1, 3])
TARGETS = rng.standard_normal((6, 5))
WEIGHT = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 3.0])


def test_cross_entropy_is_the_weighted_sum_of_log_probabilities():
    p = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
    loss, _ = softmax_cross_entropy(SCORES, CLASSES, WEIGHT)
    assert loss == pytest.approx(-(WEIGHT * np.log(p[range(6), CLASSES])).sum(), rel=1e-12)
    np.testing.assert_allclose(softmax(SCORES), p, rtol=1e-12)


def test_squared_error_is_the_mean_over_outputs_summed_over_images():
    loss, _ = mean_squared_error(SCORES, TARGETS, WEIGHT)
    assert loss == pytest.approx((WEIGHT * ((SCORES - TARGETS) ** 2).mean(1)).sum(), rel=1e-12)
    images = SCORES.reshape(2, 1, 3, 5)
    loss, gradient = mean_squared_error(images, TARGETS.reshape(2, 15), np.array([2.0, 0.5]))
    each = ((SCORES - TARGETS) ** 2).reshape(2, -1).mean(1)
    assert loss == pytest.approx(2 * each[0] + 0.5 * each[1]) and gradient.shape == images.shape


def test_one_number_an_image_is_a_target_too():
    loss, gradient = mean_squared_error(np.array([[3.0], [1.0]]), np.array([1.0, 1.0]), np.ones(2))
    assert loss == 4 and gradient.tolist() == [[4], [0]]


@pytest.mark.parametrize(("loss", "y"), [(softmax_cross_entropy, CLASSES), (mean_squared_error, TARGETS)])
def test_gradients_agree_with_finite_differences(loss, y):
    _, gradient = loss(SCORES, y, WEIGHT)
    for element in np.ndindex(SCORES.shape):
        way = np.zeros(SCORES.shape)
        way[element] = 1
        rise = slope(lambda scores: loss(scores, y, WEIGHT)[0], SCORES, way)
        assert gradient[element] == pytest.approx(rise, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("loss", "y"), [(softmax_cross_entropy, CLASSES), (mean_squared_error, TARGETS)])
def test_sums_of_blocks_add_up_and_dtypes_stay(loss, y):
    whole, gradient = loss(SCORES, y, WEIGHT)
    parts = [loss(SCORES[block], y[block], WEIGHT[block]) for block in (slice(0, 1), slice(1, 6))]
    assert sum(part for part, _ in parts) == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), gradient, rtol=1e-12)
    single, gradient = loss(SCORES.astype(np.float32), y, WEIGHT)
    assert isinstance(single, float) and single == pytest.approx(whole, rel=1e-6)
    assert gradient.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_scores_stay_finite(dtype, size):
    scores = np.array([[size, -size, 0], [-size, size, 0], [-size, -size, -size]], dtype)
    loss, gradient = softmax_cross_entropy(scores, np.array([0, 0, 2]), np.ones(3))
    assert np.isfinite(gradient).all()
    assert loss == pytest.approx(2 * float(scores[0, 0]) + np.log(3), rel=1e-9)
    np.testing.assert_allclose(gradient[:2], [[0, 0, 0], [-1, 1, 0]])
    np.testing.assert_allclose(gradient[2], [1 / 3, 1 / 3, -2 / 3], rtol=1e-6)
    np.testing.assert_allclose(softmax(scores).sum(1), 1, rtol=1e-6)


def test_a_sure_and_wrong_answer_costs_its_score_even_in_float32():
    scores = np.array([[200.0, 0.0]], np.float32)
    loss, gradient = softmax_cross_entropy(scores, np.array([1]), np.ones(1))
    assert loss == 200 and gradient.tolist() == [[1, -1]]


def test_scores_and_weights_stay_as_they_were():
    scores, weight = SCORES.copy(), WEIGHT.copy()
    softmax_cross_entropy(scores, CLASSES, weight)
    mean_squared_error(scores, TARGETS, weight)
    np.testing.assert_array_equal(scores, SCORES)
    np.testing.assert_array_equal(weight, WEIGHT)


def test_an_image_of_weight_0_has_no_gradient():
    for loss, y in ((softmax_cross_entropy, CLASSES), (mean_squared_error, TARGETS)):
        assert not loss(SCORES, y, WEIGHT)[1][3].any()


def test_no_images_cost_nothing():
    for loss, y in ((softmax_cross_entropy, CLASSES), (mean_squared_error, TARGETS)):
        total, gradient = loss(SCORES[:0], y[:0], WEIGHT[:0])
        assert total == 0 and gradient.shape == (0, 5)


def absolute_error(scores, y, weight):
    """A custom loss."""
    error = scores - y
    return float((weight[:, None] * abs(error)).sum()), weight[:, None] * np.sign(error)


def test_losses_go_by_name_or_are_given():
    assert resolve_loss("softmax_cross_entropy") is softmax_cross_entropy
    assert resolve_loss("mean_squared_error") is mean_squared_error
    assert resolve_loss(absolute_error) is absolute_error
    known = "softmax_cross_entropy, binary_cross_entropy, mean_squared_error"
    for name in ("hinge", None, 3):
        refuse(f"loss is {name!r}: choose one of {known}", resolve_loss, name)


def test_which_losses_take_class_numbers():
    assert takes_classes(softmax_cross_entropy, CLASSES) and takes_classes(absolute_error, CLASSES)
    assert not takes_classes(mean_squared_error, TARGETS)
    assert not takes_classes(absolute_error, CLASSES.astype(float))
