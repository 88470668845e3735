"""Memory: what a worker's part of a training step takes, told from shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from daskconv.plan.boxes import Edges
from daskconv.plan.describe import held_bytes, value_bytes
from daskconv.plan.program import Program
from daskconv.plan.split import Split


def step_bytes(
    program: Program, parts: Split, edges: Edges, owners: Sequence[int], threads: int, state: int
) -> int:
    """Return the bytes that the worker with most needs for a step, beside its process and the images.

    Parameters
    ----------
    program : Program
    parts : Split
        The program's plan.
    edges : sequence of int
        Where the batch's images are cut.
    owners : sequence of int
        The worker of each shard.
    threads : int
        Of a worker.
    state : int
        Bytes of all parameters and of what the optimiser keeps beside them.
    """
    if program.split is None:
        return _whole(program, threads, state)
    weights = sum(prod(shape) for shape in program.vector_shapes.values()) * 4 or 1
    return max(
        _held(parts, [s for s, owner in enumerate(owners) if owner == worker], edges, state / weights)
        for worker in set(owners)
    )


def _whole(program: Program, threads: int, state: int) -> int:
    """Return the bytes where each worker has the whole network, and takes blocks of images through it."""
    shard = -(-program.batch_size // program.shards)
    images = shard if program.whole_shards else min(program.block_images, shard)
    shapes: Any = program.network.shapes(program.input_shape).values()
    values = sum(sum(map(prod, shape)) if isinstance(shape[0], tuple) else prod(shape) for shape in shapes)
    # A vector of gradients for each block that runs, and the open sums of the tree.
    vectors = threads + max(1, program.shards).bit_length()
    itemsize = np.dtype(program.dtype).itemsize
    return state + itemsize * (threads * images * values + vectors * program.elements)


def _held(parts: Split, shards: list[int], edges: Edges, state: float) -> int:
    """Return the bytes of some shards, which one worker takes through a step side by side."""
    held = sum(held_bytes(parts, shard) for shard in shards)
    values = sum(
        value_bytes(parts, shard, position, edges)
        for shard in shards
        for position in sorted({at for stage in parts.stages for at in stage.runs[shard].positions})
    )
    return int(held * (1 + state)) + values
