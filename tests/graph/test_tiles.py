"""Where a pass is cut."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.graph.tiles import Work, blocks, pipelined_columns, pipelined_tiles, turns

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
@given(rows=st.integers(0, 20_000), threads=st.integers(1, 64), grain=st.integers(1, 300))
def test_turns_partition_the_rows_and_get_shorter(rows, threads, grain):
    cuts = turns(rows, threads, grain)
    assert [stop for _, stop in cuts[:-1]] == [start for start, _ in cuts[1:]]
    assert not rows or (cuts[0][0], cuts[-1][1]) == (0, rows)
    assert threads == 1 or all(start % grain == 0 for start, _ in cuts)
    lengths = [stop - start for start, stop in cuts]
    assert sorted(lengths, reverse=True) == lengths
    if threads > 1 and rows:
        assert lengths[0] <= max(rows / (2 * threads), grain), "threads that come late find some left"
        assert lengths[-1] <= max(rows / (24 * threads) + grain, grain), "and wait little for the last"


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.integers(1, 200_000), work=works)
def test_a_tile_fits_the_caches_and_a_block_the_memory(rows, work):
    longest = max(stop - start for start, stop in pipelined_tiles(rows, work))
    assert longest <= 64 or longest * work.bytes <= 16 << 20
    if longest > 64 and longest * work.bytes > 4 << 20:
        assert (longest - 1) * work.flops < 160_000_000, "larger tiles only to be worth their tasks"
    longest = max(stop - start for start, stop in blocks(rows, work))
    assert longest == 1 or (longest - 1) * work.bytes < 256 << 20


def test_weights_that_are_more_than_the_lowered_rows_are_split_by_output_channels():
    work = Work(2 * 1728 * 384, 1728 * 4)
    assert pipelined_columns(1000, 384, work) == [(0, 384)]
    assert pipelined_columns(250, 384, work) == [(0, 192), (192, 384)]
    assert pipelined_columns(49, 384, work) == [(0, 384)], "a task has to be worth it"
    assert pipelined_columns(0, 384, work) == [(0, 384)]
    assert pipelined_columns(250, 400, work, 64) == [(0, 256), (256, 400)]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.integers(1, 200_000), columns=st.integers(1, 4000), depth=st.integers(1, 30_000))
def test_a_product_is_worth_a_task_wherever_there_is_work_enough(rows, columns, depth):
    work = Work(2 * depth * columns, 4 * depth)
    tiles = pipelined_tiles(rows, work)
    parts = pipelined_columns(tiles[-1][1] - tiles[-1][0], columns, work)
    assert parts[0][0] == 0 and parts[-1][1] == columns
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    length = tiles[-1][1] - tiles[-1][0]
    for start, stop in parts if len(parts) > 1 else []:
        assert 2 * depth * length * (stop - start) >= 150_000_000
    if 1 < len(tiles) <= 8 and rows * work.bytes < 4 << 20:
        assert length * work.flops >= 150_000_000


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.integers(1, 200_000), work=works)
def test_threads_get_as_many_tiles_each(rows, work):
    tiles = len(pipelined_tiles(rows, work))
    assert tiles in (1, 2, 4) or tiles % 8 == 0 or tiles == rows


def test_no_rows_are_one_empty_cut():
    assert pipelined_tiles(0, Work(8, 8)) == blocks(0, Work(8, 8)) == [(0, 0)]


def test_little_work_is_not_cut():
    assert blocks(1000, Work(1000, 100)) == [(0, 1000)]
    assert pipelined_tiles(64, Work(10**9, 10**9)) == [(0, 64)]
