"""Ctrl-C, SIGTERM and SIGUSR1 end training after the step that runs.

A second Ctrl-C or SIGTERM ends the process, but for those that belong to the same wish: a batch system sends SIGTERM to
the launcher and to its ranks, so that the script gets its own and the launcher's, and one after the warning of SIGUSR1.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType

from daskconv.errors import Interrupted
from daskconv.plan.tasks import Position

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Seconds in which another SIGTERM is the same one.
_SAME = 3.0


class StopRequest:
    """Whether training was asked to end, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.asked = False
        self._since = 0.0

    def __call__(self) -> bool:
        """Return whether to stop; what transports ask after each step."""
        return self.asked or self.signal is not None

    def take(self, number: int) -> bool:
        """Take a signal; return whether the process should end at once."""
        before, now = self.signal, monotonic()
        if before is not None and number == signal.SIGUSR1:
            return False
        if before in (None, signal.SIGUSR1):
            self.signal, self._since = signal.Signals(number), now
            return False
        return not (number == before == signal.SIGTERM and now - self._since < _SAME)


@contextmanager
def catching(request: StopRequest) -> Iterator[None]:
    """Turn signals into a request; the handlers from before come back in the end, or for one that is too many."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        if request.take(number):
            restore()
            signal.raise_signal(number)

    for number in CAUGHT:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def check_not_stopped(stop: StopRequest, position: Position, kept: Path | None) -> None:
    """Raise Interrupted where a signal ended training; ``kept`` is the newest checkpoint."""
    if stop.signal is not None:
        where = f" in {kept}" if kept else ""
        raise Interrupted(
            f"Training stopped on {stop.signal.name} after {position.epoch} epochs and "
            f"{position.step} steps: the last full step is kept{where}.",
            stop.signal,
        )
