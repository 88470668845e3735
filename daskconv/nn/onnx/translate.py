"""Translate an ONNX graph into a Network, node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import DataError, InputError
from daskconv.nn.layers import Parameter, Reshape, Transpose
from daskconv.nn.layers.base import Arrays, Layer
from daskconv.nn.network import INPUT, Node
from daskconv.nn.onnx.fold import fold
from daskconv.nn.onnx.read import opset_of
from daskconv.nn.onnx.values import IMAGES, ImagesMixed, Value, groups

Operand = Value | NDArray | None
"""What an operator reads: a value of the network, a constant, or an input that is left out."""

Operator = Callable[["Translation", "Call"], Any]
OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register what translates ONNX operators."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


class Call:
    """One node of an ONNX graph: its operands, its attributes, and how it is named in error messages."""

    def __init__(
        self, node: Any, operands: Sequence[Operand], attributes: dict[str, Any], opset: int
    ) -> None:
        self.kind, self.operands, self.opset = node.op_type, list(operands), opset
        self.outputs = list(node.output)
        self.name = node.name or (node.output[0] if node.output else node.op_type)
        self._attributes = attributes
        self._used: set[str] = set()

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        self._used.add(name)
        return self._attributes.get(name, default)

    def operand(self, place: int) -> Operand:
        """Return an operand; None where it is left out."""
        return self.operands[place] if place < len(self.operands) else None

    def value(self, place: int = 0) -> Value:
        """Return an operand that the network computes."""
        found = self.operand(place)
        if not isinstance(found, Value):
            raise self.refusal(f"its input {place} is a constant, and nothing is left to compute")
        return found

    def constant(self, place: int) -> NDArray | None:
        """Return an operand that is known now; None where it is left out."""
        found = self.operand(place)
        if isinstance(found, Value):
            raise self.refusal(f"its input {place} is computed, but has to be a constant")
        return found

    def setting(self, place: int, name: str, default: Any = None) -> Any:
        """Return what newer operators have as an operand and older ones as an attribute, as lists or numbers."""
        found = self.constant(place)
        if found is None:
            return self.attribute(name, default)
        self._used.add(name)
        return found.tolist()

    def refusal(self, why: str) -> InputError:
        """Return the error that refuses this node."""
        return InputError(
            f"ONNX operator {self.kind} (node {self.name!r}) is not supported as it is used: {why}."
        )

    def check_attributes(self) -> None:
        """Refuse attributes that nobody asked for."""
        unknown = sorted(set(self._attributes) - self._used)
        if unknown:
            raise self.refusal(f"its attribute {unknown[0]!r} is not known here")


class Translation:
    """A network in the making.

    Parameters
    ----------
    whole : bool
        Take all of an input for one image, axis 0 too; else axis 0 is that of the images.
    batch : int
        The number of images that the graph was exported for: in a shape it stands for any number of them. 0 where the
        graph leaves it open.
    """

    def __init__(self, whole: bool, batch: int = 0) -> None:
        self.whole, self.batch = whole, batch
        self.nodes: list[Node] = []
        self.params: Arrays = {}
        self.state: Arrays = {}
        self._names = {INPUT}

    def add(
        self,
        call: Call | str,
        layer: Layer,
        inputs: Sequence[Value],
        shape: Sequence[int],
        order: Sequence[int] | None = None,
        params: Arrays | None = None,
        state: Arrays | None = None,
    ) -> Value:
        """Add a node, with arrays by their short names; return its value, whose axes lie in ``order``."""
        name = self._name(call if isinstance(call, str) else call.name)
        self.nodes.append(Node(name, layer, tuple(value.node for value in inputs)))
        self.params |= {f"{name}.{key}": np.ascontiguousarray(array) for key, array in (params or {}).items()}
        self.state |= {f"{name}.{key}": np.ascontiguousarray(array) for key, array in (state or {}).items()}
        return Value(name, tuple(map(int, shape)), tuple(range(len(shape)) if order is None else order))

    def _name(self, wanted: str) -> str:
        name, number = wanted or "node", 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    # Axes.

    def per_image(self, shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
        """Return the sizes of one image as they lie here."""
        return tuple(shape[axis] for axis in (order if self.whole else order[1:]))

    def place(self, value: Value, axis: int) -> int:
        """Return which axis of an image an ONNX axis is; refuse that of the images."""
        axis %= len(value.shape)
        if self.whole:
            return value.order.index(axis)
        if axis == 0:
            raise ImagesMixed("It works on axis 0, which is that of the images.")
        return value.order.index(axis) - 1

    def arranged(self, value: Value, order: Sequence[int]) -> Value:
        """Return a value whose axes lie in this order, moved where they did not."""
        value = self.unflattened(value)
        order = tuple(order)
        if value.order == order:
            return value
        if not self.whole and order[0] != 0:
            raise ImagesMixed("It moves axis 0, which is that of the images.")
        moved = [axis for axis in order if value.shape[axis] != 1]
        sizes = self.per_image(value.shape, order)
        if moved == [axis for axis in value.order if value.shape[axis] != 1]:
            return self.add("reshape", Reshape(sizes), [value], value.shape, order)
        first = 0 if self.whole else 1
        places = tuple(value.order.index(axis) - first for axis in order[first:])
        return self.add("transpose", Transpose(places), [value], value.shape, order)

    def natural(self, value: Value) -> Value:
        """Return a value whose axes lie as in ONNX."""
        return self.arranged(value, range(len(value.shape)))

    def channels_last(self, value: Value) -> Value:
        """Return a value whose axis 1 lies last."""
        rest = [axis for axis in range(len(value.shape)) if axis != 1]
        if self.whole:
            raise ImagesMixed("It needs images along axis 0.")
        return self.arranged(value, [*rest, 1])

    def output(self, value: Value) -> Value:
        """Return a value as a network's output: images with channels last, all else as in ONNX."""
        images = len(value.shape) == 4 and not self.whole
        return self.arranged(value, (0, 2, 3, 1)) if images else self.natural(value)

    def unflattened(self, value: Value) -> Value:
        """Return a value whose last axis is in ONNX's order of c, h, w."""
        if not value.flat:
            return value
        c, h, w = value.flat
        image = self.add("unflatten", Reshape((h, w, c)), [value], (value.shape[0], h, w, c))
        turned = self.add("transpose", Transpose((2, 0, 1)), [image], (value.shape[0], c, h, w))
        return self.add("flatten", Reshape((c * h * w,)), [turned], value.shape)

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """Return a value in another shape; what is split or joined may have to be moved first."""
        shape = tuple(int(size) for size in shape)
        value = self.unflattened(value)
        if shape == value.shape:
            return value
        parts = groups(value.shape, shape)
        if not self.whole and (not shape or shape[0] != value.shape[0] or ([0], [0]) not in parts):
            raise ImagesMixed(f"It makes {shown(shape)} of {shown(value.shape)}.")
        # Groups lie in the order of their first axis here, the axes of a group in ONNX's.
        parts.sort(key=lambda part: min(value.order.index(axis) for axis in part[0]))
        old = [axis for mine, _ in parts for axis in mine]
        ones = [axis for axis in value.order if axis not in old]
        start = [] if self.whole or 0 in old else [0]
        if old != [axis for axis in value.order if axis in old]:
            value = self.arranged(value, [*start, *old, *(axis for axis in ones if axis not in start)])
        new = [axis for _, theirs in parts for axis in theirs]
        new = [*start, *new, *(axis for axis in range(len(shape)) if axis not in (*start, *new))]
        return self.add("reshape", Reshape(self.per_image(shape, new)), [value], shape, new)

    def for_any_number(self, array: NDArray, rank: int) -> NDArray:
        """Return a constant of this rank once where it is the same for each of the images of the export."""
        each = not self.whole and array.ndim == rank and array.shape[0] == self.batch
        return array[:1] if each and (array == array[:1]).all() else array

    def constant(self, array: NDArray, like: Value) -> Value:
        """Return a constant that is learnt, as a value that is joined with ``like``."""
        rank = len(like.shape)
        if array.ndim > rank:
            raise ImagesMixed("A constant has more axes than what it is joined with.")
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        array = self.for_any_number(array, rank)
        if not self.whole and array.shape[0] != 1:
            raise ImagesMixed("A constant has values for each image.")
        shape, moved = array.shape, array.transpose(like.order)
        moved = moved if self.whole else moved[0]
        return self.add("constant", Parameter(moved.shape), [like], shape, like.order, {"value": moved})


