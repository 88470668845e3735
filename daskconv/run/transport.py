"""What the trainer asks of a transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.input import InputRead
from daskconv.plan.tasks import Data, Position, TrainState


class Transport(Protocol):
    """One way to run a Program. The state lives with the transport between calls."""

    name: str
    data: Mapping[str, Data]

    def run_epoch(self, epoch: int, stopped: Callable[[], bool], until: int | None = None) -> Position:
        """Run an epoch from where the state stands in it to its end, to the step ``until``, or until ``stopped()``.

        The result's step is the number of steps done; its sums are the epoch's.
        """

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set, by its name."""

    def state(self) -> TrainState:
        """Return the state, here, which no later step changes; after a failure, the newest good one."""

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker has computed so far."""

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read for training, and waited for."""

    def close(self) -> None:
        """Let go of everything the transport holds on workers."""


@runtime_checkable
class HeldByWorkers(Protocol):
    """A transport whose state lies in pieces on its workers, which may do something with them there."""

    def hand_over(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what ``function(number, pieces, *args)`` returns on each worker.

        Pieces are (name, box, array), the array a copy; each is given to one worker only.
        """

    def ask(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what a function returns on each worker, which may be in the middle of its steps."""


def begin(state: TrainState, epoch: int) -> TrainState:
    """Return the state at its place in an epoch, or at the start of one that it has not begun."""
    if state.position.epoch == epoch:
        return state
    return replace(state, position=Position(epoch))
