"""Faults of a Dask cluster: workers die, hang or never come, the scheduler dies. Bits stay, or a sentence says why."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

import daskconv
from daskconv import Checkpoints, Dense, Flatten, Layer, Sequential, events
from daskconv.errors import WorkerError
from daskconv.run.losses import worker_addresses
from daskconv.train.checkpoints import folder
from daskconv.train.files import load_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "mpi"))
import recipes


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    cluster.scale(4)
    with Client(cluster) as client:
        client.wait_for_workers(4, timeout=60)
        yield client


def test_workers_are_there_whatever_else_a_client_asks(cluster):
    """Dask's client asks every 2 s what its scheduler is, without its workers, and keeps that in the same place."""
    with (
        dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}),
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(4, timeout=60)
        assert {len(worker_addresses(client)) for _ in range(300)} == {4}


def leave():
    """End this process in a moment, without a word."""
    threading.Timer(0.05, os._exit, (3,)).start()


class Killer:
    """Ends a worker in some way now and then, in a thread beside the training, for so many times.

    It is a callback of that training, too: where three die before a step is done, training gives up and says so, which
    another test is for. So of two ends only the second may follow on the first before training has come further.
    """

    def __init__(self, client, times, pause, ways=("SIGKILL",), seed=0):
        self.client, self.times, self.pause, self.ways = client, times, pause, ways
        self.draw, self.done, self.epochs, self.end = random.Random(seed), [], 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join(timeout=60)

    def __call__(self, trainer, logs):
        self.epochs += 1
        if len(self.done) >= self.times:
            trainer.stop()

    def run(self):
        while len(self.done) < self.times:
            if len(self.done) % 2 == 0:
                self.wait_for_epochs(2)
            if self.end.wait(self.draw.uniform(0.5, 1.5) * self.pause):
                break
            way = self.draw.choice(self.ways)
            try:
                getattr(self, way)()
            except (OSError, KeyError, IndexError, TimeoutError):
                continue  # it was gone already
            self.done.append(way)

    def wait_for_epochs(self, count):
        """Wait until so many have ended: a first one may have been all but over."""
        until = self.epochs + count
        while self.epochs < until and not self.end.wait(0.1):
            pass

    def one(self):
        """A worker, once all four are there: a Nanny gives up on one that dies while it starts."""
        for look in range(1, 10_000):
            if len(worker_addresses(self.client, none_is_fine=True)) >= 4:
                break
            if look % 100 == 0:
                self.client.cluster.scale(4)  # a worker for a Nanny that gave up
            if self.end.wait(0.1):
                raise KeyError
        self.end.wait(1.0)
        return self.draw.choice(sorted(worker_addresses(self.client, none_is_fine=True)))

    def SIGKILL(self):
        worker = self.one()
        os.kill(self.client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)

    def exit(self):
        self.client.run(leave, workers=[self.one()])

    def graceful(self):
        self.client.retire_workers([self.one()], close_workers=True)


def disturbed(client, times, pause, **options):
    """Train until workers were ended so many times, each time with all of them there."""
    x, y, _, _ = recipes.digits()
    trained = recipes.trainer(transport="dask", client=client)
    with Killer(client, times, pause, **options) as killer:
        trained.fit(x, y, epochs=100000, batch_size=20, progress=False, callbacks=[killer])
    return trained, killer


def undisturbed(epochs):
    x, y, _, _ = recipes.digits()
    trained = recipes.trainer(transport="local")
    trained.fit(x, y, epochs=epochs, batch_size=20, progress=False)
    return recipes.digest(trained)


@pytest.mark.slow
def test_a_worker_killed_twenty_times_costs_no_bit(client):
    trained, killer = disturbed(client, 20, 1.0)
    assert killer.done == ["SIGKILL"] * 20
    assert recipes.digest(trained) == undisturbed(trained.position.epoch)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_other_workers_and_on_other_transports(cluster, client, tmp_path):
    """From each of the checkpoints of a run on 4 workers, to the same bits on 2 and on threads, and back."""
    x, y, xv, yv = recipes.digits()
    fit = {"epochs": 2, "validation_data": (xv, yv), "progress": False}
    spec = Checkpoints(tmp_path, steps=7, keep=9)
    dask_run, local = {"transport": "dask", "client": client}, {"transport": "local", "threads": 2}
    whole = recipes.trainer_with_all(**dask_run)
    whole.fit(x, y, **fit, checkpoint=spec)
    expected = recipes.digest(whole), recipes.digest(whole, averaged=True)
    steps = [folder.steps_of(name) for name in folder.names(tmp_path)]
    assert len(steps) >= 3 and sum(step % 7 == 0 for step in steps) >= 2
    cluster.scale(2)
    while len(worker_addresses(client)) > 2:
        time.sleep(0.1)
    for name, options in zip(folder.names(tmp_path)[1:], (dask_run, local), strict=False):
        resumed = recipes.trainer_with_all(**options).resume(folder.read(tmp_path / name))
        resumed.fit(x, y, **fit)
        assert (recipes.digest(resumed), recipes.digest(resumed, averaged=True)) == expected
        assert resumed.history["val_accuracy"] == whole.history["val_accuracy"]


