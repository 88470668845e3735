"""Slots: what an optimiser and the running means keep beside the parameters, when training begins or changes."""

from __future__ import annotations

from dataclasses import replace

from daskconv.errors import InputError
from daskconv.plan.tasks import AVERAGE
from daskconv.train.model import Model
from daskconv.train.optim import Arrays, Optimizer


def first_slots(optimizer: Optimizer, average: float | None, trained: Arrays) -> Arrays:
    """Return the slots before the first step; running means begin where the parameters stand."""
    slots = optimizer.init(trained)
    if average is not None:
        slots |= {f"{AVERAGE}{name}": array.copy() for name, array in trained.items()}
    return slots


def averaged(model: Model, slots: Arrays) -> Model:
    """Return the model with the running means of its parameters; all its arrays are copies."""
    means = {name.removeprefix(AVERAGE): array for name, array in slots.items() if name.startswith(AVERAGE)}
    if not means:
        raise InputError("There are no running means of the parameters: give the Trainer average=0.999.")
    params = {name: means.get(name, array).copy() for name, array in model.params.items()}
    return replace(model, params=params, state={name: array.copy() for name, array in model.state.items()})


def slots_after_change(fresh: Arrays, before: Arrays, same_kind: bool) -> Arrays:
    """Return the slots with which training goes on: running means of before, and what an optimiser of one kind kept.

    An optimiser of another kind begins anew, since slots of one name mean something else to it.
    """
    return {
        name: before[name] if name in before and (same_kind or name.startswith(AVERAGE)) else array
        for name, array in fresh.items()
    }
