"""Passes: how values run through some nodes of a network, and gradients back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from daskconv.kernels.epilogue import Epilogue, relu_grad
from daskconv.nn.fuse import Tail
from daskconv.nn.layers.base import Arrays, Context
from daskconv.timeline import in_layer

if TYPE_CHECKING:
    from daskconv.nn.network import Node

Methods = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Run:
    """Nodes in an order in which each comes after those it reads, and how they are run.

    Attributes
    ----------
    nodes : tuple of Node
    positions : tuple of int
        The place of each in its network, which counts its random numbers.
    tails : mapping of str to Tail
        What each node does at its end.
    methods : mapping of str to mapping
        The convolution method of each node and pass.
    outputs : collection of str
        The values that are kept for whoever comes after the nodes.
    """

    nodes: Sequence[Node]
    positions: Sequence[int]
    tails: Mapping[str, Tail]
    methods: Methods
    outputs: Collection[str]


def forward(
    run: Run,
    params: Mapping[str, Arrays],
    statistics: Mapping[str, Arrays],
    values: dict[str, Any],
    context: Context,
    keep: bool = True,
) -> dict[str, Any]:
    """Add the nodes' values to ``values``, and drop those that nobody reads any more; return what backward needs.

    Without ``keep`` nothing is saved for a backward pass: a value is let go with its last reader.
    """
    saved: dict[str, Any] = {}
    unread = Counter(name for node in run.nodes for name in node.inputs)
    unread.update(run.outputs)
    done = set[str]()
    for position, node in zip(run.positions, run.nodes, strict=True):
        if node.name in done:
            continue
        tail = run.tails[node.name]
        done.update(tail.nodes)
        here = context.at(
            position,
            run.methods.get(node.name, {}),
            node.name,
            statistics=statistics.get(node.name, {}),
            epilogue=Epilogue(values[tail.add] if tail.add else None, tail.relu),
        )
        stage = node.layer.stage_of(here.methods.get("forward"))
        given = params.get(node.name, {}), input_of(node, values), here
        y, of_layer = in_layer(node.name, "forward", stage, node.layer.forward, *given)
        del given
        values[tail.output] = y
        if keep:
            saved[node.name] = tail, of_layer, y if tail.relu else None
        del of_layer
        for name, array in here.batch_statistics.items():
            context.batch_statistics[f"{node.name}.{name}"] = array
        for name in (*node.inputs, tail.add) if tail.add else node.inputs:
            unread[name] -= 1
            if not unread[name]:
                del values[name]
    return saved


def backward(
    run: Run,
    params: Mapping[str, Arrays],
    saved: dict[str, Any],
    flowing: dict[str, NDArray],
    context: Context,
    learning: Mapping[str, Mapping[str, str]],
    needed: Collection[str],
    grads: Any,
) -> None:
    """Take the gradients by the nodes' outputs in ``flowing`` back to those by what the nodes read.

    Parameters
    ----------
    run, params, saved, context
        As in :func:`forward`, which returned ``saved``; it is emptied.
    flowing : dict of array
        The gradient by each value that has one so far; those of the nodes are taken out.
    learning : mapping
        By node, what ``grads`` calls the gradient of each weight that is wanted.
    needed : collection of str
        The values whose gradients are wanted.
    grads : mutable mapping
        Where gradients of weights are set as soon as they are known. Where it holds arrays already, layers may write
        there.
    """

    def flow(name: str, part: NDArray | None) -> None:
        if name in needed and part is not None:
            flowing[name] = flowing[name] + part if name in flowing else part

    for position, node in reversed(list(zip(run.positions, run.nodes, strict=True))):
        if node.name not in saved:
            continue
        tail, tape, y = saved.pop(node.name)
        gradient = flowing.pop(tail.output, None)
        if gradient is None:
            continue
        stage = node.layer.stage_of(run.methods.get(node.name, {}).get("weight_grad"))
        if y is not None:
            gradient = in_layer(node.name, "backward", stage, relu_grad, gradient, y)
        flow(tail.add, gradient)
        if node.name not in needed:
            continue
        wanted = learning.get(node.name, {})
        here = context.at(
            position,
            run.methods.get(node.name, {}),
            node.name,
            needs_input_grad=any(name in needed for name in node.inputs),
            needs_weight_grad=bool(wanted),
            grads={weight: grads[name] for weight, name in wanted.items() if name in grads},
        )
        given = params.get(node.name, {}), tape, gradient, here
        dx, of_weights = in_layer(node.name, "backward", stage, node.layer.backward, *given)
        del given
        for weight, name in wanted.items():
            grads[name] = of_weights[weight]
        for name, part in zip(node.inputs, dx if len(node.inputs) > 1 else (dx,), strict=True):
            flow(name, part)


def needs_grad(nodes: Sequence[Node], owners: Collection[str], given: Collection[str] = ()) -> set[str]:
    """Return the values through which a gradient has to flow: of the owners of wanted weights, and all after them."""
    needed = set(given)
    for node in nodes:
        if node.name in owners or any(name in needed for name in node.inputs):
            needed.add(node.name)
    return needed


def input_of(node: Node, values: Mapping[str, Any]) -> Any:
    """Return what a node reads: one value, or a tuple of several."""
    if len(node.inputs) == 1:
        return values[node.inputs[0]]
    return tuple(values[name] for name in node.inputs)


def by_node(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what belongs to each node, such as its parameters, by their short names."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        node, _, weight = name.rpartition(".")
        found.setdefault(node, {})[weight] = value
    return found
