"""Every error that daskconv raises on purpose; each carries one sentence: what, the values, the remedy."""

from __future__ import annotations

import traceback
from numbers import Integral
from operator import index
from pathlib import Path
from typing import Any


class DaskconvError(Exception):
    """The root of daskconv's errors; the command line prints its sentence and exits with code 2."""


class InputError(DaskconvError, ValueError):
    """Something the user passed does not fit: a shape, an option, a name."""


class DataError(InputError):
    """A file or an array of images is missing, damaged or not what it should be."""


class WorkerError(DaskconvError, RuntimeError):
    """A worker or an MPI rank failed while it ran a task; the sentence carries its message."""


class Interrupted(DaskconvError):
    """Training ended early on Ctrl-C, SIGTERM or SIGUSR1; everything up to the last full step is kept.

    ``daskconv train``, and a script that :func:`daskconv.start` began under an MPI launcher, then exit with 128 plus
    the signal's number: 130, 143 or 138.

    Attributes
    ----------
    signal : int or None
        The signal's number.
    """

    def __init__(self, sentence: str, signal: int | None = None) -> None:
        super().__init__(sentence)
        self.signal = signal


def are_ints(values: Any, count: int | None = None) -> bool:
    """Whether a value is a tuple of ints, NumPy's too, and of this length when it is given.

    Examples
    --------
    >>> are_ints((3, -1)), are_ints((3, 0.5)), are_ints(3), are_ints((3, -1), 3)
    (True, False, False, False)
    """
    whole = isinstance(values, tuple) and all(isinstance(value, Integral) for value in values)
    return whole and count in (None, len(values))


def check_count(value: Any, name: str) -> int:
    """Return an integer of at least 1 as an int, NumPy's too; raise InputError for anything else.

    Examples
    --------
    >>> check_count(3, "threads")
    3
    """
    try:
        count = index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"{name} is {value!r}: give an int of at least 1.")
    return count


def sentence_of(error: BaseException) -> str:
    """Return an error's message; for one that is not daskconv's own, with its type and where it was raised."""
    if isinstance(error, DaskconvError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({_place_of(frames[-1])}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _place_of(frame: traceback.FrameSummary) -> str:
    """Return the file that raised; the function where the code travelled here and has no file."""
    return frame.name if frame.filename.startswith("<") else Path(frame.filename).name
