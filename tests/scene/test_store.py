"""Stores are whole or resumed: killed runs, full disks, and what is in the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray
import zarr
from distributed import Client, LocalCluster

import daskconv
from conftest import missing
from daskconv import Conv2D
from daskconv.errors import DataError
from reference import refuse
from scene.scenes import model_of, mosaic
from scene.storing import write_scene

MODEL = model_of(Conv2D(4, 3, padding=1), Conv2D(2, 1))
SCRIPT = str(Path(__file__).with_name("storing.py"))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def chunks(folder):
    return [p for p in folder.rglob("c/*/*/*") if p.is_file() and not p.name.endswith(".partial")]


def lazy(**options):
    return MODEL.predict(da.from_array(mosaic(200, 300), chunks=100), tile=64, **options)


def test_what_is_stored_is_the_result(tmp_path, capsys):
    result = lazy()
    stored = daskconv.store(result, tmp_path / "out.zarr")
    assert (stored.compute() == result.compute()).all()
    assert stored.chunks == result.chunks
    assert not (tmp_path / "out.zarr.partial").exists()
    assert capsys.readouterr().out.startswith("chunks 2/2  ")


def test_ragged_chunks_and_zeros(tmp_path):
    x = da.concatenate([da.zeros((7, 9), chunks=(3, 4)), da.ones((4, 9), chunks=(4, 2))])
    stored = daskconv.store(x, tmp_path / "x.zarr", progress=False)
    assert (stored.compute() == x.compute()).all()


def test_labels_are_stored(tmp_path):
    scene = xarray.DataArray(
        da.from_array(mosaic(200, 300), chunks=100),
        dims=("y", "x", "band"),
        attrs={"crs": "EPSG:32633"},
        coords={
            "y": np.arange(200.0),
            "band": ["red"],
            "shade": (("y", "x"), da.ones((200, 300), chunks=90)),
        },
    )
    result = model_of(Conv2D(2, 3, padding=1), class_names=("land", "sea")).predict(scene, tile=64)
    stored = daskconv.store(result, tmp_path / "out.zarr", progress=False)
    xarray.testing.assert_identical(stored.compute(), result.compute().rename("prediction"))
    again = daskconv.store(result, tmp_path / "out.zarr", resume=True)
    xarray.testing.assert_identical(again.compute(), stored.compute())


def test_on_a_cluster(tmp_path, capsys):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        stored = daskconv.store(lazy(), tmp_path / "out.zarr")
        assert (stored.compute() == lazy().compute()).all()
        refuse("not finite", daskconv.store, nan_scene(), tmp_path / "nan.zarr", error=DataError)
    assert "chunks 2/2" in capsys.readouterr().out


def nan_scene():
    scene = mosaic(200, 300).astype(np.float32)
    scene[150, 200] = np.nan
    return MODEL.predict(da.from_array(scene, chunks=100), tile=64)


def test_an_existing_store_is_left_alone(tmp_path):
    path = tmp_path / "out.zarr"
    daskconv.store(lazy(), path, progress=False)
    before = contents(path)
    other = lazy()[:100]
    refuse("exists: set overwrite to replace it, or resume to finish", daskconv.store, other, path)
    refuse(
        "of another model or scene, or of other options",
        daskconv.store,
        lazy(precision="exact"),
        path,
        resume=True,
    )
    refuse("give one of them", daskconv.store, other, path, resume=True, overwrite=True)
    refuse("not finite", daskconv.store, nan_scene(), path, overwrite=True, progress=False, error=DataError)
    refuse("not finite", daskconv.store, nan_scene(), path, resume=True, progress=False, error=DataError)
    assert contents(path) == before
    daskconv.store(other, path, overwrite=True, progress=False)
    assert zarr.open_array(path, mode="r").shape == (100, 300, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zarr"]


def test_a_part_of_another_result_is_left_alone(tmp_path):
    path = tmp_path / "nan.zarr"
    refuse("not finite", daskconv.store, nan_scene(), path, progress=False, error=DataError)
    before = contents(tmp_path)
    refuse("nan.zarr.partial exists: set overwrite", daskconv.store, lazy(), path)
    refuse(
        "nan.zarr.partial holds a result of another model or scene", daskconv.store, lazy(), path, resume=True
    )
    coarse = nan_scene().rechunk((200, 100, 2))
    refuse(
        "in chunks of (200, 256, 2), where this one has (200, 100, 2)",
        daskconv.store,
        coarse,
        path,
        resume=True,
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.ones((3, 3)), "is a ndarray in memory: give a Dask array"),
        (da.ones(9, chunks=3)[da.ones(9, chunks=3) > 0], "unknown size"),
    ],
)
def test_arrays_that_cannot_be_stored(tmp_path, array, match):
    refuse(match, daskconv.store, array, tmp_path / "out.zarr")


def test_folders_that_are_no_stores(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    refuse("is no Zarr store", daskconv.store, lazy(), tmp_path / "photos", overwrite=True)
    refuse(
        "no folder that can be written to",
        daskconv.store,
        lazy(),
        tmp_path / "no" / "out.zarr",
        error=DataError,
    )
    assert contents(tmp_path) == {"photos/cat.png": b"cat"}


def run(folder, *options):
    return subprocess.run(
        [sys.executable, SCRIPT, str(folder), *options], capture_output=True, text=True, timeout=120
    )


def killed(folder, written):
    """Start the script, kill it once so many chunks are complete, and return how many were."""
    process = subprocess.Popen([sys.executable, SCRIPT, str(folder), "resume"], stdout=subprocess.DEVNULL)
    part, deadline = folder / "out.zarr.partial", time.monotonic() + 60
    while len(chunks(part)) < written and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return len(chunks(part))


def test_a_killed_run_goes_on_with_the_chunks_that_are_missing(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder in (straight, broken):
        folder.mkdir()
        write_scene(folder)
    assert run(straight).returncode == 0
    runs = len((straight / "runs.txt").read_text().split())
    assert runs == 15
    complete = [killed(broken, written) for written in (2, 7)]
    assert 2 <= complete[0] <= complete[1] < runs
    os.close(os.open(broken / "out.zarr.partial" / "c" / "0.1234.partial", os.O_CREAT))
    (broken / "runs.txt").unlink()
    ended = run(broken, "resume")
    assert ended.returncode == 0, ended.stderr
    assert len((broken / "runs.txt").read_text().split()) == runs - complete[1]
    assert f"chunks {complete[1]}/15 are complete from a run before" in ended.stdout

    def plain(folder):
        # The mark names the path of the scene in its token.
        return {name: file for name, file in contents(folder / "out.zarr").items() if name != "zarr.json"}

    assert plain(broken) == plain(straight)
    assert run(broken, "resume").returncode == 0
    assert len((broken / "runs.txt").read_text().split()) == runs - complete[1]


def test_a_full_disk(tmp_path):
    """On a real file system of 24 MB, in a mount namespace of its own."""
    write_scene(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    can = subprocess.run(["unshare", "-rm", "sh", "-c", f"mount -t tmpfs none {small}"], capture_output=True)
    if can.returncode:
        missing("mounts", "unshare -rm has to be allowed")
    script = f"""
        mount -t tmpfs -o size=60m none {small} && mv {tmp_path}/scene.zarr {small}
        mkdir {small}/full
        mount -t tmpfs -o size=24m none {small}/full && ln -s {small}/scene.zarr {small}/full/scene.zarr
        {sys.executable} {SCRIPT} {small}/full 2>{tmp_path}/first
        find {small}/full/out.zarr.partial/c -type f | xargs md5sum | sort >{tmp_path}/before
        mount -o remount,size=900m {small}/full
        {sys.executable} {SCRIPT} {small}/full resume || exit 3
        md5sum $(awk '{{print $2}}' {tmp_path}/before | sed s/.partial//) | sort >{tmp_path}/after
    """
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    sentence = (tmp_path / "first").read_text()
    assert "There is no room for" in sentence and "go on with resume." in sentence
    assert "Traceback" not in sentence
    before = (tmp_path / "before").read_text().split()[::2]
    assert 0 < len(before) < 15
    assert (tmp_path / "after").read_text().split()[::2] == before
