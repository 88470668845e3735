"""What the tasks of a Program do: module-level functions from arrays to arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import WorkerError
from daskconv.nn.layers.base import Arrays, Context
from daskconv.timeline import in_layer

if TYPE_CHECKING:
    from daskconv.plan.boxes import Box
    from daskconv.plan.input import InputCount
    from daskconv.plan.program import Program

Indices = NDArray[np.int64]

AVERAGE = "average."
"""What the slots of running means of parameters begin with."""

CHAIN = 50
"""Steps that a Dask cluster's workers do from one copy of the state on the driver to the next."""


class Data(Protocol):
    """Images with targets, read by number; every worker holds one and reads only what it needs.

    Attributes
    ----------
    ahead : int
        Steps whose images a worker reads before they are needed.
    count : InputCount
        What this process reads, and waits for.
    """

    ahead: int
    count: InputCount

    def take(
        self, indices: Indices, epoch: int | None = None, box: Box | None = None
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Return normalised images (n, h, w, c), targets (n, ...), weights (n,); augmented for an epoch of training.

        Of a ``box``, ranges along h, w and c, only that part of the images.
        """

    def chunks(self, indices: Sequence[Indices]) -> Mapping[int, Any]:
        """Return the futures of the chunks of some images, where a cluster holds these: tasks have to be given them."""

    def hold(self, by: Hashable, chunks: Mapping[int, NDArray]) -> None:
        """Take the chunks that a task was given to read from, until it is given others for the same purpose."""

    def batches(self, epoch: int) -> Sequence[Indices]:
        """Return the image numbers of each step of an epoch."""

    def __len__(self) -> int:
        """Return the number of images."""


@dataclass(frozen=True)
class Position:
    """Where training is.

    Attributes
    ----------
    epoch, step : int
        The next step to take, both from 0.
    sums : array of float64
        Loss, its weight, images, their weight and metrics of the epoch's steps so far; empty before the first.
    """

    epoch: int = 0
    step: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def after(self, sums: NDArray[np.float64]) -> Position:
        """Return the position after a step with these sums."""
        return Position(self.epoch, self.step + 1, self.sums + sums if self.sums.size else sums.copy())


@dataclass
class TrainState:
    """What a step changes: parameters, slots of the optimiser, the position, all steps, running statistics."""

    params: Arrays
    slots: Arrays
    position: Position = field(default_factory=Position)
    steps: int = 0
    statistics: Arrays = field(default_factory=dict)

    def copy(self) -> TrainState:
        """Return a state whose arrays may be updated in place."""
        return replace(
            self,
            params=_copies(self.params),
            slots=_copies(self.slots),
            statistics=_copies(self.statistics),
        )


def _copies(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


@dataclass
class Partial:
    """The sums of some images: gradients as one flat vector, and loss, weight and metrics in float64.

    Attributes
    ----------
    gradient : array (elements,)
        Gradients of all trainable parameters, in the Program's order, then batch statistics times images of layers
        that are not frozen.
    sums : array of float64
        Loss, its weight, images, their weight, then the metrics' sums.
    """

    gradient: NDArray
    sums: NDArray[np.float64]


@dataclass
class Places:
    """Takes the gradient of each parameter to its place.

    Attributes
    ----------
    places : dict of array
        Each parameter's, by name.
    """

    places: Arrays

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def __getitem__(self, name: str) -> NDArray:
        """Return a parameter's place in the vector."""
        return self.places[name]

    def __setitem__(self, name: str, gradient: NDArray) -> None:
        """Copy a parameter's gradient, unless it was written to its place."""
        place = self[name]
        if gradient.ctypes.data != place.ctypes.data:
            place[...] = gradient.reshape(place.shape)


def block_partial(
    program: Program,
    state: TrainState,
    data: Data,
    indices: Indices,
    epoch: int,
    threads: int,
    spread: int = 1,
) -> Partial:
    """Run a block of images forward and backward; ``spread`` is that of :func:`block_sums`."""
    vector = np.zeros(program.elements, program.dtype)
    grads = Places(program.unflatten(vector))
    return Partial(vector, block_sums(program, state, data, indices, epoch, threads, spread, grads))


def block_sums(
    program: Program,
    state: TrainState,
    data: Data,
    indices: Indices,
    epoch: int,
    threads: int,
    spread: int,
    grads: Places,
) -> NDArray[np.float64]:
    """Run a block of images forward and backward, set gradients in ``grads``, and return the other sums.

    ``spread`` threads, where they are more than one, share each convolution.
    """
    if not len(indices):
        return np.zeros(program.sums_size)
    x, y, weight = in_layer("data", "forward", "other", data.take, indices, epoch)
    context = Context(
        True,
        threads=spread if spread > 1 else threads,
        images=indices,
        seed=program.seed,
        epoch=epoch,
        statistics=state.statistics,
        frozen=program.frozen,
        spread=spread > 1,
    )
    network, methods = program.network, program.methods
    with np.errstate(all="ignore"):  # update() refuses what is not finite, and says so once
        scores, saved = network.forward(state.params, x, context, methods)
        loss, dscores = in_layer("loss", "forward", "other", program.loss, scores, y, weight)
        for name, statistic in context.batch_statistics.items():
            grads[name] = statistic * len(indices)
        network.backward(state.params, saved, dscores, context, methods, program.trainable, grads)
    return program.sums_of(scores, y, weight, loss)


def add_into(total: Partial, part: Partial) -> Partial:
    """Add sums in place: those of a step's graph have no other reader."""
    with np.errstate(all="ignore"):  # as in block_sums
        np.add(total.gradient, part.gradient, out=total.gradient)
    np.add(total.sums, part.sums, out=total.sums)
    return total


def add(left: Partial, right: Partial) -> Partial:
    """Add two subtrees."""
    return Partial(left.gradient + right.gradient, left.sums + right.sums)


def update(program: Program, state: TrainState, total: Partial, rate: float, in_place: bool) -> TrainState:
    """Take the optimiser's step with the batch's mean gradient; nothing changes where it is not finite."""
    loss, weight = total.sums[:2]
    with np.errstate(all="ignore"):
        finite = np.isfinite([loss, np.dtype(program.dtype).type(rate)]).all()
    if not (finite and all_finite(total.gradient)):
        raise WorkerError(not_finite(state.steps + 1, loss, weight))
    target = state if in_place else state.copy()
    scale = _clipped(program, total.gradient, 1 / weight if weight > 0 else 0.0)
    sums = program.unflatten(total.gradient)
    for name in program.trainable:
        program.optimizer.step(name, target.params[name], sums[name], target.slots, rate, scale)
        if program.average is not None:
            mean = target.slots[f"{AVERAGE}{name}"]
            mean += mean.dtype.type(1 - program.average) * (target.params[name] - mean)
    images = np.dtype(program.dtype).type(total.sums[2])
    means = {name: sums[name] / images for name in state.statistics if name in sums}
    statistics = program.network.follow(state.statistics, means)
    return replace(
        target,
        statistics=statistics,
        position=state.position.after(total.sums),
        steps=state.steps + 1,
    )


def all_finite(array: NDArray) -> bool:
    """Return whether all numbers of an array are finite.

    Examples
    --------
    >>> large = np.full(8, 3e38, np.float32)  # the sum is not finite
    >>> all_finite(large), all_finite(np.append(large, np.nan))
    (True, False)
    """
    with np.errstate(all="ignore"):
        # A sum goes over memory once; it is finite unless a number is not, or nearly so.
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def not_finite(step: int, loss: float, weight: float) -> str:
    """Return what is wrong with a step whose loss or gradient is not finite."""
    return (
        f"The loss or a gradient is not finite in step {step} (loss {loss / max(weight, 1):g}): "
        "the weights stay as they were; use a lower learning rate or look for broken images."
    )


def _clipped(program: Program, vector: NDArray, scale: float) -> float:
    """Return the factor on gradients, smaller where their norm would be above the limit (Pascanu et al. 2013)."""
    if program.clip_norm is None:
        return scale
    gradients = program.gradients_of(vector)
    return clipped(program, float(np.einsum("i,i->", gradients, gradients, dtype=np.float64)), scale)


def clipped(program: Program, square: float, scale: float) -> float:
    """Return the factor on gradients, given the sum of their squares."""
    norm = scale * square**0.5
    return scale * min(1.0, program.clip_norm / norm) if program.clip_norm is not None and norm > 0 else scale


def evaluate_block(
    program: Program, state: TrainState, data: Data, indices: Indices, threads: int
) -> NDArray:
    """Return loss, weight, images and metrics of a block, without gradients."""
    x, y, weight = data.take(indices)
    context = Context(False, threads=threads, images=indices, seed=program.seed, statistics=state.statistics)
    network, loss = program.measured
    with np.errstate(all="ignore"):
        scores, _ = network.forward(state.params, x, context, program.methods)
        total = loss(scores, y, weight)[0]
    return program.sums_of(scores, y, weight, total)


def flat_layout(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Return the range of each array in one flat vector."""
    layout, at = {}, 0
    for name, shape in shapes.items():
        layout[name] = (at, at + prod(shape))
        at += prod(shape)
    return layout
