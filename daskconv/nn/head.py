"""The heads of a network: the layers that make its scores, found, replaced for other classes, and left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from daskconv.errors import InputError
from daskconv.nn.layers import Conv2D, Dense, LogSoftmax, Outputs, Parameter, Reshape, Sigmoid, Softmax
from daskconv.nn.layers.base import Arrays, Layer
from daskconv.nn.losses import Loss, loss_of_first
from daskconv.nn.network import INPUT, Network, Node

PROBABILITIES = (Softmax, LogSoftmax, Sigmoid)
"""Layers after a head that a loss, or who reads the scores, does again."""


def heads(network: Network) -> tuple[str, ...]:
    """Return the name of the layer that makes the scores, for each of the network's outputs.

    Raises
    ------
    InputError
        Where an output does not come from a Dense, or a Conv2D of kernel 1, by layers without weights alone.

    Examples
    --------
    >>> from daskconv.nn import zoo
    >>> heads(zoo.resnet18()), heads(zoo.squeezenet())
    (('dense',), ('conv10',))
    """
    return tuple(path[-1].name for path in _paths(network))


def replace_head(network: Network, params: Arrays, classes: int, seed: int) -> tuple[Network, Arrays]:
    """Return a network with other heads, which are drawn anew, and its parameters; all others are the same arrays.

    What turns scores into probabilities after a head is left out.
    """
    made: dict[str, Layer] = {}
    left_out: dict[str, str] = {}
    before, params = params, dict(params)
    for path in _paths(network):
        head = path[-1]
        old = before[f"{head.name}.weight"].shape[-1]
        for node in path:
            inputs = _computed(network, node)
            if isinstance(node.layer, PROBABILITIES):
                left_out[node.name] = inputs[0]
            for constant in set(node.inputs) - set(inputs):
                made |= _wider_constant(network, params, constant, old, classes)
            if isinstance(node.layer, Reshape):
                sizes = tuple(classes if size == old else size for size in node.layer.shape)
                made[node.name] = Reshape(sizes)
        made[head.name] = _drawn(network, params, head, classes, seed)
    nodes = _rewired(network, made, left_out)
    return replace(network, nodes=nodes), params


def without_auxiliary(network: Network) -> Network:
    """Return a network without the outputs that are for training alone, and without what only they need.

    Examples
    --------
    >>> from daskconv.nn import zoo
    >>> without_auxiliary(zoo.googlenet(auxiliary=True)) == zoo.googlenet()
    True
    """
    last = network.nodes[-1]
    if not isinstance(last.layer, Outputs) or not last.layer.auxiliary:
        return network
    kept = last.inputs[: -last.layer.auxiliary]
    nodes = [Node(last.name, Outputs(), kept)] if len(kept) > 1 else []
    needed = set(kept)
    for node in reversed(network.nodes[:-1]):
        if node.name in needed:
            nodes.insert(0, node)
            needed |= set(node.inputs)
    return replace(network, nodes=tuple(nodes))


def measured_part(network: Network, loss: Loss) -> tuple[Network, Loss]:
    """Return the network and the loss without what is for training alone; a user's loss of all outputs gets them all.

    Examples
    --------
    >>> from daskconv.nn import losses, zoo
    >>> network, loss = measured_part(zoo.googlenet(auxiliary=True), losses.WeightedLosses())
    >>> network == zoo.googlenet(), loss is losses.softmax_cross_entropy
    (True, True)
    """
    lean = without_auxiliary(network)
    if lean is network:
        return network, loss
    last = network.nodes[-1]
    assert isinstance(last.layer, Outputs)
    of_kept = loss_of_first(loss, len(last.inputs) - last.layer.auxiliary)
    return (network, loss) if of_kept is None else (lean, of_kept)


def _paths(network: Network) -> list[list[Node]]:
    """Return the nodes from each output back to the head."""
    last = network.nodes[-1]
    ends = last.inputs if isinstance(last.layer, Outputs) else (last.name,)
    return [_path(network, end) for end in ends]


def _path(network: Network, end: str) -> list[Node]:
    nodes, path, name = {node.name: node for node in network.nodes}, [], end
    while name != INPUT:
        node = nodes[name]
        path.append(node)
        layer, inputs = node.layer, _computed(network, node)
        if isinstance(layer, Dense) or _is_dense(layer):
            return path
        if _has_weights(layer) or len(inputs) != 1:
            break
        name = inputs[0]
    found = f"{name!r}, a {type(nodes[name].layer).__name__}" if name != INPUT else "the images themselves"
    raise InputError(
        f"{network.name} has no head to replace: its output {end!r} comes from {found}, and not from a Dense or a "
        "Conv2D of kernel 1."
    )


def _is_dense(layer: Layer) -> bool:
    return isinstance(layer, Conv2D) and layer.kernel in (1, (1, 1)) and layer.groups == 1


def _computed(network: Network, node: Node) -> tuple[str, ...]:
    """Return what a node reads but constants."""
    constants = {other.name for other in network.nodes if isinstance(other.layer, Parameter)}
    return tuple(name for name in node.inputs if name not in constants)


def _has_weights(layer: Layer) -> bool:
    return type(layer).weights is not Layer.weights or type(layer).statistics is not Layer.statistics


def _wider_constant(network: Network, params: Arrays, name: str, old: int, classes: int) -> dict[str, Layer]:
    """Return a constant that is joined with the scores, such as a bias, for other classes; it starts anew."""
    layer: Any = next(node.layer for node in network.nodes if node.name == name)
    if old not in layer.shape:
        return {}
    wider = replace(layer, shape=tuple(classes if size == old else size for size in layer.shape))
    value = wider.init.draw(np.random.default_rng(0), wider.shape)
    params[f"{name}.value"] = value.astype(params[f"{name}.value"].dtype)
    return {name: wider}


def _drawn(network: Network, params: Arrays, head: Node, classes: int, seed: int) -> Layer:
    """Return the new head's layer; its weights are those that :meth:`Network.init` would draw."""
    position = network.nodes.index(head)
    layer: Any = head.layer
    for index, weight in enumerate(("weight", "bias")[: 1 + layer.bias]):
        old = params[f"{head.name}.{weight}"]
        initializer = layer.weight_init if weight == "weight" else layer.bias_init
        drawn = initializer.draw(np.random.default_rng([seed, position, index]), (*old.shape[:-1], classes))
        params[f"{head.name}.{weight}"] = drawn.astype(old.dtype)
    return replace(layer, **{"units" if isinstance(layer, Dense) else "filters": classes})


def _rewired(network: Network, made: dict[str, Layer], left_out: dict[str, str]) -> tuple[Node, ...]:
    """Return the nodes with new layers, without those that are left out."""

    def read(name: str) -> str:
        return read(left_out[name]) if name in left_out else name

    return tuple(
        Node(node.name, made.get(node.name, node.layer), tuple(map(read, node.inputs)))
        for node in network.nodes
        if node.name not in left_out
    )
