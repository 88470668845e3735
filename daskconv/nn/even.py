"""Even: a network in which a pixel's sums do not depend on where in the image it lies, to the last bit.

At the left and right border of an image a kernel that reads it in place adds the taps that all pixels of a register
tile have before those that only some have. Where the columns are padded beforehand, every pixel has every tap, and
the sums of an image's part are those of the whole image.
"""

from __future__ import annotations

from dataclasses import replace

from daskconv.nn.layers import Conv2D, ConvTranspose2D, Pad
from daskconv.nn.layers.base import Shape
from daskconv.nn.layers.conv_transpose import adjoint
from daskconv.nn.network import Network, Node
from daskconv.nn.passes import input_of


def at_size(network: Network, shape: Shape) -> Network:
    """Return the network with what its layers take from the size of its images written out, as "same" padding is."""
    shapes = network.shapes(shape)
    return replace(
        network,
        nodes=tuple(
            replace(node, layer=node.layer.at_size(input_of(node, shapes))) for node in network.nodes
        ),
    )


def evened(network: Network, shape: Shape) -> Network:
    """Return a network that pads the columns of images of this shape before its convolutions do.

    Examples
    --------
    >>> from daskconv import Conv2D, Sequential
    >>> [node.layer for node in evened(Sequential([Conv2D(4, 3, padding=1)]), (8, 8, 1)).nodes][0].padding
    ((0, 0), (1, 1), (0, 0))
    """
    shapes, nodes = network.shapes(shape), []
    taken = {node.name for node in network.nodes}
    for node in network.nodes:
        border = _border(node, input_of(node, shapes))
        if border is None:
            nodes.append(node)
            continue
        (before, after), layer = border
        name = next(
            name for i in range(len(taken) + 1) if (name := f"{node.name}/border{i or ''}") not in taken
        )
        taken.add(name)
        nodes.append(Node(name, Pad(((0, 0), (before, after), (0, 0))), node.inputs))
        nodes.append(Node(node.name, layer, (name,)))
    return replace(network, nodes=tuple(nodes))


def _border(node: Node, shape: Shape) -> tuple[tuple[int, int], Conv2D | ConvTranspose2D] | None:
    """Return the columns to add on both sides, and the layer that does without its own; None where it has none."""
    layer = node.layer
    if isinstance(layer, Conv2D):
        rows, columns = layer.window(shape).padding
        return (columns, replace(layer, padding=(rows, (0, 0)))) if any(columns) else None
    if isinstance(layer, ConvTranspose2D):
        window = adjoint(layer, shape)[0]
        (rows, columns), step = window.padding, window.stride[1]
        more = -(-(window.extent[1] - 1) // step)
        if window.extent[1] <= step:
            return None
        wider = (columns[0] + more * step, columns[1] + more * step)
        return (more, more), replace(layer, padding=(rows, wider))
    return None
