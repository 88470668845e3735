"""Waiting awake: a thread that waits for a microsecond's work must not be put to sleep, which takes a hundred."""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

# In rounds. Whoever lets Python's lock go wakes the thread that waits for it, which Linux may put on the waker's core.
_GIVE_WAY_EVERY = 100


def _hint(typing):  # type: ignore[no-untyped-def]
    """Let the core's other thread run, and save power, for some dozen cycles."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        triple, i32 = cpu_target.target_context.codegen().magic_tuple()[0], ir.IntType(32)
        hints = {"x86": ("llvm.x86.sse2.pause", []), "aarch64": ("llvm.aarch64.hint", [ir.Constant(i32, 1)])}
        for name, numbers in (hint for part, hint in hints.items() if triple.startswith(part)):
            kind = ir.FunctionType(ir.VoidType(), [i32] * len(numbers))
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, numbers)
        # Memory may have changed meanwhile: without this, the compiler would read it only once.
        builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)
        return context.get_dummy_value()

    return types.void(), codegen


pause: Any = intrinsic(_hint)


def _give_way(typing):  # type: ignore[no-untyped-def]
    """Let a thread that waits for this core run first, where the system has a call for that."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if hasattr(os, "sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            yield_core = builder.module.globals.get("sched_yield")
            builder.call(yield_core or ir.Function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


give_way: Any = intrinsic(_give_way)


@njit(nogil=True, cache=True)
def spin(count, least, rounds, grace):  # type: ignore[no-untyped-def]
    """Return whether ``count[0]`` reached ``least`` within so many rounds, of about 20 nanoseconds each.

    If so, ``grace`` more rounds pass: the thread that counted still holds Python's lock, and lets it go soon.
    """
    for number in range(rounds):
        if count[0] >= least:
            for _ in range(grace):
                pause()
            return True
        pause()
        if number % _GIVE_WAY_EVERY == 0:
            give_way()
    return False
