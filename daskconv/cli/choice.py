"""What ``daskconv plan --plan auto`` prints: the plan that the cost model chooses, and why."""

from __future__ import annotations

from typing import Any


def chosen(
    network: Any, shape: tuple[int, int, int], batch: int, nodes: int, machine: str, shards: int | None
) -> str:
    """Return the tables of the chosen plan; raise InputError where no node has the memory for it."""
    from daskconv.cost.choose import choose_plan
    from daskconv.cost.machine import load_machine
    from daskconv.cost.simulate import check_fits
    from daskconv.cost.trace import Case
    from daskconv.errors import check_count

    case = Case(network, shape, check_count(batch, "batch"))
    choice = choose_plan(case, load_machine(machine), check_count(nodes, "nodes"), shards=shards)
    assert choice.best.run is not None
    check_fits(choice.best.run)
    return str(choice)
