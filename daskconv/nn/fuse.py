"""Fusion: what follows a convolution or a batch norm at once, while its outputs are in cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from daskconv.nn.layers import Add, BatchNorm, Conv2D, ReLU
from daskconv.nn.layers.base import Arrays, Shape

if TYPE_CHECKING:
    from daskconv.nn.network import Network, Node


@dataclass(frozen=True)
class Tail:
    """The nodes that a layer does at the end of its own forward pass.

    Attributes
    ----------
    add : str
        The node whose output is added to the layer's, or "".
    relu : bool
        Whether negative values become 0 at the end.
    nodes : tuple of str
        The layer's own node, then those that are done with it; the last one has the output's name.
    """

    add: str
    relu: bool
    nodes: tuple[str, ...]

    @property
    def output(self) -> str:
        """The node whose value the layer returns."""
        return self.nodes[-1]


def tails(nodes: Sequence[Node], shapes: Mapping[str, Shape], outputs: Collection[str]) -> dict[str, Tail]:
    """Return the tail of each node: an Add of two equal shapes, a ReLU, both or none of them.

    ``shapes`` has those of the nodes and of all they read; somebody after the nodes reads the ``outputs``.

    An Add is done with the later one of its operands, when the other is known. Values that nobody else reads are
    never made, so the nodes of a tail have no other readers.
    """
    readers, constant = _readers(nodes, outputs), _constants(nodes)
    known = dict.fromkeys(shapes, -1) | {node.name: at for at, node in enumerate(nodes)}
    found = {}
    for node in nodes:
        add, relu, covered = "", False, [node.name]
        after = readers.get(node.name) if node.layer.fuses else None
        if (
            after is not None
            and type(after.layer) is Add
            and len(set(after.inputs)) == 2 == len(after.inputs)
        ):
            other = next(name for name in after.inputs if name != node.name)
            if (
                known[other] < known[node.name]
                and shapes[other] == shapes[node.name]
                and other not in constant
            ):
                add = other
                covered.append(after.name)
                after = readers.get(after.name)
        if after is not None and type(after.layer) is ReLU:
            relu = True
            covered.append(after.name)
        found[node.name] = Tail(add, relu, tuple(covered))
    return found


def _readers(nodes: Sequence[Node], outputs: Collection[str]) -> dict[str, Node]:
    """Return the node that alone reads each value, once; those of others, and the outputs, are left out."""
    times = Counter(name for node in nodes for name in node.inputs)
    times.update(outputs)
    return {name: node for node in nodes for name in node.inputs if times[name] == 1}


def _constants(nodes: Sequence[Node]) -> set[str]:
    """Return the nodes whose value is one for all images."""
    constants: set[str] = set()
    for node in nodes:
        if node.layer.is_constant or constants.issuperset(node.inputs):
            constants.add(node.name)
    return constants


def fold_batch_norm(network: Network, params: Arrays, statistics: Arrays) -> tuple[Network, Arrays]:
    """Return a network for inference whose convolutions have done what the batch norms after them do, and its arrays.

    ``(x * w + b - mean) / deviation * scale + offset`` is a convolution with other weights and another bias; the
    results differ by rounding.
    """
    outputs = {network.nodes[-1].name}
    readers, folded = _readers(network.nodes, outputs), dict(params)
    nodes: list[Node] = []
    norms: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for node in network.nodes:
        if node.name in norms:
            conv = norms[node.name]
            renamed[node.name] = conv
            folded |= _folded(conv, node, folded, params, statistics)
            continue
        after = readers.get(node.name)
        layer = node.layer
        last = after is network.nodes[-1]
        if type(layer) is Conv2D and after and type(after.layer) is BatchNorm and not last:
            norms[after.name] = node.name
            layer = replace(layer, bias=True)
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        nodes.append(replace(node, layer=layer, inputs=inputs))
    names = {node.name for node in nodes}
    left = {name: array for name, array in folded.items() if name.rpartition(".")[0] in names}
    return replace(network, nodes=tuple(nodes)), left


def _folded(conv: str, norm: Node, folded: Arrays, params: Arrays, statistics: Arrays) -> Arrays:
    """Return the weight and the bias of a convolution that does the norm after it, too."""
    layer, weight = norm.layer, folded[f"{conv}.weight"]
    assert isinstance(layer, BatchNorm)
    arrays = {
        name.rpartition(".")[2]: a
        for name, a in (params | statistics).items()
        if name.startswith(f"{norm.name}.")
    }
    factor = arrays.get("scale", 1) / np.sqrt(arrays["variance"].astype(np.float64) + layer.epsilon)
    bias = (folded.get(f"{conv}.bias", 0) - arrays["mean"]) * factor + arrays.get("offset", 0)
    dtype = weight.dtype
    return {f"{conv}.weight": weight * factor.astype(dtype), f"{conv}.bias": bias.astype(dtype)}
