"""Estimators: scikit-learn's interface, its tools, labels of any type, arrays of Dask."""

import pickle
import subprocess
import sys
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

import daskconv
from daskconv import (
    LARS,
    SGD,
    Adagrad,
    Adam,
    ConvNetClassifier,
    ConvNetRegressor,
    Dense,
    Flatten,
    RMSprop,
    Sequential,
)
from train.small import TINY, X, Y, bits, digests, fit, refuse, trainer

sklearn = pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: its interface is not tested (extra: sklearn)"
)
from sklearn.base import clone, is_classifier, is_regressor  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_predict  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

NAMES = np.array(["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"])
OPTIONS = {"epochs": 4, "batch_size": 50, "optimizer": SGD(0.05, momentum=0.9), "transport": "local"}
ROWS = X.reshape(len(X), -1).astype(np.float64)


def classifier(**options):
    return ConvNetClassifier(**{"net": TINY, **OPTIONS, **options})


def line(outputs, **options):
    net = Sequential([Flatten(), Dense(outputs)])
    return ConvNetRegressor(net, **{**OPTIONS, "epochs": 30, "optimizer": SGD(0.05, momentum=0.9), **options})


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, NAMES[Y])


@pytest.mark.parametrize(
    "labels", [NAMES[Y], Y - 3, Y * 2.0, NAMES[Y].astype(object)], ids=lambda a: str(a.dtype)
)
def test_it_is_the_trainer_with_labels_of_any_type(fitted, labels):
    one = classifier().fit(X, labels)
    np.testing.assert_array_equal(one.classes_, np.unique(labels))
    assert one.predict(X).dtype == labels.dtype or labels.dtype == object
    same = fit(trainer(), y=np.searchsorted(one.classes_, labels), epochs=4)
    assert bits(one.model_) == bits(same)
    assert one.score(X, labels) == (one.predict(X) == labels).mean() > 0.4
    proba = one.predict_proba(X)
    assert proba.shape == (230, 10) and proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(one.classes_[proba.argmax(1)], one.predict(X))
    weight = np.arange(230.0)
    assert one.score(X, labels, weight) == pytest.approx(np.average(one.predict(X) == labels, weights=weight))


def test_two_classes_of_bools_and_a_net_by_name():
    one = ConvNetClassifier(**{**OPTIONS, "optimizer": SGD(0.01, momentum=0.9)}).fit(X, Y > 4)
    assert one.model_.network == daskconv.zoo.lenet(2)
    assert one.predict(X).dtype == bool and one.score(X, Y > 4) > 0.7


def test_params_clones_and_tags(fitted):
    one = classifier(augment=["flip"], random_state=3)
    params = one.get_params()
    assert params["net"] is TINY and params["random_state"] == 3 and params["augment"] == ["flip"]
    again = clone(one)
    assert again is not one and again.get_params() == params
    assert one.set_params(epochs=7, net="lenet").epochs == 7
    with pytest.raises(ValueError, match="Invalid parameter"):
        one.set_params(magic=1)
    assert not hasattr(clone(fitted), "classes_") and "epochs=4" in repr(fitted)
    assert is_classifier(one) and is_regressor(line(1)) and not is_regressor(one)
    assert ConvNetRegressor().get_params().keys() == ConvNetClassifier().get_params().keys()
    with pytest.raises(NotFittedError):
        one.predict(X)


