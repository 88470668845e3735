"""ONNX operators on images: convolutions, pools, normalisation, resizing. One dimension is an image of one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers import (
    LRN,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    LpPool2D,
    MaxPool2D,
    Reshape,
    Resize,
)
from daskconv.nn.layers.base import Arrays, Layer
from daskconv.nn.onnx.translate import Call, Translation, operator
from daskconv.nn.onnx.values import ImagesMixed, Value

LAST = (0, 2, 3, 1)
Sides = tuple[tuple[int, int], tuple[int, int]]


def _on_images(
    made: Translation,
    call: Call,
    layer: Layer,
    params: Arrays | None = None,
    state: Arrays | None = None,
) -> Value:
    """Run a layer on images with channels last."""
    value, lines = _as_images(made, call)
    try:
        h, w, c = layer.output_shape(made.per_image(value.shape, LAST))
    except InputError as error:
        raise call.refusal(str(error).rstrip(".")) from None
    result = made.add(call, layer, [value], (value.shape[0], c, h, w), LAST, params, state)
    return _as_lines(made, result) if lines else result


def _as_images(made: Translation, call: Call) -> tuple[Value, bool]:
    """Return the operand as images, and whether it was lines (n, c, w), which become images of one row."""
    value = call.value()
    if made.whole or len(value.shape) not in (3, 4):
        if len(value.shape) > 4:
            raise call.refusal(f"its input has {len(value.shape) - 2} dimensions, and there are 1 and 2")
        raise ImagesMixed("It needs images along axis 0.")
    if len(value.shape) == 4:
        return made.arranged(value, LAST), False
    n, c, w = value.shape
    lines = made.arranged(value, (0, 2, 1))
    return made.add("image", Reshape((1, w, c)), [lines], (n, c, 1, w), LAST), True


def _as_lines(made: Translation, value: Value) -> Value:
    n, c, _, w = value.shape
    return made.add("lines", Reshape((w, c)), [value], (n, c, w), (0, 2, 1))


def _pair(numbers: Sequence[int] | None, default: int) -> tuple[int, int]:
    """Return rows and columns of an attribute; one number is that of the columns."""
    if not numbers:
        return default, default
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (default, int(numbers[0]))


def _sides(
    call: Call,
    image: Sequence[int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Sides:
    """Return the padding ((top, bottom), (left, right)) of pads or auto_pad."""
    auto, pads = call.attribute("auto_pad", "NOTSET"), call.attribute("pads")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, k, step, d in zip(image, kernel, stride, dilation, strict=True):
            total = max((-(-size // step) - 1) * step + d * (k - 1) + 1 - size, 0)
            half = total // 2
            sides.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
        return sides[0], sides[1]
    if auto not in ("NOTSET", "VALID", ""):
        raise call.refusal(f"auto_pad is {auto!r}")
    if not pads or auto == "VALID":
        return (0, 0), (0, 0)
    ints = [int(pad) for pad in pads]
    if min(ints) < 0:
        raise call.refusal(f"pads are {ints}, of which some are negative")
    return ((0, 0), (ints[0], ints[1])) if len(ints) == 2 else ((ints[0], ints[2]), (ints[1], ints[3]))


def _image_size(call: Call) -> tuple[int, int]:
    shape = call.value().shape
    return (shape[2], shape[3]) if len(shape) == 4 else (1, shape[-1])


def _weights(call: Call) -> tuple[NDArray, NDArray | None]:
    """Return the weights with four axes, and the bias."""
    weight, bias = call.constant(1), call.constant(2)
    if weight is None or weight.ndim not in (3, 4):
        raise call.refusal(
            f"its weights have {0 if weight is None else weight.ndim - 2} dimensions, not 1 or 2"
        )
    return (weight[:, :, None] if weight.ndim == 3 else weight), bias


@operator("Conv")
def _conv(made: Translation, call: Call) -> Value:
    weight, bias = _weights(call)
    kernel = weight.shape[2:]
    call.attribute("kernel_shape")
    stride, dilation = _pair(call.attribute("strides"), 1), _pair(call.attribute("dilations"), 1)
    layer = Conv2D(
        weight.shape[0],
        (kernel[0], kernel[1]),
        stride,
        _sides(call, _image_size(call), (kernel[0], kernel[1]), stride, dilation),
        dilation,
        call.attribute("group", 1),
        bias is not None,
    )
    params = {"weight": weight.transpose(2, 3, 1, 0)} | ({} if bias is None else {"bias": bias})
    return _on_images(made, call, layer, params)


@operator("ConvTranspose")
def _conv_transpose(made: Translation, call: Call) -> Value:
    weight, bias = _weights(call)
    kernel, group = weight.shape[2:], call.attribute("group", 1)
    call.attribute("kernel_shape")
    stride, dilation = _pair(call.attribute("strides"), 1), _pair(call.attribute("dilations"), 1)
    more = _pair(call.attribute("output_padding"), 0)
    wanted = call.attribute("output_shape")
    image = _image_size(call)
    auto = call.attribute("auto_pad", "NOTSET")
    if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
        call.attribute("pads")
        target = _pair(wanted[-2:], 1) if wanted else (image[0] * stride[0], image[1] * stride[1])
        axes = zip(image, target, kernel, stride, dilation, more, strict=True)
        fitted = [_fit(*numbers, auto) for numbers in axes]  # type: ignore[call-arg]
        sides, more = (fitted[0][0], fitted[1][0]), (fitted[0][1], fitted[1][1])
    else:
        sides = _sides(call, image, (kernel[0], kernel[1]), stride, dilation)
    layer = ConvTranspose2D(
        weight.shape[1] * group,
        (kernel[0], kernel[1]),
        stride,
        sides,
        more,
        dilation,
        group,
        bias is not None,
    )
    params = {"weight": weight.transpose(2, 3, 1, 0)} | ({} if bias is None else {"bias": bias})
    return _on_images(made, call, layer, params)


def _fit(
    size: int, target: int, kernel: int, stride: int, dilation: int, more: int, auto: str
) -> tuple[tuple[int, int], int]:
    """Return the padding and the output padding of one axis that end in a given size."""
    total = stride * (size - 1) + more + dilation * (kernel - 1) + 1 - target
    if total < 0:
        return (0, 0), more - total
    half = total // 2
    return ((half, total - half) if auto == "SAME_UPPER" else (total - half, half)), more


def _window(call: Call) -> dict[str, Any]:
    """Return a pool's options."""
    kernel = call.attribute("kernel_shape")
    if len(kernel) > 2:
        raise call.refusal(f"its kernel has {len(kernel)} dimensions, and there are 1 and 2")
    kernel = _pair(kernel, 1)
    stride, dilation = _pair(call.attribute("strides"), 1), _pair(call.attribute("dilations"), 1)
    sides = _sides(call, _image_size(call), kernel, stride, dilation)
    options = {"kernel": kernel, "stride": stride, "padding": sides, "dilation": dilation}
    return options | {"ceil_mode": bool(call.attribute("ceil_mode", 0))}