@dataclass(frozen=True)
class Ends(Layer):
    """Ends, or stops, the process that has a certain image."""

    image: int
    how: str = "kill"

    def forward(self, params: Any, x: Any, context: Any) -> Any:
        if context.training and self.image in context.images:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(8)
        return x, None

    def backward(self, params: Any, saved: Any, dy: Any, context: Any) -> Any:
        return dy, {}


def ends(client, image, how, **options):
    x, y, _, _ = recipes.digits()
    net = Sequential([Flatten(), Ends(image, how), Dense(10)])
    trained = daskconv.Trainer(net, preprocess="unit", transport="dask", client=client)
    trained.fit(x, y, progress=False, **options)


def place_of(image):
    """The step and the shard that compute an image."""
    from daskconv.layout import even_parts
    from daskconv.train.data import shuffled

    at = shuffled(len(recipes.digits()[0]), 0, 0).tolist().index(image)
    step, inside = divmod(at, 100)
    parts = even_parts(100, 4)
    return step, next(shard for shard, (start, stop) in enumerate(parts) if start <= inside < stop)


@pytest.mark.slow
def test_what_ends_its_worker_three_times_is_named(client, tmp_path):
    image = next(image for image in range(1000) if place_of(image)[0] == 3)
    step, shard = place_of(image)
    with pytest.raises(WorkerError) as caught:
        ends(client, image, "kill", checkpoint=Checkpoints(tmp_path, steps=2))
    assert str(caught.value).startswith(
        f"The worker that computes shard {shard} died 3 times in step {step + 1} of epoch 1. "
    )
    assert "\n" not in str(caught.value)
    # The step before is the last good one.
    assert load_checkpoint(tmp_path).state.steps == step


def test_a_step_that_hangs_ends_at_its_deadline(client):
    image = next(image for image in range(1000) if place_of(image)[0] == 1)
    started = time.monotonic()
    # The workers that wait for it and the driver that looks at it both count to 3, and either may be the first.
    waiting = r"has not ended in 3 s \(daskconv.deadline\): worker tcp://.* is missing"
    looking = r"Worker tcp://\S+ has got no further in 3 s \(daskconv.deadline\): it hangs"
    with (
        dask.config.set({"daskconv.deadline": 3}),
        pytest.raises(WorkerError, match=f"{waiting}|{looking}"),
    ):
        ends(client, image, "hang")
    assert time.monotonic() - started < 25


def test_a_single_worker_that_hangs_is_named():
    image = next(image for image in range(1000) if place_of(image)[0] == 1)
    with one_worker() as client, pytest.raises(WorkerError, match=r"r tcp://\S+ has got no further in 3 s"):
        ends(client, image, "hang")


def hold_memory(dask_worker):
    """Hold so much that Dask pauses this worker, and not so much that it ends it."""
    global held
    limit = dask_worker.memory_manager.memory_limit
    held = b"x" * int(0.87 * limit - dask_worker.monitor.proc.memory_info().rss)


@pytest.mark.slow
def test_a_paused_worker_is_named_with_its_memory():
    with one_worker(memory_limit=1_200_000_000) as client:
        client.run(hold_memory)
        with pytest.raises(
            WorkerError,
            match=r"taken no task in 3 s .*: Dask has paused it, since it holds .* of its 1,144 MiB",
        ):
            ends(client, -1, "hang")


