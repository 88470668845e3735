"""How each layer is written in ONNX."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from daskconv.errors import InputError
from daskconv.geometry import Window
from daskconv.nn import layers as all_layers
from daskconv.nn.layers.conv_transpose import adjoint
from daskconv.nn.onnx.write import FIRST, Graph, Part, onnx_axis, writer

SAME: dict[type, str] = {
    all_layers.ReLU: "Relu",
    all_layers.Sigmoid: "Sigmoid",
    all_layers.Tanh: "Tanh",
    all_layers.HardSwish: "HardSwish",
    all_layers.Dropout: "Identity",
}
JOINED: dict[type, str] = {
    all_layers.Add: "Sum",
    all_layers.Subtract: "Sub",
    all_layers.Multiply: "Mul",
    all_layers.Divide: "Div",
}


@writer(*SAME)
def _same(graph: Graph, part: Part) -> None:
    graph.run(SAME[type(part.layer)], part.inputs, part.name)


@writer(all_layers.LeakyReLU)
def _leaky_relu(graph: Graph, part: Part) -> None:
    graph.run("LeakyRelu", part.inputs, part.name, alpha=part.layer.slope)  # type: ignore[attr-defined]


@writer(all_layers.ELU)
def _elu(graph: Graph, part: Part) -> None:
    graph.run("Elu", part.inputs, part.name, alpha=part.layer.alpha)  # type: ignore[attr-defined]


@writer(all_layers.HardSigmoid)
def _hard_sigmoid(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    graph.run("HardSigmoid", part.inputs, part.name, alpha=layer.slope, beta=layer.offset)


@writer(all_layers.Clip)
def _clip(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    limits = [
        "" if limit is None else graph.constant(np.array(limit, np.float32))
        for limit in (layer.low, layer.high)
    ]
    graph.run("Clip", [part.input, *limits], part.name)


@writer(all_layers.PReLU)
def _prelu(graph: Graph, part: Part) -> None:
    slope = part.arrays["slope"]
    ones = (1,) * (len(part.shape) - 1)
    slope = slope.reshape(-1, *ones) if len(part.shape) == 3 else slope.reshape(*ones, -1)
    graph.run("PRelu", [part.input, graph.constant(slope, f"{part.name}.slope")], part.name)


@writer(all_layers.Softmax, all_layers.LogSoftmax)
def _softmax(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    graph.run(type(layer).__name__, part.inputs, part.name, axis=part.axis(layer.axis))


def _window(window: Window) -> dict[str, Any]:
    (top, bottom), (left, right) = window.padding
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": [top, left, bottom, right],
        "dilations": window.dilation,
    }


@writer(all_layers.Conv2D)
def _conv(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    names = _weights(graph, part)
    graph.run("Conv", names, part.name, group=layer.groups, **_window(layer.window(part.shapes[0])))


@writer(all_layers.ConvTranspose2D)
def _conv_transpose(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    window, _ = adjoint(layer, part.shapes[0])
    more = layer.output_padding if isinstance(layer.output_padding, tuple) else (layer.output_padding,) * 2
    graph.run(
        "ConvTranspose",
        _weights(graph, part),
        part.name,
        group=layer.groups,
        output_padding=more,
        **_window(window),
    )


def _weights(graph: Graph, part: Part) -> list[str]:
    weight = part.arrays["weight"].transpose(3, 2, 0, 1)
    names = [part.input, graph.constant(weight, f"{part.name}.weight")]
    if "bias" in part.arrays:
        names.append(graph.constant(part.arrays["bias"], f"{part.name}.bias"))
    return names


@writer(all_layers.Dense)
def _dense(graph: Graph, part: Part) -> None:
    names = [part.input, graph.constant(part.arrays["weight"], f"{part.name}.weight")]
    if "bias" in part.arrays:
        names.append(graph.constant(part.arrays["bias"], f"{part.name}.bias"))
    graph.run("Gemm", names, part.name)


@writer(all_layers.BatchNorm)
def _batch_norm(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    c = part.shape[-1]
    ones, zeros = np.ones(c, np.float32), np.zeros(c, np.float32)
    wanted = {"scale": ones, "offset": zeros} | part.arrays
    names = [
        graph.constant(wanted[name], f"{part.name}.{name}")
        for name in ("scale", "offset", "mean", "variance")
    ]
    options = {"epsilon": layer.epsilon, "momentum": 1 - layer.momentum}
    if len(part.shape) == 2:
        turned = graph.run("Transpose", part.inputs, perm=[0, 2, 1])
        graph.run(
            "Transpose",
            [graph.run("BatchNormalization", [turned, *names], **options)],
            part.name,
            perm=[0, 2, 1],
        )
        return
    graph.run("BatchNormalization", [part.input, *names], part.name, **options)


@writer(all_layers.LRN)
def _lrn(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    graph.run(
        "LRN",
        part.inputs,
        part.name,
        size=layer.size,
        alpha=layer.alpha,
        beta=layer.beta,
        bias=layer.k,
    )


@writer(all_layers.MaxPool2D, all_layers.AvgPool2D, all_layers.LpPool2D)
def _pool(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    options = _window(layer.window(part.shapes[0])) | {"ceil_mode": int(layer.ceil_mode)}
    if isinstance(layer, all_layers.MaxPool2D):
        graph.run("MaxPool", part.inputs, part.name, **options)
    elif isinstance(layer, all_layers.AvgPool2D):
        include = int(layer.count_include_pad)
        graph.run("AveragePool", part.inputs, part.name, count_include_pad=include, **options)
    else:
        graph.run("LpPool", part.inputs, part.name, p=int(layer.p), **options)


@writer(all_layers.GlobalAvgPool2D, all_layers.GlobalMaxPool2D)
def _global_pool(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    kind = "GlobalMaxPool" if isinstance(layer, all_layers.GlobalMaxPool2D) else "GlobalAveragePool"
    if layer.keepdims:
        graph.run(kind, part.inputs, part.name)
    else:
        graph.run("Flatten", [graph.run(kind, part.inputs)], part.name)


@writer(all_layers.Mean)
def _mean(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    if layer.keepdims or len(part.shapes[0]) != 3:
        axes = graph.ints([part.axis(axis) for axis in layer.axes])
        graph.run("ReduceMean", [part.input, axes], part.name, keepdims=int(layer.keepdims))
        return
    last = graph.channels_last(part.input, part.shapes[0])
    axes = graph.ints([axis % 3 + 1 for axis in layer.axes])
    graph.run("ReduceMean", [last, axes], part.name, keepdims=0)


@writer(*JOINED)
def _join(graph: Graph, part: Part) -> None:
    kind = JOINED[type(part.layer)]
    if {len(shape) for shape in part.shapes} == {len(part.shape)}:
        graph.run(kind, part.inputs, part.name)
        return
    lasts = [graph.channels_last(name, shape) for name, shape in zip(part.inputs, part.shapes, strict=True)]
    aligned = [
        name if len(shape) == len(part.shape) else _with_ones(graph, name, shape, len(part.shape))
        for name, shape in zip(lasts, part.shapes, strict=True)
    ]
    graph.channels_first(graph.run(kind, aligned), part.shape, part.name)


def _with_ones(graph: Graph, name: str, shape: tuple[int, ...], rank: int) -> str:
    ones = [1] * (rank - len(shape))
    return graph.run("Reshape", [name, graph.ints([0, *ones, *shape])], allowzero=0) if ones else name


@writer(all_layers.Concat)
def _concat(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    graph.run("Concat", part.inputs, part.name, axis=part.axis(layer.axis))


@writer(all_layers.MatMul)
def _matmul(graph: Graph, part: Part) -> None:
    lasts = [graph.channels_last(name, shape) for name, shape in zip(part.inputs, part.shapes, strict=True)]
    rank = max(map(len, part.shapes))
    aligned = [_with_ones(graph, name, shape, rank) for name, shape in zip(lasts, part.shapes, strict=True)]
    graph.channels_first(graph.run("MatMul", aligned), part.shape, part.name)


@writer(all_layers.Flatten, all_layers.Reshape)
def _reshape(graph: Graph, part: Part) -> None:
    last = graph.channels_last(part.input, part.shapes[0])
    made = graph.run("Reshape", [last, graph.ints([0, *part.shape])], allowzero=0)
    graph.channels_first(made, part.shape, part.name)


@writer(all_layers.Transpose)
def _transpose(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    last = graph.channels_last(part.input, part.shapes[0])
    made = graph.run("Transpose", [last], perm=[0, *(axis + 1 for axis in layer.order)])
    graph.channels_first(made, part.shape, part.name)


@writer(all_layers.Pad)
def _pad(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    rank = len(part.shape)
    pads = np.zeros((2, rank + 1), np.int64)
    for axis, pair in enumerate(layer.padding):
        pads[:, onnx_axis(axis, rank)] = pair
    inputs = [
        part.input,
        graph.ints(pads.ravel().tolist()),
        graph.constant(np.array(layer.value, np.float32)),
    ]
    graph.run("Pad", inputs, part.name, mode=layer.mode)


@writer(all_layers.Slice)
def _slice(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    rank = len(part.shape)
    rows = []
    for axis, limits in enumerate(zip(layer.starts, layer.stops, layer.steps, strict=True)):
        start, stop, step = slice(*limits).indices(part.shapes[0][axis])
        # Before the first element there is no number in ONNX but one that is far below it.
        rows.append((start, stop if stop >= 0 else -(2**31), onnx_axis(axis, rank), step))
    graph.run("Slice", [part.input, *(graph.ints(column) for column in zip(*rows, strict=True))], part.name)


@writer(all_layers.ChannelShuffle)
def _channel_shuffle(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    h, w, c = part.shape
    groups = layer.groups
    parted = graph.run("Reshape", [part.input, graph.ints([0, groups, c // groups, h, w])])
    turned = graph.run("Transpose", [parted], perm=[0, 2, 1, 3, 4])
    graph.run("Reshape", [turned, graph.ints([0, c, h, w])], part.name)


@writer(all_layers.Parameter)
def _parameter(graph: Graph, part: Part) -> None:
    value = part.arrays["value"][None]
    value = value.transpose(FIRST) if value.ndim == 4 else value
    graph.run("Identity", [graph.constant(value, f"{part.name}.value")], part.name)


@writer(all_layers.Outputs)
def _outputs(graph: Graph, part: Part) -> None:
    """Nothing is done: the graph's outputs are the inputs."""


@writer(all_layers.Resize)
def _resize(graph: Graph, part: Part) -> None:
    layer: Any = part.layer
    options: dict[str, Any] = {
        "mode": layer.mode,
        "coordinate_transformation_mode": layer.coordinates,
        "nearest_mode": layer.nearest,
        "cubic_coeff_a": layer.cubic,
        "exclude_outside": int(layer.exclude_outside),
        "extrapolation_value": layer.extrapolation,
        "antialias": int(layer.antialias),
        "axes": [2, 3],
    }
    roi = ""
    if layer.roi is not None:
        roi = graph.constant(np.array(layer.roi, np.float32).T.ravel())
    if layer.scale is None:
        graph.run("Resize", [part.input, roi, "", graph.ints(layer.size)], part.name, **options)
        return
    if replace(layer, size=None).output_shape(part.shapes[0]) != part.shape:
        raise InputError(
            f"Layer {part.name!r} has size {layer.size} and scale {layer.scale}, which ONNX does not know together: "
            "leave out the scale."
        )
    scale = layer.scale if isinstance(layer.scale, tuple) else (layer.scale,) * 2
    graph.run("Resize", [part.input, roi, graph.constant(np.array(scale, np.float32))], part.name, **options)
