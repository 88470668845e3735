"""Speed: the seconds of a layer's pass on a worker, measured or by the analytic guess."""

from __future__ import annotations

from collections.abc import Sequence

from daskconv.cost.cuts import Moved
from daskconv.cost.machine import Kernel, Machine
from daskconv.cost.trace import Case
from daskconv.cost.work import Work, around, method_of

# Times that a worker goes over what an exchange gives it: read and write to gather parts; read, read and write to add.
_GATHER, _ADD = 2, 3


def seconds_of(
    machine: Machine,
    work: Work,
    pass_: str,
    images: int,
    blocks: int = 1,
    share: float = 1.0,
    parts: int = 1,
    crowd: int = 1,
) -> tuple[float, bool]:
    """Return the seconds of a pass, and whether the layer was measured.

    A layer that was measured takes ``blocks`` times what a block takes, whatever its images, and each image's share;
    in parts it takes the longer, the more of its time is serial (the law of Amdahl 1967). Of one that was not, the
    guess is the longer of its operations at the method's share of the peak, and its bytes at the memory's bandwidth
    (the roofline model of Williams et al. 2009).

    Parameters
    ----------
    machine, work
    pass_ : {"forward", "backward"}
    images, blocks : int
        Of a worker.
    share : float
        The part of an image's work that the worker has.
    parts : int
        In how many parts the weights, and with them the channels, are cut.
    crowd : int
        Workers of its host that compute.
    """
    threads = machine.cores // machine.workers_per_host
    kernel = machine.kernel(work.label, pass_)
    if kernel:
        shrunk = kernel.serial + (1 - kernel.serial) / parts
        seconds = shrunk * kernel.total(images * share * parts, blocks) / threads
    else:
        seconds = _guess(machine, work, pass_, images * share, blocks / parts)
    return seconds * crowding(machine, crowd, kernel), kernel is not None


def around_layers(machine: Machine, case: Case, images: int, blocks: int, crowd: int) -> float:
    """Return the seconds of a worker's blocks besides their layers; 0 where none was measured.

    Parameters are those of :func:`seconds_of`.
    """
    output = case.shapes[case.network.nodes[-1].name]
    kernel = machine.kernel(around(case.input_shape, output), "forward")
    if kernel is None:
        return 0.0
    threads = machine.cores // machine.workers_per_host
    return kernel.total(images, blocks) / threads * crowding(machine, crowd, kernel)


def assembling(machine: Machine, moves: Sequence[Moved], back: bool = False) -> float:
    """Return the seconds in which a thread puts together what a shard's segment gets of other shards.

    Each segment has its fixed seconds besides, in each slice. Gradients go ``back`` the way of the values: parts of
    what was gathered are added up, and of a sum there are copies.
    """
    if not moves:
        return 0.0
    swept = sum(moved.made * (_ADD if moved.sums != back else _GATHER) for moved in moves)
    fixed = machine.segment * max(moved.times for moved in moves)
    return fixed + swept * machine.cores / machine.memory_bandwidth


def crowding(machine: Machine, workers: int, kernel: Kernel | None = None) -> float:
    """Return how many times as long a worker computes, or takes for a kernel, while so many of its host compute."""
    if machine.workers_per_host == 1:
        return 1.0
    most = machine.crowding if kernel is None or kernel.crowding is None else kernel.crowding
    return 1 + (most - 1) * (workers - 1) / (machine.workers_per_host - 1)


def _guess(machine: Machine, work: Work, pass_: str, images: float, readings: float) -> float:
    bandwidth = machine.memory_bandwidth / machine.workers_per_host
    peak = machine.peak / machine.workers_per_host
    moved = work.value_bytes * work.sweeps(pass_) * images / bandwidth
    if not work.flops:
        return moved
    seconds = 0.0
    for part in _products(work, pass_):
        arithmetic = work.flops * images / (peak * machine.share(method_of(work, part), part))
        weights = work.weight_bytes * readings / bandwidth
        seconds += max(arithmetic, weights + work.value_bytes * images / bandwidth)
    return seconds


def _products(work: Work, pass_: str) -> tuple[str, ...]:
    """Return the products that a pass consists of."""
    if pass_ == "forward":
        return ("forward",)
    return ("weight_grad",) * work.learns + ("input_grad",) * work.sends_back
