"""Who leaves the page while the server is busy is no error, though Bokeh writes tracebacks of it."""

from __future__ import annotations

import logging
from traceback import walk_tb
from typing import Any

# Where Bokeh and Tornado log what a browser's message and its end of the connection have raised.
_LOGGERS = ("bokeh.server.protocol_handler", "tornado.application")


class _DropLeft(logging.Filter):
    """Leaves out what came from a browser whose session Bokeh has let go: its ping found the connection closed.

    What the browser had sent before that, and the closing itself, then meet an assertion in Bokeh.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is of anything else."""
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, AssertionError) and _module(error) == "bokeh.server.connection")


def allow_leaving() -> None:
    """Keep this process's log free of browsers that leave."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(other, _DropLeft) for other in logger.filters):
            logger.addFilter(_DropLeft())


def _module(error: BaseException) -> Any:
    """Return the name of the module that has raised an error."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__") if frames else None
