"""Networks with several outputs train: GoogLeNet with the paper's auxiliary heads, and small ones."""

from math import prod

import numpy as np
import pytest

import daskconv
from daskconv import (
    Adam,
    BinaryCrossEntropy,
    Context,
    ConvNetClassifier,
    Dense,
    Flatten,
    Model,
    Network,
    Node,
    Outputs,
    ReLU,
    SoftmaxCrossEntropy,
    Trainer,
    WeightedLosses,
    zoo,
)
from daskconv.nn.losses import softmax_cross_entropy
from train.small import X, Y, bits, digests, figures, fit, refuse, trainer

PAIR = WeightedLosses("softmax_cross_entropy", (1.0, 0.3))
PAPER = WeightedLosses("softmax_cross_entropy", (1.0, 0.3, 0.3))
SMALL = (80, 80, 3)


def branching(auxiliary=1):
    """Two heads that share a layer."""
    return Network(
        (
            Node("flat", Flatten()),
            Node("shared", Dense(12), ("flat",)),
            Node("relu", ReLU(), ("shared",)),
            Node("one", Dense(10), ("relu",)),
            Node("other", Dense(10), ("relu",)),
            Node("both", Outputs(auxiliary), ("one", "other")),
        )
    )


def test_googlenet_with_the_papers_heads_has_the_published_size():
    net = zoo.googlenet(auxiliary=True)
    shapes = net.shapes((224, 224, 3))
    assert sum(prod(s) for s in net.weight_shapes((224, 224, 3)).values()) == 13_378_280  # bvlc_googlenet's
    assert [shapes[f"aux{n}/pool"] for n in (1, 2)] == [(4, 4, 512), (4, 4, 528)]
    assert shapes["aux1/conv"] == (4, 4, 128) and shapes["aux1/dense1"] == (1024,)
    assert net.output_shape((224, 224, 3)) == ((1000,), (1000,), (1000,))
    assert {n.name: n.layer.rate for n in net.nodes if isinstance(n.layer, daskconv.Dropout)} == {
        "drop": 0.4,
        "aux1/drop": 0.7,
        "aux2/drop": 0.7,
    }


def test_the_rest_of_googlenet_starts_and_predicts_the_same():
    net, plain = zoo.googlenet(5, auxiliary=True), zoo.googlenet(5)
    params, want = net.init(3, SMALL), plain.init(3, SMALL)
    assert digests({name: params[name] for name in want}) == digests(want)
    x = np.random.default_rng(0).integers(0, 256, (2, *SMALL), np.uint8)
    model = Model(net, params, input_shape=SMALL)
    scores = model.predict(x)
    assert scores.shape == (2, 5)
    np.testing.assert_array_equal(scores, Model(plain, want).predict(x))
    np.testing.assert_array_equal(scores, model.without_auxiliary().predict(x))
    assert (
        model.without_auxiliary().network == plain and Model(plain, want).without_auxiliary().network is plain
    )
    # Images on which the auxiliary heads do not fit are none of the predictor's business.
    assert model.predict(np.zeros((1, 96, 128, 3), np.uint8)).shape == (1, 5)


def test_gradients_of_all_heads_against_finite_differences():
    """In float64, along one direction of each kind of parameter: stem, shared modules, both heads and the main one."""
    net = zoo.googlenet(4, auxiliary=True)
    params = {name: array.astype(np.float64) for name, array in net.init(0, SMALL).items()}
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((2, *SMALL)), np.array([1, 3]), np.array([1.0, 0.5])
    methods = net.choose_methods(SMALL, "lowering")
    context = Context(methods={}, images=np.arange(2))

    def loss(params):
        scores, saved = net.forward(params, x, context, methods)
        return *PAPER(scores, y, weight), saved

    _, dscores, saved = loss(params)
    grads = net.backward(params, saved, dscores, context, methods, tuple(params))
    assert set(grads) == set(params) and all(g.any() for g in grads.values())
    for part in ("conv1.", "4a/", "4c/", "5b/", "dense.", "aux1/", "aux2/"):
        direction = {n: rng.standard_normal(a.shape) for n, a in params.items() if n.startswith(part)}
        size = sum((d**2).sum() for d in direction.values()) ** 0.5
        moved = [
            loss(params | {n: params[n] + side * 1e-6 / size * d for n, d in direction.items()})[0]
            for side in (1, -1)
        ]
        want = sum((grads[n] * d).sum() for n, d in direction.items()) / size
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(want, rel=1e-4, abs=1e-8)


