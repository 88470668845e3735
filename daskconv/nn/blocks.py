"""Blocks: how many images one thread takes through a network at once."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daskconv.nn.network import Network

# A block is worth many times its task, but its activations and lowered rows stay near the core: measured on
# cifar10_quick, an image of a block of 13 takes 1.1 (AVX2) to 1.4 (AVX-512) of the time of one of 25, which takes 1.1
# of that of one of 100.
_BLOCK_FLOPS = 2_000_000_000
# Packing the weights and adding the gradients of a block have to be small against its operations: a step of
# VGG-11, batch 128, takes 2.2 times as long in blocks of 3 images as of 32; more would cost memory for activations.
_FLOPS_PER_PARAMETER = 4000


def block_images(
    network: Network, input_shape: tuple[int, ...], methods: Mapping[str, Mapping[str, str]]
) -> int:
    """Return how many images a thread takes through the network at once, by shape alone."""
    flops = 3 * sum(network.flops(input_shape).values())
    parameters = sum(prod(shape) for shape in network.weight_shapes(input_shape).values())
    worth = max(_BLOCK_FLOPS, _FLOPS_PER_PARAMETER * parameters)
    return max(1, min(-(-worth // max(flops, 1)), 256))


def images_at_once(
    network: Network, input_shape: tuple[int, ...], methods: Mapping[str, Mapping[str, str]], shard: int
) -> int:
    """Return how many images of a shard a thread takes through the network at once while training."""
    if takes_shards_whole(network, input_shape, methods):
        return shard
    return min(block_images(network, input_shape, methods), shard)


def takes_shards_whole(
    network: Network, input_shape: tuple[int, ...], methods: Mapping[str, Mapping[str, str]]
) -> bool:
    """Return whether a shard is one block while training.

    In a pipelined network the tiles are the parallelism; and batch statistics are those of a shard.
    """
    pipelined = any("pipelined" in row.values() for row in methods.values())
    return pipelined or bool(network.statistic_shapes(input_shape))
