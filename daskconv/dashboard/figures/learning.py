"""Learning: loss and accuracy, of training and validation, over steps or over time."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column
from bokeh.models import CustomJS
from bokeh.models.widgets import RadioButtonGroup

from daskconv.dashboard.figures.style import BLUE, ORANGE, add_hover, add_legend, ghost_line, plot, source
from daskconv.dashboard.record import Curve, Record

# What a point of the smooth line keeps of the one before.
_KEEP = 0.8

# In the plot's own corner, beside its title.
_CORNER: dict[str, Any] = {"position": "absolute", "right": "36px", "top": "4px", "z-index": "5"}
_SMALL = ".bk-btn { padding: 1px 8px; font-size: 11px; }"

_TURN = """
const field = ["step", "seconds"][cb_obj.active]
for (const renderer of renderers) { renderer.glyph.x = {field: field} }
axis.axis_label = ["step", "seconds"][cb_obj.active]
"""


class Curves:
    """A figure of training and of validation over steps, or over time.

    Attributes
    ----------
    root : bokeh model
    """

    def __init__(self, name: str, title: str) -> None:
        columns = ("step", "seconds", "value", "smooth")
        self.name = name
        self.training, self.validation = (
            source(f"{name}-training", *columns),
            source(f"{name}-validation", *columns),
        )
        self.plot = made = plot(title, x_axis_label="step")
        thin = made.line("step", "value", source=self.training, color=BLUE, alpha=0.3)
        bold = made.line("step", "smooth", source=self.training, color=BLUE, line_width=2)
        line = made.line("step", "value", source=self.validation, color=ORANGE, line_width=2)
        dots = made.scatter("step", "value", source=self.validation, color=ORANGE, size=6)
        ghosts = [ghost_line(made, color) for color in (BLUE, ORANGE)]
        named = [
            ("training", [thin]),
            ("smoothed", [ghosts[0], bold]),
            ("validation", [ghosts[1], line, dots]),
        ]
        add_legend(made, named)
        numbers = [("step", "@step{0,0}"), ("time", "@seconds{0.0} s"), (name, "@value{0.0000}")]
        add_hover(made, numbers, [bold, dots], mode="mouse")
        turn = RadioButtonGroup(labels=["steps", "time"], active=0, styles=_CORNER, stylesheets=[_SMALL])
        renderers = [thin, bold, line, dots]
        turn.js_on_change(
            "active", CustomJS(args={"renderers": renderers, "axis": made.xaxis[0]}, code=_TURN)
        )
        self.root: Any = column(made, turn, sizing_mode="stretch_width", styles={"position": "relative"})

    def figure_name(self, record: Record) -> str:
        """Return which of the run's figures is drawn."""
        return self.name

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        name = self.figure_name(record)
        self.training.data = _columns(record.training, name)
        self.validation.data = _columns(record.validation, name)


class Loss(Curves):
    """The loss."""

    def __init__(self) -> None:
        super().__init__("loss", "Loss")


class Accuracy(Curves):
    """The accuracy, or the first other metric of a run that has none."""

    def __init__(self) -> None:
        super().__init__("accuracy", "Accuracy")

    def figure_name(self, record: Record) -> str:
        """Return the metric's name, which is the title too."""
        metrics = [name for name in record.training.names if name != "loss"]
        name = "accuracy" if "accuracy" in metrics or not metrics else metrics[0]
        self.plot.title.text = name.replace("_", " ").capitalize()
        return name


def _columns(curve: Curve, name: str) -> dict[str, list]:
    step, seconds, value = curve.columns(name)
    smooth: list[float] = []
    for each in value:
        smooth.append(each if not smooth else _KEEP * smooth[-1] + (1 - _KEEP) * each)
    return {"step": step, "seconds": seconds, "value": value, "smooth": smooth}
