"""What happened, as plain data: transports emit, progress bars and pages listen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TOPIC = "daskconv"
"""Topic of Dask's event log that carries these events between processes."""


@dataclass(frozen=True)
class StepDone:
    """A training step ended.

    Attributes
    ----------
    epoch, step, steps : int
        From 0; ``steps`` in an epoch.
    images : int
        Images trained in this epoch so far.
    sums : tuple of float
        The epoch's sums so far: loss, weight, images, metrics.
    """

    epoch: int
    step: int
    steps: int
    images: int
    sums: tuple[float, ...]


Listener = Callable[[StepDone], None]
_listeners: list[Listener] = []


def emit(event: StepDone) -> None:
    """Hand an event to every listener of this process."""
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener`` with every event while the context is open."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
