"""Memory: what a run of a network will take, told from shapes, and what there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import dask

from daskconv.graph.threads import available_threads
from daskconv.nn.layers import BatchNorm, Conv2D, ConvTranspose2D, MaxPool2D, Outputs, ReLU
from daskconv.nn.layers.base import Shape
from daskconv.nn.network import INPUT, Network
from daskconv.run.present import scheduler_info

# A process with the library, its compiled kernels and their scratch buffers.
PROCESS = 400_000_000
# Of a worker's limit: Dask spills results from 0.7 on and pauses a worker at 0.8.
_SHARE = 0.7
_ITEM = 4  # bytes of a float32


def run_bytes(network: Network, shape: Shape, methods: Mapping[str, Mapping[str, str]], images: int) -> int:
    """Return the most bytes of activations that live at once while images run forward.

    Parameters
    ----------
    network : Network
    shape : (h, w, c)
    methods : mapping
        The method of each convolution.
    images : int

    Examples
    --------
    >>> from daskconv import Conv2D, Sequential
    >>> net = Sequential([Conv2D(8, 3, padding=1), Conv2D(1, 1)])
    >>> run_bytes(net, (100, 100, 1), {}, 1)  # one input channel and 8 of the first convolution
    360000
    """
    shapes = network.shapes(shape)
    unread = Counter(name for node in network.nodes for name in node.inputs)
    live, peak, done = {INPUT: prod(shape)}, 0, set[str]()
    plan = network.tails(tuple(shape))
    for node in network.nodes:
        if node.name in done:
            continue
        tail = plan[node.name]
        done.update(tail.nodes)
        found: Any = shapes[node.name]
        own = sum(map(prod, found)) if isinstance(node.layer, Outputs) else prod(found)
        peak = max(peak, sum(live.values()) + own + _extra(node.layer, own, methods.get(node.name, {})))
        live[tail.output] = own
        for name in (*node.inputs, tail.add) if tail.add else node.inputs:
            unread[name] -= 1
            if not unread[name]:
                live.pop(name, None)
    return peak * images * _ITEM


def _extra(layer: Any, outputs: int, methods: Mapping[str, str]) -> int:
    """Return the elements that a layer holds beside its inputs and outputs."""
    if isinstance(layer, Conv2D):
        method = methods.get("forward")
        taps = prod(layer.kernel) if isinstance(layer.kernel, tuple) else layer.kernel**2
        # A lowered block holds a row of taps for each output, and each has about as many channels as filters.
        return (
            outputs * taps
            if method in ("lowering", "pipelined") and taps > 1
            else 2 * outputs * (method == "fft")
        )
    return 0 if isinstance(layer, ConvTranspose2D | MaxPool2D | ReLU | BatchNorm) else outputs


@dataclass(frozen=True)
class Limit:
    """The memory there is for tiles, and who shares it.

    Attributes
    ----------
    total : int
        Bytes of the process, what it needs itself taken off.
    tasks : int
        How many chunks it works on side by side.
    threads : int
        Of each of these.
    whose : str
        "a worker" or "a thread".
    at_once : int
        Chunks that are worked on in all processes.
    """

    total: int
    tasks: int
    threads: int
    whose: str
    at_once: int = 1

    @property
    def a_task(self) -> int:
        """Bytes for one chunk."""
        return self.total // self.tasks


def memory_limit(lazy: bool) -> Limit:
    """Return the memory of the workers of the active client, the smallest of them, or else of this process.

    Parameters
    ----------
    lazy : bool
        Whether tasks will do the work: else it is this process, and all its threads share each chunk.
    """
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    if not lazy:
        return Limit(max(0, int(MEMORY_LIMIT * _SHARE - PROCESS)), 1, available_threads(), "in this process")
    there = _workers()
    workers = list(there.values())
    if not workers:
        tasks = dask.config.get("num_workers", None) or CPU_COUNT
        return Limit(max(0, int(MEMORY_LIMIT * _SHARE - PROCESS)), tasks, 1, "a thread", tasks)
    hosts = Counter(worker["host"] for worker in workers)
    # Those of a LocalCluster with processes=False are one process.
    sharing = {address: len(workers) if address.startswith("inproc") else 1 for address in there}
    room = min(
        (worker["memory_limit"] or MEMORY_LIMIT / hosts[worker["host"]]) * _SHARE - PROCESS / sharing[address]
        for address, worker in there.items()
    )
    tasks = max(worker["nthreads"] for worker in workers)
    configured = dask.config.get("daskconv.threads") or tasks
    each = max(1, configured // tasks)
    whose = "a worker" if tasks == 1 else "a worker's thread"
    return Limit(max(0, int(room)), tasks, each, whose, sum(worker["nthreads"] for worker in workers))


def _workers() -> dict[str, dict[str, Any]]:
    from distributed import Client

    try:
        client = Client.current(allow_global=True)
    except ValueError:
        return {}
    return scheduler_info(client)["workers"]


def in_words(size: float) -> str:
    """Return bytes as people say them.

    Examples
    --------
    >>> in_words(21_300_000_000), in_words(5_000_000)
    ('21 GB', '5.0 MB')
    """
    size = max(size, 0)
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.0f} {name}" if size >= 10 * unit else f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.0f} kB"
