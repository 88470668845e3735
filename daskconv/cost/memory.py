"""Memory: the bytes by which a worker grows in a step of a plan, told from shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from daskconv.cost.trace import Case, Step
from daskconv.cost.work import ITEM
from daskconv.nn.blocks import images_at_once
from daskconv.nn.network import INPUT
from daskconv.plan.plans import Plan

# Tiles of Winograd's F(4x4, 3x3) have 36 weights for 9.
_PACKED = {"winograd": 4}
# What a thread's kernels work in, of a size that suits its caches.
_SCRATCH = 4e6


def step_bytes(
    case: Case,
    plan: Plan,
    steps: Sequence[Step],
    workers: int = 1,
    threads: int = 1,
    *,
    slots: float = 1.0,
    local: bool = False,
) -> float:
    """Return about how many bytes a worker grows by in a step.

    Weights, what the optimiser keeps beside them, and gradients; images under way, what layers keep of them for the way
    back, and the gradients there; the weights of a layer as its method packs them.

    Parameters
    ----------
    case, plan
    steps : sequence of Step
        The plan's, of :func:`daskconv.cost.trace.trace`.
    workers, threads : int
        Threads are those of each worker.
    slots : float
        What the optimiser keeps, in sizes of the weights: 1 for a momentum.
    local : bool
        Whether the only worker is the process that holds the model, too.

    Examples
    --------
    >>> from daskconv.cost.trace import trace
    >>> from daskconv.nn import zoo
    >>> from daskconv.plan import plans
    >>> case = Case(zoo.build("alexnet", 1000), (224, 224, 3), 64)
    >>> whole, parts = (step_bytes(case, p, trace(case, p), 4) for p in (plans.data(4), plans.hybrid(4)))
    >>> parts < whole
    True
    """
    own = ceil(plan.shards / workers)
    state, shard = 1 + slots, ceil(case.batch / plan.shards)
    values = shard * prod(case.input_shape) * ITEM + _under_way(case, steps)
    block = images_at_once(case.network, case.input_shape, case.methods, shard)
    if plan.splits_images_only:
        blocks = own * ceil(shard / block)
        side = min(threads, blocks)
        values *= side * block / max(shard, 1)
        copies = state + 1 + _waiting(own, blocks, side) + (workers > 1)
        if blocks > 1:  # a block's gradients are made one after the other, beside the sum
            values += max((nbytes for step in steps for _, nbytes in step.weights), default=0.0)
    else:
        side = min(threads, own)
        values *= own
        copies = state + (max(2.0, state) + state if local else 2.0)
    held = weight_bytes(steps, own)
    return copies * held + values + side * (_SCRATCH + max(map(_packed, steps), default=0.0))


def _under_way(case: Case, steps: Sequence[Step]) -> float:
    """Return the most bytes of values and gradients that are there at once.

    On the way back a layer has all values up to its own, the gradient of that, and those of what it reads, or before
    them that of what its ReLU reads; and other branches' gradients wait.
    """
    held = {step.node.name: step.held for step in steps}
    inputs = {node.name: node.inputs for node in case.network.nodes}
    values, most = sum(held.values()), 0.0
    waiting: dict[str, float] = {}
    for work in reversed(case.works.values()):
        own = held.get(work.nodes[-1], 0.0)
        waiting.pop(work.nodes[-1], None)
        reads = [name for node in work.nodes for name in inputs[node] if name not in (INPUT, *work.nodes)]
        made = sum(held.get(name, 0.0) for name in reads)
        most = max(most, values + sum(waiting.values()) + own + max(own, made))
        waiting |= {name: held.get(name, 0.0) for name in reads}
        values -= own
    return most


def _waiting(shards: int, blocks: int, side: int) -> float:
    """Return how many copies of the gradients wait to be added to the sum, where ``side`` blocks run at a time.

    Sums of subtrees wait for their other halves, and so does that of a shard's blocks so far; of two blocks that run
    at a time, what the slower one has not reached yet.
    """
    each = blocks // shards
    at_once = max(1, side // each)
    subtrees = max(0, (ceil(shards / at_once) - 1).bit_length() - 1)
    return subtrees + (each > 1 and shards > 1) + (side / 2 if side > 1 else 0)


def weight_bytes(steps: Sequence[Step], own: int) -> float:
    """Return the bytes of the parameters and statistics of so many shards."""
    rows = (weight for step in steps for weight in step.weights)
    return sum(nbytes * (min(own, parts) if parts > 1 else 1) for parts, nbytes in rows)


def _packed(step: Step) -> float:
    methods = step.work.methods.values() if step.work else ()
    return max((_PACKED.get(method, 1) for method in methods), default=0) * sum(n for _, n in step.weights)
