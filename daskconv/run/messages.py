"""Messages: arrays to and from the other ranks of an MPI job, moved by one thread that tests and sleeps.

MPI moves bytes here and computes nothing. An exchange is a generator: it yields a :class:`Move`, what it sends and
what it receives, and goes on, on the thread of the messages, once all of that has come; many may be under way.

A rank that fails tells all others, whose exchanges then end with its sentence. After that, and whenever a rank is
done, all ranks say how much they have sent and take in what is still on its way, so that nothing is left over.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv import timeline
from daskconv.errors import WorkerError, sentence_of

Parcel = tuple[int, int, NDArray]
"""(the other rank, a tag, a contiguous array)."""


class Move(NamedTuple):
    """What a rank sends and what it receives.

    Two parcels between the same ranks with the same tag come in the order in which they were sent.
    """

    sends: Sequence[Parcel] = ()
    receives: Sequence[Parcel] = ()


Exchange = Iterator[Move]

# Seconds between two looks at messages that have not come: while somebody waits for them, this share of the time
# that nothing has come, between these bounds; the longer one while everybody computes.
_SOON, _LATER, _SHARE = 5e-5, 1e-3, 0.02
# The last tags that every MPI has: that a rank has failed, and what all ranks say at the end.
_FAILED, _END = 32766, 32767
_NOBODY = -1
_WORD = np.dtype([("failed", np.int64), ("sent", np.int64), ("sentence", "S1008")])


class Pending:
    """An exchange that is under way."""

    def __init__(self, messages: Messages, exchange: Exchange) -> None:
        self.messages, self.exchange = messages, exchange
        self.missing, self.awaited = 0, False
        self.place, self.began = timeline.place(), time.perf_counter()
        self._ended = threading.Event()

    def wait(self) -> None:
        """Wait until the exchange has ended; raise WorkerError where a rank failed."""
        self.awaited = True
        self.messages.look_soon()
        started = time.monotonic()
        self._ended.wait()
        self.messages.traffic.seconds += time.monotonic() - started
        if self.messages.failure is not None:
            raise self.messages.failure

    def end(self) -> None:
        """Let those who wait go on."""
        if self.place is not None:
            timeline.note("travel", 0, self.began, self.place)
        self._ended.set()


@dataclass
class Traffic:
    """What one rank has sent, messages and bytes to each other rank, and the seconds in which it waited for others."""

    messages: Counter[int] = field(default_factory=Counter)
    nbytes: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, rank: int, nbytes: int) -> None:
        """Count one message."""
        self.messages[rank] += 1
        self.nbytes[rank] += nbytes


class Messages:
    """The messages of one rank; a context that all ranks of a communicator enter and leave together.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Used by nobody else while the context is open.
    deadline : float
        Seconds without any message, while some are missing, after which the job is aborted.
    """

    def __init__(self, comm: Any, deadline: float = 600) -> None:
        from mpi4py import MPI

        self.comm, self.deadline, self._mpi = comm, deadline, MPI
        self.traffic = Traffic()
        self.failure: WorkerError | None = None
        # SimpleQueue.get may wait for ever where its timeout ends just as something comes (CPython 3.11).
        self._inbox, self._bell = deque[Any](), threading.Lock()
        self._open: set[Pending] = set()
        self._requests: list[Any] = []
        # For each request: its exchange, and the rank it receives from.
        self._owners: list[tuple[Pending, int | None]] = []
        self._received: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="daskconv-messages", daemon=True)

    # Called by those who have something to exchange, on any thread.

    def __enter__(self) -> Messages:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Leave together with all other ranks; raise WorkerError where one of them failed."""
        self._put(_Leave(error))
        self._thread.join()
        if self.failure is not None and not isinstance(error, WorkerError):
            raise self.failure from error

    def start(self, exchange: Exchange) -> Pending:
        """Begin an exchange and return at once."""
        pending = Pending(self, exchange)
        self._put(pending)
        return pending

    def swap(self, sends: Sequence[Parcel] = (), receives: Sequence[Parcel] = ()) -> None:
        """Send and receive arrays, and return when all have come and gone."""
        self.start(iter([Move(sends, receives)])).wait()

    def look_soon(self) -> None:
        """Wake the thread of the messages: somebody waits."""
        # Whoever rings twice needs to be heard once.
        with suppress(RuntimeError):
            self._bell.release()

    def _put(self, wish: Any) -> None:
        self._inbox.append(wish)
        self.look_soon()

    # Called on the thread of the messages only.

    def _work(self) -> None:
        try:
            while not self._take(self._next()):
                self._look()
        except BaseException as error:
            self._abort(f"The thread of the messages failed ({type(error).__name__}: {error})")

    def _next(self) -> Any:
        """Return what somebody wants; None where it is time to look at the requests."""
        if not self._inbox:
            self._bell.acquire(timeout=self._nap())
        return self._inbox.popleft() if self._inbox else None

    def _nap(self) -> float:
        """Return how long to sleep unless somebody rings: for ever where nothing is under way."""
        if not self._open:
            return -1
        if not any(pending.awaited for pending in self._open):
            return _LATER
        return min(_LATER, max(_SOON, _SHARE * (time.monotonic() - self._heard)))

    def _take(self, wish: Any) -> bool:
        """Begin an exchange, or leave; return whether that is the end."""
        if isinstance(wish, _Leave):
            if self.failure is None:
                self._part(wish.error)
            return True
        if isinstance(wish, Pending):
            self._heard = self._heard if self._open else time.monotonic()
            self._open.add(wish)
            if self.failure is None:
                self._advance(wish)
            self._release()
        return False

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

    def _request(self, pending: Pending, move: Move) -> None:
        for rank, tag, array in move.receives:
            if array.nbytes:
                self._add(pending, rank, self.comm.Irecv(self._bytes(array), rank, tag))
        for rank, tag, array in move.sends:
            if array.nbytes:
                self._sent[rank] += 1
                self.traffic.add(rank, array.nbytes)
                self._add(pending, None, self.comm.Isend(self._bytes(array), rank, tag))

    def _add(self, pending: Pending, source: int | None, request: Any) -> None:
        pending.missing += 1
        self._requests.append(request)
        self._owners.append((pending, source))

    def _bytes(self, array: NDArray) -> list[Any]:
        return [array, array.nbytes, self._mpi.BYTE]

    def _look(self) -> None:
        """Go on with the exchanges whose messages have come; hear of a failure; give up after the deadline."""
        for pending in self._finished():
            if self.failure is None:
                self._advance(pending)
        if self._open and self.failure is None and self.comm.Iprobe(self._mpi.ANY_SOURCE, _FAILED):
            self._part(None)
        self._release()
        if self._open:
            self._check_deadline()

    def _finished(self) -> list[Pending]:
        """Return the exchanges that miss nothing any more."""
        done = set(self._mpi.Request.Testsome(self._requests) or ()) if self._requests else set()
        if not done:
            return []
        self._heard = time.monotonic()
        owners = [self._owners[at] for at in sorted(done)]
        self._requests = [request for at, request in enumerate(self._requests) if at not in done]
        self._owners = [owner for at, owner in enumerate(self._owners) if at not in done]
        for pending, source in owners:
            pending.missing -= 1
            if source is not None:
                self._received[source] += 1
        return list(dict.fromkeys(pending for pending, _ in owners if not pending.missing))

    def _release(self) -> None:
        """After a failure nobody waits any more."""
        if self.failure is not None:
            for pending in self._open:
                pending.end()
            self._open.clear()

    # The end: every rank tells every other one whether it failed and how much it has sent, and waits for the same.

    def _part(self, error: BaseException | None) -> None:
        """End together with all ranks; the failure of the lowest one that has one is everybody's."""
        peers = [rank for rank in range(self.comm.size) if rank != self.comm.rank]
        requests = [] if error is None else [self._notice(peer) for peer in peers]
        heard, own = np.zeros(self.comm.size, _WORD), np.zeros(self.comm.size, _WORD)
        own["failed"] = _NOBODY if error is None else self.comm.rank
        own["sentence"] = b"" if error is None else sentence_of(error).encode()[:1008]
        own["sent"] = [self._sent[rank] for rank in range(self.comm.size)]
        heard[self.comm.rank] = own[self.comm.rank]
        requests += [self.comm.Irecv(self._bytes(heard[p : p + 1]), p, _END) for p in peers]
        requests += [self.comm.Isend(self._bytes(own[p : p + 1]), p, _END) for p in peers]
        self._until(lambda: self._all_done(requests))
        self._take_in({p: int(heard["sent"][p]) for p in peers})
        failed = [word for word in heard if word["failed"] != _NOBODY]
        if failed:
            sentence = bytes(failed[0]["sentence"]).decode(errors="replace")
            where = f"Worker {failed[0]['failed']} of {self.comm.size} failed"
            self.failure = WorkerError(f"{where}: {sentence}")

    def _notice(self, peer: int) -> Any:
        """Wake a rank that waits for what will not come."""
        self._sent[peer] += 1
        return self.comm.Isend(self._bytes(np.zeros(1, np.uint8)), peer, _FAILED)

    def _take_in(self, sent: dict[int, int]) -> None:
        """Receive all that was sent here, and drop it where nobody expects it any more."""
        for request, (_, source) in zip(self._requests, self._owners, strict=True):
            if source is not None and not self._kept(request):
                self._received[source] += 1
        own = [
            request
            for request, (_, source) in zip(self._requests, self._owners, strict=True)
            if source is None
        ]
        self._until(lambda: self._drained(sent))
        self._until(lambda: self._all_done(own))
        self._requests, self._owners = [], []
        self._sent.clear()
        self._received.clear()

    def _kept(self, request: Any) -> bool:
        """Take a receive back; return whether that was possible, since nothing had come for it."""
        status = self._mpi.Status()
        request.Cancel()
        self._until(lambda: request.Test(status))
        return status.Is_cancelled()

    def _drained(self, sent: dict[int, int]) -> bool:
        for rank, count in sent.items():
            while self._received[rank] < count:
                status = self._mpi.Status()
                message = self.comm.Improbe(rank, self._mpi.ANY_TAG, status)
                if message is None:
                    return False
                rest = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
                request = message.Irecv(self._bytes(rest))
                self._until(request.Test)
                self._received[rank] += 1
        return True

    def _all_done(self, requests: list[Any]) -> bool:
        return not requests or self._mpi.Request.Testall(requests)

    def _until(self, done: Callable[[], bool]) -> None:
        self._heard = time.monotonic()
        while not done():
            time.sleep(_SOON)
            self._check_deadline()

    def _check_deadline(self) -> None:
        if time.monotonic() - self._heard > self.deadline:
            self._abort(f"A worker sent nothing for {self.deadline:.0f} s (daskconv.mpi.deadline)")

    def _abort(self, why: str) -> None:
        print(f"{why}: the job is aborted.", file=sys.stderr, flush=True)
        self.comm.Abort(1)


class _Leave(NamedTuple):
    error: BaseException | None
