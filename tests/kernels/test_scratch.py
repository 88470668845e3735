"""Memory: where arrays begin, and scratch buffers, one of a name and thread, grown when it has to be."""

import threading

import numpy as np
import pytest

from daskconv.kernels.scratch import empty, scratch


def address(array):
    return array.__array_interface__["data"][0]


def test_a_buffer_is_handed_out_again_while_it_is_large_enough():
    first = scratch("test again", (4, 6), np.float64)
    for shape, dtype in [((4, 6), np.float64), ((2, 3), np.float32), ((0, 5), np.float64)]:
        again = scratch("test again", shape, dtype)
        assert again.shape == shape and again.dtype == dtype and again.flags.c_contiguous
        assert address(again) == address(first)


def test_a_larger_one_replaces_it():
    small = scratch("test grown", (2,), np.float32)
    small[...] = 7
    large = scratch("test grown", (1000, 3), np.float64)
    large[...] = 1
    assert not np.shares_memory(small, large) and (small == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_buffers_are_aligned(dtype):
    for size in (1, 3, 1001):
        assert scratch(f"test aligned {size}", (size,), dtype).flags.aligned


def test_arrays_begin_at_a_cache_line_and_large_ones_at_a_large_page():
    for size, apart in [(1, 64), (1000, 64), ((1 << 20) - 1, 64), (1 << 20, 2 << 20), (3 << 20, 2 << 20)]:
        array = empty((size,), np.float32)
        assert array.shape == (size,) and address(array) % apart == 0
        array[:] = 1  # all of it is there


def test_names_and_threads_have_buffers_of_their_own():
    mine, other = scratch("test one", (5,), np.float64), scratch("test two", (5,), np.float64)
    found = []
    thread = threading.Thread(target=lambda: found.append(scratch("test one", (5,), np.float64)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, other) and not np.shares_memory(mine, found[0])
