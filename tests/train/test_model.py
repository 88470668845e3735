"""Predicting from NumPy and from Dask arrays."""

import dask
import dask.array as da
import numpy as np
import pytest

import daskconv
from daskconv import Conv2D, Flatten, Model, ReLU, Sequential
from daskconv.errors import DataError
from train.small import DIGITS, LOADED, TINY, X, Y, counted, fit, refuse, trainer

FLOATS = (X / 16).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return fit(trainer(class_names=list("0123456789"))).model


def test_predict_is_the_forward_pass_of_normalised_images(model):
    x = (X - model.preprocess.mean.astype(np.float64)) * model.preprocess.scale
    params = {name: array.astype(np.float64) for name, array in model.params.items()}
    for node in TINY.nodes:
        own = {
            name.split(".")[1]: array for name, array in params.items() if name.startswith(f"{node.name}.")
        }
        if "Conv2D" in str(node.layer):
            x = convolved(x, own["weight"], node.layer.padding) + own["bias"]
        elif "ReLU" in str(node.layer):
            x = np.maximum(x, 0)
        elif "MaxPool" in str(node.layer):
            x = x.reshape(len(x), 4, 2, 4, 2, -1).max((2, 4))
        elif "Flatten" in str(node.layer):
            x = x.reshape(len(x), -1)
        elif "Dense" in str(node.layer):
            x = x @ own["weight"] + own["bias"]
    scores = model.predict(X)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, x, atol=1e-4)


def convolved(x, weight, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, weight.shape[:2], axis=(1, 2))
    return np.einsum("npqcrs,rsck->npqk", patches, weight)


def test_predict_does_not_depend_on_threads_or_company(model):
    scores = model.predict(DIGITS.x_test)
    with dask.config.set({"daskconv.threads": 1}):
        assert (model.predict(DIGITS.x_test) == scores).all()
    np.testing.assert_allclose(model.predict(DIGITS.x_test[:1]), scores[:1], atol=1e-5)
    np.testing.assert_allclose(model.predict(DIGITS.x_test.astype(np.float64)), scores, atol=1e-5)


@pytest.mark.parametrize("chunks", [(50, 8, 8, 1), ((1, 99, 3, 127), 8, 8, 1), (230, 3, 5, 1)], ids=str)
def test_predict_on_dask_is_lazy_and_equals_numpy(model, chunks):
    x = counted(X, chunks)
    lazy = model.predict(x)
    assert isinstance(lazy, da.Array) and LOADED == []
    assert lazy.shape == (230, 10) and lazy.dtype == np.float32 and lazy.chunks[0] == x.chunks[0]
    np.testing.assert_allclose(lazy.compute(scheduler="threads"), model.predict(X), atol=1e-5)
    assert sorted(set(LOADED)) == np.cumsum([0, *x.chunks[0]])[:-1].tolist()
    LOADED.clear()
    np.testing.assert_allclose(lazy[:1].compute(), model.predict(X[:1]), atol=1e-5)
    assert [0] * (len(x.chunks[1]) * len(x.chunks[2])) == LOADED  # the first row of chunks only


def test_predict_takes_empty_chunks(model):
    x = da.concatenate([da.from_array(X[:10], 5), da.from_array(X, 50)[230:], da.from_array(X[10:20], 5)])
    x = da.Array(x.dask, x.name, x.chunks, x.dtype)
    np.testing.assert_allclose(model.predict(x).compute(), model.predict(X[:20]), atol=1e-5)


def test_predict_gives_whatever_shape_the_network_does():
    net = Sequential([Conv2D(3, 3)])
    maps = Model(net, net.init(0, (8, 8, 1)))
    assert maps.predict(X).shape == (230, 6, 6, 3)
    lazy = maps.predict(da.from_array(X, (60, 8, 8, 1)))
    assert lazy.shape == (230, 6, 6, 3)
    np.testing.assert_allclose(lazy.compute(), maps.predict(X), atol=1e-5)
    pixels = Model(Sequential([Flatten()]), {})
    assert (pixels.predict(X) == X.reshape(230, -1)).all()


def test_a_model_without_dense_layers_predicts_on_images_of_any_size():
    net = Sequential([Conv2D(3, 3), ReLU(), Conv2D(2, 3)])
    maps = fit(
        trainer(net, loss="mean_squared_error", metrics=[]), FLOATS, FLOATS[:, 2:-2, 2:-2, [0, 0]]
    ).model
    tall = np.concatenate([FLOATS, FLOATS[:, ::-1]], axis=1)
    found = maps.predict(tall)
    assert found.shape == (230, 12, 4, 2)
    np.testing.assert_allclose(found[:, :4], maps.predict(FLOATS), atol=1e-5)
    lazy = maps.predict(da.from_array(tall, (100, 5, 8, 1)))
    np.testing.assert_allclose(lazy.compute(), found, atol=1e-5)
    refuse(r"\(8, 8, 2\) need conv1.weight of shape", maps.predict, FLOATS[..., [0, 0]])


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (X[:, :6], r"Images of \(6, 8, 1\) need dense1.weight .*trained on \(8, 8, 1\): resize or crop"),
        (da.from_array(X[:, :6]), r"Images of \(6, 8, 1\) need dense1.weight of shape \(16, 10\)"),
        (X[0], r"looks at the whole image, .*: give images \(n, h, w, c\), or slide"),
        (X[:0], "images holds no images"),
        (X.astype(np.int64), "images is int64: convert images to uint8 or float32"),
    ],
    ids=["shape", "dask shape", "one image", "none", "int64"],
)
def test_other_images_are_refused(model, images, sentence):
    refuse(sentence, model.predict, images)


def test_a_pixel_that_is_not_finite_is_named(model):
    x = np.repeat(X, 8, axis=0).astype(np.float32)
    x[1500, 0, 0, 0] = np.nan
    refuse(r"images\[1500\] has pixels that are not finite", model.predict, x, error=DataError)


@pytest.mark.parametrize(
    "preprocess",
    [
        None,
        "unit",
    ],
)
def test_evaluate_counts_what_predict_says(model, preprocess):
    results = trainer(model, preprocess=preprocess).evaluate(X, Y)
    assert results["accuracy"] == (model.predict(X).argmax(1) == Y).mean()


def test_xarray_is_read_like_the_array_inside(model):
    xarray = pytest.importorskip("xarray")
    inside = xarray.DataArray(X, dims=list("nhwc"))
    assert (model.predict(inside) == model.predict(X)).all()


def test_xarray_over_dask_stays_lazy(model):
    xarray = pytest.importorskip("xarray")
    lazy = model.predict(xarray.DataArray(counted(X, (50, 8, 8, 1)), dims=list("nhwc")))
    assert LOADED == []
    np.testing.assert_allclose(np.asarray(lazy), model.predict(X), atol=1e-5)


def test_threads_that_share_a_block_change_no_bits():
    net = daskconv.zoo.resnet20()
    model = daskconv.Model(net, net.init(0, (32, 32, 3)), net.init_statistics((32, 32, 3)))
    x = np.random.default_rng(0).standard_normal((30, 32, 32, 3)).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        with dask.config.set({"daskconv.threads": threads}):
            results += [model.predict(x), model.predict(x[:3])]
    for whole, few in zip(results[::2], results[1::2]):
        np.testing.assert_array_equal(whole, results[0])
        np.testing.assert_array_equal(few, results[1])
