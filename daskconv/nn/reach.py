"""Reach: which inputs an output reads along rows or columns; what tells how far a tile has to look over its edge."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daskconv.geometry import Window


@dataclass(frozen=True)
class Reach:
    """Along one axis, output i reads no inputs but those from ``i * step + first`` to ``i * step + last``.

    Attributes
    ----------
    step : Fraction
        Inputs from one output to the next; 1/2 where a layer makes images twice as large.
    first, last : Fraction
        May lie outside of the image: there a layer reads its own padding.

    Examples
    --------
    >>> three = Reach(Fraction(1), Fraction(-1), Fraction(1))
    >>> three.inputs(10, 20)
    (9, 21)
    >>> Reach(Fraction(2), Fraction(0), Fraction(1)).after(three)
    Reach(step=Fraction(2, 1), first=Fraction(-1, 1), last=Fraction(2, 1))
    """

    step: Fraction = Fraction(1)
    first: Fraction = Fraction(0)
    last: Fraction = Fraction(0)

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the inputs, from one to before another, that outputs from ``start`` to before ``stop`` read."""
        return ceil(start * self.step + self.first), floor((stop - 1) * self.step + self.last) + 1

    def after(self, before: Reach) -> Reach:
        """Return the reach of this layer behind another one, in that one's inputs."""
        first = self.first * before.step + before.first
        return Reach(self.step * before.step, first, self.last * before.step + before.last)

    @classmethod
    def of(cls, window: Window) -> tuple[Reach, Reach]:
        """Return the reach of a sliding window along rows and columns."""
        rows, columns = (
            cls(Fraction(step), Fraction(-before), Fraction(extent - 1 - before))
            for step, (before, _), extent in zip(window.stride, window.padding, window.extent, strict=True)
        )
        return rows, columns

    @classmethod
    def against(cls, window: Window) -> tuple[Reach, Reach]:
        """Return the reach of a window that is run backwards, from the convolution's output to its input."""
        rows, columns = (
            cls(Fraction(1, step), Fraction(before - extent + 1, step), Fraction(before, step))
            for step, (before, _), extent in zip(window.stride, window.padding, window.extent, strict=True)
        )
        return rows, columns


POINTWISE = Reach(), Reach()
"""Of layers whose output pixel reads the same pixel of their inputs."""
