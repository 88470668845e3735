"""Workers: whom the others wait for, and how much memory each takes."""

from __future__ import annotations

from statistics import median
from typing import Any

from bokeh.models import FactorRange, Range1d
from bokeh.models.annotations import Span

from daskconv.dashboard.figures.style import (
    BLUE,
    EMPTY,
    GREEN,
    INK,
    RED,
    add_hover,
    add_legend,
    ghost_line,
    plot,
    shown,
    source,
)
from daskconv.dashboard.record import Record

# A worker that computes so much longer than most is late; so many names have room below their bars.
_LATE, _NAMED = 1.2, 24


class Stragglers:
    """How long each worker computes in a step, and waits for others."""

    def __init__(self) -> None:
        self.source = source("stragglers", "worker", "working", "late", "waiting", "whole", "ratio", "rate")
        self.plot, self.middle = _bars("Who waits for whom", "ms of a step")
        given = {"source": self.source, "width": 0.8}
        fine = self.plot.vbar("worker", top="working", color=BLUE, **given)
        late = self.plot.vbar("worker", top="late", color=RED, **given)
        waits = self.plot.vbar(
            "worker", bottom="whole", top="waiting", color=EMPTY, line_color=EMPTY, **given
        )
        items = [
            ("computes", [fine]),
            (f"late: {_LATE:g} x the median", [late]),
            ("waits", [waits]),
        ]
        add_legend(self.plot, items)
        numbers = [("worker", "@worker"), ("computes", "@whole{0.00} ms, @ratio{0.00} of the median"),
                   ("images/s", "@rate{0,0}")]  # fmt: skip
        add_hover(self.plot, numbers, [fine, late])
        self.root = self.plot

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        events = {name: told[-1] for name, told in record.workers.items()}
        names = [name for name in record.steps_seen if name in events]
        working = [1e3 * events[name].working for name in names]
        usual = median(working) if working else 0.0
        late = [each > _LATE * usual for each in working]
        self.middle.location = usual
        waiting = [1e3 * events[name].waiting for name in names]
        self.plot.y_range.end = (
            1.1 * max([a + b for a, b in zip(working, waiting, strict=True)], default=1) or 1
        )
        _name(self.plot, names)
        self.source.data = {
            "worker": names,
            "whole": working,
            "working": [0.0 if slow else each for each, slow in zip(working, late, strict=True)],
            "late": [each if slow else 0.0 for each, slow in zip(working, late, strict=True)],
            "waiting": [a + b for a, b in zip(working, waiting, strict=True)],
            "ratio": [each / usual if usual else 0.0 for each in working],
            "rate": [events[n].images / events[n].seconds if events[n].seconds else 0.0 for n in names],
        }


class Memory:
    """The memory of each worker's process, and what was told from shapes."""

    def __init__(self) -> None:
        self.source = source("memory", "worker", "used", "words", "expected")
        self.plot, self.line = _bars("Memory", "MB of a worker")
        bars = self.plot.vbar("worker", top="used", source=self.source, width=0.8, color=GREEN)
        dashes = ghost_line(self.plot, INK, line_dash="dashed")
        add_legend(self.plot, [("resident", [bars]), ("expected from the plan", [dashes])])
        numbers = [("worker", "@worker"), ("resident", "@words"), ("expected", "@expected")]
        add_hover(self.plot, numbers, [bars])
        self.root = self.plot

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        names = list(record.steps_seen)
        used = [record.workers[name][-1].memory for name in names]
        expected = record.began.memory if record.began else 0
        self.line.location = expected / 1e6
        self.line.visible = expected > 0
        self.plot.y_range.end = 1.15 * max([expected, *used, 1]) / 1e6
        _name(self.plot, names)
        self.source.data = {
            "worker": names,
            "used": [each / 1e6 for each in used],
            "words": [shown(each) for each in used],
            "expected": [shown(expected)] * len(names),
        }


def _bars(title: str, label: str) -> tuple[Any, Span]:
    """Return a plot with a bar a worker, and a line across it."""
    made = plot(
        title,
        tools="reset,save",
        x_axis_label="worker",
        y_axis_label=label,
        x_range=FactorRange(factors=[]),
        y_range=Range1d(start=0, end=1),
    )
    made.xgrid.grid_line_color = None
    across = Span(location=0, dimension="width", line_color=INK, line_dash="dashed", line_width=1)
    made.add_layout(across)
    return made, across


def _name(made: Any, names: list[str]) -> None:
    if made.x_range.factors == names:
        return
    made.x_range.factors = names
    many = len(names) > _NAMED
    made.xaxis.major_label_text_alpha = 0 if many else 1
    made.xaxis.major_tick_line_alpha = 0 if many else 1
    made.xaxis.axis_label = f"{len(names)} workers, in the order of their names" if many else "worker"
    made.x_range.range_padding = 0.02 if many else 0.1
