"""Pieces: what a worker holds of the parameters, of the optimiser's slots and of the running statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from daskconv.nn.layers.base import Arrays
from daskconv.plan.boxes import Box, slices, whole
from daskconv.plan.split import Split
from daskconv.plan.tasks import AVERAGE, Position, TrainState

if TYPE_CHECKING:
    from daskconv.plan.program import Program

Key = tuple[str, Box]


@dataclass
class Pieces:
    """A worker's pieces, each once, however many of its shards read it.

    Attributes
    ----------
    split : Split
    params, statistics : dict of array
        By name and box.
    slots : dict of dict
        By name and box, the optimiser's arrays by their full names.
    steps : int
    position : Position
    """

    split: Split | None
    params: dict[Key, NDArray]
    statistics: dict[Key, NDArray]
    slots: dict[Key, Arrays]
    steps: int = 0
    position: Position = field(default_factory=Position)

    @classmethod
    def cut(cls, split: Split, state: TrainState, shards: Sequence[int]) -> Pieces:
        """Return the pieces of some shards, copied from a whole state."""
        params, statistics, slots = {}, {}, {}
        for shard in shards:
            for name, piece in split.pieces[shard].items():
                key = name, piece.box
                if name in state.statistics:
                    statistics[key] = _cut(state.statistics[name], piece.box)
                elif key not in params:
                    array = state.params[name]
                    params[key] = _cut(array, piece.box)
                    slots[key] = {
                        slot: _cut(each, piece.box) if each.shape == array.shape else each.copy()
                        for slot, each in state.slots.items()
                        if _is_slot_of(slot, name)
                    }
        return cls(split, params, statistics, slots, state.steps, state.position)

    def without_split(self) -> Pieces:
        """Return the pieces as they travel to somebody who has the Split."""
        return replace(self, split=None)

    def of(self, shard: int) -> tuple[dict[str, Arrays], dict[str, Arrays]]:
        """Return a shard's parameters and running statistics, by the node that reads them."""
        assert self.split is not None
        params: dict[str, Arrays] = {}
        statistics: dict[str, Arrays] = {}
        for name, piece in self.split.pieces[shard].items():
            into, arrays = (
                (statistics, self.statistics) if name in self.split.statistics else (params, self.params)
            )
            into.setdefault(self.split.owners[name], {})[name.rpartition(".")[2]] = arrays[name, piece.box]
        return params, statistics

    def update(
        self, program: Program, gradients: Mapping[Key, NDArray], sums: NDArray, rate: float, scale: float
    ) -> None:
        """Take the optimiser's step with ``scale`` times the gradients, in place."""
        for (name, box), param in self.params.items():
            if (name, box) not in gradients:
                continue
            slots = self.slots[name, box]
            program.optimizer.step(name, param, gradients[name, box], slots, rate, scale)
            if program.average is not None:
                mean = slots[f"{AVERAGE}{name}"]
                mean += mean.dtype.type(1 - program.average) * (param - mean)
        images = np.dtype(program.dtype).type(sums[2])
        for (name, box), running in self.statistics.items():
            if (name, box) not in gradients:
                continue  # of a frozen layer
            followed = program.network.follow({name: running}, {name: gradients[name, box] / images})
            self.statistics[name, box] = followed[name]
        self.position, self.steps = self.position.after(sums), self.steps + 1


def joined(state: TrainState, pieces: Sequence[Pieces]) -> TrainState:
    """Return a whole state from the pieces of all workers; ``state`` has the shapes."""
    whole_state = state.copy()
    for each in pieces:
        for source, target in ((each.params, whole_state.params), (each.statistics, whole_state.statistics)):
            for (name, box), array in source.items():
                target[name][slices(box, whole(target[name].shape), None)] = array
        for (name, box), slots in each.slots.items():
            shape = whole_state.params[name].shape
            for slot, array in slots.items():
                full = whole_state.slots[slot]
                full[slices(box, whole(shape), None) if full.shape == shape else ...] = array
    whole_state.steps, whole_state.position = pieces[0].steps, pieces[0].position
    return whole_state


def _cut(array: NDArray, box: Box) -> NDArray:
    return np.ascontiguousarray(array[slices(box, whole(array.shape), None)]).copy()


def _is_slot_of(slot: str, name: str) -> bool:
    return slot == f"{slot.partition('.')[0]}.{name}"
