"""Training that stops and goes on reaches the same bits as training that does not."""

import re
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

import daskconv
from daskconv import SGD, CosineRate, Optimizer, Schedule, SoftmaxCrossEntropy, events
from daskconv.errors import DataError
from daskconv.run.alike import versions
from daskconv.train.files import load_checkpoint, write_checkpoint
from train.small import STEPS, TINY, X, Y, bits, figures, fit, refuse, trainer

EPOCHS = 3
VALIDATION = (X[:40], Y[:40])
OPTIMIZER = SGD(CosineRate(0.05, EPOCHS), momentum=0.9, weight_decay=1e-3, multipliers={"*.bias": 2.0})


def run(path=None, **options):
    """A new trainer, from a file if there is one."""
    new = trainer(**{"optimizer": OPTIMIZER, **options})
    return new if path is None else new.resume(path)


def train(trainer, **options):
    return fit(trainer, **{"epochs": EPOCHS, "validation_data": VALIDATION, **options})


def train_and_stop(trainer, epoch, step, **options):
    """Train until a step has reported, and stop."""

    def stop(event):
        if (event.epoch, event.step) >= (epoch, step):
            trainer.stop()

    with events.listening(stop):
        return fit(trainer, epochs=EPOCHS, **options) if options else train(trainer)


@pytest.fixture(scope="module")
def undisturbed():
    return train(run())


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """A file of training that stopped after its first epoch."""
    path = tmp_path_factory.mktemp("resume") / "one"
    stopped = train(run(), callbacks=[lambda trainer, logs: trainer.stop()])
    stopped.save(path)
    return path


def test_stopping_after_an_epoch_and_going_on_gives_the_same_bits(undisturbed, one_epoch):
    assert load_checkpoint(one_epoch).state.position.epoch == 1
    assert load_checkpoint(one_epoch).state.position.step == 0
    went_on = train(run(one_epoch))
    assert bits(went_on) == bits(undisturbed)
    assert figures(went_on.history) == figures(undisturbed.history)
    assert undisturbed.history["epoch"] == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} < undisturbed.history.epochs[
        0
    ].keys()


@pytest.mark.parametrize("at", [(0, 0), (1, 1), (2, 2)], ids=str)
def test_stopping_within_an_epoch_and_going_on_gives_the_same_bits(undisturbed, tmp_path, at):
    stopped = train_and_stop(run(), *at)
    assert stopped.position.epoch == at[0] and at[1] < stopped.position.step <= at[1] + 2
    assert len(stopped.history.epochs) == at[0]
    stopped.save(tmp_path / "f")
    assert bits(daskconv.load(tmp_path / "f")) == bits(stopped) != bits(undisturbed)
    went_on = train(run(tmp_path / "f", threads=2))
    assert bits(went_on) == bits(undisturbed)
    assert figures(went_on.history) == figures(undisturbed.history)


def test_stopping_again_and_again_gives_the_same_bits(undisturbed, tmp_path):
    path, stops = None, 0
    while stops < EPOCHS * STEPS:
        one = run(path)
        train_and_stop(one, 0, 0)
        one.save(path := tmp_path / "f")
        stops += 1
        if one.position.epoch == EPOCHS:
            break
    assert stops >= EPOCHS * STEPS / 2
    assert bits(one) == bits(undisturbed) and figures(one.history) == figures(undisturbed.history)


def test_the_same_trainer_goes_on_too(undisturbed):
    one = train_and_stop(run(), 1, 1)
    assert bits(train(one)) == bits(undisturbed)
    more = fit(run())
    for epochs in (2, 3):
        fit(more, epochs=epochs)
    assert bits(more) == bits(undisturbed)


@pytest.mark.parametrize("method", ["pipelined", {"conv2": "lowering"}], ids=str)
def test_methods_and_parts_of_a_network_go_on(tmp_path, method):
    options = {"method": method, "trainable": ["conv*"], "metrics": ["accuracy", "top5"], "shards": 3}
    train_and_stop(one := run(**options), 1, 1)
    one.save(tmp_path / "f")
    assert bits(train(run(tmp_path / "f", **options))) == bits(train(run(**options)))


@dataclass(frozen=True)
class Halving(Schedule):
    rate: float = 0.1

    def at(self, epoch):
        return self.rate / 2**epoch


@dataclass(frozen=True)
class SignDescent(Optimizer):
    schedule: Schedule

    def rate(self, epoch):
        return self.schedule.at(epoch) / 100

    def init(self, params):
        return {f"count.{name}": array[:1] * 0 for name, array in params.items()}

    def step(self, name, param, gradient, slots, rate, scale):
        slots[f"count.{name}"] += 1
        param -= rate * (gradient > 0) - rate * (gradient < 0)