def test_a_little_training_of_googlenet_lowers_the_loss():
    rng = np.random.default_rng(0)
    y = np.arange(8) % 2
    x = (rng.uniform(0, 100, (8, *SMALL)) + 150 * y[:, None, None, None]).astype(np.uint8)
    net = Trainer(
        zoo.googlenet(2, auxiliary=True),
        loss=PAPER,
        optimizer=Adam(1e-3),
        preprocess="standardize",
        transport="local",
        shards=2,
    )
    history = net.fit(x, y, epochs=12, batch_size=8, progress=False)
    assert history["loss"][-1] < 0.7 * history["loss"][0] and history["loss"][0] == pytest.approx(
        1.6 * np.log(2), rel=0.5
    )
    assert 0 <= history["accuracy"][-1] <= 1 and net.model.predict(x).shape == (8, 2)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    rng = np.random.default_rng(0)
    scores, y, weight = tuple(rng.standard_normal((2, 5, 4))), np.array([0, 3, 1, 2, 2]), rng.uniform(0, 2, 5)
    total, gradients = WeightedLosses("softmax_cross_entropy", (1, 0.5))(scores, y, weight)
    (a, da), (b, db) = (softmax_cross_entropy(each, y, weight) for each in scores)
    assert total == pytest.approx(a + 0.5 * b)
    np.testing.assert_allclose(gradients[0], da)
    np.testing.assert_allclose(gradients[1], 0.5 * db)
    inner = SoftmaxCrossEntropy(0.1, class_weights=(1, 2, 3, 4))
    loss = WeightedLosses(inner, (1, 1))
    np.testing.assert_array_equal(loss.weights(y, weight), inner.weights(y, weight))
    assert loss(scores, y, weight)[0] == pytest.approx(sum(inner(each, y, weight)[0] for each in scores))


def test_training_saving_and_going_on(tmp_path):
    """Metrics read the first output; a checkpoint goes on to the same bits, with its loss."""

    def begin():
        return trainer(branching(), loss=WeightedLosses(SoftmaxCrossEntropy(0.05), (1.0, 0.3)))

    whole = fit(begin(), epochs=3, validation_data=(X, Y))
    model = whole.model
    accuracy = (model.predict(X).argmax(1) == Y).mean()
    assert whole.history["val_accuracy"][-1] == pytest.approx(accuracy) and accuracy > 0.5
    assert whole.history["loss"][-1] < whole.history["loss"][0]
    half = fit(begin(), epochs=1, validation_data=(X, Y))
    half.save(tmp_path / "half.safetensors")
    rest = fit(begin().resume(tmp_path / "half.safetensors"), epochs=3, validation_data=(X, Y))
    assert bits(rest) == bits(whole) and figures(rest.history) == figures(whole.history)
    assert daskconv.load(tmp_path / "half.safetensors").network == branching()


def test_losses_of_evaluations_are_those_of_what_predicts():
    inner = SoftmaxCrossEntropy(0.05)
    whole = fit(
        trainer(branching(), loss=WeightedLosses(inner, (0.8, 0.3))), epochs=2, validation_data=(X, Y)
    )
    scores = whole.model.predict(X)
    want = inner(scores, Y, np.ones(len(Y)))[0] / len(Y)
    assert whole.history["val_loss"][-1] == pytest.approx(want, rel=1e-6)
    assert whole.evaluate(X, Y) == {name: whole.history[f"val_{name}"][-1] for name in ("loss", "accuracy")}
    plain = trainer(whole.model, preprocess=None).evaluate(X, Y)["loss"]
    assert plain == pytest.approx(softmax_cross_entropy(scores, Y, np.ones(len(Y)))[0] / len(Y), rel=1e-6)


