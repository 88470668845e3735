"""Speed: images a second, of all workers together and of each."""

from __future__ import annotations

from bokeh.models import DataRange1d, LinearAxis

from daskconv.dashboard.figures.style import AXIS, BLUE, GREEN, add_hover, add_legend, plot, source
from daskconv.dashboard.record import Record


class Speed:
    """The images that are trained in a second: all, and a worker's mean between the slowest's and the fastest's."""

    def __init__(self) -> None:
        self.source = source("speed", "step", "seconds", "total", "mean", "slowest", "fastest")
        made = plot("Images a second", x_axis_label="seconds", y_axis_label="all workers")
        made.y_range = DataRange1d(start=0, range_padding=0.15)
        made.extra_y_ranges = {"worker": DataRange1d(start=0, range_padding=0.15)}
        left, right = made.yaxis[0], LinearAxis(y_range_name="worker", axis_label="a worker", **AXIS)
        right.formatter = left.formatter
        for axis, color in ((left, BLUE), (right, GREEN)):
            axis.update(axis_label_text_color=color, major_label_text_color=color)
        made.add_layout(right, "right")
        total = made.line("seconds", "total", source=self.source, color=BLUE, line_width=2)
        band = made.varea(
            "seconds", "slowest", "fastest", source=self.source, color=GREEN, alpha=0.2, y_range_name="worker"
        )
        mean = made.line(
            "seconds", "mean", source=self.source, color=GREEN, line_width=2, y_range_name="worker"
        )
        made.y_range.renderers, made.extra_y_ranges["worker"].renderers = [total], [band, mean]
        add_legend(made, [("all", [total]), ("a worker", [mean]), ("slowest to fastest", [band])])
        numbers = [
            ("time", "@seconds{0.0} s"),
            ("all workers", "@total{0,0} images/s"),
            ("a worker", "@mean{0,0} images/s"),
            ("slowest, fastest", "@slowest{0,0}, @fastest{0,0}"),
        ]
        add_hover(made, numbers, [total], mode="vline")
        self.root = made

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        step, seconds, total = record.speed.columns("total")
        found = [point.figures for point in record.speed.points if "total" in point.figures]
        nothing = float("nan")
        rest = {
            name: [figures.get(name, nothing) for figures in found] for name in ("mean", "slowest", "fastest")
        }
        self.source.data = {"step": step, "seconds": seconds, "total": total, **rest}
