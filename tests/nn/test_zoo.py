"""The zoo's networks have the published sizes, fit their images and run forward and back."""

import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest

import daskconv
from daskconv import BatchNorm, Context, Conv2D, Dense, zoo
from daskconv.nn.passes import input_of
from reference import refuse

LARGE, SMALL = (224, 224, 3), (32, 32, 3)
# (images, parameters as published or as the reference implementations have them, convolutions)
PUBLISHED = {
    "alexnet": (LARGE, 61_100_840, 5),  # torchvision
    "cifar10_quick": (SMALL, 145_578, 3),  # Caffe
    "googlenet": (LARGE, 6_998_552, 57),  # Caffe's bvlc_googlenet without its auxiliary heads
    "lenet": (
        (28, 28, 1),
        1_256_080,
        2,
    ),  # Caffe's 431,080 with padded convolutions: 7x7x50 features instead of 4x4x50
    "mnist_cnn": ((28, 28, 1), 1_625_866, 2),
    "resnet18": (LARGE, 11_689_512, 20),  # torchvision
    "resnet20": (SMALL, 269_722, 19),  # He et al.: 0.27 million
    "resnet50": (LARGE, 25_557_032, 53),  # torchvision
    "resnet56": (SMALL, 853_018, 55),  # He et al.: 0.85 million
    "resnet152": (LARGE, 60_192_808, 155),  # torchvision
    "squeezenet": (LARGE, 1_235_496, 26),  # torchvision's squeezenet1_1
    "unet": ((64, 64, 1), 31_030_658, 19),  # Ronneberger et al., figure 1
    "vgg11": (LARGE, 132_863_336, 8),
    "vgg16": (LARGE, 138_357_544, 13),
    "vgg19": (LARGE, 143_667_240, 16),
}


def test_all_of_the_zoo_is_here():
    assert set(PUBLISHED) == set(zoo.ZOO) == set(zoo.PREPROCESS) and set(zoo.ZOO) < set(zoo.__all__)
    refuse("net is 'resnet1000': choose one of alexnet, cifar10_quick", zoo.build, "resnet1000", 10)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    shape, parameters, convolutions = PUBLISHED[name]
    net = zoo.ZOO[name]()
    assert sum(prod(size) for size in net.weight_shapes(shape).values()) == parameters
    assert sum(isinstance(node.layer, Conv2D) for node in net.nodes) == convolutions
    classes = net.output_shape(shape)[-1]
    assert zoo.build(name, 7).name == name and zoo.build(name, 7).output_shape(shape)[-1] == 7 != classes


def test_the_slides_20_spatial_convolutions_of_googlenet():
    sys.path.insert(0, str(Path(__file__).parents[2] / "workflows"))
    try:
        from _layers import GOOGLENET
    finally:
        sys.path.pop(0)
    net, shapes = zoo.googlenet(), zoo.googlenet().shapes(LARGE)
    found = []
    for node in net.nodes:
        if isinstance(node.layer, Conv2D) and node.layer.kernel > 1:
            h, w, c = input_of(node, shapes)
            assert h == w
            found.append(
                (f"googlenet/{node.name}", h, c, node.layer.filters, node.layer.kernel, node.layer.stride)
            )
    want = [(layer.name, layer.size, layer.c, layer.k, layer.kernel, layer.stride) for layer in GOOGLENET]
    assert len(want) == 20 and sorted(found) == sorted(want)
    # Pooling rounds up: 112, 56, 28, 14, 7.
    assert [shapes[name][0] for name in ("conv1", "pool1", "pool2", "pool3", "pool4", "pool5")][:5] == [
        112,
        56,
        28,
        14,
        7,
    ]


@pytest.mark.parametrize("name", ["squeezenet", "resnet20", "unet", "googlenet", "resnet18"])
def test_one_step_of_training_changes_every_parameter(name):
    shape = {"unet": (16, 16, 1), "resnet20": SMALL}.get(name, (64, 64, 3))
    net = zoo.unet(3, width=4, depth=2) if name == "unet" else zoo.build(name, 3)
    params, running = net.init(0, shape), net.init_statistics(shape)
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    methods = net.choose_methods(shape, "auto")
    context = Context(training=True, statistics=running, images=np.arange(2))
    y, saved = net.forward(params, x, context, methods)
    assert y.shape == (2, *net.output_shape(shape)) and np.isfinite(y).all() and y.std() > 0
    grads = net.backward(params, saved, np.sign(y) + y, context, methods, tuple(params))
    assert set(grads) == set(params)
    assert all(np.isfinite(g).all() and g.any() for g in grads.values())
    assert set(context.batch_statistics) == set(running)


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "vgg11", "squeezenet"])
def test_weights_start_so_that_signals_keep_their_size(name):
    shape = (64, 64, 3)
    net = zoo.build(name, 10)
    params = net.init(0, shape)
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    context = Context(training=name == "resnet18", statistics=net.init_statistics(shape))
    y, _ = net.forward(params, x, context, net.choose_methods(shape, "auto"))
    assert 0.05 < y.std() < 20


def test_resnets_have_a_batch_norm_after_each_convolution_and_no_biases():
    for name in ("resnet20", "resnet50"):
        net = zoo.ZOO[name]()
        kinds = [type(node.layer) for node in net.nodes]
        assert kinds.count(BatchNorm) == kinds.count(Conv2D) and kinds.count(Dense) == 1
        assert not any(node.layer.bias for node in net.nodes if isinstance(node.layer, Conv2D))


def test_option_a_shortcuts_are_every_second_pixel_and_zeros():
    net = zoo.resnet20()
    nodes = {node.name: node for node in net.nodes}
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 16))
    half = nodes["2/1/every_second"].layer.forward({}, x, Context())[0]
    wide = nodes["2/1/zeros"].layer.forward({}, half, Context())[0]
    assert wide.shape == (1, 3, 3, 32)
    np.testing.assert_array_equal(wide[..., 8:24], x[:, ::2, ::2])
    assert not wide[..., :8].any() and not wide[..., 24:].any()


def test_unet_keeps_what_a_pixel_is():
    net = zoo.unet(3, width=4, depth=3)
    assert net.output_shape((16, 24, 2)) == (16, 24, 3)
    refuse("Concat gets inputs of shapes", net.output_shape, (20, 24, 2))


def test_a_model_of_the_zoo_predicts():
    net = zoo.resnet20()
    model = daskconv.Model(net, net.init(0, SMALL), net.init_statistics(SMALL))
    assert model.predict(np.zeros((3, *SMALL), np.uint8)).shape == (3, 10)