def translate(
    model: Any,
    arrays: dict[str, NDArray],
    data: dict[str, tuple[int, ...]],
    whole: bool = False,
    batch: int = 0,
) -> tuple[Translation, dict[str, Operand]]:
    """Return the translation of a model and the operands that its outputs are.

    Parameters
    ----------
    model : onnx.ModelProto
    arrays : dict of array
        Inputs that are known, initialisers among them.
    data : dict of shape
        The one input that the network reads.
    whole, batch
        As in :class:`Translation`.
    """
    _check_known(model)
    made, opset = Translation(whole, batch), opset_of(model)
    read = {name for node in model.graph.node for name in node.input}
    read |= {entry.name for entry in model.graph.output}
    known: dict[str, Operand] = {"": None, **arrays}
    for name, shape in data.items():
        order = (0, 2, 3, 1) if len(shape) == 4 and not whole else tuple(range(len(shape)))
        known[name] = Value(INPUT, shape, order)
    for node in model.graph.node:
        operands = [known[name] for name in node.input]
        if not any(isinstance(operand, Value) for operand in operands) or node.op_type == "Shape":
            results: list[Operand] = list(fold(node, operands, opset))
        else:
            results = _run(made, node, operands, opset, read)
        known |= {name: result for name, result in zip(node.output, results, strict=False) if name}
    outputs = {entry.name: known[entry.name] for entry in model.graph.output}
    return made, {name: made.output(v) if isinstance(v, Value) else v for name, v in outputs.items()}


