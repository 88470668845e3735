"""Scaling: simulated steps of a plan on more and more workers, beside one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from daskconv.cost.choose import Candidate, choose_plan, tried
from daskconv.cost.machine import Machine
from daskconv.cost.trace import Case
from daskconv.errors import InputError, check_count
from daskconv.nn.layers.base import Shape
from daskconv.nn.network import Network
from daskconv.plan import plans
from daskconv.plan.plans import AUTO, Plan

Make = Callable[[int], Plan]

NAMED: Mapping[str, Make] = {
    **plans.PLANS,
    "spatial": lambda shards: plans.spatial(h=shards),
}


def counts_to(workers: int) -> list[int]:
    """Return the powers of two up to a number of workers, and that number.

    Examples
    --------
    >>> counts_to(6)
    [1, 2, 4, 6]
    """
    found = [2**i for i in range(workers.bit_length()) if 2**i < workers]
    return [*found, check_count(workers, "nodes")]


def scaled(
    network: Network,
    input_shape: Shape,
    batch: int,
    machine: Machine,
    counts: Iterable[int],
    names: Iterable[str],
    *,
    weak: bool = False,
    transport: str = "mpi",
) -> list[dict[str, Any]]:
    """Return a row for each plan and number of workers.

    Parameters
    ----------
    network, input_shape
    batch : int
        Images of a step, or with ``weak`` of each worker.
    machine : Machine
    counts : iterable of int
        Workers.
    names : iterable of str
        Plans: "data", "model", "hybrid", "spatial", "auto".
    weak : bool
        Whether each worker has as many images however many there are.
    transport : {"mpi", "dask"}

    Examples
    --------
    >>> from daskconv.cost.machine import load_machine
    >>> from daskconv.nn import zoo
    >>> rows = scaled(zoo.build("lenet", 10), (28, 28, 1), 64, load_machine("environment_a"), [1, 2], ["data"])
    >>> [row["nodes"] for row in rows], rows[0]["efficiency_%"]
    ([1, 2], 100.0)
    """
    rows = []
    whole = Case(network, input_shape, batch)
    alone = tried(whole, plans.data(1), machine, 1, transport)
    for name in names:
        for count in counts:
            case = Case(network, input_shape, batch * count) if weak else whole
            rows.append(_row(name, case, machine, count, transport, alone.seconds / batch, weak))
    return [row for row in rows if row]


def _row(
    name: str, case: Case, machine: Machine, count: int, transport: str, image: float, weak: bool
) -> dict[str, Any]:
    best = _best(name, case, machine, count, transport)
    if best is None or best.run is None:
        return {}
    run, cost = best.run, best.run.cost
    speedup = image * case.batch / run.seconds
    return {
        "scaling": "weak" if weak else "strong",
        "plan": name,
        "nodes": count,
        "batch": case.batch,
        "ms_a_step": 1e3 * run.seconds,
        "images/s": run.images_per_second,
        "speedup": speedup,
        "efficiency_%": 100 * speedup / count,
        "compute_ms": 1e3 * run.compute,
        "exchange_ms": 1e3 * run.exchange,
        "straggler_ms": 1e3 * run.straggler,
        "sent_MB": cost.sent / 1e6,
        "memory_MB": cost.memory / 1e6,
        "fits": "yes" if best.fits else "no",
        "what": f"{best.plan.name}, {cost.plan.shards} shards",
    }


def _best(name: str, case: Case, machine: Machine, count: int, transport: str) -> Candidate | None:
    if name == AUTO:
        return choose_plan(case, machine, count, transport).best
    if name not in NAMED:
        raise InputError(f"plan is {name!r}: choose from auto, {', '.join(NAMED)}.")
    found = tried(case, NAMED[name](count), machine, count, transport)
    return found if found.run else None
