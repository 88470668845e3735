"""SGD against a float64 loop, and learning rates at known points."""

import numpy as np
import pytest

from daskconv import (
    LARS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Chain,
    ConstantRate,
    CosineRate,
    OneCycle,
    PolynomialRate,
    RMSprop,
    StepRate,
    WarmUp,
)
from daskconv.train.schedule import resolve_schedule
from train.small import bits, fit, refuse, trainer


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


def adam(param, gradients, rate, decay=0.0, shrink=0.0, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """The paper's algorithm, step by step."""
    param, mean, square = param.astype(np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        slope = gradient + decay * param
        mean, square = beta1 * mean + (1 - beta1) * slope, beta2 * square + (1 - beta2) * slope**2
        param = param * (1 - rate * shrink)
        param = param - rate * (mean / (1 - beta1**step)) / (np.sqrt(square / (1 - beta2**step)) + epsilon)
    return param


def adagrad(param, gradients, rate, decay=0.0):
    param, square = param.astype(np.float64), 0.0
    for gradient in gradients:
        slope = gradient + decay * param
        square = square + slope**2
        param = param - rate * slope / (np.sqrt(square) + 1e-10)
    return param


def rmsprop(param, gradients, rate, decay=0.0):
    param, square = param.astype(np.float64), 0.0
    for gradient in gradients:
        slope = gradient + decay * param
        square = 0.99 * square + 0.01 * slope**2
        param = param - rate * slope / (np.sqrt(square) + 1e-8)
    return param


def lars(param, gradients, rate, decay=1e-4, trust=1e-3):
    param, velocity = param.astype(np.float64), 0.0
    for gradient in gradients:
        weight, pull = np.linalg.norm(param), np.linalg.norm(gradient)
        local = trust * weight / (pull + decay * weight)
        velocity = 0.9 * velocity + rate * local * (gradient + decay * param)
        param = param - velocity
    return param


OPTIMIZERS = [
    (Adam(0.1), lambda p, g: adam(p, g, 0.1), "Adam", {}),
    (Adam(0.1, 0.8, 0.9, 1e-3, 0.2), lambda p, g: adam(p, g, 0.1, 0.2, 0, 0.8, 0.9, 1e-3), "Adam",
     {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2}),
    (AdamW(0.1, weight_decay=0.3), lambda p, g: adam(p, g, 0.1, shrink=0.3), "AdamW", {"weight_decay": 0.3}),
    (Adagrad(0.1, weight_decay=0.2), lambda p, g: adagrad(p, g, 0.1, 0.2), "Adagrad", {"weight_decay": 0.2}),
    (RMSprop(0.1, weight_decay=0.2), lambda p, g: rmsprop(p, g, 0.1, 0.2), "RMSprop", {"weight_decay": 0.2}),
    (LARS(3.0), lambda p, g: lars(p, g, 3.0), None, {}),
    (SGD(0.1, momentum=0.9), lambda p, g: descend(p, g, 0.1, 0.9)[0], "SGD", {"momentum": 0.9}),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 3e-5)])
