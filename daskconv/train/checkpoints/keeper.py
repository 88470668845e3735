"""The keeper: says when a checkpoint of training is due, and writes it in a thread beside the steps."""

from __future__ import annotations

import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

from daskconv.errors import DataError, InputError
from daskconv.graph.threads import step_back
from daskconv.train.checkpoints import folder
from daskconv.train.checkpoints.manifest import FORMAT
from daskconv.train.checkpoints.shard import shapes_of, whole_pieces, write_shard
from daskconv.train.checkpoints.spec import Checkpoints
from daskconv.train.files import Checkpoint, arrays_of, header_of

_PACKAGES = ("daskconv", "numpy", "dask", "distributed", "numba")


class Keeper:
    """Writes checkpoints of one training.

    Parameters
    ----------
    spec : Checkpoints
    done : int
        Steps that were done before.
    """

    def __init__(self, spec: Checkpoints, done: int) -> None:
        self.spec, self.folder = spec, Path(spec.folder)
        self._written, self._since = done, monotonic()
        self._thread: threading.Thread | None = None
        self._failure: DataError | None = None
        self._prepare(done)
        self._scores = {name: spec.score(found) for name, found in folder.figures(self.folder).items()}

    def _prepare(self, done: int) -> None:
        """Make the folder; raise where it cannot be written to, or has checkpoints that these would not follow."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder} cannot be made: {error.strerror}.") from None
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise DataError(
                f"{self.folder} is no folder that can be written to: write checkpoints elsewhere."
            )
        for name in folder.names(self.folder):
            if folder.steps_of(name) > done and _verifies(self.folder / name):
                raise InputError(
                    f"{self.folder} holds the checkpoint {name} and this training has done {done} steps: "
                    "resume from it, or give another folder."
                )
        folder.sweep(self.folder)

    @property
    def newest(self) -> Path | None:
        """The checkpoint that was written last, if it is there."""
        path = self.folder / folder.name_of(self._written)
        return path if path.exists() else None

    def until(self, step: int, done: int) -> int | None:
        """Return the step of the epoch before which the next checkpoint is due; None where minutes alone say it."""
        every = self.spec.steps
        return None if every is None else step + every - done % every

    def is_due(self, done: int) -> bool:
        """Whether so many steps in all, or the minutes, make a checkpoint due."""
        every = self.spec.steps
        return self.overdue() or (every is not None and done % every == 0)

    def overdue(self) -> bool:
        """Whether the minutes are over, and the checkpoint before is written."""
        minutes = self.spec.minutes
        if minutes is None or (self._thread is not None and self._thread.is_alive()):
            return False
        return monotonic() - self._since >= minutes * 60

    def is_best(self, figures: Mapping[str, Any]) -> bool:
        """Whether an epoch is better than all of which there are checkpoints."""
        score, others = self.spec.score(figures), [s for s in self._scores.values() if s is not None]
        return score is not None and score > max(others, default=-float("inf"))

    def take(self, checkpoint: Checkpoint, figures: Mapping[str, Any] | None = None) -> None:
        """Begin to write a checkpoint, whose arrays nobody changes, once the one before is written."""
        self._wait()
        if checkpoint.state.steps == self._written:
            return
        self._since = monotonic()
        self._thread = threading.Thread(
            target=self._write, args=(checkpoint, figures or {}), name="daskconv-checkpoint", daemon=True
        )
        self._thread.start()

    def end(self, checkpoint: Checkpoint) -> None:
        """Write where training stands, and return when that is on the disk, or a warning has said why not."""
        if checkpoint.state.steps:
            self.take(checkpoint)
        self._wait()

    def check(self) -> None:
        """Raise DataError where the checkpoint that was taken last could not be written."""
        if self._failure is not None:
            raise self._failure

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _write(self, checkpoint: Checkpoint, figures: Mapping[str, Any]) -> None:
        step_back()
        name = folder.name_of(checkpoint.state.steps)
        try:
            write(self.folder, checkpoint, figures)
        except DataError as error:
            self._failure = error
            kept = f"{self.newest} stays the newest" if self.newest else "there is none before it"
            warnings.warn(f"{str(error).rstrip('.')}; {kept}.", RuntimeWarning, stacklevel=2)
            return
        self._failure, self._written = None, checkpoint.state.steps
        self._scores[name] = self.spec.score(figures) if figures else None
        folder.prune(self.folder, self._kept())

    def _kept(self) -> set[str]:
        """Return the newest ones, the best one, and those of steps that are still to come."""
        present = folder.names(self.folder)
        later = {name for name in present if folder.steps_of(name) > self._written}
        newest = [name for name in present if name not in later][: self.spec.keep]
        scored = {name: s for name in reversed(present) if (s := self._scores.get(name)) is not None}
        return {*later, *newest, *([max(scored, key=scored.__getitem__)] if scored else [])}


@contextmanager
def keeping(keeper: Keeper | None, last: Callable[[], Checkpoint]) -> Iterator[None]:
    """Write where training stands in the end, after a failure too; raise DataError where that cannot be."""
    if keeper is None:
        yield
        return
    try:
        yield
    except Exception:
        keeper.end(last())
        raise
    keeper.end(last())
    keeper.check()


def write(where: Path, checkpoint: Checkpoint, figures: Mapping[str, Any]) -> None:
    """Write a checkpoint; raise DataError where that is not possible, and then leave nothing of it."""
    name, arrays = folder.name_of(checkpoint.state.steps), arrays_of(checkpoint)
    part = None
    try:
        part = folder.begin(where, name)
        file = "shard-00000.safetensors"
        contents: dict[str, Any] = {"format": FORMAT, "name": name, "versions": versions()}
        contents["figures"] = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        contents["files"] = {file: write_shard(part / file, whole_pieces(arrays))}
        contents["arrays"] = shapes_of(arrays)
        folder.finish(part, contents | header_of(checkpoint))
    except OSError as error:
        if part is not None:
            folder.give_up(part)
        raise DataError(f"The checkpoint {where / name} cannot be written: {error.strerror}.") from None


def versions() -> dict[str, str]:
    """Return what the bits of training depend on beside its options."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in _PACKAGES},
    }


def _verifies(path: Path) -> bool:
    try:
        folder.read(path)
    except DataError:
        return False
    return True
