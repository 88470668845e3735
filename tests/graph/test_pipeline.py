"""The pipeline as it was executed: its graph, its buffers, its bits and its overlap in time."""

import itertools
from dataclasses import dataclass, field

import dask
import dask.threaded
import numpy as np
import pytest
from dask._task_spec import cull, fuse_linear_task_spec
from dask.callbacks import Callback

import daskconv
from daskconv.graph import pipeline
from daskconv.graph.pipeline import live_buffers
from daskconv.timeline import overlap, record
from reference import PASSES, Case, run_passes, small_cuts

CASE = Case(n=50, image=(16, 16), channels=32, filters=32, kernel=(5, 5), padding="same", dtype="float32")
SMALL = Case(n=14, image=(11, 12), channels=3, filters=4, kernel=(3, 3), padding=1, stride=2)
GROUPED = Case(n=9, image=(11, 12), channels=3, filters=4, groups=2, kernel=(3, 3), padding=1)


@dataclass
class Executed:
    """One executed graph, captured by a Dask callback while it ran."""

    graph: dict
    results: list = field(default_factory=list)

    def stage(self, name):
        return sorted(key for key in self.graph if key[0] == name)

    def needs(self, key):
        return set(self.graph[key].dependencies)

    def buffer(self, key):
        """What a tile's task writes (lower) or reads (product) in the ring."""
        args = call_of(self, key).args[3:]
        return args[-1] if key[0] == "lower" else args[0]


def run_and_capture(case, name, threads, arrays=None):
    """The result of one pass, and the graph that computed it."""
    x, w, bias, dy = arrays or case.arrays()
    options = {**case.options, "method": "pipelined"}
    calls = {
        "forward": lambda: daskconv.conv2d(x, w, bias, **options),
        "input_grad": lambda: daskconv.conv2d_input_grad(dy, w, x.shape, **options),
        "weight_grad": lambda: daskconv.conv2d_weight_grad(x, dy, w.shape, **options),
    }
    captured: list[Executed] = []
    callback = Callback(
        start=lambda dsk: captured.append(Executed(dict(dsk))),
        posttask=lambda key, *_: captured[-1].results.append(key),
    )
    with dask.config.set({"daskconv.threads": threads}), callback:
        result = calls[name]()
    (executed,) = captured
    assert sorted(executed.results) == sorted(executed.graph), "every task of the graph was executed once"
    return result, executed


@pytest.fixture
def many_cuts(monkeypatch):
    small_cuts(monkeypatch)


@pytest.fixture(params=[False, True], ids=["own cores", "shared cores"])
def smt(request, monkeypatch):
    monkeypatch.setattr(pipeline, "share_cores", lambda: request.param)
    return request.param


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [SMALL, GROUPED], ids=["stride 2", "groups"])
def test_the_executed_graph_has_a_lowering_and_a_product_for_each_tile(many_cuts, smt, case, name, threads):
    _, executed = run_and_capture(case, name, threads)
    lowers, products = executed.stage("lower"), executed.stage("product")
    tiles = len(lowers)
    assert tiles > threads + 3
    assert [t for _, t in lowers] == [t for _, t, _ in products] == list(range(tiles))
    assert len(executed.graph) == 2 * tiles
    for t in range(tiles):
        assert ("lower", t) in executed.needs(("product", t, 0))
        freed = t - live_buffers(threads)
        assert (("product", freed, 0) in executed.needs(("lower", t))) == (freed >= 0)
        assert executed.buffer(("product", t, 0)) is executed.buffer(("lower", t))


def test_products_of_all_parts_of_the_output_channels_free_a_tile(many_cuts, smt):
    case = Case(n=14, image=(11, 12), channels=3, filters=200, kernel=(3, 3), padding=1, stride=2)
    arrays = case.arrays()
    result, executed = run_and_capture(case, "forward", 2, arrays)
    np.testing.assert_allclose(result, case.expected(*arrays)["forward"])
    tiles = len(executed.stage("lower"))
    parts = len(executed.stage("product")) // tiles
    assert parts == 4, "tiles of 63 rows, 200 output channels"
    for t in range(live_buffers(2), tiles):
        freed = {("product", t - live_buffers(2), part) for part in range(parts)}
        assert freed <= executed.needs(("lower", t))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", PASSES)
