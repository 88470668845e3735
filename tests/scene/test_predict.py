"""Tiled predictions are those of the whole image at every pixel."""

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskconv
from daskconv import (
    LRN,
    Add,
    AvgPool2D,
    BatchNorm,
    Concat,
    Conv2D,
    ConvTranspose2D,
    MaxPool2D,
    Network,
    Node,
    Pad,
    PReLU,
    ReLU,
    Resize,
    Slice,
    Softmax,
    Upsample,
)
from daskconv.errors import InputError
from scene.scenes import difference, model_of, mosaic, trained

TOLERANCE = {"exact": 1e-6, "fast": 1e-4}

PLAIN = [Conv2D(8, 3, padding=1), ReLU(), Conv2D(8, 5, padding="same"), BatchNorm(), ReLU(), Conv2D(3, 3)]
STRIDED = [
    Conv2D(8, 7, stride=2, padding=3),
    ReLU(),
    MaxPool2D(3, 2, padding=1),
    Conv2D(4, 3, stride=3, padding=1),
]
CEILED = [Conv2D(4, 3), MaxPool2D(3, 2, ceil_mode=True), Conv2D(4, 2, stride=2), AvgPool2D(3, 2, padding=1)]
DILATED = [Conv2D(8, 3, padding=d, dilation=d) for d in (1, 2, 4, 8)] + [PReLU(), Conv2D(2, 1), Softmax()]
DECODER = [
    Conv2D(6, 4, stride=2, padding=1),
    BatchNorm(),
    ReLU(),
    ConvTranspose2D(4, 4, stride=2, padding=1),
    Upsample(2),
    Conv2D(2, 3, padding=1),
]
BORDERS = [
    Pad(((3, 3), (2, 4), (0, 0)), mode="reflect"),
    Conv2D(4, 5),
    Pad(((1, 1), (1, 1), (0, 0)), mode="edge"),
]
BORDERS += [Conv2D(3, 3), LRN(), Slice((2, 0, 0), (None, -3, None), (1, 2, 1)), Conv2D(2, 3, padding=1)]
SMOOTH = [Conv2D(4, 3, padding=1), Resize(scale=(2.0, 2.0), mode="linear"), Resize(scale=0.5, mode="cubic")]
NETWORKS = {
    "stride 1": PLAIN,
    "strided": STRIDED,
    "ceil mode": CEILED,
    "dilated": DILATED,
    "decoder": DECODER,
    "borders": BORDERS,
    "resized": SMOOTH,
}


def whole(model, scene, **options):
    """The prediction of the scene as one image, which is tested elsewhere."""
    return model.predict(scene[None], **options)[0]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_are_the_whole(name, precision):
    model, scene = model_of(*NETWORKS[name], shape=(64, 64, 2)), mosaic(150, 212, 2)
    expected = whole(model, scene, precision=precision)
    for tile in (32, (48, 80), 1000):
        found = model.predict(scene, tile=tile, precision=precision)
        assert difference(found, expected) < TOLERANCE[precision], tile


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("tile", [32, 40, (64, 200)])
def test_a_u_net_aligns(tile, precision):
    model, scene = trained(daskconv.zoo.unet(3, width=6, depth=3), (64, 64, 1)), mosaic(160, 240)
    found = model.predict(scene, tile=tile, precision=precision)
    assert difference(found, whole(model, scene, precision=precision)) < TOLERANCE[precision]


@pytest.mark.parametrize("name", ["resnet20", "googlenet"])
def test_the_zoo_without_its_head_gives_maps(name):
    """Residual sums of strided branches, and towers side by side that pad in different ways."""
    net = daskconv.zoo.build(name, 10)
    cut = next(i for i, node in enumerate(net.nodes) if "Global" in str(node.layer) or node.name == "pool5")
    model = trained(Network(net.nodes[:cut]), (64, 64, 3))
    scene = mosaic(190, 168, 3)
    found = model.predict(scene, tile=64, precision="exact")
    assert difference(found, whole(model, scene, precision="exact")) < 1e-6


