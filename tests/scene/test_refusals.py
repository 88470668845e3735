"""What does not fit is refused before anything is computed, in one sentence."""

import re

import dask.array as da
import numpy as np
import pytest
import xarray
from distributed import Client, LocalCluster

import daskconv
from daskconv import Add, Conv2D, MaxPool2D, Network, Node, Outputs, Resize
from daskconv.errors import DataError
from reference import refuse
from scene.scenes import model_of, mosaic, trained

MODEL = model_of(Conv2D(4, 3, padding=1), Conv2D(2, 3), shape=(64, 64, 2))
SCENE = mosaic(64, 96, 2)
UNET = trained(daskconv.zoo.unet(2, width=4, depth=3), (64, 64, 1))
LENET = trained(daskconv.zoo.lenet(), (8, 8, 1), input_shape=(8, 8, 1))


def unknown(scene):
    lazy = da.from_array(scene, chunks=(32, 32, 2))
    return lazy[lazy[:, 0, 0] >= 0]


@pytest.mark.parametrize(
    ("scene", "match"),
    [
        (mosaic(64, 96, 3), "has 3 channels on its axis 2 but the network reads 2: select or stack them"),
        (
            SCENE[:2],
            "has 2 x 96 pixels, fewer than the 5 x 5 that the network looks at for an output: give a larger scene",
        ),
        (unknown(SCENE), "chunks of unknown size: call compute_chunk_sizes() first"),
        (SCENE.astype(np.int32), "int32, which float32 does not hold exactly: scale it"),
        (SCENE.astype(np.uint64), "uint64, which float32 does not hold exactly: scale it"),
        (SCENE.astype(np.complex64), "complex64, which"),
        (SCENE[:0], "shape (0, 96, 2): give (y, x, c), (c, y, x) or a stack"),
        (SCENE[None, None], "shape (1, 1, 64, 96, 2): give"),
        (xarray.DataArray(SCENE, dims=("lines", "x", "band")), "dims ('lines', 'x', 'band'): rename them"),
        (xarray.DataArray(SCENE, dims=("y", "h", "band")), "dims ('y', 'h', 'band'): rename them"),
    ],
)
def test_scenes(scene, match):
    refuse(match, MODEL.predict, scene, tile=32)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tile": 0}, "tile is 0: give an int or a pai"),
        ({"tile": "large"}, "tile is 'large': give an int or a pai"),
        ({"batch": 0}, "batch is 0: give an int of at least 1"),
        ({"overlap": 8}, 'overlap is 8: "exact" is the only one'),
        ({"stride": -1}, "stride is -1: give an int or a pai"),
        ({"stride": 4}, "set model.input_shape = (h, w, c)"),
        ({"precision": "double"}, "precision"),
    ],
)
def test_options(options, match):
    refuse(match, MODEL.predict, SCENE, **options)


@pytest.mark.parametrize(
    ("model", "scene", "options", "match"),
    [
        (LENET, mosaic(64, 64), {}, "slide its window over the scene with stride="),
        (
            LENET,
            mosaic(64, 64),
            {"stride": 8, "tile": 32},
            "tile is 32, but with stride= the tiles are the network's",
        ),
        (LENET, mosaic(6, 64), {"stride": 8}, "6 x 64 pixels, fewer than the network's window of 8 x 8"),
        (UNET, mosaic(60, 72), {}, "crop it to 56 x 72, or pad it"),
        (
            model_of(Conv2D(2, 3, padding=1), shape=(64, 64, 1), input_shape=(64, 64, 1)),
            mosaic(96, 96),
            {"stride": 8},
            "not one row of scores: leave stride out for a map",
        ),
    ],
)
def test_networks(model, scene, options, match):
    refuse(match, model.predict, scene, **options)


def test_networks_without_one_map():
    several = Network((Node("a", Conv2D(2, 3)), Node("b", Conv2D(3, 3)), Node("out", Outputs(), ("a", "b"))))
    refuse("several outputs: end it with the map", trained(several, (8, 8, 1)).predict, mosaic(64, 64))
    sized = model_of(Conv2D(2, 3), Resize(size=(20, 20)), shape=(8, 8, 1))
    refuse("looks at the whole image", sized.predict, mosaic(64, 64))
    mixed = Network(
        (
            Node("half", MaxPool2D(2), ("input",)),
            Node("cut", Conv2D(1, 33), ("input",)),
            Node("sum", Add(), ("half", "cut")),
        )
    )
    refuse("joins maps of different strides", trained(mixed, (64, 64, 1)).predict, mosaic(64, 64))


def test_a_mean_image_belongs_to_images():
    images = np.concatenate([mosaic(64, 64)[None]] * 2)
    model = daskconv.Model(MODEL.network, MODEL.params, preprocess=daskconv.Normalize.mean_image(images))
    refuse("subtracts a mean image", model.predict, SCENE)


def test_pixels_that_are_not_finite_are_named_when_they_are_read():
    scene = SCENE.astype(np.float32)
    scene[40, 50, 1] = np.nan
    lazily = MODEL.predict(da.from_array(scene, chunks=20), tile=16, batch=1)
    with pytest.raises(DataError, match=r"not finite in rows .* of image 0: remove or fill them"):
        lazily.compute()
    with pytest.raises(DataError, match="not finite"):
        MODEL.predict(scene)


def test_a_tile_that_does_not_fit_names_one_that_does():
    wide = model_of(Conv2D(2000, 3, padding=1), Conv2D(1, 1))
    large = da.zeros((60_000, 60_000, 1), chunks=(1000, 1000, 1), dtype=np.uint8)
    sentence = refuse("tile 50000 needs 20 TB a thread, which has ", wide.predict, large, tile=50_000)
    remedy = int(re.fullmatch(r".*: use tile=(\d+)\.", sentence)[1])
    assert wide.predict(large, tile=remedy).shape == large.shape
    assert wide.predict(large).shape == (60_000, 60_000, 1)


def test_the_memory_is_that_of_the_workers():
    large = da.zeros((20_000, 20_000, 2), chunks=(1000, 1000, 2), dtype=np.uint8)
    model = model_of(Conv2D(64, 3, padding=1), Conv2D(2, 3), shape=(64, 64, 2))
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="1GB", dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        refuse(
            "tile 4000 needs 4.7 GB a worker, which has 300 MB: use tile=768", model.predict, large, tile=4000
        )
        huge = da.zeros((20_000, 20_000, 2), chunks=(20_000, 20_000, 2), dtype=np.float32)
        refuse("give it more memory, the scene smaller chunks, or use a smaller batch", model.predict, huge)


def test_a_result_in_memory_has_to_fit():
    wide = model_of(Conv2D(1000, 1))
    scene = np.broadcast_to(np.uint8(1), (60_000, 60_000, 1))
    refuse("needs 14 TB in this process, which has", wide.predict, scene, tile=64)
