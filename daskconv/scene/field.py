"""Field: which part of a scene a network reads for a part of its output, worked out from its graph.

A tile is run as an image of its own, cut out of the scene around what the tile's outputs read. Every layer pads that
cut at its rim; where the rim is the scene's border that is right, and elsewhere the outputs that saw it are dropped.
Cuts start at multiples of the network's stride, so that strides, pools and upsampling fall on the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import floor, lcm

from daskconv.errors import InputError
from daskconv.nn.even import at_size
from daskconv.nn.layers import Outputs
from daskconv.nn.layers.base import Shape
from daskconv.nn.network import INPUT, Network
from daskconv.nn.passes import input_of
from daskconv.nn.reach import Reach

Span = tuple[int, int]


@dataclass(frozen=True)
class Field:
    """How a network's output maps are made from a scene, axis by axis.

    Attributes
    ----------
    network : Network
        With paddings in pixels: those of the whole scene.
    shape : (h, w, c)
        The scene's.

    Examples
    --------
    >>> from daskconv import Conv2D, MaxPool2D, Sequential
    >>> field = field_of(Sequential([Conv2D(4, 3, padding=1), MaxPool2D(2), Conv2D(2, 3)]), (100, 80, 3))
    >>> field.stride, field.halo(0)
    ((2, 2), (1, 5))
    >>> field.cut(0, (10, 20))
    (18, 46)
    """

    network: Network
    shape: Shape

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each node's output for the whole scene."""
        return self.network.shapes(self.shape)

    @property
    def output(self) -> Shape:
        """The shape (p, q, k) of the whole output."""
        return self.shapes[self.network.nodes[-1].name]

    @cached_property
    def reaches(self) -> dict[str, tuple[Reach, Reach]]:
        """The reach of each layer, by node; of constants nothing."""
        found = {}
        constant: set[str] = set()
        for node in self.network.nodes:
            shape = input_of(node, self.shapes)
            if node.layer.is_constant or constant.issuperset(node.inputs):
                constant.add(node.name)
                self._check_constant(node.name)
                continue
            reach = node.layer.reach(shape)
            if reach is None:
                kind = type(node.layer).__name__
                raise WholeImage(
                    f"{node.name} ({kind}) looks at the whole image, so the network gives no map of a scene: give "
                    "images (n, h, w, c), or slide its window over the scene with stride=."
                )
            found[node.name] = reach
        return found

    def _check_constant(self, name: str) -> None:
        shape = self.shapes[name]
        if len(shape) > 2 and shape[:2] != (1, 1):
            raise WholeImage(
                f"{name} holds an image of {shape}, so the network is for images of one size: slide its window over "
                "the scene with stride=."
            )

    @cached_property
    def _rates(self) -> dict[str, tuple[Fraction, Fraction]]:
        """Outputs of each node for a pixel of the scene, along rows and columns."""
        rates = {INPUT: (Fraction(1), Fraction(1))}
        for node in self.network.nodes:
            if node.name not in self.reaches:
                continue
            found = {rates[name] for name in node.inputs if name in rates}
            if len(found) > 1:
                raise InputError(
                    f"{node.name} joins maps of different strides: give it inputs of one stride, or predict images."
                )
            (rate,), reach = found, self.reaches[node.name]
            rates[node.name] = (rate[0] / reach[0].step, rate[1] / reach[1].step)
        return rates

    @cached_property
    def stride(self) -> tuple[int, int]:
        """The network's total stride: cuts start at multiples of it."""
        rows, columns = zip(*self._rates.values(), strict=True)
        return lcm(*(rate.denominator for rate in rows)), lcm(*(rate.denominator for rate in columns))

    def rate(self, axis: int) -> Fraction:
        """Return the outputs for a pixel of the scene along an axis."""
        return self._rates[self.network.nodes[-1].name][axis]

    def halo(self, axis: int) -> Span:
        """Return how many pixels before its own first one, and after its own last one, an output may depend on."""
        total = self.total(axis)
        return max(0, -floor(total.first)), max(0, floor(total.last + 1 - total.step))

    def total(self, axis: int) -> Reach:
        """Return the reach of the output in pixels of the scene."""
        reaches = {INPUT: Reach()}
        for node in self.network.nodes:
            if node.name in self.reaches:
                own = self.reaches[node.name][axis]
                ways = [own.after(reaches[name]) for name in node.inputs if name in reaches]
                first, last = min(way.first for way in ways), max(way.last for way in ways)
                reaches[node.name] = Reach(ways[0].step, first, last)
        return reaches[self.network.nodes[-1].name]

    def cut(self, axis: int, span: Span) -> Span:
        """Return the pixels of the scene to run the network on for the outputs from one to before another."""
        needed = self._needed(axis, span)
        size, step = self.shape[axis], self.stride[axis]
        start, stop = needed[INPUT][0]
        start, stop = start - start % step, min(size, stop + -stop % step)
        while not self._serves(axis, (start, stop), needed):
            if (start, stop) == (0, size):
                raise InputError(f"The network has no outputs {span} along {'hw'[axis]} on {self.shape}.")
            start, stop = max(0, start - step), min(size, stop + step)
        return start, stop

    def _needed(self, axis: int, span: Span) -> dict[str, tuple[Span, bool, bool]]:
        """Return of each node the outputs that are read, and whether padding before and after them is."""
        wanted: dict[str, list[Span]] = {self.network.nodes[-1].name: [span]}
        needed = {}
        for node in reversed(self.network.nodes):
            if node.name not in self.reaches or node.name not in wanted:
                continue
            needed[node.name] = own = self._inside(axis, node.name, wanted[node.name])
            reach, (start, stop) = self.reaches[node.name][axis], own[0]
            first, last = reach.inputs(start, stop)
            # A cut counts its pixels from its own first one: what a layer skips there has to be in it.
            first = min(first, floor(start * reach.step))
            for name in node.inputs:
                if name == INPUT or name in self.reaches:
                    wanted.setdefault(name, []).append((first, last))
        needed[INPUT] = self._inside(axis, INPUT, wanted[INPUT])
        return needed

    def _inside(self, axis: int, name: str, spans: list[Span]) -> tuple[Span, bool, bool]:
        size = self.shapes[name][axis]
        first, last = min(span[0] for span in spans), max(span[1] for span in spans)
        start = min(max(first, 0), size - 1)
        return (start, max(min(last, size), start + 1)), first < 0, last > size

    def _serves(self, axis: int, cut: Span, needed: dict[str, tuple[Span, bool, bool]]) -> bool:
        """Return whether a run on this cut holds what is read, and pads it where the whole scene does."""
        try:
            shapes = self._shapes_of(axis, cut[1] - cut[0])
        except InputError:
            return False
        for name, ((start, stop), before, after) in needed.items():
            offset, size = cut[0] * self._rates[name][axis], self.shapes[name][axis]
            end = offset + shapes[name][axis]
            if start < offset or stop > end or (before and offset) or (after and end != size):
                return False
        return True

    def _shapes_of(self, axis: int, length: int) -> dict[str, Shape]:
        return _shapes(self.network, (*self.shape[:axis], length, *self.shape[axis + 1 :]))


