"""Figures: each draws a part of a record; live ones are updated again and again, those of a report once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from daskconv.dashboard.figures.head import Head
from daskconv.dashboard.figures.lanes import Lanes
from daskconv.dashboard.figures.layers import Layers
from daskconv.dashboard.figures.learning import Accuracy, Loss
from daskconv.dashboard.figures.plan import Plan
from daskconv.dashboard.figures.scene import SceneMap
from daskconv.dashboard.figures.speed import Speed
from daskconv.dashboard.figures.workers import Memory, Stragglers
from daskconv.dashboard.record import Record


class Figure(Protocol):
    """What every figure is.

    Attributes
    ----------
    root : bokeh model
        What a document shows.
    """

    root: Any

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""


FIGURES: dict[str, Callable[[], Figure]] = {
    "progress": Head,
    "loss": Loss,
    "accuracy": Accuracy,
    "speed": Speed,
    "layers": Layers,
    "timeline": Lanes,
    "plan": Plan,
    "stragglers": Stragglers,
    "memory": Memory,
    "scene": SceneMap,
}
"""What makes each figure, by its name."""

ROWS = (
    ("progress",),
    ("loss", "accuracy", "speed"),
    ("layers", "plan"),
    ("timeline",),
    ("stragglers", "memory"),
    ("scene",),
)
"""How the figures lie on a page."""


def draw(record: Record) -> dict[str, Any]:
    """Return a Bokeh model of each figure of a record that is no longer fed, by name.

    Examples
    --------
    >>> sorted(draw(Record()))[:3]
    ['accuracy', 'layers', 'loss']
    """
    roots = {}
    for name, make in FIGURES.items():
        made = make()
        made.update(record)
        roots[name] = made.root
    return roots
