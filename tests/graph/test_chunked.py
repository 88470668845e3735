"""Arrays cut along any axis: chunks smaller than a halo, channels in a tree, boundaries, and what the graph holds."""

import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise, product

import dask
import dask.array as da
import numpy as np
import pytest
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

import daskconv
from daskconv.graph import chunked
from daskconv.graph.halo import WindowAxis, part, transposed_part, window_part
from reference import PASSES, Case, assert_close, cases, chunks, optimized, refuse, run_passes

BOUNDARIES = ("zeros", "reflect", "edge", "wrap")


def with_boundary(case, boundary, arrays):
    """The three results by the definition: the image is padded, and the pad's transpose adds back."""
    x, w, bias, dy = arrays
    mode = {"mode": "constant"} if boundary == "zeros" else {"mode": boundary}
    pads = ((0, 0), *case.pads, (0, 0))
    padded = np.pad(x, pads, **mode)
    inner = Case(**{**vars(case), "padding": 0, "image": padded.shape[1:3]})
    dx = inner.input_grad(dy, w)
    shown = np.pad(
        np.arange(x.size).reshape(x.shape),
        pads,
        **mode,
        **({} if boundary != "zeros" else {"constant_values": -1}),
    )
    back = np.zeros(x.size + 1)
    np.add.at(back, shown.reshape(-1), dx.reshape(-1))  # what goes nowhere lands in the last element
    results = inner.forward(padded, w, bias), back[:-1].reshape(x.shape), inner.weight_grad(padded, dy)
    return dict(zip(PASSES, results))


@st.composite
def drawn(draw):
    """A case, channels last, a boundary, its arrays, and these as Dask arrays in chunks of any size."""
    case = draw(cases())
    case = Case(**{**vars(case), "data_format": "NHWC"})
    arrays = case.arrays()
    lazy = [None if a is None else da.from_array(a, draw(chunks(a.shape))) for a in arrays]
    return case, draw(st.sampled_from(BOUNDARIES)), arrays, lazy


def passes_of(arrays, case, **options):
    x, w, bias, dy = arrays
    options = {**case.options, "precision": "exact", **options}
    return {
        "forward": daskconv.conv2d(x, w, bias, **options),
        "input_grad": daskconv.conv2d_input_grad(dy, w, x.shape, **options),
        "weight_grad": daskconv.conv2d_weight_grad(x, dy, w.shape, **options),
    }