def test_evaluations_of_several_outputs_that_predict_and_of_a_loss_of_ones_own():
    three = Network((*branching().nodes[:-1], Node("third", Dense(10), ("relu",)),
                     Node("all", Outputs(1), ("one", "other", "third"))))  # fmt: skip
    whole = fit(trainer(three, loss=WeightedLosses(factors=(1, 0.5, 0.3))))
    ones, outputs = np.ones(len(Y)), whole.model.predict(X)
    want = WeightedLosses(factors=(1, 0.5))(outputs, Y, ones)[0] / len(Y)
    assert whole.evaluate(X, Y)["loss"] == pytest.approx(want, rel=1e-6)
    refuse("has 2 outputs and the loss takes one", trainer(whole.model, preprocess=None).evaluate, X, Y)

    def of_both(scores, y, weight):
        return PAIR(scores, y, weight)

    own = fit(trainer(branching(), loss=of_both, metrics=()), validation_data=(X, Y))
    model = own.model
    as_trained = Model(Network((*branching().nodes[:-1], Node("both", Outputs(), ("one", "other")))), model.params,
                       preprocess=model.preprocess).predict(X)  # fmt: skip
    want = PAIR(as_trained, Y, ones)[0] / len(Y)
    assert own.history["val_loss"][-1] == pytest.approx(want, rel=1e-6)


def test_images_that_auxiliary_heads_do_not_fit_are_evaluated():
    net = zoo.googlenet(4, auxiliary=True)
    model = Model(net, net.init(0, SMALL), input_shape=SMALL)
    x, y = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), np.uint8), np.array([0, 3, 1])
    loss = Trainer(model, loss=PAPER, transport="local", trainable=["aux1/*"]).evaluate(x, y)["loss"]
    want = softmax_cross_entropy(model.predict(x, precision="fast"), y, np.ones(3))[0] / 3
    assert loss == pytest.approx(want, rel=1e-4)


def test_outputs_that_are_no_auxiliaries_are_all_predicted():
    whole = fit(trainer(branching(0), loss=WeightedLosses(factors=(1, 1))))
    one, other = whole.model.predict(X)
    assert one.shape == other.shape == (230, 10) and whole.model.without_auxiliary() is whole.model


def test_new_heads_for_all_of_them():
    model = fit(trainer(branching(), loss=WeightedLosses(factors=(1, 0.3)))).model.with_head(3)
    assert model.heads == ("one", "other") and model.predict(X).shape == (230, 3)
    fit(trainer(model, preprocess=None, loss=WeightedLosses(factors=(1, 0.3))), X, Y % 3)


def test_a_classifier_of_scikit_learn():
    pytest.importorskip("sklearn")
    loss = WeightedLosses(factors=(1.0, 0.3))
    net = ConvNetClassifier(branching(), loss=loss, epochs=2, batch_size=50).fit(X, Y)
    assert net.predict_proba(X).shape == (230, 10)


def test_onnx_files_hold_what_predicts():
    pytest.importorskip("onnx")
    model = fit(trainer(branching(), loss=WeightedLosses(factors=(1, 0.3)))).model
    again = daskconv.load_onnx(daskconv.save_onnx(model))
    np.testing.assert_allclose(again.predict(X), model.predict(X), atol=1e-4)
    assert not any(name.startswith("other") for name in again.params)


def test_what_does_not_fit():
    refuse("has 2 outputs and the loss takes one: give daskconv.WeightedLosses", fit, trainer(branching()))
    refuse("has 2 outputs and the loss takes one", fit, trainer(branching(), loss=SoftmaxCrossEntropy(0.1)))
    refuse("has 2 outputs and the loss 3 factors", fit, trainer(branching(), loss=PAPER))
    single = Network(branching().nodes[:4])
    refuse("has 1 outputs and the loss 3 factors", fit, trainer(single, loss=PAPER))
    refuse(r"factors are \(1.0,\): give", WeightedLosses, "softmax_cross_entropy", (1,))
    refuse("factors are", WeightedLosses, "softmax_cross_entropy", (1, -1))
    refuse("loss is 'hinge'", WeightedLosses, "hinge", (1, 1))
    refuse("loss is", WeightedLosses, PAPER, (1, 1))
    refuse("Outputs has auxiliary 2 and 2 outputs: give fewer", branching(2).output_shape, (8, 8, 1))
    loss = WeightedLosses(BinaryCrossEntropy(), (1, 1))
    refuse(
        "is not between 0 and 1", fit, trainer(branching(), loss=loss, metrics=()), X, np.full((230, 10), 2)
    )
