"""Spans and their overlap."""

import pytest

from daskconv.timeline import Span, overlap, record, timed


def span(stage, thread, start, end):
    return Span(stage, 0, thread, start, end)


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], 0),
        ([span("lower", 1, 0, 4)], 0),
        ([span("product", 1, 0, 4)], 0),
        ([span("lower", 1, 0, 4), span("product", 2, 1, 3)], 0.5),
        ([span("lower", 1, 0, 4), span("product", 2, 3, 9)], 0.25),
        ([span("lower", 1, 0, 4), span("product", 2, 4, 9)], 0),
        ([span("lower", 1, 0, 4), span("product", 1, 0, 4)], 0),
        ([span("lower", 1, 0, 4), span("lower", 2, 0, 4)], 0),
        ([span("lower", 1, 0, 4), span("product", 2, 0, 2), span("product", 3, 1, 3)], 0.75),
        ([span("lower", 1, 0, 2), span("lower", 1, 2, 4), span("product", 2, 0, 1)], 0.25),
    ],
)
def test_overlap_is_the_share_of_lowering_beside_products_of_other_threads(spans, share):
    assert overlap(spans) == share


def test_only_open_recordings_hear_of_a_task():
    with record() as outer:
        timed("lower", 0, len, ())
        with record() as inner:
            assert timed("product", 1, len, (1, 2)) == 2
        timed("product", 2, len, ())
    timed("product", 3, len, ())
    assert [(s.stage, s.tile) for s in outer] == [("lower", 0), ("product", 1), ("product", 2)]
    assert [(s.stage, s.tile) for s in inner] == [("product", 1)]
    assert all(s.end >= s.start for s in outer)