@lru_cache(maxsize=256)
def _shapes(network: Network, shape: Shape) -> dict[str, Shape]:
    return network.shapes(shape)


class WholeImage(InputError):
    """A layer looks at the whole image, so that there is no map of a larger scene."""


def field_of(network: Network, shape: Shape) -> Field:
    """Return the field of a network on a scene (h, w, c), with paddings as they are on the whole scene.

    Raises
    ------
    InputError
        Where a layer looks at the whole image, or the scene does not fit the network.
    """
    if isinstance(network.nodes[-1].layer, Outputs):
        raise InputError("The network has several outputs: end it with the map that is wanted.")
    try:
        field = Field(at_size(network, shape), shape)
    except InputError as error:
        raise _refusal(network, shape, error) from None
    if not field.reaches or len(field.output) != 3:
        raise WholeImage(
            f"The network gives {field.output} of an image and no map (h, w, k): give images (n, h, w, c), or slide "
            "its window over the scene with stride=."
        )
    field.stride  # noqa: B018 - raises where strides differ
    return field


def _refusal(network: Network, shape: Shape, error: InputError) -> InputError:
    """Return why a scene does not fit: a size that strides do not divide, too few pixels, or the layer's own reason."""
    h, w, c = shape
    for step in (2**i for i in range(1, 9)):
        cropped = h - h % step, w - w % step
        if _fits(network, (*cropped, c)):
            return InputError(
                f"The scene has {h} x {w} pixels, which the network's strides do not divide "
                f"({str(error).rstrip('.')}): crop it to {cropped[0]} x {cropped[1]}, or pad it."
            )
    for side in (2**i for i in range(2, 13)):
        larger = max(h, side), max(w, side), c
        if _fits(network, larger):
            field = Field(at_size(network, larger), larger)
            rows, columns = (int(field.total(axis).last - field.total(axis).first) + 1 for axis in (0, 1))
            return InputError(
                f"The scene has {h} x {w} pixels, fewer than the {rows} x {columns} that the network looks at for an "
                "output: give a larger scene, or pad it."
            )
    return error


def _fits(network: Network, shape: Shape) -> bool:
    try:
        return bool(network.shapes(shape))
    except InputError:
        return False
