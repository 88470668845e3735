"""The graph of a lazy prediction: small, readable, the same for the same scene; and its threads."""

from time import perf_counter

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_info

from daskconv import Conv2D, Layer
from scene.scenes import difference, model_of, mosaic

MODEL = model_of(Conv2D(8, 3, padding=1), Conv2D(2, 3, padding=1))


def test_ten_thousand_tiles_are_a_small_graph():
    model = model_of(*[Conv2D(8, 3, padding=1)] * 5, shape=(64, 64, 3))
    scene = da.zeros((100_000, 100_000, 3), chunks=(1024, 1024, 3), dtype=np.uint8)
    started = perf_counter()
    found = model.predict(scene, tile=1024)
    graph = dict(found.__dask_graph__())
    assert perf_counter() - started < 10
    assert found.numblocks == (98, 98, 1)
    assert len(graph) <= 6 * 98 * 98


def test_keys_tell_the_chunk_and_stay_the_same():
    scene = da.from_array(mosaic(), chunks=64)
    first, again = (MODEL.predict(scene, tile=32) for _ in range(2))
    assert first.name == again.name
    assert first.name.startswith("predict-")
    assert (first.name, 0, 0, 0) in first.dask
    others = [
        MODEL.predict(scene, tile=64),
        MODEL.predict(scene, tile=32, precision="exact"),
        MODEL.predict(scene[1:], tile=32),
        model_of(Conv2D(8, 3, padding=1), Conv2D(3, 3, padding=1)).predict(scene, tile=32),
    ]
    assert len({first.name, *(other.name for other in others)}) == 5


def test_the_network_is_in_the_graph_once():
    found = dask.optimize(MODEL.predict(da.from_array(mosaic(), chunks=64), tile=32, batch=1))[0]
    assert sum(str(key).startswith("network-") for key in found.__dask_graph__()) == 1


class Watched(Layer):
    """Tells how many threads a convolution could use where it ran, and NumPy's BLAS."""

    def forward(self, params, x, context):
        blas = [pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]]
        return np.full_like(x, 100 * context.threads + max(blas, default=1)), None

    is_pointwise = True


def test_threads_are_never_more_than_the_cores():
    watched, scene = model_of(Watched()), da.from_array(mosaic(256, 256), chunks=64)
    assert set(np.unique(watched.predict(scene, tile=64).compute())) == {101}
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        assert set(np.unique(watched.predict(scene, tile=64).compute())) == {101}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        dask.config.set({"daskconv.threads": 3}),
    ):
        assert set(np.unique(watched.predict(scene, tile=256).compute())) == {301}


def test_a_cluster_gives_the_same_bits():
    scene = da.from_array(mosaic(), chunks=(50, 70, 1))
    lazily = MODEL.predict(scene, tile=32, batch=1, precision="exact")
    expected = lazily.compute()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        assert (lazily.compute() == expected).all()
        assert (MODEL.predict(scene, tile=32, batch=1, precision="exact").compute() == expected).all()
    assert difference(MODEL.predict(mosaic(), precision="exact"), expected) < 1e-6
