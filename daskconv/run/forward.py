"""Carry events from workers to the driver, and from there to the page, over Dask's event log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, get_worker

from daskconv.events import (
    TOPIC,
    EpochDone,
    Event,
    RunBegan,
    RunEnded,
    SceneBegan,
    TilesDone,
    emit,
    event_of,
    listening,
)

# What the driver alone knows; all else the scheduler has heard of already, from workers.
_DRIVERS = (RunBegan, EpochDone, RunEnded, SceneBegan, TilesDone)


def sender(run: str) -> Callable[[Event], None]:
    """Return what sends a worker's events of a run to the scheduler, and to its driver."""

    def send(event: Event) -> None:
        get_worker().log_event(TOPIC, {"run": run, "event": event.asdict()})

    return send


def worker_name() -> str:
    """Return the name of the worker whose task this is: a number in a LocalCluster and under dask-mpi."""
    return str(get_worker().name)


@contextmanager
def forwarding(client: Client, run: str) -> Iterator[None]:
    """Emit the events that workers send of one run in this process, while the context is open."""

    def receive(event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        if message.get("run") == run:
            emit(event_of(message["event"]))

    client.subscribe_topic(TOPIC, receive)
    try:
        yield
    finally:
        client.unsubscribe_topic(TOPIC)


@contextmanager
def publishing(client: Client | None) -> Iterator[None]:
    """Send the driver's own events to the scheduler, for its page, while the context is open."""
    if client is None:
        yield
        return

    def publish(event: Event) -> None:
        if isinstance(event, _DRIVERS) and event.run:
            client.log_event(TOPIC, {"run": "", "event": event.asdict()})

    with listening(publish, Event):
        yield
