"""What is done to a convolution's outputs right after their sums, while they are in cache: add an array, ReLU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit
from daskconv.kernels.scratch import empty_like


class Epilogue(NamedTuple):
    """Steps after the bias.

    Attributes
    ----------
    add : array of the output's shape and dtype, optional
        Such as a residual block's shortcut; C-contiguous.
    relu : bool
        Keep the positive part.
    """

    add: NDArray | None = None
    relu: bool = False

    @property
    def flags(self) -> tuple[bool, bool]:
        """Whether there is something to add, and whether negative values become 0."""
        return self.add is not None, self.relu

    def flat(self, out: NDArray) -> NDArray:
        """Return the addends as one row; where there are none, an array that compiled code does not read."""
        return (out if self.add is None else self.add).reshape(-1)

    def part(self, start: int, stop: int) -> Epilogue:
        """Return the epilogue of some images."""
        return self if self.add is None else self._replace(add=self.add[start:stop])


NOTHING = Epilogue()


def finish(out: NDArray, epilogue: Epilogue) -> None:
    """Apply an epilogue to a whole array, C-contiguous, in place."""
    if any(epilogue.flags):
        _finish(out.reshape(-1), epilogue.flat(out), epilogue.flags)


@njit(otherwise=plain.finish, nogil=True, cache=True)
def _finish(out, add, flags):  # type: ignore[no-untyped-def]
    finish_run(out, 0, add, 0, flags, len(out))


def relu_grad(dy: NDArray, y: NDArray) -> NDArray:
    """Return the gradient by what became ``y`` in a ReLU: ``dy`` where ``y`` is positive."""
    dx = empty_like(y)
    _relu_grad(*(np.ascontiguousarray(array).reshape(-1) for array in (dy, y)), dx.reshape(-1))
    return dx


@njit(otherwise=plain.relu_grad, nogil=True, cache=True)
def _relu_grad(dy, y, dx):  # type: ignore[no-untyped-def]
    zero = y.dtype.type(0)
    for i in range(np.uint64(len(y))):
        dx[i] = dy[i] if y[i] > zero else zero


# Unsigned indices: signed ones may be negative, which costs a check an element and the vectors.
@njit(nogil=True, cache=True)
def finish_run(out, at, add, add_at, flags, length):  # type: ignore[no-untyped-def]
    """Apply an epilogue to some neighbouring elements."""
    adds, relu = flags
    zero, here, there = out.dtype.type(0), np.uint64(at), np.uint64(add_at)
    if adds and relu:
        for t in range(np.uint64(length)):
            out[here + t] = max(out[here + t] + add[there + t], zero)
    elif adds:
        for t in range(np.uint64(length)):
            out[here + t] += add[there + t]
    elif relu:
        for t in range(np.uint64(length)):
            out[here + t] = max(out[here + t], zero)
