"""U-Net, for a class of each pixel (Ronneberger, Fischer and Brox 2015)."""

from __future__ import annotations

from daskconv.nn.layers import Concat, Conv2D, ConvTranspose2D, MaxPool2D, ReLU
from daskconv.nn.network import Network
from daskconv.nn.zoo.graph import Graph


def unet(classes: int = 2, width: int = 64, depth: int = 4) -> Network:
    """Return U-Net with padded convolutions, so that the output (h, w, classes) covers the image.

    The paper's convolutions are not padded: it crops, and loses the border. Its sizes give 31,030,658 parameters for
    one input channel and two classes, here as there.

    Parameters
    ----------
    classes : int
        Channels of the output: scores of each pixel.
    width : int
        Filters of the first level; each level below has twice as many.
    depth : int
        Levels below the first. Images need sides that are multiples of ``2 ** depth``.

    Examples
    --------
    >>> unet(3, width=8).output_shape((32, 48, 1))
    (32, 48, 3)
    """
    graph = Graph()

    def two_convs(name: str, filters: int) -> str:
        for number in (1, 2):
            graph.add(f"{name}/conv{number}", Conv2D(filters, 3, padding=1))
            graph.add(f"{name}/relu{number}", ReLU())
        return graph.last

    skips = []
    for level in range(depth):
        skips.append(two_convs(f"down{level}", width * 2**level))
        graph.add(f"down{level}/pool", MaxPool2D(2))
    two_convs("bottom", width * 2**depth)
    for level in reversed(range(depth)):
        up = graph.add(f"up{level}", ConvTranspose2D(width * 2**level, 2, stride=2))
        graph.add(f"up{level}/concat", Concat(), skips[level], up)
        two_convs(f"up{level}", width * 2**level)
    graph.add("scores", Conv2D(classes, 1))
    return graph.network("unet")
