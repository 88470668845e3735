"""What is priced is what a Program moves: bytes and layouts against the lists of transfers, and MPI's traffic."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

import daskconv
from daskconv import plans
from daskconv.cost.machine import load_machine
from daskconv.cost.price import price
from daskconv.cost.trace import Case, trace
from daskconv.plan import buckets
from daskconv.plan.allreduce import meetings, traffic
from daskconv.plan.boxes import Edges, edges_of, shape_of
from daskconv.plan.describe import added_bytes, exchanged_bytes
from daskconv.plan.exchange import Exchange

PLANS = {
    "data synchronized": plans.data(4, synchronize=True),
    "model 2": plans.model(2),
    "model 2x4": plans.model(4, n=2),
    "hybrid 3": plans.hybrid(3),
    "hybrid 8": plans.hybrid(8),
    "hybrid 3 in slices": plans.hybrid(3, slices=4),
    "spatial 2x2": plans.spatial(h=2, w=2),
    "spatial n=2, h=2": plans.spatial(h=2, n=2),
}
NETS = {"cifar10_quick": 32, "alexnet": 224, "googlenet": 96, "resnet20": 32, "squeezenet": 64, "unet": 32}


def most_made(exchange: Exchange, edges: Edges) -> int:
    """The bytes of all parts of the largest result."""
    item, at = np.dtype(exchange.dtype or "float32").itemsize, edges if exchange.batched else None
    return item * max(
        sum(prod(shape_of(part.box, at)) for part in parts) for parts in exchange.incoming.values()
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("plan", PLANS)
def test_bytes_and_layouts_of_split_plans(name: str, plan: str) -> None:
    shape, net = (NETS[name], NETS[name], 3), daskconv.zoo.build(name, 10)
    program = daskconv.Trainer(net, plan=PLANS[plan]).program(shape, 13)
    split, case = program.split, Case(net, shape, 13)
    assert split is not None
    steps = trace(case, PLANS[plan])
    assert {step.node.name: step.layout for step in steps[:-1]} == dict(split.layouts)
    owners = range(split.shards)
    want = exchanged_bytes(split, owners, edges_of(13, split.shards)[-1])
    got = sum(moved.total for step in steps for moved in (*step.moves, *step.back))
    assert got == pytest.approx(want, rel=0.01)
    most = sum(
        most_made(exchange, edges_of(13, split.shards))
        for stage in split.stages
        for exchange in stage.exchanges
        if exchange.kind != "slice"
    )
    assert sum(moved.made for step in steps for moved in step.moves) == pytest.approx(most, rel=0.01)
    added = added_bytes(split, owners, program.vector_shapes)
    cost = price(case, PLANS[plan], load_machine("environment_a"))
    numbers = 48 * sum(1 for _ in traffic(meetings(tuple(owners)), 1, whole=True))
    assert cost.sent == pytest.approx(want + added + numbers, rel=0.01)


@pytest.mark.parametrize(
    ("shards", "workers", "hosts"), [(2, 2, [0, 1]), (4, 2, [0, 0]), (4, 4, [0, 0, 1, 1]), (8, 8, [0] * 8)]
)
@pytest.mark.parametrize("name", ["cifar10_quick", "resnet20", "alexnet"])
def test_bytes_of_data_plans(name: str, shards: int, workers: int, hosts: list[int]) -> None:
    shape, net = (NETS[name], NETS[name], 3), daskconv.zoo.build(name, 10)
    program = daskconv.Trainer(net, shards=shards).program(shape, 16)
    want = sum(nbytes for _, nbytes in buckets.traffic(program, hosts).values())
    together = hosts.count(0) if len(set(hosts)) > 1 else 1
    cost = price(
        Case(net, shape, 16), plans.data(shards), load_machine("environment_a"), workers, together=together
    )
    assert cost.sent == pytest.approx(want, rel=0.01)


def test_shards_that_stand_for_all_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from daskconv.cost import cuts

    net = daskconv.zoo.build("alexnet", 1000)
    case = Case(net, (224, 224, 3), 96)

    def total(plan: Any) -> float:
        return sum(moved.total for step in trace(case, plan) for moved in (*step.moves, *step.back))

    plan = plans.hybrid(48)
    some = total(plan)
    monkeypatch.setattr(cuts.Grid, "samples", property(lambda grid: range(grid.shards)))
    from daskconv.cost import trace as module

    module._part.cache_clear()
    try:
        assert some == pytest.approx(total(plan), rel=0.01)
    finally:
        module._part.cache_clear()


@pytest.mark.parametrize("most", [None, 1_000_000, 64_000_000])
@pytest.mark.parametrize("name", ["alexnet", "resnet20"])
def test_buckets_are_those_of_the_program(name: str, most: int | None) -> None:
    shape, net = (NETS[name], NETS[name], 3), daskconv.zoo.build(name, 10)
    plan = replace(plans.data(2), bucket_bytes=most)
    program = daskconv.Trainer(net, plan=plan).program(shape, 8)
    assert program.split is None
    want = [4 * (stop - start) for start, stop in buckets.buckets(program)]
    got = [
        bucket.nbytes for bucket in price(Case(net, shape, 8), plan, load_machine("environment_a")).buckets
    ]
    assert sum(got) == pytest.approx(sum(want))
    assert abs(len(got) - len(want)) <= 2 and max(got) == pytest.approx(max(want), rel=0.2)
