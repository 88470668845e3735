"""Layout: which axes are split, and into how many parts. Every parallel scheme is one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

from daskconv.errors import InputError


@dataclass(frozen=True)
class Layout:
    """Parts along each axis of a layer: images n, rows h, columns w, input channels c, filters k.

    Examples
    --------
    >>> print(Layout(n=4))
    n=4
    >>> Layout(n=4).shards
    4
    """

    n: int = 1
    h: int = 1
    w: int = 1
    c: int = 1
    k: int = 1

    def __post_init__(self) -> None:
        for axis, parts in self.items():
            if not isinstance(parts, int) or parts < 1:
                raise InputError(f"The layout splits {axis} into {parts!r} parts: give an int of at least 1.")

    def items(self) -> list[tuple[str, int]]:
        """Return (axis, parts) of every axis."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    @property
    def split_axes(self) -> tuple[str, ...]:
        """The axes cut into more than one part."""
        return tuple(axis for axis, parts in self.items() if parts > 1)

    @property
    def shards(self) -> int:
        """The number of parts over all axes."""
        return self.n * self.h * self.w * self.c * self.k

    def __str__(self) -> str:
        return ", ".join(f"{axis}={parts}" for axis, parts in self.items() if parts > 1) or "whole"


def even_parts(size: int, parts: int) -> list[tuple[int, int]]:
    """Return the contiguous ranges that cut ``size`` into ``parts``; trailing ones may be empty.

    Examples
    --------
    >>> even_parts(3, 4)
    [(0, 1), (1, 2), (2, 3), (3, 3)]
    """
    short, longer = divmod(size, parts)
    edges = [part * short + min(part, longer) for part in range(parts + 1)]
    return list(pairwise(edges))
