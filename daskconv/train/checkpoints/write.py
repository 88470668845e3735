"""Writing one checkpoint: by this process, or by the workers that hold the state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from daskconv.errors import DataError, sentence_of
from daskconv.run.patience import deadline
from daskconv.run.transport import HeldByWorkers
from daskconv.train.checkpoints import folder, holders
from daskconv.train.checkpoints.manifest import FORMAT
from daskconv.train.checkpoints.shard import shapes_of, whole_pieces, write_shard
from daskconv.train.files import Checkpoint, arrays_of, header_of

_OWN = "shard-00000.safetensors"
_LOOK = 0.05  # seconds between two questions whether workers are done


def write(where: Path, checkpoint: Checkpoint, figures: Mapping[str, Any]) -> None:
    """Write a checkpoint; raise DataError where that is not possible, and then leave nothing of it."""
    name = folder.name_of(checkpoint.state.steps)
    try:
        part = folder.begin(where, name)
    except OSError as error:
        raise _cannot(where / name, error) from None
    _finish(part, checkpoint, figures, lambda: _own_shard(part, arrays_of(checkpoint)))


def write_pieces(
    part: Path, transport: HeldByWorkers, checkpoint: Checkpoint, figures: Mapping[str, Any]
) -> None:
    """Write a checkpoint whose arrays workers are writing to a folder; of ``checkpoint``'s, the shapes count."""

    def files() -> dict[str, Any]:
        written = _wait_for(part, transport)
        own = {name: array for name, array in arrays_of(checkpoint).items() if name.startswith("preprocess/")}
        return (written | _own_shard(part, own)) if own else written

    _finish(part, checkpoint, figures, files)


def _own_shard(part: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {_OWN: write_shard(part / _OWN, whole_pieces(arrays))}


def _wait_for(part: Path, transport: HeldByWorkers) -> dict[str, Any]:
    """Return what workers have written; raise OSError where one could not."""
    found: list[tuple[str, Any] | None] = []
    end = time.monotonic() + deadline()
    while not found or any(each is None for each in found):
        answers = transport.ask(holders.result, str(part))
        found = [old or new for old, new in zip(found or answers, answers, strict=True)]
        if time.monotonic() > end:
            raise OSError(0, "a worker does not end")
        time.sleep(_LOOK)
    files = dict(each for each in found if each is not None)
    if "" in files:
        raise OSError(0, files[""])
    return files


def _finish(
    part: Path, checkpoint: Checkpoint, figures: Mapping[str, Any], files: Callable[[], dict[str, Any]]
) -> None:
    """Add the manifest to the files, and give the checkpoint its name."""
    name = folder.name_of(checkpoint.state.steps)
    contents: dict[str, Any] = {"format": FORMAT, "name": name}
    contents["figures"] = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    try:
        contents["files"] = files()
        contents["arrays"] = shapes_of(arrays_of(checkpoint))
        _check_whole(contents)
        folder.finish(part, contents | header_of(checkpoint))
    except (OSError, RuntimeError, KeyError) as error:
        folder.give_up(part)
        raise _cannot(part.parent / name, error) from None


def _check_whole(contents: dict[str, Any]) -> None:
    """Raise OSError where the files do not hold all values of an array."""
    held: dict[str, int] = dict.fromkeys(contents["arrays"], 0)
    for entry in contents["files"].values():
        for name, box in entry["pieces"]:
            held[name] += prod(stop - start for start, stop in box)
    for name, expected in contents["arrays"].items():
        if held[name] != prod(expected["shape"]):
            raise OSError(0, f"the workers hold {held[name]:,} values of {name} {tuple(expected['shape'])}")


def _cannot(path: Path, error: BaseException) -> DataError:
    why = getattr(error, "strerror", None) or sentence_of(error)
    return DataError(f"The checkpoint {path} cannot be written: {why}.")
