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
    """Return how many images a thread takes through the network at once, by shape alone.

    A pipelined network takes a shard whole: there the tiles are the parallelism. So does one with batch
    statistics, which are those of a shard.
    """
    if any("pipelined" in row.values() for row in methods.values()) or network.statistic_shapes(input_shape):
        return 1 << 30
    flops = 3 * sum(network.flops(input_shape).values())
    parameters = sum(prod(shape) for shape in network.weight_shapes(input_shape).values())
    worth = max(_BLOCK_FLOPS, _FLOPS_PER_PARAMETER * parameters)
    return max(1, min(-(-worth // max(flops, 1)), 256))
