"""Lanes: what each thread of each worker did when, in one step."""

from __future__ import annotations

from bokeh.models import BooleanFilter, CDSView, DataRange1d, FactorRange

from daskconv.dashboard.figures.style import GRID, HEIGHT, LANES, add_hover, add_legend, ghost, plot, source
from daskconv.dashboard.record import Record
from daskconv.events import WorkerStep

# Lanes that can be told apart, and the pixels of one, where there are many and where there are few.
_MOST, _LEAST, _LANE = 24, 17, 44
_COLUMNS = ("lane", "start", "end", "ms", "layer", "pass", "stage", "worker", "thread")


class Lanes:
    """A lane a thread and worker, with a block for each stage of each layer, on one clock from the step's start."""

    def __init__(self) -> None:
        self.source = source("lanes", *_COLUMNS)
        self.filters = {stage: BooleanFilter(booleans=[]) for stage in LANES}
        self.plot = made = plot(
            "One step, thread by thread",
            tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
            active_drag="xbox_zoom",
            x_axis_label="ms from the start of the step",
            y_axis_label="worker",
            y_range=FactorRange(factors=[]),
            x_range=DataRange1d(start=0, range_padding=0.01),
        )
        made.ygrid.grid_line_color = None
        blocks = []
        for stage, of_stage in self.filters.items():
            label, color = LANES[stage]
            block = made.hbar(
                "lane",
                left="start",
                right="end",
                height=0.8,
                source=self.source,
                view=CDSView(filter=of_stage),
                color=color,
                line_color="white",
                line_width=0.5,
            )
            numbers = [("worker", "@worker"), ("thread", "@thread"), ("layer", "@layer @pass"), ("does", label),
                       ("takes", "@ms{0.000} ms"), ("from", "@start{0.000} ms")]  # fmt: skip
            add_hover(made, numbers, [block])
            blocks.append((label, [ghost(made, color), block]))
        add_legend(made, blocks)
        made.background_fill_color = GRID
        made.background_fill_alpha = 0.4
        self.root = made

    def update(self, record: Record) -> None:
        """Draw the newest step that the workers tell of."""
        events = [event for event in record.steps_seen.values() if event.spans]
        told = {e.worker: sorted({span[0] for span in e.spans}) for e in events}
        shown, lanes = list[WorkerStep](), 0
        for event in events:
            lanes += len(told[event.worker])
            if lanes <= _MOST or not shown:
                shown.append(event)
        data: dict[str, list] = {name: [] for name in _COLUMNS}
        factors = list[str]()
        for event in shown:
            several = len(told[event.worker]) > 1
            sends = {span[0] for span in event.spans if span[3] == "travel"}
            names = {
                thread: f"{event.worker} · {'sends' if thread in sends else number}"
                if several
                else event.worker
                for number, thread in enumerate(told[event.worker])
            }
            factors += names.values()
            for thread, layer, pass_, stage, start, end in event.spans:
                if stage not in self.filters:  # what waits is the lane's ground
                    continue
                row = (names[thread], start / 1e3, end / 1e3, (end - start) / 1e3, layer, pass_, stage, event.worker,
                       thread)  # fmt: skip
                for name, value in zip(_COLUMNS, row, strict=True):
                    data[name].append(value)
        self._show(data, factors[::-1])
        if shown:
            newest = shown[0]
            part = (
                ""
                if len(record.workers) == len(shown)
                else f", {len(shown)} of {len(record.workers)} workers"
            )
            self.plot.title.text = (
                f"Step {newest.step + 1} of epoch {newest.epoch + 1}, thread by thread{part}"
            )

    def _show(self, data: dict[str, list], factors: list[str]) -> None:
        if self.plot.y_range.factors != factors:
            self.plot.y_range.factors = factors
            each = max(_LEAST, min(_LANE, 200 // max(len(factors), 1)))
            self.plot.height = max(HEIGHT, 120 + each * len(factors))
            self.plot.yaxis.axis_label = (
                "worker · thread" if any("·" in name for name in factors) else "worker"
            )
        self.source.data = data
        for stage, of_stage in self.filters.items():
            of_stage.booleans = [each == stage for each in data["stage"]]
