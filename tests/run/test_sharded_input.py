"""Sharded input on a real cluster: each worker reads the chunks of its own shards, and a small description travels."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

sys.path.insert(0, str(Path(__file__).parents[1] / "mpi"))
import recipes

from daskconv.datasets import from_zarr, image_folder

zarr = pytest.importorskip("zarr")

IMAGES, SIDE, CHUNK = 960, 16, 20


def images():
    generator = np.random.default_rng(5)
    x = generator.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    return x, generator.integers(0, 10, IMAGES)


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("zarr") / "d.zarr"
    x, y = images()
    group = zarr.open_group(path, mode="w")
    group.create_array("x_train", data=x, chunks=(CHUNK, SIDE, SIDE, 3))
    group.create_array("y_train", data=y)
    return path


def train(x, y, client=None, **options):
    where = {"transport": "dask", "client": client} if client else {"transport": "local", "threads": 1}
    trained = recipes.trainer(**where, **options)
    trained.fit(x, y, epochs=1, batch_size=80, progress=False)
    return trained


def test_each_worker_reads_its_half_of_a_zarr_store(client, store):
    data = from_zarr(store)
    trained = train(data.x_train, data.y_train, client)
    read = list(trained.input_read.values())
    assert len(read) == 2
    # A run of chunks for each of four shards; one chunk more where a run begins within it.
    assert all(IMAGES / 2 <= each.images <= IMAGES / 2 + 4 * CHUNK for each in read)
    assert all(each.nbytes == each.images * SIDE * SIDE * 3 for each in read)
    assert recipes.digest(trained) == recipes.digest(train(data.x_train, data.y_train))


def test_each_rank_reads_its_half_of_a_zarr_store(mpiexec, store):
    script = Path(recipes.__file__).with_name("reads.py")
    command = [mpiexec, "-n", "4", sys.executable, str(script), str(store)]
    job = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert job.returncode == 0, job.stderr
    row = json.loads(job.stdout.splitlines()[-1])
    assert len(row["read"]) == 2
    for read, nbytes in row["read"]:
        assert IMAGES / 2 <= read <= IMAGES / 2 + 4 * CHUNK and nbytes == read * SIDE * SIDE * 3
    data = from_zarr(store)
    assert row["digest"] == recipes.digest(train(data.x_train, data.y_train))


def test_what_travels_to_workers_is_a_description(store):
    from daskconv.train.data import ArrayData

    data = from_zarr(store)
    assert len(pickle.dumps(ArrayData(data.x_train, data.y_train).images)) < 60_000 < images()[0].nbytes / 10


def test_workers_decode_their_own_image_files(client, tmp_path):
    from PIL import Image

    x, _ = images()
    for number in range(256):
        folder = tmp_path / str(number % 2)
        folder.mkdir(exist_ok=True)
        Image.fromarray(x[number]).save(folder / f"{number:03}.png")
    data = image_folder(tmp_path)
    trained = train(data.x_train, data.y_train, client)
    assert recipes.digest(trained) == recipes.digest(train(data.x_train, data.y_train))
    assert sum(each.images for each in trained.input_read.values()) <= 256 + 3 * 64
    assert all(0 < each.images < 256 for each in trained.input_read.values())


def test_memory_of_the_driver_is_scattered_once_and_rows_are_read(client):
    x, y = images()
    trained = train(x, y, client)
    assert sorted(each.images for each in trained.input_read.values()) == [IMAGES / 2, IMAGES / 2]


def test_workers_keep_no_thread(client, store):
    data = from_zarr(store)
    train(data.x_train, data.y_train, client)
    assert not any(client.run(reader_threads).values())


def reader_threads():
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name == "daskconv-ahead"]
