"""How long a run waits: for a step to end, and for a worker to come."""

from __future__ import annotations

from math import isfinite
from typing import Any

import dask

from daskconv.errors import InputError


def deadline() -> float:
    """Return the seconds in which a step has to end, or a rank to send a word: ``daskconv.deadline``."""
    return _checked("daskconv.deadline", dask.config.get("daskconv.deadline"))


def for_workers() -> float:
    """Return the seconds in which a worker has to come where there is none: ``daskconv.wait-workers``."""
    return _checked("daskconv.wait-workers", dask.config.get("daskconv.wait-workers"))


def _checked(name: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InputError(f"{name} is {seconds!r}: give a number of seconds.")
    if not (isfinite(seconds) and seconds > 0):
        raise InputError(f"{name} is {seconds!r}: give seconds above 0.")
    return float(seconds)
