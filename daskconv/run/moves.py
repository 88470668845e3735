"""Exchanges between workers: what a worker sends and receives, whatever carries it.

An exchange is a generator: it yields a :class:`Move` and goes on once all of that has come and gone; many may be under
way. The arithmetic of an exchange is done by the thread that carries its messages.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from numpy.typing import NDArray

from daskconv import timeline
from daskconv.errors import WorkerError

Parcel = tuple[int, int, NDArray]
"""(the other worker, a tag, a contiguous array)."""


class Move(NamedTuple):
    """What a worker sends and what it receives.

    Two parcels between the same workers with the same tag come in the order in which they were sent.
    """

    sends: Sequence[Parcel] = ()
    receives: Sequence[Parcel] = ()


Exchange = Iterator[Move]


class Pending:
    """An exchange that is under way."""

    def __init__(self, carrier: Carrier, exchange: Exchange) -> None:
        self.carrier, self.exchange = carrier, exchange
        self.missing, self.awaited = 0, False
        self.place, self.began = timeline.place(), time.perf_counter()
        self._ended = threading.Event()

    def wait(self) -> None:
        """Wait until the exchange has ended; raise WorkerError where a worker failed."""
        self.awaited = True
        self.carrier.look_soon()
        with self.carrier.traffic.waited():
            if not self._ended.wait(self.carrier.patience):
                self.carrier.give_up()
                self._ended.wait()
        if self.carrier.failure is not None:
            raise self.carrier.failure

    def end(self) -> None:
        """Let those who wait go on."""
        if self.place is not None:
            timeline.note("travel", 0, self.began, self.place)
        self._ended.set()


@dataclass
class Traffic:
    """What a worker has sent, messages and bytes to each other one, and how it waited for others.

    Attributes
    ----------
    messages, nbytes : Counter
        By the other worker.
    seconds : float
        In which it waited.
    waiting : bool
        Whether it does now.
    """

    messages: Counter[int] = field(default_factory=Counter)
    nbytes: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    waiting: bool = False

    @contextmanager
    def waited(self) -> Iterator[None]:
        """Count the seconds while the context is open."""
        started, self.waiting = time.monotonic(), True
        try:
            yield
        finally:
            self.waiting = False
            self.seconds += time.monotonic() - started

    def add(self, worker: int, nbytes: int) -> None:
        """Count one message."""
        self.messages[worker] += 1
        self.nbytes[worker] += nbytes


class Carrier(ABC):
    """What carries the exchanges of one worker; a context that all workers of a run enter and leave together.

    Attributes
    ----------
    traffic : Traffic
    failure : WorkerError or None
        After one nothing travels any more.
    patience : float or None
        Seconds that somebody waits for an exchange before all is given up; None where the carrier itself looks at that.
    """

    patience: float | None = None

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.failure: WorkerError | None = None
        self._open: set[Pending] = set()

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Leave together with all others; raise WorkerError where one of them failed."""

    def start(self, exchange: Exchange) -> Pending:
        """Begin an exchange and return at once."""
        pending = Pending(self, exchange)
        self._put(pending)
        return pending

    def swap(self, sends: Sequence[Parcel] = (), receives: Sequence[Parcel] = ()) -> None:
        """Send and receive arrays, and return when all have come and gone."""
        self.start(iter([Move(sends, receives)])).wait()

    def look_soon(self) -> None:  # noqa: B027 (some have nothing to do)
        """Hear that somebody waits."""

    def give_up(self) -> None:  # noqa: B027
        """Hear that somebody has waited for too long."""

    @abstractmethod
    def _put(self, wish: Any) -> None:
        """Hand a wish to the thread that carries."""

    # Called on the thread that carries only.

    @abstractmethod
    def _request(self, pending: Pending, move: Move) -> None:
        """Begin a move, and count what the exchange misses until it has ended."""

    @abstractmethod
    def _part(self, error: BaseException | None) -> None:
        """End with a failure, and let the other workers know."""

    def _advance(self, pending: Pending) -> None:
        """Run an exchange on to where it has to wait."""
        while not pending.missing:
            try:
                move = next(pending.exchange)
            except StopIteration:
                self._open.discard(pending)
                pending.end()
                return
            except Exception as error:
                self._part(error)
                return
            self._request(pending, move)

    def _release(self) -> None:
        """After a failure nobody waits any more."""
        if self.failure is not None:
            for pending in self._open:
                pending.end()
            self._open.clear()
