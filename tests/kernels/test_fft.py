"""The frequency domain: tiles, chunks of frequencies, blocks of images; accuracy in float32."""

import numpy as np
import pytest

from daskconv.geometry import Window, forward_correlation
from daskconv.kernels import fft
from reference import PASSES, Case, assert_close, run_passes

CASE = Case(n=3, image=(40, 37), channels=3, filters=4, groups=2, kernel=(7, 5), padding=((3, 9), (0, 2)))


@pytest.fixture
def small(monkeypatch):
    """Short tiles, one frequency and one image at a time."""
    fft._axis.cache_clear()
    monkeypatch.setattr(fft, "_LENGTH", 12)
    monkeypatch.setattr(fft, "_WEIGHT_BYTES", 1)
    monkeypatch.setattr(fft, "_IMAGE_BYTES", 1)
    yield
    fft._axis.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), ((2, 3), 1), (1, (2, 3)), ((7, 2), 2)])
def test_tiles_chunks_and_blocks_are_the_definition(small, stride, dilation, dtype):
    case = Case(**{**CASE.__dict__, "stride": stride, "dilation": dilation, "dtype": dtype})
    arrays = case.arrays()
    got, want, norms = run_passes(case, "fft", arrays), case.expected(*arrays), case.norms(*arrays)
    for name in PASSES:
        assert_close(got[name], want[name], norms[name], dtype)


def test_the_tiles_of_a_large_image_are_short_and_cover_it():
    for kernel, size in ((11, 500), (31, 500), (3, 97), (64, 300)):
        correlation = forward_correlation(Window.of(kernel, (size, size), padding="same"), size, size)
        rows, cols = fft.axes(correlation)
        assert rows == cols and rows.length <= max(96, 2 * kernel)
        assert [i for tile in rows.tiles for i in range(*tile)] == list(range(size))


def test_a_tile_reads_what_its_outputs_need_and_no_more():
    (axis, _) = fft.axes(forward_correlation(Window.of(5, (300, 300), padding=2), 300, 300))
    first, last = axis.tiles[0], axis.tiles[-1]
    pixels, places = axis.read(first, 300)
    assert pixels.start == 0 and places.start == 2 and len(places) == pixels.stop
    pixels, places = axis.read(last, 300)
    assert pixels.stop == 300 and pixels.start == last[0] - 2


def test_long_reductions_in_float32_err_as_those_of_blas_do():
    """The mean error is below 5e-7 of the mean result, which is the root of the number of terms."""
    case = Case(n=2, image=(40, 40), channels=16, filters=8, kernel=(31, 31), padding="same", dtype="float32")
    arrays = case.arrays()
    got, want = run_passes(case, "fft", arrays), case.expected(*arrays)
    for name in PASSES:
        assert np.linalg.norm(got[name] - want[name]) < 5e-7 * np.linalg.norm(want[name]), name


def test_a_nan_stays_in_its_image():
    case = Case(n=3, image=(9, 9), kernel=(3, 3), padding=1)
    arrays = case.arrays()
    arrays[0][1, 4, 4, 0] = np.nan
    y = run_passes(case, "fft", arrays)["forward"]
    assert np.isnan(y[1]).all() and not np.isnan(y[[0, 2]]).any()
