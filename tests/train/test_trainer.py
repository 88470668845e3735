"""What training computes: against float64 loops, over shards, threads and methods, and from weights."""

import threading
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pytest

import daskconv
from daskconv import (
    SGD,
    Conv2D,
    CosineRate,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    Metric,
    Normalize,
    ReLU,
    Sequential,
    Trainer,
    events,
)
from daskconv.errors import DataError, WorkerError
from daskconv.nn.layers.base import Context
from daskconv.nn.losses import softmax_cross_entropy
from daskconv.train.data import shuffled
from daskconv.train.files import load_checkpoint
from train.small import DIGITS, STEPS, TINY, X, Y, bits, digests, figures, fit, refuse, trainer

LINEAR = Sequential([Flatten(), Dense(10)], name="linear")
FLOATS = (X / 16).astype(np.float32)


# ------------------------------------------------------------------------------------ learning


def test_lenet_learns_the_digits():
    digits = trainer("lenet", optimizer=SGD(0.02, momentum=0.9), threads=2)
    data = (DIGITS.x_test, DIGITS.y_test)
    fit(digits, DIGITS.x_train, DIGITS.y_train, epochs=2, validation_data=data)
    assert digits.history["epoch"] == [1, 2]
    assert digits.history["loss"][1] < digits.history["loss"][0]
    assert digits.history["val_accuracy"][1] > 0.9
    assert digits.evaluate(*data)["accuracy"] == digits.history["val_accuracy"][1]
    right = digits.predict(DIGITS.x_test).argmax(1) == DIGITS.y_test
    assert right.mean() == pytest.approx(digits.history["val_accuracy"][1])


@pytest.mark.parametrize("method", ["lowering", "pipelined", "implicit"])
def test_a_seed_gives_the_same_bits_on_any_number_of_threads(method):
    runs = [fit(trainer(method=method, threads=threads), epochs=2) for threads in (1, 1, 2, 3)]
    assert all(bits(run) == bits(runs[0]) for run in runs)
    assert all(figures(run.history) == figures(runs[0].history) for run in runs)


def test_another_seed_gives_other_bits():
    one, two = fit(trainer(seed=1)), fit(trainer(seed=2))
    assert all(a != b for a, b in zip(bits(one).values(), bits(two).values()))


def test_the_seed_shuffles_apart_from_the_weights():
    weights = fit(trainer()).model
    one, two = (fit(trainer(weights, seed=seed)) for seed in (1, 2))
    assert bits(one) != bits(two)


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_change_the_result_by_rounding_only(shards):
    one, other = fit(trainer(), epochs=2), fit(trainer(shards=shards), epochs=2)
    assert other.program((8, 8, 1), 50).shards == shards
    for name, array in one.model.params.items():
        np.testing.assert_allclose(other.model.params[name], array, atol=2e-4)


@pytest.mark.parametrize("method", ["direct", "pipelined", {"conv1": "direct", "conv2": "pipelined"}])
def test_methods_train_to_the_same_weights_and_stand_in_the_program(method):
    default, other = fit(trainer()), fit(trainer(method=method))
    for name, array in default.model.params.items():
        np.testing.assert_allclose(other.model.params[name], array, atol=1e-4)
    by_layer = method if isinstance(method, dict) else dict.fromkeys(["conv1", "conv2"], method)
    program = other.program((8, 8, 1), 50)
    assert {name: set(row.values()) for name, row in program.methods.items()} == {
        name: {value} for name, value in by_layer.items()
    }
    for name, value in by_layer.items():
        assert f"{name}        forward {value}, input_grad {value}, weight_grad {value}" in str(program)


def test_training_works_outside_of_the_main_thread():
    other = trainer()
    thread = threading.Thread(target=fit, args=(other,))
    thread.start()
    thread.join()
    assert bits(other) == bits(fit(trainer()))


# ----------------------------------------------------------------------------- against float64


