"""Layouts and even cuts."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.layout import Layout, even_parts
from reference import refuse


def test_a_layout_counts_and_names_its_parts():
    layout = Layout(n=2, k=3)
    assert layout.shards == 6 and layout.split_axes == ("n", "k") and str(layout) == "n=2, k=3"
    assert dict(layout.items()) == {"n": 2, "h": 1, "w": 1, "c": 1, "k": 3}
    assert str(Layout()) == "whole" and Layout().shards == 1 and Layout().split_axes == ()


@pytest.mark.parametrize("axis", "nhwck")
@pytest.mark.parametrize("parts", [0, -2, 1.0, "2", None])
def test_parts_are_ints_of_at_least_1(axis, parts):
    match = f"The layout splits {axis} into {parts!r} parts: give an int of at least 1"
    refuse(match, Layout, **{axis: parts})


@settings(deadline=None, derandomize=True, max_examples=60)
@given(size=st.integers(0, 100), parts=st.integers(1, 20))
def test_even_parts_partition_and_the_longer_come_first(size, parts):
    ranges = even_parts(size, parts)
    assert len(ranges) == parts and ranges[0][0] == 0 and ranges[-1][1] == size
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    lengths = [stop - start for start, stop in ranges]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
