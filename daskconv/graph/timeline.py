"""A timeline of tasks: which stage ran when on which thread, from inside the tasks themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Span:
    """One stage of one tile: ``start`` and ``end`` in seconds of ``time.perf_counter``."""

    stage: str
    tile: int
    thread: int
    start: float
    end: float


_recordings: list[list[Span]] = []


@contextmanager
def record() -> Iterator[list[Span]]:
    """Collect the spans of every task that ends while the context is open.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> with record() as spans:
    ...     y = daskconv.conv2d(np.ones((4, 9, 9, 2)), np.ones((3, 3, 2, 5)), method="pipelined")
    >>> sorted({span.stage for span in spans})
    ['lower', 'product']
    """
    spans: list[Span] = []
    _recordings.append(spans)
    try:
        yield spans
    finally:
        # By identity: two recordings that hold equal spans are still two.
        _recordings[:] = [other for other in _recordings if other is not spans]


def timed(stage: str, tile: int, function: Callable[..., Any], *args: Any) -> Any:
    """Call the function and record its span where somebody listens."""
    if not _recordings:
        return function(*args)
    start = perf_counter()
    result = function(*args)
    span = Span(stage, tile, threading.get_ident(), start, perf_counter())
    for spans in _recordings:
        spans.append(span)
    return result


def overlap(spans: list[Span], stage: str = "lower", beside: str = "product") -> float:
    """Return the share of ``stage``'s time that runs beside ``beside`` on another thread, 0 to 1."""
    total = sum(span.end - span.start for span in spans if span.stage == stage)
    shared = sum(
        _union(
            [_clip(other, span) for other in spans if other.stage == beside and other.thread != span.thread]
        )
        for span in spans
        if span.stage == stage
    )
    return shared / total if total else 0.0


def _clip(span: Span, window: Span) -> tuple[float, float]:
    return max(span.start, window.start), min(span.end, window.end)


def _union(intervals: list[tuple[float, float]]) -> float:
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length
