"""Progress: a bar on a terminal, in a batch job's log a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

_SECONDS = 30.0  # between two lines of a log


@contextmanager
def counting(total: int, done: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """Give what is to be called for each chunk that is written, and show how many they are on standard output.

    Parameters
    ----------
    total, done : int
        Chunks, and those of them that are complete from a run before.
    wanted : bool
    """
    if not wanted:
        yield lambda: None
    elif sys.stdout.isatty():
        with _bar(total, done) as advance:
            yield advance
    else:
        lines = _Lines(total, done)
        yield lines.advance
        lines.say()


@contextmanager
def _bar(total: int, done: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("chunks"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("time left"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(file=sys.stdout), refresh_per_second=4) as progress:
        task = progress.add_task("chunks", total=total, completed=done)
        yield lambda: progress.advance(task)


class _Lines:
    """A line at the start, at the end, and every half minute."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.before, self.done = total, done, done
        self.started = self.spoke = monotonic()
        if done:
            print(f"chunks {done:,}/{total:,} are complete from a run before", flush=True)

    def advance(self) -> None:
        """Count a chunk."""
        self.done += 1
        if monotonic() - self.spoke >= _SECONDS:
            self.say()

    def say(self) -> None:
        """Print how far it is, and how long the rest takes at this rate."""
        self.spoke = monotonic()
        rate = (self.done - self.before) / max(self.spoke - self.started, 1e-9)
        left = f"  {(self.total - self.done) / rate:,.0f} s left" if rate and self.done < self.total else ""
        print(f"chunks {self.done:,}/{self.total:,}  {rate:,.2f} a second{left}", flush=True)
