"""The plan of ``plan="auto"``: chosen by the cost model when images, batch and workers are known, and then kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daskconv.cost.choose import choose_plan
from daskconv.cost.here import this_machine
from daskconv.cost.trace import Case
from daskconv.plan.plans import AUTO, DEFAULT_SHARDS, Plan, data
from daskconv.run.present import scheduler_info
from daskconv.run.select import select

if TYPE_CHECKING:
    from daskconv.train.trainer import Trainer


def planned(trainer: Trainer, input_shape: tuple[int, int, int], batch_size: int) -> Plan:
    """Return a trainer's plan; one that is to be chosen is chosen now, or was when its training began."""
    asked = trainer.plan
    if asked.name != AUTO or asked.layers or asked.model:
        return asked
    began = trainer._options.get("plan")
    trainer.plan = began or _chosen(trainer, asked.shards, input_shape, batch_size)
    return trainer.plan


def _chosen(trainer: Trainer, shards: int, input_shape: tuple[int, int, int], batch_size: int) -> Plan:
    name, client = select(trainer.transport, trainer.client)
    workers = 1 if client is None else count_workers(client)
    if workers == 1:
        return data(shards if shards > 1 else DEFAULT_SHARDS)
    case = Case(trainer.network, input_shape, batch_size)
    choice = choose_plan(case, this_machine(workers), workers, name, shards if shards > 1 else None)
    run = choice.best.run
    assert run is not None
    print(
        f"daskconv: plan auto: {choice.best.plan.name}, {choice.plan.shards} shards, {1e3 * run.seconds:.1f} ms a step "
        f"simulated ({run.cost.basis})",
        flush=True,
    )
    return choice.plan


def count_workers(client: Any) -> int:
    """Return how many workers a client has."""
    return len(scheduler_info(client)["workers"])
