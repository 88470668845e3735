"""The page on the scheduler's own dashboard, fed by what workers and drivers log there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from distributed import SchedulerPlugin

from daskconv.dashboard.leaving import allow_leaving
from daskconv.dashboard.record import Record
from daskconv.events import TOPIC, event_of

NAME = "daskconv-page"
_ROWS = 64
_log = logging.getLogger("distributed.daskconv")


class PagePlugin(SchedulerPlugin):
    """Keeps the record of the newest run on the scheduler, and adds the page to its dashboard.

    ``client.register_plugin(PagePlugin())`` does so on a cluster that already runs; :func:`daskconv.start` does that
    itself. A scheduler that starts with ``distributed.scheduler.preload: [daskconv.dashboard.preload]`` has it
    from the beginning.

    Attributes
    ----------
    record : Record
    """

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.record = Record()
        self._broker: Any = None
        self._heard = 0

    async def start(self, scheduler: Any) -> None:
        """Listen to a scheduler that runs already, and add the page to its dashboard."""
        self.begin(scheduler)

    def begin(self, scheduler: Any) -> None:
        """Listen to a scheduler, and add the page to its dashboard."""
        self._broker = getattr(scheduler, "_broker", None)
        add_page(scheduler)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take in an event; what is none, or of another version, is left out."""
        if topic != TOPIC or not isinstance(msg, dict):
            return
        try:
            event = event_of(msg.get("event", {}))
        except ValueError as error:
            _log.debug("An event was left out: %s", error)
            return
        if event.run:
            self.record.add(event)
        self._forget_now_and_then()

    def _forget_now_and_then(self) -> None:
        """Empty the topic: Dask keeps a thousand rows of each, and a step's spans would be a hundred megabytes."""
        self._heard += 1
        if self._heard % _ROWS == 0 and self._broker is not None:
            self._broker.truncate(TOPIC)


def add_page(scheduler: Any) -> None:
    """Add the page to a scheduler, and its name to the navigation bar; nothing where it has no dashboard."""
    try:
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables

        from daskconv.dashboard.page import PATH
    except ImportError:
        return
    running = _dashboard(scheduler)
    if running is None:
        return
    allow_leaving()
    shared = template_variables(scheduler)
    if PATH not in running.app_paths:
        # A Bokeh server takes no more applications once it runs: a second one stands beside it, on the same port.
        prefix = running.prefix
        more = BokehApplication(documents(), scheduler, prefix=prefix, template_variables=shared)
        scheduler.http_application.add_application(more)
        from tornado.ioloop import IOLoop

        more.initialize(IOLoop.current())
        more.start()
        # Where JupyterLab's extension looks for single plots.
        running._applications.update(more._applications)
    name = PATH.strip("/")
    if name not in shared["pages"]:
        shared["pages"].insert(0, name)
    known = {plot["url"] for plot in shared["plots"]}
    urls = [path.strip("/") for path in documents() if path != PATH]
    shared["plots"] += [{"url": url, "name": _title(url)} for url in urls if url not in known]


def _title(url: str) -> str:
    return " ".join(url.split("-")[1:]).replace("daskconv", "daskconv:")


def _dashboard(scheduler: Any) -> Any:
    """Return the Bokeh server of a scheduler, or None."""
    from bokeh.server.tornado import BokehTornado

    found = getattr(getattr(scheduler, "http_application", None), "applications", ())
    return next((each for each in found if isinstance(each, BokehTornado)), None)


def documents() -> dict[str, Any]:
    """Return what makes the document of each path, as Dask's dashboard calls it."""
    from daskconv.dashboard.page import paths

    return {path: partial(_document, path) for path in paths()}


def _document(path: str, scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    from distributed.dashboard.components.scheduler import env

    from daskconv.dashboard.page import PATH, paths, show

    if path == PATH:
        doc.template = env.get_template("simple.html")
        doc.template_variables.update(extra)
    show(doc, paths()[path], partial(_record_of, scheduler))


@contextmanager
def _record_of(scheduler: Any) -> Iterator[Record]:
    plugin = scheduler.plugins.get(NAME)  # none in a process where another scheduler had the preload
    record = Record() if plugin is None else plugin.record
    if record.scene is not None:
        running = _running(scheduler, record.scene.keys)
        running -= record.scene.done
        if running != record.scene.running:
            record.scene.running = running
            record.changes += 1
    yield record


def _running(scheduler: Any, keys: tuple[str, ...]) -> set[tuple[int, ...]]:
    """Return the places of the chunks that workers are at."""
    tasks = (task.key for worker in scheduler.workers.values() for task in worker.processing)
    return {key[1:] for key in tasks if isinstance(key, tuple) and key[0] in keys}


def page_path(dask_scheduler: Any) -> str | None:
    """Return where a scheduler shows the page, None where it does not: what a driver asks it."""
    try:
        from daskconv.dashboard.page import PATH

        there = _dashboard(dask_scheduler)
    except ImportError:
        return None
    if there is None or PATH not in there.app_paths or NAME not in dask_scheduler.plugins:
        return None
    return f"{there.prefix}{PATH}"