@pytest.mark.parametrize(
    ("optimizer", "written_out", "name", "options"),
    OPTIMIZERS,
    ids=lambda v: None if callable(v) else str(v)[:30],
)
@pytest.mark.parametrize("contiguous", [True, False])
def test_optimisers_are_their_papers_and_pytorchs(
    optimizer, written_out, name, options, dtype, tolerance, contiguous
):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((4, 6)).astype(dtype)
    gradients = rng.standard_normal((20, 4, 6)).astype(dtype)
    param = start.copy() if contiguous else np.asfortranarray(start)
    slots = optimizer.init({"w": param})
    for gradient in gradients:
        optimizer.step("w", param, gradient / 2, slots, optimizer.rate(0.0), 2.0)
    assert param.dtype == dtype and (param != start).all()
    np.testing.assert_allclose(param, written_out(start, gradients), rtol=tolerance, atol=tolerance)
    if name is None:
        return
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its optimisers are not compared")
    theirs = torch.from_numpy(start.copy()).requires_grad_()
    other = getattr(torch.optim, name)([theirs], lr=0.1, **options)
    for gradient in gradients:
        theirs.grad = torch.from_numpy(gradient)
        other.step()
    np.testing.assert_allclose(param, theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_lars_leaves_biases_and_batch_norms_to_sgd():
    rng = np.random.default_rng(0)
    param = rng.standard_normal(5)
    gradients = rng.standard_normal((4, 5))
    expected, _ = descend(param, gradients, 0.1, 0.9)
    optimizer = LARS(0.1)
    slots = optimizer.init({"b": param})
    for gradient in gradients:
        optimizer.step("b", param, gradient, slots, 0.1, 1.0)
    np.testing.assert_allclose(param, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (Adam, {"beta1": 1.0}, "beta1 is 1.0: give at least 0 and below 1"),
        (AdamW, {"weight_decay": -1.0}, "weight_decay is -1.0"),
        (RMSprop, {"alpha": 2.0}, "alpha is 2.0"),
        (Adagrad, {"epsilon": float("nan")}, "epsilon is nan"),
        *(
            (kind, {"epsilon": 0.0}, "epsilon is 0.0: give a number above 0")
            for kind in (Adam, AdamW, Adagrad, RMSprop)
        ),
        (Adam, {"epsilon": -1e-8}, "epsilon is -1e-08"),
        (RMSprop, {"epsilon": 1e-60}, "epsilon is 1e-60: give a number above 0 in single precision"),
        (Adagrad, {"epsilon": float("inf")}, "epsilon is inf"),
        (LARS, {"learning_rate": 0.1, "trust": -1.0}, "trust is -1.0"),
        (Adam, {"learning_rate": -1.0}, "The learning rate is -1.0"),
        (Adam, {"multipliers": {"*": -1.0}}, r"\* is -1.0"),
    ],
)
def test_wrong_numbers_are_refused(kind, options, match):
    refuse(match, kind, **options)


@pytest.mark.parametrize("optimizer", [Adam(0.01), AdamW(0.01), Adagrad(0.05), RMSprop(0.01), LARS(2.0)])
def test_each_trains_and_goes_on_to_the_same_bits(optimizer, tmp_path):
    whole = fit(trainer(optimizer=optimizer), epochs=3)
    assert whole.history["loss"][-1] < 0.9 * whole.history["loss"][0]
    part = fit(trainer(optimizer=optimizer), epochs=1)
    part.save(tmp_path / "f")
    assert bits(fit(trainer(optimizer=optimizer).resume(tmp_path / "f"), epochs=3)) == bits(whole)


@pytest.mark.parametrize("optimizer", [Adam(0.1), AdamW(0.1, weight_decay=0), Adagrad(0.1), RMSprop(0.1)])
def test_gradients_of_zero_move_nothing(optimizer):
    param, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    slots = optimizer.init({"w": param})
    optimizer.step("w", param, zeros, slots, 0.1, 1.0)
    assert param.tolist() == [1, 1, 1]


def test_more_schedules():
    line = PolynomialRate(1.0, epochs=4, final=0.2)
    np.testing.assert_allclose([line.at(epoch) for epoch in (0, 1, 4, 9)], [1, 0.8, 0.2, 0.2])
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its one-cycle is not compared")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.8, total_steps=51, cycle_momentum=False)
    rates = []
    for _ in range(51):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step() if len(rates) < 51 else None
    # PyTorch counts the step before the highest one as the end of the rise.
    ours = OneCycle(0.8, epochs=50, rise=(0.3 * 51 - 1) / 50)
    np.testing.assert_allclose([ours.at(step) for step in range(51)], rates, rtol=1e-6)
    chain = Chain([(2, ConstantRate(0.5)), (3, line), (1, CosineRate(0.1, 2))])
    assert chain.at(1.9) == 0.5 and chain.at(2) == 1.0 and chain.at(5) == 0.1 and chain.at(7) == 0.0
    refuse("OneCycle's rise is 1", OneCycle, 0.1, 3, rise=1)
    refuse("give pairs", Chain, ())
    refuse("give pairs", Chain, ((3, 0.1),))
    refuse("PolynomialRate's epochs is 0", PolynomialRate, 0.1, 0)
