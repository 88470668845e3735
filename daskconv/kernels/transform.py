"""Winograd's transforms: ``M X M^T`` of small matrices over vectors of channels, ``M`` written into the code.

F(m x m, r x r) computes m x m outputs of an r x r kernel from (m + r - 1)^2 products of transformed pixels and
transformed weights (Winograd 1980; Lavin and Gray 2016; matrices by Cook and Toom from interpolation points)::

    Y = A^T [(G w G^T) * (B^T x B)] A

The gradient by the weights is the same formula read backwards: ``G^T [(A dY A^T) * (B^T x B)] G``.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from daskconv.kernels.native import (
    I64,
    Vectors,
    call_at,
    element_of,
    job_function,
    lanes_of,
    number_of,
    switch_to,
)

Matrix = tuple[tuple[Fraction, ...], ...]

_POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))

INPUT, FILTER, OUTPUT, OUTPUT_GRAD, FILTER_GRAD = range(5)
"""Which transform: B^T, G, A^T, A and G^T."""


def matrices(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return A^T (m, a), G (a, r) and B^T (a, a) of F(m, r), with a = m + r - 1; the last point is infinity.

    Examples
    --------
    >>> a, g, b = matrices(2, 3)
    >>> [[int(value) for value in row] for row in a]
    [[1, 1, 1, 0], [0, 1, -1, 1]]
    """
    count = m + r - 2
    points = _POINTS[:count]
    others = [[q for q in points if q != p] for p in points]
    scales = [_product(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    last = [Fraction(0)]
    outputs = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    filters = [[p**i / scale for i in range(r)] for p, scale in zip(points, scales, strict=True)]
    filters.append(last * (r - 1) + [Fraction(1)])
    inputs = [_polynomial(rest) + last for rest in others] + [_polynomial(points)]
    return _frozen(outputs), _frozen(filters), _frozen(inputs)


def _product(values: Any) -> Fraction:
    result = Fraction(1)
    for value in values:
        result *= value
    return result


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients, lowest first, of the product of (x - root)."""
    result = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *result], [-root * value for value in result] + [Fraction(0)]
        result = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return result


def _frozen(rows: list[list[Fraction]]) -> Matrix:
    return tuple(map(tuple, rows))


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


class Transforms(NamedTuple):
    """The transforms of one F(m, r) and dtype, as compiled code takes them.

    Attributes
    ----------
    m, r, points : int
        Outputs, taps, and products (m + r - 1) along one axis.
    lanes, itemsize : int
        Elements of a vector, and bytes of one.
    function : int
        The address of the compiled function.
    """

    m: int
    r: int
    points: int
    lanes: int
    itemsize: int
    function: int


@cache
def transforms_of(m: int, r: int, dtype: DTypeLike) -> Transforms:
    """Return the transforms of F(m, r); compiles them where that was not done yet."""
    itemsize = np.dtype(dtype).itemsize
    return Transforms(m, r, m + r - 1, lanes_of(itemsize), itemsize, _compiled(m, r, itemsize).address)


@njit(nogil=True, cache=True)
def transform(transforms, which, sources, targets, at, to, count):  # type: ignore[no-untyped-def]
    """Transform ``count`` channels.

    Parameters
    ----------
    transforms : Transforms
    which : int
        INPUT, FILTER, OUTPUT, OUTPUT_GRAD or FILTER_GRAD.
    sources, targets : arrays of int64
        Row by row, the address of each element's first channel.
    at, to : int
        How many channels after these addresses to begin.
    count : int
        Channels. All are neighbours in memory, in the sources and in the targets.
    """
    size, lanes = transforms.itemsize, transforms.lanes
    vectors = count // lanes
    rest = count - vectors * lanes
    lists = (sources.ctypes.data, targets.ctypes.data)
    if vectors > 0:
        call_at(transforms.function, (which, *lists, at * size, to * size, vectors))
    if rest > 0:
        at, to = at + vectors * lanes, to + vectors * lanes
        call_at(transforms.function, (which + 5, *lists, at * size, to * size, rest))


def _transform_any(typing, job, m, r, itemsize):  # type: ignore[no-untyped-def]
    """Jump to the transform that a job names, over vectors or over single channels."""
    if not all(isinstance(number, types.IntegerLiteral) for number in (m, r, itemsize)):
        return None
    taken = matrices(m.literal_value, r.literal_value)
    element = element_of(itemsize.literal_value)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        output, filters, inputs = taken
        kinds = [inputs, filters, output, _transposed(output), _transposed(filters)]
        widths = (lanes_of(itemsize.literal_value), 1)
        functions = {
            which + 5 * single: _function(builder.module, f"{which}_{width}", matrix, element, width)
            for single, width in enumerate(widths)
            for which, matrix in enumerate(kinds)
        }
        switch_to(builder, number_of(builder, args[0], 0), functions, args[0])
        return context.get_dummy_value()

    return types.void(job, m, r, itemsize), codegen


_transform: Any = intrinsic(prefer_literal=True)(_transform_any)


@cache
def _compiled(m: int, r: int, itemsize: int) -> Any:
    """Return the function of one F(m, r), kept as long as its address is."""

    def run(job):  # type: ignore[no-untyped-def]
        _transform(job, m, r, itemsize)

    return cfunc(types.void(types.CPointer(types.int64)), cache=True)(run)


def _function(module: ir.Module, name: str, matrix: Matrix, element: Any, width: int) -> ir.Function:
    """Write the loop of one transform over vectors of ``width`` channels."""
    function = job_function(module, f"daskconv_transform_{name}")
    entry = function.append_basic_block("entry")
    body, after = function.append_basic_block("body"), function.append_basic_block("after")
    builder = ir.IRBuilder(entry)
    _, *numbers = (number_of(builder, function.args[0], place) for place in range(6))
    lists = [builder.inttoptr(number, I64.as_pointer()) for number in numbers[:2]]
    rounds = numbers[4]
    builder.branch(body)
    builder.position_at_end(body)
    left, at, to = (builder.phi(I64) for _ in range(3))
    for phi, first in ((left, rounds), (at, numbers[2]), (to, numbers[3])):
        phi.add_incoming(first, entry)
    use = Vectors(builder, element, width)
    _transform_once(use, matrix, lists[0], lists[1], at, to)
    fewer = builder.sub(left, ir.Constant(I64, 1))
    moved = [builder.add(place, ir.Constant(I64, width * use.itemsize)) for place in (at, to)]
    for phi, value in ((left, fewer), (at, moved[0]), (to, moved[1])):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed(">", fewer, ir.Constant(I64, 0)), body, after)
    builder.position_at_end(after)
    builder.ret_void()
    return function


def _transform_once(use: Vectors, matrix: Matrix, sources: Any, targets: Any, at: Any, to: Any) -> None:
    """Write M X M^T for one vector: M over the columns of X, then over the rows of what results."""
    builder, columns, rows = use.builder, len(matrix[0]), len(matrix)

    def place(addresses: Any, number: int, offset: Any) -> Any:
        address = builder.load(builder.gep(addresses, [ir.Constant(I64, number)]))
        return builder.inttoptr(builder.add(address, offset), use.element.as_pointer())

    half = []
    for column in range(columns):
        values = [use.load(place(sources, row * columns + column, at)) for row in range(columns)]
        half.append(_apply(use, matrix, values))
    for row in range(rows):
        for column, value in enumerate(_apply(use, matrix, [values[row] for values in half])):
            use.store(value, place(targets, row * rows + column, to))


def _apply(use: Vectors, matrix: Matrix, values: list[Any]) -> list[Any]:
    """Return matrix times values; two rows that differ by signs share their even and odd parts."""
    results: list[Any] = [None] * len(matrix)
    for i, j in _pairs(matrix):
        even, odd = (_combine(use, part, values) for part in _halves(matrix[i], matrix[j]))
        results[i], results[j] = use.builder.fadd(even, odd), use.builder.fsub(even, odd)
    for i, row in enumerate(matrix):
        if results[i] is None:
            results[i] = _combine(use, row, values)
    return results


def _pairs(matrix: Matrix) -> list[tuple[int, int]]:
    """Return disjoint pairs of rows that are cheaper as the sum and the difference of two shorter ones."""
    pairs: list[tuple[int, int]] = []
    for j, row in enumerate(matrix):
        for i in range(j):
            parts, rows = _halves(matrix[i], row), (matrix[i], row)
            terms = [sum(sum(map(bool, part)) for part in group) for group in (parts, rows)]
            if all(i not in pair for pair in pairs) and min(map(any, parts)) and terms[0] + 2 < terms[1]:
                pairs.append((i, j))
                break
    return pairs


def _halves(a: Sequence[Fraction], b: Sequence[Fraction]) -> list[list[Fraction]]:
    return [[(x + sign * y) / 2 for x, y in zip(a, b, strict=True)] for sign in (1, -1)]


def _combine(use: Vectors, row: Sequence[Fraction], values: list[Any]) -> Any:
    """Return the sum of row times values: first what needs no product, then fused products."""
    builder = use.builder
    terms = sorted(
        ((factor, value) for factor, value in zip(row, values, strict=True) if factor),
        key=lambda term: (abs(term[0]) != 1, term[0] < 0),
    )
    if not terms:
        return use.constant(0.0)
    factor, total = terms[0]
    if factor != 1:
        total = builder.fmul(use.constant(float(factor)), total)
    for factor, value in terms[1:]:
        if abs(factor) == 1:
            total = builder.fadd(total, value) if factor > 0 else builder.fsub(total, value)
        else:
            total = use.fma(use.constant(float(factor)), value, total)
    return total
