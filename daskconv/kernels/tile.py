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

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import DTypeLike

VECTORS = 2
"""Most vectors of a tile."""

_MOST_ROWS = 14


@cache
def registers() -> tuple[int, int]:
    """Return (bytes of a vector register, number of them) of the processor that Numba compiles for."""
    machine = cpu_target.target_context.codegen()
    name, features = machine.magic_tuple()[1:]
    has = set(features.split(",")) if vars(config)["CPU_NAME"] is None else _features_of(name, features)
    if "+avx512f" in has:
        return 64, 32
    if "+avx" in has:
        return 32, 16
    return 16, 32 if "+neon" in has or "aarch64" in machine.magic_tuple()[0] else 16


def _features_of(name: str, features: str) -> set[str]:
    """Return the features of a processor that was asked for by name: those given, else those the name is known by."""
    if features:
        return set(features.split(","))
    wide = ("avx512", "znver4", "znver5", "icelake", "sapphirerapids", "cascadelake")
    if any(part in name for part in wide):
        return {"+avx", "+avx512f"}
    return (
        {"+avx"}
        if any(part in name for part in ("haswell", "broadwell", "skylake", "znver", "alderlake"))
        else set()
    )


def most_rows(vectors: int) -> int:
    """Return the most rows of a tile of so many vectors: sums, vectors of b and one value of a fit the registers."""
    return min((registers()[1] - vectors - 1) // vectors, _MOST_ROWS)


class TileSizes(NamedTuple):
    """Elements of a vector, and the most rows of a tile of one vector and of two: ``sizes[vectors]``."""

    lanes: int
    single: int
    double: int


def tile_sizes(dtype: DTypeLike) -> TileSizes:
    """Return the tiles that fit the registers."""
    return TileSizes(registers()[0] // np.dtype(dtype).itemsize, most_rows(1), most_rows(2))


def _add_tile(  # type: ignore[no-untyped-def]
    typing,
    rows,
    vectors,
    a,
    a_at,
    a_row,
    b,
    b_at,
    c,
    c_at,
    c_row,
    start,
    start_at,
    counts,
    a_steps,
    b_steps,
    onto,
):
    """Write a tile's sums to c, from those already there (``onto``) or from a row of ``start``.

    Parameters
    ----------
    rows, vectors : int
        The shape of the tile, 1 to :func:`most_rows` and 1 to VECTORS.
    a : int
        The address of a flat array; an array that may not be written to would be another type to compile for.
    b, c, start : flat arrays of one dtype
        All with ``_at``, where they begin, and ``_row``, the distance of neighbouring rows, in elements.
    counts, a_steps, b_steps : (int, int, int)
        Of the loops, outer to inner: rounds (at least 1), and how far a and b move with each.
    onto : bool
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def pointer(position: int) -> Any:
            array = context.make_array(signature.args[position])(context, builder, args[position])
            return builder.gep(array.data, [args[position + 1]])

        element = context.get_data_type(c.dtype)
        first = builder.gep(builder.inttoptr(args[2], element.as_pointer()), [args[3]])
        pointers = [first, *(pointer(position) for position in (5, 7, 10))]
        loops = [number for numbers in args[12:15] for number in cgutils.unpack_tuple(builder, numbers)]
        operands = [*pointers, args[4], args[9], *loops, args[15]]
        _call_one_of(builder, args[0], args[1], element, operands)
        return context.get_dummy_value()

    i, three = types.int64, types.UniTuple(types.int64, 3)
    return types.void(i, i, i, i, i, b, i, c, i, i, start, i, three, three, three, types.boolean), codegen


class _Shape(NamedTuple):
    """A tile's rows and vectors, and whether its rows of a are neighbours in memory."""

    rows: int
    vectors: int
    adjacent: bool


add_tile: Any = intrinsic(_add_tile)


def _call_one_of(builder: ir.IRBuilder, rows: Any, vectors: Any, element: Any, operands: list[Any]) -> None:
    """Call the function of the tile shape that numbers name while the program runs."""
    i64 = ir.IntType(64)
    adjacent = builder.icmp_signed("==", operands[4], ir.Constant(i64, 1))
    code = builder.add(rows, builder.mul(vectors, ir.Constant(i64, 16)))
    code = builder.add(code, builder.select(adjacent, ir.Constant(i64, 128), ir.Constant(i64, 0)))
    after = builder.append_basic_block("after_tile")
    switch = builder.switch(code, after)
    for count in range(1, VECTORS + 1):
        for shape in (
            _Shape(r, count, near) for r in range(1, most_rows(count) + 1) for near in (False, True)
        ):
            with builder.goto_block(builder.append_basic_block()):
                builder.call(_tile_function(builder.module, element, shape), operands)
                builder.branch(after)
                number = shape.rows + 16 * shape.vectors + 128 * shape.adjacent
                switch.add_case(ir.Constant(i64, number), builder.block)
    builder.position_at_end(after)


def _tile_function(module: ir.Module, element: Any, shape: _Shape) -> ir.Function:
    """Return the function of one tile shape, written once a module."""
    name = f"daskconv_tile_{shape.rows}x{shape.vectors}_{'adjacent_' * shape.adjacent}{element}"
    if name in module.globals:
        return module.globals[name]
    i64, pointer = ir.IntType(64), element.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer] * 4 + [i64] * 11 + [ir.IntType(1)])
    function = ir.Function(module, kind, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    _TileWriter(function, element, shape).write()
    return function


def _itemsize(element: Any) -> int:
    return 4 if isinstance(element, ir.FloatType) else 8


class _TileWriter:
    """Writes the body of a tile's function."""

    def __init__(self, function: ir.Function, element: Any, shape: _Shape) -> None:
        self.function, self.element, self.shape = function, element, shape
        self.rows, self.vectors = shape.rows, shape.vectors
        self.width = registers()[0] // _itemsize(element)
        self.vector = ir.VectorType(element, self.width)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.fma = self._declare_fma(function.module)
        loops = [f"{what}{depth}" for what in "nab" for depth in range(3)]
        names = ["a", "b", "c", "start", "a_row", "c_row", *loops, "onto"]
        self.args = dict(zip(names, function.args, strict=True))

    def _declare_fma(self, module: ir.Module) -> ir.Function:
        """Return a * b + c of vectors: fused where the processor can, two operations elsewhere."""
        name = f"llvm.fmuladd.v{self.width}f{8 * _itemsize(self.element)}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return module.globals.get(name) or ir.Function(module, kind, name)

    def write(self) -> None:
        """Load the sums, run the loops, store the sums."""
        builder, args = self.builder, self.args
        self.sums = [[builder.alloca(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        self.offsets = self._row_offsets()
        with builder.if_else(args["onto"]) as (onto, anew):
            with onto:
                self._each_sum(lambda sum_, at: builder.store(self._load(at), sum_))
            with anew:
                row = [self._load(self._at(args["start"], v)) for v in range(self.vectors)]
                for sums in self.sums:
                    for sum_, value in zip(sums, row, strict=True):
                        builder.store(value, sum_)
        self._loop(0, args["a"], args["b"])
        self._each_sum(lambda sum_, at: self._store(builder.load(sum_), at))
        builder.ret_void()

    def _row_offsets(self) -> list[Any]:
        """Return each row's distance from the first, in registers; fixed ones where the rows are neighbours."""
        numbers = [ir.Constant(ir.IntType(64), row) for row in range(self.rows)]
        if self.shape.adjacent:
            return numbers
        return [self._opaque(self.builder.mul(self.args["a_row"], number)) for number in numbers]

    def _opaque(self, value: Any) -> Any:
        """Hide where a value comes from, or the compiler computes each row's address from the one before."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def _each_sum(self, act: Any) -> None:
        for row, sums in enumerate(self.sums):
            distance = self.builder.mul(self.args["c_row"], ir.Constant(ir.IntType(64), row))
            start = self.builder.gep(self.args["c"], [distance])
            for v, sum_ in enumerate(sums):
                act(sum_, self._at(start, v))

    def _loop(self, depth: int, a: Any, b: Any) -> None:
        """Write a loop that moves a and b by their steps, and inside of it the next one."""
        builder, i64 = self.builder, ir.IntType(64)
        before = builder.block
        body, after = self.function.append_basic_block(), self.function.append_basic_block()
        builder.branch(body)
        builder.position_at_end(body)
        left, here_a, here_b = builder.phi(i64), builder.phi(a.type), builder.phi(b.type)
        for phi, first in ((left, self.args[f"n{depth}"]), (here_a, a), (here_b, b)):
            phi.add_incoming(first, before)
        if depth < 2:
            self._loop(depth + 1, here_a, here_b)
        else:
            self._add_products(here_a, here_b)
        fewer = builder.sub(left, ir.Constant(i64, 1))
        next_a = builder.gep(here_a, [self.args[f"a{depth}"]])
        next_b = builder.gep(here_b, [self.args[f"b{depth}"]])
        for phi, value in ((left, fewer), (here_a, next_a), (here_b, next_b)):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed(">", fewer, ir.Constant(i64, 0)), body, after)
        builder.position_at_end(after)

    def _add_products(self, a: Any, b: Any) -> None:
        builder = self.builder
        columns = [self._load(self._at(b, v)) for v in range(self.vectors)]
        for distance, sums in zip(self.offsets, self.sums, strict=True):
            value = self._splat(builder.load(builder.gep(a, [distance])))
            for sum_, column in zip(sums, columns, strict=True):
                builder.store(builder.call(self.fma, [value, column, builder.load(sum_)]), sum_)

    def _splat(self, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), None)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def _at(self, pointer: Any, vector: int) -> Any:
        return self.builder.gep(pointer, [ir.Constant(ir.IntType(64), vector * self.width)])

    def _load(self, pointer: Any) -> Any:
        loaded = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        loaded.align = _itemsize(self.element)
        return loaded

    def _store(self, value: Any, pointer: Any) -> None:
        self.builder.store(
            value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=_itemsize(self.element)
        )
