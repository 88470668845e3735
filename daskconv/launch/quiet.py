"""Keep Dask's chatter out of what a user sees, and its own clocks off the cores that compute."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask

_CHATTER = (
    "CommClosed",
    "Stream is closed",
    "StreamClosed",
    "Connection to",
    "heartbeat",
    "Compute Failed",
    "Worker process still alive after",  # a busy host's workers are slow to end, and are ended
    "Sizeof calculation for object",  # while Dask's performance report is made
    "Scheduler was unaware of this worker",  # a heartbeat that crosses the order to close
)


# Dask looks a hundred times a second at what a worker's threads do, and fifty times at its event loop. On the one core
# that a worker has, each look stops a kernel: a step of 20 ms takes 7 % longer.
_TICK = "1s"


def seldom() -> dict[str, Any]:
    """Return settings that let Dask look after its workers less often; ``daskconv.profile`` has it sample them."""
    return {
        "distributed.worker.profile.enabled": bool(dask.config.get("daskconv.profile")),
        "distributed.admin.tick.interval": _TICK,
    }


class _DropChatter(logging.Filter):
    """Closing connections at the end of a job, and tracebacks of tasks whose error the script raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record says anything new."""
        error = record.exc_info[1] if record.exc_info else None
        said = f"{record.getMessage()} {type(error).__name__} {error}"
        return not any(words in said for words in _CHATTER)


def mute() -> None:
    """Silence this process's distributed loggers below warnings, and chatter above."""
    import distributed  # noqa: F401 (sets up the handlers and levels)

    # The line that start() prints names the port that was taken instead.
    warnings.filterwarnings("ignore", message=r"Port \d+ is already in use")
    logging.getLogger("distributed").setLevel(logging.WARNING)
    for handler in _handlers():
        if not any(isinstance(other, _DropChatter) for other in handler.filters):
            handler.addFilter(_DropChatter())


@contextmanager
def quiet_shutdown() -> Iterator[None]:
    """Be mute while the context is open."""
    level = logging.getLogger("distributed").level
    mute()
    try:
        yield
    finally:
        logging.getLogger("distributed").setLevel(level)
        for handler in _handlers():
            for quiet in [other for other in handler.filters if isinstance(other, _DropChatter)]:
                handler.removeFilter(quiet)


def _handlers() -> list[logging.Handler]:
    return [*logging.getLogger("distributed").handlers, *logging.getLogger("tornado").handlers]