def test_a_fitted_one_is_pickled(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert bits(again.partial_fit(X, NAMES[Y]).model_) == bits(
        pickle.loads(pickle.dumps(fitted)).partial_fit(X, NAMES[Y]).model_
    )


def test_partial_fits_are_epochs_of_fit(fitted):
    one = classifier()
    for _ in range(4):
        assert one.partial_fit(X, NAMES[Y]) is one
    assert bits(one.model_) == bits(fitted.model_) and one.n_iter_ == fitted.n_iter_ == 4
    assert one.history_["loss"] == fitted.history_["loss"]
    assert bits(one.fit(X, NAMES[Y]).model_) == bits(fitted.model_)


def test_partial_fits_of_other_images_go_on():
    one = classifier(average=0.5)
    for _ in range(4):
        for start in (0, 100):
            one.partial_fit(X[start : start + 100], Y[start : start + 100], classes=np.arange(10))
        mean = one.checkpoint_.state.slots["average.conv1.weight"]
        np.testing.assert_array_equal(one.model_.params["conv1.weight"], mean)
    assert one.n_iter_ == 8 == len(one.history_.epochs) and one.score(X, Y) > 0.5
    few = classifier(batch_size=500).partial_fit(X[:3], Y[:3], classes=range(10))
    refuse(r"y\[1\] is .*12.*, which is none of the classes", few.partial_fit, X[:2], np.array([1, 12]))
    refuse("leave them out", few.partial_fit, X[:2], Y[:2], classes=[1, 2])


@pytest.mark.parametrize("optimizer", [Adam(0.01), RMSprop(0.01), LARS(0.1), SGD(0.01)], ids=repr)
@pytest.mark.parametrize("before", [Adam(0.01), SGD(0.05, momentum=0.9), Adagrad(0.05)], ids=repr)
def test_an_optimizer_of_another_kind_starts_with_fresh_slots(optimizer, before):
    one = classifier(optimizer=before).partial_fit(X, Y)
    kept, state = type(optimizer) is type(before), one.checkpoint_.state
    slots = state.slots if kept else optimizer.init(state.params)
    same = trainer(optimizer=optimizer).resume(
        replace(one.checkpoint_, state=replace(state, slots=slots), options={})
    )
    one.set_params(optimizer=optimizer).partial_fit(X, Y)
    assert bits(one.model_) == bits(fit(same, epochs=2)) and one.n_iter_ == 2
    assert one.checkpoint_.state.slots.keys() == slots.keys()


def test_running_means_come_and_go_between_partial_fits():
    one = classifier().partial_fit(X, Y).set_params(average=0.5)
    start = one.checkpoint_.state.params
    one.set_params(optimizer=SGD(0.0)).partial_fit(X, Y)
    assert digests(one.model_.params) == digests(start), "means start where the weights stand"
    one.set_params(optimizer=Adam(0.01), average=0.9).partial_fit(X, Y)
    means = {name: one.checkpoint_.state.slots[f"average.{name}"] for name in start}
    assert digests(one.model_.params) == digests(means) != digests(one.checkpoint_.state.params)
    one.set_params(average=None).partial_fit(X, Y)
    assert bits(one.model_) == digests(one.checkpoint_.state.params)
    assert not any(name.startswith("average.") for name in one.checkpoint_.state.slots)


def test_dask_arrays_give_lazy_results_and_the_same_ones(fitted):
    x, y = da.from_array(X, (60, 4, 8, 1)), da.from_array(NAMES[Y], 50)
    one = classifier().fit(da.from_array(X, (230, 8, 8, 1)), y)
    chunked = classifier().fit(x, y)
    assert chunked.score(x, y) > 0.3  # other bits: images of chunks are shuffled in their own way
    assert one.classes_.tolist() == sorted(NAMES)
    lazy = fitted.predict(x), fitted.predict_proba(x)
    assert all(isinstance(result, da.Array) and len(result.chunks[0]) == 4 for result in lazy)
    assert lazy[0].dtype == NAMES.dtype and lazy[1].shape == (230, 10)
    np.testing.assert_array_equal(lazy[0].compute(), fitted.predict(X))
    np.testing.assert_allclose(lazy[1].compute(), fitted.predict_proba(X), rtol=1e-5, atol=1e-7)
    assert fitted.score(x, y) == fitted.score(X, NAMES[Y])
    rows = classifier(image_shape=(8, 8, 1)).fit(da.from_array(ROWS, (60, 9)), Y)
    assert rows.predict(da.from_array(ROWS, (70, 64))).compute().shape == (230,)


def test_grid_search_and_pipelines():
    search = GridSearchCV(
        classifier(), {"optimizer": [SGD(0.0), SGD(0.05, momentum=0.9)], "shards": [2]}, cv=2
    ).fit(X, NAMES[Y])
    assert search.best_params_["optimizer"] == SGD(0.05, momentum=0.9)
    assert search.best_score_ > 0.2 > search.cv_results_["mean_test_score"][0]
    assert search.predict(X).dtype == NAMES.dtype
    rows = make_pipeline(StandardScaler(), classifier(image_shape=(8, 8, 1), preprocess=None))
    assert rows.fit(ROWS, NAMES[Y]).score(ROWS, NAMES[Y]) > 0.5
    rows.set_params(convnetclassifier__epochs=1)
    assert rows.fit(ROWS, Y)[-1].n_iter_ == 1
    proba = cross_val_predict(classifier(epochs=1), X, Y, cv=2, method="predict_proba")
    assert proba.shape == (230, 10)


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_finds_a_line(outputs):
    x = np.random.default_rng(0).random((200, 3, 2, 1), np.float32)
    y = np.stack([x.sum((1, 2, 3)), 3 - x[:, 0, 0, 0]], 1)[:, :outputs]
    y = y[:, 0] if outputs == 1 else y
    one = line(outputs).fit(x, y)
    assert one.predict(x).shape == y.shape and one.score(x, y) > 0.99
    lazy = da.from_array(x, (90, 3, 2, 1))
    assert lazy.shape == x.shape and isinstance(one.predict(lazy), da.Array)
    np.testing.assert_allclose(one.predict(lazy).compute(), one.predict(x), rtol=1e-5, atol=1e-6)
    before = one.n_iter_
    assert one.partial_fit(x[:50], y[:50]).n_iter_ == before + 1
    whole = line(1).fit(
        x, np.round(10 * x.sum((1, 2, 3))).astype(int)
    )  # integers are numbers here, no classes
    assert whole.score(x, 10 * x.sum((1, 2, 3))) > 0.98


def test_a_net_by_name_for_several_numbers():
    one = ConvNetRegressor("lenet", **{**OPTIONS, "epochs": 1, "optimizer": SGD(1e-4)}).fit(
        X, np.stack([Y, -Y], 1)
    )
    assert one.predict(X[:5]).shape == (5, 2)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: classifier().fit(X, Y[:-1]), "230 images but there are 229 targets"),
        (lambda: classifier().fit(X, Y % 3), r"output is \(10,\) but y needs 3 numbers"),
        (lambda: classifier().fit(ROWS, Y), "give images"),
        (lambda: classifier(image_shape=(9, 8, 1)).fit(ROWS, Y), "give rows of that many pixels"),
        (lambda: classifier(batch_size=0).fit(X, Y), "batch_size is 0"),
        (lambda: classifier(epochs=0).fit(X, Y), "epochs is 0"),
        (lambda: classifier(net="resnet1000").fit(X, Y), "net is 'resnet1000'"),
        (lambda: line(1).fit(X, NAMES[Y]), "give numbers"),
        (lambda: line(2).fit(X, Y), r"output is \(2,\) but y needs 1 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(build, match):
    refuse(match, build)


def test_continuous_labels_are_no_classes():
    with pytest.raises(ValueError, match="label type"):
        classifier().fit(X, Y + 0.1)


def test_without_scikit_learn_one_sentence_says_what_is_missing():
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None\n"
        "import daskconv\n"
        "from daskconv import *\n"
        "try: ConvNetRegressor()\n"
        "except daskconv.errors.InputError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "ConvNetRegressor needs scikit-learn: pip install 'daskconv[sklearn]'."