@operator("MaxPool")
def _max_pool(made: Translation, call: Call) -> Value:
    call.attribute("storage_order")
    return _on_images(made, call, MaxPool2D(**_window(call)))


@operator("AveragePool")
def _average_pool(made: Translation, call: Call) -> Value:
    include = bool(call.attribute("count_include_pad", 0))
    return _on_images(made, call, AvgPool2D(**_window(call), count_include_pad=include))


@operator("LpPool")
def _lp_pool(made: Translation, call: Call) -> Value:
    return _on_images(made, call, LpPool2D(**_window(call), p=float(call.attribute("p", 2))))


@operator("GlobalAveragePool")
def _global_average(made: Translation, call: Call) -> Value:
    return _on_images(made, call, GlobalAvgPool2D(keepdims=True))


@operator("GlobalMaxPool")
def _global_max(made: Translation, call: Call) -> Value:
    return _on_images(made, call, GlobalMaxPool2D(keepdims=True))


@operator("BatchNormalization")
def _batch_norm(made: Translation, call: Call) -> Value:
    if call.attribute("training_mode", 0) or call.attribute("spatial", 1) != 1:
        raise call.refusal("it is for training, or not spatial")
    epsilon, momentum = call.attribute("epsilon", 1e-5), call.attribute("momentum", 0.9)
    scale, offset, mean, variance = (call.constant(place) for place in range(1, 5))
    layer = BatchNorm(1 - momentum, epsilon)
    value = made.channels_last(call.value())
    arrays: Arrays = {"scale": scale, "offset": offset}  # type: ignore[dict-item]
    running: Arrays = {"mean": mean, "variance": variance}  # type: ignore[dict-item]
    return made.add(call, layer, [value], value.shape, value.order, arrays, running)


