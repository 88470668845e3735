"""Style: one look for all figures: colours that mean the same everywhere, and a plot that has room for its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, LinearAxis, NumeralTickFormatter
from bokeh.models.annotations import Legend, Title
from bokeh.plotting import figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, FAINT, GRID, EMPTY = "#334155", "#94A3B8", "#E2E8F0", "#E5E7EB"

STAGES = {
    "lower": ("lowering", ORANGE),
    "product": ("matrix product", BLUE),
    "convolve": ("convolution in one kernel", GREEN),
    "other": ("other kernels", PURPLE),
    "exchange": ("exchange", RED),
    "idle": ("idle", EMPTY),
}
"""What a timeline's stages are called, and their colours."""

LANES = {stage: look for stage, look in STAGES.items() if stage != "idle"} | {
    "travel": ("messages under way", SKY)
}
"""Those that are seen on a lane: what travels while threads compute takes none of their time."""

FONT = "Helvetica, Arial, sans-serif"
HEIGHT = 300

AXIS: dict[str, Any] = {
    "axis_line_color": FAINT,
    "major_tick_line_color": FAINT,
    "minor_tick_line_color": None,
    "major_label_text_color": INK,
    "major_label_text_font": FONT,
    "major_label_text_font_size": "11px",
    "axis_label_text_color": INK,
    "axis_label_text_font": FONT,
    "axis_label_text_font_style": "normal",
    "axis_label_text_font_size": "12px",
}
"""The look of an axis."""


def plot(title: str, tools: str = "pan,wheel_zoom,box_zoom,reset,save", **options: Any) -> Any:
    """Return an empty plot of the page's look."""
    made = figure(
        title=Title(text=title, text_font=FONT, text_font_size="14px", text_color=INK),
        tools=tools,
        toolbar_location="right",
        sizing_mode="stretch_width",
        height=HEIGHT,
        min_border_left=12,
        min_border_right=12,
        min_border_bottom=12,
        **options,
    )
    made.xgrid.grid_line_color = made.ygrid.grid_line_color = GRID
    made.outline_line_color = None
    made.background_fill_color = made.border_fill_color = "white"
    for axis in made.axis:
        axis.update(**AXIS)
    formatter: Any = NumeralTickFormatter(format="0,0.[0000]")
    for axis in (*made.xaxis, *made.yaxis):
        if isinstance(axis, LinearAxis):
            axis.formatter = formatter
    made.toolbar.logo = None
    made.toolbar.autohide = True
    return made


def add_legend(made: Any, items: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Put a legend above a plot, where it hides no data; a click hides what it names."""
    legend: Any = Legend(
        items=[(name, list(renderers)) for name, renderers in items],
        orientation="horizontal",
        location="left",
        border_line_color=None,
        background_fill_alpha=0,
        label_text_color=INK,
        label_text_font=FONT,
        label_text_font_size="11px",
        glyph_height=12,
        glyph_width=16,
        spacing=12,
        margin=0,
        click_policy="hide",
    )
    legend.padding = 2
    made.add_layout(legend, "above")


def ghost(made: Any, color: str) -> Any:
    """Return a mark that lies nowhere, for a legend to show a colour that no data has yet."""
    nowhere = [float("nan")]
    return made.quad(nowhere, nowhere, nowhere, nowhere, fill_color=color, line_color=None)


def ghost_line(made: Any, color: str, **look: Any) -> Any:
    """Return a line that lies nowhere, for a legend too."""
    nowhere = [float("nan")] * 2
    return made.line(nowhere, nowhere, color=color, line_width=2, **look)


def add_hover(
    made: Any, tooltips: Sequence[tuple[str, str]], renderers: Sequence[Any], **options: Any
) -> None:
    """Show numbers where the pointer is; what users have named is escaped by Bokeh."""
    made.add_tools(HoverTool(tooltips=list(tooltips), renderers=list(renderers), **options))


def source(name: str, *columns: str) -> ColumnDataSource:
    """Return an empty source that a page's document finds by its name."""
    return ColumnDataSource({column: [] for column in columns}, name=name)


def shown(nbytes: float) -> str:
    """Return bytes in a unit that people read.

    Examples
    --------
    >>> shown(0), shown(1_500), shown(2_500_000), shown(3_200_000_000)
    ('', '1.5 kB', '2.5 MB', '3.2 GB')
    """
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes:.0f} B" if nbytes else ""
