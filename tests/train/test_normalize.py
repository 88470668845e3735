"""Normalisations against NumPy."""

import dask.array as da
import numpy as np
import pytest

import daskconv
from daskconv import Normalize
from train.small import DIGITS, fit, refuse, trainer

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)


def in_numpy(kind, x):
    """Normalised images in float64."""
    x = x.astype(np.float64)
    if kind == "mean_image":
        return x - x.mean(0)
    if kind == "standardize":
        return (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    return x / 255


@pytest.mark.parametrize("kind", ["mean_image", "standardize", "unit"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("chunks", [None, (7, 6, 5, 3), ((20, 1, 29), 4, 5, 2)], ids=str)
def test_kinds_are_those_of_numpy(kind, dtype, chunks):
    x = COLOURS.astype(dtype)
    fitted = Normalize.of(kind, x if chunks is None else da.from_array(x, chunks))
    found = fitted(x)
    assert found.dtype == np.float32 and found.shape == x.shape
    np.testing.assert_allclose(found, in_numpy(kind, x), rtol=1e-5, atol=3e-5)
    shape = {"mean_image": (6, 5, 3), "standardize": (3,), "unit": (1,)}[kind]
    assert isinstance(fitted.mean, np.ndarray) and fitted.mean.shape == shape


def test_a_channel_without_contrast_becomes_0():
    x = np.full((4, 2, 2, 1), 7, np.uint8)
    assert (Normalize.standardize(x)(x) == 0).all()


def test_none_leaves_images_as_they_are():
    assert Normalize.of("none", COLOURS) is None and Normalize.of(None, COLOURS) is None
    fitted = Normalize.unit()
    assert Normalize.of(fitted, COLOURS) is fitted
    refuse(
        "normalisation is 'zca': choose one of mean_image, standardize, unit, none", Normalize.of, "zca", 0
    )


@pytest.mark.parametrize("kind", ["mean_image", "standardize", "unit"])
def test_training_fits_it_to_its_own_images_and_models_keep_it(kind, tmp_path):
    x, y = DIGITS.x_train[:100], DIGITS.y_train[:100]
    model = fit(trainer(preprocess=kind), x, y).model
    expected = Normalize.of(kind, x)
    model.save(tmp_path / "model")
    for fitted in (model.preprocess, daskconv.load(tmp_path / "model").preprocess):
        assert fitted.mean.tobytes() == expected.mean.tobytes()
        assert fitted.scale.tobytes() == expected.scale.tobytes()
    bare = daskconv.Model(model.network, model.params)
    np.testing.assert_array_equal(model.predict(DIGITS.x_test), bare.predict(expected(DIGITS.x_test)))
