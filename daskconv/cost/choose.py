"""Choose: the plan whose simulated step is shortest, of data, model, hybrid, spatial ones and the search's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby

from daskconv.cost.machine import Machine
from daskconv.cost.price import price, with_buckets
from daskconv.cost.search import by_layer
from daskconv.cost.simulate import Simulated, calm_seconds, simulate
from daskconv.cost.trace import Case
from daskconv.errors import InputError
from daskconv.nn.layers import Conv2D, Dense
from daskconv.nn.network import aligned
from daskconv.plan import plans
from daskconv.plan.plans import Plan

# Bytes of a bucket that are tried.
_BUCKETS = (4_000_000, 16_000_000, 64_000_000)


@dataclass(frozen=True)
class Candidate:
    """A plan that was tried, and its simulated step; or why it cannot be."""

    plan: Plan
    run: Simulated | None
    bucket: int | None
    why: str = ""

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.run.seconds if self.run else float("inf")

    @property
    def fits(self) -> bool:
        """Whether a worker has the memory."""
        if self.run is None:
            return False
        machine = self.run.cost.machine
        return self.run.cost.memory <= machine.memory / machine.workers_per_host


@dataclass(frozen=True)
class Choice:
    """The chosen plan among those that were tried; it prints as a table.

    Attributes
    ----------
    case : Case
    machine : Machine
    workers : int
    candidates : tuple of Candidate
        The fastest first.
    """

    case: Case
    machine: Machine
    workers: int
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The fastest of those that fit; the one that needs least memory where none does."""
        return self.candidates[0]

    @property
    def plan(self) -> Plan:
        """The plan to train with."""
        return replace(self.best.plan, name="auto", bucket_bytes=self.best.bucket)

    def __str__(self) -> str:
        return "\n\n".join([self._table(), self._layers(), *self._notes()])

    def _table(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("plan", "shards", "ms", "compute", "exchange", "straggler", "sent MB", "memory MB", "why")
        ]
        for each in self.candidates:
            rows.append((each.plan.name, str(each.plan.shards), *_figures(each.run), self._why(each)))
        network, shape = self.case.network.name, tuple(self.case.input_shape)
        title = f"Simulated: {network} on {self.workers} workers of {self.machine.name}"
        title += f", batch {self.case.batch} of {shape}"
        return aligned(title, rows, right=(1, 2, 3, 4, 5, 6, 7))

    def _why(self, each: Candidate) -> str:
        if each.run is None:
            return each.why
        if not each.fits:
            return "needs more memory than a worker has"
        if each is self.best:
            return "chosen: the shortest step"
        parts = {
            "compute": each.run.compute - self.best.run.compute,  # type: ignore[union-attr]
            "exchange": each.run.exchange - self.best.run.exchange,  # type: ignore[union-attr]
            "straggler": each.run.straggler - self.best.run.straggler,  # type: ignore[union-attr]
        }
        most = max(parts, key=lambda name: parts[name])
        return f"{each.seconds / self.best.seconds:.2f}x as long: {most} {1e3 * parts[most]:+.1f} ms"

    def _layers(self) -> str:
        """Return the layout of each layer with weights; neighbours with the same one share a row."""
        assert self.best.run is not None
        rows: list[tuple[str, ...]] = [("layers", "layout", "ms", "weights MB")]
        own = [
            layer
            for layer in self.best.run.cost.layers
            if layer.step.work and isinstance(layer.step.node.layer, Conv2D | Dense)
        ]
        for layout, some in groupby(own, key=lambda layer: str(layer.step.layout)):
            group = list(some)
            names = dict.fromkeys((group[0].step.node.name, group[-1].step.node.name))
            seconds = sum(layer.forward + layer.backward for layer in group)
            weights = sum(nbytes for layer in group for _, nbytes in layer.step.weights)
            rows.append((" .. ".join(names), layout, f"{1e3 * seconds:.2f}", f"{weights / 1e6:.3f}"))
        return aligned("Layout of the chosen plan, on the busiest worker", rows, right=(2, 3))

    def _notes(self) -> Iterator[str]:
        best = self.best
        assert best.run is not None
        yield f"Seconds of layers: {best.run.cost.basis}."
        if best.bucket:
            yield f"Buckets of {best.bucket / 1e6:.0f} MB."


