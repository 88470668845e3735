"""Connections: arrays to and from the other workers of a Dask cluster, over the connections that workers have anyway.

So they are encrypted where the cluster's are. A parcel has arrived once its receiver has answered; what comes before
it is expected waits in the receiver's mailbox. A worker that fails tells all others, whose exchanges then end with its
sentence; one that is gone cannot, and the driver says so in its place.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

from distributed.protocol import to_serialize
from numpy.typing import NDArray

from daskconv.errors import WorkerError, sentence_of
from daskconv.run.losses import Lost
from daskconv.run.moves import Carrier, Move, Pending

_Lane = tuple[int, int]
"""(the other worker, a tag)."""


class Connections(Carrier):
    """The exchanges of one worker during one task; a context that all workers of a run enter and leave together.

    Parameters
    ----------
    box : Mailbox
    rank : int
        This worker, in the order of ``addresses``.
    addresses : sequence of str
    patience : float
        Seconds that somebody waits for an exchange before all is given up.
    """

    def __init__(self, box: Mailbox, rank: int, addresses: Sequence[str], patience: float) -> None:
        super().__init__()
        self.box, self.rank, self.addresses, self.patience = box, rank, addresses, patience
        self._wishes = SimpleQueue[Any]()
        self._sent = Counter[_Lane]()
        self._taken = Counter[_Lane]()
        self._arrived: dict[_Lane, dict[int, NDArray]] = defaultdict(dict)
        self._expected: dict[_Lane, deque[tuple[Pending, NDArray]]] = defaultdict(deque)
        self._thread = threading.Thread(target=self._work, name="daskconv-connections", daemon=True)

    def __enter__(self) -> Connections:
        self._thread.start()
        self.box.open(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Leave; the others hear of a failure."""
        self.box.close()
        self._put(_Leave(error))
        self._thread.join()
        if self.failure is not None and not isinstance(error, WorkerError):
            raise self.failure from error

    def give_up(self) -> None:
        """Name a worker that has sent nothing for too long."""
        self._put(_Late())

    def _put(self, wish: Any) -> None:
        self._wishes.put(wish)

    def come(self, parcel: Arrived) -> None:
        """Take what has come."""
        self._put(parcel)

    def fail(self, error: WorkerError) -> None:
        """End all exchanges: somebody failed."""
        self._put(_Failed(error))

    # Called on the thread of the connections only.

    def _work(self) -> None:
        while self._take(self._wishes.get()):
            self._release()

    def _take(self, wish: Any) -> bool:
        """Do what somebody wants; return whether to go on."""
        match wish:
            case _Leave(error):
                if error is not None and self.failure is None:
                    self._part(error)
                return False
            case _ if self.failure is not None:
                if isinstance(wish, Pending):
                    wish.end()
            case _Failed(error):
                self.failure = error
            case _Late() if self._open:
                self._part(WorkerError(self._lateness()))
            case Pending():
                self._open.add(wish)
                self._advance(wish)
            case _Gone(pending):
                self._less(pending)
            case Arrived(_, source, tag, number, array):
                self._arrived[source, tag][number] = array
                self._hand_out((source, tag))
        return True

    def _request(self, pending: Pending, move: Move) -> None:
        lanes = []
        for source, tag, array in move.receives:
            if array.nbytes:
                pending.missing += 1
                self._expected[source, tag].append((pending, array))
                lanes.append((source, tag))
        for to, tag, array in move.sends:
            if array.nbytes:
                pending.missing += 1
                self.traffic.add(to, array.nbytes)
                number = self._sent[to, tag]
                self._sent[to, tag] += 1
                asyncio.run_coroutine_threadsafe(self._send(pending, to, tag, number, array), self.box.loop)
        for lane in lanes:
            self._hand_out(lane)

    def _hand_out(self, lane: _Lane) -> None:
        """Give those who expect them the parcels that have come, in the order in which they were sent."""
        while self._expected[lane] and self._taken[lane] in self._arrived[lane]:
            pending, array = self._expected[lane].popleft()
            array[...] = self._arrived[lane].pop(self._taken[lane])
            self._taken[lane] += 1
            self._less(pending)

    def _less(self, pending: Pending) -> None:
        pending.missing -= 1
        # A move that is still being requested, or a failure, is nobody's turn.
        if not pending.missing and pending in self._open:
            self._advance(pending)

    def _part(self, error: BaseException | None) -> None:
        """End, and let the other workers know."""
        assert error is not None
        where = f"Worker {self.rank} of {len(self.addresses)} failed: "
        sentence = str(error) if isinstance(error, Lost) else where + sentence_of(error)
        self.failure = Lost(sentence) if isinstance(error, Lost) else WorkerError(sentence)
        for to in range(len(self.addresses)):
            if to != self.rank:
                asyncio.run_coroutine_threadsafe(self._notice(to, self.failure), self.box.loop)

    def _lateness(self) -> str:
        waiting = {lane[0] for lane, expected in self._expected.items() if expected}
        late = f"worker {self.addresses[min(waiting)]}" if waiting else "an answer"
        return f"a step has not ended in {self.patience:g} s (daskconv.deadline): {late} is missing"

    # Called on the worker's event loop.

    async def _send(self, pending: Pending, to: int, tag: int, number: int, array: NDArray) -> None:
        parcel = {"source": self.rank, "tag": tag, "number": number, "array": to_serialize(array)}
        try:
            peer = self.box.worker.rpc(self.addresses[to])
            known = await peer.daskconv_parcel(run=self.box.run, session=self.box.session, **parcel)
        except Exception as error:  # of any kind: nobody else would hear of it
            self._put(_Failed(Lost(f"Worker {self.addresses[to]} does not answer: {sentence_of(error)}")))
            return
        self._put(
            _Gone(pending) if known else _Failed(Lost(f"Worker {self.addresses[to]} has left the run."))
        )

    async def _notice(self, to: int, failure: WorkerError) -> None:
        lost = isinstance(failure, Lost)
        try:
            peer = self.box.worker.rpc(self.addresses[to])
            await peer.daskconv_failed(
                run=self.box.run, session=self.box.session, sentence=str(failure), lost=lost
            )
        except OSError:
            pass  # it is gone, as the driver will see


