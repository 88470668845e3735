"""How long a run waits: for a step to end, and for a worker to come."""

from __future__ import annotations

from math import isfinite

import dask

from daskconv.errors import InputError

# Seconds where Dask's configuration does not say.
_DEADLINE, _WORKERS = 600.0, 300.0


def deadline() -> float:
    """Return the seconds in which a step has to end, or a rank to send a word: ``daskconv.deadline``."""
    return _seconds("daskconv.deadline", _DEADLINE)


def for_workers() -> float:
    """Return the seconds in which a worker has to come where there is none: ``daskconv.wait-workers``."""
    return _seconds("daskconv.wait-workers", _WORKERS)


def _seconds(name: str, default: float) -> float:
    seconds = dask.config.get(name, default)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InputError(f"{name} is {seconds!r}: give a number of seconds.")
    if not (isfinite(seconds) and seconds > 0):
        raise InputError(f"{name} is {seconds!r}: give seconds above 0.")
    return float(seconds)
