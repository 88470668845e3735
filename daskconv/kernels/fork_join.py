"""Fork and join inside compiled code: threads that stand by join in a kernel that another one has begun.

A thread needs Python's lock to begin a kernel, and another one has it until its own kernel runs: of a pass of a
millisecond the second thread would miss a tenth. Here it waits in compiled code, and is there in a microsecond. Who
does not come in time, because it sleeps or because its core has other work, is not waited for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from daskconv.kernels.native import (
    I64,
    add_atomically,
    call_at,
    exchange_atomically,
    job_function,
    number_of,
    pointer,
)
from daskconv.kernels.scratch import empty
from daskconv.kernels.spin import give_way, pause, spin

# A gate's numbers, in lines of their own: the state (how many kernels it was opened for, above how many threads
# have joined in the last one, and whether it is closed), how many are done with it, and the kernel.
_STATE, _DONE, _FUNCTION, _ARGUMENTS, _NUMBERS = 0, 8, 16, 17, 24
_CLOSED, _ONE_MORE = 1 << 31, 1 << 32

# In rounds: how often a thread that waits lets others have its core.
_GIVE_WAY_EVERY = 100


class Helpers(NamedTuple):
    """Threads that stand by at a gate, and how many, the one that opens it not counted."""

    gate: NDArray[np.int64]
    number: int

    @property
    def threads(self) -> int:
        """All threads that a kernel may run on."""
        return 1 + self.number


def closed_gate() -> NDArray[np.int64]:
    """Return a gate: one thread at a time opens it for a kernel, and others join in there."""
    gate: NDArray[np.int64] = empty((_NUMBERS,), np.int64)
    gate[:] = 0
    gate[_STATE] = _CLOSED
    return gate


def is_open(gate: NDArray[np.int64]) -> bool:
    """Return whether a kernel is running at a gate."""
    return not gate[_STATE] & _CLOSED


def _bound(typing, kernel, arguments):  # type: ignore[no-untyped-def]
    """Return the addresses of a compiled function and of its arguments, for calls by any thread.

    The function is ``kernel(number, *arguments)``, with the number of the thread. Before the arguments stands how
    many of its calls have failed. All of it lives as long as the caller runs.
    """
    signature = types.void(types.int64, *arguments)
    compiled = kernel.dispatcher.get_compile_result(signature)

    def codegen(context, builder, _, args):  # type: ignore[no-untyped-def]
        context.add_linking_libs([compiled.library])
        record = ir.LiteralStructType([I64, args[1].type])
        place = cgutils.alloca_once(builder, record)
        builder.store(ir.Constant(I64, 0), cgutils.gep_inbounds(builder, place, 0, 0))
        builder.store(args[1], cgutils.gep_inbounds(builder, place, 0, 1))
        name = f"daskconv_join_{compiled.fndesc.mangled_name}"
        function = builder.module.globals.get(name)
        if function is None:
            function = job_function(builder.module, name)
            _write_call(context, function, record, compiled.fndesc, signature)
        addresses = [builder.ptrtoint(function, I64), builder.ptrtoint(place, I64)]
        return cgutils.pack_array(builder, addresses)

    return types.UniTuple(types.int64, 2)(kernel, arguments), codegen


def _write_call(context: Any, function: ir.Function, record: ir.Type, described: Any, signature: Any) -> None:
    """Write what a job, the address of a record and a number, is for: to call a kernel and to count its failure."""
    builder = ir.IRBuilder(function.append_basic_block())
    at, number = (number_of(builder, function.args[0], place) for place in range(2))
    there = builder.inttoptr(at, record.as_pointer())
    arguments = cgutils.unpack_tuple(builder, builder.load(cgutils.gep_inbounds(builder, there, 0, 1)))
    status, _ = context.call_internal_no_propagate(builder, described, signature, [number, *arguments])
    with builder.if_then(status.is_error, likely=False):
        failed = cgutils.gep_inbounds(builder, there, 0, 0)
        builder.atomic_rmw("add", failed, ir.Constant(I64, 1), "seq_cst")
    builder.ret_void()


bound: Any = intrinsic(_bound)


@njit(nogil=True, cache=True)
def fork(gate, kernel):  # type: ignore[no-untyped-def]
    """Call a kernel, as :func:`bound` returns it, here as thread 0 and on those who come; return how many came.

    Returns once all of these calls have ended.
    """
    state = gate.ctypes.data
    gate[_FUNCTION], gate[_ARGUMENTS] = kernel
    gate[_DONE] = 0
    exchange_atomically(state, (gate[_STATE] // _ONE_MORE + 1) * _ONE_MORE)
    call_at(kernel[0], (kernel[1], 0))
    joined = add_atomically(state, _CLOSED) & (_CLOSED - 1)
    rounds = 0
    while add_atomically(state + _DONE * 8, 0) < joined:
        pause()
        rounds += 1
        if rounds % _GIVE_WAY_EVERY == 0:
            give_way()
    if carray(pointer(kernel[1]), 1, np.int64)[0] > 0:
        raise RuntimeError("A kernel failed on one of its threads.")
    return joined


@njit(nogil=True, cache=True)
def stand_by(count, least, gate, number, seen, rounds, grace):  # type: ignore[no-untyped-def]
    """Join in every kernel, as a thread of a number; return whether ``count[0]`` came to ``least`` within some rounds.

    They are those of :func:`daskconv.kernels.spin.spin`, and begin anew with each kernel. ``seen`` keeps the number
    of the last one.
    """
    waited = 0
    while waited < rounds:
        if count[0] >= least:
            return spin(count, least, 1, grace)
        state = gate[_STATE]
        if state & _CLOSED == 0 and state // _ONE_MORE != seen[0]:
            state = add_atomically(gate.ctypes.data, 1)
            if state & _CLOSED == 0:
                seen[0] = state // _ONE_MORE
                call_at(gate[_FUNCTION], (gate[_ARGUMENTS], number))
                add_atomically(gate.ctypes.data + _DONE * 8, 1)
                waited = 0
        pause()
        if waited % _GIVE_WAY_EVERY == 0:
            give_way()
        waited += 1
    return False
