"""What kernels written as LLVM code share: the processor's registers, vectors, and calls by address."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

I64 = ir.IntType(64)


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


def lanes_of(itemsize: int) -> int:
    """Return how many elements a vector holds."""
    return registers()[0] // itemsize


def element_of(itemsize: int) -> Any:
    """Return LLVM's float32 or float64."""
    return ir.FloatType() if itemsize == 4 else ir.DoubleType()


def _call_at(typing, function, job):  # type: ignore[no-untyped-def]
    """Call a function by its address with a pointer to the numbers of a job, a tuple of int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, args[1])
        block = cgutils.alloca_once(builder, ir.ArrayType(I64, len(numbers)))
        for place, number in enumerate(numbers):
            builder.store(number, cgutils.gep_inbounds(builder, block, 0, place))
        kind = ir.FunctionType(ir.VoidType(), [I64.as_pointer()])
        pointer = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(pointer, [cgutils.gep_inbounds(builder, block, 0, 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(job))), codegen


call_at: Any = intrinsic(_call_at)


def _prefetch(typing, address):  # type: ignore[no-untyped-def]
    """Have the line at an address read into the caches; any address will do."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        write_prefetch(builder, builder.inttoptr(args[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


prefetch: Any = intrinsic(_prefetch)


def _atomically(operation: str) -> Any:
    """Write an operation on the int64 at an address, which other threads change as well; return what it was before.

    What a thread wrote before it is there for one that finds it done.
    """

    def typed(typing, address, number):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            place = builder.inttoptr(args[0], I64.as_pointer())
            return builder.atomic_rmw(operation, place, args[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return intrinsic(typed)


add_atomically, exchange_atomically = _atomically("add"), _atomically("xchg")


def _copy_bytes(typing, to, at, size):  # type: ignore[no-untyped-def]
    """Copy so many bytes from one address to another."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, at = (builder.inttoptr(address, cgutils.voidptr_t) for address in args[:2])
        cgutils.raw_memcpy(builder, to, at, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


copy_bytes: Any = intrinsic(_copy_bytes)


def _pointer(typing, address):  # type: ignore[no-untyped-def]
    """Return an address as a pointer, for ``numba.carray``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


pointer: Any = intrinsic(_pointer)


def write_prefetch(builder: ir.IRBuilder, address: Any, to_write: bool = False) -> None:
    """Write the instruction that has a line read into the caches."""
    i32 = ir.IntType(32)
    name, kind = "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    purpose, near, data = (ir.Constant(i32, number) for number in (int(to_write), 3, 1))
    builder.call(function, [address, purpose, near, data])


class Vectors(NamedTuple):
    """Writes operations on vectors of ``width`` elements (1: plain numbers) into a function.

    Attributes
    ----------
    builder : llvmlite.ir.IRBuilder
    element : llvmlite type
        Float or double.
    width : int
    """

    builder: ir.IRBuilder
    element: Any
    width: int

    @property
    def kind(self) -> Any:
        """The vector's type."""
        return self.element if self.width == 1 else ir.VectorType(self.element, self.width)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 4 if isinstance(self.element, ir.FloatType) else 8

    def constant(self, value: float) -> Any:
        """Return a vector of one value."""
        return ir.Constant(self.kind, value if self.width == 1 else [value] * self.width)

    def splat(self, value: Any) -> Any:
        """Return a vector of an element that is known when the code runs."""
        undefined = ir.Constant(self.kind, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), None)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c: fused where the processor can, two operations elsewhere."""
        suffix = f"f{8 * self.itemsize}" if self.width == 1 else f"v{self.width}f{8 * self.itemsize}"
        name, module = f"llvm.fmuladd.{suffix}", self.builder.module
        kind = ir.FunctionType(self.kind, [self.kind] * 3)
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, [a, b, c])

    def load(self, pointer: Any) -> Any:
        """Return the vector that starts at an element."""
        loaded = self.builder.load(self.builder.bitcast(pointer, self.kind.as_pointer()))
        loaded.align = self.itemsize
        return loaded

    def prefetch(self, pointer: Any, *, to_write: bool = False) -> None:
        """Have the line of an element read into the caches; any address will do."""
        write_prefetch(self.builder, self.builder.bitcast(pointer, ir.IntType(8).as_pointer()), to_write)

    def store(self, value: Any, pointer: Any) -> None:
        """Write a vector from an element on."""
        place = self.builder.bitcast(pointer, self.kind.as_pointer())
        self.builder.store(value, place, align=self.itemsize)


def number_of(builder: ir.IRBuilder, job: Any, place: int) -> Any:
    """Return a number of a job."""
    return builder.load(builder.gep(job, [ir.Constant(I64, place)]))


def job_function(module: ir.Module, name: str) -> ir.Function:
    """Declare a function that takes a job."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64.as_pointer()]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function


def switch_to(builder: ir.IRBuilder, code: Any, functions: dict[int, ir.Function], job: Any) -> None:
    """Call the function of a code with a job; a code that is none does nothing."""
    after = builder.append_basic_block("after")
    switch = builder.switch(code, after)
    for number, function in functions.items():
        with builder.goto_block(builder.append_basic_block()):
            builder.call(function, [job])
            builder.branch(after)
            switch.add_case(ir.Constant(I64, number), builder.block)
    builder.position_at_end(after)
