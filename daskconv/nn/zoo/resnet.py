"""Residual networks (He et al. 2016): for CIFAR's small images, and for ImageNet's."""

from __future__ import annotations

from daskconv.nn.layers import Add, BatchNorm, Conv2D, Dense, GlobalAvgPool2D, MaxPool2D, Pad, ReLU, Slice
from daskconv.nn.network import Network
from daskconv.nn.zoo.graph import Graph


def resnet20(classes: int = 10) -> Network:
    """Return ResNet-20 for images of 32x32: 0.27 million parameters, shortcuts without any (option A of the paper).

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> resnet20().output_shape((32, 32, 3))
    (10,)
    """
    return _small("resnet20", 3, classes)


def resnet56(classes: int = 10) -> Network:
    """Return ResNet-56 for images of 32x32: 0.85 million parameters.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> sum(isinstance(node.layer, Conv2D) for node in resnet56().nodes)
    55
    """
    return _small("resnet56", 9, classes)


def resnet18(classes: int = 1000) -> Network:
    """Return ResNet-18 for images of 224x224: 11,689,512 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> resnet18().output_shape((224, 224, 3))
    (1000,)
    """
    return _large("resnet18", (2, 2, 2, 2), 1, classes)


def resnet50(classes: int = 1000) -> Network:
    """Return ResNet-50 for images of 224x224: 25,557,032 parameters for 1000 classes.

    The stride is in the 3x3 convolution of a block, as in torchvision and Facebook's training code, not in the 1x1
    before it.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> resnet50().shapes((224, 224, 3))["5/3"]
    (7, 7, 2048)
    """
    return _large("resnet50", (3, 4, 6, 3), 4, classes)


def resnet152(classes: int = 1000) -> Network:
    """Return ResNet-152 for images of 224x224: 60,192,808 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> sum(isinstance(node.layer, Conv2D) for node in resnet152().nodes)
    155
    """
    return _large("resnet152", (3, 8, 36, 3), 4, classes)


def _conv(graph: Graph, name: str, filters: int, kernel: int, *inputs: str, stride: int = 1) -> str:
    """Add a convolution without a bias, and the batch norm that has one."""
    padding = kernel // 2
    graph.add(name, Conv2D(filters, kernel, stride=stride, padding=padding, bias=False), *inputs)
    return graph.add(f"{name}/norm", BatchNorm())


def _end(graph: Graph, name: str, main: str, shortcut: str) -> None:
    """Add the sum of a block and its shortcut, and its ReLU, which has the block's name."""
    graph.add(f"{name}/add", Add(), main, shortcut)
    graph.add(name, ReLU())


def _small(name: str, blocks: int, classes: int) -> Network:
    graph = Graph()
    _conv(graph, "conv1", 16, 3)
    graph.add("relu1", ReLU())
    for stage, filters in enumerate((16, 32, 64), 1):
        for number in range(1, blocks + 1):
            block, x = f"{stage}/{number}", graph.last
            halves = stage > 1 and number == 1
            _conv(graph, f"{block}/conv1", filters, 3, x, stride=1 + halves)
            graph.add(f"{block}/relu1", ReLU())
            main = _conv(graph, f"{block}/conv2", filters, 3)
            if halves:
                x = graph.add(f"{block}/every_second", Slice((None,) * 3, (None,) * 3, (2, 2, 1)), x)
                more = filters // 4
                x = graph.add(f"{block}/zeros", Pad(((0, 0), (0, 0), (more, more))), x)
            _end(graph, block, main, x)
    graph.add("pool", GlobalAvgPool2D())
    graph.add("dense", Dense(classes))
    return graph.network(name)


def _large(name: str, depths: tuple[int, ...], widening: int, classes: int) -> Network:
    """Return a network of plain blocks (``widening`` 1), or of bottlenecks that end ``widening`` times as wide."""
    graph = Graph()
    _conv(graph, "conv1", 64, 7, stride=2)
    graph.add("relu1", ReLU())
    graph.add("pool1", MaxPool2D(3, stride=2, padding=1))
    for stage, depth in enumerate(depths, 2):
        filters = 64 * 2 ** (stage - 2)
        for number in range(1, depth + 1):
            block, x = f"{stage}/{number}", graph.last
            stride = 2 if stage > 2 and number == 1 else 1
            main = _block(graph, block, x, filters, stride, widening)
            if number == 1 and (stride > 1 or widening > 1):
                x = _conv(graph, f"{block}/shortcut", filters * widening, 1, x, stride=stride)
            _end(graph, block, main, x)
    graph.add("pool", GlobalAvgPool2D())
    graph.add("dense", Dense(classes))
    return graph.network(name)


def _block(graph: Graph, block: str, x: str, filters: int, stride: int, widening: int) -> str:
    """Add a block's convolutions."""
    kernels = ((3, stride), (3, 1)) if widening == 1 else ((1, 1), (3, stride), (1, 1))
    name = x
    for number, (kernel, step) in enumerate(kernels, 1):
        if number > 1:
            name = graph.add(f"{block}/relu{number - 1}", ReLU(), name)
        width = filters * (widening if number == len(kernels) else 1)
        name = _conv(graph, f"{block}/conv{number}", width, kernel, name, stride=step)
    return name
