"""Simulated steps: what they have to obey, and how quick they are."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from daskconv import plans
from daskconv.cost.machine import load_machine
from daskconv.cost.price import Bucket, price
from daskconv.cost.scaling import scaled
from daskconv.cost.simulate import check_fits, simulate
from daskconv.cost.trace import Case
from daskconv.errors import InputError
from daskconv.nn import zoo
from daskconv.plan.plans import Plan
from daskconv.plan.tasks import CHAIN

A = load_machine("environment_a")
ALEXNET = Case(zoo.build("alexnet", 1000), (224, 224, 3), 256)
CALM = replace(A, jitter=0.0)


def test_a_step_is_its_parts() -> None:
    run = simulate(price(ALEXNET, plans.hybrid(16), A))
    assert run.seconds == pytest.approx(run.compute + run.exchange + run.straggler)
    assert run.exchange > 0 and run.straggler > 0
    kinds = {event.kind for event in run.events}
    assert kinds == {"compute", "exchange", "gradients"}
    assert all(event.start < event.stop <= run.seconds for event in run.events)


def test_one_worker_has_nobody_to_wait_for() -> None:
    run = simulate(price(ALEXNET, plans.data(1), CALM))
    assert (run.exchange, run.straggler, run.cost.sent) == (0, 0, 0)
    assert run.seconds == pytest.approx(run.cost.compute + run.cost.update + A.step)


def test_gradients_travel_behind_the_backward_pass_of_data_plans_alone() -> None:
    fast = replace(CALM, across_bandwidth=1e15, message=0.0, across_latency=0.0)
    assert simulate(price(ALEXNET, plans.data(16), fast)).exchange == pytest.approx(0, abs=1e-6)
    run = simulate(price(ALEXNET, plans.data(16), CALM))
    buckets = sum(run.cost.bucket_seconds(bucket) for bucket in run.cost.buckets)
    assert 0 < run.exchange < buckets


def test_no_step_is_shorter_than_its_network_or_its_work() -> None:
    for shards in (2, 8, 64):
        run = simulate(price(ALEXNET, plans.data(shards), CALM))
        assert run.seconds >= sum(map(run.cost.bucket_seconds, run.cost.buckets))
        assert run.seconds >= run.cost.compute


def test_more_jitter_costs_more_and_more_so_on_more_workers() -> None:
    def lost(jitter: float, shards: int) -> float:
        run = simulate(
            price(ALEXNET, plans.data(shards), replace(A, jitter=jitter, across_bandwidth=1e15, message=0.0))
        )
        return run.straggler / run.compute

    assert lost(0.0, 16) == 0 < lost(0.02, 16) < lost(0.1, 16)
    assert lost(0.05, 2) < lost(0.05, 64)


def test_the_more_often_workers_wait_for_each_other_the_more_they_wait() -> None:
    def lost(plan: Plan) -> float:
        run = simulate(price(ALEXNET, plan, replace(A, jitter=0.05)), steps=40)
        return run.straggler / run.compute

    assert 1.2 * lost(plans.data(16)) < lost(plans.hybrid(16)) < lost(plans.model(16))


@pytest.mark.parametrize("plan", [plans.data(4), plans.model(4)])
def test_the_delays_of_layers_add_up_to_the_jitter_of_a_step(plan: Plan) -> None:
    cost = price(ALEXNET, plan, replace(A, jitter=0.1), workers=1)
    seconds = [simulate(cost, steps=1, seed=seed).seconds for seed in range(400)]
    assert np.std(seconds) / cost.compute == pytest.approx(0.1, rel=0.15)


def test_on_dask_messages_take_longer_and_the_scheduler_counts_once_a_chain() -> None:
    mpi, dask = (simulate(price(ALEXNET, plans.data(16), CALM, transport=name)) for name in ("mpi", "dask"))
    assert dask.seconds > mpi.seconds
    late = simulate(price(ALEXNET, plans.data(16), replace(CALM, task=1.0), transport="dask"))
    assert late.seconds - dask.seconds == pytest.approx((1 - CALM.task) * 16 / CHAIN)


def test_hundreds_of_workers_send_few_messages_and_no_more_bytes() -> None:
    apart, hosts = Bucket(16e6, 864, 0), Bucket(16e6, 864, 0, 27)
    assert apart.messages < 40 and hosts.messages < 60
    assert hosts.sent == pytest.approx(apart.sent, rel=0.01)
    assert apart.sent == pytest.approx(2 * 863 / 864 * 16e6)


def test_ten_thousand_workers_take_under_ten_seconds() -> None:
    for name, plan in (("resnet152", plans.data(10_000)), ("vgg16", plans.hybrid(10_000))):
        case = Case(zoo.build(name, 1000), (224, 224, 3), 20_000)
        started = perf_counter()
        run = simulate(price(case, plan, A))
        assert perf_counter() - started < 10 and np.isfinite(run.seconds)


def test_weak_scaling_of_what_sends_little_is_linear() -> None:
    net = zoo.build("resnet50", 1000)
    quick = replace(CALM, message=1e-6)
    rows = scaled(net, (224, 224, 3), 32, quick, [1, 64], ["data"], weak=True)
    assert [row["batch"] for row in rows] == [32, 2048]
    assert rows[1]["efficiency_%"] > 95


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 3}, "4 shards on 3 workers"),
        ({"transport": "tcp"}, "transport is 'tcp'"),
    ],
)
def test_what_cannot_be_priced_is_refused(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        price(ALEXNET, plans.data(4), A, **options)


def test_a_plan_that_does_not_fit_says_how_many_workers_would_do() -> None:
    small = replace(A, memory=1.5e9)
    run = simulate(price(ALEXNET, plans.data(2), small))
    with pytest.raises(
        InputError, match=r"takes 2.1 GB of each, and one of environment A has 1.5 GB: 8 workers would do"
    ):
        check_fits(run)
    check_fits(simulate(price(ALEXNET, plans.data(8), small)))
    with pytest.raises(InputError, match="no number of workers makes it fit"):
        check_fits(simulate(price(ALEXNET, plans.data(2), replace(A, memory=1e8))))


def test_what_hosts_add_up_inside_does_not_use_their_link() -> None:
    """A ring over hosts carries each bucket twice over each host's link, however many workers a host has."""
    machine = replace(
        load_machine("horovod"), message=0.0, across_latency=0.0, inside_latency=0.0, inside_bandwidth=1e15
    )
    cost = price(ALEXNET, plans.data(32), machine)
    for bucket in cost.buckets:
        assert cost.bucket_seconds(bucket) == pytest.approx(
            2 * 7 / 8 * bucket.nbytes / machine.across_bandwidth, rel=1e-4
        )
