"""A step's gradients on one worker, and their sums: each bucket travels while the backward pass goes on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.boxes import shape_of
from daskconv.plan.pieces import Key
from daskconv.plan.split import Bucket
from daskconv.plan.tasks import Places
from daskconv.run.exchange import BUCKETS, Adder, Steps
from daskconv.run.moves import Pending

if TYPE_CHECKING:
    from daskconv.run.shards import Shards


class Gradients:
    """The gradients of the shards here.

    A bucket begins to travel as soon as each shard here has all of it, on the thread that comes last.

    Parameters
    ----------
    shards : Shards
    """

    def __init__(self, shards: Shards) -> None:
        self.program, self.split, self.mesh = shards.program, shards.split, shards.mesh
        self.buckets = {
            number: bucket
            for number, bucket in enumerate(shards.buckets)
            if set(bucket.holders) & set(self.mesh.mine)
        }
        self._lock = threading.Lock()
        self._missing: dict[int, Counter[tuple[int, str]]] = {number: Counter() for number in self.buckets}
        self._adders: dict[int, Adder] = {}
        self._pending: dict[int, Pending] = {}
        self._vectors = shards.run(self._zeros)
        self.places = {shard: self._places(shard, shards.times) for shard in self.mesh.mine}

    def _zeros(self, shard: int) -> dict[int, NDArray]:
        """Return a shard's vector of each bucket that it has a part of."""
        return {
            number: np.zeros(bucket.elements, self.program.dtype)
            for number, bucket in self.buckets.items()
            if shard in bucket.holders
        }

    def _places(self, shard: int, times: dict[str, int]) -> ToldPlaces:
        found, bucket_of = {}, {}
        for number, vector in self._vectors[shard].items():
            for (name, _), view in views(self.buckets[number], vector).items():
                found[name], bucket_of[name] = view, number
                if self._gives(shard, name):
                    self._missing[number][shard, name] = times[name]
        return ToldPlaces(found, times, lambda name: self._come(shard, name, bucket_of[name]))

    def _gives(self, shard: int, name: str) -> bool:
        """Return whether a shard has a part in a sum: of batch statistics, one of those that have the same."""
        first, last = self.split.pieces[shard][name].counts
        return name not in self.split.statistics or last > first

    def _come(self, shard: int, name: str, number: int) -> None:
        """Note that a shard has one more part of a gradient; begin a bucket's exchange with the last of all."""
        with self._lock:
            missing = self._missing[number]
            missing[shard, name] -= 1
            complete = not missing[shard, name] and not any(missing.values())
        if complete:
            self._start(number)

    def _start(self, number: int) -> None:
        bucket = self.buckets[number]
        vectors = {shard: own[number] for shard, own in self._vectors.items() if number in own}
        adder = Adder(
            self.mesh, BUCKETS + number, bucket.holders, bucket.elements, self.program.dtype, vectors
        )
        self._adders[number] = adder
        if adder.travels:
            self._pending[number] = self.mesh.start(adder.exchange())

    def sums(self) -> Steps[dict[Key, NDArray]]:
        """Return the summed gradient of each piece that a shard here holds."""
        for number in self.buckets:
            if number not in self._adders:  # of shards without images, or of what the loss does not depend on
                self._start(number)
        found: dict[Key, NDArray] = {}
        for number, bucket in self.buckets.items():
            if number in self._pending:
                yield self._pending[number]
            found |= views(bucket, self._adders[number].total)
        return found


@dataclass
class ToldPlaces(Places):
    """Places of a shard's gradients, which tell of each that has come.

    Attributes
    ----------
    times : mapping of str to int
        In how many parts a gradient comes; where there are several, they are added up in that order.
    told : function of (name)
    """

    times: dict[str, int]
    told: Callable[[str], None]

    def __contains__(self, name: str) -> bool:
        """Return whether a layer may write a gradient to its place."""
        return name in self.places and self.times[name] == 1

    def __setitem__(self, name: str, gradient: NDArray) -> None:
        """Take a gradient, or a part of it."""
        if self.times[name] == 1:
            super().__setitem__(name, gradient)
        else:
            place = self.places[name]
            place += gradient.reshape(place.shape)
        self.told(name)


def views(bucket: Bucket, vector: NDArray) -> dict[Key, NDArray]:
    """Return the place of each piece in the vector of a bucket."""
    found, at = {}, 0
    for name, box in bucket.pieces:
        shape = shape_of(box, None)
        size = prod(shape)
        found[name, box] = vector[at : at + size].reshape(shape)
        at += size
    return found
