"""Ctrl-C and SIGTERM end training after the step that runs; a second one ends the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from daskconv.errors import Interrupted
from daskconv.plan.tasks import Position


class StopRequest:
    """Whether training was asked to end, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.asked = False

    def __call__(self) -> bool:
        """Return whether to stop; what transports ask after each step."""
        return self.asked or self.signal is not None


@contextmanager
def catching(request: StopRequest) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request; the handlers from before come back with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in caught}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        restore()

    for number in caught:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def check_not_stopped(stop: StopRequest, position: Position) -> None:
    """Raise Interrupted where a signal ended training."""
    if stop.signal is not None:
        raise Interrupted(
            f"Training stopped on {stop.signal.name} after {position.epoch} epochs and "
            f"{position.step} steps: the last full step is kept.",
            stop.signal,
        )
