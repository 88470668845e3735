"""Plans: which Layout each layer gets, what they cost, and what they refuse."""

import pickle

import numpy as np
import pytest

import daskconv
from daskconv import (
    LARS,
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layout,
    MaxPool2D,
    Network,
    Node,
    ReLU,
    Resize,
    Sequential,
    plans,
    zoo,
)
from daskconv.cost.machine import load_machine
from daskconv.cost.price import price
from daskconv.cost.trace import Case
from daskconv.plan.describe import added_bytes, exchanged_bytes
from daskconv.plan.plans import PLANS, resolve_plan
from plan.drawn import program_of
from reference import refuse

IMAGE, MACHINE = (32, 32, 3), load_machine("environment_a")
HEAD = Sequential([Conv2D(32, 3, padding=1), ReLU(), MaxPool2D(4), Flatten(), Dense(4096), ReLU(), Dense(10)])


def split_of(network, plan, shape=IMAGE, batch=16):
    return program_of(network, plan, shape, batch, "float32").split


def kinds(split):
    return [exchange.kind for stage in split.stages for exchange in stage.exchanges]


def test_plans_have_names():
    assert {name: PLANS[name](3).name for name in PLANS} == {name: name for name in PLANS}
    assert resolve_plan("hybrid", 8) == plans.hybrid(8) and plans.spatial(h=2, w=3, n=2).shards == 12
    assert plans.model(2, n=3).shards == 6
    assert resolve_plan("n=2, h=2", None) == plans.spatial(h=2, n=2)
    assert resolve_plan("w=2,h=3", 6) == plans.spatial(h=3, w=2) and resolve_plan("n=3", None).shards == 3


def test_data_parallel_programs_run_whole_networks_unless_statistics_are_shared():
    network = Sequential([Conv2D(4, 3), BatchNorm(), Flatten(), Dense(2)])
    assert split_of(network, plans.data(4)) is None
    assert "all-gather" in kinds(split_of(network, plans.data(4, synchronize=True)))


def test_the_hybrid_plan_splits_dense_layers_only():
    layouts = split_of(zoo.alexnet(), plans.hybrid(4), (224, 224, 3)).layouts
    assert layouts["conv1"] == layouts["maxpool3"] == layouts["flatten1"] == Layout(n=4)
    assert {layouts[f"dense{i}"].shards for i in (1, 2, 3)} == {4}
    assert all(layouts[f"dense{i}"].n == 1 for i in (1, 2, 3))


def test_the_hybrid_plan_is_cut_anywhere():
    layouts = split_of(zoo.alexnet(), plans.hybrid(4, split_at="conv4"), (224, 224, 3)).layouts
    assert layouts["conv3"] == Layout(n=4) and layouts["conv4"].n == 1 and layouts["conv4"].shards == 4


def test_no_shard_holds_the_whole_of_what_is_split():
    program = program_of(HEAD, plans.hybrid(4), IMAGE, 16)
    whole = program.network.weight_shapes(IMAGE)
    for pieces in program.split.pieces:
        for name in "dense1.weight", "dense2.weight":
            size = np.prod([stop - start for start, stop in pieces[name].box])
            assert size * 4 == np.prod(whole[name])
        assert pieces["conv1.weight"].box == tuple((0, size) for size in whole["conv1.weight"])


