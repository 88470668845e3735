"""Sharded input on a real cluster: each worker reads the chunks of its own shards, and a small description travels."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

sys.path.insert(0, str(Path(__file__).parents[1] / "mpi"))
import recipes

from daskconv import events
from daskconv.datasets import from_npz, from_zarr, image_folder
from daskconv.errors import DataError
from daskconv.train.remote import OnCluster

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


def test_each_rank_reads_its_half_of_a_zarr_store_and_of_persisted_chunks(mpiexec, store):
    script = Path(recipes.__file__).with_name("reads.py")
    command = [mpiexec, "-n", "4", sys.executable, str(script), str(store)]
    job = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert job.returncode == 0, job.stderr
    rows = [json.loads(line) for line in job.stdout.splitlines() if line.startswith("{")]
    data = from_zarr(store)
    for row in rows:
        assert len(row["read"]) == 2
        for read, nbytes in row["read"]:
            assert IMAGES / 2 <= read <= IMAGES / 2 + 4 * CHUNK and nbytes == read * SIDE * SIDE * 3
        assert row["digest"] == recipes.digest(train(data.x_train, data.y_train))
    assert len(rows) == 2 and rows[0]["accuracy"] == rows[1]["accuracy"]


def test_a_zarr_array_is_read_by_its_chunks_wherever_it_comes_from(client, store):
    data, array = from_zarr(store), zarr.open_group(store, mode="r")["x_train"]
    trained = train(array, data.y_train, client)
    assert recipes.digest(trained) == recipes.digest(train(data.x_train, data.y_train))
    assert all(each.images < 0.7 * IMAGES for each in trained.input_read.values())
    in_memory = zarr.array(images()[0], chunks=(CHUNK, SIDE, SIDE, 3))
    assert recipes.digest(train(in_memory, data.y_train)) == recipes.digest(trained)


@pytest.mark.parametrize("version", [2, 3])
def test_a_missing_chunk_is_refused_before_training(tmp_path, version):
    x, y = images()
    array = zarr.create_array(tmp_path / "x", data=x, chunks=(CHUNK, SIDE, SIDE, 3), zarr_format=version)
    train(array, y)
    chunk = next(file for file in (tmp_path / "x").rglob("*") if file.is_file() and file.name[0] not in ".z")
    chunk.unlink()
    sentence = (
        f"^x lacks 1 of its {IMAGES // CHUNK} chunks, which would read as zeros: write it again, or give"
    )
    with pytest.raises(DataError, match=sentence):
        train(array, y)
    assert train(da.from_zarr(array), y).input_read


def test_workers_map_a_file_and_read_their_rows(client, tmp_path):
    x, y = images()
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y)
    data = from_npz(tmp_path / "d.npz", mapped=True)
    trained = train(data.x_train, data.y_train, client)
    assert recipes.digest(trained) == recipes.digest(train(x, y))
    assert sorted(each.images for each in trained.input_read.values()) == [IMAGES / 2, IMAGES / 2]


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


def test_persisted_chunks_stay_on_the_cluster(client, monkeypatch):
    x, y = images()
    lazy = da.from_array(x, (CHUNK, -1, -1, -1))
    expected = recipes.digest(train(lazy, y))
    persisted = client.persist(lazy)
    assert recipes.digest(train(persisted, y)) == expected, "the local transport fetches them chunk by chunk"
    monkeypatch.setattr(OnCluster, "_fetch", None)  # the driver must not need any
    trained = recipes.trainer(transport="dask", client=client)
    trained.fit(
        persisted, y, epochs=2, batch_size=80, validation_data=(persisted[:200], y[:200]), progress=False
    )
    for each in trained.input_read.values():
        # Of two epochs a half each, but for what it has of the first one in the second; a few chunks more where
        # runs of the shuffled chunks meet.
        assert IMAGES / 2 <= each.images <= IMAGES + 8 * CHUNK
        assert each.nbytes == each.images * SIDE * SIDE * 3
    trained = train(persisted, y, client)
    assert recipes.digest(trained) == expected


def test_work_on_persisted_chunks_is_done_on_the_cluster(client):
    x, y = images()
    persisted = client.persist(da.from_array(x, (CHUNK, 8, -1, -1)))
    scaled = (persisted / 255).astype(np.float32)
    whole = da.from_array(x, (CHUNK, 8, -1, -1)) / 255
    assert recipes.digest(train(scaled, y, client)) == recipes.digest(train(whole.astype(np.float32), y))
    bad = scaled.copy()
    bad[77, 3, 4, 0] = np.nan
    with pytest.raises(DataError, match=r"^x\[77\] has pixels that are not finite: remove or mend it\.$"):
        train(bad, y, client)


def test_persisted_chunks_that_die_with_a_worker_are_computed_again(client):
    x, y = images()
    lazy = da.from_array(x, (CHUNK, -1, -1, -1))
    persisted, killed = client.persist(lazy), []
    wait(persisted)
    victim = min(client.run(os.getpid).values())

    def kill(event):
        if event.step >= 3 and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(event.step)

    with events.listening(kill):
        trained = train(persisted, y, client)
    assert killed and recipes.digest(trained) == recipes.digest(train(lazy, y))