@contextmanager
def one_worker(**options):
    """A client of a single worker, which has 3 s for whatever it does."""
    options |= {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with (
        dask.config.set({"daskconv.deadline": 3, "daskconv.wait-workers": 3}),
        LocalCluster(**options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_the_last_worker_dies_and_none_returns(tmp_path):
    x, y, _, _ = recipes.digits()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        gone = []

        def leave(event):
            if event.epoch >= 1 and not gone:
                gone.append(event.step)
                cluster.scale(0)

        started = time.monotonic()
        with (
            dask.config.set({"daskconv.wait-workers": 2}),
            events.listening(leave),
            pytest.raises(WorkerError, match="no workers and none came in 2 s"),
        ):
            recipes.trainer(client=client).fit(
                x, y, epochs=1000, progress=False, checkpoint=Checkpoints(tmp_path, steps=5)
            )
        assert time.monotonic() - started < 40
        checkpoint = load_checkpoint(tmp_path)
        assert checkpoint.state.steps >= 5
        with (
            dask.config.set({"daskconv.wait-workers": 1}),
            pytest.raises(WorkerError, match="no workers and none came in 1 s"),
            client.as_current(),
            daskconv.start(),
        ):
            pass
    epochs = checkpoint.state.position.epoch + 1
    resumed = recipes.trainer(transport="local").resume(tmp_path)
    resumed.fit(x, y, epochs=epochs, progress=False)
    whole = recipes.trainer(transport="local")
    whole.fit(x, y, epochs=epochs, progress=False)
    assert recipes.digest(resumed) == recipes.digest(whole)


SCRIPT = """
import sys
from distributed import Client
import recipes, daskconv

def main():
    with Client(sys.argv[1]) as client:
        client.wait_for_workers(1)
        x, y, _, _ = recipes.digits()
        print("begins", flush=True)
        recipes.trainer(client=client).fit(
            x, y, epochs=100000, progress=False, checkpoint=daskconv.Checkpoints(sys.argv[2], steps=5)
        )

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_script_in_time(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parents[1] / "mpi"), *sys.path])
    file, options = tmp_path / "scheduler.json", {"env": os.environ | {"PYTHONPATH": path}}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    dask_command = [sys.executable, "-m", "dask"]
    started = []
    try:
        scheduler = [
            *dask_command,
            "scheduler",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(file),
        ]
        started.append(subprocess.Popen(scheduler, **quiet))
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        worker = [*dask_command, "worker", address, "--nthreads", "1", "--no-dashboard"]
        started.append(subprocess.Popen(worker, **quiet))
        run = [sys.executable, str(script), address, str(tmp_path / "runs")]
        job = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        started.append(job)
        while not (tmp_path / "runs").exists() or not os.listdir(tmp_path / "runs"):
            assert job.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        began = time.monotonic()
        started[0].send_signal(signal.SIGKILL)
        _, errors = job.communicate(timeout=60)
        assert job.returncode == 1 and time.monotonic() - began < 60
        assert "WorkerError: The connection to the scheduler is lost" in errors or "does not answer" in errors
        assert load_checkpoint(tmp_path / "runs").state.steps > 0
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_ten_minutes_of_lost_workers(tmp_path):
    """Workers leave in three ways every 15 s or so; training goes on, and nobody's memory grows."""
    x, y, _, _ = recipes.digits()
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        cluster.adapt(minimum=4, maximum=4, interval="1s")
        memory = []

        def scheduler_memory(dask_scheduler=None):
            gc.collect()
            return dask_scheduler.proc.memory_info().rss, len(dask_scheduler.tasks)

        end = time.monotonic() + float(os.environ.get("DASKCONV_SOAK", 600))
        trained = recipes.trainer(transport="dask", client=client)
        with Killer(client, 1000, 15.0, ways=("SIGKILL", "exit", "graceful")) as killer:
            while time.monotonic() < end:
                trained.fit(
                    x,
                    y,
                    epochs=trained.position.epoch + 20,
                    progress=False,
                    callbacks=[killer],
                    checkpoint=Checkpoints(tmp_path, steps=100, keep=2),
                )
                memory.append(client.run_on_scheduler(scheduler_memory))
        assert len(killer.done) >= (600 / 15) * 0.5 or "DASKCONV_SOAK" in os.environ
    whole = recipes.trainer(transport="local")
    whole.fit(x, y, epochs=trained.position.epoch, progress=False)
    print(killer.done, memory, trained.position.epoch)
    assert recipes.digest(trained) == recipes.digest(whole)
    # The scheduler of a LocalCluster lives in the driver's process.
    third = len(memory) // 3
    assert memory[-1][0] - memory[third][0] < 60e6
    assert max(tasks for _, tasks in memory) < 500
