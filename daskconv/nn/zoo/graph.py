"""A graph that is written down node by node, for networks that branch."""

from __future__ import annotations

from daskconv.nn.layers.base import Layer
from daskconv.nn.network import INPUT, Network, Node


class Graph:
    """Collects nodes; each reads the one before unless it is told otherwise.

    Examples
    --------
    >>> from daskconv import Add, Conv2D
    >>> graph = Graph()
    >>> stem = graph.add("stem", Conv2D(3, 3, padding=1))
    >>> _ = graph.add("conv", Conv2D(3, 3, padding=1))
    >>> _ = graph.add("sum", Add(), "conv", stem)
    >>> graph.network("residual").output_shape((8, 8, 3))
    (8, 8, 3)
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    @property
    def last(self) -> str:
        """The name of the newest node."""
        return self.nodes[-1].name if self.nodes else INPUT

    def add(self, name: str, layer: Layer, *inputs: str) -> str:
        """Add a node and return its name."""
        self.nodes.append(Node(name, layer, inputs or (self.last,)))
        return name

    def network(self, name: str) -> Network:
        """Return what was collected."""
        return Network(tuple(self.nodes), name)
