"""Simulate: a discrete-event run of a plan's steps on as many workers as there may be. Nothing here is measured.

Equal workers have one price; what differs is when each is ready. So a run keeps the clock of every worker as one
vector, and an event moves all of them: a layer adds its seconds and each worker's delay, and an exchange waits for
the latest of those that take part. Ten thousand workers cost ten thousand additions an event.

What makes a worker late comes at any time and does not last: the more often workers exchange, the more of it they wait
for. So their delays are a gamma process: the seconds that a worker takes for a layer are a gamma variate whose mean is
the layer's price, with a variance in proportion to that; over a step they add up to the machine's jitter.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.cost.cuts import Moved
from daskconv.cost.price import Cost, price
from daskconv.errors import InputError, check_count
from daskconv.plan.plans import PLANS

STEPS = 10
# Workers up to which a plan that fits is looked for.
_MOST = 10_000


class Event(NamedTuple):
    """What the latest worker, or the network, does: "compute", "exchange" or "gradients"."""

    kind: str
    name: str
    start: float
    stop: float


@dataclass(frozen=True)
class Simulated:
    """A simulated step; all times in seconds.

    Attributes
    ----------
    cost : Cost
    seconds : float
        Of a step, the mean.
    compute : float
        What the busiest worker computes, update and the step's own work included.
    exchange : float
        What exchanges add to that: what of them no computing hides.
    straggler : float
        What waiting for late workers adds.
    events : tuple of Event
        Of a step without jitter.
    """

    cost: Cost
    seconds: float
    compute: float
    exchange: float
    straggler: float
    events: tuple[Event, ...]

    @property
    def images_per_second(self) -> float:
        """Images of all workers."""
        return self.cost.case.batch / self.seconds


def simulate(cost: Cost, *, steps: int = STEPS, seed: int = 0) -> Simulated:
    """Run steps of what was priced.

    Parameters
    ----------
    cost : Cost
    steps : int
    seed : int
        Of the workers' jitter.

    Examples
    --------
    >>> from daskconv.cost.machine import load_machine
    >>> from daskconv.cost.price import price
    >>> from daskconv.cost.trace import Case
    >>> from daskconv.nn import zoo
    >>> from daskconv.plan import plans
    >>> case = Case(zoo.build("cifar10_quick", 10), (32, 32, 3), 6912)
    >>> run = simulate(price(case, plans.data(864), load_machine("environment_b")))
    >>> run.seconds > run.compute + run.exchange
    True
    """
    check_count(steps, "steps")
    alone = _Run(cost, exchanges=False).step()
    calm = _Run(cost)
    quiet = calm.step()
    generator = np.random.default_rng(seed)
    late = [_Run(cost, generator).step() for _ in range(steps)] if cost.machine.jitter else [quiet]
    mean = float(np.mean(late))
    return Simulated(cost, mean, alone, max(0.0, quiet - alone), max(0.0, mean - quiet), tuple(calm.events))


def calm_seconds(cost: Cost) -> float:
    """Return the seconds of a step in which no worker is late."""
    return _Run(cost).step()


def _ready(cost: Cost) -> NDArray[np.float64]:
    """Return each worker's part of the busiest one's time; only where images alone are split, some have fewer."""
    if not cost.plan.splits_images_only:
        return np.ones(cost.workers)
    most = cost.images[0][1]
    return np.concatenate([np.full(count, images / most) for count, images in cost.images])


class _Run:
    """One step of all workers; with a generator, some of them are late."""

    def __init__(
        self, cost: Cost, generator: np.random.Generator | None = None, *, exchanges: bool = True
    ) -> None:
        self.cost, self.generator = cost, generator
        self.exchanges = exchanges and cost.workers > 1 and cost.transport != "local"
        self.events: list[Event] = []
        self.factors = _ready(cost)
        if cost.plan.splits_images_only or generator is None:
            # Nobody waits before the end, or nobody is late: the slowest worker stands for all.
            self.factors = (self.factors * self._drawn(cost.compute)).max(keepdims=True)
            self.generator = None
        self.clocks = np.zeros(len(self.factors))
        self.network = 0.0

    def _drawn(self, seconds: float) -> NDArray[np.float64]:
        """Return how many times as long each worker takes for what takes so many seconds."""
        if self.generator is None or not seconds:
            return np.ones(1)
        variance = self.cost.machine.jitter**2 * self.cost.compute / seconds
        return self.generator.gamma(1 / variance, variance, self.cost.workers)

    def step(self) -> float:
        """Return the seconds until the last worker has its new weights."""
        layers = self.cost.layers
        for layer in layers:
            self._move(layer.step.moves)
            self._compute(layer.step.node.name, layer.forward)
        buckets = list(self.cost.buckets) if self.exchanges else []
        for at, layer in reversed(list(enumerate(layers))):
            self._compute(layer.step.node.name, layer.backward)
            self._move(layer.step.back)
            while buckets and buckets[0].after >= at:
                self._add(buckets.pop(0))
        for bucket in buckets:
            self._add(bucket)
        if self.exchanges:
            self._finish()
        end = max(float(self.clocks.max()), self.network)
        return end + self.cost.update + self.cost.machine.step + self.cost.driver

    def _compute(self, name: str, seconds: float) -> None:
        if seconds:
            start = float(self.clocks.max())
            self.clocks += seconds * self.factors * self._drawn(seconds)
            self._note("compute", name, start, float(self.clocks.max()))

    def _move(self, moves: Sequence[Moved]) -> None:
        """Let neighbours exchange a value: each waits for the latest of those that it hears of."""
        if not self.exchanges:
            return
        for moved in moves:
            members = min(moved.messages + 1, self.cost.workers)
            seconds = self.cost.moved_seconds(members, moved)
            start = float(self.clocks.max())
            self.clocks = latest(self.clocks, members) + seconds
            self._note("exchange", f"{moved.kind} {moved.name}", start, start + seconds)

    def _add(self, bucket: object) -> None:
        """Let gradients be added up, one bucket after the other, beside whatever is computed."""
        start = max(self.network, float(self.clocks.max()))
        self.network = start + self.cost.bucket_seconds(bucket)  # type: ignore[arg-type]
        self._note("gradients", "", start, self.network)

    def _finish(self) -> None:
        """Let all hear of the loss."""
        cost = self.cost
        start = max(float(self.clocks.max()), self.network)
        seconds = cost.bucket_seconds(cost.numbers)
        self.network = start + seconds
        self._note("exchange", "loss", start, self.network)

    def _note(self, kind: str, name: str, start: float, stop: float) -> None:
        if stop > start:
            self.events.append(Event(kind, name, start, stop))


def latest(clocks: NDArray[np.float64], members: int) -> NDArray[np.float64]:
    """Return, for each worker, the latest clock of its group of neighbours.

    Examples
    --------
    >>> latest(np.array([1.0, 3.0, 2.0, 0.0]), 2)
    array([3., 3., 2., 2.])
    """
    if members >= len(clocks):
        return np.full_like(clocks, clocks.max())
    starts = np.arange(0, len(clocks), members)
    tops = np.maximum.reduceat(clocks, starts)
    return np.repeat(tops, members)[: len(clocks)]


def check_fits(run: Simulated) -> None:
    """Raise InputError where a worker lacks the memory for its part of the step, with how many workers would do."""
    cost = run.cost
    machine = cost.machine
    room = machine.memory / machine.workers_per_host
    if cost.memory <= room:
        return
    more = smallest_that_fits(cost, room)
    told = f"{more} workers would do" if more else "no number of workers makes it fit: split weights or rows"
    raise InputError(
        f"A step of the plan {cost.plan.name} on {cost.workers} workers takes {cost.memory / 1e9:.1f} GB of each, "
        f"and one of {machine.name} has {room / 1e9:.1f} GB: {told}."
    )


def smallest_that_fits(cost: Cost, room: float) -> int | None:
    """Return how many workers a plan of the same kind would need, None where no number up to 10,000 does."""
    makes = [PLANS[cost.plan.name]] if cost.plan.name in PLANS else list(PLANS.values())
    workers = cost.workers * 2
    while workers <= _MOST:
        for make in makes:
            with suppress(InputError):
                if price(cost.case, make(workers), cost.machine, transport=cost.transport).memory <= room:
                    return workers
        workers *= 2
    return None
