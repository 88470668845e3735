"""Carry events from workers to the driver over Dask's event log, a few a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np
from distributed import Client, get_worker

from daskconv.events import TOPIC
from daskconv.plan.tasks import Position
from daskconv.run.local import emit_position

_INTERVAL = 0.25  # seconds between events of one run from one worker
_last_sent: dict[str, float] = {}


def send_position(run: str, position: Position, steps: int) -> None:
    """Tell the driver how far a run is, unless it was told a moment ago; the epoch's last step always goes."""
    now = monotonic()
    if position.step < steps and now - _last_sent.get(run, 0.0) < _INTERVAL:
        return
    _last_sent[run] = now
    message = {
        "run": run,
        "epoch": position.epoch,
        "step": position.step,
        "steps": steps,
        "sums": position.sums.tolist(),
    }
    get_worker().log_event(TOPIC, message)


@contextmanager
def forwarding(client: Client, run: str) -> Iterator[None]:
    """Emit the events that workers send of one run in this process, while the context is open."""

    def receive(event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        if message.get("run") == run:
            position = Position(message["epoch"], message["step"], np.array(message["sums"]))
            emit_position(position, message["steps"])

    client.subscribe_topic(TOPIC, receive)
    try:
        yield
    finally:
        client.unsubscribe_topic(TOPIC)