@pytest.mark.parametrize("workers", [2, 4])
def test_hybrid_sends_less_than_data_where_dense_layers_are_wide(workers):
    owners = [shard * workers // 4 for shard in range(4)]
    hybrid = split_of(HEAD, plans.hybrid(4))
    sent = exchanged_bytes(hybrid, owners, 16) + added_bytes(hybrid, owners, hybrid.holders)
    gradients = sum(np.prod(shape) for shape in HEAD.weight_shapes(IMAGE).values()) * 4
    assert sent < 2 * (workers - 1) * gradients / 4, "less than a ring would send of the gradients"


def test_spatial_plans_exchange_halos():
    found = kinds(split_of(zoo.unet(2, width=4), plans.spatial(h=2), (32, 32, 1)))
    assert found.count("halo") > 4 and "all-to-all" not in found[:4]


def test_layers_that_cannot_be_split_run_whole():
    network = Sequential(
        [Conv2D(4, 3, padding=1), Resize(scale=2), Conv2D(4, 3, padding=1), Flatten(), Dense(2)]
    )
    layouts = split_of(network, plans.spatial(h=2)).layouts
    assert layouts["resize1"] == Layout() and layouts["conv1"] == layouts["conv2"] == Layout(h=2)


def test_layouts_are_given_by_layer_and_pattern():
    plan = resolve_plan({"conv*": Layout(n=2, h=2), "dense1": Layout(c=4), "dense2": Layout(k=2)}, None)
    layouts = split_of(zoo.cifar10_quick(), plan).layouts
    assert layouts["conv1"] == layouts["conv3"] == layouts["relu1"] == Layout(n=2, h=2)
    assert layouts["dense1"] == Layout(c=4) and layouts["dense2"] == Layout(k=2)


def test_grouped_convolutions_are_split_between_groups():
    network = Sequential([Conv2D(8, 1), Conv2D(8, 3, padding=1, groups=8), Flatten(), Dense(4)])
    split = split_of(network, plans.model(4))
    assert split.layouts["conv2"] == Layout(k=4)
    layer = split.stages[0].runs[1].nodes[1].layer
    assert (layer.filters, layer.groups) == (2, 2)
    odd = Sequential([Conv2D(6, 1), Conv2D(6, 3, padding=1, groups=2), Flatten(), Dense(4)])
    assert split_of(odd, plans.model(4)).layouts["conv2"] == Layout(), "4 parts would cut the groups of 3"


def test_programs_are_plain_data():
    one, other = (program_of(HEAD, plans.hybrid(4), IMAGE, 16) for _ in range(2))
    assert one == other and one.split == other.split
    travelled = pickle.loads(pickle.dumps(one))
    assert travelled == one and travelled.split == one.split
    assert "all-reduce" in str(one) and "reduce-scatter" in str(one) and "dense2" in str(one)


def test_the_table_has_a_row_for_each_layer_and_adds_up():
    table = plans.hybrid(4).describe(HEAD, IMAGE, 16)
    rows = {line.split()[0]: line.split() for line in table.splitlines()[2:]}
    assert list(rows) == ["layer", *(node.name for node in HEAD.nodes), "loss", "gradients", "total"]
    assert rows["conv1"][1] == "n=4" and rows["dense1"][1] in ("k=4", "c=4")
    split = split_of(HEAD, plans.hybrid(4))
    total = exchanged_bytes(split, range(4), 16) + added_bytes(split, range(4), split.holders)
    assert float(rows["total"][1]) == round(total / 1e6, 3)


@pytest.mark.parametrize(("slices", "share"), [(8, 1 / 4), ("shard", 1 / 2), (2, 1)])
def test_slices_take_the_memory_of_two_and_send_the_same(slices, share):
    plan = plans.hybrid(4, slices=slices)
    table = plan.describe(HEAD, IMAGE, 64)
    assert table.splitlines()[0].endswith(f"from dense1 on in {4 if slices == 'shard' else slices} slices")
    rows, whole = (
        {line.split()[0]: line.split() for line in each.splitlines()[2:]}
        for each in (table, plans.hybrid(4).describe(HEAD, IMAGE, 64))
    )
    for name in "dense1", "dense2":
        assert float(rows[name][-1]) == pytest.approx(share * float(whole[name][-1]), rel=0.02)
    assert [row[3:5] for row in rows.values()][:-1] == [row[3:5] for row in whole.values()][:-1]
    program = program_of(HEAD, plan, IMAGE, 64)
    assert "each slice  dense1" in str(program) and "each shard  conv1" in str(program)
    some, all_ = (price(Case(HEAD, IMAGE, 64), each, MACHINE) for each in (plan, plans.hybrid(4)))
    assert some.sent == all_.sent and some.memory <= all_.memory
    held, whole_held = (sum(layer.step.held for layer in cost.layers) for cost in (some, all_))
    assert held < whole_held or share == 1


def refused(match, plan, network=HEAD, shape=IMAGE, batch=16, **options):
    refuse(match, program_of, network, plan, shape, batch, "float32", **options)


def by_layer(**layouts):
    return resolve_plan(layouts, None)


def test_what_does_not_fit_is_refused():
    refused("The plan by layer names 'conv9', but the network has the layers", by_layer(conv9=Layout(n=2)))
    refused(
        "Conv2D with output (32, 32, 32) cannot be split along k as in Layout(k=64): it splits along n, h, w, k, c",
        by_layer(conv1=Layout(k=64)),
    )
    refused("Flatten with output (2048,) cannot be split along h", by_layer(flatten1=Layout(h=2)))
    refused("The plan spatial splits n into 32 parts but a batch has 16 images", plans.spatial(h=2, n=32))
    refused("split_at is 'conv9', but the network has", plans.hybrid(2, split_at="conv9"))
    grouped = Sequential([Conv2D(6, 1), Conv2D(6, 1, groups=2), Flatten(), Dense(2)])
    refused("Conv2D with output (32, 32, 6) cannot be split along k", by_layer(conv2=Layout(k=4)), grouped)
    padded = Sequential([Conv2D(4, 3, padding=4), Flatten(), Dense(2)])
    refused("see padding only: split h into fewer parts", plans.spatial(h=8), padded, (2, 8, 3))
    refused(
        "LARS follows the norms of whole layers, but the plan hybrid cuts dense1.weight",
        plans.hybrid(4),
        optimizer=LARS(0.1),
    )
    refused(
        "hybrid has 5 slices but a shard has 4 images of a batch", plans.hybrid(4, slices=5), accumulate=2
    )
    refuse("slices is 0", plans.hybrid, 4, slices=0)
    norm = Sequential([Conv2D(4, 3), Flatten(), Dense(8), BatchNorm(), Dense(2)])
    refused("'batchnorm1' would take its statistics from slices", plans.hybrid(2, slices=2), norm)
    program_of(norm, plans.hybrid(2, slices=2), IMAGE, 16, trainable=["dense*"])  # by its running statistics
    refuse("plan is {}: give a Layout for each layer", daskconv.Trainer, HEAD, plan={})


def test_a_network_under_a_plan_keeps_its_fusions():
    network = Network(
        (
            Node("conv1", Conv2D(4, 3, padding=1)),
            Node("relu1", ReLU(), ("conv1",)),
            Node("conv2", Conv2D(4, 3, padding=1), ("relu1",)),
            Node("sum", Add(), ("conv2", "relu1")),
            Node("relu2", ReLU(), ("sum",)),
            Node("pool", GlobalAvgPool2D(), ("relu2",)),
            Node("dense", Dense(3), ("pool",)),
        )
    )
    run = split_of(network, plans.spatial(h=2)).stages[1].runs[0]
    assert run.tails["conv2"].add == "relu1" and run.tails["conv2"].nodes == ("conv2", "sum", "relu2")
