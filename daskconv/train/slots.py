"""Slots: what an optimiser and the running means keep beside the parameters, when training begins or changes."""

from __future__ import annotations

from daskconv.plan.tasks import AVERAGE
from daskconv.train.optim import Arrays, Optimizer


def first_slots(optimizer: Optimizer, average: float | None, trained: Arrays) -> Arrays:
    """Return the slots before the first step; running means begin where the parameters stand."""
    slots = optimizer.init(trained)
    if average is not None:
        slots |= {f"{AVERAGE}{name}": array.copy() for name, array in trained.items()}
    return slots


def slots_after_change(fresh: Arrays, before: Arrays, same_kind: bool) -> Arrays:
    """Return the slots with which training goes on: running means of before, and what an optimiser of one kind kept.

    An optimiser of another kind begins anew, since slots of one name mean something else to it.
    """
    return {
        name: before[name] if name in before and (same_kind or name.startswith(AVERAGE)) else array
        for name, array in fresh.items()
    }