LAYERS = st.one_of(
    st.builds(
        Conv2D,
        filters=st.integers(1, 5),
        kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
        padding=st.one_of(
            st.sampled_from(["same", "valid"]),
            st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
        ),
        dilation=st.integers(1, 3),
    ),
    st.builds(MaxPool2D, kernel=st.integers(2, 3), stride=st.integers(1, 3), ceil_mode=st.booleans()),
    st.builds(
        AvgPool2D,
        kernel=st.just(3),
        stride=st.integers(1, 2),
        padding=st.integers(0, 1),
        ceil_mode=st.booleans(),
    ),
    st.builds(
        ConvTranspose2D,
        filters=st.integers(1, 4),
        kernel=st.integers(1, 4),
        stride=st.integers(1, 3),
        padding=st.just(0),
    ),
    st.sampled_from([ReLU(), BatchNorm(), Upsample(2), Pad(((2, 1), (0, 3), (0, 0)), mode="reflect")]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    layers=st.lists(LAYERS, min_size=1, max_size=4),
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    tile=st.tuples(st.integers(1, 60), st.integers(8, 60)),
    batch=st.one_of(st.just("auto"), st.integers(1, 5)),
)
def test_drawn_networks(layers, size, tile, batch):
    scene = mosaic(*size)
    try:
        model = model_of(*layers, shape=scene.shape)
        expected = whole(model, scene, precision="exact")
    except InputError:
        return
    found = model.predict(scene, tile=tile, batch=batch, precision="exact")
    assert difference(found, expected) < 1e-6


def test_branches_of_one_network_reach_differently_far():
    net = Network(
        (
            Node("near", Conv2D(3, 1)),
            Node("far", Conv2D(3, 3, padding=6, dilation=6)),
            Node("strided", Conv2D(4, 3, stride=2, padding=1)),
            Node("back", Upsample(2), ("strided",)),
            Node("join", Concat(), ("near", "back")),
            Node("mix", Conv2D(3, 3, padding=1), ("join",)),
            Node("sum", Add(), ("mix", "far")),
        )
    )
    model, scene = trained(net, (32, 32, 1)), mosaic(120, 88)
    found = model.predict(scene, tile=24, precision="exact")
    assert difference(found, whole(model, scene, precision="exact")) < 1e-6


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_tiles_are_batched_inside_a_chunk(batch):
    model, scene = model_of(*PLAIN), mosaic(160, 240)
    found = model.predict(da.from_array(scene), tile=32, batch=batch, precision="exact")
    assert found.chunks[0][0] * found.chunks[1][0] >= batch * 32 * 32
    assert difference(found.compute(), whole(model, scene, precision="exact")) < 1e-6


def test_axes_in_any_order(tmp_path):
    model, scene = model_of(*PLAIN, shape=(64, 64, 2)), mosaic(80, 96, 2)
    expected = whole(model, scene, precision="exact")
    first = np.ascontiguousarray(scene.transpose(2, 0, 1))
    stack = np.stack([scene, scene[::-1]])
    options = {"tile": 40, "precision": "exact"}
    assert difference(model.predict(first, **options), expected.transpose(2, 0, 1)) < 1e-6
    assert difference(model.predict(stack, **options), model.predict(stack, precision="exact")) < 1e-6
    planes = np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
    found = model.predict(da.from_array(planes, chunks=(1, 1, 33, 20)), **options)
    assert difference(found[0].compute(), expected.transpose(2, 0, 1)) < 1e-6


def test_a_grey_scene_needs_no_channel_axis():
    model, scene = model_of(*PLAIN), mosaic(80, 96)
    assert (
        difference(model.predict(scene[..., 0], precision="exact"), whole(model, scene, precision="exact"))
        < 1e-6
    )


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "float16", "float32", "float64"])
def test_kinds_of_pixels(kind):
    model, scene = model_of(*PLAIN), mosaic(60, 50)
    found = model.predict(scene.astype(kind), tile=24, precision="exact")
    assert difference(found, whole(model, scene, precision="exact")) < 1e-6


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr(tmp_path, zarr_format):
    model, scene = model_of(*PLAIN), mosaic(120, 90)
    stored = zarr.create_array(
        tmp_path / "scene.zarr", data=scene, chunks=(50, 64, 1), zarr_format=zarr_format
    )
    expected = whole(model, scene, precision="exact")
    found = model.predict(stored, tile=32, precision="exact")
    assert isinstance(found, da.Array)
    assert difference(found.compute(), expected) < 1e-6
    found = model.predict(da.from_zarr(stored), tile=32, precision="exact")
    assert difference(found.compute(), expected) < 1e-6


@pytest.mark.parametrize("chunks", [(7, 11, 1), ((1, 59, 20), (90,), 2), (80, 90, 2)])
def test_chunks_of_any_size(chunks):
    model, scene = model_of(*PLAIN, shape=(64, 64, 2)), mosaic(80, 90, 2)
    found = model.predict(da.from_array(scene, chunks=chunks), tile=32, precision="exact")
    assert difference(found.compute(), whole(model, scene, precision="exact")) < 1e-6


@pytest.mark.parametrize("stride", [8, (5, 3)])
def test_a_classifier_slides(stride):
    net = daskconv.zoo.lenet()
    model, scene = daskconv.Model(net, net.init(0, (8, 8, 1)), input_shape=(8, 8, 1)), mosaic(72, 104)
    down, across = (stride, stride) if isinstance(stride, int) else stride
    windows = np.lib.stride_tricks.sliding_window_view(scene[..., 0], (8, 8))[::down, ::across, ..., None]
    expected = np.stack([model.predict(np.ascontiguousarray(row), precision="exact") for row in windows])
    assert difference(model.predict(scene, stride=stride, precision="exact"), expected) < 1e-6
    lazily = model.predict(da.from_array(scene, chunks=30), stride=stride, batch=5, precision="exact")
    assert difference(lazily.compute(), expected) < 1e-6


def test_a_lazy_result_reads_no_more_than_it_needs():
    model, scene, read = model_of(*PLAIN), mosaic(1200, 1500), []

    def pixels(block_info=None):
        place = block_info[None]
        read.append(place["chunk-location"])
        return scene[tuple(slice(*side) for side in place["array-location"])]

    lazy = da.map_blocks(
        pixels, chunks=((100,) * 12, (100,) * 15, (1,)), dtype=scene.dtype, meta=scene[:0, :0, :0]
    )
    found = model.predict(lazy, tile=128, batch=1, precision="exact")
    assert not read
    part = found[5:20, 1300:1330]
    expected = whole(model, scene, precision="exact")[5:20, 1300:1330]
    assert difference(part.compute(), expected) < 1e-6
    assert len(read) < 12 * 15
