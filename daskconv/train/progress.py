"""Progress: a bar on a terminal, one plain line an epoch in a batch log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np

from daskconv.events import StepDone
from daskconv.plan.program import Program


class Lines:
    """One line an epoch, for logs that nobody watches."""

    def __init__(self, epochs: int, write: Callable[[str], Any] = print) -> None:
        self.epochs, self.write = epochs, write

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def step(self, event: StepDone) -> None:
        """Say nothing about single steps."""

    def epoch(self, logs: dict[str, Any]) -> None:
        """Print one epoch's figures."""
        self.write(epoch_line(logs, self.epochs))


class Bar:
    """A bar with loss, accuracy, images a second and the time that is left."""

    def __init__(self, epochs: int, program: Program) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs, self.program = epochs, program
        self.started: tuple[int, float, int] | None = None
        columns = [
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[figures]}"),
            TextColumn("time left"),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(*columns, console=Console(file=sys.stdout), refresh_per_second=4)

    def __enter__(self) -> Bar:
        self.progress.start()
        self.task = self.progress.add_task("train", total=None, epoch=f"1/{self.epochs}", figures="")
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def step(self, event: StepDone) -> None:
        """Move the bar."""
        now = monotonic()
        if self.started is None or self.started[0] != event.epoch:
            self.started = (event.epoch, now, event.images)
        _, since, images = self.started
        rate = (event.images - images) / (now - since) if now > since else 0.0
        results = self.program.results(np.array(event.sums))
        done = event.epoch * event.steps + event.step + 1
        self.progress.update(
            self.task,
            total=self.epochs * event.steps,
            completed=done,
            epoch=f"{event.epoch + 1}/{self.epochs}",
            figures=f"{figures(results)}  {rate:,.0f} images/s",
        )

    def epoch(self, logs: dict[str, Any]) -> None:
        """Leave one epoch's figures above the bar."""
        self.progress.print(epoch_line(logs, self.epochs), highlight=False)


def progress_for(epochs: int, program: Program, wanted: bool) -> Lines | Bar:
    """Return a bar where standard output is a terminal, else lines; silent ones when none are wanted."""
    if not wanted:
        return Lines(epochs, lambda line: None)
    return (
        Bar(epochs, program) if sys.stdout.isatty() else Lines(epochs, lambda line: print(line, flush=True))
    )


def epoch_line(logs: dict[str, Any], epochs: int) -> str:
    """Return one epoch's figures on a line."""
    head = f"epoch {logs['epoch']:>{len(str(epochs))}}/{epochs}"
    return f"{head}  {figures(logs)}  {logs['images_per_second']:,.0f} images/s"


def figures(logs: dict[str, Any]) -> str:
    """Return losses and metrics that are single numbers, by name."""
    skipped = {"epoch", "seconds", "images_per_second", "learning_rate"}
    return "  ".join(
        f"{name} {value:.4f}"
        for name, value in logs.items()
        if name not in skipped and isinstance(value, float)
    )