@operator("LRN")
def _lrn(made: Translation, call: Call) -> Value:
    numbers = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    alpha, beta, bias = (call.attribute(name, default) for name, default in numbers.items())
    value = made.channels_last(call.value())
    return made.add(call, LRN(call.attribute("size"), alpha, beta, bias), [value], value.shape, value.order)


@operator("Resize", "Upsample")
def _resize(made: Translation, call: Call) -> Value:
    rank = len(call.value().shape)
    axes = [axis % rank for axis in call.attribute("axes") or range(rank)]
    old = call.kind == "Upsample" or call.opset < 11
    scales = call.setting(1, "scales") if old else call.constant(2)
    sizes = None if old else call.constant(3)
    options = _resize_options(call, old, axes)
    by_size = sizes is not None and len(sizes) > 0
    numbers = sizes if by_size else scales
    if rank != 4:
        raise call.refusal(f"its input has {rank} axes, and there are images' rows and columns")
    if numbers is None or len(numbers) != len(axes):
        raise call.refusal(
            f"it has {0 if numbers is None else len(numbers)} sizes or scales for {len(axes)} axes"
        )
    by_axis: dict[int, Any] = dict.fromkeys(range(rank)) | dict(zip(axes, numbers, strict=True))
    shape, pair = call.value().shape, (by_axis[2], by_axis[3])
    same = ((shape[0], made.batch), (shape[1],)) if by_size else ((1.0,), (1.0,))
    changed = [axis for axis, kept in enumerate(same) if by_axis[axis] not in (None, *kept)]
    if changed:
        raise call.refusal(f"it resizes axis {changed[0]}, and there are images' rows and columns")
    policy = call.attribute("keep_aspect_ratio_policy", "stretch")
    if by_size:
        return _on_images(made, call, Resize(*_in_proportion(shape[2:], pair, policy), **options))
    rows, columns = (1.0 if scale is None else float(scale) for scale in pair)
    if call.kind == "Resize" and old and options["mode"] == "nearest" and min(rows, columns) < 1:
        # Opset 10 does not say it: onnxruntime rounds up where the image gets smaller.
        if max(rows, columns) > 1:
            raise call.refusal(f"of its scales {rows:g} and {columns:g} one is above 1 and one below")
        options["nearest"] = "ceil"
    return _on_images(made, call, Resize(scale=(rows, columns), **options))


def _resize_options(call: Call, old: bool, axes: list[int]) -> dict[str, Any]:
    mode = {"bilinear": "linear"}.get(call.attribute("mode", "nearest"), call.attribute("mode", "nearest"))
    if old:
        return {"mode": mode, "coordinates": "asymmetric", "nearest": "floor"}
    coordinates, roi = call.attribute("coordinate_transformation_mode", "half_pixel"), call.constant(1)
    options = {
        "mode": mode,
        "coordinates": coordinates,
        "nearest": call.attribute("nearest_mode", "round_prefer_floor"),
        "cubic": float(call.attribute("cubic_coeff_a", -0.75)),
        "exclude_outside": bool(call.attribute("exclude_outside", 0)),
        "antialias": bool(call.attribute("antialias", 0)),
        "extrapolation": float(call.attribute("extrapolation_value", 0.0)),
    }
    if coordinates == "tf_crop_and_resize" and roi is not None and roi.size:
        limits = dict(zip(axes, roi.reshape(2, -1).T.tolist(), strict=True))
        options["roi"] = tuple(tuple(limits.get(axis, (0.0, 1.0))) for axis in (2, 3))
    return options


def _in_proportion(
    image: Sequence[int], wanted: Sequence[Any], policy: str
) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """Return the output's size, and the scale that its pixels follow where that is not the size's."""
    if policy == "stretch":
        rows, columns = (int(size if new is None else new) for size, new in zip(image, wanted, strict=True))
        return (rows, columns), None
    choose: Callable = min if policy == "not_larger" else max
    scale = choose(new / size for size, new in zip(image, wanted, strict=True) if new is not None)
    high, wide = (1.0 if new is None else scale for new in wanted)
    return (int(image[0] * high + 0.5), int(image[1] * wide + 0.5)), (high, wide)
