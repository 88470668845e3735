"""The keeper: says when a checkpoint of training is due, and writes it in a thread beside the steps."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from daskconv.errors import DataError, InputError
from daskconv.graph.threads import step_back
from daskconv.run.transport import HeldByWorkers
from daskconv.train.checkpoints import folder, holders, write
from daskconv.train.checkpoints.spec import Checkpoints
from daskconv.train.files import Checkpoint


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
        # Whether workers that hold the state see the folder, as far as is known.
        self._shared = True
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
        if self._begin(checkpoint):
            found = figures or {}
            self._start(checkpoint, found, lambda: write.write(self.folder, checkpoint, found))

    def take_from(
        self, transport: HeldByWorkers, checkpoint: Checkpoint, figures: Mapping[str, Any] | None = None
    ) -> bool:
        """Begin a checkpoint of which workers write their own pieces; return False where they do not see the folder."""
        if not self._shared:
            return False
        if not self._begin(checkpoint):
            return True
        found = figures or {}
        try:
            part = folder.begin(self.folder.absolute(), folder.name_of(checkpoint.state.steps))
        except OSError:
            return False  # whoever writes all of it finds the same, and says so
        self._shared = all(transport.hand_over(holders.begin, str(part)))
        if self._shared:
            self._start(checkpoint, found, lambda: write.write_pieces(part, transport, checkpoint, found))
        else:
            folder.give_up(part)
        return self._shared

    def _begin(self, checkpoint: Checkpoint) -> bool:
        """Wait for the checkpoint before; return whether this is another one."""
        self._wait()
        return checkpoint.state.steps != self._written

    def _start(self, checkpoint: Checkpoint, figures: Mapping[str, Any], writing: Callable[[], None]) -> None:
        self._since = monotonic()
        args = (checkpoint.state.steps, figures, writing)
        self._thread = threading.Thread(
            target=self._write, args=args, name="daskconv-checkpoint", daemon=True
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

    def _write(self, steps: int, figures: Mapping[str, Any], writing: Callable[[], None]) -> None:
        step_back()
        try:
            writing()
        except DataError as error:
            self._failure = error
            kept = f"{self.newest} stays the newest" if self.newest else "there is none before it"
            warnings.warn(f"{str(error).rstrip('.')}; {kept}.", RuntimeWarning, stacklevel=2)
            return
        self._failure, self._written = None, steps
        self._scores[folder.name_of(steps)] = self.spec.score(figures) if figures else None
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


def _verifies(path: Path) -> bool:
    try:
        folder.read(path)
    except DataError:
        return False
    return True
