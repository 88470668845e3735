"""How a plan is applied to a network: the choice of shards, methods and blocks, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskconv.errors import InputError
from daskconv.graph.choose import check_method
from daskconv.nn.blocks import block_images, takes_shards_whole
from daskconv.nn.losses import Loss
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network
from daskconv.plan.plans import Plan
from daskconv.plan.program import Program

Methods = Mapping[str, Mapping[str, str]]
Chosen = tuple[Methods, str]
"""The method of each convolution and pass, and the hash of the tuning table that chose them."""


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

    A step takes ``accumulate`` batches, each in as many shards as the plan says, and their gradients are added up.
    Where only images are split, the batches' shards are shards of the step like any others: only the blocks that run
    and the tree's open sums need memory. The shards of a split network take one batch after the other.

    The methods are those that were ``chosen`` before, or else the rule and this machine's table choose them now:
    whoever runs the Program reads them there.
    """
    shard = -(-batch_size // plan.layout.n)
    trained = network.trainable_names(input_shape, trainable)
    fresh: Chosen = network.tuned_methods(input_shape, method, precision, dtype, shard)
    if chosen is not None:
        chosen = {name: row for name, row in chosen[0].items() if name in fresh[0]}, chosen[1]
    kept = chosen is not None and _name_the_same_passes(chosen[0], fresh[0])
    methods, tuning = _check_runnable(chosen) if chosen and kept else fresh
    batches = 1 if plan.splits_images_only else accumulate
    program = Program(
        network=network,
        input_shape=input_shape,
        shards=plan.shards * (accumulate // batches),
        batch_size=batch_size * accumulate,
        block_images=block_images(network, input_shape, methods),
        whole_shards=takes_shards_whole(network, input_shape, methods),
        methods_table=tuple((name, tuple(row.items())) for name, row in methods.items()),
        loss=loss,
        metrics=metrics,
        optimizer=optimizer,
        trainable=trained,
        seed=seed,
        dtype=dtype,
        tuning=tuning,
        clip_norm=clip_norm,
        average=average,
        plan=plan,
        batches=batches,
    )
    if not plan.splits_images_only:
        _check_split(program)
    return program


def _check_split(program: Program) -> None:
    """Raise InputError where a step under the plan could not be taken."""
    plan, split, batch = program.plan, program.split, program.batch_size // program.batches
    assert split is not None
    parts = max(stage.parts for stage in split.stages)
    if parts > batch:
        raise InputError(
            f"The plan {plan.name} splits n into {parts} parts but a batch has {batch} images: split into fewer parts "
            "or use a larger batch."
        )
    largest = -(-batch // split.shards)
    if split.slices != "shard" and split.slices > largest:
        raise InputError(
            f"The plan {plan.name} has {split.slices} slices but a shard has {largest} images of a batch: give at most "
            "that many slices, or a larger batch."
        )
    cut = [name for name in program.trainable if len(split.holders[name]) > 1]
    if cut and getattr(program.optimizer, "whole_layers", False):
        raise InputError(
            f"{type(program.optimizer).__name__} follows the norms of whole layers, but the plan {plan.name} cuts "
            f"{cut[0]}: use SGD or Adam, or plan='data'."
        )


def _name_the_same_passes(one: Methods, other: Methods) -> bool:
    return {name: set(row) for name, row in one.items()} == {name: set(row) for name, row in other.items()}


def _check_runnable(chosen: Chosen) -> Chosen:
    for row in chosen[0].values():
        for method in row.values():
            check_method(method)
    return chosen
