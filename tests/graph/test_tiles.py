"""Where a pass is cut."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.graph.tiles import Work, blocks, pipelined_tiles

works = st.builds(Work, st.integers(1, 10**9), st.integers(1, 10**8))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.integers(1, 200_000), work=works)
def test_cuts_partition_the_rows_near_evenly(rows, work):
    for cuts in (pipelined_tiles(rows, work), blocks(rows, work)):
        assert cuts[0][0] == 0 and cuts[-1][1] == rows
        assert all(before[1] == after[0] for before, after in pairwise(cuts))
        lengths = [stop - start for start, stop in cuts]
        assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.integers(1, 200_000), work=works)
def test_a_tile_fits_the_caches_and_a_block_the_memory(rows, work):
    longest = max(stop - start for start, stop in pipelined_tiles(rows, work))
    assert longest <= 64 or longest * work.bytes <= 2 << 20
    longest = max(stop - start for start, stop in blocks(rows, work))
    assert longest == 1 or (longest - 1) * work.bytes < 256 << 20


def test_no_rows_are_one_empty_cut():
    assert pipelined_tiles(0, Work(8, 8)) == blocks(0, Work(8, 8)) == [(0, 0)]


def test_little_work_is_not_cut():
    assert blocks(1000, Work(1000, 100)) == [(0, 1000)]
    assert pipelined_tiles(64, Work(10**9, 10**9)) == [(0, 64)]
