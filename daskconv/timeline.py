"""A timeline: which stage of which layer ran when, and on which thread, from inside the code that runs.

Who records stands somewhere: a :class:`Place` belongs to the thread, and the threads that help with its graphs take it
over. Where nobody records, no clock is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Span:
    """One stage of one tile or layer: ``start`` and ``end`` in seconds of ``time.perf_counter``.

    Attributes
    ----------
    stage : str
        "lower", "product", "convolve" (a kernel that does both in one), "other", "wait", "exchange" (a thread waits
        for other workers) or "travel" (arrays are under way while threads compute).
    tile : int
        Counts what a layer is cut into; 0 elsewhere.
    thread : int
    start, end : float
    layer, pass_ : str
        "" where no layer runs; a pass is "forward" or "backward".
    """

    stage: str
    tile: int
    thread: int
    start: float
    end: float
    layer: str = ""
    pass_: str = ""


class Place(NamedTuple):
    """Where a thread stands: the recordings that hear of it, and the layer and pass that it is in."""

    recordings: tuple[list[Span], ...]
    layer: str = ""
    pass_: str = ""


class _Here(threading.local):
    place: Place | None = None


_here = _Here()


@contextmanager
def record(spans: list[Span] | None = None) -> Iterator[list[Span]]:
    """Collect the spans of all that this thread and its helpers do while the context is open.

    Parameters
    ----------
    spans : list of Span, optional
        Of a recording that goes on.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> with record() as spans:
    ...     y = daskconv.conv2d(np.ones((4, 9, 9, 2)), np.ones((3, 3, 2, 5)), method="pipelined")
    >>> {span.stage for span in spans} >= {"lower", "product"}
    True
    """
    spans = [] if spans is None else spans
    before = _here.place
    recordings = (*before.recordings, spans) if before else (spans,)
    with standing_at(before._replace(recordings=recordings) if before else Place(recordings)):
        yield spans


def place() -> Place | None:
    """Return where this thread stands, None where nobody records."""
    return _here.place


@contextmanager
def standing_at(place: Place | None) -> Iterator[None]:
    """Let this thread stand where another one does while the context is open."""
    before, _here.place = _here.place, place
    try:
        yield
    finally:
        _here.place = before


def timed(stage: str, tile: int, function: Callable[..., Any], *args: Any) -> Any:
    """Call the function and record its span where somebody listens."""
    if _here.place is None:
        return function(*args)
    start = perf_counter()
    result = function(*args)
    note(stage, tile, start)
    return result


def in_layer(layer: str, pass_: str, stage: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call what a layer does in a pass; spans inside of it are the layer's."""
    here = _here.place
    if here is None:
        return function(*args)
    _here.place = Place(here.recordings, layer, pass_)
    start = perf_counter()
    try:
        result = function(*args)
        note(stage, 0, start)
    finally:
        _here.place = here
    return result


def note(stage: str, tile: int, start: float, at: Place | None = None, thread: int | None = None) -> None:
    """Record a span that began at ``start`` and ends now, of this thread and where it stands, or of another one."""
    here = at or _here.place
    if here is not None:
        span = Span(
            stage, tile, thread or threading.get_ident(), start, perf_counter(), here.layer, here.pass_
        )
        for spans in here.recordings:
            spans.append(span)


def own_times(spans: Sequence[Span]) -> list[float]:
    """Return the seconds of each span that no span inside of it, on its thread, accounts for.

    Examples
    --------
    >>> own_times([Span("wait", 0, 1, 0.0, 8.0), Span("lower", 0, 1, 1.0, 3.0), Span("product", 0, 2, 0.0, 9.0)])
    [6.0, 2.0, 9.0]
    """
    own = [span.end - span.start for span in spans]
    around: list[int] = []
    order = sorted(range(len(spans)), key=lambda i: (spans[i].thread, spans[i].start, -spans[i].end))
    for at in order:
        span = spans[at]
        while around and not _holds(spans[around[-1]], span):
            around.pop()
        if around:
            own[around[-1]] -= span.end - span.start
        around.append(at)
    return own


def _holds(outer: Span, inner: Span) -> bool:
    return outer.thread == inner.thread and outer.start <= inner.start and inner.end <= outer.end


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
