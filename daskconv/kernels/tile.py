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
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import DTypeLike

VECTORS = 2
"""Most vectors of a tile."""

_MOST_ROWS = 14


@cache
def registers() -> tuple[int, int]:
    """Return (bytes of a vector register, number of them) of the processor that Numba compiles for."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    has = set(features.split(",")) if features else _features_of(name)
    if "+avx512f" in has:
        return 64, 32
    if "+avx" in has:
        return 32, 16
    return 16, 16 if triple.startswith("x86_64") else 32


def _features_of(name: str) -> set[str]:
    """Return what a processor has that was asked for by its name (NUMBA_CPU_NAME) and without features."""
    known = {"haswell": "+avx", "broadwell": "+avx", "znver": "+avx", "skylake": "+avx", "alderlake": "+avx"}
    wide = ("avx512", "icelake", "cascadelake", "cooperlake", "tigerlake", "rapids", "znver4", "znver5")
    has = {feature for part, feature in known.items() if part in name}
    return has | ({"+avx", "+avx512f"} if any(part in name for part in wide) else set())


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


def tiles_of(dtype: DTypeLike) -> Tiles:
    """Return the tiles of float32 or float64 that fit the registers; compiles them where that was not done yet."""
    itemsize = np.dtype(dtype).itemsize
    assert np.dtype(dtype) in (np.float32, np.float64), f"no tiles of {dtype}"
    return Tiles(
        registers()[0] // itemsize, most_rows(1), most_rows(2), itemsize, _compiled(itemsize).address
    )


@njit(nogil=True, cache=True)
def add_tile(tiles, shape, addresses, rows, counts, a_steps, b_steps, onto):  # type: ignore[no-untyped-def]
    """Write a tile's sums to c, from those already there (``onto``) or from a row of ``start``.

    Parameters
    ----------
    tiles : Tiles
    shape : (int, int)
        Rows, 1 to ``tiles[vectors]``, and vectors, 1 to VECTORS.
    addresses : (int, int, int, int)
        Of a, b, c and start, whose element is of the tiles' dtype.
    rows : (int, int)
        How many elements neighbouring rows of a, and of c, lie apart.
    counts, a_steps, b_steps : (int, int, int)
        Of the loops, outer to inner: rounds (at least 1), and how many elements a and b move with each.
    onto : int
        1 or 0.
    """
    _call(tiles.function, shape + addresses + rows + counts + a_steps + b_steps + (onto,))


_JOB = ["rows", "vectors", "a", "b", "c", "start", "a_row", "c_row"]
_JOB += [f"{what}{depth}" for what in "nab" for depth in range(3)] + ["onto"]


def _call_at(typing, function, job):  # type: ignore[no-untyped-def]
    """Call a function by its address with a pointer to the numbers of a job."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        i64 = ir.IntType(64)
        block = cgutils.alloca_once(builder, ir.ArrayType(i64, len(_JOB)))
        for place, number in enumerate(cgutils.unpack_tuple(builder, args[1])):
            builder.store(number, cgutils.gep_inbounds(builder, block, 0, place))
        kind = ir.FunctionType(ir.VoidType(), [i64.as_pointer()])
        pointer = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(pointer, [cgutils.gep_inbounds(builder, block, 0, 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(_JOB))), codegen


def _writer_of(element: Any) -> Any:
    """Return what a function of one dtype consists of: a jump to the tile shape that its job names."""

    def typed(typing, job):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _call_one_of(builder, element, args[0])
            return context.get_dummy_value()

        return types.void(job), codegen

    return intrinsic(typed)


_call: Any = intrinsic(_call_at)
_run_float32, _run_float64 = _writer_of(ir.FloatType()), _writer_of(ir.DoubleType())


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
    i64 = ir.IntType(64)
    rows, vectors, a_row = (_number_of(builder, job, name) for name in ("rows", "vectors", "a_row"))
    adjacent = builder.zext(builder.icmp_signed("==", a_row, ir.Constant(i64, 1)), i64)
    code = builder.add(rows, builder.mul(vectors, ir.Constant(i64, 16)))
    code = builder.add(code, builder.mul(adjacent, ir.Constant(i64, 128)))
    after = builder.append_basic_block("after_tile")
    switch = builder.switch(code, after)
    for shape in _shapes():
        with builder.goto_block(builder.append_basic_block()):
            builder.call(_tile_function(builder.module, element, shape), [job])
            builder.branch(after)
            switch.add_case(
                ir.Constant(i64, shape.rows + 16 * shape.vectors + 128 * shape.adjacent), builder.block
            )
    builder.position_at_end(after)


def _shapes() -> list[_Shape]:
    return [
        _Shape(rows, vectors, adjacent)
        for vectors in range(1, VECTORS + 1)
        for rows in range(1, most_rows(vectors) + 1)
        for adjacent in (False, True)
    ]


def _number_of(builder: ir.IRBuilder, job: Any, name: str) -> Any:
    return builder.load(builder.gep(job, [ir.Constant(ir.IntType(64), _JOB.index(name))]))


def _tile_function(module: ir.Module, element: Any, shape: _Shape) -> ir.Function:
    """Return the function of one tile shape, written once a module."""
    name = f"daskconv_tile_{shape.rows}x{shape.vectors}_{'adjacent_' * shape.adjacent}{element}"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64).as_pointer()]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    _TileWriter(function, element, shape).write()
    return function


class _TileWriter:
    """Writes the body of a tile's function."""

    def __init__(self, function: ir.Function, element: Any, shape: _Shape) -> None:
        self.function, self.element, self.shape = function, element, shape
        self.rows, self.vectors = shape.rows, shape.vectors
        self.itemsize = 4 if isinstance(element, ir.FloatType) else 8
        self.width = registers()[0] // self.itemsize
        self.vector = ir.VectorType(element, self.width)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.fma = self._declare_fma(function.module)
        self.args = {name: _number_of(self.builder, function.args[0], name) for name in _JOB}
        for name in ("a", "b", "c", "start"):
            self.args[name] = self.builder.inttoptr(self.args[name], element.as_pointer())

    def _declare_fma(self, module: ir.Module) -> ir.Function:
        """Return a * b + c of vectors: fused where the processor can, two operations elsewhere."""
        name = f"llvm.fmuladd.v{self.width}f{8 * self.itemsize}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return module.globals.get(name) or ir.Function(module, kind, name)

    def write(self) -> None:
        """Load the sums, run the loops, store the sums."""
        builder, args = self.builder, self.args
        self.sums = [[builder.alloca(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)]
        self.offsets = self._row_offsets()
        zero = ir.Constant(ir.IntType(64), 0)
        with builder.if_else(builder.icmp_signed("!=", args["onto"], zero)) as (onto, anew):
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
        loaded.align = self.itemsize
        return loaded

    def _store(self, value: Any, pointer: Any) -> None:
        self.builder.store(
            value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.itemsize
        )
