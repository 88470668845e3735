"""Filters agree with scipy.ndimage: all modes, kernels of any size, origins, dtypes, axes and chunks."""

import re
from collections import Counter
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

import daskconv
from daskconv.graph import stencil as blocks
from daskconv.kernels import stencil
from reference import chunks, optimized, pairs, refuse

MODES = ("reflect", "constant", "nearest", "mirror", "wrap")
FUNCTIONS = ("convolve", "correlate")


def numbers(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if np.dtype(dtype) == bool:
        return rng.random(shape) < 0.5
    low, high = (0, 200) if np.dtype(dtype).kind == "u" else (-100, 100)
    return rng.integers(low, high, shape).astype(dtype)


def assert_like_scipy(image, kernel, name="convolve", relative=1e-6, given=None, **options):
    """Our result of an image, as NumPy or as `given`, is scipy's; to the bit where `relative` is 0."""
    got = getattr(daskconv, name)(image if given is None else given, kernel, **options)
    options.pop("precision", None)
    want = getattr(scipy.ndimage, name)(image, kernel, **options)
    assert got.dtype == want.dtype and got.shape == want.shape
    got = got.compute(scheduler="sync") if isinstance(got, da.Array) else got
    if relative:
        np.testing.assert_allclose(got, want, rtol=0, atol=relative * max(1, abs(want).max()))
    else:
        np.testing.assert_array_equal(got, want)


def origins_of(size):
    """What scipy allows for both functions."""
    return st.integers(-((size - 1) // 2), (size - 1) // 2)


@st.composite
def filterings(draw):
    kernel = draw(pairs(1, 6))
    return {
        "image": numbers(draw(pairs(1, 14)), draw(st.sampled_from(["float64", "int32", "uint8", "float32"]))),
        "kernel": numbers(kernel, seed=draw(st.integers(0, 9))),
        "name": draw(st.sampled_from(FUNCTIONS)),
        "mode": draw(st.sampled_from(MODES)),
        "cval": draw(st.sampled_from([0.0, 1.5, -3])),
        "origin": tuple(draw(origins_of(size)) for size in kernel),
    }


@settings(deadline=None, derandomize=True, max_examples=100)
@given(filtering=filterings(), data=st.data())
def test_any_mode_kernel_origin_and_chunks_agree_to_the_bit(filtering, data):
    relative = 1e-6 if filtering["image"].dtype == np.float32 else 0
    lazy = da.from_array(filtering["image"], data.draw(chunks(filtering["image"].shape)))
    for given_ in (None, lazy):
        assert_like_scipy(**filtering, relative=relative, given=given_, precision="exact")
    assert_like_scipy(**filtering, given=lazy)
    assert daskconv.convolve(lazy, filtering["kernel"]).chunks == lazy.chunks


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", [(3, 3), (2, 2), (4, 3), (1, 6), (7, 7)])
def test_every_mode(mode, name, size):
    image, kernel = numbers((23, 31)), numbers(size)
    options = {"mode": mode, "cval": 2.5, "precision": "exact"}
    for given_ in (None, da.from_array(image, (5, 4)), da.from_array(image, (1, 1))):
        assert_like_scipy(image, kernel, name, 0, given_, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_origin_that_scipy_allows_and_no_other(name):
    image = numbers((9, 11))
    for size in product([1, 2, 3, 4], [2, 5]):
        kernel = numbers(size)
        for origin in product(range(-3, 4), repeat=2):
            options = {"origin": origin, "mode": "wrap", "precision": "exact"}
            try:
                getattr(scipy.ndimage, name)(image, kernel, mode="wrap", origin=origin)
            except ValueError:
                match = (
                    f"origin is {origin}, which moves the kernel of {size[0]} x {size[1]} taps off its pixel"
                )
                refuse(match, getattr(daskconv, name), image, kernel, **options)
            else:
                assert_like_scipy(image, kernel, name, 0, **options)


@pytest.mark.parametrize("mode", MODES)
def test_a_kernel_may_be_larger_than_the_image(mode):
    image, kernel = numbers((4, 3)), numbers((15, 12))
    for given_ in (None, da.from_array(image, 2)):
        assert_like_scipy(image, kernel, mode=mode, given=given_, relative=0, precision="exact")
        assert_like_scipy(image, kernel, mode=mode, given=given_, relative=1e-12)


INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", *INTEGERS])
def test_results_have_the_dtype_of_the_image_and_lose_fractions_as_scipys(dtype):
    image = numbers((17, 13), dtype)
    kernel = numbers((3, 5)) / 4 if dtype != "bool" else np.ones((1, 1))
    for given_ in (None, da.from_array(image, (6, 13))):
        assert_like_scipy(image, kernel, given=given_, relative=1e-6 if dtype == "float32" else 0)


def test_a_mean_of_integers_is_added_in_scipys_order():
    """Nine ninths are 0.9999... in one order and 1 in another, and integers lose the fraction."""
    image = np.full((20, 20), 9, np.uint8)
    assert_like_scipy(image, np.full((3, 3), 1 / 9), relative=0)
    assert_like_scipy(numbers((20, 20), "uint8"), np.full((5, 5), 1 / 25), relative=0)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 2), (-2, -1), (-3, -1)])
@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_channels_are_filtered_one_by_one(axes, dtype):
    image, kernel = numbers((7, 8, 9), dtype), numbers((3, 4))
    options = {"axes": axes, "mode": "mirror", "origin": (1, -1)}
    for given_ in (image, da.from_array(image, (3, 4, 2))):
        assert_like_scipy(image, kernel, given=given_, relative=0, precision="exact", **options)
        # Rows and columns may be named the other way round.
        turned = options | {"axes": axes[::-1], "origin": (-1, 1)}
        got = daskconv.convolve(given_, kernel.T, precision="exact", **turned)
        np.testing.assert_array_equal(got, scipy.ndimage.convolve(image, kernel, **options))
    image = numbers((2, 5, 6, 3))
    assert_like_scipy(image, kernel, axes=(1, 2), given=da.from_array(image, (1, 2, 6, 2)), relative=0)


def method_of(kernel, dtype=np.float32, image=(500, 500)):
    found = stencil.stencil_of(np.asarray(kernel, np.float64), np.dtype(dtype), image, True)
    return "passes" if found.down is not None else "frequencies" if found.spectrum is not None else "taps"


def gaussian(size):
    line = np.exp(-(np.linspace(-2, 2, size) ** 2))
    return np.outer(line, line / line.sum())


def test_kernels_of_rank_1_take_two_passes_and_large_ones_frequencies():
    assert method_of(gaussian(15)) == method_of(gaussian(15).astype(np.float32)) == "passes"
    assert method_of(gaussian(15) + 1e-3 * numbers((15, 15))) == "taps"
    assert method_of(gaussian(41)) == "passes"
    assert method_of(numbers((41, 41))) == "frequencies"
    assert method_of(numbers((3, 3))) == method_of(np.zeros((9, 9))) == "taps"
    nan = numbers((41, 41))
    nan[3, 4] = np.nan
    assert method_of(nan) == "taps"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [gaussian(15), numbers((31, 25)), numbers((1, 601)), gaussian(8) * -3])
