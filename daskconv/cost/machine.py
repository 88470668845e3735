"""Machine: the figures of a machine that a price is made from. Plain data, with the source of each figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from daskconv.errors import DataError, InputError
from daskconv.graph.tuning_file import cache_folder

FORMAT = 1
SHIPPED = Path(__file__).parent / "machines"

# Figures that count something, or that may be nothing at all; all others have to be above 0.
_COUNTS = ("hosts", "cores", "workers_per_host")
_MAYBE_ZERO = (
    *("jitter", "step", "segment", "task", "hop", "message", "inside_latency", "across_latency"),
    *("comm_latency", "comm_message"),
)


@dataclass(frozen=True)
class Kernel:
    """What a pass of a layer takes one thread: ``seconds`` a block of images, and ``each`` more for every image.

    ``serial`` is the part of both that does not shrink with the layer's channels; ``crowding`` how many times as long
    both are while all workers of the host do the same, the machine's where it is None.

    Attributes
    ----------
    layer : str
        As :func:`daskconv.cost.work.label` calls a layer on images of a shape.
    pass_ : {"forward", "backward"}
    seconds, each, serial : float
    crowding : float, optional
    """

    layer: str
    pass_: str
    seconds: float
    each: float
    serial: float = 0.0
    crowding: float | None = None

    def total(self, images: float, blocks: float = 1) -> float:
        """Return the seconds of so many images in so many blocks."""
        return self.seconds * blocks + self.each * images


@dataclass(frozen=True)
class Machine:
    """The figures of a machine. A host has ``workers_per_host`` workers that share its cores and its memory.

    Attributes
    ----------
    name : str
    hosts : int
        That there are; a simulation may ask for more.
    cores, workers_per_host : int
        Of a host.
    peak : float
        Operations a second of a host's cores together, float32.
    memory, memory_bandwidth : float
        Of a host, bytes and bytes a second.
    inside_latency, inside_bandwidth : float
        Of a message between two workers of a host: seconds, and bytes a second of a worker (alpha and 1 / beta).
    across_latency, across_bandwidth : float
        Between hosts: seconds, and bytes a second of a host.
    message : float
        Seconds that a worker spends on each message that it sends or receives.
    step : float
        Seconds of a step besides its layers, exchanges and update.
    segment : float
        Seconds of a shard, each way, besides, for each run of layers that an exchange comes before.
    comm_latency, comm_bandwidth, comm_message : float
        Of messages over the connections of Dask's workers, as above.
    task, hop : float
        Seconds of Dask's scheduler for each task, and of the driver from a chain of steps to the next.
    disk : float
        Bytes a second that a host reads.
    jitter : float
        Standard deviation over mean of the time in which a worker computes the same again.
    crowding : float
        How many times as long a worker computes while all workers of its host do.
    shares : mapping of str to float
        Share of the peak that each method, or "dense", reaches in each pass: "implicit forward".
    kernels : tuple of Kernel
        What was measured.
    sources : mapping of str to str
        Where each figure comes from.
    """

    name: str
    hosts: int
    cores: int
    workers_per_host: int
    peak: float
    memory: float
    memory_bandwidth: float
    inside_latency: float
    inside_bandwidth: float
    across_latency: float
    across_bandwidth: float
    message: float
    step: float
    segment: float
    comm_latency: float
    comm_bandwidth: float
    comm_message: float
    task: float
    hop: float
    disk: float
    jitter: float
    crowding: float
    shares: Mapping[str, float] = field(default_factory=dict)
    kernels: tuple[Kernel, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse figures that no machine has."""
        for name in figure_names():
            _check(self.name, name, getattr(self, name))
        for name, share in self.shares.items():
            _check(self.name, f"the share {name!r}", share)

    def share(self, method: str, pass_: str) -> float:
        """Return the share of the peak that a method reaches in a pass; that of "other" where it is not known."""
        return self.shares.get(f"{method} {pass_}", self.shares.get("other", 0.5))

    def kernel(self, layer: str, pass_: str) -> Kernel | None:
        """Return what was measured of a layer's pass, None where nothing was."""
        return self._by_layer.get((layer, pass_))

    def over(self, transport: str) -> Machine:
        """Return the machine as a transport's messages find it."""
        if transport != "dask":
            return self
        return replace(
            self,
            message=self.comm_message,
            inside_latency=self.comm_latency,
            inside_bandwidth=self.comm_bandwidth,
            across_latency=max(self.across_latency, self.comm_latency),
            across_bandwidth=min(self.across_bandwidth, self.comm_bandwidth * self.workers_per_host),
        )

    @property
    def _by_layer(self) -> dict[tuple[str, str], Kernel]:
        found = self.__dict__.get("_kernels")
        if found is None:
            found = {(kernel.layer, kernel.pass_): kernel for kernel in self.kernels}
            object.__setattr__(self, "_kernels", found)
        return found


