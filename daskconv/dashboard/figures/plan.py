"""Plan: a row a layer: how it is split over shards, what travels, what a shard holds, and how it convolves."""

from __future__ import annotations

from html import escape
from typing import Any

from bokeh.layouts import column
from bokeh.models.widgets import DataTable, Div, StringFormatter, TableColumn

from daskconv.dashboard.figures.layers import in_words
from daskconv.dashboard.figures.style import FONT, HEIGHT, INK, shown, source
from daskconv.dashboard.record import Record

_COLUMNS = {
    "layer": 110,
    "layout": 70,
    "exchange": 150,
    "sent": 70,
    "weights": 70,
    "values": 70,
    "method": 130,
}
_NUMBERS = ("sent", "weights", "values")


class Plan:
    """The table of the plan."""

    def __init__(self) -> None:
        self.source = source("plan", *_COLUMNS)
        self.title = Div(
            styles={"color": INK, "font-family": FONT, "font-size": "14px"}, margin=(8, 8, 0, 12)
        )
        columns = [
            TableColumn(
                field=name,
                title=name,
                width=width,
                sortable=False,
                formatter=StringFormatter(text_align="right" if name in _NUMBERS else "left", text_color=INK),
            )
            for name, width in _COLUMNS.items()
        ]
        table = DataTable(
            source=self.source,
            columns=columns,
            index_position=None,
            height=HEIGHT - 34,
            sizing_mode="stretch_width",
            selectable=False,
            autosize_mode="force_fit",
            reorderable=False,
            stylesheets=[".bk-data-table { z-index: 0; } .slick-cell { font-size: 12px; }"],
        )
        self.root: Any = column(self.title, table, sizing_mode="stretch_width")

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        began = record.began
        if began is None:
            return
        self.title.text = (
            f"<b>Plan {escape(began.plan)}</b>: {began.shards} shards on {began.workers} "
            f"worker{'' if began.workers == 1 else 's'}, {began.batch:,} images a step; bytes of the largest shard"
        )
        rows = list(began.layers)
        data = {
            "layer": [row["layer"] for row in rows],
            "layout": [row["layout"] for row in rows],
            "exchange": [row["exchange"] for row in rows],
            **{name: [shown(row[name]) for row in rows] for name in _NUMBERS},
            "method": [in_words(row.get("methods", {}), row.get("gains", {})) for row in rows],
        }
        if self.source.data != data:
            self.source.data = data
