"""Price: what a step of a plan takes on a machine: seconds of its layers and exchanges, bytes, memory of a worker.

The model is the one of the transports: buckets of gradients travel while the backward pass goes on. Whatever else
travels is priced as if nobody computed meanwhile, slices of a hybrid plan too. On a Dask cluster messages take what its
connections take, and from one chain of steps to the next the driver fetches the state and the scheduler hands out a
task a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from daskconv.cost.cuts import Moved
from daskconv.cost.machine import Machine
from daskconv.cost.memory import step_bytes, weight_bytes
from daskconv.cost.speed import around_layers, assembling, seconds_of
from daskconv.cost.trace import LOSS, Case, Step, trace
from daskconv.errors import InputError, check_count
from daskconv.nn.blocks import images_at_once
from daskconv.plan.allreduce import Height, heights, is_whole
from daskconv.plan.buckets import sizes as bucket_sizes
from daskconv.plan.plans import Plan
from daskconv.plan.tasks import CHAIN

TRANSPORTS = ("mpi", "dask", "local")
# Loss, its weight, images, their weight, and hits: numbers of float64 that go to everybody in each step.
_SUMS = 6 * 8
# Times that a worker goes over its weights: a block's gradients are read and written into one vector; two vectors are
# read to write their sum; an update looks whether gradients are finite, reads parameter, gradient and momentum, and
# writes the first and the last.
_BLOCK_SWEEPS, _ADD_SWEEPS, _UPDATE_SWEEPS = 2, 3, 6
# The state that a driver fetches has parameters and momenta.
_STATE = 2


@dataclass(frozen=True)
class Bucket:
    """Gradients that workers add up together.

    Attributes
    ----------
    nbytes : float
        Of one worker.
    members : int
        Workers that have it.
    after : int
        The position of the layer whose backward pass completes it.
    together : int
        Members that add up among themselves first; 1 for one level.
    """

    nbytes: float
    members: int
    after: int
    together: int = 1

    @property
    def heights(self) -> tuple[Height, ...]:
        """What a member sends, round by round, on the way up and back."""
        together = self.together if self.members % self.together == 0 else 1
        return heights(self.members, together, is_whole(self.nbytes))

    @property
    def messages(self) -> float:
        """Messages that a member sends, the mean."""
        return sum(each.messages for each in self.heights)

    @property
    def sent(self) -> float:
        """Bytes that a member sends, the mean."""
        return self.nbytes * sum(each.share for each in self.heights)


@dataclass(frozen=True)
class Timed:
    """A layer of a step, with its seconds on the busiest worker, of measured layers or by the analytic guess.

    What it puts together of others' values, and of their gradients, is part of them.
    """

    step: Step
    forward: float
    backward: float
    measured: bool


@dataclass(frozen=True)
class Cost:
    """What a step of a plan costs on a machine.

    Attributes
    ----------
    case, plan, machine
    workers : int
    transport : str
    layers : tuple of Timed
        In the order of a step; the last has the exchange of the scores.
    buckets : tuple of Bucket
        In the order in which they are complete.
    images : tuple of (workers, images)
        How many workers have how many images.
    blocks : int
        That a worker takes through the layers in a step.
    """

    case: Case
    plan: Plan
    machine: Machine
    workers: int
    transport: str
    layers: tuple[Timed, ...]
    buckets: tuple[Bucket, ...]
    images: tuple[tuple[int, int], ...]
    blocks: int

    @cached_property
    def compute(self) -> float:
        """Seconds in which the busiest worker computes layers."""
        return sum(layer.forward + layer.backward for layer in self.layers)

    @property
    def calibrated(self) -> bool:
        """Whether all layers were measured on the machine."""
        return all(layer.measured for layer in self.layers)

    @property
    def basis(self) -> str:
        """What the seconds of layers stand on."""
        own = [layer for layer in self.layers if layer.step.work]
        measured = sum(layer.measured for layer in own)
        if measured == len(own):
            return "all layers measured"
        return f"{measured} of {len(own)} layers measured, the analytic guess for the others"

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes of the parameters and statistics that a worker holds."""
        return weight_bytes(self._steps, self.plan.shards // self.workers)

    @property
    def _steps(self) -> list[Step]:
        return [layer.step for layer in self.layers]

    @cached_property
    def update(self) -> float:
        """Seconds of adding gradients up on a worker, and of the optimiser's step."""
        held = self.weight_bytes
        made = self.blocks * weight_bytes(self._steps, 1)
        added = made - held + held * (self.sent > 0)
        swept = _BLOCK_SWEEPS * made + _ADD_SWEEPS * added + _UPDATE_SWEEPS * held
        return swept * min(self.workers, self.machine.workers_per_host) / self.machine.memory_bandwidth

    @property
    def driver(self) -> float:
        """Seconds, for each step, from a chain of steps to the next on a Dask cluster."""
        if self.transport != "dask":
            return 0.0
        machine, state = self.machine, _STATE * sum(n for layer in self.layers for _, n in layer.step.weights)
        return (machine.hop + self.workers * machine.task + state / machine.comm_bandwidth) / CHAIN

    @property
    def numbers(self) -> Bucket:
        """The loss and its like, which all add up after everything else."""
        together = next((bucket.together for bucket in self.buckets), 1)
        return Bucket(_SUMS, self.workers, 0, together)

    @cached_property
    def sent(self) -> float:
        """Bytes that all workers send each other in a step."""
        if self.workers == 1 or self.transport == "local":
            return 0.0
        moved = sum(each.total for layer in self.layers for each in _moves(layer.step))
        numbers = self.workers * self.numbers.sent
        added = sum(bucket.sent * self.workers for bucket in self.buckets if bucket.members > 1)
        return moved + added + numbers

    @cached_property
    def memory(self) -> float:
        """Bytes that a worker's memory grows by."""
        threads = self.machine.cores // self.machine.workers_per_host
        return step_bytes(
            self.case, self.plan, self._steps, self.workers, threads, local=self.transport == "local"
        )

    def moved_seconds(self, members: int, moved: Moved) -> float:
        """Return what the exchange of a value takes among so many members, slice after slice."""
        nbytes = moved.nbytes / moved.times
        return moved.times * exchange_seconds(self.machine, self.workers, members, nbytes, moved.messages)

    def bucket_seconds(self, bucket: Bucket) -> float:
        """Return what adding up a bucket takes, round by round; members of the later ones are on other hosts."""
        here = min(self.machine.workers_per_host, self.workers)
        # Holders of the same part of a weight are as far apart as there are parts.
        seconds, apart = 0.0, max(1, self.workers // bucket.members)
        rounds = bucket.heights
        for number, (parts, messages, share) in enumerate(rounds):
            back = number >= len(rounds) / 2 and not is_whole(bucket.nbytes)
            apart //= parts if back else 1
            near = max(1, min(parts, here // apart))
            args = parts, share * bucket.nbytes, messages, near
            seconds += exchange_seconds(self.machine, self.workers, *args)
            apart *= 1 if back else parts
        return seconds


def price(
    case: Case,
    plan: Plan,
    machine: Machine,
    workers: int | None = None,
    transport: str = "mpi",
    bucket: int | None = None,
    together: int = 1,
) -> Cost:
    """Return what a step of a plan costs on a machine.

    Parameters
    ----------
    case : Case
    plan : Plan
    machine : Machine
    workers : int, optional
        One for each shard when not given.
    transport : {"mpi", "dask", "local"}
    bucket : int, optional
        Bytes of a bucket of gradients; what the transport takes when not given.
    together : int
        Workers that add up their gradients among themselves first, as Dask's configuration
        ``daskconv.mpi.ranks-per-host`` says; those of a host when 1.

    Raises
    ------
    InputError
        For a plan that does not fit the network, the batch or the workers.

    Examples
    --------
    >>> from daskconv.cost.machine import load_machine
    >>> from daskconv.nn import zoo
    >>> from daskconv.plan import plans
    >>> case = Case(zoo.build("alexnet", 1000), (224, 224, 3), 256)
    >>> cost = price(case, plans.hybrid(64), load_machine("environment_a"))
    >>> cost.calibrated, cost.sent < price(case, plans.data(64), load_machine("environment_a")).sent / 5
    (False, True)
    """
    workers = plan.shards if workers is None else check_count(workers, "workers")
    if transport not in TRANSPORTS:
        raise InputError(f"transport is {transport!r}: choose one of {', '.join(TRANSPORTS)}.")
    check_count(case.batch, "batch")
    if plan.shards % workers:
        raise InputError(
            f"{plan.shards} shards on {workers} workers are no whole number each: give a divisor of the shards."
        )
    machine, steps = machine.over(transport), trace(case, plan)
    blocks = _blocks(case, plan, workers)
    layers = tuple(_timed(case, plan, machine, workers, step, blocks) for step in steps)
    cost = Cost(case, plan, machine, workers, transport, layers, (), _images(case.batch, workers), blocks)
    return with_buckets(cost, bucket or plan.bucket_bytes, together)


def with_buckets(cost: Cost, bucket: int | None, together: int = 1) -> Cost:
    """Return a cost with other buckets of gradients; the parameters are those of :func:`price`."""
    steps = cost._steps
    together = together if together > 1 else min(cost.machine.workers_per_host, cost.workers)
    if cost.plan.splits_images_only:
        found = _data_buckets(steps, cost.workers, together, bucket)
    else:
        found = _split_buckets(steps, cost.workers, bucket)
    return replace(cost, buckets=tuple(found))


def exchange_seconds(
    machine: Machine, workers: int, members: int, nbytes: float, messages: float, near: int | None = None
) -> float:
    """Return the alpha-beta time of an exchange, of so many bytes to each member; a host's workers share its link.

    ``near`` of the members are on one host: as many as it has where they are neighbours.
    """
    if not messages:
        return 0.0
    here = min(machine.workers_per_host, workers)
    near = min(here, members) if near is None else near
    own = machine.message * 2 * messages
    if members <= near:
        return own + machine.inside_latency + nbytes / machine.inside_bandwidth
    inside = (near - 1) / (members - 1)
    across = (1 - inside) * nbytes * here / machine.across_bandwidth
    return own + machine.across_latency + max(across, inside * nbytes / machine.inside_bandwidth)


def _moves(step: Step) -> Iterator[Moved]:
    yield from step.moves
    yield from step.back


def _images(batch: int, workers: int) -> tuple[tuple[int, int], ...]:
    short, longer = divmod(batch, workers)
    return tuple(
        (count, images) for count, images in ((longer, short + 1), (workers - longer, short)) if count
    )


def _blocks(case: Case, plan: Plan, workers: int) -> int:
    """Return the blocks that a worker takes through each layer in a step."""
    each = plan.shards // workers
    if not plan.splits_images_only:
        return each
    shard = -(-case.batch // plan.shards)
    return each * ceil(shard / max(1, images_at_once(case.network, case.input_shape, case.methods, shard)))


def _timed(case: Case, plan: Plan, machine: Machine, workers: int, step: Step, blocks: int) -> Timed:
    own, crowd = plan.shards // workers, min(workers, machine.workers_per_host)
    before, after = own * assembling(machine, step.moves), own * assembling(machine, step.back, back=True)
    if step.work is None:
        if step.node.name == LOSS:
            before += around_layers(machine, case, own * step.images, blocks, crowd)
        return Timed(step, before, after, True)
    args = own * step.images, blocks, step.share, step.parts, crowd
    forward, known = seconds_of(machine, step.work, "forward", *args)
    backward, _ = seconds_of(machine, step.work, "backward", *args)
    return Timed(step, before + forward, after + backward, known)


def _split_buckets(steps: Sequence[Step], workers: int, bucket: int | None) -> Iterator[Bucket]:
    """Return buckets of weights that are cut into as many parts."""
    smallest, _ = bucket_sizes(bucket)
    filled: dict[int, float] = {}
    for at, step in reversed(list(enumerate(steps))):
        for parts, nbytes in step.weights:
            filled[parts] = filled.get(parts, 0.0) + nbytes
            if filled[parts] >= smallest:
                yield Bucket(filled.pop(parts), max(1, workers // parts), at)
    for parts, nbytes in filled.items():
        yield Bucket(nbytes, max(1, workers // parts), 0)


def _data_buckets(steps: Sequence[Step], workers: int, together: int, bucket: int | None) -> Iterator[Bucket]:
    smallest, largest = bucket_sizes(bucket)
    filled = 0.0
    for at, step in reversed(list(enumerate(steps))):
        for _, nbytes in step.weights:
            filled += nbytes
        if filled and (filled >= smallest or not any(other.weights for other in steps[:at])):
            count = max(1, ceil(filled / largest))
            for _ in range(count):
                yield Bucket(filled / count, workers, at, together if workers % together == 0 else 1)
            filled = 0.0
