"""An ONNX backend: ``prepare(model).run(inputs)`` with daskconv, as onnx's own test suite calls it.

The first input of float32 is what the network reads; all others are taken for constants when a model is run. Operators
that join the values of axis 0 are run with all of an input as one image.

Examples
--------
>>> import numpy as np
>>> import onnx
>>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
>>> run_node(node, [np.array([[-1.0, 2.0]], np.float32)])[0].tolist()
[[0.0, 2.0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.graph.threads import one_thread_each
from daskconv.nn.layers.base import Context
from daskconv.nn.onnx.read import import_onnx, read_model
from daskconv.nn.onnx.values import IMAGES, ImagesMixed, Value

__all__ = ["Prepared", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class Prepared:
    """A model that is ready to run."""

    def __init__(self, model: Any) -> None:
        from daskconv.nn.onnx.load import data_inputs, initializers

        self.model, self.arrays = model, initializers(model)
        self.inputs = [entry.name for entry in data_inputs(model)]

    def run(self, inputs: Any, **_: Any) -> tuple[NDArray, ...]:
        """Return the outputs for inputs in the model's order, or by name."""
        feed = inputs if isinstance(inputs, dict) else dict(zip(self.inputs, _listed(inputs), strict=False))
        feed = {name: np.asarray(array) for name, array in feed.items()}
        data = next((name for name, array in feed.items() if array.dtype == np.float32 and array.ndim), None)
        constants = self.arrays | {name: array for name, array in feed.items() if name != data}
        if data is None:
            return self._run(None, None, constants, False)
        for whole in (False, True):
            try:
                return self._run(data, feed[data], constants, whole)
            except ImagesMixed:
                if whole:
                    raise
        raise AssertionError("one of the two returns or raises")

    def _run(
        self, name: str | None, x: NDArray | None, constants: dict[str, NDArray], whole: bool
    ) -> tuple[NDArray, ...]:
        from daskconv.nn.onnx.load import load

        if x is None or name is None:
            return tuple(np.asarray(out) for out in load(self.model, {}, constants).outputs)
        if not whole and x.ndim < 2:
            raise ImagesMixed("There is no axis of images.")
        shape = x.shape if whole else (IMAGES, *x.shape[1:])
        loaded = load(self.model, {name: shape}, constants, whole, 0 if whole else len(x))
        images = x[None] if whole else x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
        network, images = loaded.network, np.ascontiguousarray(images)
        methods = network.choose_methods(images.shape[1:], "auto", "exact")
        with one_thread_each():
            y, _ = network.forward(loaded.params, images, Context(statistics=loaded.state), methods)
        results = iter(y if isinstance(y, tuple) else (y,))
        return tuple(
            _as_in_onnx(next(results), out, whole) if isinstance(out, Value) else np.asarray(out)
            for out in loaded.outputs
        )


def _as_in_onnx(y: NDArray, value: Value, whole: bool) -> NDArray:
    """Return an output with its axes in ONNX's order."""
    return (y[0] if whole else y).transpose(np.argsort(value.order))


def _listed(inputs: Any) -> Sequence[Any]:
    return inputs if isinstance(inputs, list | tuple) else [inputs]


def is_compatible(model: Any, device: str = "CPU", **_: Any) -> bool:
    """Return whether a model's operators are supported, as far as can be told without running it."""
    try:
        prepare(model, device)
    except InputError:
        return False
    return True


def prepare(model: Any, device: str = "CPU", **_: Any) -> Prepared:
    """Return a model that is ready to run; raise InputError where it is not supported.

    Parameters
    ----------
    model : onnx.ModelProto
    device : str
        "CPU".
    """
    if not supports_device(device):
        raise InputError(f"device is {device!r}: daskconv runs on CPU.")
    return Prepared(read_model(model.SerializeToString()))


def run_model(model: Any, inputs: Any, device: str = "CPU", **options: Any) -> tuple[NDArray, ...]:
    """Return the outputs of a model for its inputs."""
    return prepare(model, device).run(inputs, **options)


def run_node(
    node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **options: Any
) -> tuple[NDArray, ...]:
    """Return the outputs of one node for its inputs."""
    onnx = import_onnx()
    arrays = [np.asarray(array) for array in _listed(inputs)]
    names = [name for name in node.input if name]
    entries = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, arrays, strict=True)
    ]
    # What the outputs are is not known before the node has run.
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", entries, outputs)
    opset = options.pop("opset_version", min(onnx.defs.onnx_opset_version(), 28))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    if not supports_device(device):
        raise InputError(f"device is {device!r}: daskconv runs on CPU.")
    return Prepared(model).run(arrays)


def supports_device(device: str) -> bool:
    """Return whether a device is the CPU."""
    return device.partition(":")[0] == "CPU"
