"""Compare: several runs in one plot, a line each, and their figures in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource

from daskconv.dashboard.figures.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    add_hover,
    add_legend,
    plot,
)
from daskconv.dashboard.metrics import Run
from daskconv.dashboard.record import Curve, Record

_COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK)
_DASHES = ("solid", "dashed", "dotted", "dashdot")


def compared(runs: Sequence[Run]) -> dict[str, Any]:
    """Return a Bokeh model for each figure that some of the runs have, by name.

    Parameters
    ----------
    runs : sequence of Run
    """
    names = list(dict.fromkeys(name for run in runs for name in run.record.training.names))
    found = {}
    for name in names:
        title = name.replace("_", " ").capitalize()
        found[name] = _lines(title, runs, [run.record.training for run in runs], name, "step")
        if any(name in run.record.validation.names for run in runs):
            curves = [run.record.validation for run in runs]
            found[f"val_{name}"] = _lines(f"{title} of validation", runs, curves, name, "step")
    curves = [run.record.speed for run in runs]
    found["speed"] = _lines("Images a second", runs, curves, "total", "seconds")
    return found


def _lines(title: str, runs: Sequence[Run], curves: Sequence[Curve], name: str, x: str) -> Any:
    made = plot(title, x_axis_label=x)
    items, lines = [], []
    for number, (label, curve) in enumerate(zip(labels(runs), curves, strict=True)):
        step, seconds, value = curve.columns(name)
        columns = {"step": step, "seconds": seconds, "value": value, "run": [label] * len(step)}
        look: dict[str, Any] = {
            "color": _COLORS[number % len(_COLORS)],
            "line_dash": _DASHES[number // len(_COLORS) % len(_DASHES)],
        }
        line = made.line(x, "value", source=ColumnDataSource(columns), line_width=2, **look)
        lines.append(line)
        items.append((label, [line]))
    add_legend(made, items)
    numbers = [
        ("run", "@run"),
        ("step", "@step{0,0}"),
        ("time", "@seconds{0.0} s"),
        (title, "@value{0.0000}"),
    ]
    add_hover(made, numbers, lines)
    return made


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run; where two folders have the same, their whole paths."""
    names = [run.name for run in runs]
    return [str(run.path) if names.count(run.name) > 1 else run.name for run in runs]


def summary(runs: Sequence[Run]) -> list[list[str]]:
    """Return a table of text: a row a run, below a row of what the columns are."""
    figures = list(
        dict.fromkeys(name for run in runs for name in (*run.record.training.names, *_validation(run.record)))
    )
    head = ["run", "network", "plan", "transport", "workers x threads", "steps", "seconds", "images/s"]
    return [[*head, *(name.replace("val_", "validation ") for name in figures)]] + [
        [label, *_row(run.record), *(_newest(run.record, name) for name in figures)]
        for label, run in zip(labels(runs), runs, strict=True)
    ]


def _row(record: Record) -> list[str]:
    began, newest = record.began, record.newest
    words = ["", "", "", ""]
    if began is not None:
        words = [began.network, began.plan, began.transport, f"{began.workers} x {began.threads}"]
    steps = f"{newest.epoch * newest.steps + newest.step + 1:,}" if newest else ""
    seconds = f"{newest.time - record.started:,.1f}" if newest else ""
    _, _, speed = record.speed.columns("total")
    return [*words, steps, seconds, f"{speed[-1]:,.0f}" if speed else ""]


def _validation(record: Record) -> list[str]:
    return [f"val_{name}" for name in record.validation.names]


def _newest(record: Record, name: str) -> str:
    curve = record.validation if name.startswith("val_") else record.training
    _, _, values = curve.columns(name.removeprefix("val_"))
    return f"{values[-1]:.4f}" if values else ""
