"""Work: the layers of a network as they are run, what one of them computes and moves, and what that is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any

from daskconv.nn import passes
from daskconv.nn.fuse import Tail
from daskconv.nn.layers import LRN, BatchNorm, Conv2D, Dense, Dropout, Flatten, Outputs, Reshape
from daskconv.nn.layers.base import Layer, Shape
from daskconv.nn.network import INPUT, Network, Node

ITEM = 4
"""Bytes of a value: float32."""

# How often a layer without products goes over what it reads and writes, forward and backward.
_VIEWS: tuple[type[Layer], ...] = (Flatten, Reshape, Outputs)
_SWEEPS = {LRN: (12.0, 20.0), BatchNorm: (2.0, 3.0), Dropout: (3.0, 1.0)}


@dataclass(frozen=True)
class Work:
    """A layer with what is done at its end, on images of one shape.

    Attributes
    ----------
    node : Node
    position : int
        In the network.
    nodes : tuple of str
        The layer's own node and those of its tail.
    label : str
        The same for layers that do the same on the same shapes: what measurements are known by.
    shapes : tuple of Shape
        What it reads.
    out : Shape
    flops : int
        Of one image's forward pass.
    weight_bytes : int
    methods : mapping of str to str
        Of a convolution, by pass.
    learns, sends_back : bool
        Whether a gradient of its weights, and one of what it reads, is wanted.
    """

    node: Node
    position: int
    nodes: tuple[str, ...]
    label: str
    shapes: tuple[Shape, ...]
    out: Shape
    flops: int
    weight_bytes: int
    methods: Mapping[str, str]
    learns: bool
    sends_back: bool

    @property
    def value_bytes(self) -> int:
        """Bytes of what it reads and writes of an image."""
        return ITEM * (sum(map(prod, self.shapes)) + prod(self.out))

    def sweeps(self, pass_: str) -> float:
        """Return how often a pass goes over what the layer reads and writes."""
        kind = type(self.node.layer)
        if issubclass(kind, _VIEWS):
            return 0.0
        return _SWEEPS.get(kind, (1.0, 2.0))[pass_ == "backward"]


def works_of(
    network: Network,
    input_shape: Shape,
    methods: Mapping[str, Mapping[str, str]],
    trainable: tuple[str, ...] | None = None,
) -> list[Work]:
    """Return a network's layers in the order in which they run; those in a tail are part of the layer before.

    Examples
    --------
    >>> from daskconv.nn import zoo
    >>> net = zoo.build("lenet", 10)
    >>> [work.node.name for work in works_of(net, (8, 8, 1), net.choose_methods((8, 8, 1), "auto"))][:3]
    ['conv1', 'maxpool1', 'conv2']
    """
    shapes, tails = network.shapes(input_shape), network.tails(tuple(input_shape))
    names = network.trainable_names(input_shape, None) if trainable is None else trainable
    learning = {name.rpartition(".")[0] for name in names}
    needed = passes.needs_grad(network.nodes, learning)
    found, done = [], set[str]()
    for position, node in enumerate(network.nodes):
        if node.name in done:
            continue
        tail = tails[node.name]
        done.update(tail.nodes)
        found.append(_work(node, position, tail, shapes, methods, node.name in learning, needed))
    return found


def _work(
    node: Node,
    position: int,
    tail: Tail,
    shapes: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, str]],
    learns: bool,
    needed: set[str],
) -> Work:
    read: Any = passes.input_of(node, shapes)
    weights = node.layer.weights(read).values()
    own = methods.get(node.name, {})
    back = any(name in needed for name in node.inputs)
    inputs = tuple(shapes[name] for name in node.inputs)
    return Work(
        node,
        position,
        tail.nodes,
        label(node.layer, inputs, tail, own, back),
        inputs,
        shapes[node.name],
        node.layer.flops(read),
        ITEM * sum(prod(shape) for shape, _ in weights),
        own,
        learns,
        back,
    )


def label(
    layer: Layer, shapes: tuple[Shape, ...], tail: Tail, methods: Mapping[str, str], sends_back: bool
) -> str:
    """Return what a layer with its tail is called, on images of these shapes."""
    options = {
        each.name: getattr(layer, each.name) for each in fields(layer) if not each.name.endswith("_init")
    }
    said = [f"{name}={_plain(value)}" for name, value in options.items()]
    said += ["x".join(map(str, shape)) for shape in shapes]
    said += ["+add"] * bool(tail.add) + ["+relu"] * tail.relu
    said += list(methods.values()) + ["first"] * (not sends_back)
    return " ".join([type(layer).__name__, *said])


def around(input_shape: Shape, output_shape: Any) -> str:
    """Return what the rest of a block is called: images read, loss, metrics, and what calls the layers."""
    return f"Block {_plain(tuple(input_shape))} {_plain(output_shape)}"


def _plain(value: Any) -> str:
    return str(value).replace(" ", "")


def is_read(node: Node) -> bool:
    """Return whether a node reads the images themselves."""
    return INPUT in node.inputs


def method_of(work: Work, pass_: str) -> str:
    """Return the method of a pass: "forward", "input_grad" or "weight_grad"; "dense" for products without windows."""
    if isinstance(work.node.layer, Conv2D):
        return work.methods.get(pass_, "implicit")
    return "dense" if isinstance(work.node.layer, Dense) else "other"