@settings(deadline=None, derandomize=True, max_examples=80)
@given(drawn=drawn())
def test_any_chunks_give_the_unchunked_result_at_any_boundary(drawn):
    case, boundary, arrays, lazy = drawn
    want = with_boundary(case, boundary, arrays)
    magnitude = with_boundary(case, boundary, [a if a is None else abs(a) for a in arrays])
    results = passes_of(lazy, case, boundary=boundary)
    whole = passes_of(arrays, case, boundary=boundary)
    computed = dict(zip(PASSES, dask.compute(*results.values(), scheduler="sync")))
    for name in PASSES:
        assert tuple(map(sum, results[name].chunks)) == results[name].shape == want[name].shape
        assert_close(computed[name], want[name], magnitude[name], case.dtype)
        assert_close(whole[name], want[name], magnitude[name], case.dtype)
        largest = abs(whole[name]).max()
        assert abs(computed[name] - whole[name]).max() <= 1e-6 * max(largest, magnitude[name].max())
        for block, index in zip(results[name].to_delayed().ravel(), np.ndindex(results[name].numblocks)):
            shape = tuple(sizes[i] for sizes, i in zip(results[name].chunks, index))
            assert block.compute(scheduler="sync").shape == shape


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_chunk_may_be_smaller_than_the_halo(boundary, chunk):
    case = Case(n=1, image=(11, 9), kernel=(7, 5), padding=(3, 4), channels=2)
    arrays = case.arrays()
    lazy = [a if a is None else da.from_array(a, chunks=chunk) for a in arrays]
    want = with_boundary(case, boundary, arrays)
    for name, got in passes_of(lazy, case, boundary=boundary).items():
        np.testing.assert_allclose(got.compute(scheduler="sync"), want[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("boundary", BOUNDARIES[1:])
def test_a_boundary_may_repeat_the_image_several_times(boundary):
    case = Case(n=1, image=(3, 4), kernel=(3, 3), padding=((7, 8), (9, 5)))
    arrays = case.arrays()
    want = with_boundary(case, boundary, arrays)
    for operands in (arrays, [da.from_array(a, chunks=2) for a in arrays]):
        for name, got in passes_of(operands, case, boundary=boundary).items():
            np.testing.assert_allclose(got, want[name], rtol=1e-10, atol=1e-10)


def test_an_unknown_boundary_is_refused():
    x, w = np.zeros((1, 4, 4, 1)), np.zeros((3, 3, 1, 1))
    for name in ("constant", "periodic", "", None):
        match = f"boundary is {name!r}: choose zeros, reflect, edge or wrap"
        refuse(match, daskconv.conv2d, x, w, padding=1, boundary=name)
        refuse(match, daskconv.conv2d_input_grad, x, w, x.shape, padding=1, boundary=name)
        refuse(match, daskconv.conv2d_weight_grad, x, x, w.shape, padding=1, boundary=name)


def test_weights_of_unknown_chunks_are_refused():
    w = da.zeros((3, 3, 2, 4), chunks=1)
    w = w[w[:, 0, 0, 0] >= 0]
    refuse("w has chunks of unknown size", daskconv.conv2d, np.zeros((1, 4, 4, 2)), w)
    refuse(
        "w has chunks of unknown size", daskconv.conv2d_input_grad, np.zeros((1, 2, 2, 4)), w, (1, 4, 4, 2)
    )


def test_query_planning_is_refused_in_one_sentence():
    script = """
import dask
dask.config.set({"array.query-planning": True})
import dask.array as da, numpy as np, daskconv
try:
    daskconv.conv2d(da.ones((1, 6, 6, 2)), np.ones((3, 3, 2, 5)))
except daskconv.errors.InputError as error:
    print(error)
print(daskconv.conv2d(np.ones((1, 6, 6, 2)), np.ones((3, 3, 2, 5))).shape)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said, shape = run.stdout.splitlines()
    assert said.startswith("Dask's array.query-planning is on") and said.endswith("is imported.")
    assert shape == "(1, 4, 4, 5)"


def scene(chunk=(1, 32, 32, -1), shape=(1, 160, 160, 3)):
    return da.random.default_rng(0).standard_normal(shape, chunks=chunk, dtype=np.float32)


def filters(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def keys_of(array):
    """The tasks of an array's own layer, by kind."""
    layer = array.dask.layers[array.name]
    return Counter(re.sub("-[0-9a-f]{32}$", "", key[0]) for key in layer)


def test_tasks_are_few():
    x, w = scene(), filters(3, 3, 3, 8)
    y = daskconv.conv2d(x, w, padding=1)
    assert keys_of(y) == {"conv2d": 25, "conv2d-rims0": 25}
    dx = daskconv.conv2d_input_grad(y, w, x.shape, padding=1)
    assert keys_of(dx) == {"conv2d_input_grad": 25, "conv2d_input_grad-rims0": 25}
    assert y.chunks[:3] == x.chunks[:3] and dx.chunks == x.chunks
    dw = daskconv.conv2d_weight_grad(x, y, w.shape, padding=1)
    kinds = {"conv2d_weight_grad": 1, "conv2d_weight_grad-part": 25, "conv2d_weight_grad-sum": 23}
    assert keys_of(dw) == {**kinds, "conv2d_weight_grad-rims0": 25}
    # Without a halo there are no rims, and a boundary needs no more of them.
    assert keys_of(daskconv.conv2d(x, filters(1, 1, 3, 8))) == {"conv2d": 25}
    assert keys_of(daskconv.conv2d(x, w, padding=1, boundary="reflect")) == keys_of(y)
    # Nothing is fused or left over: the images' chunks, rims and results, and the weights.
    assert len(optimized(y)) == 3 * 25 + 1
    assert len(optimized(dx)) == len(optimized(y)) + 2 * 25
    assert len(optimized(dw)) == len(optimized(y)) + 25 + 25 + 24


def test_a_large_scene_has_its_graph_soon():
    x = da.zeros((1, 98 * 64, 98 * 64, 3), chunks=(1, 64, 64, 3), dtype=np.float32)
    y = daskconv.conv2d(x, filters(5, 5, 3, 4), padding="same")
    assert y.npartitions == 98 * 98
    assert len(y.dask.layers[y.name]) == 2 * 98 * 98


def test_channels_are_summed_in_a_tree():
    x, w = scene((1, 80, 80, 2), (1, 160, 160, 16)), filters(3, 3, 16, 4)
    y = daskconv.conv2d(x, da.from_array(w, chunks=(3, 3, 5, 2)), padding=1)
    kinds = keys_of(y)
    assert y.chunks == ((1,), (80, 80), (80, 80), (2, 2))
    assert kinds["conv2d-part"] == 8 * 8 and kinds["conv2d"] + kinds["conv2d-sum"] == 7 * 8
    layer = y.dask.layers[y.name]
    for key in y.__dask_keys__()[0][0][0]:
        assert depth_of(layer, key, "conv2d-part") == 3
    want = daskconv.conv2d(x.compute(), w, padding=1)
    np.testing.assert_allclose(y, want, atol=1e-5 * abs(want).max())


def depth_of(layer, key, leaf):
    if key[0].startswith(leaf):
        return 0
    return 1 + max(depth_of(layer, below, leaf) for below in layer[key].dependencies)


def test_keys_are_readable_and_the_same_each_time():
    def build(boundary="zeros", method="auto"):
        x, w = scene(), filters(3, 3, 3, 8)
        return daskconv.conv2d(x, w, padding=1, boundary=boundary, method=method)

    y = build()
    assert re.fullmatch("conv2d-[0-9a-f]{32}", y.name)
    assert set(build().dask) == set(y.dask)
    assert y.__dask_keys__()[0][1][2] == [(y.name, 0, 1, 2, 0)]
    names = {y.name, build("edge").name, build("wrap").name, build(method="pipelined").name}
    assert len(names) == 4
    assert tokenize(build()) == tokenize(y)


@pytest.mark.parametrize("method", ["lowering", "auto", "pipelined"])
def test_no_task_gives_or_gets_a_lowered_chunk(method):
    """Whatever travels between tasks is at most a chunk of images or of results, never their windows."""
    x, w = scene(), filters(5, 5, 3, 8)
    largest = max(32 * 32 * 3, 32 * 32 * 8)
    y = daskconv.conv2d(x, w, padding=2, method=method)
    dx = daskconv.conv2d_input_grad(y, w, x.shape, padding=2, method=method)
    dw = daskconv.conv2d_weight_grad(x, y, w.shape, padding=2, method=method)
    seen = []

    def note(key, value, graph, state, worker):
        parts = value if isinstance(value, tuple) else (value,)
        seen.append(sum(np.asarray(part).size for part in parts if part is not None))

    with dask.callbacks.Callback(posttask=note):
        dask.compute(y, dx, dw, scheduler="sync")
    own = {key[0] for array in (y, dx, dw) for key in optimized(array) if isinstance(key, tuple)}
    assert any("conv2d-" in name for name in own)
    assert len(seen) > 100
    # The whole result is put together at the end; nothing else is larger than a chunk.
    assert sorted(seen)[-4] <= largest


def test_lowering_takes_a_chunk_block_by_block(monkeypatch):
    """A chunk is not lowered whole inside its task either."""
    from daskconv.graph import conv, tiles

    monkeypatch.setattr(tiles, "_BLOCK_BYTES", 100_000)
    lowered = []
    original = conv.lowering.correlate_rows

    def note(x, matrices, bias, correlation, cut, out):
        lowered.append((cut[1] - cut[0]) * matrices[0].shape[0] * x.itemsize)
        original(x, matrices, bias, correlation, cut, out)

    monkeypatch.setattr(conv.lowering, "correlate_rows", note)
    daskconv.conv2d(scene(), filters(5, 5, 3, 8), padding=2, method="lowering").compute(scheduler="sync")
    assert max(lowered) <= 100_000 and len(lowered) > 25


def test_results_stay_within_the_chunk_size_of_the_configuration():
    x = scene((4, 64, 64, -1), (8, 128, 128, 3))
    w = filters(3, 3, 3, 64)
    for limit in ("1MiB", "200kiB", "20kiB"):
        most = dask.utils.parse_bytes(limit)
        with dask.config.set({"array.chunk-size": limit}):
            y = daskconv.conv2d(x, w, padding=1)
            dx = daskconv.conv2d_input_grad(y, w, x.shape, padding=1)
            dw = daskconv.conv2d_weight_grad(x, y, (3, 3, 3, 64), padding=1)
        for array in (y, dx, dw):
            assert np.prod(array.chunksize) * 4 <= most
            assert tuple(map(sum, array.chunks)) == array.shape
    np.testing.assert_allclose(
        y[:1, :40, :40].compute(),
        daskconv.conv2d(x[:1, :41, :41].compute(), w, padding=1)[:, :40, :40],
        atol=1e-4,
    )


def test_only_halos_travel(monkeypatch):
    """A task gets one whole chunk of images; of its neighbours it gets rims."""
    x, w = scene(), filters(5, 5, 3, 8)
    y = daskconv.conv2d(x, w, padding=2)
    layer = y.dask.layers[y.name]
    for key in product([y.name], [0], range(5), range(5), [0]):
        chunks = [name for name in layer[key].dependencies if name[0] == x.name]
        assert chunks == [(x.name, *key[1:])]
    sizes = []
    original = chunked.gathered

    def note(gather, blocks, dtype):
        if len(gather.reads) == 4 and len(gather.picks) > 1:
            sizes.append(
                sum(a.size for b in {id(b): b for b in blocks}.values() if isinstance(b, tuple) for a in b)
            )
        return original(gather, blocks, dtype)

    monkeypatch.setattr(chunked, "gathered", note)
    y.compute(scheduler="sync")
    assert max(sizes) < 8 * 4 * 2 * (32 + 4) * 3


def test_channels_of_groups_are_never_cut():
    case = Case(n=2, image=(6, 5), groups=4, channels=3, filters=2, padding=1)
    arrays = case.arrays()
    want = case.expected(*arrays)
    for c, k in product([1, 2, 3, 4, 6, 12], [1, 2, 3, 5]):
        x, w = da.from_array(arrays[0], (1, 3, 3, c)), da.from_array(arrays[1], (3, 1, 2, k))
        results = run_passes(case, "lowering", (x, w, arrays[2], da.from_array(arrays[3], (2, 4, 2, k))))
        for name, got in results.items():
            np.testing.assert_allclose(got.compute(scheduler="sync"), want[name], rtol=1e-10, atol=1e-10)
        if (c, k) == (6, 2):
            assert results["forward"].chunks[3] == (2, 2, 2, 2)
        if c == 3:
            assert keys_of(results["forward"])["conv2d"] == 2 * 2 * 2 * 4


def test_images_without_images():
    w = filters(3, 3, 2, 4)
    x = da.zeros((0, 6, 6, 2), chunks=(1, 3, 3, 2), dtype=np.float32)
    y = daskconv.conv2d(x, w, padding=1)
    assert y.shape == (0, 6, 6, 4) and y.compute().shape == (0, 6, 6, 4)
    assert daskconv.conv2d_input_grad(y, w, x.shape, padding=1).compute().shape == x.shape
    assert not daskconv.conv2d_weight_grad(x, y, w.shape, padding=1).compute().any()


@given(
    axis=st.builds(
        WindowAxis,
        st.integers(1, 20),
        st.integers(1, 5),
        st.integers(1, 6),
        st.integers(1, 3),
        st.tuples(st.integers(0, 9), st.integers(0, 9)),
    ),
    data=st.data(),
)
def test_reads_hold_every_pixel_of_the_windows(axis, data):
    if axis.outputs < 1:
        return
    cuts = [
        0,
        *sorted(data.draw(st.sets(st.integers(1, max(axis.size - 1, 1)), max_size=5)) - {axis.size}),
        axis.size,
    ]
    low = data.draw(st.integers(0, axis.outputs - 1))
    high = data.draw(st.integers(low + 1, axis.outputs))
    read = window_part(axis, cuts, (low, high))
    pixels = {
        p * axis.stride - axis.pads[0] + t * axis.dilation
        for p in range(low, high)
        for t in range(axis.kernel)
    }
    stored = {cuts[run.chunk] + run.at + i for run in read.runs for i in range(run.length)}
    assert {pixel for pixel in pixels if 0 <= pixel < axis.size} <= stored
    assert min(read.pads) >= 0 and read.length >= 1
    # The transpose: each output that reads a pixel is there.
    start = data.draw(st.integers(0, axis.size - 1))
    stop = data.draw(st.integers(start + 1, axis.size))
    back = transposed_part(axis, list(range(axis.outputs + 1)), (start, stop))
    found = {run.chunk for run in back.runs}
    for p in range(axis.outputs):
        taps = (p * axis.stride - axis.pads[0] + t * axis.dilation for t in range(axis.kernel))
        assert p in found or not any(start <= pixel < stop for pixel in taps)
    assert min(back.pads) >= 0


def test_a_part_of_an_axis_names_its_chunks():
    runs = part([0, 3, 3, 5, 9], (2, 7)).runs
    assert [(run.chunk, run.to, run.length, run.at) for run in runs] == [
        (0, 0, 1, 2),
        (2, 1, 2, 0),
        (3, 3, 2, 0),
    ]
    assert all(low.to + low.length == high.to for low, high in pairwise(runs))
