"""The micro-kernel: a tile of a matrix product that stays in vector registers over the whole reduction.

``c[i, :] += a[i] * b[:]``, summed over three nested loops, for ``rows`` values of ``a`` and ``vectors`` vectors
of ``b`` (Goto and van de Geijn 2008; without a packed ``a``, which is what makes a convolution's lowering
implicit). What the loops walk over is set by strides alone:

============  ==========================  =====================  ===========================
pass          rows of a                   vectors of b           loops
============  ==========================  =====================  ===========================
convolution   neighbouring output pixels  output channels        kernel rows, taps, channels
weight grad   channels of one tap         output channels        images, rows, pixels
============  ==========================  =====================  ===========================

Numba compiles one function a shape of tile, for the vectors of the processor it runs on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    registers,
    switch_to,
)

VECTORS = 2
"""Most vectors of a tile."""

_MOST_ROWS = 14


def most_rows(vectors: int) -> int:
    """Return the most rows of a tile of so many vectors: sums, vectors of b and one value of a fit the registers."""
    return min((registers()[1] - vectors - 1) // vectors, _MOST_ROWS)


class Tiles(NamedTuple):
    """What a kernel has to know of the tiles of one dtype; ``tiles[vectors]`` are the most rows.

    Attributes
    ----------
    lanes : int
        Elements of a vector.
    single, double : int
        The most rows of a tile of one vector, and of two.
    itemsize : int
    function : int
        The address of the compiled function.
    """

    lanes: int
    single: int
    double: int
    itemsize: int
    function: int


@cache
def tiles_of(dtype: DTypeLike) -> Tiles:
    """Return the tiles of float32 or float64 that fit the registers; compiles them where that was not done yet."""
    itemsize = np.dtype(dtype).itemsize
    assert np.dtype(dtype) in (np.float32, np.float64), f"no tiles of {dtype}"
    return Tiles(lanes_of(itemsize), most_rows(1), most_rows(2), itemsize, _compiled(itemsize).address)


@njit(nogil=True, cache=True)
def add_tile(tiles, shape, addresses, rows, counts, a_steps, b_steps, onto):  # type: ignore[no-untyped-def]
    """Write the sums of a column of tiles to c, from those already there (``onto``) or from a row of ``start``.

    Parameters
    ----------
    tiles : Tiles
    shape : (int, int, int)
        Rows of a tile, 1 to ``tiles[vectors]``, its vectors, 1 to VECTORS, and tiles, each below the one before.
    addresses : (int, int, int, int)
        Of a, b, c and start, whose element is of the tiles' dtype.
    rows : (int, int)
        How many elements neighbouring rows of a, and of c, lie apart.
    counts, a_steps, b_steps : (int, int, int)
        Of the loops, outer to inner: rounds (at least 1), and how many elements a and b move with each.
    onto : int
        1 or 0.
    """
    call_at(tiles.function, shape + addresses + rows + counts + a_steps + b_steps + (onto,))


@njit(nogil=True, cache=True)
def columns_of(rows, most):  # type: ignore[no-untyped-def]
    """Cut rows into tiles of nearly equal height: ((rows of a tile, tiles), (one row less, tiles)); none may be 0."""
    count = (rows + most - 1) // most
    higher = rows % count
    height = rows // count
    return ((height + 1, higher), (height, count - higher))


_JOB = ["rows", "vectors", "tiles", "a", "b", "c", "start", "a_row", "c_row"]
_JOB += [f"{what}{depth}" for what in "nab" for depth in range(3)] + ["onto"]


def _writer_of(itemsize: int) -> Any:
    """Return what a function of one dtype consists of: a jump to the tile shape that its job names."""

    def typed(typing, job):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _call_one_of(builder, element_of(itemsize), args[0])
            return context.get_dummy_value()

        return types.void(job), codegen

    return intrinsic(typed)


_run_float32, _run_float64 = _writer_of(4), _writer_of(8)


def _float32(job):  # type: ignore[no-untyped-def]
    _run_float32(job)


def _float64(job):  # type: ignore[no-untyped-def]
    _run_float64(job)


@cache
def _compiled(itemsize: int) -> Any:
    """Return a dtype's function: compiled once, however many kernels call it, and kept as long as its address is."""
    signature = types.void(types.CPointer(types.int64))
    return cfunc(signature, cache=True)(_float32 if itemsize == 4 else _float64)


class _Shape(NamedTuple):
    """A tile's rows and vectors, and whether its rows of a are neighbours in memory."""

    rows: int
    vectors: int
    adjacent: bool


def _call_one_of(builder: ir.IRBuilder, element: Any, job: Any) -> None:
    """Call the function of the tile shape that a job names."""
    rows, vectors, a_row = (
        number_of(builder, job, _JOB.index(name)) for name in ("rows", "vectors", "a_row")
    )
    adjacent = builder.zext(builder.icmp_signed("==", a_row, ir.Constant(I64, 1)), I64)
    code = builder.add(rows, builder.mul(vectors, ir.Constant(I64, 16)))
    code = builder.add(code, builder.mul(adjacent, ir.Constant(I64, 128)))
    functions = {
        shape.rows + 16 * shape.vectors + 128 * shape.adjacent: _tile_function(builder.module, element, shape)
        for shape in _shapes()
    }
    switch_to(builder, code, functions, job)


def _shapes() -> list[_Shape]:
    return [
        _Shape(rows, vectors, adjacent)
        for vectors in range(1, VECTORS + 1)
        for rows in range(1, most_rows(vectors) + 1)
        for adjacent in (False, True)
    ]