def linear_gradients(params, x, y, weight):
    """Gradients of the mean cross entropy of LINEAR, and the loss; float64."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    scores = flat @ params["dense1.weight"] + params["dense1.bias"]
    exps = np.exp(scores - scores.max(1, keepdims=True))
    probabilities = exps / exps.sum(1, keepdims=True)
    loss = -(weight * np.log(probabilities[np.arange(len(y)), y])).sum() / weight.sum()
    dscores = (probabilities - np.eye(10)[y]) * (weight / weight.sum())[:, None]
    return {"dense1.weight": flat.T @ dscores, "dense1.bias": dscores.sum(0)}, loss


def linear_step(x, y, weight, rate):
    """The parameters of LINEAR after one step of plain descent from seed 0, and the loss before it."""
    params = {name: array.astype(np.float64) for name, array in LINEAR.init(0, x.shape[1:]).items()}
    gradients, loss = linear_gradients(params, x, y, weight)
    return {name: array - rate * gradients[name] for name, array in params.items()}, loss


def step(x, y, net=LINEAR, rate=0.5, **options):
    """A trainer after one step over all images."""
    shards = options.pop("shards", 4)
    one = trainer(net, optimizer=SGD(rate), preprocess=None, shards=shards)
    return fit(one, x, y, batch_size=len(x), **options)


def near(params, expected, atol=1e-6):
    assert params.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(params[name], array, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("images", [1, 3, 7, 64])
@pytest.mark.parametrize("shards", [1, 4])
def test_a_step_takes_the_mean_gradient_of_its_images(images, shards):
    x, y = FLOATS[:images], Y[:images]
    one = step(x, y, shards=shards)
    params, loss = linear_step(x, y, np.ones(images), 0.5)
    near(one.model.params, params)
    assert one.history["loss"] == pytest.approx([loss], rel=1e-5)


def test_sample_weights_weight_the_mean():
    weight = np.random.default_rng(0).uniform(0, 3, 20)
    weight[[2, 5]] = 0
    one = step(FLOATS[:20], Y[:20], sample_weight=weight)
    params, loss = linear_step(FLOATS[:20], Y[:20], weight, 0.5)
    near(one.model.params, params)
    assert one.history["loss"] == pytest.approx([loss], rel=1e-5)


def test_an_image_of_weight_2_counts_like_the_image_twice():
    twice = step(np.concatenate([FLOATS[:9], FLOATS[:1]]), np.append(Y[:9], Y[0]), TINY_PLAIN)
    heavy = step(FLOATS[:9], Y[:9], TINY_PLAIN, sample_weight=[2] + [1] * 8)
    near(heavy.model.params, twice.model.params)
    assert heavy.history["loss"] == pytest.approx(twice.history["loss"], rel=1e-5)
    assert heavy.history["accuracy"] == pytest.approx(twice.history["accuracy"])


def test_images_of_weight_0_do_not_matter():
    weight = np.repeat([1.0, 0.0], 8)
    with_them = step(FLOATS[:16], Y[:16], TINY_PLAIN, sample_weight=weight)
    changed = np.concatenate([FLOATS[:8], 100 * FLOATS[100:108]])
    near(with_them.model.params, step(FLOATS[:8], Y[:8], TINY_PLAIN).model.params)
    again = step(changed, np.append(Y[:8], 9 - Y[8:16]), TINY_PLAIN, sample_weight=weight)
    assert bits(again) == bits(with_them)


TINY_PLAIN = Sequential([layer for layer in (node.layer for node in TINY.nodes) if "Drop" not in str(layer)])


def test_a_step_of_a_convolutional_net_is_the_whole_batch_in_float64():
    x, y, net = FLOATS[:23], Y[:23], TINY_PLAIN
    params = {name: array.astype(np.float64) for name, array in net.init(0, (8, 8, 1)).items()}
    methods, context = net.choose_methods((8, 8, 1), "direct"), Context(True)
    scores, saved = net.forward(params, x.astype(np.float64), context, methods)
    dscores = softmax_cross_entropy(scores, y, np.ones(23))[1] / 23
    gradients = net.backward(params, saved, dscores, context, methods, tuple(params))
    assert all(gradient.dtype == np.float64 and gradient.any() for gradient in gradients.values())
    near(step(x, y, net).model.params, {name: params[name] - 0.5 * gradients[name] for name in params}, 1e-5)


def test_epochs_are_a_float64_loop_with_a_short_last_batch():
    images, rate = 27, CosineRate(0.5, epochs=3)
    optimizer = SGD(rate, momentum=0.8, weight_decay=0.01, multipliers={"*.bias": 2.0})
    x, y, weight = FLOATS[:images], Y[:images], np.random.default_rng(1).uniform(0.5, 2, images)
    run = trainer(LINEAR, optimizer=optimizer, preprocess=None, seed=3)
    fit(run, x, y, epochs=3, batch_size=10, sample_weight=weight)

    params = {name: array.astype(np.float64) for name, array in LINEAR.init(3, (8, 8, 1)).items()}
    velocity = {name: 0 * array for name, array in params.items()}
    losses = []
    for epoch in range(3):
        order, total = shuffled(images, 3, epoch), 0.0
        for number, start in enumerate((0, 10, 20)):
            batch = order[start : start + 10]
            gradients, loss = linear_gradients(params, x[batch], y[batch], weight[batch].astype(np.float32))
            total += loss * weight[batch].sum()
            now = 0.25 * (1 + np.cos(np.pi * (epoch + number / 3) / 3))
            for name, array in params.items():
                velocity[name] = 0.8 * velocity[name] + gradients[name] + 0.01 * array
                params[name] = array - now * (2 if name == "dense1.bias" else 1) * velocity[name]
        losses.append(total / weight.sum())
    near(run.model.params, params, 1e-5)
    assert run.history["loss"] == pytest.approx(losses, rel=1e-4)
    assert run.history["learning_rate"] == pytest.approx([0.5, 0.375, 0.125])


# ------------------------------------------------------------------------- parts of a network


def test_only_trainable_parameters_move():
    start = digests(TINY.init(0, (8, 8, 1)))
    end = bits(fit(trainer(trainable=["dense*", "conv2.bias"]), epochs=2))
    moved = {name for name in end if end[name] != start[name]}
    assert moved == {"dense1.weight", "dense1.bias", "conv2.bias"}


def test_frozen_layers_do_not_change_the_gradients_of_others():
    whole, some = fit(trainer(), batch_size=230), fit(trainer(trainable=["conv2*"]), batch_size=230)
    assert bits(whole)["conv2.weight"] == bits(some)["conv2.weight"]


def test_fine_tuning_starts_from_the_models_weights():
    model = fit(trainer(class_names=list("0123456789")), epochs=2).model
    before = bits(model)
    tuned = trainer(model, optimizer=SGD(0.0), preprocess=None)
    assert (tuned.predict(X) == model.predict(X)).all()
    fit(tuned)
    assert bits(tuned) == before
    moved = fit(trainer(model, preprocess=None, trainable=["dense*"]))
    assert bits(moved)["conv1.weight"] == before["conv1.weight"]
    assert bits(moved)["dense1.weight"] != before["dense1.weight"] and bits(model) == before
    assert moved.model.class_names == tuple("0123456789")
    assert (moved.model.preprocess.mean == model.preprocess.mean).all()
    refuse(r"Images of \(8, 6, 1\) need dense1.weight of shape", fit, trainer(model), X[:, :, 1:7])
    refuse(r"images are \(8, 6, 1\) but training began with \(8, 8, 1\)", fit, moved, X[:, :, 1:7], epochs=2)


def anywhere():
    """A network for images of any size."""
    return Sequential([Conv2D(6, 3), ReLU(), Conv2D(10, 3), GlobalAvgPool2D()])


def test_a_model_goes_on_with_images_of_another_shape_where_the_network_fits():
    model = fit(trainer(anywhere())).model
    wide = np.concatenate([X, X], axis=2)
    tuned = trainer(model)
    results = tuned.evaluate(wide, Y)
    assert results["accuracy"] == (model.predict(wide).argmax(1) == Y).mean()
    fit(tuned, wide, epochs=2)
    assert tuned.model.input_shape == (8, 16, 1) and bits(tuned) != bits(model)
    assert tuned.evaluate(X, Y)["accuracy"] == (tuned.predict(X).argmax(1) == Y).mean()
    frozen = fit(trainer(model, optimizer=SGD(0.0)), wide)
    assert bits(frozen) == bits(model)
    assert frozen.history["loss"][0] == pytest.approx(results["loss"], rel=1e-5)
    refuse("images are .* but training began with", fit, tuned, X, epochs=3)


def test_a_mean_image_fits_its_own_shape_only():
    model = fit(trainer(anywhere(), preprocess="mean_image")).model
    tuned = trainer(model, preprocess=None)
    wide = np.concatenate([X, X], axis=2)
    sentence = (
        r"Images of \(8, 16, 1\) do not fit the normalisation, whose mean has the shape \(8, 8, 1\): resize"
    )
    for call in (lambda: fit(tuned, wide), lambda: tuned.evaluate(wide, Y), lambda: model.predict(wide)):
        refuse(sentence, call)
    assert fit(trainer(model, preprocess="standardize"), wide).model.preprocess.mean.shape == (1,)
    own = Normalize(np.zeros(3, np.float32), np.ones(1, np.float32))
    refuse(r"Images of \(8, 8, 1\) do not fit .* mean has the shape \(3,\)", fit, trainer(preprocess=own))


# -------------------------------------------------------------------------- losses and metrics


def doubled(scores, y, weight):
    loss, gradient = softmax_cross_entropy(scores, y, weight)
    return 2 * loss, 2 * gradient


def test_a_loss_may_be_a_function():
    plain, twice = trainer(), trainer(loss=doubled, optimizer=SGD(0.025, momentum=0.9))
    assert bits(fit(plain)) == bits(fit(twice))  # powers of two scale without rounding
    assert twice.history["loss"] == [2 * loss for loss in plain.history["loss"]]


def test_mean_squared_error_learns_values():
    targets = np.stack([Y == 3, FLOATS.mean((1, 2, 3)) * 2], axis=1).astype(np.float32)
    net = Sequential([Flatten(), Dense(32), ReLU(), Dense(2)])
    run = trainer(net, loss="mean_squared_error", metrics=[], optimizer=SGD(0.05, momentum=0.9))
    fit(run, y=targets, epochs=20)
    assert run.history["loss"][-1] < 0.02 < 0.1 < run.history["loss"][0]
    error = ((run.predict(X) - targets) ** 2).mean()
    assert run.evaluate(X, targets) == pytest.approx({"loss": error}, rel=1e-4)


@dataclass(frozen=True)
class MeanScore(Metric):
    """The mean highest score."""

    name: str = "mean_score"

    def sums(self, scores, y, weight):
        return np.array([np.sum(weight * scores.max(1))])


def test_metrics_agree_with_numpy():
    metrics = ["accuracy", "top5", "confusion_matrix", MeanScore()]
    run = fit(trainer(metrics=metrics))
    results = run.evaluate(DIGITS.x_test, DIGITS.y_test)
    scores, y = run.predict(DIGITS.x_test), DIGITS.y_test
    matrix = np.zeros((10, 10))
    np.add.at(matrix, (y, scores.argmax(1)), 1)
    assert list(results) == ["loss", "accuracy", "top5", "confusion_matrix", "mean_score"]
    assert (results["confusion_matrix"] == matrix).all()
    assert results["accuracy"] == np.trace(matrix) / len(y)
    five = np.argsort(-scores, axis=1)[:, :5]
    assert results["top5"] == (five == y[:, None]).any(1).mean() > results["accuracy"]
    assert results["mean_score"] == pytest.approx(scores.max(1).mean(), rel=1e-5)
    assert run.history["confusion_matrix"][0].sum() == len(X)


# ------------------------------------------------------------------------------------- failing


def test_a_loss_that_is_not_finite_keeps_the_weights_from_before():
    seen = []
    run = trainer(optimizer=SGD(1e15))
    with events.listening(seen.append), pytest.raises(WorkerError, match="not finite in step 2 "):
        fit(run, epochs=3)
    assert [event.step for event in seen] == [0]
    assert all(np.isfinite(array).all() for array in run.model.params.values())
    assert max(abs(array).max() for array in run.model.params.values()) > 1e9  # the first step was taken


def nowhere(scores, y, weight):
    return float("nan"), np.zeros_like(scores)


def test_a_loss_that_is_nan_at_once_keeps_the_initial_weights(tmp_path):
    run = trainer(loss=nowhere)
    with pytest.raises(WorkerError, match="lower learning rate"):
        fit(run)
    assert bits(run) == digests(TINY.init(0, (8, 8, 1)))
    run.model.save(tmp_path / "model")
    assert bits(daskconv.load(tmp_path / "model")) == bits(run)


def test_a_rate_that_overflows_keeps_finite_weights():
    run = trainer(optimizer=SGD(1e39))
    with np.errstate(all="ignore"), pytest.raises(WorkerError):
        fit(run, epochs=5)
    assert all(np.isfinite(array).all() for array in run.model.params.values())


def test_a_failing_validation_does_not_part_the_position_from_the_weights():
    nan = da.from_array(np.full((10, 8, 8, 1), np.nan, np.float32), chunks=5)
    run = trainer()
    with pytest.raises(daskconv.errors.DataError):
        fit(run, epochs=2, validation_data=(nan, Y[:10]))
    fit(run, epochs=2)
    assert bits(run) == bits(fit(trainer(), epochs=2))


def test_a_checkpoint_after_a_failure_goes_on_where_its_weights_are(tmp_path):
    run = trainer(optimizer=SGD(1e15))
    with pytest.raises(WorkerError, match="step 2"):
        fit(run)
    run.save(tmp_path / "f")
    checkpoint = load_checkpoint(tmp_path / "f")
    assert checkpoint.state.position.step == checkpoint.state.steps


def test_a_refused_fit_leaves_no_normalisation_behind():
    run, broken = trainer(), FLOATS.copy()
    broken[3, 0, 0, 0] = np.nan
    refuse(r"x\[3\]", fit, run, broken)
    assert bits(fit(run, FLOATS)) == bits(fit(trainer(), FLOATS))


def test_a_refused_fit_leaves_no_shape_behind():
    run = trainer(LINEAR)
    refuse(r"y\[0\] is 1", fit, run, X[:, :6], Y + 100)
    assert bits(fit(run)) == bits(fit(trainer(LINEAR)))


def nothing_trained(match, build):
    """The sentence comes when the trainer is built, or before the first step."""
    seen = []
    with events.listening(seen.append):
        refuse(match, lambda: fit(build()))
    assert not seen


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"net": "resnet1000"}, "net is 'resnet1000': choose one of alexnet, cifar10_quick"),
        ({"plan": "magic"}, "plan is 'magic'"),
        ({"plan": {"conv1": 2}}, "give a Layout for each layer"),
        ({"plan": daskconv.plans.data(2), "shards": 3}, "shards is 3 but the plan data has 2"),
        ({"transport": "pigeon"}, "transport is 'pigeon': choose one of auto, local, dask, mpi"),
        ({"transport": "dask"}, "transport='dask' needs a Dask client"),
        ({"method": "magic"}, "method is 'magic': choose one of auto, direct"),
        ({"method": {"conv1": "magic"}}, "method is 'magic'"),
        ({"method": {"conv9": "direct"}}, r"names the layers \['conv9'\], but the network has \['conv1'"),
        ({"method": {"relu1": "direct"}}, r"names \['relu1'\], which are no convolutions"),
        ({"loss": "magic"}, "loss is 'magic': choose one of softmax_cross_entropy"),
        ({"metrics": ["magic"]}, "metric 'magic': choose one of accuracy, top5"),
        ({"preprocess": "magic"}, "normalisation is 'magic': choose one of mean_image"),
        ({"trainable": ["dense9*"]}, r"trainable='dense9\*' matches no parameter"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"shards": 0}, "shards is 0: give an int of at least 1"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 1.5}, "threads is 1.5: give an int of at least 1"),
    ],
    ids=str,
)
def test_bad_options_are_one_sentence_before_anything_is_trained(options, sentence):
    options = dict(options)
    nothing_trained(sentence, lambda: trainer(options.pop("net", TINY), **options))


def test_a_trainer_without_a_model_says_so(tmp_path):
    for call in (lambda t: t.model, lambda t: t.predict(X), lambda t: t.evaluate(X, Y)):
        refuse("There is no model yet: call fit", call, Trainer("lenet"))
    refuse("nothing to save yet", Trainer("lenet").save, tmp_path / "f")


CONTEXTS = []


@dataclass(frozen=True)
class Noting(Layer):
    """Notes what a layer is told of each pass."""

    def forward(self, params, x, context):
        CONTEXTS.append((context.training, context.seed, context.epoch, context.images.tolist()))
        return x, None

    def backward(self, params, saved, dy, context):
        return dy, {}


def test_layers_are_told_seed_epoch_and_image_numbers():
    CONTEXTS.clear()
    run = fit(trainer(Sequential([Noting(), Flatten(), Dense(10)]), seed=3), epochs=2)
    assert {(training, seed) for training, seed, _, _ in CONTEXTS} == {(True, 3)}
    for epoch in range(2):
        seen = [image for _, _, at, images in CONTEXTS if at == epoch for image in images]
        order = shuffled(len(X), 3, epoch).tolist()
        for start in range(0, len(X), 50):  # the blocks of a step may run in any order
            assert sorted(seen[start : start + 50]) == sorted(order[start : start + 50])
    CONTEXTS.clear()
    run.evaluate(X, Y)
    assert sorted(image for _, _, _, images in CONTEXTS for image in images) == list(range(len(X)))
    assert not any(training for training, *_ in CONTEXTS)


def test_the_progress_events_count_steps_and_images():
    seen = []
    with events.listening(seen.append):
        fit(trainer(), epochs=2)
    assert [(event.epoch, event.step) for event in seen] == [(e, s) for e in range(2) for s in range(STEPS)]
    assert [event.images for event in seen] == [50, 100, 150, 200, 230] * 2


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (np.where(np.arange(230) == 7, np.nan, 0.0), r"y\[7\] is not finite"),
        (np.zeros((230, 3)), "each image has"),
        (np.array(["a"] * 230), "give numbers"),
    ],
)
def test_targets_of_the_squared_error_are_checked_first(y, sentence):
    net = Sequential([Flatten(), Dense(1)])
    refuse(sentence, fit, trainer(net, loss="mean_squared_error"), y=y)


def test_classes_need_one_score_each():
    refuse("end it with Flatten", fit, trainer(Sequential([Conv2D(10, 3)])))


@pytest.mark.parametrize(
    ("options", "sentence"), [({"net": 3}, "net is 3"), ({"optimizer": "sgd"}, "optimizer is 'sgd'")]
)
def test_what_is_no_net_and_no_optimizer_is_refused(options, sentence):
    refuse(sentence, trainer, **options)


def test_a_callback_that_cannot_be_called_is_refused_first():
    refuse("callbacks holds 3", fit, trainer(), callbacks=[3])


def test_numpy_integers_are_integers():
    trained = fit(trainer(seed=np.int64(1)), batch_size=np.int64(50), epochs=np.int64(1))
    assert bits(trained) == bits(fit(trainer(seed=1)))


def test_a_bad_chunk_of_validation_images_is_found_before_training():
    bad = X.astype(np.float32)
    bad[100, 2, 3] = np.nan
    lazy = da.from_array(bad, chunks=(40, -1, -1, -1))
    untrained = trainer()
    sentence = r"validation x\[100\] has pixels that are not finite"
    refuse(sentence, fit, untrained, validation_data=(lazy, Y), error=DataError)
    assert untrained.position.step == untrained.position.epoch == 0


def test_pixels_beyond_float32_are_refused():
    large = X.astype(np.float64)
    large[3, 0, 0] = 1e300
    refuse(r"x\[3\] has pixels that are not finite", fit, trainer(), large, error=DataError)


def test_float64_weights_compute_in_float64():
    """Mixed dtypes meet in the wider one, whatever the method."""
    weights = TINY.init(0, (8, 8, 1), np.float64)
    narrow = {name: array.astype(np.float32) for name, array in weights.items()}
    images = X[:20].astype(np.float32) / 16
    for method in ("auto", "direct", "lowering", "pipelined", "implicit"):
        methods = TINY.choose_methods((8, 8, 1), method)
        wide, _ = TINY.forward(weights, images, Context(), methods)
        expected, _ = TINY.forward(narrow, images, Context(), methods)
        assert wide.dtype == np.float64
        np.testing.assert_allclose(wide, expected, atol=1e-4)
