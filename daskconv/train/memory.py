"""Memory of a training step: refused where it cannot fit, before anything runs."""

from __future__ import annotations

from daskconv.cost.memory import step_bytes
from daskconv.cost.trace import Case, trace
from daskconv.errors import InputError
from daskconv.plan.program import Program
from daskconv.plan.tasks import TrainState
from daskconv.scene.memory import in_words, memory_limit


def check_memory(program: Program, state: TrainState, lazy: bool, threads: int | None) -> int:
    """Return the bytes that a step leaves of the memory of a worker, or of this process.

    Parameters
    ----------
    program : Program
    state : TrainState
        The parameters, and what the optimiser keeps beside them.
    lazy : bool
        Whether workers will do the work; else it is this process.
    threads : int, optional
        Of each.

    Raises
    ------
    InputError
        Where a step cannot fit.
    """
    limit = memory_limit(lazy)
    workers = min(program.shards, limit.at_once // limit.tasks) if lazy else 1
    needed = predicted(program, state, workers, threads or limit.tasks * limit.threads, local=not lazy)
    if needed > limit.total:
        images = -(-program.batch_size // (program.shards * program.batches))
        where = "a worker" if lazy else "this process"
        raise InputError(
            f"A step of {program.network.name} with batch_size {program.batch_size} ({images} images a shard) takes "
            f"about {in_words(needed)} and {where} has {in_words(limit.total)}: give a smaller batch_size, more "
            "shards, fewer threads, or split images or layers with plans.spatial, plans.hybrid."
        )
    return int(limit.total - needed)


def predicted(program: Program, state: TrainState, workers: int, threads: int, *, local: bool) -> float:
    """Return about how many bytes a worker grows by in a step of a Program.

    Examples
    --------
    >>> import daskconv
    >>> net = daskconv.Sequential([daskconv.Conv2D(8, 3, padding=1), daskconv.Flatten(), daskconv.Dense(2)])
    >>> program = daskconv.Trainer(net).program((100, 100, 1), batch_size=40)
    >>> state = daskconv.plan.tasks.TrainState(net.init(0, (100, 100, 1)), {})
    >>> predicted(program, state, 1, 1, local=True) > 2 * sum(array.nbytes for array in state.params.values())
    True
    """
    batch = program.batch_size // program.batches
    case = Case(program.network, program.input_shape, batch, program.methods)
    weights = sum(array.nbytes for array in state.params.values())
    slots = sum(array.nbytes for array in state.slots.values()) / max(weights, 1)
    steps = trace(case, program.plan)
    return step_bytes(case, program.plan, steps, workers, threads, slots=slots, local=local)
