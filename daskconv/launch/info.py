"""Facts about this machine and installation, for ``daskconv info`` and bug reports."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import dask

from daskconv.config import changed, known
from daskconv.graph.tuning_file import cache_folder, load_table
from daskconv.kernels.jit import importable
from daskconv.run.launcher import launcher_ranks
from daskconv.run.machine import machine


def facts() -> dict[str, str]:
    """Return named facts, each in a few words."""
    import numexpr

    return {
        **machine(),
        "threads": f"{_numba()}, numexpr {numexpr.nthreads}, daskconv {_configured()}",
        "tuning": _tuning(),
        "cache": f"{cache_folder()}, {_megabytes(cache_folder())}",
        "configuration": _configuration(),
        "mpi": _mpi(),
        "executable": sys.executable,
    }


def _numba() -> str:
    if not importable():
        return "numba off"
    import numba

    # get_num_threads would start them; after that Numba compiles nothing where the environment names another number.
    return f"numba {numba.config.NUMBA_NUM_THREADS}"  # type: ignore[attr-defined]


def _configured() -> str:
    return str(dask.config.get("daskconv.threads") or "as many as cores")


def _megabytes(folder: Path) -> str:
    """Return what lies in the cache; its files may be another program's to change meanwhile."""
    nbytes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                nbytes += os.lstat(os.path.join(place, name)).st_size
    return f"{nbytes / 1e6:,.1f} MB"


def _configuration() -> str:
    """Return what is not at its default; an unknown key is a misspelt one."""
    words = [
        f"{key} {value!r}"
        if key in known()
        else f"{key} (unknown; the nearest one is {get_close_matches(key, known(), n=1, cutoff=0.0)[0]})"
        for key, value in changed().items()
    ]
    return ", ".join(words) or "all at its defaults"


def _tuning() -> str:
    table = load_table()
    return (
        f"table {table.hash} of {len(table.rows)} cases" if table.rows else "none, the rule chooses methods"
    )


def _mpi() -> str:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"none ({error})"
    library = MPI.Get_library_version().split("\n")[0].strip("\x00 ")
    return f"{library}, launched with {launcher_ranks() or 'no'} ranks"