def figure_names() -> list[str]:
    """Return the names of the figures that every machine has."""
    return [
        each.name for each in fields(Machine) if each.name not in ("name", "shares", "kernels", "sources")
    ]


def _check(machine: str, name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and name not in _MAYBE_ZERO):
        wanted = "0 or more" if name in _MAYBE_ZERO else "more than 0"
        raise InputError(f"{name} of the machine {machine} is {value!r}: give a number, {wanted}.")
    if name in _COUNTS and int(value) != value:
        raise InputError(f"{name} of the machine {machine} is {value!r}: give a whole number.")


def known_machines() -> list[str]:
    """Return the names of the machines that come with daskconv.

    Examples
    --------
    >>> "environment_b" in known_machines()
    True
    """
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def calibrated_path() -> Path:
    """Return where ``daskconv calibrate`` keeps this machine's figures."""
    return cache_folder() / "machine.json"


def load_machine(name: str | Path = "here") -> Machine:
    """Return a machine: one that comes with daskconv, one of a file, or "here", the one that was calibrated.

    Raises
    ------
    InputError
        For a name that nobody knows, and where "here" was not calibrated.
    DataError
        For a file with missing or impossible figures.

    Examples
    --------
    >>> load_machine("environment_a").cores
    28
    """
    if str(name) in known_machines():
        return read_machine(SHIPPED / f"{name}.json")
    path = calibrated_path() if str(name) == "here" else Path(name)
    if path.is_file():
        return read_machine(path)
    if str(name) == "here":
        raise InputError(
            f"This machine was not calibrated: run daskconv calibrate, or name one of {', '.join(known_machines())}."
        )
    raise InputError(
        f"machine is {str(name)!r}: give here, a file of daskconv calibrate, or one of {', '.join(known_machines())}."
    )


def read_machine(path: Path) -> Machine:
    """Return the machine that a file describes; raise DataError where it does not describe one."""
    try:
        found = json.loads(path.read_text())
        if found.get("format") != FORMAT:
            raise ValueError(f"its format is {found.get('format')!r} and not {FORMAT}")
        figures = found["figures"]
        missing = [name for name in figure_names() if name not in figures]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        values = {name: figures[name]["value"] for name in figure_names()}
        sources = {name: str(figure["source"]) for name, figure in figures.items()}
        kernels = tuple(Kernel(*row) for row in found.get("kernels", ()))
        shares = {name: share["value"] for name, share in found["shares"].items()}
        sources |= {name: str(share["source"]) for name, share in found["shares"].items()}
        return Machine(name=str(found["name"]), **values, shares=shares, kernels=kernels, sources=sources)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path} describes no machine ({reason}): run daskconv calibrate anew, or mend it."
        ) from None


def write_machine(machine: Machine, path: Path) -> None:
    """Write a machine's file."""
    figures = {
        name: {"value": getattr(machine, name), "source": machine.sources.get(name, "")}
        for name in figure_names()
    }
    shares = {
        name: {"value": share, "source": machine.sources.get(name, "")}
        for name, share in machine.shares.items()
    }
    rows = [list(astuple(kernel)) for kernel in machine.kernels]
    whole = {"format": FORMAT, "name": machine.name, "figures": figures, "shares": shares, "kernels": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    beside.replace(path)
