"""Here: the machine that this process runs on, as it was calibrated, or guessed from what the system says."""

from __future__ import annotations

import os
from dataclasses import replace

from daskconv.cost.machine import Machine, calibrated_path, figure_names, load_machine
from daskconv.graph.threads import cores

_GUESSED = "guessed from environment A's figures, core by core: run daskconv calibrate"


def this_machine(workers: int | None = None) -> Machine:
    """Return this machine; one that was not calibrated is guessed, and its sources say so.

    Parameters
    ----------
    workers : int, optional
        That share it, where it has to be guessed; one a core when not given.

    Examples
    --------
    >>> this_machine(2).workers_per_host <= 2
    True
    """
    if calibrated_path().is_file():
        return load_machine("here")
    like, count = load_machine("environment_a"), len(cores())
    part = count / like.cores
    together = max(1, min(count, workers or count))
    return replace(
        like,
        name="this machine, not calibrated",
        hosts=1,
        cores=count,
        workers_per_host=together,
        peak=like.peak * part,
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        memory_bandwidth=like.memory_bandwidth * part,
        inside_bandwidth=min(like.inside_bandwidth, like.memory_bandwidth * part / 4),
        inside_latency=1e-4,
        sources=dict.fromkeys([*figure_names(), *like.shares], _GUESSED),
    )
