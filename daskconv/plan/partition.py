"""Plans, and how one is applied to a network: the choice of shards, methods and blocks, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from daskconv.errors import InputError, check_count
from daskconv.layout import Layout
from daskconv.nn.losses import Loss
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network
from daskconv.plan.program import Program

DEFAULT_SHARDS = 4

# A block is worth many times its task, but its activations and lowered rows stay near the core:
# measured on cifar10_quick, an image of a block of 13 takes 1.05 of the time of one of 25, of 9 images 1.2, of 4 1.6.
_BLOCK_FLOPS = 1_000_000_000
# Packing the weights and adding the gradients of a block have to be small against its operations: a step of
# VGG-11, batch 128, takes 2.2 times as long in blocks of 3 images as of 32; more would cost memory for activations.
_FLOPS_PER_PARAMETER = 4000


@dataclass(frozen=True)
class Plan:
    """A Layout for each layer.

    Attributes
    ----------
    name : str
    layout : Layout
        Of every layer; plans that differ by layer come with the layouts that need them.
    """

    name: str
    layout: Layout


def data(shards: int = DEFAULT_SHARDS) -> Plan:
    """Return the data parallel plan: images are split, weights are everywhere."""
    return Plan("data", Layout(n=check_count(shards, "shards")))


def resolve_plan(plan: str | Plan, shards: int | None) -> Plan:
    """Return the plan of a name, or the plan that was given."""
    if isinstance(plan, str):
        if plan != "data":
            raise InputError(f"plan is {plan!r}: the plan that exists is data.")
        return data(DEFAULT_SHARDS if shards is None else shards)
    if shards not in (None, plan.layout.n):
        raise InputError(f"shards is {shards} but the plan splits n into {plan.layout.n}: give one of them.")
    unsupported = [axis for axis in plan.layout.split_axes if axis != "n"]
    if unsupported:
        raise InputError(f"The plan splits {', '.join(unsupported)}: only n, the images, can be split.")
    return plan


def partition(
    network: Network,
    plan: Plan,
    *,
    input_shape: tuple[int, int, int],
    batch_size: int,
    method: str | Mapping[str, str],
    loss: Loss,
    metrics: tuple[Metric, ...],
    optimizer: Any,
    trainable: Sequence[str] | None,
    seed: int,
    precision: str | None = None,
    dtype: str = "float32",
) -> Program:
    """Return the Program of a plan for one network, input shape and batch."""
    methods = network.choose_methods(input_shape, method, precision)
    return Program(
        network=network,
        input_shape=input_shape,
        shards=plan.layout.n,
        batch_size=batch_size,
        block_images=block_images(network, input_shape, methods),
        methods_table=tuple((name, tuple(row.items())) for name, row in methods.items()),
        loss=loss,
        metrics=metrics,
        optimizer=optimizer,
        trainable=network.trainable_names(input_shape, trainable),
        seed=seed,
        dtype=dtype,
    )


def block_images(
    network: Network, input_shape: tuple[int, ...], methods: Mapping[str, Mapping[str, str]]
) -> int:
    """Return how many images a thread takes through the network at once, by shape alone.

    A pipelined network takes a shard whole: there the tiles are the parallelism.
    """
    if any("pipelined" in row.values() for row in methods.values()):
        return 1 << 30
    flops = 3 * sum(network.flops(input_shape).values())
    parameters = sum(prod(shape) for shape in network.weight_shapes(input_shape).values())
    worth = max(_BLOCK_FLOPS, _FLOPS_PER_PARAMETER * parameters)
    return max(1, min(-(-worth // max(flops, 1)), 256))
