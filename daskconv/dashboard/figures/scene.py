"""Scene: a map of the chunks of a scene's result: done, running and waiting."""

from __future__ import annotations

from math import prod

import numpy as np
from bokeh.models import CustomJSHover, LinearColorMapper

from daskconv.dashboard.figures.style import EMPTY, GREEN, ORANGE, SKY, add_hover, add_legend, plot, source
from daskconv.dashboard.record import Record, Scene

_STATES = {"waiting": EMPTY, "running": ORANGE, "done": GREEN, "done before": SKY}
_WORD = CustomJSHover(code=f"return {list(_STATES)}[value]")


class SceneMap:
    """A square a chunk, where it lies in the scene."""

    def __init__(self) -> None:
        self.source = source("scene", "image", "rows", "columns")
        self.plot = made = plot("Tiles of the scene", match_aspect=True, x_axis_label="column of chunks")
        made.yaxis.axis_label = "row of chunks"
        made.y_range.flipped = True
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
        numbers = [("row", "$y{0}"), ("column", "$x{0}"), ("is", "@image{custom}")]
        add_hover(made, numbers, [image], formatters={"@image": _WORD})
        ghosts = [
            (name, [made.scatter([], [], marker="square", size=10, color=color)])
            for name, color in _STATES.items()
        ]
        add_legend(made, ghosts)
        self.began: Scene | None = None
        self.before: set[tuple[int, ...]] = set()
        self.root = made

    def update(self, record: Record) -> None:
        """Draw what the record holds now."""
        scene = record.scene
        self.root.visible = scene is not None
        if scene is None:
            return
        rows, columns = _sides(scene.blocks)
        if scene is not self.began:
            self.began, self.before = scene, set(scene.done) if len(scene.done) == scene.before else set()
        image = np.zeros(rows * columns, np.uint8)
        for places, state in ((scene.running, 1), (scene.done, 2), (self.before, 3)):
            if places:
                image[_numbers(places, scene.blocks)] = state
        total, done = prod(scene.blocks), len(scene.done)
        self.plot.title.text = (
            f"Tiles of {scene.name}: {done:,} of {total:,} done, {len(scene.running):,} running"
        )
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


def _numbers(places: set[tuple[int, ...]], blocks: tuple[int, ...]) -> np.ndarray:
    return np.ravel_multi_index(tuple(np.array(sorted(places)).T), blocks)
