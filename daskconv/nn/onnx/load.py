"""An ONNX model as a network with its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers import Clip, Outputs
from daskconv.nn.layers.base import Arrays, Shape
from daskconv.nn.network import INPUT, Network, Node

# Importing them registers what translates their operators.
from daskconv.nn.onnx import axes, elementwise, images, products  # noqa: F401
from daskconv.nn.onnx.translate import Operand, Translation, check_weights, translate
from daskconv.nn.onnx.values import FEWER, ImagesMixed, Value


@dataclass(frozen=True, eq=False)
class Loaded:
    """What became of an ONNX model.

    Attributes
    ----------
    network : Network
    params, state : dict of array
    outputs : tuple of Value or array
        What each output of the model is: the network's outputs in turn, or a constant.
    """

    network: Network
    params: Arrays
    state: Arrays
    outputs: tuple[Operand, ...]


def initializers(model: Any) -> dict[str, NDArray]:
    """Return a model's constants; those of float64 and float16 become float32."""
    from onnx.numpy_helper import to_array

    arrays = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    return {
        name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in arrays.items()
    }


def data_inputs(model: Any) -> list[Any]:
    """Return the inputs that are no constants."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in known]


def load(
    model: Any,
    data: dict[str, tuple[int, ...]],
    arrays: dict[str, NDArray],
    whole: bool = False,
    batch: int = 0,
) -> Loaded:
    """Return a model as a network that reads one input; ``arrays`` are all other inputs.

    With ``whole`` all of the input is one image; else it is images, for whose number ``batch`` stands in the graph.
    """
    made, outputs = translate(model, arrays, data, whole, batch)
    if not whole and any(node.op_type == "Shape" for node in model.graph.node):
        fewer = {name: (FEWER, *shape[1:]) for name, shape in data.items()}
        _check_any_number(made, outputs, *translate(model, arrays, fewer, whole, batch))
    network = _network(made, list(outputs.values()), model.graph.name or "onnx")
    names = {node.name for node in network.nodes}
    params, state = (
        {name: array for name, array in some.items() if name.rpartition(".")[0] in names}
        for some in (made.params, made.state)
    )
    check_weights(params | state)
    for shape in data.values():
        order = (0, 2, 3, 1) if len(shape) == 4 and not whole else tuple(range(len(shape)))
        _check_shapes(network, params | state, made.per_image(shape, order))
    return Loaded(network, params, state, tuple(outputs.values()))


def _check_any_number(
    made: Translation, outputs: dict[str, Operand], other: Translation, others: dict[str, Operand]
) -> None:
    """Raise ImagesMixed unless a model became the same for two numbers of images, of which its shapes speak."""
    said = "computes with the number of images, which is not known here: leave that out of the export."
    for one, two in zip_longest(made.nodes, other.nodes):
        if one != two:
            raise ImagesMixed(f"ONNX node {(one or two).name!r} {said}")
    for name, array in made.params.items():
        if not np.array_equal(array, other.params[name]):
            raise ImagesMixed(f"ONNX node {name.rpartition('.')[0]!r} {said}")
    for name, out in outputs.items():
        if isinstance(out, np.ndarray) and not np.array_equal(out, others[name]):  # type: ignore[arg-type]
            raise ImagesMixed(f"ONNX output {name!r} {said}")


def _check_shapes(network: Network, arrays: Arrays, input_shape: Shape) -> None:
    """Raise InputError where a weight does not fit what its node reads."""
    for name, shape in (network.weight_shapes(input_shape) | network.statistic_shapes(input_shape)).items():
        if arrays[name].shape != shape:
            node, _, weight = name.rpartition(".")
            raise InputError(
                f"ONNX node {node!r} has a {weight} of shape {arrays[name].shape}, in daskconv's order of axes, but "
                f"its input needs {shape}: the model is damaged or was put together wrongly."
            )


def _network(made: Translation, outputs: list[Operand], name: str) -> Network:
    """Return the nodes that the outputs need; several outputs become a tuple."""
    values = [out for out in outputs if isinstance(out, Value)]
    needed = {value.node for value in values}
    nodes: list[Node] = []
    for node in reversed(made.nodes):
        if node.name in needed:
            nodes.insert(0, node)
            needed |= set(node.inputs)
    ends = tuple(value.node for value in values)
    if len(ends) > 1:
        nodes.append(Node("outputs", Outputs(), ends))
    elif not nodes:
        nodes.append(Node("identity", Clip(), (INPUT,)))
    return Network(tuple(nodes), name)


def image_input(model: Any, input_shape: Shape | None) -> tuple[str, Shape, int]:
    """Return the name of a model's input of images, their shape (h, w, c) and number; refuse any other model.

    The number is 0 where the model leaves it open.
    """
    inputs = data_inputs(model)
    if len(inputs) != 1:
        names = [entry.name for entry in inputs]
        raise InputError(f"The ONNX model has the inputs {names}: one input of images is supported.")
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    if len(sizes) != 4:
        raise InputError(
            f"The ONNX model's input {inputs[0].name!r} has {len(sizes)} axes: images (n, c, h, w) are supported."
        )
    batch, c, h, w = sizes
    shape = (h, w, c) if input_shape is None else tuple(map(int, input_shape))
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"The ONNX model leaves its images' size open, (h, w, c) is {shape}: give input_shape=(h, w, c)."
        )
    if any(known and known != size for known, size in zip((h, w, c), shape, strict=True)):
        raise InputError(f"The ONNX model is for images of {(h, w, c)} but input_shape is {shape}.")
    return inputs[0].name, shape, batch
