"""Watch: what a process tells of the steps it takes, as events, a few a second.

How far it is, it always tells. Where the time of a step goes is collected where somebody asked, for one step of many:
all workers choose the same ones, by their numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil, log2
from time import perf_counter
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import numpy as np

from daskconv import timeline
from daskconv.events import Event, StepDone, WorkerStep
from daskconv.plan.program import Program
from daskconv.plan.tasks import Position
from daskconv.timeline import Span, own_times

# Seconds between two events of a kind; steps are chosen a little further apart.
_INTERVAL, _APART = 0.5, 0.6
# Spans of an event; workers that send any: a page has no room for more.
_SPANS, _LANES = 400, 16
# Events a second of all workers together, where they are very many.
_A_SECOND = 200


class Asked(NamedTuple):
    """What is told of a run.

    Attributes
    ----------
    run : str
        What events call it; "" where nobody keeps them.
    closely : bool
        Whether it is told where the time of steps goes, too.
    """

    run: str = ""
    closely: bool = False


NOBODY = Asked()


def asked_now() -> Asked:
    """Return what a new run tells: where time goes only with Dask's configuration ``daskconv.dashboard.enabled``."""
    return Asked(uuid4().hex[:12], bool(dask.config.get("daskconv.dashboard.enabled")))


class Watch:
    """Tells of steps.

    Parameters
    ----------
    program : Program
    tell : function
        Takes events to whoever listens.
    asked : Asked
    worker : str
    rank, workers : int
        The worker's number among all.
    share : float
        Of a step's images, what this worker computes.
    threads : int
    interval : float
        Seconds between two events of how far it is.
    """

    def __init__(
        self,
        program: Program,
        tell: Callable[[Event], None],
        asked: Asked = NOBODY,
        worker: str = "local",
        rank: int = 0,
        workers: int = 1,
        share: float = 1.0,
        threads: int = 1,
        interval: float = _INTERVAL,
    ) -> None:
        self.program, self.tell, self.worker = program, tell, worker
        self.run, self.closely = asked
        self.share, self.threads, self.interval = share, threads, interval
        self._apart = max(_APART, workers / _A_SECOND)
        self._sends_spans = rank % -(-workers // _LANES) == 0
        self._numbers: dict[int, int] = {}
        self._told = self._told_step = float("-inf")
        self._before: Position | None = None
        self._mean = 0.0
        self._began: float | None = None
        self._left: float | None = None
        self._spans: list[Span] | None = None
        self._clear()

    def _clear(self) -> None:
        self.steps, self.images = 0, 0.0
        self.seconds = self.working_seconds = self.waiting_seconds = 0.0

    def begin(self, epoch: int, step: int, steps: int, images: int) -> None:
        """A step of so many images, all workers' together, begins."""
        if not self.closely:
            return
        self._at, self._images, self._left = (epoch, step), images * self.share, None
        self._numbers.setdefault(threading.get_ident(), len(self._numbers))
        self._began = perf_counter()
        chosen = self._chosen(epoch * steps + step)
        self._spans = [] if chosen else None

    def _chosen(self, number: int) -> bool:
        """Return whether a step's spans are wanted: of steps that take 10 ms, every 64th one's are."""
        stride = 1 << max(0, ceil(log2(self._apart / self._mean))) if self._mean else 1
        return number % stride == 0 and perf_counter() - self._told >= _INTERVAL

    @contextmanager
    def working(self) -> Iterator[None]:
        """A stretch of the step in which this process computes; between two of them it waits for others."""
        if self._began is None:
            yield
            return
        start, left = perf_counter(), self._left
        self.waiting_seconds += start - left if left else 0.0
        if self._spans is None:
            yield
        else:
            with timeline.record(self._spans):
                if left:
                    timeline.note("exchange", 0, left)
                yield
        self._left = perf_counter()
        self.working_seconds += self._left - start

    def end(self) -> None:
        """The step has ended."""
        if self._began is None:
            return
        began, now = self._began, perf_counter()
        self._began = None
        self.steps += 1
        self.images += self._images
        self.seconds += now - began
        self._mean += (now - began - self._mean) * (0.3 if self._mean else 1.0)
        if self._spans is not None:
            self.tell(self._event(self._spans, began, now))
            self._told = now
            self._clear()

    def _event(self, spans: list[Span], began: float, now: float) -> WorkerStep:
        epoch, step = self._at
        return WorkerStep(
            self.worker,
            epoch,
            step,
            self.threads,
            self.steps,
            self.images,
            self.seconds,
            self.working_seconds / self.steps,
            self.waiting_seconds / self.steps,
            resident_bytes(),
            self._layers(spans, now - began),
            self._lanes(spans, began) if self._sends_spans else (),
            run=self.run,
        )

    def _layers(self, spans: list[Span], seconds: float) -> list[tuple[str, str, str, float]]:
        """Return where the time went; what nothing accounts for is idle."""
        sums: dict[tuple[str, str, str], float] = {}
        for span, layer, own in zip(spans, _awaited(spans), own_times(spans), strict=True):
            if span.stage not in ("wait", "travel"):
                key = (layer, span.pass_, span.stage)
                # While arrays travel, all threads wait.
                sums[key] = sums.get(key, 0.0) + own / (1 if span.stage == "exchange" else self.threads)
        sums["", "", "idle"] = max(0.0, seconds - sum(sums.values()))
        return [(*key, value) for key, value in sums.items()]

    def _lanes(self, spans: list[Span], began: float) -> list[tuple[int, str, str, str, int, int]]:
        longest = sorted(spans, key=lambda span: span.start - span.end)[:_SPANS]
        for span in longest:
            self._numbers.setdefault(span.thread, len(self._numbers))
        return [
            (
                self._numbers[span.thread],
                span.layer,
                span.pass_,
                span.stage,
                round(1e6 * (span.start - began)),
                round(1e6 * (span.end - began)),
            )
            for span in sorted(longest, key=lambda span: (span.start, -span.end))
        ]

    def done(self, position: Position, steps: int) -> None:
        """Tell how far the run is, unless it was told a moment ago; an epoch's last step is always told of."""
        now = perf_counter()
        if position.step < steps and now - self._told_step < self.interval:
            return
        self._told_step = now
        sums, before = position.sums, self._before
        if before is not None and before.epoch == position.epoch and before.step < position.step:
            sums = position.sums - before.sums
        self._before = position
        event = StepDone(
            position.epoch,
            position.step - 1,
            steps,
            int(position.sums[2]),
            tuple(position.sums.tolist()),
            numbers(self.program.results(sums)) if self.run else {},
            run=self.run,
        )
        self.tell(event)


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are single numbers."""
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }


def resident_bytes() -> int:
    """Return the memory of this process."""
    return _process().memory_info().rss


@cache
def _process() -> Any:
    import psutil

    return psutil.Process()


def _awaited(spans: list[Span]) -> list[str]:
    """Return the layer of each span; an exchange's is the one that comes after it."""
    layers, after = [""] * len(spans), ""
    for at in sorted(range(len(spans)), key=lambda i: spans[i].start, reverse=True):
        after = spans[at].layer or after
        layers[at] = after if spans[at].stage == "exchange" else spans[at].layer
    return layers
