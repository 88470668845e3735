"""Losses that count in their own way: classes with weights, pixels, smoothed labels, yes and no questions."""

import numpy as np
import pytest

import daskconv
from daskconv import (
    SGD,
    Accuracy,
    BinaryCrossEntropy,
    Conv2D,
    Dense,
    Flatten,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from daskconv.nn.losses import loss_weights, softmax_cross_entropy
from reference import refuse, slope
from train.small import fit, trainer

rng = np.random.default_rng(0)
LOSSES = [
    SoftmaxCrossEntropy(),
    SoftmaxCrossEntropy(label_smoothing=0.2),
    SoftmaxCrossEntropy(class_weights=(1.0, 0.0, 2.5, 0.5)),
    SoftmaxCrossEntropy(0.1, (1.0, 0.3, 2.5, 0.5), ignore_index=2),
    SoftmaxCrossEntropy(ignore_index=255),
]


def drawn(loss, shape=(5, 3, 2), classes=4):
    scores, y = rng.standard_normal((*shape, classes)), rng.integers(0, classes, shape)
    if loss.ignore_index is not None:
        y[rng.random(shape) < 0.3] = loss.ignore_index
    return scores, y, rng.uniform(0.5, 2, shape[0])


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("shape", [(6,), (5, 3, 2)])
def test_the_mean_and_its_gradient_are_pytorchs(loss, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its losses are not compared")
    scores, y, _ = drawn(loss, shape)
    leaf = torch.from_numpy(scores).requires_grad_()
    options = {"label_smoothing": loss.label_smoothing}
    if loss.class_weights:
        options["weight"] = torch.tensor(loss.class_weights, dtype=torch.float64)
    if loss.ignore_index is not None:
        options["ignore_index"] = loss.ignore_index
    moved = leaf.movedim(-1, 1)
    want = torch.nn.functional.cross_entropy(moved, torch.from_numpy(y), **options)
    want.backward()
    total, gradient = loss(scores, y, np.ones(shape[0]))
    divisor = loss_weights(loss, y, np.ones(shape[0])).sum()
    assert total / divisor == pytest.approx(want.item(), rel=1e-10)
    np.testing.assert_allclose(gradient / divisor, leaf.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradients_agree_with_finite_differences_and_blocks_add_up(loss):
    scores, y, weight = drawn(loss)
    whole, gradient = loss(scores, y, weight)
    way = rng.standard_normal(scores.shape)
    rise = slope(lambda moved: loss(moved, y, weight)[0], scores, way)
    assert np.sum(gradient * way) == pytest.approx(rise, rel=1e-6)
    parts = [loss(scores[block], y[block], weight[block])[0] for block in (slice(0, 2), slice(2, 5))]
    assert sum(parts) == pytest.approx(whole, rel=1e-12)
    single, gradient = loss(scores.astype(np.float32), y, weight)
    assert gradient.dtype == np.float32 and single == pytest.approx(whole, rel=1e-5)


def test_without_options_it_is_the_plain_function():
    scores, y, weight = drawn(SoftmaxCrossEntropy(), (7,))
    got, want = SoftmaxCrossEntropy()(scores, y, weight), softmax_cross_entropy(scores, y, weight)
    assert got[0] == pytest.approx(want[0], rel=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-9, atol=1e-12)


def test_classes_of_pixels_need_no_options():
    scores, y, weight = drawn(SoftmaxCrossEntropy())
    loss, gradient = softmax_cross_entropy(scores, y, weight)
    each = [
        SoftmaxCrossEntropy()(scores[i : i + 1], y[i : i + 1], np.ones(1))[0] / y[0].size
        for i in range(len(y))
    ]
    assert loss == pytest.approx((weight * each).sum(), rel=1e-12)
    way = rng.standard_normal(scores.shape)
    rise = slope(lambda moved: softmax_cross_entropy(moved, y, weight)[0], scores, way)
    assert np.sum(gradient * way) == pytest.approx(rise, rel=1e-6)
    assert softmax_cross_entropy(scores[:0], y[:0], weight[:0])[1].shape == (0, 3, 2, 4)
    x, y = rng.standard_normal((20, 4, 4, 1)).astype(np.float32), rng.integers(0, 3, (20, 4, 4))
    runs = [
        fit(trainer(Sequential([Conv2D(3, 3, padding=1)]), loss=loss, preprocess=None), x, y, batch_size=10)
        for loss in ("softmax_cross_entropy", SoftmaxCrossEntropy())
    ]
    assert runs[0].history["loss"][0] == pytest.approx(runs[1].history["loss"][0], rel=1e-6)
    np.testing.assert_allclose(*(run.model.params["conv1.weight"] for run in runs), rtol=1e-4, atol=1e-6)


def test_binary_cross_entropy_is_pytorchs_and_never_overflows():
    scores, y, weight = rng.standard_normal((6, 3)) * 4, rng.random((6, 3)), rng.uniform(0.5, 2, 6)
    _, gradient = BinaryCrossEntropy()(scores, y, weight)
    way = rng.standard_normal(scores.shape)
    rise = slope(lambda moved: BinaryCrossEntropy()(moved, y, weight)[0], scores, way)
    assert np.sum(gradient * way) == pytest.approx(rise, rel=1e-6)
    extreme = np.array([[1e4, -1e4]], np.float32)
    loss, gradient = BinaryCrossEntropy()(extreme, np.array([[1, 1]]), np.ones(1))
    assert loss == pytest.approx(5000) and np.isfinite(gradient).all()
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its losses are not compared")
    want = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(scores), torch.from_numpy(y))
    assert BinaryCrossEntropy()(scores, y, np.ones(6))[0] / 6 == pytest.approx(want.item(), rel=1e-10)


def test_classes_of_pixels_are_learnt():
    x = rng.integers(0, 256, (60, 8, 8, 1), np.uint8)
    y = (x[..., 0] > 127).astype(np.int64)
    y[:, 0] = 255
    net = Sequential([Conv2D(8, 3, padding=1), ReLU(), Conv2D(2, 1)])
    loss = SoftmaxCrossEntropy(ignore_index=255)
    options = {"loss": loss, "optimizer": SGD(0.5, momentum=0.9), "preprocess": "standardize"}
    one = fit(trainer(net, **options), x, y, epochs=15, batch_size=20)
    result = one.evaluate(x[:30], y[:30])
    scores = one.predict(x[:30])
    right = (scores.argmax(-1) == y[:30])[:, 1:].mean()
    assert right > 0.95 and result["accuracy"] == pytest.approx(right)
    want = loss(scores, y[:30], np.ones(30))[0] / (y[:30] != 255).sum()
    assert result["loss"] == pytest.approx(want, rel=1e-5)


def test_weights_of_classes_are_the_divisor_of_loss_and_gradient_but_not_of_the_accuracy():
    x, y = rng.standard_normal((40, 2, 2, 1)).astype(np.float32), np.arange(40) % 2
    net = Sequential([Flatten(), Dense(2)])
    loss = SoftmaxCrossEntropy(class_weights=(3.0, 1.0))
    one = trainer(net, loss=loss, optimizer=SGD(1.0), preprocess=None)
    fit(one, x, y, epochs=1, batch_size=40)
    start = net.init(0, (2, 2, 1))
    scores = x.reshape(40, 4) @ start["dense1.weight"] + start["dense1.bias"]
    total, gradient = loss(scores, y, np.ones(40))
    moved = start["dense1.bias"] - one.model.params["dense1.bias"]
    np.testing.assert_allclose(moved, gradient.sum(0) / 80, rtol=1e-4, atol=1e-7)
    assert one.history["loss"][0] == pytest.approx(total / 80, rel=1e-5)
    assert one.history["accuracy"][0] == pytest.approx((scores.argmax(1) == y).mean())


def test_the_accuracy_is_measured_where_targets_are_classes():
    assert trainer(loss=SoftmaxCrossEntropy(ignore_index=9)).metrics == (Accuracy(ignore_index=9),)
    assert trainer().metrics == (Accuracy(),)
    assert trainer(loss="mean_squared_error").metrics == trainer(loss=BinaryCrossEntropy()).metrics == ()
    x = rng.standard_normal((40, 2, 2, 1)).astype(np.float32)
    options = {"optimizer": SGD(0.1), "preprocess": None}
    line = trainer(Sequential([Flatten(), Dense(1)]), loss="mean_squared_error", **options)
    values = fit(line, x, np.arange(40), batch_size=20)
    yes_or_no = trainer(Sequential([Flatten(), Dense(4)]), loss="binary_cross_entropy", **options)
    flags = fit(yes_or_no, x, x[..., 0] > 0, batch_size=20)
    assert "accuracy" not in values.history.epochs[0].keys() | flags.history.epochs[0].keys()
    assert flags.evaluate(x, x[..., 0] > 0)["loss"] < flags.history["loss"][0]


def test_what_does_not_fit_is_refused():
    refuse("label_smoothing is 1", SoftmaxCrossEntropy, 1)
    refuse("class_weights are", SoftmaxCrossEntropy, 0.0, (0.0, 0.0))
    net = Sequential([Flatten(), Dense(2)])
    x = np.zeros((4, 2, 2, 1), np.float32)
    weighted = trainer(net, loss=SoftmaxCrossEntropy(class_weights=(1, 2, 3)))
    refuse("class_weights are 3 but there are 2 classes", fit, weighted, x, np.zeros(4, int), batch_size=2)
    pixels = trainer(Sequential([Conv2D(3, 1)]), loss=SoftmaxCrossEntropy())
    y = np.zeros((4, 2, 2), int)
    y[1, 0, 1] = 3
    refuse("y[1, 0, 1] is 3: the network has 3", fit, pixels, x, y, batch_size=2)
    refuse("give a class for each pixel", fit, pixels, x, np.zeros(4, int), batch_size=2)
    binary = trainer(net, loss="binary_cross_entropy")
    refuse("give numbers", fit, binary, x, np.zeros((4, 3)), batch_size=2)
    refuse("y[2] is not between 0 and 1", fit, binary, x, np.array([[0, 1]] * 2 + [[2, 0]] * 2), batch_size=2)
    values = trainer(net, loss="mean_squared_error", metrics=["accuracy"])
    refuse(
        "The metric accuracy needs classes, or leave it out: y is",
        fit,
        values,
        x,
        np.zeros((4, 2)),
        batch_size=2,
    )
    assert daskconv.losses.resolve_loss("binary_cross_entropy") == BinaryCrossEntropy()
