"""What workers do that hold a state: each writes its own pieces, in a thread beside its steps."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from daskconv.errors import sentence_of
from daskconv.graph.threads import step_back
from daskconv.plan.boxes import Box
from daskconv.train.checkpoints.shard import Piece, write_shard

_writing: dict[str, Future[tuple[str, dict[str, Any]]]] = {}


def begin(number: int, pieces: Sequence[tuple[str, Box, Any]], part: str) -> bool:
    """Begin to write a worker's pieces; return whether the driver's folder is there, where this worker is."""
    if not Path(part).is_dir():
        return False
    for done in [before for before, future in _writing.items() if future.done()]:
        del _writing[done]
    _writing[part] = Future()
    named = [Piece(*piece) for piece in pieces]
    threading.Thread(target=_write, args=(number, named, part), name="daskconv-shard", daemon=True).start()
    return True


def _write(number: int, pieces: Sequence[Piece], part: str) -> None:
    step_back()
    name = f"shard-{number + 1:05d}.safetensors"
    try:
        _writing[part].set_result((name, write_shard(Path(part) / name, pieces)))
    except BaseException as error:
        _writing[part].set_exception(error)


def result(part: str) -> tuple[str, Any] | None:
    """Return the file's name and what the manifest says of it; no name and a sentence where it failed; None before."""
    future = _writing[part]
    if not future.done():
        return None
    error = future.exception()
    if error is not None:
        return "", getattr(error, "strerror", None) or sentence_of(error)
    return future.result()
