"""GoogLeNet, of inception modules (Szegedy et al. 2015)."""

from __future__ import annotations

from daskconv.nn.initializers import GlorotUniform
from daskconv.nn.layers import (
    LRN,
    AvgPool2D,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Outputs,
    ReLU,
)
from daskconv.nn.network import Network
from daskconv.nn.zoo.graph import Graph

# Filters: 1x1, before and of 3x3, before and of 5x5, after the pool.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(classes: int = 1000, auxiliary: bool = False) -> Network:
    """Return GoogLeNet as Caffe has it: pooling rounds up, 57 convolutions, 6,998,552 parameters for 1000 classes.

    It is for images of 224x224.

    Parameters
    ----------
    classes : int
    auxiliary : bool
        Add the paper's two heads for training, which read 4a and 4d: 13,378,280 parameters and three outputs. Their
        losses count 0.3 each: ``Trainer(net, loss=daskconv.WeightedLosses("softmax_cross_entropy", (1.0, 0.3, 0.3)))``.
        A Model predicts without them.

    Examples
    --------
    >>> net = googlenet()
    >>> net.shapes((224, 224, 3))["5b"], net.output_shape((224, 224, 3))
    ((7, 7, 1024), (1000,))
    """
    graph = Graph()

    def conv(name: str, filters: int, kernel: int, *inputs: str, stride: int = 1) -> str:
        layer = Conv2D(filters, kernel, stride=stride, padding=kernel // 2, weight_init=GlorotUniform())
        return graph.add(f"{name}/relu", ReLU(), graph.add(name, layer, *inputs))

    def pool(name: str) -> str:
        return graph.add(name, MaxPool2D(3, stride=2, ceil_mode=True))

    conv("conv1", 64, 7, stride=2)
    pool("pool1")
    graph.add("norm1", LRN())
    conv("conv2/reduce", 64, 1)
    conv("conv2", 192, 3)
    graph.add("norm2", LRN())
    pool("pool2")
    for module, (one, three_reduce, three, five_reduce, five, pooled) in _MODULES.items():
        x = graph.last
        branches = [
            conv(f"{module}/1x1", one, 1, x),
            conv(f"{module}/3x3", three, 3, conv(f"{module}/3x3/reduce", three_reduce, 1, x)),
            conv(f"{module}/5x5", five, 5, conv(f"{module}/5x5/reduce", five_reduce, 1, x)),
            conv(
                f"{module}/pool/1x1",
                pooled,
                1,
                graph.add(f"{module}/pool", MaxPool2D(3, stride=1, padding=1), x),
            ),
        ]
        graph.add(module, Concat(), *branches)
        if module in ("3b", "4e"):
            pool(f"pool{module[0]}")
    graph.add("pool5", GlobalAvgPool2D())
    graph.add("drop", Dropout(0.4))
    graph.add("dense", Dense(classes, weight_init=GlorotUniform()))
    if auxiliary:
        _add_auxiliaries(graph, classes)
    return graph.network("googlenet")


def _add_auxiliaries(graph: Graph, classes: int) -> None:
    """Add the heads after all else, so that the same seed gives the rest the same weights without them."""
    heads = [_auxiliary(graph, f"aux{number}", module, classes) for number, module in ((1, "4a"), (2, "4d"))]
    graph.add("outputs", Outputs(auxiliary=2), "dense", *heads)


def _auxiliary(graph: Graph, name: str, module: str, classes: int) -> str:
    """Add a head that reads a module."""
    graph.add(f"{name}/pool", AvgPool2D(5, stride=3), module)
    graph.add(f"{name}/conv", Conv2D(128, 1, weight_init=GlorotUniform()))
    graph.add(f"{name}/conv/relu", ReLU())
    graph.add(f"{name}/flatten", Flatten())
    graph.add(f"{name}/dense1", Dense(1024, weight_init=GlorotUniform()))
    graph.add(f"{name}/dense1/relu", ReLU())
    graph.add(f"{name}/drop", Dropout(0.7))
    return graph.add(f"{name}/dense2", Dense(classes, weight_init=GlorotUniform()))