def _tile_function(module: ir.Module, element: Any, shape: _Shape) -> ir.Function:
    """Return the function of one tile shape, written once a module."""
    name = f"daskconv_tile_{shape.rows}x{shape.vectors}_{'adjacent_' * shape.adjacent}{element}"
    function = job_function(module, name)
    _TileWriter(function, element, shape).write()
    return function


class _TileWriter:
    """Writes the body of a tile's function."""

    def __init__(self, function: ir.Function, element: Any, shape: _Shape) -> None:
        self.function, self.shape = function, shape
        self.rows, self.vectors = shape.rows, shape.vectors
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.use = Vectors(self.builder, element, registers()[0] // (4 if element == ir.FloatType() else 8))
        self.args = {name: number_of(self.builder, function.args[0], i) for i, name in enumerate(_JOB)}
        for name in ("a", "b", "c", "start"):
            self.args[name] = self.builder.inttoptr(self.args[name], element.as_pointer())

    def write(self) -> None:
        """Write a loop over the tiles."""
        builder, args = self.builder, self.args
        self.sums = [[builder.alloca(self.use.kind) for _ in range(self.vectors)] for _ in range(self.rows)]
        self.offsets = self._row_offsets()
        moves = [builder.mul(args[f"{name}_row"], ir.Constant(I64, self.rows)) for name in "ac"]
        with self._rounds(args["tiles"], (args["a"], moves[0]), (args["c"], moves[1])) as (a, c):
            self._write_tile(a, c, builder.gep(a, [moves[0]]))
        builder.ret_void()

    def _write_tile(self, a: Any, c: Any, next_a: Any) -> None:
        """Load the sums, run the loops, store the sums."""
        builder, args = self.builder, self.args
        zero = ir.Constant(I64, 0)
        with builder.if_else(builder.icmp_signed("!=", args["onto"], zero)) as (onto, anew):
            with onto:
                self._each_sum(c, lambda sum_, at: builder.store(self.use.load(at), sum_))
            with anew:
                # A first sum is stored to a line that may be far away: the products take as long as it needs to come.
                self._each_sum(c, lambda _, at: self.use.prefetch(at, to_write=True))
                row = [self.use.load(self._at(args["start"], v)) for v in range(self.vectors)]
                for sums in self.sums:
                    for sum_, value in zip(sums, row, strict=True):
                        builder.store(value, sum_)
        self._loop(0, a, args["b"], next_a)
        self._each_sum(c, lambda sum_, at: self.use.store(builder.load(sum_), at))

    def _row_offsets(self) -> list[Any]:
        """Return each row's distance from the first, in registers; fixed ones where the rows are neighbours."""
        numbers = [ir.Constant(I64, row) for row in range(self.rows)]
        if self.shape.adjacent:
            return numbers
        return [self._opaque(self.builder.mul(self.args["a_row"], number)) for number in numbers]

    def _opaque(self, value: Any) -> Any:
        """Hide where a value comes from, or the compiler computes each row's address from the one before."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def _each_sum(self, c: Any, act: Any) -> None:
        for row, sums in enumerate(self.sums):
            distance = self.builder.mul(self.args["c_row"], ir.Constant(I64, row))
            start = self.builder.gep(c, [distance])
            for v, sum_ in enumerate(sums):
                act(sum_, self._at(start, v))

    def _loop(self, depth: int, a: Any, b: Any, soon: Any) -> None:
        """Write a loop that moves a and b by their steps, and inside of it the next one.

        ``soon`` is where the next tile reads: as many lines of it are fetched as there are products, since a tile has
        about as many rows as a line has elements.
        """
        args = self.args
        line = ir.Constant(I64, 64 // self.use.itemsize)
        moving = (
            (a, args[f"a{depth}"]),
            (b, args[f"b{depth}"]),
            (soon, args[f"a{depth}"] if depth < 2 else line),
        )
        with self._rounds(args[f"n{depth}"], *moving) as (here_a, here_b, here_soon):
            if depth < 2:
                self._loop(depth + 1, here_a, here_b, here_soon)
            else:
                if not self.shape.adjacent:
                    self.use.prefetch(here_soon)
                self._add_products(here_a, here_b)

    @contextmanager
    def _rounds(self, count: Any, *pointers: tuple[Any, Any]) -> Iterator[list[Any]]:
        """Write a loop of so many rounds, at least one, each of which moves pointers by a step."""
        builder, before = self.builder, self.builder.block
        body, after = self.function.append_basic_block(), self.function.append_basic_block()
        builder.branch(body)
        builder.position_at_end(body)
        firsts = [count, *(first for first, _ in pointers)]
        phis = [builder.phi(first.type) for first in firsts]
        for phi, first in zip(phis, firsts, strict=True):
            phi.add_incoming(first, before)
        yield phis[1:]
        fewer = builder.sub(phis[0], ir.Constant(I64, 1))
        moved = [builder.gep(phi, [step]) for phi, (_, step) in zip(phis[1:], pointers, strict=True)]
        for phi, value in zip(phis, [fewer, *moved], strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed(">", fewer, ir.Constant(I64, 0)), body, after)
        builder.position_at_end(after)

    def _add_products(self, a: Any, b: Any) -> None:
        builder = self.builder
        columns = [self.use.load(self._at(b, v)) for v in range(self.vectors)]
        for distance, sums in zip(self.offsets, self.sums, strict=True):
            value = self.use.splat(builder.load(builder.gep(a, [distance])))
            for sum_, column in zip(sums, columns, strict=True):
                builder.store(self.use.fma(value, column, builder.load(sum_)), sum_)

    def _at(self, pointer: Any, vector: int) -> Any:
        return self.builder.gep(pointer, [ir.Constant(I64, vector * self.use.width)])
