"""Plans, and how one is applied to a network: the choice of shards, methods and blocks, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskconv.errors import InputError, check_count
from daskconv.graph.choose import check_method
from daskconv.layout import Layout
from daskconv.nn.blocks import block_images, takes_shards_whole
from daskconv.nn.losses import Loss
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network
from daskconv.plan.program import Program

DEFAULT_SHARDS = 4

Methods = Mapping[str, Mapping[str, str]]
Chosen = tuple[Methods, str]
"""The method of each convolution and pass, and the hash of the tuning table that chose them."""


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
    chosen: Chosen | None = None,
    clip_norm: float | None = None,
    average: float | None = None,
    accumulate: int = 1,
) -> Program:
    """Return the Program of a plan for one network, input shape and batch.

    A step takes ``accumulate`` batches, each in as many shards as the plan says: their gradients are added up, and only
    the blocks that run and the tree's open sums need memory.

    The methods are those that were ``chosen`` before, or else the rule and this machine's table choose them now:
    whoever runs the Program reads them there.
    """
    shard = -(-batch_size // plan.layout.n)
    fresh: Chosen = network.tuned_methods(input_shape, method, precision, dtype, shard)
    if chosen is not None:
        chosen = {name: row for name, row in chosen[0].items() if name in fresh[0]}, chosen[1]
    kept = chosen is not None and _name_the_same_passes(chosen[0], fresh[0])
    methods, tuning = _check_runnable(chosen) if chosen and kept else fresh
    return Program(
        network=network,
        input_shape=input_shape,
        shards=plan.layout.n * accumulate,
        batch_size=batch_size * accumulate,
        block_images=block_images(network, input_shape, methods),
        whole_shards=takes_shards_whole(network, input_shape, methods),
        methods_table=tuple((name, tuple(row.items())) for name, row in methods.items()),
        loss=loss,
        metrics=metrics,
        optimizer=optimizer,
        trainable=network.trainable_names(input_shape, trainable),
        seed=seed,
        dtype=dtype,
        tuning=tuning,
        clip_norm=clip_norm,
        average=average,
    )


def _name_the_same_passes(one: Methods, other: Methods) -> bool:
    return {name: set(row) for name, row in one.items()} == {name: set(row) for name, row in other.items()}


def _check_runnable(chosen: Chosen) -> Chosen:
    for row in chosen[0].values():
        for method in row.values():
            check_method(method)
    return chosen
