"""Memory of a training step on a worker, told from shapes before anything runs."""

from __future__ import annotations

from math import prod
from typing import Any

from daskconv.errors import InputError
from daskconv.layout import even_parts
from daskconv.nn.layers import Outputs
from daskconv.plan.boxes import edges_of
from daskconv.plan.describe import held_bytes, value_bytes
from daskconv.plan.program import Program
from daskconv.plan.tasks import TrainState
from daskconv.scene.memory import in_words, memory_limit

_ITEM = 4  # bytes of a float32
# What layers keep over their outputs: places of maxima, normalised values, scratch of transforms. Measured.
_KEPT = 1.5


def check_memory(program: Program, state: TrainState, lazy: bool, threads: int | None) -> None:
    """Raise InputError where a step cannot fit into the memory of a worker, or of this process.

    Parameters
    ----------
    program : Program
    state : TrainState
        The parameters, and what the optimiser keeps beside them.
    lazy : bool
        Whether workers will do the work; else it is this process.
    threads : int, optional
        Of each.
    """
    limit = memory_limit(lazy)
    needed = step_bytes(
        program, state, workers=limit.at_once if lazy else 1, threads=threads or limit.threads
    )
    if needed > limit.total:
        images = -(-program.batch_size // program.shards)
        where = "a worker" if lazy else "this process"
        raise InputError(
            f"A step of {program.network.name} with batch_size {program.batch_size} ({images} images a shard) takes "
            f"about {in_words(needed)} and {where} has {in_words(limit.total)}: give a smaller batch_size, more "
            "shards, fewer threads, or split images or layers with plans.spatial, plans.hybrid."
        )


def step_bytes(program: Program, state: TrainState, *, workers: int = 1, threads: int = 1) -> int:
    """Return about how many bytes a worker's memory grows by in a step.

    Weights, their gradients and the optimiser's slots; what the layers keep for the way back, of the images that are
    under way at once; the images of its shards.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> net = daskconv.Sequential([daskconv.Conv2D(8, 3, padding=1), daskconv.Flatten(), daskconv.Dense(2)])
    >>> program = daskconv.Trainer(net).program((100, 100, 1), batch_size=40)
    >>> state = daskconv.plan.tasks.TrainState(net.init(0, (100, 100, 1)), {})
    >>> step_bytes(program, state) > 2 * sum(array.nbytes for array in state.params.values())
    True
    """
    own = -(-program.shards // max(1, min(workers, program.shards)))
    images = own * -(-program.batch_size // program.shards) * prod(program.input_shape) * _ITEM
    slots = sum(array.nbytes for array in state.slots.values())
    if program.split is not None:
        return images + slots // program.shards * own + own * _split_bytes(program)
    weights = sum(array.nbytes for array in state.params.values())
    # The model's own weights, and those that are trained; a gradient of each block; subtrees of shards are added up in
    # a fixed order, so that one sum waits for each level of the tree.
    largest = max(stop - start for start, stop in even_parts(program.batch_size, program.shards))
    block = largest if program.whole_shards else min(program.block_images, largest)
    blocks = 1 if program.whole_shards else min(threads, -(-largest // block))
    copies = 2 + blocks + (own - 1).bit_length()
    return images + slots + weights * copies + int(_KEPT * blocks * block * _kept_bytes(program))


def _kept_bytes(program: Program) -> int:
    """Return what the outputs of an image take, and the largest gradient beside them."""
    network, shape = program.network, program.input_shape
    tails, shapes = network.tails(shape), network.shapes(shape)
    done: set[str] = set()
    sizes = [prod(shape)]
    for node in network.nodes:
        if node.name not in done and not isinstance(node.layer, Outputs):
            done.update(tails[node.name].nodes)
            sizes.append(prod(shapes[node.name]))
    return (sum(sizes) + max(sizes)) * _ITEM


def _split_bytes(program: Program) -> int:
    """Return what the heaviest shard of a split network holds."""
    split: Any = program.split
    edges = edges_of(program.batch_size, split.shards)
    positions = range(len(program.network.nodes))
    return max(
        3 * held_bytes(split, shard) + sum(value_bytes(split, shard, at, edges) for at in positions)
        for shard in range(split.shards)
    )
