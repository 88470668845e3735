"""Checkpoints: where, when and how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from os import PathLike
from typing import Any

from daskconv.errors import InputError, check_count

MINUTES = 10.0
"""Between two checkpoints where nobody says it."""


@dataclass(frozen=True)
class Checkpoints:
    """Write checkpoints of training to a folder, beside the steps.

    One is written whenever so many steps or minutes are over, at the end of an epoch that was the best so far, when
    training ends, and when a signal ends it. The newest ones stay, and the best.

    Parameters
    ----------
    folder : str or path
        On a file system that outlasts the job.
    steps : int, optional
        Steps from one to the next.
    minutes : float, optional
        Minutes from one to the next; 10 where neither is given.
    keep : int
        How many of the newest stay.
    best : str, optional
        What the best is told by, a name of the epoch's figures: losses want to be low, all else high. "val_loss" where
        there are validation data, else "loss", when not given.

    Examples
    --------
    >>> Checkpoints("run", steps=500).minutes is None, Checkpoints("run").minutes
    (True, 10.0)
    """

    folder: str | PathLike[str]
    steps: int | None = None
    minutes: float | None = None
    keep: int = 3
    best: str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_count(self.steps, "Checkpoints' steps")
        elif self.minutes is None:
            object.__setattr__(self, "minutes", MINUTES)
        minutes = self.minutes
        if minutes is not None and not (
            isinstance(minutes, int | float) and isfinite(minutes) and minutes > 0
        ):
            raise InputError(f"Checkpoints' minutes is {minutes!r}: give a number above 0.")
        check_count(self.keep, "Checkpoints' keep")

    def score(self, figures: Mapping[str, Any]) -> float | None:
        """Return what is higher for better epochs; None where the figures do not say."""
        name = self.best or ("val_loss" if "val_loss" in figures else "loss")
        value = figures.get(name)
        if not isinstance(value, int | float) or not isfinite(value):
            return None
        return -float(value) if name.endswith("loss") else float(value)


def resolve_checkpoints(checkpoint: str | PathLike[str] | Checkpoints | None) -> Checkpoints | None:
    """Return the spec of a folder that was given by its path."""
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        return checkpoint
    if not isinstance(checkpoint, str | PathLike):
        raise InputError(f"checkpoint is {checkpoint!r}: give a folder, or daskconv.Checkpoints(folder).")
    return Checkpoints(checkpoint)
