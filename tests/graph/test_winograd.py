"""Winograd's method: its stated error, on every size of tile, ragged images and channels; and where it is refused."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import daskconv
from daskconv.geometry import Window, forward_correlation
from daskconv.graph import conv, conv_winograd, tiles
from daskconv.graph.choose import ConvShape, choose
from daskconv.kernels import winograd_filters, winograd_grad, winograd_tiles
from daskconv.kernels.panels import width_of
from reference import PASSES, Case, refuse, run_passes, small_cuts

BOUND = 5e-5


@pytest.fixture(scope="module", autouse=True)
def _many_cuts():
    with pytest.MonkeyPatch.context() as patch:
        small_cuts(patch)
        yield


@st.composite
def tiled_cases(draw) -> Case:
    r = draw(st.sampled_from(list(winograd_tiles.KERNELS)))
    padding = draw(
        st.one_of(st.sampled_from([0, r // 2, "same"]), st.tuples(*[st.tuples(*[st.integers(0, r)] * 2)] * 2))
    )
    smallest = 1 if padding == "same" else r if padding == 0 or not isinstance(padding, int) else 1
    return Case(
        n=draw(st.integers(1, 3)),
        image=(smallest + draw(st.integers(0, 13)), smallest + draw(st.integers(0, 13))),
        channels=draw(st.integers(1, 40)),
        filters=draw(st.integers(1, 40)),
        groups=draw(st.sampled_from([1, 1, 2, 3])),
        kernel=(r, r),
        padding=padding,
        bias=draw(st.booleans()),
        data_format=draw(st.sampled_from(["NHWC", "NCHW"])),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        seed=draw(st.integers(0, 9)),
    )


def check(case: Case) -> None:
    arrays = case.arrays()
    want, got = case.expected(*arrays), run_passes(case, "winograd", arrays)
    for name in PASSES:
        assert got[name].shape == want[name].shape and got[name].dtype == case.dtype
        bound = BOUND if case.dtype == "float32" else 1e-12
        scale = abs(want[name]).max(initial=0)
        # A sum whose terms cancel has the error of its terms.
        terms = case.magnitudes(*arrays)[name].max(initial=0)
        assert not np.isnan(got[name]).any()
        assert abs(got[name] - want[name]).max(initial=0) <= bound * max(scale, terms / 8)


@pytest.mark.parametrize("threads", [1, 2])
@settings(deadline=None, derandomize=True, max_examples=60)
@given(case=tiled_cases())
@example(Case(image=(1, 1), kernel=(3, 3), padding=1, channels=1, filters=1, dtype="float32"))
@example(Case(image=(5, 5), kernel=(5, 5), channels=1, filters=1, n=1, dtype="float32"))
@example(Case(image=(6, 6), kernel=(3, 3), padding=((3, 4), (5, 3)), channels=9, filters=17, dtype="float32"))
def test_every_pass_is_within_the_stated_error(threads, case):
    import dask

    with dask.config.set({"daskconv.threads": threads}):
        check(case)


@pytest.mark.parametrize(("r", "m"), [(r, m) for r, sizes in winograd_tiles.KERNELS.items() for m in sizes])
def test_every_size_of_tile_is_within_the_stated_error(r, m):
    case = Case(n=2, image=(13, 9), kernel=(r, r), padding=r // 2, channels=64, filters=24, dtype="float32")
    with mock.patch.dict(winograd_tiles.KERNELS, {r: (m,)}):
        check(case)


def test_sums_that_do_not_fit_their_buffer_are_done_in_parts(monkeypatch):
    monkeypatch.setattr(winograd_grad, "_SUMS_BYTES", 1)
    check(Case(n=2, image=(8, 8), kernel=(3, 3), padding=1, channels=45, filters=20, dtype="float32"))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(case=tiled_cases(), m=st.sampled_from([2, 4]))
def test_tiles_cover_the_outputs(case, m):
    window = Window.of(case.kernel, case.image, padding=case.padding)
    p, q = window.output_size(*case.image)
    assert winograd_tiles.count_tiles(forward_correlation(window, *case.image), m) == -(-p // m) * -(-q // m)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [((3, 3), {"stride": 2}), ((3, 3), {"dilation": 2}), ((7, 7), {}), ((3, 5), {}), ((1, 1), {})],
)
def test_other_windows_are_refused_with_a_method_that_can(kernel, options):
    x, w = np.zeros((1, 16, 16, 4), np.float32), np.zeros((*kernel, 4, 4), np.float32)
    sentence = refuse(
        "method winograd does kernels of 3x3 and 5x5", daskconv.conv2d, x, w, method="winograd", **options
    )
    assert str(kernel) in sentence and "implicit" in sentence


def test_a_network_that_cannot_have_it_everywhere_says_which_layer():
    net = daskconv.zoo.lenet()
    first = net.nodes[0].name
    net.choose_methods((28, 28, 1), {first: "winograd"})
    refuse(
        f"{first}: method winograd is not exact",
        net.choose_methods,
        (28, 28, 1),
        {first: "winograd"},
        "exact",
    )
    pointwise = daskconv.Sequential([daskconv.Conv2D(4, 1), daskconv.Conv2D(4, 3)])
    refuse("conv1: method winograd", pointwise.choose_methods, (8, 8, 4), "winograd")


def test_exact_precision_keeps_auto_from_it():
    shape = ConvShape(Window.of(3, (28, 28), padding=1), (28, 28), 96, 128)
    assert [choose("auto", shape, p) for p in (None, "fast", "exact")] == ["winograd", "winograd", "implicit"]
    import dask

    with dask.config.set({"daskconv.precision": "exact"}):
        assert choose("auto", shape) == "implicit"
        assert choose("auto", shape, "fast") == "winograd"


@pytest.mark.parametrize("precision", ["Fast", "high", 3])
def test_other_words_for_precision_are_refused(precision):
    sentence = refuse(f"precision is {precision!r}", daskconv.Trainer, "lenet", precision=precision)
    assert "fast or exact" in sentence
    x, w = np.zeros((1, 4, 4, 2), np.float32), np.zeros((3, 3, 2, 2), np.float32)
    refuse("precision is", daskconv.conv2d, x, w, precision=precision)


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_that_do_not_fit_their_buffer_are_done_in_parts(monkeypatch, groups):
    monkeypatch.setattr(winograd_filters, "_FILTER_BYTES", 1)
    check(
        Case(
            n=2,
            image=(8, 9),
            kernel=(3, 3),
            padding=1,
            channels=20,
            filters=45,
            groups=groups,
            dtype="float32",
        )
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_threads_that_have_filters_of_their_own_have_room_for_a_part(monkeypatch, threads, groups):
    """As where filters are more than tiles: one thread alone takes them part by part, too."""
    monkeypatch.setattr(winograd_filters, "_FILTER_BYTES", 1)
    rooms = []

    def spied(*args, **options):
        rooms.append(winograd_filters.unpacked(*args, **options))
        return rooms[-1]

    monkeypatch.setattr(conv_winograd, "unpacked", spied)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 7, 7, 64)), rng.standard_normal((3, 3, 64 // groups, 700))
    window = Window.of(3, (7, 7), padding=1, groups=groups)
    monkeypatch.setattr(tiles, "_BLOCK_FLOPS", 100_000)
    got = conv.forward(x, w, None, window, "winograd", threads)
    want = conv.forward(x, w, None, window, "implicit", threads)
    np.testing.assert_allclose(got, want, atol=1e-9)
    (filters,) = rooms
    assert filters.owned and len(filters.panels) == threads and filters.filters == width_of(np.float64)
