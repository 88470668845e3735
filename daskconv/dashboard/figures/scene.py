"""Scene: a map of the chunks of a scene's result: done, running and waiting."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Any

import numpy as np
from bokeh.models import CustomJSHover, LinearColorMapper, Range1d

from daskconv.dashboard.figures.style import (
    EMPTY,
    GREEN,
    ORANGE,
    SKY,
    add_hover,
    add_legend,
    ghost,
    plot,
    source,
)
from daskconv.dashboard.record import Place, Record

_STATES = {"waiting": EMPTY, "running": ORANGE, "done": GREEN, "done before": SKY}


class SceneMap:
    """A square a chunk, where it lies in the scene."""

    def __init__(self) -> None:
        self.source = source("scene", "image", "rows", "columns")
        sides: dict[str, Any] = {"x_range": Range1d(start=0, end=1), "y_range": Range1d(start=1, end=0)}
        self.plot = made = plot("Tiles of the scene", x_axis_label="column of chunks", **sides)
        made.yaxis.axis_label = "row of chunks"
        made.grid.grid_line_color = None
        mapper = LinearColorMapper(palette=list(_STATES.values()), low=-0.5, high=3.5)
        image = made.image(
            "image",
            x=0,
            y=0,
            dw="columns",
            dh="rows",
            source=self.source,
            color_mapper=mapper,
            origin="top_left",
        )
        image.glyph.anchor = "top_left"
        word = CustomJSHover(code=f"return {list(_STATES)}[value]")
        numbers = [("row", "$y{0}"), ("column", "$x{0}"), ("is", "@image{custom}")]
        add_hover(made, numbers, [image], formatters={"@image": word})
        add_legend(made, [(name, [ghost(made, color)]) for name, color in _STATES.items()])
        self.root = made

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        scene = record.scene
        self.root.visible = scene is not None
        if scene is None:
            return
        rows, columns = _sides(scene.blocks)
        image = np.zeros(rows * columns, np.uint8)
        for places, state in ((scene.running, 1), (scene.done, 2), (scene.before, 3)):
            if places:
                image[_numbers(places, scene.blocks)] = state
        total, done = prod(scene.blocks), len(scene.done)
        self.plot.title.text = (
            f"Tiles of {scene.name}: {done:,} of {total:,} done, {len(scene.running):,} running"
        )
        self.plot.x_range.end, self.plot.y_range.start = columns, rows
        self.source.data = {"image": [image.reshape(rows, columns)], "rows": [rows], "columns": [columns]}


def _sides(blocks: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of the map: the last axis with several chunks lies along it, all before it down.

    Examples
    --------
    >>> _sides((4, 6, 1)), _sides((2, 4, 6, 1)), _sides((5, 1))
    ((4, 6), (8, 6), (1, 5))
    """
    across = next((size for size in reversed(blocks) if size > 1), 1)
    return prod(blocks) // across, across


def _numbers(places: Collection[Place], blocks: tuple[int, ...]) -> np.ndarray:
    return np.ravel_multi_index(tuple(np.array(sorted(places)).T), blocks)
