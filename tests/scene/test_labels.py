"""What an xarray.DataArray says of a scene is said of the result."""

import dask.array as da
import numpy as np
import pytest
import xarray

import daskconv
from daskconv import Conv2D, ConvTranspose2D, MaxPool2D
from scene.scenes import difference, model_of, mosaic, trained

SCENE = mosaic(64, 96, 2)
SAME = model_of(
    Conv2D(4, 5, padding=2), Conv2D(3, 1), shape=(64, 64, 2), class_names=("soil", "tree", "water")
)
HALVED = model_of(Conv2D(4, 3, padding=1), MaxPool2D(2), shape=(64, 64, 2))


def labelled(data, dims=("y", "x", "band")):
    sizes = dict(zip(dims, data.shape, strict=True))
    northings = 5_000_000.0 - 10 * np.arange(64)
    return xarray.DataArray(
        data,
        dims=dims,
        name="reflectance",
        attrs={"crs": "EPSG:32633"},
        coords={
            "y": ("y", northings, {"units": "m"}),
            "x": ("x", np.arange(96.0)),
            "band": ("band", ["red", "nir"][: sizes["band"]]),
            "spatial_ref": 0,
            "shade": (("y", "x"), np.ones((64, 96))),
        },
    )


@pytest.mark.parametrize("lazy", [False, True])
def test_dims_coordinates_and_attributes_are_kept(lazy):
    data = da.from_array(SCENE, chunks=(20, 30, 1)) if lazy else SCENE
    scene = labelled(data)
    found = SAME.predict(scene, tile=16, precision="exact")
    assert isinstance(found, xarray.DataArray)
    assert found.dims == ("y", "x", "band")
    assert (found.name, found.attrs) == (scene.name, scene.attrs)
    for name in ("y", "x", "spatial_ref", "shade"):
        xarray.testing.assert_identical(found[name].variable, scene[name].variable)
    assert found.band.values.tolist() == ["soil", "tree", "water"]
    assert isinstance(found.data, da.Array if lazy else np.ndarray)
    assert difference(found.values, SAME.predict(SCENE[None], precision="exact")[0]) < 1e-6


def test_dims_tell_the_axes_whatever_their_order():
    expected = SAME.predict(labelled(SCENE), precision="exact")
    for order in (("band", "y", "x"), ("x", "y", "band")):
        found = SAME.predict(labelled(SCENE).transpose(*order), precision="exact")
        assert found.dims == order
        assert difference(found.transpose(*expected.dims).values, expected.values) < 1e-6


def test_stacks_of_scenes_go_by_their_dims():
    stack = np.stack([SCENE, SCENE[::-1]]).transpose(3, 0, 1, 2)
    scene = xarray.DataArray(stack, dims=("band", "time", "y", "x"), coords={"time": [2019, 2020]})
    found = SAME.predict(scene, precision="exact")
    assert found.dims == scene.dims
    assert found.time.values.tolist() == [2019, 2020]
    images = np.ascontiguousarray(stack.transpose(1, 2, 3, 0))
    expected = SAME.predict(images, precision="exact").transpose(3, 0, 1, 2)
    assert difference(found.values, expected) < 1e-6


def test_images_for_a_classifier_stay_images():
    model = trained(daskconv.zoo.lenet(), (8, 8, 1), input_shape=(8, 8, 1))
    images = xarray.DataArray(mosaic(64, 8).reshape(8, 8, 8, 1), dims=("n", "y", "x", "c"))
    assert difference(model.predict(images), model.predict(images.values)) == 0


def test_a_coarser_map_lies_at_the_centres_of_what_it_sees():
    found = HALVED.predict(labelled(SCENE))
    assert found.shape == (32, 48, 4)
    np.testing.assert_allclose(found.y, 5_000_000.0 - 10 * (2 * np.arange(32) + 0.5))
    np.testing.assert_allclose(found.x, 2 * np.arange(48) + 0.5)
    assert found.y.attrs == {"units": "m"}
    assert "shade" not in found.coords


def test_a_finer_map_lies_between_the_pixels():
    model = model_of(ConvTranspose2D(1, 2, stride=2), shape=(64, 64, 2))
    found = model.predict(labelled(SCENE))
    np.testing.assert_allclose(found.x, np.arange(192) / 2 - 0.25)


def test_windows_lie_at_their_centres():
    model = trained(daskconv.zoo.lenet(), (8, 8, 2), input_shape=(8, 8, 2))
    found = model.predict(labelled(SCENE), stride=4)
    np.testing.assert_allclose(found.x, 3.5 + 4 * np.arange(23))
