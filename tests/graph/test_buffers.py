"""No element of a result is left unwritten, and no thread changes a bit.

Memory that daskconv takes uninitialised is filled with 0xFF here, which is NaN in floats.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import numpy as np
import pytest
from hypothesis import given, settings

import daskconv
from daskconv.graph import pipeline
from daskconv.kernels import (
    implicit,
    implicit_grad,
    jit,
    lowering,
    packed,
    product,
    scratch,
    winograd,
    winograd_filters,
    winograd_grad,
)
from reference import METHODS, PASSES, Case, cases, run_passes, small_cuts


@pytest.fixture(scope="module", autouse=True)
def real_numpy():
    """Numba takes NumPy's functions for what they are when it first compiles one: let that be the real ones."""
    if jit.enabled():
        jit.njit(cache=False)(lambda: np.zeros(1) + np.empty(1))()


def fill(array: np.ndarray) -> None:
    if array.dtype != object and array.size:
        array[...] = np.full(array.dtype.itemsize, 255, np.uint8).view(array.dtype)[0]


class Poison:
    """Stands in for every source of uninitialised memory; remembers the arrays it handed out."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.given: list[np.ndarray] = []
        for name in ("empty", "empty_like"):
            patch.setattr(np, name, self.spoil(getattr(np, name)))
        for user in (
            lowering,
            packed,
            pipeline,
            product,
            implicit,
            implicit_grad,
            winograd,
            winograd_filters,
            winograd_grad,
        ):
            patch.setattr(user, "scratch", self.spoil(scratch.scratch))
        patch.setattr(pipeline, "timed", self.timed)
        self.unread: Counter[int] = Counter()
        self.lock = threading.Lock()
        add = pipeline.Pipeline.add_product

        def counted(line, tile, *args):
            self.unread[tile] += 1
            add(line, tile, *args)

        patch.setattr(pipeline.Pipeline, "add_product", counted)

    def spoil(self, source):
        def spoiled(*args, **kwargs):
            array = source(*args, **kwargs)
            fill(array)
            self.given.append(array)
            return array

        return spoiled

    def timed(self, stage, tile, function, *args):
        """Run a pipeline's stage; its ring buffer is poisoned before it is filled and after all have read it."""
        if stage == "lower":
            fill(args[-1])
        function(*args)
        if stage == "product":
            with self.lock:
                self.unread[tile] -= 1
                if not self.unread[tile]:
                    fill(args[0])

    def handed_out(self, array: np.ndarray) -> bool:
        return any(np.may_share_memory(array, other) for other in self.given)


@contextmanager
def poisoned() -> Iterator[Poison]:
    with pytest.MonkeyPatch.context() as patch:
        small_cuts(patch)
        yield Poison(patch)


@pytest.fixture
def poison():
    with poisoned() as poison:
        yield poison


def test_the_poison_is_nan(poison):
    assert np.isnan(np.empty(3)).all() and np.isnan(lowering.scratch("lowered", (4,), "float32")).all()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(case=cases())
def test_drawn_passes_write_every_element(case):
    arrays = case.arrays()
    want = case.expected(*arrays)
    for method in METHODS:
        with poisoned() as poison, dask.config.set({"daskconv.threads": 2}):
            got = run_passes(case, method, arrays)
        for name in PASSES:
            assert poison.handed_out(got[name]), "the result is not in poisoned memory"
            np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=1e-3)


LARGE = [
    Case(n=6, image=(12, 11), channels=3, filters=8, kernel=(3, 3), padding=1, dtype="float32"),
    Case(n=6, image=(12, 11), channels=2, filters=3, groups=3, kernel=(3, 3), stride=2, padding="same"),
    Case(n=7, image=(11, 12), kernel=(2, 2), stride=3, dilation=2, padding=((0, 2), (1, 0)), dtype="float32"),
    Case(n=40, image=(1, 1), channels=40, filters=17, kernel=(1, 1)),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", LARGE, ids=range(len(LARGE)))
def test_many_blocks_write_every_element(poison, case, method, threads):
    arrays = case.arrays()
    with dask.config.set({"daskconv.threads": threads}):
        got = run_passes(case, method, arrays)
    for name, want in case.expected(*arrays).items():
        np.testing.assert_allclose(got[name], want, rtol=1e-3, atol=1e-3)


TILED = Case(n=5, image=(12, 11), channels=11, filters=21, kernel=(3, 3), padding=1, dtype="float32")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_winograd_writes_every_element(poison, threads):
    arrays = TILED.arrays()
    with dask.config.set({"daskconv.threads": threads}):
        got = run_passes(TILED, "winograd", arrays)
    for name, want in TILED.expected(*arrays).items():
        assert poison.handed_out(got[name]) or name == "weight_grad"
        np.testing.assert_allclose(got[name], want, rtol=0, atol=5e-5 * abs(want).max())


def test_winograd_gives_the_same_bits_on_any_threads(many_cuts):
    results = []
    for threads in (1, 2, 3, 2):
        with dask.config.set({"daskconv.threads": threads}):
            results.append(bits(run_passes(TILED, "winograd")))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("method", ["lowering", "pipelined"])
def test_the_poison_shows_an_unwritten_element(poison, method, monkeypatch):
    monkeypatch.setattr(lowering, "interleave", lambda *args: None)
    case = LARGE[1]
    assert np.isnan(run_passes(case, method)["input_grad"]).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_product_before_its_lowering_would_show(poison, threads, monkeypatch):
    monkeypatch.setattr(pipeline, "lower", lambda *args: None)
    with dask.config.set({"daskconv.threads": threads}):
        assert np.isnan(run_passes(LARGE[0], "pipelined")["forward"]).all()


@pytest.fixture
def many_cuts(monkeypatch):
    small_cuts(monkeypatch)


def bits(results):
    return {name: array.tobytes() for name, array in results.items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", LARGE, ids=range(len(LARGE)))
def test_any_number_of_threads_gives_the_same_bits(many_cuts, case, method):
    results = []
    for threads in (1, 2, 3, 2):
        with dask.config.set({"daskconv.threads": threads}):
            results.append(bits(run_passes(case, method)))
    for name in PASSES:
        assert len({result[name] for result in results}) == 1, name


@pytest.mark.parametrize("method", ["lowering", "pipelined"])
def test_blocks_of_real_size_give_the_same_bits_on_any_threads(method):
    case = Case(
        n=20, image=(16, 16), channels=32, filters=48, kernel=(5, 5), padding=2, dtype="float32", seed=3
    )
    results = []
    for threads in (1, 2, 3):
        with dask.config.set({"daskconv.threads": threads}):
            results.append(bits(run_passes(case, method)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("method", METHODS)
def test_dask_chunks_give_the_same_bits_on_any_threads(many_cuts, method):
    import dask.array as da

    case = LARGE[0]
    x, w, bias, dy = case.arrays()
    chunked = (da.from_array(x, chunks=(3, 4, 5, 2)), w, bias, da.from_array(dy, chunks=(2, 3, -1, -1)))
    results = []
    for threads in (1, 2, 3):
        with dask.config.set({"daskconv.threads": threads, "num_workers": threads}):
            results.append(bits(dict(zip(PASSES, dask.compute(*run_passes(case, method, chunked).values())))))
    assert results[0] == results[1] == results[2]


def test_threads_come_from_the_configuration():
    from daskconv.graph.threads import available_threads

    with dask.config.set({"daskconv.threads": 3}):
        assert available_threads() == 3
    assert available_threads() >= 1
    assert daskconv.conv2d(np.ones((1, 3, 3, 1)), np.ones((3, 3, 1, 1))).item() == 9
