"""SqueezeNet: AlexNet's accuracy with few parameters (Iandola et al. 2016)."""

from __future__ import annotations

from daskconv.nn.layers import Concat, Conv2D, Dropout, GlobalAvgPool2D, MaxPool2D, ReLU
from daskconv.nn.network import Network
from daskconv.nn.zoo.graph import Graph

_FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}


def squeezenet(classes: int = 1000) -> Network:
    """Return SqueezeNet 1.1 for images of 224x224: 1,235,496 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> squeezenet().output_shape((224, 224, 3))
    (1000,)
    """
    graph = Graph()

    def conv(name: str, filters: int, kernel: int, *inputs: str, stride: int = 1, padding: int = 0) -> str:
        layer = Conv2D(filters, kernel, stride=stride, padding=padding)
        return graph.add(f"{name}/relu", ReLU(), graph.add(name, layer, *inputs))

    conv("conv1", 64, 3, stride=2)
    for number, (squeeze, expand) in _FIRES.items():
        if number in (2, 4, 6):
            graph.add(f"pool{number}", MaxPool2D(3, stride=2, ceil_mode=True))
        squeezed = conv(f"fire{number}/squeeze", squeeze, 1)
        sides = [
            conv(f"fire{number}/expand1x1", expand, 1, squeezed),
            conv(f"fire{number}/expand3x3", expand, 3, squeezed, padding=1),
        ]
        graph.add(f"fire{number}", Concat(), *sides)
    graph.add("drop", Dropout(0.5))
    conv("conv10", classes, 1)
    graph.add("pool10", GlobalAvgPool2D())
    return graph.network("squeezenet")