def _check_known(model: Any) -> None:
    """Refuse operators that are not supported, all of them at once, before anything is done."""
    for node in model.graph.node:
        foreign = node.domain not in ("", "ai.onnx")
        if foreign or (node.op_type not in OPERATORS and node.op_type not in FOLDED):
            kind = f"{node.domain}.{node.op_type}" if foreign else node.op_type
            name = node.name or node.output[0]
            raise InputError(
                f"ONNX operator {kind} (node {name!r}) is not supported: leave it out of the export."
            )


FOLDED = {
    *("Constant", "ConstantOfShape", "Equal", "Expand", "Floor", "Ceil"),
    *("Gather", "Range", "ReduceProd", "Shape", "Where"),
}
"""Operators that only constants may go through."""


def _run(made: Translation, node: Any, operands: list[Operand], opset: int, read: set[str]) -> list[Operand]:
    call = Call(node, operands, _attributes(node), opset)
    if node.op_type not in OPERATORS:
        raise call.refusal("it is for shapes only, but its input is computed")
    try:
        results = OPERATORS[node.op_type](made, call)
    except ImagesMixed as mixed:
        raise ImagesMixed(f"ONNX operator {call.kind} (node {call.name!r}) mixes images: {mixed}") from None
    call.check_attributes()
    results = results if isinstance(results, list) else [results]
    wanted = [name for name in call.outputs[len(results) :] if name in read]
    if wanted:
        raise call.refusal(f"its output {wanted[0]!r} is not computed here")
    return results


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        return (
            list(value) if not isinstance(value, int | float | str) and hasattr(value, "__iter__") else value
        )

    return {attribute.name: plain(get_attribute_value(attribute)) for attribute in node.attribute}


def check_weights(arrays: Arrays) -> None:
    """Raise DataError where a weight is not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataError(f"The ONNX model's weight {name} holds values that are not finite.")


def shown(shape: Sequence[int]) -> str:
    """Return a shape as it is said in messages: n is the number of images."""
    return "(" + ", ".join(_shown_size(size) for size in shape) + ")"


def _shown_size(size: int) -> str:
    times, rest = divmod(size, IMAGES)
    return str(size) if rest or not times else "n" if times == 1 else f"{times} n"


def sizes_of(target: Sequence[int], value: Value, *, zero_copies: bool = True) -> tuple[int, ...]:
    """Return a reshape's target with its 0 and -1 worked out."""
    sizes = [value.shape[at] if size == 0 and zero_copies else int(size) for at, size in enumerate(target)]
    if -1 in sizes:
        rest = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = prod(value.shape) // rest if rest else 0
    return tuple(sizes)