def test_custom_optimizers_and_schedules_go_on(tmp_path):
    options = {"optimizer": SignDescent(Halving())}
    train_and_stop(one := run(**options), 1, 1)
    one.save(tmp_path / "f")
    checkpoint = load_checkpoint(tmp_path / "f")
    assert checkpoint.options["optimizer"] == SignDescent(Halving())
    assert set(checkpoint.state.slots["count.conv1.bias"]) == {checkpoint.state.steps}
    assert bits(train(run(tmp_path / "f", **options))) == bits(train(run(**options)))


@pytest.mark.parametrize(
    "loss",
    [SoftmaxCrossEntropy(0.1, (1.0,) * 9 + (0.5,), 3), "binary_cross_entropy", "mean_squared_error"],
    ids=str,
)
def test_losses_go_on(tmp_path, loss):
    y = Y if isinstance(loss, SoftmaxCrossEntropy) else np.eye(10)[Y]
    train_and_stop(one := run(loss=loss), 1, 1, y=y)
    one.save(tmp_path / "f")
    saved = load_checkpoint(tmp_path / "f").options["loss"]
    assert daskconv.losses.resolve_loss(saved) == one.loss
    again = fit(run(tmp_path / "f", loss=saved), y=y, epochs=EPOCHS)
    assert bits(again) == bits(fit(run(loss=loss), y=y, epochs=EPOCHS))


@pytest.mark.parametrize(
    ("options", "fit_options", "name"),
    [
        ({}, {"batch_size": 40}, "batch_size 50 and would go on with 40"),
        ({}, {"x": X[:-1], "y": Y[:-1]}, "images 230 and would go on with 229"),
        ({"seed": 1}, {}, "seed 0 and would go on with 1"),
        ({"optimizer": SGD(0.01)}, {}, "optimizer SGD.* and would go on with SGD"),
        ({"shards": 2}, {}, "shards 4 and would go on with 2"),
        ({"method": "lowering"}, {}, "method auto and would go on with lowering"),
        (
            {"loss": SoftmaxCrossEntropy(0.1)},
            {},
            "loss softmax_cross_entropy and would go on with SoftmaxCross",
        ),
        ({"metrics": ["top5"]}, {}, "metrics"),
        ({"trainable": ["conv*"]}, {}, "trainable"),
        ({}, {"epochs": 1}, "epochs is 1 but 1 are done: give the total to reach"),
        ({"net": "lenet"}, {}, "checkpoint holds tiny with other layers than lenet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_options_are_refused(one_epoch, options, fit_options, name):
    refuse(name, lambda: train(run(one_epoch, **options), **fit_options))


def test_a_model_without_training_cannot_be_resumed(one_epoch, tmp_path):
    model = daskconv.load(one_epoch)
    model.save(tmp_path / "model")
    refuse("holds a model but no training", trainer().resume, tmp_path / "model", error=DataError)
    refuse("is no file", trainer().resume, tmp_path / "none", error=DataError)
    assert bits(fit(trainer(daskconv.load(tmp_path / "model"), optimizer=SGD(0.0)))) == bits(model)


def test_resuming_keeps_the_normalisation_of_the_first_images(one_epoch):
    resumed = run(one_epoch, preprocess="unit")
    assert (resumed.preprocess.mean == load_checkpoint(one_epoch).model.preprocess.mean).all()
    assert (resumed.predict(X) == daskconv.load(one_epoch).predict(X)).all()


def test_resuming_keeps_the_class_names(tmp_path):
    named = fit(run(class_names=list("abcdefghij")))
    named.save(tmp_path / "f")
    assert train(run(tmp_path / "f")).model.class_names == tuple("abcdefghij")


def test_a_history_with_a_matrix_is_saved(tmp_path):
    options = {"metrics": ["confusion_matrix"]}
    one = fit(run(**options))
    one.save(tmp_path / "f")
    went_on = fit(run(tmp_path / "f", **options), epochs=2)
    undisturbed = fit(run(**options), epochs=2)
    np.testing.assert_array_equal(
        went_on.history["confusion_matrix"], undisturbed.history["confusion_matrix"]
    )


def test_tiny_has_random_numbers_that_depend_on_the_epoch():
    assert any("Dropout" in str(node.layer) for node in TINY.nodes)


def test_other_versions_than_the_checkpoints_are_warned_of_once(tmp_path, one_epoch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(one_epoch)
        # What says nothing of them is gone on with, too.
        run(replace(load_checkpoint(one_epoch), versions={}))
    other = replace(load_checkpoint(one_epoch), versions=versions() | {"numpy": "1.0"})
    write_checkpoint(tmp_path / "f", other)
    with pytest.warns(RuntimeWarning) as caught:
        resumed = run(tmp_path / "f")
    sentence = (
        rf"The checkpoint was written with numpy 1.0 \(now {np.__version__}\): training goes on from it, but"
    )
    assert len(caught) == 1 and re.match(sentence, str(caught[0].message))
    # What goes on is written by these versions.
    train(resumed).save(tmp_path / "g")
    assert load_checkpoint(tmp_path / "g").versions == versions()
