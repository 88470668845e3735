"""Every method and pass of a convolution against its definition in float64, and finite differences."""

import numpy as np
import pytest
from hypothesis import example, given, settings

import daskconv
from daskconv.geometry import Window
from daskconv.kernels import winograd_tiles
from reference import EXACT, METHODS, MIXED, PASSES, Case, assert_close, cases, run_passes, slope, small_cuts

drawn = settings(deadline=None, derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def _many_cuts():
    with pytest.MonkeyPatch.context() as patch:
        small_cuts(patch)
        yield


def check(case: Case, arrays=None) -> None:
    arrays = arrays or case.arrays()
    want, magnitudes, norms = (find(*arrays) for find in (case.expected, case.magnitudes, case.norms))
    for method in METHODS:
        magnitude = norms if method in MIXED else magnitudes
        got = run_passes(case, method, arrays)
        for name in PASSES:
            assert_close(got[name], want[name], magnitude[name], case.dtype)


@pytest.mark.parametrize("threads", [1, 2])
@settings(drawn, max_examples=60)
@given(case=cases())
@example(Case(image=(1, 1), kernel=(1, 1), channels=1, filters=1, n=1))
@example(Case(image=(1, 1), kernel=(3, 3), padding="same", stride=2))
@example(Case(image=(1, 1), kernel=(2, 2), padding=3, stride=4, dtype="float32"))
@example(Case(image=(9, 8), kernel=(2, 1), stride=(5, 4), padding=((3, 0), (0, 2))))
@example(Case(image=(7, 7), groups=4, channels=1, filters=1, kernel=(3, 3), padding=1))
@example(Case(image=(7, 7), groups=4, channels=1, filters=3, kernel=(3, 3), data_format="NCHW"))
@example(Case(image=(8, 9), kernel=(3, 3), dilation=(2, 3), stride=(3, 2), padding=(2, 4)))
@example(Case(image=(3, 3), kernel=(1, 1), stride=2, padding=((2, 3), (2, 3))))
@example(Case(image=(3, 5), kernel=(1, 2), stride=(1, 3), padding=((3, 3), (3, 4)), groups=2))
@example(Case(image=(4, 4), kernel=(4, 4), stride=7, padding=((0, 3), (3, 0)), dtype="float32"))
def test_every_method_and_pass_is_the_definition(threads, case):
    with daskconv_threads(threads):
        check(case)


def daskconv_threads(threads):
    import dask

    return dask.config.set({"daskconv.threads": threads})


@settings(drawn, max_examples=40)
@given(case=cases(most_images=12))
@example(Case(n=9, image=(17, 13), channels=5, filters=36, kernel=(3, 3), padding=1))
@example(Case(n=9, image=(9, 11), channels=40, filters=6, kernel=(5, 5), padding=2, dtype="float32"))
@example(Case(n=7, image=(9, 11), channels=17, filters=16, kernel=(1, 1), dtype="float32"))
def test_the_bits_are_the_same_on_any_number_of_threads(case):
    arrays = case.arrays()
    window = Window.of(
        case.kernel, case.image, stride=case.stride, dilation=case.dilation, padding=case.padding
    )
    tiled = winograd_tiles.fits(window)
    for method in (*METHODS, *["winograd"] * tiled):
        with daskconv_threads(1):
            want = run_passes(case, method, arrays)
        for threads in (2, 3, 5):
            with daskconv_threads(threads):
                got = run_passes(case, method, arrays)
            for name in PASSES:
                np.testing.assert_array_equal(got[name], want[name], f"{method} {name}, {threads} threads")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case",
    [
        Case(n=5, image=(16, 15), channels=3, filters=16, kernel=(5, 5), padding=2),
        Case(n=7, image=(11, 12), channels=16, filters=24, kernel=(3, 3), padding="same", stride=2),
        Case(n=6, image=(13, 9), channels=5, filters=7, groups=3, kernel=(3, 2), dilation=2, padding=1),
        Case(n=31, image=(7, 5), channels=18, filters=21, kernel=(3, 3), padding=1),
        Case(n=27, image=(4, 2), channels=6, filters=20, groups=2, kernel=(3, 2), stride=2, padding=3),
        Case(n=40, image=(1, 1), channels=33, filters=9, kernel=(1, 1)),
        Case(n=9, image=(14, 14), channels=1, filters=1, groups=12, kernel=(3, 3), padding=1, stride=(1, 2)),
        Case(n=2, image=(120, 30), channels=2, filters=3, kernel=(11, 9), padding="same"),
    ],
    ids=["rgb", "same, stride 2", "groups, dilation 2", "many small images", "small images, stride 2",
         "pointwise", "depthwise", "large"],
)  # fmt: skip
def test_many_tiles_are_the_definition(case, dtype):
    case = Case(**{**case.__dict__, "dtype": dtype})
    with daskconv_threads(2):
        check(case)


