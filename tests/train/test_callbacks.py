"""Callbacks: when training ends early, which model is kept, and what they refuse before anything runs."""

import os

import pytest

import daskconv
from daskconv import EarlyStopping, LearningRateLogger, ModelCheckpoint
from daskconv.errors import InputError
from daskconv.train.callbacks import Monitor

DIGITS = daskconv.datasets.load("digits")
X, Y, XV, YV = DIGITS.x_train[:200], DIGITS.y_train[:200], DIGITS.x_test[:90], DIGITS.y_test[:90]


def trainer(rate=0.02, **options):
    optimizer = daskconv.SGD(rate, momentum=0.9)
    return daskconv.Trainer(
        "lenet", optimizer=optimizer, preprocess="standardize", transport="local", **options
    )


def fit(trained, epochs, callbacks, validation=(XV, YV)):
    return trained.fit(
        X, Y, epochs=epochs, batch_size=50, validation_data=validation, callbacks=callbacks, progress=False
    )


def losses(*values):
    return [{"val_loss": value, "accuracy": 1 - value} for value in values]


def test_the_best_epoch_is_the_first_of_the_lowest_losses_and_the_highest_of_others():
    assert Monitor().best(losses(0.5, 0.3, 0.4, 0.3)) == 1
    assert Monitor(monitor="accuracy").best(losses(0.5, 0.3, 0.4, 0.3)) == 1
    assert Monitor(monitor="accuracy", mode="min").best(losses(0.3, 0.5, 0.4)) == 1
    assert Monitor(mode="max").best(losses(0.3, 0.5, 0.4)) == 1
    assert Monitor(min_delta=0.15).best(losses(0.5, 0.4, 0.3, 0.2)) == 2  # 0.4 is not better, 0.3 is
    assert Monitor().best(losses(float("nan"), 0.4, float("nan"))) == 1
    assert Monitor(monitor="val_accuracy").best(losses(0.4)) == -1
    assert Monitor().name([{"loss": 1.0}]) == "loss"


def test_training_ends_once_so_many_epochs_were_no_better():
    trained = trainer()
    later = []

    def worse(_, logs):
        logs["val_loss"] = [0.9, 0.5, 0.6, 0.7, 0.8, 0.1][logs["epoch"] - 1]

    history = fit(trained, 6, [worse, EarlyStopping(patience=3), lambda *_: later.append(1)])
    assert history["val_loss"] == [0.9, 0.5, 0.6, 0.7, 0.8] and len(later) == 5
    assert trained.position.epoch == 5


def test_a_resumed_run_counts_the_epochs_from_before(tmp_path):
    stop = EarlyStopping(patience=2, monitor="loss", min_delta=0.001)
    first = trainer(rate=0.0)
    fit(first, 2, [stop])
    first.save(tmp_path / "model")
    second = trainer(rate=0.0).resume(tmp_path / "model")
    assert len(fit(second, 9, [stop]).epochs) == 3


def test_the_file_is_that_of_the_best_epoch(tmp_path):
    trained, shas = trainer(), []

    def score(trainer, logs):
        logs["val_loss"] = [0.5, 0.2, 0.3, 0.1, 0.4][logs["epoch"] - 1]
        shas.append(trainer.model.params["dense2.weight"].copy())

    fit(trained, 5, [score, ModelCheckpoint(path=tmp_path / "best")])
    best = daskconv.load(tmp_path / "best").params["dense2.weight"]
    assert best.tobytes() == shas[3].tobytes() and best.tobytes() != shas[4].tobytes()
    again = trainer().resume(tmp_path / "best")  # training goes on from there
    assert again.position.epoch == 4 and len(again.history.epochs) == 4


def test_the_learning_rate_is_said_of_each_epoch():
    said = []
    schedule = daskconv.StepRate(0.01, (1,))
    trained = daskconv.Trainer("lenet", optimizer=daskconv.SGD(schedule), transport="local")
    fit(trained, 2, [LearningRateLogger(said.append)])
    assert said == ["epoch 1  learning rate 0.01", "epoch 2  learning rate 0.001"]


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (
            EarlyStopping(monitor="acuracy"),
            "monitor is 'acuracy', but an epoch has loss, accuracy, val_loss, ",
        ),
        (EarlyStopping(patience=0), "patience is 0: give an int of at least 1"),
        (EarlyStopping(mode="best"), "mode is 'best': choose one of auto, min, max"),
        (EarlyStopping(min_delta=-1), "min_delta is -1"),
        (ModelCheckpoint(path="none/best"), "none is no folder that can be written to"),
    ],
)
def test_what_a_callback_cannot_do_is_refused_before_anything_runs(callback, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = trainer()
    with pytest.raises(InputError, match=sentence):
        fit(trained, 1, [callback])
    assert trained.history.epochs == [] and os.listdir() == []


def test_there_is_no_validation_figure_without_validation_data():
    with pytest.raises(InputError, match="monitor is 'val_loss', but an epoch has loss, accuracy"):
        fit(trainer(), 1, [EarlyStopping(monitor="val_loss")], validation=None)
    trained = trainer(metrics=["confusion_matrix"])
    with pytest.raises(InputError, match="'confusion_matrix', but an epoch has loss, val_loss"):
        fit(trained, 1, [EarlyStopping(monitor="confusion_matrix")])