def test_the_ring_has_one_buffer_a_thread_and_one_ahead(many_cuts, smt, name, threads):
    _, executed = run_and_capture(SMALL, name, threads)
    lowers = executed.stage("lower")
    buffers = {executed.buffer(key).__array_interface__["data"][0] for key in lowers}
    assert len(buffers) == live_buffers(threads) == threads + (smt and threads > 1)
    for one, other in itertools.combinations(lowers[: live_buffers(threads)], 2):
        assert not np.shares_memory(executed.buffer(one), executed.buffer(other))


def test_a_tile_is_lowered_ahead_where_another_thread_of_the_core_can_multiply(many_cuts, smt):
    alone = [("lower", 0), ("product", 0, 0), ("lower", 1), ("product", 1, 0)]
    together = [("lower", 0), ("lower", 1), ("product", 0, 0), ("lower", 2)]
    for threads, want in ((1, alone), (2, together if smt else alone)):
        _, executed = run_and_capture(SMALL, "forward", threads)
        assert list(executed.graph)[:4] == want


def test_threads_with_cores_of_their_own_multiply_what_they_lowered(monkeypatch):
    monkeypatch.setattr(pipeline, "share_cores", lambda: False)
    with record() as spans:
        run_and_capture(CASE, "forward", 2)
    by = {
        stage: {span.tile: span.thread for span in spans if span.stage == stage}
        for stage in ("lower", "product")
    }
    assert by["lower"] == by["product"] and len(set(by["lower"].values())) == 2


@pytest.mark.parametrize("name", PASSES)
def test_conv2d_runs_threaded_on_two_threads_with_real_tiles(name):
    _, executed = run_and_capture(CASE, name, 2)
    assert len(executed.stage("lower")) == len(executed.stage("product")) >= 8


@pytest.mark.parametrize("name", PASSES)
def test_dask_optimisation_keeps_lowering_and_product_two_tasks(many_cuts, smt, name):
    _, executed = run_and_capture(SMALL, name, 2)
    keys = list(executed.graph)
    fused = fuse_linear_task_spec(cull(executed.graph, keys), keys)
    assert sorted(fused) == sorted(keys)
    assert all(type(fused[key]) is type(executed.graph[key]) for key in keys)
    assert all(fused[key].func is executed.graph[key].func for key in keys)
    if not smt:
        return  # a chain for each thread, which has nobody to overlap with
    # Asking for the products alone merges at most those at the ring's end, which nothing waits for.
    products = executed.stage("product")
    fused = fuse_linear_task_spec(cull(dict(executed.graph), products), products)
    kept = [key for key in fused if key[0] == "lower"]
    assert len(kept) >= len(products) - live_buffers(2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["forward", "input_grad"])
def test_these_very_tasks_wrote_the_result(many_cuts, name, threads):
    case = Case(**{**SMALL.__dict__, "stride": 1})
    result, executed = run_and_capture(case, name, threads)
    bits = result.tobytes()
    result[...] = np.nan
    dask.threaded.get(executed.graph, list(executed.graph), num_workers=2)
    assert result.tobytes() == bits


def test_these_very_tasks_wrote_the_weight_gradient(many_cuts):
    result, executed = run_and_capture(SMALL, "weight_grad", 2)
    sums = {id(a.base): a.base for a in (task_target(executed, key) for key in executed.stage("product"))}
    (lanes,) = sums.values()
    assert np.shares_memory(lanes, result) and len(lanes) == 2
    want = result.copy()
    lanes[...] = np.nan
    dask.threaded.get(executed.graph, list(executed.graph), num_workers=2)
    np.testing.assert_array_equal((lanes[0] + lanes[1]).reshape(want.shape), want)


