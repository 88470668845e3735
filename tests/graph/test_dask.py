"""Dask arrays: any chunks, lazy results, weights once in the graph."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskconv
from daskconv.graph import blocks, conv
from daskconv.graph.threads import execute
from reference import (
    METHODS,
    MIXED,
    PASSES,
    Case,
    assert_close,
    cases,
    chunks,
    optimized,
    run_passes,
    small_cuts,
)


@st.composite
def chunked(draw):
    """A case, and its arrays (channels last) as Dask arrays; weights may stay NumPy arrays."""
    case = draw(cases(most_images=7))
    arrays = case.arrays()
    lazy = [array if array is None else da.from_array(array, draw(chunks(array.shape))) for array in arrays]
    if draw(st.booleans()):
        lazy[1:3] = arrays[1:3]
    return case, arrays, lazy


@settings(deadline=None, derandomize=True, max_examples=30)
@given(drawn=chunked())
def test_any_chunks_give_the_definition_lazily(drawn):
    case, arrays, lazy = drawn
    want, magnitudes, norms = (find(*arrays) for find in (case.expected, case.magnitudes, case.norms))
    for method in METHODS:
        magnitude = norms if method in MIXED else magnitudes
        results = run_passes(case, method, lazy)
        for name in PASSES:
            assert isinstance(results[name], da.Array) and results[name].dtype == case.dtype
            assert results[name].shape == want[name].shape
        images = 0
        assert results["forward"].chunks[images] == lazy[0].chunks[0]
        assert results["input_grad"].chunks[images] == lazy[3].chunks[0]
        computed = dask.compute(*results.values(), scheduler="sync")
        for name, got in zip(PASSES, computed):
            assert_close(got, want[name], magnitude[name], case.dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lazy", range(4), ids=["x", "w", "bias", "dy"])
def test_one_dask_operand_makes_the_result_lazy(method, lazy):
    case = Case(n=5, padding=1)
    arrays = case.arrays()
    operands = list(arrays)
    operands[lazy] = da.from_array(operands[lazy], chunks=2)
    results = run_passes(case, method, operands)
    reads = {"forward": {0, 1, 2}, "input_grad": {1, 3}, "weight_grad": {0, 3}}
    for name, want in case.expected(*arrays).items():
        assert isinstance(results[name], da.Array) == (lazy in reads[name])
        np.testing.assert_allclose(results[name], want, rtol=1e-12, atol=1e-12)


def explode(block):
    raise RuntimeError("computed too early")


def test_building_a_graph_computes_nothing():
    case = Case(n=5, padding=1)
    lazy = [da.from_array(a, chunks=2).map_blocks(explode, dtype=a.dtype, meta=a[:0]) for a in case.arrays()]
    results = run_passes(case, "lowering", lazy)
    for result in results.values():
        with pytest.raises(RuntimeError, match="too early"):
            result.compute(scheduler="sync")


@pytest.mark.parametrize("method", METHODS)
def test_x_and_dy_may_be_chunked_differently(method):
    case = Case(n=9, padding=1)
    arrays = case.arrays()
    x = da.from_array(arrays[0], chunks=((1, 4, 4), 3, 2, 1))
    dy = da.from_array(arrays[3], chunks=((5, 2, 2), -1, -1, -1))
    got = daskconv.conv2d_weight_grad(x, dy, case.w_shape, padding=1, method=method)
    np.testing.assert_allclose(got.compute(), case.weight_grad(arrays[0], arrays[3]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_empty_chunks_count_for_nothing(method):
    case = Case(n=4, padding=1)
    x, w, bias, dy = case.arrays()
    lazy = (da.from_array(x, chunks=((0, 3, 0, 1), -1, -1, -1)), w, bias)
    lazy += (da.from_array(dy, chunks=((0, 3, 0, 1), -1, -1, -1)),)
    for name, want in case.expected(x, w, bias, dy).items():
        np.testing.assert_allclose(run_passes(case, method, lazy)[name], want, rtol=1e-12, atol=1e-12)


def holders(graph, nbytes):
    """The tasks whose pickle is at least so large: those with an array in them."""
    return [key for key, task in graph.items() if len(pickle.dumps(task)) >= nbytes]


@pytest.mark.parametrize("kind", ["NumPy", "Dask"])
@pytest.mark.parametrize("name", ["forward", "input_grad"])
def test_weights_larger_than_a_chunk_are_one_task_of_the_graph(kind, name):
    case = Case(n=12, image=(3, 3), channels=16, filters=64, kernel=(3, 3), padding=1)
    w = case.arrays()[1]
    weights = da.from_array(w, chunks=(3, 3, 8, 64)) if kind == "Dask" else w
    # Images come from tasks, so that no array but the weights lies in the graph.
    source = {
        "x": da.ones(case.x_shape, chunks=(2, -1, -1, -1)),
        "dy": da.ones(case.y_shape, chunks=(2, -1, -1, -1)),
    }
    assert w.nbytes > 10 * source["x"].blocks[0].nbytes
    result = run_passes(case, "lowering", (source["x"], weights, None, source["dy"]))[name]
    graphs = {"built": dict(result.dask), "optimised": optimized(result)}
    parts = 2 if kind == "Dask" else 1
    # The gradient by the input is cut where the weights' channels are.
    count = 6 * (parts if name == "input_grad" else 1)
    for graph in graphs.values():
        blocks = [key for key in graph if isinstance(key, tuple) and key[0] == result.name]
        assert len(blocks) == count
        assert len(holders(graph, w.nbytes // parts)) == parts
        assert not set(holders(graph, w.nbytes // parts)) & set(blocks)
        assert sum(len(pickle.dumps(task)) for task in graph.values()) < 1.5 * w.nbytes


@pytest.mark.parametrize(("method", "threads"), [("direct", set()), ("lowering", {1}), ("pipelined", {2})])
def test_only_the_pipeline_has_threads_of_its_own_inside_a_chunk(monkeypatch, method, threads):
    small_cuts(monkeypatch)
    asked = set()

    def noting(graph, keys, count):
        asked.add(count)
        return execute(graph, keys, count)

    for user in (conv, blocks):
        monkeypatch.setattr(user, "execute", noting)
    if method not in METHODS:
        pytest.skip("needs compiled kernels")
    case = Case(n=56, image=(11, 12), padding=1)
    arrays = case.arrays()
    x = da.from_array(arrays[0], chunks=(28, -1, -1, -1))
    with dask.config.set({"daskconv.threads": 2}):
        daskconv.conv2d(x, arrays[1], padding=1, method=method).compute(scheduler="sync")
    assert asked == threads


def test_the_rows_of_a_chunk_do_not_reach_the_next():
    case = Case(n=4, image=(5, 5), kernel=(3, 3), padding=1)
    x, w, bias, _ = case.arrays()
    x[1] = np.nan
    y = daskconv.conv2d(da.from_array(x, chunks=(1, -1, -1, -1)), w, bias, padding=1).compute()
    assert np.isnan(y[1]).all() and not np.isnan(y[[0, 2, 3]]).any()


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_results_go_on_as_dask_arrays(data_format):
    case = Case(n=6, data_format=data_format)
    x, w, bias, _ = case.arrays()
    lazy = da.from_array(case.as_given(x), chunks=(4, 2, 3, 1))
    y = daskconv.conv2d(lazy * 2, w, bias, **case.options).sum(axis=(1, 2, 3))
    want = case.as_given(case.forward(2 * x, w, bias)).sum((1, 2, 3))
    np.testing.assert_allclose(y.compute(), want, rtol=1e-10)
