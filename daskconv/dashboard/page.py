"""Page: all figures of a record in one document that follows it, and each of them in one of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from bokeh.layouts import column, row

from daskconv.dashboard.figures import FIGURES, ROWS, Figure
from daskconv.dashboard.record import Record

PATH = "/daskconv"
TITLE = "daskconv: training"
_REFRESH = 500  # milliseconds

Records = Callable[[], AbstractContextManager[Record]]
"""Gives the newest record, to be read while the context is open."""


def paths() -> dict[str, tuple[str, ...]]:
    """Return the figures that are shown at each path; Dask's extension of JupyterLab looks for ``/individual-``."""
    alone = {f"/individual-daskconv-{name}": (name,) for name in FIGURES}
    return {PATH: tuple(name for names in ROWS for name in names)} | alone


def show(doc: Any, names: tuple[str, ...], records: Records) -> None:
    """Put some figures into a document, and let them follow the record, twice a second at most."""
    made: dict[str, Figure] = {name: FIGURES[name]() for name in names}
    doc.title = TITLE
    if len(made) == 1:
        (figure,) = made.values()
        figure.root.sizing_mode = "stretch_both"
        doc.add_root(figure.root)
    else:
        doc.add_root(_laid_out(made))
    follow = _Follow(doc, list(made.values()), records)
    follow()
    doc.add_periodic_callback(follow, _REFRESH)


def _laid_out(made: dict[str, Figure]) -> Any:
    rows = [
        row(*(made[name].root for name in names), sizing_mode="stretch_width", spacing=12) for names in ROWS
    ]
    return column(
        *rows,
        sizing_mode="stretch_width",
        spacing=10,
        styles={"background": "white", "padding": "0 8px 24px"},
    )


class _Follow:
    """Draws the record anew where it has changed, in one message to the browser."""

    def __init__(self, doc: Any, figures: list[Figure], records: Records) -> None:
        self.doc, self.figures, self.records = doc, figures, records
        self.drawn: tuple[int, int] | None = None

    def __call__(self) -> None:
        with self.records() as record:
            now = (id(record), record.changes)
            if now == self.drawn:
                return
            self.drawn = now
            self.doc.hold("combine")
            try:
                for figure in self.figures:
                    figure.update(record)
            finally:
                self.doc.unhold()


def fixed(record: Record) -> Records:
    """Return what always gives one record, which nobody changes meanwhile."""
    return lambda: nullcontext(record)


def guarded(record: Record, lock: Any) -> Records:
    """Return what gives a record that another thread feeds."""

    @contextmanager
    def read() -> Iterator[Record]:
        with lock:
            yield record

    return read