def call_of(executed, key):
    """Return what a task calls: a function with its arguments, after its stage and tile."""
    return executed.graph[key].args[0]


def task_target(executed, key):
    return next(a for a in reversed(call_of(executed, key).args) if isinstance(a, np.ndarray))


@pytest.mark.parametrize("tile", [0, 4])
def test_a_product_left_out_leaves_exactly_its_rows_unwritten(many_cuts, tile):
    result, executed = run_and_capture(SMALL, "forward", 2)
    want = result.copy()
    rows = call_of(executed, ("product", tile, 0)).args[-1]
    result[...] = np.nan
    graph = dict(executed.graph)
    task = graph["product", tile, 0]
    graph["product", tile, 0] = type(task)(task.key, skip, *task.args)
    dask.threaded.get(graph, list(graph), num_workers=2)
    assert np.isnan(rows).all()
    assert np.isnan(result).sum() == rows.size
    rows[...] = want.reshape(-1, want.shape[-1])[tile_rows(result, rows)]
    np.testing.assert_array_equal(result, want)


def skip(*args):
    """Do nothing in a task's place."""


def tile_rows(result, rows):
    """The range of output pixels that a view of the result covers."""
    first = (rows.__array_interface__["data"][0] - result.__array_interface__["data"][0]) // rows.strides[0]
    return slice(first, first + len(rows))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", PASSES)
def test_no_more_tiles_are_alive_than_the_ring_has_buffers(many_cuts, smt, name, threads):
    with record() as spans:
        _, executed = run_and_capture(SMALL, name, threads)
    assert sorted((span.stage, span.tile) for span in spans) == sorted(key[:2] for key in executed.graph)
    starts = [(span.start, 1) for span in spans if span.stage == "lower"]
    ends = [(span.end, -1) for span in spans if span.stage == "product"]
    alive = list(itertools.accumulate(change for _, change in sorted(starts + ends)))
    assert max(alive) <= live_buffers(threads) and alive[-1] == 0
    assert len({span.thread for span in spans}) <= threads


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_some_threads_of_shared_cores_are_left_to_multiply(many_cuts, smt, threads):
    _, executed = run_and_capture(SMALL, "forward", threads)
    lanes = threads // 2
    for _, t in executed.stage("lower"):
        assert (("lower", t - lanes) in executed.needs(("lower", t))) == (smt and t >= threads)


def test_products_of_one_lane_of_a_weight_gradient_follow_each_other(many_cuts):
    _, executed = run_and_capture(SMALL, "weight_grad", 2)
    for _, t, _ in executed.stage("product")[2:]:
        assert ("product", t - 2, 0) in executed.needs(("product", t, 0))
    assert ("product", 0, 0) not in executed.needs(("product", 1, 0))


def test_lowering_runs_beside_the_products():
    arrays = CASE.arrays()
    shares = []
    with dask.config.set({"daskconv.threads": 2}):
        daskconv.conv2d(*arrays[:3], padding="same", method="pipelined")
        for _ in range(5):
            with record() as spans:
                daskconv.conv2d(*arrays[:3], padding="same", method="pipelined")
            shares.append(overlap(spans))
            if shares[-1] >= 0.30:
                break
    assert max(shares) >= 0.30, shares


def test_one_thread_overlaps_nothing():
    with dask.config.set({"daskconv.threads": 1}), record() as spans:
        run_passes(Case(), "pipelined")
    assert spans and overlap(spans) == 0


def test_a_failing_stage_raises_in_the_caller(many_cuts, monkeypatch):
    def broken(*args):
        raise MemoryError("no room for the tile")

    monkeypatch.setattr(pipeline, "lower", broken)
    for threads in (1, 2):
        with pytest.raises(MemoryError, match="no room"):
            run_and_capture(SMALL, "forward", threads)
