"""Thread caps, pinning and memory of worker processes."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from daskconv.graph.threads import cores

# Threads of BLAS, numexpr and Numba in workers that Nannies start: daskconv's own threads are the parallelism.
ONE_THREAD_ENVIRON = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def cap_threads() -> None:
    """Set BLAS and numexpr of this process to one thread.

    daskconv uses none of Numba's own threads. To limit them would start them, and from then on Numba compiles nothing
    while the environment, which Dask sets for a moment when it starts workers, names another number.
    """
    import numexpr
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    numexpr.set_num_threads(1)


def pin(to: list[int]) -> None:
    """Pin all threads of this process, and those they start, to some cores; Linux only."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), to)
        except ProcessLookupError:
            continue  # the thread ended in the meantime


def cores_by_domain(system: str = "/sys/devices/system/node") -> list[int]:
    """Return the cores that this process may run on, those of one NUMA domain side by side."""
    domain_of = {}
    for folder in Path(system).glob("node[0-9]*"):
        for span in (folder / "cpulist").read_text().strip().split(","):
            first, _, last = span.partition("-")
            if first:
                domain = int(folder.name.removeprefix("node"))
                domain_of.update(dict.fromkeys(range(int(first), int(last or first) + 1), domain))
    return sorted(cores(), key=lambda core: (domain_of.get(core, 0), core))


def plan_pinning(workers: dict[str, dict[str, Any]], threads: int) -> dict[str, list[int]]:
    """Return the cores of each worker where every host has enough for all its workers, else nothing.

    Parameters
    ----------
    workers : dict of address to {"host": str, "cores": list of int}
        Cores side by side go to one worker.
    threads : int
        Cores that one worker keeps busy.

    Examples
    --------
    >>> hosts = {"a": {"host": "x", "cores": [0, 1]}, "b": {"host": "x", "cores": [0, 1]}}
    >>> plan_pinning(hosts, 1)
    {'a': [0], 'b': [1]}
    >>> plan_pinning(hosts, 2)
    {}
    """
    by_host: dict[str, list[str]] = defaultdict(list)
    for address, worker in workers.items():
        by_host[worker["host"]].append(address)
    pins: dict[str, list[int]] = {}
    for addresses in by_host.values():
        shared = [set(workers[address]["cores"]) for address in addresses]
        # A launcher that bound its ranks did it with the site's knowledge: leave that alone.
        if any(other != shared[0] for other in shared) or len(addresses) * threads > len(shared[0]):
            return {}
        free = workers[addresses[0]]["cores"]
        for i, address in enumerate(addresses):
            pins[address] = free[i * threads : (i + 1) * threads]
    return pins


def host_memory() -> int:
    """Return this host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