@pytest.mark.parametrize("method", METHODS)
def test_no_images_give_no_outputs_and_a_zero_weight_gradient(method):
    case = Case(n=0, stride=2, padding=1)
    results = run_passes(case, method)
    assert results["forward"].shape == case.y_shape and results["forward"].size == 0
    assert results["input_grad"].shape == case.x_shape
    assert results["weight_grad"].shape == case.w_shape and not results["weight_grad"].any()


@pytest.mark.parametrize("method", METHODS)
def test_strided_and_read_only_arrays_are_as_good_as_contiguous_ones(method):
    case = Case(n=3, image=(7, 6), padding=1, stride=2)
    x, w, bias, dy = case.arrays()

    def spread(array):
        wide = np.full([2 * size for size in array.shape], np.nan)
        view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
        view[...] = array
        view.flags.writeable = False
        return view

    plain = run_passes(case, method, (x, w, bias, dy))
    spaced = run_passes(case, method, tuple(map(spread, (x, w, bias, dy))))
    for name in PASSES:
        np.testing.assert_array_equal(spaced[name], plain[name])


@pytest.mark.parametrize("method", METHODS)
def test_inputs_stay_as_they_were(method):
    case = Case(n=3, image=(7, 6), padding=1, stride=2)
    arrays = case.arrays()
    copies = [array.copy() for array in arrays]
    run_passes(case, method, arrays)
    for array, copy in zip(arrays, copies):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("method", EXACT)
def test_a_nan_pixel_reaches_its_outputs_and_no_others(method):
    case = Case(n=2, image=(6, 6), kernel=(3, 3), padding=1)
    x, w, bias, _ = case.arrays()
    x[1, 0, 0, 0] = np.nan
    y = daskconv.conv2d(x, w, bias, method=method, padding=1)
    seen = np.zeros(case.y_shape, bool)
    seen[1, :2, :2] = True
    np.testing.assert_array_equal(np.isnan(y), seen)


@settings(drawn, max_examples=30)
@given(case=cases(dtypes=("float64",)))
def test_gradients_of_every_method_agree_with_finite_differences(case):
    x, w, bias, dy = case.arrays()
    rng = np.random.default_rng(case.seed + 1)
    dx_way, dw_way = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
    x_shape = case.as_given(x).shape
    for method in METHODS:
        options = {**case.options, "method": method}

        def loss(x, w, options=options):
            return np.vdot(daskconv.conv2d(case.as_given(x), w, bias, **options), case.as_given(dy))

        dx = daskconv.conv2d_input_grad(case.as_given(dy), w, x_shape, **options)
        dw = daskconv.conv2d_weight_grad(case.as_given(x), case.as_given(dy), w.shape, **options)
        scale = np.sqrt(dy.size * w[..., 0].size)
        by_x = slope(lambda moved, loss=loss: loss(moved, w), x, dx_way)
        by_w = slope(lambda moved, loss=loss: loss(x, moved), w, dw_way)
        assert np.vdot(dx, case.as_given(dx_way)) == pytest.approx(by_x, abs=1e-8 * scale, rel=1e-7)
        assert np.vdot(dw, dw_way) == pytest.approx(by_w, abs=1e-8 * scale, rel=1e-7)


def test_bias_is_added_once_to_each_output():
    x, w = np.zeros((1, 4, 4, 2)), np.ones((2, 2, 2, 3))
    for method in METHODS:
        y = daskconv.conv2d(x, w, np.array([1.0, 2.0, 3.0]), method=method, padding=1)
        assert (y == [1, 2, 3]).all()


def test_a_hand_computed_convolution():
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    w = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    for method in EXACT:
        y = daskconv.conv2d(x, w, method=method)[0, :, :, 0]
        assert y.tolist() == [[27, 37], [57, 67]]
        dx = daskconv.conv2d_input_grad(np.ones((1, 2, 2, 1)), w, x.shape, method=method)[0, :, :, 0]
        assert dx.tolist() == [[1, 3, 2], [4, 10, 6], [3, 7, 4]]
        dw = daskconv.conv2d_weight_grad(x, np.ones((1, 2, 2, 1)), w.shape, method=method)[:, :, 0, 0]
        assert dw.tolist() == [[8, 12], [20, 24]]


def test_same_padding_puts_the_odd_pixel_at_the_end():
    x = np.arange(1.0, 5.0).reshape(1, 1, 4, 1)
    w = np.array([1.0, 10.0]).reshape(1, 2, 1, 1)
    for method in EXACT:
        y = daskconv.conv2d(x, w, padding="same", method=method)
        assert y.ravel().tolist() == [21, 32, 43, 4]