class Arrived(NamedTuple):
    """A parcel that has come; parcels of a lane are numbered from 0 in each task."""

    session: int
    source: int
    tag: int
    number: int
    array: NDArray


class _Leave(NamedTuple):
    error: BaseException | None


class _Failed(NamedTuple):
    error: WorkerError


class _Late(NamedTuple):
    pass


class _Gone(NamedTuple):
    pending: Pending


@dataclass
class Mailbox:
    """What comes to a worker for one run: some of it before the task that expects it has begun.

    Attributes
    ----------
    run : str
    worker : distributed.Worker
    session : int
        Tasks of the run so far: all its workers do the same ones.
    """

    run: str
    worker: Any
    session: int = 0
    _early: list[Arrived] = field(default_factory=list)
    _failure: tuple[int, WorkerError] | None = None
    _owner: Connections | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def loop(self) -> Any:
        """The worker's event loop."""
        return self.worker.loop.asyncio_loop

    def open(self, owner: Connections) -> None:
        """Begin a task's session."""
        with self._lock:
            self.session += 1
            self._owner = owner
            early, self._early = self._early, []
            for parcel in early:
                self._deliver(parcel)
            if self._failure is not None:
                self._hear(*self._failure)

    def close(self) -> None:
        """End a task's session."""
        with self._lock:
            self._owner = None

    def put(self, parcel: Arrived) -> None:
        """Take a parcel."""
        with self._lock:
            self._deliver(parcel)

    def fail(self, session: int | None, error: WorkerError) -> None:
        """Hear that a worker failed in a session; None is any."""
        with self._lock:
            self._hear(self.session if session is None else session, error)

    def _deliver(self, parcel: Arrived) -> None:
        if self._owner is not None and parcel.session == self.session:
            self._owner.come(parcel)
        elif parcel.session > self.session:
            self._early.append(parcel)

    def _hear(self, session: int, error: WorkerError) -> None:
        if self._owner is not None and session == self.session:
            self._owner.fail(error)
        elif session > self.session:
            self._failure = session, error


_boxes: dict[tuple[str, str], Mailbox] = {}
"""By worker and run: workers of a LocalCluster with processes=False share a process."""


def open_mailbox(run: str, worker: Any) -> Mailbox:
    """Let a worker take what comes for a run."""
    _boxes[worker.address, run] = box = Mailbox(run, worker)
    # There the sender's own array comes, which it uses again as soon as it has an answer.
    in_process = worker.address.startswith("inproc")

    async def daskconv_parcel(
        run: str, session: int, source: int, tag: int, number: int, array: NDArray
    ) -> bool:
        found = _boxes.get((worker.address, run))
        if found is not None:
            found.put(Arrived(session, source, tag, number, array.copy() if in_process else array))
        return found is not None

    async def daskconv_failed(run: str, session: int, sentence: str, lost: bool) -> None:
        found = _boxes.get((worker.address, run))
        if found is not None:
            found.fail(session, (Lost if lost else WorkerError)(sentence))

    worker.handlers.setdefault("daskconv_parcel", daskconv_parcel)
    worker.handlers.setdefault("daskconv_failed", daskconv_failed)
    return box


def close_mailbox(run: str, worker: Any) -> None:
    """Let what still comes for a run go by."""
    box = _boxes.pop((worker.address, run), None)
    if box is not None:
        box.fail(None, Lost("The run was begun anew."))


def lose(run: str, sentence: str, dask_worker: Any) -> None:
    """Tell a worker that another one of a run is gone."""
    box = _boxes.get((dask_worker.address, run))
    if box is not None:
        box.fail(None, Lost(sentence))
