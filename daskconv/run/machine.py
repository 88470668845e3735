"""What a process runs on: versions, processor, BLAS, memory; part of every run's metrics, and of ``daskconv info``."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from daskconv.graph.threads import cores
from daskconv.graph.tuning import processor_name

_PACKAGES = (
    "daskconv",
    "dask",
    "distributed",
    "dask-mpi",
    "mpi4py",
    "numpy",
    "numba",
    "numexpr",
    "bokeh",
    "zarr",
)


def machine() -> dict[str, str]:
    """Return named facts, each in a few words.

    Examples
    --------
    >>> list(machine())
    ['python', 'versions', 'cpu', 'blas', 'memory']
    """
    return {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "cpu": f"{processor_name()}, {len(cores())} cores for this process",
        "blas": _blas(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB of this host",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _blas() -> str:
    import numpy  # noqa: F401 (the library has to be loaded to be seen)
    from threadpoolctl import threadpool_info

    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return "; ".join(
        f"{i['internal_api']} {i['version']} ({i.get('architecture', 'unknown')}), {i['num_threads']} threads"
        for i in found
    )
