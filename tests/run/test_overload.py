"""Too much at once: data sets larger than memory, and more workers than anybody has on one host."""

import os
from pathlib import Path

import dask
import numpy as np
import pytest

import daskconv
from daskconv import Conv2D, Dense, Flatten, MaxPool2D, Sequential
from daskconv.run.losses import worker_addresses

zarr = pytest.importorskip("zarr", reason="zarr is not installed (extra: io)")
LIMIT = 1_000_000_000  # of which a process that has compiled takes half


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_four_times_the_memory_trains_and_predicts_below_the_limit(tmp_path):
    from distributed import Client, LocalCluster

    images = 4 * LIMIT // (192 * 192 * 3) // 64 * 64
    group = zarr.open_group(str(tmp_path / "d.zarr"), mode="w")
    x = group.create_array(
        "x_train", shape=(images, 192, 192, 3), chunks=(16, 192, 192, 3), dtype="uint8", compressors=None
    )
    block = np.random.default_rng(0).integers(1, 256, (64, 192, 192, 3), dtype=np.uint8)
    for start in range(0, images, 64):
        x[start : start + 64] = block
    group.create_array("y_train", data=np.arange(images) % 10)
    data = daskconv.datasets.load(tmp_path / "d.zarr")
    net = Sequential([Conv2D(8, 8, stride=8), MaxPool2D(4), Flatten(), Dense(10)])
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        before = client.run(os.getpid)
        trainer = daskconv.Trainer(net, preprocess="unit", optimizer=daskconv.SGD(1e-3))
        trainer.fit(data.x_train, data.y_train, batch_size=64, progress=False)
        scores = trainer.model.predict(data.x_train).compute()
        assert scores.shape == (images, 10) and np.isfinite(scores).all()
        assert client.run(os.getpid) == before, "no worker was restarted"
        assert max(client.run(peak).values()) < LIMIT


def tasks_and_memory(dask_scheduler=None):
    import psutil

    return len(dask_scheduler.tasks), psutil.Process().memory_info().rss


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_workers_leave_the_scheduler_as_it_was():
    """In 200 steps; these pass it by: for some of them, as for an evaluation, it has a task a worker."""
    from distributed import Client, LocalCluster

    x, y = np.zeros((4000, 2, 2, 1), np.float32), np.arange(4000) % 2
    # One process holds them all: each would take what that holds for its own, and Dask would pause it.
    options = {"processes": False, "memory_limit": None, "dashboard_address": ":0"}
    # Dask keeps the last so many of what it did, 1000 by each worker: with fewer this memory is full soon.
    logs = ("admin.low-level-log-length", "admin.log-length", "diagnostics.computations.max-history")
    looks = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "10s",
        **{f"distributed.{name}": 20 for name in logs},
    }
    with (
        dask.config.set(looks),
        LocalCluster(n_workers=200, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(200)
        before, seen = set(worker_addresses(client)), []

        def look(*_):
            seen.append(client.run_on_scheduler(tasks_and_memory))
            print(seen[-1], flush=True)

        trainer = daskconv.Trainer(Sequential([Flatten(), Dense(2)]), shards=200, preprocess="unit")
        trainer.fit(x, y, batch_size=200, epochs=10, progress=False, callbacks=[look])
        assert len(trainer.shard_owners) == 200
        for _ in range(5):
            trainer.evaluate(x, y)
            look()
        assert set(worker_addresses(client)) == before, "no worker was evicted"
    tasks, memory = zip(*seen[2:], strict=True)
    assert max(tasks) <= 2 * 200 + 100, "the tasks of some steps are forgotten by the next but one"
    assert memory[-1] - memory[0] < 0.1 * memory[0] + 50_000_000
