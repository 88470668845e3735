"""What an MPI launcher says about this process in its environment."""

from __future__ import annotations

import os


def launcher_ranks() -> int:
    """Return the ranks of the MPI job this process belongs to, by its environment; 0 outside of one."""
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMIX_SIZE"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    # srun sets these for every task; a batch script's own shell has no PMI socket or PMIx rank.
    if "PMIX_RANK" in os.environ or "PMI_RANK" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "0") or 0)
    return 0


def launcher_rank() -> int | None:
    """Return this process's rank in its MPI job, by its environment; None outside of one."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None