def test_passes_and_frequencies_agree_with_scipy(mode, dtype, kernel):
    image = numbers((300, 310), dtype)
    assert method_of(kernel, dtype) != "taps"
    relative = 4e-6 if dtype == "float32" else 1e-13
    for given_ in (None, da.from_array(image, (150, 100))):
        assert_like_scipy(image, kernel, mode=mode, cval=1.25, given=given_, relative=relative)
    got = daskconv.convolve(image, kernel, precision="exact")
    if dtype == "float64":
        np.testing.assert_array_equal(got, scipy.ndimage.convolve(image, kernel))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [3, 9, 31])
@pytest.mark.parametrize("kind", ["dense", "rank 1", "sparse"])
def test_what_is_not_finite_reaches_no_further_than_the_kernel(bad, size, kind):
    kernel = numbers((size, size)) if kind != "rank 1" else gaussian(size)
    if kind == "sparse":
        kernel[::2, 1::2] = 0
    image = numbers((330, 340))
    image[100, 120] = image[0, 0] = bad
    want = scipy.ndimage.convolve(image, kernel)
    for given_ in (image, da.from_array(image, (110, 340))):
        got = np.asarray(daskconv.convolve(given_, kernel))
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
        finite = np.isfinite(want)
        np.testing.assert_allclose(got[finite], want[finite], rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [3, 31])
