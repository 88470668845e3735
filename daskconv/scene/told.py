"""What storing a scene's map tells: which chunks there are, run, and are done; a few times a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import Lock
from time import monotonic
from typing import Any

from daskconv.events import RunEnded, SceneBegan, TilesDone, emit
from daskconv.run.watch import Asked, asked_now

_INTERVAL = 0.5  # seconds
Place = tuple[int, ...]


class Tiles:
    """Tells of the chunks of one map."""

    def __init__(self, run: str, closely: bool) -> None:
        self.run, self.closely = run, closely
        self._places: list[Place] = []
        self._running: set[Place] = set()
        self._told, self._change = monotonic(), Lock()

    def runs(self, place: Place) -> None:
        """A chunk is being computed by this process."""
        if self.closely:
            with self._change:
                self._running.add(place)
                self._tell()

    def done(self, place: Place) -> None:
        """A chunk was written."""
        if self.closely:
            with self._change:
                self._running.discard(place)
                self._places.append(place)
                self._tell()

    def _tell(self, at_once: bool = False) -> None:
        if at_once or monotonic() - self._told >= _INTERVAL:
            emit(TilesDone(self._places, sorted(self._running), run=self.run))
            self._told, self._places = monotonic(), []

    def end(self, how: str) -> None:
        """Tell the rest."""
        if self.closely:
            with self._change:
                self._tell(at_once=True)
            emit(RunEnded(how, run=self.run))


@contextmanager
def telling(
    name: str, blocks: Sequence[int], done: Sequence[Place], keys: Sequence[str], client: Any
) -> Iterator[Tiles]:
    """Tell the page on the client's scheduler, and the listeners here, of a map's chunks where somebody asked."""
    from daskconv.run.forward import publishing

    asked: Asked = asked_now()
    tiles = Tiles(*asked)
    with publishing(client) if asked.closely else nullcontext():
        if asked.closely:
            emit(SceneBegan(name, list(blocks), [list(place) for place in done], list(keys), run=asked.run))
        try:
            yield tiles
        except BaseException:
            tiles.end("stopped")
            raise
        tiles.end("done")
