"""SGD against a float64 loop, and learning rates at known points."""

import numpy as np
import pytest

from daskconv import SGD, ConstantRate, CosineRate, StepRate, WarmUp
from daskconv.train.schedule import resolve_schedule
from train.small import refuse


def descend(param, gradients, rate, momentum=0.0, weight_decay=0.0, nesterov=False):
    """Each step written out, as PyTorch documents it."""
    param, velocity = param.astype(np.float64), np.zeros(param.shape)
    for gradient in gradients:
        slope = gradient + weight_decay * param
        velocity = momentum * velocity + slope
        param = param - rate * (slope + momentum * velocity if nesterov else velocity)
    return param, velocity


def steps(optimizer, name, param, gradients, scale):
    param = param.copy()
    slots = optimizer.init({name: param})
    for gradient in gradients:
        optimizer.step(name, param, gradient / scale, slots, optimizer.rate(0.0), scale)
    return param, slots[f"velocity.{name}"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 2e-6)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.5, "weight_decay": 0.1, "nesterov": True},
    ],
    ids=str,
)
def test_sgd_is_the_loop_in_float64(options, dtype, tolerance):
    rng = np.random.default_rng(0)
    param = rng.standard_normal((3, 4)).astype(dtype)
    gradients = rng.standard_normal((6, 3, 4)).astype(dtype)
    optimizer = SGD(0.2, **options, multipliers={"conv1.*": 0.25, "*.bias": 2.0})
    for name, factor in [("dense1.weight", 1.0), ("dense1.bias", 2.0), ("conv1.bias", 0.25)]:
        found, velocity = steps(optimizer, name, param, gradients, scale=0.5)
        expected, expected_velocity = descend(param, gradients, 0.2 * factor, **options)
        assert found.dtype == velocity.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(velocity, expected_velocity, rtol=tolerance, atol=tolerance)


def test_the_first_pattern_that_matches_counts():
    optimizer = SGD(0.1, multipliers={"conv1.bias": 3.0, "*.bias": 2.0})
    assert [optimizer.multiplier(name) for name in ("conv1.bias", "conv2.bias", "conv1.weight")] == [3, 2, 1]
    assert optimizer == SGD(0.1, multipliers=(("conv1.bias", 3.0), ("*.bias", 2.0)))
    assert hash(optimizer) == hash(SGD(0.1, multipliers={"conv1.bias": 3.0, "*.bias": 2.0}))


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (ConstantRate(0.3), {0: 0.3, 100: 0.3}),
        (StepRate(1.0, (2, 4)), {0: 1, 1.99: 1, 2: 0.1, 3.9: 0.1, 4: 0.01, 50: 0.01}),
        (StepRate(1.0, (1.5,), factor=0.5), {1.4: 1, 1.5: 0.5}),
        (CosineRate(0.2, 10), {0: 0.2, 2.5: 0.1 + 0.1 / 2**0.5, 5: 0.1, 10: 0, 20: 0}),
        (CosineRate(0.2, 10, final=0.1), {0: 0.2, 5: 0.15, 10: 0.1, 11: 0.1}),
        (WarmUp(2, ConstantRate(0.4)), {0: 0, 0.5: 0.1, 1: 0.2, 2: 0.4, 3: 0.4}),
        (WarmUp(4, StepRate(1.0, (2,))), {1: 0.25, 2: 0.05, 4: 0.1}),
        (WarmUp(0, ConstantRate(0.4)), {0: 0.4}),
    ],
    ids=str,
)
def test_schedules_at_known_points(schedule, points):
    assert {epoch: schedule.at(epoch) for epoch in points} == pytest.approx(points)
    assert {epoch: SGD(schedule).rate(epoch) for epoch in points} == pytest.approx(points)


def test_a_number_is_a_constant_rate():
    assert resolve_schedule(1) == ConstantRate(1.0) and SGD(0.25).rate(7.5) == 0.25


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"learning_rate": -0.1}, "learning rate is -0.1: give a number of at least 0"),
        ({"learning_rate": float("nan")}, "learning rate is nan"),
        ({"learning_rate": "fast"}, "learning rate is 'fast'"),
        ({"learning_rate": None}, "learning rate is None"),
        ({"momentum": 1.0}, "momentum is 1.0: give at least 0 and below 1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"momentum": float("nan")}, "momentum is nan"),
        ({"weight_decay": -1}, "weight_decay is -1: give at least 0"),
        ({"nesterov": True}, "nesterov needs a momentum"),
    ],
    ids=str,
)
def test_bad_values_are_one_sentence(options, sentence):
    refuse(sentence, lambda: SGD(**{"learning_rate": 0.1, **options}))


@pytest.mark.parametrize(
    "build",
    [
        lambda: SGD(float("inf")),
        lambda: SGD(0.1, weight_decay=float("nan")),
        lambda: SGD(0.1, multipliers={"*.bias": float("nan")}),
        lambda: SGD(StepRate(-1.0, (2,))).rate(0),
        lambda: SGD(CosineRate(0.1, epochs=0)).rate(0),
    ],
    ids=["infinite rate", "weight decay nan", "multiplier nan", "negative StepRate", "cosine over 0 epochs"],
)
def test_values_that_break_training_later_are_one_sentence_too(build):
    refuse("give", build)
