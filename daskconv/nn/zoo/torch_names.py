"""Weights of torchvision's and timm's networks, under the names and in the axes that the zoo has for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import DataError, InputError
from daskconv.nn.layers import BatchNorm, Conv2D, Dense, Flatten
from daskconv.nn.layers.base import Arrays, Shape
from daskconv.nn.network import Network
from daskconv.nn.zoo import build

# What timm calls the dense layers of a VGG; its other networks have torchvision's names.
_TIMM = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
_NORM = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}


def torch_names(network: Network) -> dict[str, str]:
    """Return what torchvision calls each layer with weights of one of the zoo's networks.

    Raises
    ------
    InputError
        Where torchvision has no such network.

    Examples
    --------
    >>> from daskconv.nn import zoo
    >>> names = torch_names(zoo.resnet18())
    >>> names["2/1/conv1"], names["3/1/shortcut/norm"], names["dense"]
    ('layer1.0.conv1', 'layer2.0.downsample.1', 'fc')
    """
    if network.name not in _RULES:
        why = _OTHERS.get(network.name, "torchvision has no network of that name")
        raise InputError(f"net is {network.name!r}, and {why}: choose one of {', '.join(_RULES)}.")
    return _RULES[network.name](network)


def from_torch(
    arrays: Mapping[str, NDArray], net: str, input_shape: Shape, source: str
) -> tuple[Network, Arrays, Arrays]:
    """Return the zoo's network for a file's classes, its parameters and its running statistics.

    Parameters
    ----------
    arrays : mapping
        A module's ``state_dict``.
    net : str
    input_shape : (h, w, c)
        Of the images: a dense layer after them reads the order h, w, c here and c, h, w there.
    source : str
        What the file is called in messages.

    Raises
    ------
    InputError
        Where torchvision has no such network.
    DataError
        Where the file does not hold this network's weights and no others, all of them finite.
    """
    names = torch_names(build(net, 1))
    left = {
        _renamed(name): array for name, array in arrays.items() if not name.endswith("num_batches_tracked")
    }
    _check_norms(left, names, net, source)
    last = f"{list(names.values())[-1]}.bias"
    network = build(net, len(_taken(left, last, net, source)))
    shapes = network.shapes(input_shape)
    expected = network.weight_shapes(input_shape) | network.statistic_shapes(input_shape)
    image: Shape = ()
    made: Arrays = {}
    for node in network.nodes:
        if isinstance(node.layer, Flatten):
            image = shapes[node.inputs[0]]
        if node.name not in names:
            continue
        table = _NORM if isinstance(node.layer, BatchNorm) else {"weight": "weight", "bias": "bias"}
        for ours, theirs in table.items():
            if f"{node.name}.{ours}" in expected:
                name, shape = f"{names[node.name]}.{theirs}", expected[f"{node.name}.{ours}"]
                array = _checked(_taken(left, name, net, source), name, shape, net, source)
                made[f"{node.name}.{ours}"] = _laid_out(array, image, shape)
                left.pop(name)
        if isinstance(node.layer, Dense):
            image = ()
    if left:
        raise DataError(
            f"{source} holds {min(left)!r}, for which {net} has no place: it is of another network."
        )
    running = network.statistic_shapes(input_shape)
    return network, {n: a for n, a in made.items() if n not in running}, {n: made[n] for n in running}


def _renamed(name: str) -> str:
    module, _, weight = name.rpartition(".")
    return f"{_TIMM.get(module, module)}.{weight}"


def _check_norms(arrays: Mapping[str, NDArray], names: Mapping[str, str], net: str, source: str) -> None:
    if any(name.endswith("running_mean") for name in arrays) and not any("norm" in name for name in names):
        raise DataError(
            f"{source} has batch norms and {net} has none here: take the weights of one without them."
        )


def _taken(arrays: Mapping[str, NDArray], name: str, net: str, source: str) -> NDArray:
    if name not in arrays:
        raise DataError(f"{source} holds no {name!r}, which {net} needs: it is of another network.")
    return arrays[name]


def _checked(array: NDArray, name: str, shape: Shape, net: str, source: str) -> NDArray[np.float32]:
    """Return an array as float32; raise DataError unless it has the size for a weight of this shape, and is finite."""
    theirs = (
        shape[::-1] if len(shape) == 2 else (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
    )
    found = (len(array), prod(array.shape[1:])) if len(shape) == 2 and array.ndim == 4 else array.shape
    if found != theirs:
        raise DataError(
            f"{source}: {name} has shape {array.shape} and {net} needs {theirs}: it is of another network, or for "
            "other images."
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{source}: {name} holds values that are not finite.")
    return array


def _laid_out(array: NDArray, image: Shape, shape: Shape) -> NDArray[np.float32]:
    """Return a weight in daskconv's order of axes; ``image`` (h, w, c) is what a dense layer reads, () for features."""
    if len(shape) == 4:
        array = array.transpose(2, 3, 1, 0)
    elif len(shape) == 2 and image:
        h, w, c = image
        array = array.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(shape)
    elif len(shape) == 2:
        array = array.reshape(shape[::-1]).T
    return np.ascontiguousarray(array)


# The rules, a function for each family of networks.


def _sequential(network: Network) -> dict[str, str]:
    """Return "features.N" for layers before Flatten and "classifier.N" after it, N counting all layers."""
    flatten = next(i for i, node in enumerate(network.nodes) if isinstance(node.layer, Flatten))
    places = [
        f"features.{i}" if i < flatten else f"classifier.{i - flatten - 1}" for i in range(len(network.nodes))
    ]
    return {
        node.name: place
        for node, place in zip(network.nodes, places, strict=True)
        if isinstance(node.layer, Conv2D | Dense)
    }


def _resnet(network: Network) -> dict[str, str]:
    """Return "layerS.B.convN" for block B of stage S + 1, both counted from 0 there; norms are "bnN"."""
    names = {"dense": "fc"}
    for node in network.nodes:
        parts = re.fullmatch(r"(?:(\d+)/(\d+)/)?(conv(\d)|shortcut)(/norm)?", node.name)
        if parts is None:
            continue
        stage, block, kind, number, norm = parts.groups()
        last = f"downsample.{int(bool(norm))}" if kind == "shortcut" else f"bn{number}" if norm else kind
        names[node.name] = f"layer{int(stage) - 1}.{int(block) - 1}.{last}" if stage else last
    return {node.name: names[node.name] for node in network.nodes if node.name in names}


def _squeezenet(network: Network) -> dict[str, str]:
    """Return "features.N.squeeze" and so on: ReLUs and pools count there, so that fire2 is 3 and fire4 is 6."""
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    for node in network.nodes:
        if isinstance(node.layer, Conv2D) and node.name.startswith("fire"):
            fire, _, part = node.name.partition("/")
            number = int(fire.removeprefix("fire"))
            names[node.name] = f"features.{number + 1 + (number >= 4) + (number >= 6)}.{part}"
    return {node.name: names[node.name] for node in network.nodes if node.name in names}


_RULES: dict[str, Callable[[Network], dict[str, str]]] = {
    "alexnet": _sequential,
    **dict.fromkeys(("resnet18", "resnet50", "resnet152"), _resnet),
    "squeezenet": _squeezenet,
    **dict.fromkeys(("vgg11", "vgg16", "vgg19"), _sequential),
}
_OTHERS = {"googlenet": "torchvision's has batch norms where this one, Caffe's, has LRN and biases"}
