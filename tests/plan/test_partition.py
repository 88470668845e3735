"""Plans and how they are applied."""

import numpy as np
import pytest

from daskconv import SGD, Conv2D, Dense, Flatten, Layout, MaxPool2D, Sequential, plans, zoo
from daskconv.nn.blocks import block_images
from daskconv.nn.losses import softmax_cross_entropy
from daskconv.plan.partition import partition
from daskconv.plan.plans import DEFAULT_SHARDS, Plan, data, resolve_plan
from reference import refuse

CIFAR = (32, 32, 3)


def apply(network, shape, plan, **options):
    options = {
        "batch_size": 100,
        "method": "auto",
        "loss": softmax_cross_entropy,
        "metrics": (),
        "optimizer": SGD(0.1),
        "trainable": None,
        "seed": 1,
    } | options
    return partition(network, plan, input_shape=shape, **options)


def test_the_data_plan_splits_the_images():
    assert plans.data is data
    assert data(6) == Plan("data", Layout(n=6)) and data().layout.shards == DEFAULT_SHARDS
    assert resolve_plan("data", None) == data(DEFAULT_SHARDS) and resolve_plan("data", 7) == data(7)
    assert resolve_plan("hybrid, slices=8", 2) == plans.hybrid(2, slices=8)
    assert resolve_plan("hybrid,slices=shard", None) == plans.hybrid(DEFAULT_SHARDS, slices="shard")
    assert resolve_plan(data(3), None) == resolve_plan(data(3), 3) == data(3)


@pytest.mark.parametrize("shards", [0, -1, 2.0, "4"])
def test_shards_are_an_int_of_at_least_1(shards):
    refuse(f"shards is {shards!r}: give an int of at least 1", data, shards)
    refuse(f"shards is {shards!r}", resolve_plan, "data", shards)


def test_plans_that_do_not_exist_or_contradict_are_refused():
    refuse("plan is 'pipeline': give data, model, hybrid, auto", resolve_plan, "pipeline", None)
    refuse("plan is 'k=2': give data, model, hybrid, auto", resolve_plan, "k=2", None)
    refuse("plan is 'data, slices=2': of the names only hybrid", resolve_plan, "data, slices=2", None)
    refuse("plan is 'hybrid, k=2': of the names only hybrid", resolve_plan, "hybrid, k=2", None)
    refuse("slices is 'many': give", resolve_plan, "hybrid, slices=many", None)
    refuse("h is 0: give an int of at least 1", resolve_plan, "h=0", None)
    refuse("plan is 3: give a name, a Plan", resolve_plan, 3, None)
    refuse("plan is {'conv1': 2}: give a Layout for each layer", resolve_plan, {"conv1": 2}, None)
    refuse("shards is 2 but the plan data has 3: give one of them", resolve_plan, data(3), 2)


def test_a_program_holds_what_was_chosen():
    program = apply(zoo.cifar10_quick(), CIFAR, data(2), method={"conv1": "pipelined"}, trainable="dense*")
    assert program.shards == 2 and program.batch_size == 100 and program.input_shape == CIFAR
    assert set(program.methods) == {"conv1", "conv2", "conv3"}
    assert set(program.methods["conv1"].values()) == {"pipelined"}
    assert program.trainable == ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")
    assert program.elements == 1024 * 64 + 64 + 64 * 10 + 10
    assert program.seed == 1 and program.dtype == "float32"
    assert np.isclose(program.rate(0, 0, 10), 0.1)


def test_what_a_network_refuses_the_partition_refuses():
    net = zoo.lenet()
    refuse("method is 'fourier'", apply, net, (8, 8, 1), data(), method="fourier")
    refuse("trainable='x*' matches no parameter", apply, net, (8, 8, 1), data(), trainable=["x*"])
    refuse("Layer 'conv1'", apply, net, (8, 8), data())


def test_blocks_are_cut_by_shape_and_method_alone():
    quick = zoo.cifar10_quick()
    methods = quick.choose_methods(CIFAR, "auto")
    size = block_images(quick, CIFAR, methods)
    assert 25 <= size <= 33, "the sizes that were measured to be fast"
    assert size == apply(quick, CIFAR, data(1)).block_images == apply(quick, CIFAR, data(64)).block_images
    tiny = Sequential([Flatten(), Dense(2)])
    assert block_images(tiny, (2, 2, 1), {}) == 256
    huge = Sequential([Conv2D(64, 5, padding=2)])
    assert block_images(huge, (256, 256, 64), huge.choose_methods((256, 256, 64), "auto")) == 1


def test_a_pipelined_network_takes_a_shard_whole():
    quick = zoo.cifar10_quick()
    program = apply(quick, CIFAR, data(2), method={"conv2": "pipelined"})
    assert len(program.blocks_of(np.arange(10_000))) == 1


def test_many_parameters_make_larger_blocks():
    features = [Conv2D(64, 3), Conv2D(64, 3), MaxPool2D(8), Flatten()]
    wide, narrow = Sequential([*features, Dense(2000)]), Sequential([*features, Dense(4)])
    shape = (64, 64, 8)
    flops = 3 * sum(wide.flops(shape).values())
    parameters = sum(np.prod(size) for size in wide.weight_shapes(shape).values())
    size = block_images(wide, shape, {})
    assert size * flops >= 4000 * parameters > (size - 1) * flops
    assert block_images(narrow, shape, {}) * 3 * sum(narrow.flops(shape).values()) >= 2_000_000_000