def _figures(run: Simulated | None) -> tuple[str, ...]:
    if run is None:
        return ("",) * 6
    times = (run.seconds, run.compute, run.exchange, run.straggler)
    sizes = (run.cost.sent, run.cost.memory)
    return (*(f"{1e3 * t:.2f}" for t in times), *(f"{size / 1e6:,.1f}" for size in sizes))


def choose_plan(
    case: Case, machine: Machine, workers: int, transport: str = "mpi", shards: int | None = None
) -> Choice:
    """Return the plan whose simulated step is shortest, and what it was compared with.

    Parameters
    ----------
    case : Case
    machine : Machine
    workers : int
    transport : {"mpi", "dask"}
    shards : int, optional
        Logical shards; when not given one for each worker, or fewer where that is faster.

    Raises
    ------
    InputError
        Where no plan fits the batch.

    Examples
    --------
    >>> from daskconv.cost.machine import load_machine
    >>> from daskconv.nn import zoo
    >>> case = Case(zoo.build("alexnet", 1000), (224, 224, 3), 256)
    >>> choose_plan(case, load_machine("environment_a"), 64).plan.name
    'auto'
    """
    found: list[Candidate] = []
    for count in [shards] if shards else shard_counts(workers):
        used = workers if count >= workers else count
        if count % used:
            continue
        for plan in fixed_plans(case, count):
            found.append(tried(case, plan, machine, used, transport))
        with suppress(InputError):
            found.append(tried(case, by_layer(case, machine, count, transport), machine, used, transport))
    found.sort(key=lambda each: (not each.fits, each.seconds if each.fits else _memory(each)))
    if not found or found[0].run is None:
        raise InputError(
            f"No plan takes a batch of {case.batch} images of {tuple(case.input_shape)} on {workers} workers: "
            f"{found[0].why if found else 'use a number of shards that they share'}"
        )
    return Choice(case, machine, workers, tuple(found))


def _memory(each: Candidate) -> float:
    return each.run.cost.memory if each.run else float("inf")


def shard_counts(workers: int) -> list[int]:
    """Return the numbers of shards that are tried: all workers, and where there are many also a half and a quarter.

    Examples
    --------
    >>> shard_counts(2), shard_counts(864)
    ([2], [864, 432, 216])
    """
    return [
        workers // part for part in (1, 2, 4) if part == 1 or (workers % part == 0 and workers >= 16 * part)
    ]


def fixed_plans(case: Case, shards: int) -> list[Plan]:
    """Return data, model, hybrid, and spatial plans of so many shards."""
    found = [plans.data(shards), plans.model(shards), plans.hybrid(shards)]
    rows = max(1, shards // case.batch)
    parts = shards if rows == 1 else rows
    if shards % parts == 0:
        found.append(plans.spatial(parts, n=shards // parts))
    return found if shards > 1 else found[:1]


def tried(case: Case, plan: Plan, machine: Machine, workers: int, transport: str) -> Candidate:
    """Return a plan with the bucket that suits it best; without a step where it cannot be."""
    try:
        cost = price(case, plan, machine, workers, transport)
    except InputError as error:
        return Candidate(plan, None, None, str(error))
    if not plan.splits_images_only and max(layer.step.layout.n for layer in cost.layers) > case.batch:
        return Candidate(
            plan, None, None, f"splits n into more parts than a batch of {case.batch} has images"
        )
    if not plan.splits_images_only or transport == "local" or workers == 1:
        return Candidate(plan, simulate(cost), None)
    costs = {bucket: with_buckets(cost, bucket) for bucket in _BUCKETS}
    bucket = min(costs, key=lambda bucket: calm_seconds(costs[bucket]))
    return Candidate(plan, simulate(costs[bucket]), bucket)
