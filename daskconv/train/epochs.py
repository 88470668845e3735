"""The epochs of one training: steps, pauses for checkpoints, validation, figures, callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from daskconv.plan.program import Program
from daskconv.plan.tasks import Position
from daskconv.run.transport import HeldByWorkers, Transport
from daskconv.train.checkpoints.keeper import Keeper

if TYPE_CHECKING:
    from daskconv.train.trainer import Trainer


@dataclass
class Epochs:
    """A trainer's epochs on a transport.

    Attributes
    ----------
    steps : int
        Of an epoch.
    stopped : function
        Whether to end after the step that runs.
    keeper : Keeper or None
    """

    trainer: Trainer
    transport: Transport
    program: Program
    steps: int
    stopped: Callable[[], bool]
    keeper: Keeper | None

    def __post_init__(self) -> None:
        self._done = self.trainer.steps

    def run(
        self,
        epochs: int,
        callbacks: Sequence[Callable[[Trainer, dict[str, Any]], Any]],
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        """Run until ``epochs`` are done or somebody stops it; the trainer gets the newest good state in any case."""
        try:
            self._run(epochs, callbacks, show)
        finally:
            self._close()

    def _run(self, epochs: int, callbacks: Sequence[Callable], show: Callable) -> None:
        trainer, program = self.trainer, self.program
        epoch, before = trainer.position.epoch, trainer.position
        while epoch < epochs and not self.stopped():
            started = monotonic()
            position = self._epoch(epoch, before.step)
            if position.step < self.steps:
                return
            seconds = monotonic() - started
            images = float(position.sums[2]) - (float(before.sums[2]) if before.sums.size else 0.0)
            logs = {"epoch": epoch + 1, **program.results(position.sums)}
            if "validation" in self.transport.data:
                results = program.results(self.transport.evaluate("validation"))
                logs |= {f"val_{name}": value for name, value in results.items()}
            logs |= {
                "learning_rate": program.rate(epoch, 0, 1),
                "seconds": seconds,
                "images_per_second": images / seconds,
            }
            trainer.history.epochs.append(logs)
            show(logs)
            epoch, before = epoch + 1, Position(epoch + 1)
            self._epoch_done(before, logs, callbacks)

    def _epoch(self, epoch: int, first: int) -> Position:
        """Run an epoch to its end, or to where it was stopped; checkpoints are taken where they are due."""
        keeper = self.keeper
        while True:
            if keeper is None:
                position = self.transport.run_epoch(epoch, self.stopped)
            else:
                until = keeper.until(first, self._done)
                position = self.transport.run_epoch(epoch, lambda: self.stopped() or keeper.overdue(), until)
            self._done += position.step - first
            if keeper is None or position.step >= self.steps or self.stopped():
                return position
            self._take(keeper, position)
            first = position.step

    def _epoch_done(self, now: Position, logs: dict[str, Any], callbacks: Sequence[Callable]) -> None:
        keeper = self.keeper
        if keeper is not None and (keeper.is_due(self._done) or keeper.is_best(logs)):
            self._take(keeper, now, logs)
        if callbacks:
            self.trainer.keep(self.transport.state(), self.steps)
        for callback in callbacks:
            callback(self.trainer, logs)

    def _take(self, keeper: Keeper, position: Position, figures: dict[str, Any] | None = None) -> None:
        """Begin a checkpoint: workers that hold the state write their pieces, where they see the folder."""
        transport = self.transport
        if isinstance(transport, HeldByWorkers):
            checkpoint = self.trainer.checkpoint_at(position, self._done)
            if keeper.take_from(transport, checkpoint, figures):
                return
        self.trainer.keep(transport.state(), self.steps)
        keeper.take(self.trainer.checkpoint(), figures)

    def _close(self) -> None:
        """Take back the state, after a failure the newest good one, and let the transport go."""
        trainer, transport = self.trainer, self.transport
        try:
            trainer.keep(transport.state(), self.steps)
            trainer.shard_owners, trainer.input_read = transport.owners(), transport.read()
        finally:
            transport.close()
