"""A network as an ONNX graph: images with channels first, any number of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers.base import Arrays, Shape
from daskconv.nn.network import INPUT, Network, Node
from daskconv.nn.onnx.read import import_onnx

OPSET, IR_VERSION = 19, 9
FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]
"""Axes of images: from channels last to channels first, and back."""

Writer = Callable[["Graph", "Part"], Any]
WRITERS: dict[type, Writer] = {}


def writer(*kinds: type) -> Callable[[Writer], Writer]:
    """Register what writes layers."""

    def register(function: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(kinds, function))
        return function

    return register


class Part:
    """One node of a network: its layer, its arrays, and the names and shapes of what it reads."""

    def __init__(self, node: Node, arrays: Arrays, shapes: dict[str, Shape]) -> None:
        self.name, self.layer, self.arrays = node.name, node.layer, arrays
        self.inputs = list(node.inputs)
        self.shapes = [shapes[name] for name in node.inputs]
        self.shape = shapes[node.name]

    @property
    def input(self) -> str:
        """The name of the only input."""
        return self.inputs[0]

    def axis(self, axis: int, shape: Shape | None = None) -> int:
        """Return the ONNX axis of an axis of an image; channels come first there."""
        shape = self.shapes[0] if shape is None else shape
        return onnx_axis(axis % len(shape), len(shape))


def onnx_axis(axis: int, rank: int) -> int:
    """Return where an image's axis is in ONNX, where axis 0 is that of the images."""
    return (2, 3, 1)[axis] if rank == 3 else axis + 1


class Graph:
    """An ONNX graph in the making; a node's value has the node's name."""

    def __init__(self) -> None:
        self.onnx = import_onnx()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._count = 0

    def run(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add an ONNX node; return the name of its output."""
        output = output or self._fresh(kind.lower())
        made = self.onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self.nodes.append(made)
        return output

    def constant(self, array: Any, name: str = "") -> str:
        """Add an array; return its name."""
        name = name or self._fresh("constant")
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def ints(self, numbers: Sequence[int]) -> str:
        """Add whole numbers."""
        return self.constant(np.array(numbers, np.int64))

    def _fresh(self, word: str) -> str:
        self._count += 1
        return f"{word}.{self._count}"

    def channels_last(self, name: str, shape: Shape) -> str:
        """Return a value with its axes as they lie in daskconv."""
        return self.run("Transpose", [name], perm=LAST) if len(shape) == 3 else name

    def channels_first(self, name: str, shape: Shape, output: str) -> str:
        """Give a value whose axes lie as in daskconv its name, with channels first where it is images."""
        if len(shape) == 3:
            return self.run("Transpose", [name], output, perm=FIRST)
        return self.run("Identity", [name], output)


def write(
    network: Network,
    params: Arrays,
    state: Arrays,
    input_shape: Shape,
    preprocess: tuple[NDArray, NDArray] | None,
) -> bytes:
    """Return a network as the content of an ONNX file.

    Its input "images" is float32 (n, c, h, w), raw as ``Model.predict`` takes them; ``preprocess`` are the mean that is
    subtracted and the scale that is multiplied.
    """
    from daskconv.nn.onnx import write_layers  # noqa: F401  registers the writers

    graph = Graph()
    onnx, shapes = graph.onnx, network.shapes(input_shape)
    h, w, c = input_shape
    _write_preprocess(graph, preprocess)
    arrays = params | state
    for node in network.nodes:
        write_one = WRITERS.get(type(node.layer))
        if write_one is None:
            kind = type(node.layer).__name__
            raise InputError(
                f"Layer {node.name!r} is a {kind}, which is not written to ONNX files: replace it."
            )
        prefix = f"{node.name}."
        own = {
            name.removeprefix(prefix): a for name, a in arrays.items() if name.rpartition(".")[0] == node.name
        }
        write_one(graph, Part(node, own, shapes))
    last = network.nodes[-1]
    names = list(last.inputs) if type(last.layer).__name__ == "Outputs" else [last.name]
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *_first(shapes[name])])
        for name in names
    ]
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", c, h, w])
    made = onnx.helper.make_graph(graph.nodes, network.name, [images], outputs, graph.initializers)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(
        made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="daskconv"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _first(shape: Shape) -> list[int]:
    return [shape[2], shape[0], shape[1]] if len(shape) == 3 else list(shape)


def _write_preprocess(graph: Graph, preprocess: tuple[NDArray, NDArray] | None) -> None:
    """Write the normalisation of raw images, and name what comes out as the network's input."""
    if preprocess is None:
        graph.run("Identity", ["images"], INPUT)
        return
    mean, scale = (_broadcast_first(array) for array in preprocess)
    centred = graph.run("Sub", ["images", graph.constant(mean, "preprocess.mean")])
    graph.run("Mul", [centred, graph.constant(scale, "preprocess.scale")], INPUT)


def _broadcast_first(array: NDArray) -> NDArray:
    """Return an array that is broadcast against (h, w, c) as one against (c, h, w)."""
    full = array.reshape((1,) * (3 - array.ndim) + array.shape)
    return full.transpose(2, 0, 1)
