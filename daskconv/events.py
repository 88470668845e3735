"""What happened, as plain data: transports and the trainer emit, progress bars, records and pages listen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from time import time
from typing import Any

TOPIC = "daskconv"
"""Topic of Dask's event log that carries these events between processes."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have.

    Attributes
    ----------
    run : str
        Which run it belongs to; "" where nobody watches.
    time : float
        Seconds since 1970, by the clock of whoever emits.
    """

    run: str = ""
    time: float = field(default_factory=time)

    def asdict(self) -> dict[str, Any]:
        """Return what JSON and Dask's messages carry; :func:`event_of` takes it back."""
        # What fields hold is plain already: dataclasses.asdict would copy each span.
        return {"event": type(self).__name__, **vars(self)}


@dataclass(frozen=True)
class RunBegan(Event):
    """Training began, or goes on.

    Attributes
    ----------
    network, plan, transport : str
        Names.
    workers, threads, shards : int
        Threads of each worker.
    batch, images, steps, epochs : int
        Images of a step and of an epoch; steps of an epoch.
    layers : sequence of mapping
        A row of the plan for each layer: see :func:`daskconv.plan.describe.rows_of`.
    memory : int
        Bytes that a worker is expected to take, with its process; 0 where nobody knows.
    """

    network: str
    plan: str
    transport: str
    workers: int
    threads: int
    shards: int
    batch: int
    images: int
    steps: int
    epochs: int
    layers: Sequence[Mapping[str, Any]] = ()
    memory: int = 0


@dataclass(frozen=True)
class StepDone(Event):
    """A training step ended.

    Attributes
    ----------
    epoch, step, steps : int
        From 0; ``steps`` in an epoch.
    images : int
        Images trained in this epoch so far.
    sums : sequence of float
        The epoch's sums so far: loss, weight, images, metrics.
    figures : mapping
        Loss and metrics, each one number, of the steps since the event before.
    """

    epoch: int
    step: int
    steps: int
    images: int
    sums: Sequence[float]
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochDone(Event):
    """An epoch ended; ``figures`` are the numbers of its row of the trainer's history, validation's too."""

    epoch: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class RunEnded(Event):
    """Training ended: ``how`` is "done", "stopped" or the error's one sentence."""

    how: str


@dataclass(frozen=True)
class WorkerStep(Event):
    """How a worker's steps went since it told last, and where the time of one of them went.

    Attributes
    ----------
    worker : str
    epoch, step : int
        The newest step, from 0: the one that ``layers`` and ``spans`` are of.
    threads : int
    steps, images, seconds : int, float, float
        Since the event before; images that this worker computed.
    working, waiting : float
        Seconds of a step in which the worker computed, and waited for others; means since the event before.
    memory : int
        Bytes of the process, resident.
    layers : sequence of (layer, pass, stage, seconds)
        Of the one step, each sum divided by the threads: with "idle" they add up to the step.
    spans : sequence of (thread, layer, pass, stage, start, end)
        Of the one step, in microseconds from its start. A thread's spans lie inside each other or apart; only those of
        stage "travel" overlap.
    """

    worker: str
    epoch: int
    step: int
    threads: int
    steps: int
    images: float
    seconds: float
    working: float
    waiting: float
    memory: int
    layers: Sequence[tuple[str, str, str, float]] = ()
    spans: Sequence[tuple[int, str, str, str, int, int]] = ()


@dataclass(frozen=True)
class SceneBegan(Event):
    """The chunks of a scene's map are being computed.

    Attributes
    ----------
    name : str
        Where they go.
    blocks : sequence of int
        Chunks along each axis.
    done : sequence of (int, ...)
        Places of chunks that are complete from a run before.
    keys : sequence of str
        What the names of tasks that make chunks begin with; a place follows.
    """

    name: str
    blocks: Sequence[int]
    done: Sequence[Sequence[int]] = ()
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class TilesDone(Event):
    """Some chunks of a scene's map were written, at these places; others ``running`` where somebody knows."""

    places: Sequence[Sequence[int]]
    running: Sequence[Sequence[int]] = ()


_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (RunBegan, StepDone, EpochDone, RunEnded, WorkerStep, SceneBegan, TilesDone)
}


def event_of(plain: Mapping[str, Any]) -> Event:
    """Return the event that ``asdict`` made; raise ValueError where it is none.

    Examples
    --------
    >>> event_of(RunEnded("done", run="a", time=1.0).asdict())
    RunEnded(run='a', time=1.0, how='done')
    """
    kind = _KINDS.get(str(plain.get("event"))) if isinstance(plain, Mapping) else None
    if kind is None:
        raise ValueError(f"This is no event: {str(plain)[:80]}")
    known = {spec.name for spec in fields(kind)}
    try:
        return kind(**{name: value for name, value in plain.items() if name in known})
    except TypeError as error:
        raise ValueError(f"This is no {kind.__name__}: {error}") from None


Listener = Callable[[Any], None]
_listeners: list[tuple[Listener, type[Event]]] = []


def emit(event: Event) -> None:
    """Hand an event to every listener of this process that asked for its kind."""
    for listener, kind in list(_listeners):
        if isinstance(event, kind):
            listener(event)


@contextmanager
def listening(listener: Listener, kind: type[Event] = StepDone) -> Iterator[None]:
    """Call ``listener`` with every event of a kind while the context is open; ``Event`` is all of them."""
    entry = (listener, kind)
    _listeners.append(entry)
    try:
        yield
    finally:
        _listeners.remove(entry)