def test_threads_do_not_show_in_the_bits(monkeypatch, size):
    monkeypatch.setattr(blocks, "_PIXELS", 5000)
    image, kernel = numbers((400, 300), "float32"), numbers((size, size))
    results = []
    for threads in (1, 2, 3):
        with dask.config.set({"daskconv.threads": threads}):
            results.append(daskconv.convolve(image, kernel))
    assert all((other == results[0]).all() for other in results)


@pytest.mark.parametrize("layout", ["Fortran", "strided", "reversed"])
def test_images_may_lie_in_memory_in_any_way(layout):
    image = numbers((40, 50))
    image = {"Fortran": np.asfortranarray(image), "strided": image[::2, 1::3], "reversed": image[::-1, ::-1]}[
        layout
    ]
    lazy = da.from_array(np.zeros(image.shape), (11, 13)) + image
    for given_ in (None, lazy, lazy.T.T):
        assert_like_scipy(image, numbers((5, 3)), given=given_, relative=0, precision="exact")


def test_lists_and_files_are_images_too(tmp_path):
    assert daskconv.convolve([[1, 2], [3, 4]], [[2]]).tolist() == [[2, 4], [6, 8]]
    image = np.memmap(tmp_path / "image", np.float32, "w+", shape=(30, 40))
    image[:] = numbers((30, 40))
    image.flags.writeable = False
    assert_like_scipy(image, numbers((3, 3)))


def test_the_precision_of_the_configuration_counts():
    image, kernel = numbers((60, 60)), gaussian(9)
    with dask.config.set({"daskconv.precision": "exact"}):
        assert_like_scipy(image, kernel, relative=0)
    assert (daskconv.convolve(image, kernel) != scipy.ndimage.convolve(image, kernel)).any()


def test_the_graph_has_two_tasks_a_chunk():
    image = da.random.default_rng(0).random((600, 600), chunks=100, dtype=np.float32)
    result = daskconv.convolve(image, numbers((5, 5)))
    layer = result.dask.layers[result.name]
    kinds = Counter(re.sub("-[0-9a-f]{32}$", "", key if isinstance(key, str) else key[0]) for key in layer)
    assert kinds == {"convolve": 36, "convolve-rims": 36, "convolve-kernel": 1}
    for key in result.__dask_keys__()[3][3:4]:
        assert [name for name in layer[key].dependencies if name[0] == image.name] == [(image.name, 3, 3)]
    assert set(daskconv.convolve(image, numbers((5, 5))).dask) == set(result.dask)
    assert daskconv.convolve(image, numbers((5, 5)), "wrap").name != result.name
    assert len(optimized(result)) == 36 * 3 + 1


def test_images_without_pixels():
    assert daskconv.convolve(np.zeros((0, 5)), np.ones((3, 3))).shape == (0, 5)
    assert daskconv.convolve(da.zeros((5, 0), chunks=2), np.ones((3, 3))).compute().shape == (5, 0)


def test_what_does_not_fit_is_refused():
    image, kernel = np.zeros((6, 7)), np.ones((3, 3))

    def refused(match, *args, **options):
        for name in FUNCTIONS:
            refuse(match, getattr(daskconv, name), *args, **options)

    refused(
        "mode is 'reflected': choose reflect, constant, nearest, mirror or wrap",
        image,
        kernel,
        mode="reflected",
    )
    refused("kernel has shape (3,): give two axes", image, kernel[0])
    refused("kernel has shape (0, 3): give two axes", image, kernel[:0])
    refused("kernel is complex128: give real numbers", image, kernel * 1j)
    for dtype in ("complex64", "float16", ">f4"):
        refused(f"image is {np.dtype(dtype)}: convert to float32", image.astype(dtype), kernel)
    refused("image has shape (6, 7, 1): name its two axes", image[..., None], kernel)
    for axes in ((0, 0), (0, 3), (0,), (0, 1, 2), "ab", 1, (0.0, 1)):
        refused(f"axes is {axes!r}: give two different axes", image[..., None], kernel, axes=axes)
    for origin in (0.5, (1, 2, 3), "a", None):
        refused(f"origin is {origin!r}: give an int or a pair", image, kernel, origin=origin)
    refused(
        "origin is (0, 2), which moves the kernel of 3 x 3 taps off its pixel", image, kernel, origin=(0, 2)
    )
    refused("cval is 'a': give a real number", image, kernel, mode="constant", cval="a")
    refused("precision is 'best'", image, kernel, precision="best")
    unknown = da.from_array(image, 2)
    refused("image has chunks of unknown size", unknown[unknown[:, 0] >= 0], kernel)
