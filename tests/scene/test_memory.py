"""A scene of four times a worker's memory, on workers that a Nanny would restart."""

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

import daskconv
from daskconv import Conv2D, ConvTranspose2D, ReLU
from scene.scenes import difference, model_of, mosaic

LIMIT = 1_500_000_000


def peak(dask_worker):
    """The worker's process, and the most memory that it ever held."""
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return os.getpid(), 1024 * int(status.split()[0])


def write_scene(path, side):
    """Real images side by side, the same block again and again; float32, as reflectances are."""
    block = da.from_array(mosaic(1024, 1024, 3).astype(np.float32) / 16, chunks=1024)
    repeats = -(-side // 1024)
    da.tile(block, (repeats, repeats, 1))[:side, :side].rechunk((1024, 1024, 3)).to_zarr(str(path))
    return zarr.open_array(path, mode="r")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["Zarr", "Dask"])
def test_a_scene_of_four_times_the_limit(tmp_path, kind):
    scene = write_scene(tmp_path / "scene.zarr", 22_528)
    assert scene.nbytes >= 4 * LIMIT
    layers = [
        Conv2D(8, 3, stride=2, padding=1),
        ReLU(),
        Conv2D(8, 3, padding=1),
        ConvTranspose2D(2, 2, stride=2),
    ]
    model = model_of(*layers, shape=(64, 64, 3))
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        before = client.run(peak)
        result = model.predict(scene if kind == "Zarr" else da.from_zarr(scene), precision="exact")
        daskconv.store(result, tmp_path / "out.zarr")
        after = client.run(peak)
    assert {address: pid for address, (pid, _) in before.items()} == {
        address: pid for address, (pid, _) in after.items()
    }
    print(
        f"tiles in chunks of {result.chunksize}; peaks {[f'{most / 1e6:.0f} MB' for _, most in after.values()]}"
    )
    assert max(most for _, most in after.values()) < LIMIT
    stored = zarr.open_array(tmp_path / "out.zarr", mode="r")
    assert stored.shape == (22_528, 22_528, 2)
    # The middle again, as one image with enough around it for its own middle to be right.
    expected = model.predict(scene[11_000:11_400, 20_000:20_400][None], precision="exact")[0]
    found = stored[11_000:11_400, 20_000:20_400]
    assert difference(found[64:-64, 64:-64], expected[64:-64, 64:-64]) < 1e-6
