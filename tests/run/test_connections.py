"""Arrays over Dask's own connections between workers: what comes, what is counted, and what fails."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from distributed import Client, LocalCluster, get_worker

from daskconv import plans
from daskconv.errors import WorkerError
from daskconv.plan import buckets
from daskconv.run import connections
from daskconv.run.dask import DaskTransport
from daskconv.run.losses import run_on
from daskconv.run.peers import DaskWorld

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mpi"))
import recipes

from run.swaps import WAYS, failing, random_swaps, side_by_side


@pytest.fixture(scope="module", params=["processes", pytest.param("threads", marks=pytest.mark.slow)])
def client(request):
    """Three workers: in processes of their own, and in this one, where nothing is copied on its way."""
    options = {"n_workers": 3, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with (
        LocalCluster(processes=request.param == "processes", **options) as cluster,
        Client(cluster) as client,
    ):
        client.upload_file(str(Path(__file__).with_name("swaps.py")))
        yield client


def on_all(client, function, *args, patience=30.0):
    """Run a function of (this worker, what carries) on all workers at once."""
    workers = tuple(sorted(client.scheduler_info(n_workers=-1)["workers"]))
    world, run = DaskWorld(workers), f"test-{time.time_ns()}"
    opened = [client.submit(entered, world, run, workers=[w], pure=False) for w in workers]
    client.gather(opened)
    futures = [
        client.submit(called, run, workers, function, patience, *args, workers=[w], pure=False)
        for w in workers
    ]
    return run, futures


_entered = {}


def entered(world, run):
    _entered[run, get_worker().address] = world.enter(run)


def called(run, workers, function, patience, *args):
    peers = _entered[run, get_worker().address]
    return function(SimpleNamespace(rank=peers.rank, size=len(workers)), peers.carrier(patience), *args)


def swap(here, carrier):
    time.sleep(0.2 * here.rank)  # what comes too early waits
    with carrier:
        random_swaps(here, carrier)
        side_by_side(here, carrier)
    return dict(carrier.traffic.nbytes)


def test_what_is_sent_comes_in_order_and_is_counted(client):
    _, futures = on_all(client, swap)
    sent = client.gather(futures)
    assert [set(each) for each in sent] == [{1, 2}, {0, 2}, {0, 1}]


def fail(here, carrier, how):
    return failing(here, how, carrier)


@pytest.mark.parametrize("how", WAYS)
def test_a_worker_that_fails_is_heard_by_all(client, how):
    _, futures = on_all(client, fail, how)
    said = client.gather(futures)
    gave_up = "ValueError: no sum today" if how == "in an exchange" else "RuntimeError: rank 2 gave up"
    if how == "two":
        assert all(" of 3 failed: RuntimeError: rank " in each for each in said)
    else:
        assert all(each.startswith(f"Worker 2 of 3 failed: {gave_up}") for each in said)


def wait_for_what_never_comes(here, carrier):
    with carrier:
        carrier.swap((), [((here.rank + 1) % here.size, 0, np.zeros(5))] if here.rank else ())
        time.sleep(0 if here.rank else 3)
    return "done"


def test_what_never_comes_is_waited_for_with_patience(client):
    started = time.monotonic()
    _, futures = on_all(client, wait_for_what_never_comes, patience=0.5)
    with pytest.raises(
        WorkerError, match=r"has not ended in 0.5 s \(daskconv.deadline\): worker .* is missing"
    ):
        client.gather(futures)
    assert time.monotonic() - started < 20


def test_the_driver_says_that_a_worker_is_gone(client):
    run, futures = on_all(client, wait_for_what_never_comes)
    time.sleep(0.3)
    run_on(client, connections.lose, run, "1 of 3 workers is gone.")
    with pytest.raises(WorkerError, match="1 of 3 workers is gone"):
        client.gather(futures)


def test_a_step_sends_what_its_program_says(client, monkeypatch):
    sent = {}

    def close(self):
        sent.update(self.traffic())
        closed(self)

    closed = DaskTransport.close
    monkeypatch.setattr(DaskTransport, "close", close)
    x, y, _, _ = recipes.digits()
    trained = recipes.trainer(transport="dask", client=client, plan=plans.data(4))
    trained.fit(x[:200], y[:200], epochs=1, batch_size=40, progress=False)
    program = trained.program((8, 8, 1), 40)
    predicted = buckets.traffic(program, [0] * 3)
    assert sent == {pair: (5 * count, 5 * size) for pair, (count, size) in predicted.items()}
