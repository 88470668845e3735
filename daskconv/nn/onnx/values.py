"""What an ONNX value is here: a node's output whose axes may lie in another order."""

from __future__ import annotations

from dataclasses import dataclass

from daskconv.errors import InputError

IMAGES = 1_000_003
"""The size of axis 0 while shapes are worked out: a prime, so that any other number made of it can be told."""

FEWER = 2
"""Another size of axis 0: what a graph computes with the number of images comes out another way."""


class ImagesMixed(InputError):
    """An operator joins values of different images."""


@dataclass(frozen=True)
class Value:
    """An output of the network that is built.

    Attributes
    ----------
    node : str
    shape : tuple of int
        As in ONNX; axis 0 may be :data:`IMAGES`.
    order : tuple of int
        The axes in the order in which they lie here: (0, 2, 3, 1) are images with channels last.
    flat : tuple of int
        Sizes (c, h, w) of an image whose values lie in the order h, w, c in what ONNX takes for one axis of c, h, w;
        () elsewhere.
    """

    node: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    flat: tuple[int, ...] = ()

    @property
    def is_natural(self) -> bool:
        """Whether axes lie as ONNX has them; those of size 1 may lie anywhere."""
        return _without_ones(self.order, self.shape) == sorted(_without_ones(self.order, self.shape))


def _without_ones(order: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    return [axis for axis in order if shape[axis] != 1]


def groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Return which axes a reshape makes of which, the smallest groups of equal size; axes of size 1 are left out.

    Examples
    --------
    >>> groups((2, 6, 5), (2, 2, 3, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    left = [axis for axis, size in enumerate(old) if size != 1]
    right = [axis for axis, size in enumerate(new) if size != 1]
    found = []
    while left and right:
        mine, theirs = [left.pop(0)], [right.pop(0)]
        a, b = old[mine[0]], new[theirs[0]]
        while a != b:
            if a < b:
                mine.append(left.pop(0))
                a *= old[mine[-1]]
            else:
                theirs.append(right.pop(0))
                b *= new[theirs[-1]]
        found.append((mine, theirs))
    return found
