"""The page on clusters that daskconv did not start, and what is collected where nobody asked."""

import json
import os
import subprocess
import sys
import time
import urllib.request
import warnings
from contextlib import contextmanager

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

import daskconv
from daskconv.dashboard.plugin import NAME
from daskconv.events import Event, RunEnded, SceneBegan, TilesDone, WorkerStep, listening

DIGITS = daskconv.datasets.load("digits")
NET = daskconv.Sequential([daskconv.Conv2D(4, 3), daskconv.ReLU(), daskconv.Flatten(), daskconv.Dense(10)])


def train(epochs=2):
    trainer = daskconv.Trainer(NET, optimizer=daskconv.SGD(0.01))
    trainer.fit(DIGITS.x_train, DIGITS.y_train, epochs=epochs, progress=False)


def facts(dask_scheduler):
    record = dask_scheduler.plugins[NAME].record
    return {
        "network": record.began.network if record.began else "",
        "points": len(record.training.points),
        "validation": len(record.speed.points),
        "workers": sorted(record.workers),
        "ended": record.ended.how if record.ended else "",
        "done": len(record.scene.done) if record.scene else 0,
    }


def has_plugin(dask_scheduler):
    return NAME in dask_scheduler.plugins


def address(capsys):
    return capsys.readouterr().out.split("page: ")[1].strip()


def get(url):
    return urllib.request.urlopen(url, timeout=20).read().decode()


@contextmanager
def cluster(**options):
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"} | options
    with LocalCluster(**options) as made, Client(made) as client:
        yield client


def test_a_running_cluster_gets_the_page_behind_its_prefix(capsys):
    with cluster(processes=False, scheduler_kwargs={"http_prefix": "/behind/proxy"}) as client:
        with daskconv.start():
            page = address(capsys)
            assert page.endswith("/behind/proxy/daskconv")
            train()
        text = get(page)
        assert text != get(page)  # for somebody else
        assert 'href="daskconv"' in text and "individual-daskconv-loss" in text
        assert "Individual Daskconv Timeline" in json.loads(
            get(page.replace("/daskconv", "/individual-plots.json"))
        )
        assert "bokeh" in get(page.replace("/daskconv", "/individual-daskconv-memory"))
        found = client.run_on_scheduler(facts)
        assert found["points"] and found["workers"] == ["0"] and found["ended"] == "done"
        assert found["network"] == "network"


def test_nothing_is_collected_where_nobody_asked(capsys):
    seen = []
    with cluster(processes=False) as client, listening(seen.append, Event):
        with daskconv.start(dashboard=False):
            assert address(capsys).endswith("/status")
            train()
        assert not client.run_on_scheduler(has_plugin)
    assert seen and not any(isinstance(event, WorkerStep) for event in seen)
    assert not any(getattr(event, "layers", ()) for event in seen)


def test_a_scheduler_without_bokeh_trains_and_says_one_sentence(tmp_path, capsys):
    (tmp_path / "bokeh").mkdir()
    (tmp_path / "bokeh" / "__init__.py").write_text("raise ImportError('there is no Bokeh here')")
    file = tmp_path / "scheduler.json"
    environ = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    dask = [sys.executable, "-m", "distributed.cli"]
    commands = (
        [
            "dask_scheduler",
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(file),
        ],
        ["dask_worker", "--no-nanny", "--nthreads", "1", "--scheduler-file", str(file)],
    )
    processes = []
    try:
        for name, *options in commands:
            command = [*dask[:2], f"{dask[2]}.{name}", *options]
            processes.append(subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL))
            while not file.exists():
                assert processes[0].poll() is None
                time.sleep(0.1)
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(1, timeout=60)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                with daskconv.start():
                    train()
            sentences = [str(w.message) for w in said if "page" in str(w.message)]
            assert len(sentences) == 1 and "no Bokeh" in sentences[0]
            assert address(capsys).endswith("/status")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def scene():
    pixels = da.from_array(np.zeros((64, 96, 1), np.float32), chunks=(32, 32, 1))
    model = daskconv.Model(net := daskconv.Sequential([daskconv.Conv2D(2, 3, padding=1)]), net.init(0, (8, 8, 1)), {},
                           None, (), (8, 8, 1))  # fmt: skip
    return model.predict(pixels, tile=16)


def test_the_tiles_of_a_scene_are_seen_on_a_cluster(scene, tmp_path):
    with cluster(processes=False) as client, daskconv.start():
        daskconv.store(scene, tmp_path / "map.zarr", progress=False)
        found = client.run_on_scheduler(facts)
        assert found["ended"] == "done" and found["done"] == np.prod(scene.numblocks)


def test_the_tiles_of_a_scene_are_told_here_without_a_scheduler(scene, tmp_path):
    seen = []
    with dask_config(), listening(seen.append, Event):
        daskconv.store(scene, tmp_path / "map.zarr", progress=False)
    began, *tiles, ended = seen
    assert isinstance(began, SceneBegan) and isinstance(ended, RunEnded) and began.name == "map.zarr"
    places = [tuple(place) for event in tiles for place in event.places]
    assert all(isinstance(event, TilesDone) for event in tiles)
    assert sorted(places) == sorted(np.ndindex(scene.numblocks))


def dask_config():
    import dask

    return dask.config.set({"daskconv.dashboard.enabled": True})
