"""The page without a scheduler: a Bokeh server in this process, for this host alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from daskconv.dashboard.leaving import allow_leaving
from daskconv.dashboard.record import Record
from daskconv.errors import InputError
from daskconv.events import Event, listening

# Ports that are tried after the one that was asked for.
_TRIES = 20


@contextmanager
def serving(port: int = 8787) -> Iterator[str]:
    """Serve the page of what this process trains while the context is open; yield its address.

    Parameters
    ----------
    port : int
        The first one that is free from there on.

    Raises
    ------
    InputError
        Without Bokeh, or where none of the ports is free.
    """
    record, lock = Record(), threading.Lock()

    def add(event: Event) -> None:
        with lock:
            record.add(event)

    served = _Served(port, record, lock)
    try:
        with listening(add, Event):
            yield f"http://127.0.0.1:{served.port}/daskconv"
    finally:
        served.stop()


class _Served:
    """A Bokeh server on a thread of its own."""

    def __init__(self, port: int, record: Record, lock: Any) -> None:
        self.port, self._record, self._lock = port, record, lock
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="daskconv-page", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        try:
            from tornado.ioloop import IOLoop

            self._loop = IOLoop.current()
            self._server = self._bound()
        except (ImportError, InputError) as error:
            self._error = InputError(f"The page cannot be shown here: {error}")
            self._ready.set()
            return
        self._server.start()
        self._loop.add_callback(self._ready.set)
        self._loop.start()
        self._server.stop()
        self._loop.close()

    def _bound(self) -> Any:
        """Return a server on the first port that is free."""
        from bokeh.server.server import Server

        from daskconv.dashboard.page import guarded, paths, show

        allow_leaving()
        records = guarded(self._record, self._lock)
        applications = {path: partial(show, names=names, records=records) for path, names in paths().items()}
        first = self.port
        for port in range(first, first + _TRIES):
            origins = [f"{host}:{port}" for host in ("127.0.0.1", "localhost")]
            try:
                server = Server(
                    applications,
                    port=port,
                    address="127.0.0.1",
                    allow_websocket_origin=origins,
                    io_loop=self._loop,
                    use_index=False,
                )
            except OSError:
                continue
            self.port = port
            return server
        raise InputError(f"ports {first} to {first + _TRIES - 1} are in use, so give another one.")

    def stop(self) -> None:
        """End the server and its thread."""
        self._loop.add_callback(self._loop.stop)
        self._thread.join(timeout=10)
