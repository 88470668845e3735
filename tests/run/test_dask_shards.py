"""Split Programs as tasks of a cluster."""

import os
import signal

import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskconv import (
    SGD,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    ReLU,
    Sequential,
    Trainer,
    plans,
)

NETWORK = Sequential(
    [
        Conv2D(8, 3, padding=1),
        BatchNorm(),
        ReLU(),
        MaxPool2D(2),
        Dropout(0.25),
        Flatten(),
        Dense(16),
        ReLU(),
        Dense(4),
    ]
)
PLANS = [
    plans.model(4),
    plans.hybrid(4),
    plans.hybrid(4, slices=2),
    plans.spatial(h=2, n=2),
    plans.data(4, synchronize=True),
]


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((19, 8, 9, 3)).astype(np.float32), rng.integers(0, 4, 19)


def trained(plan, transport, client=None, callbacks=(), epochs=1, accumulate=1):
    x, y = data()
    options = {"transport": transport, "client": client, "accumulate": accumulate, "threads": 1}
    trainer = Trainer(NETWORK, plan=plan, optimizer=SGD(0.05, momentum=0.9), **options)
    trainer.fit(
        x, y, epochs=epochs, batch_size=7, validation_data=(x, y), callbacks=callbacks, progress=False
    )
    return trainer


def assert_equal_bits(one, other):
    for kind in "params", "state":
        for name, array in getattr(one.model, kind).items():
            assert np.array_equal(array, getattr(other.model, kind)[name]), name
    assert one.history.epochs[-1]["val_loss"] == other.history.epochs[-1]["val_loss"]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name}-{plan.slices}")
def test_tasks_give_the_bits_of_one_process(client, plan):
    accumulate = 2 if plan in PLANS[2:4] else 1
    trainer = trained(plan, "dask", client, accumulate=accumulate)
    assert_equal_bits(trainer, trained(plan, "local", accumulate=accumulate))
    assert sorted(shard for shards in trainer.shard_owners.values() for shard in shards) == [0, 1, 2, 3]


def test_a_worker_that_dies_changes_nothing(client):
    expected = trained(PLANS[1], "local", epochs=2)

    def kill(trainer, logs):
        if trainer.position.epoch == 1:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            pids = client.run(os.getpid)
            os.kill(pids[min(workers)], signal.SIGKILL)

    assert_equal_bits(trained(PLANS[1], "dask", client, callbacks=[kill], epochs=2), expected)
