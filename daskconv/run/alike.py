"""Are the workers alike? What bits depend on has to be the same on all of them, and on the driver.

And it has to be what it was, where training goes on from a checkpoint.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from daskconv.errors import InputError
from daskconv.graph.tuning import processor_name
from daskconv.kernels.jit import importable

_PACKAGES = ("daskconv", "numpy", "numba", "llvmlite", "numexpr")


def versions() -> dict[str, str]:
    """Return the versions that bits depend on, of this process."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {name: _version(name) for name in _PACKAGES} | {"python": python}


def facts() -> dict[str, str]:
    """Return what bits depend on in this process; "compiled" is whether its kernels are."""
    return versions() | {"processor": processor_name(), "compiled": str(importable())}


def check_versions(began: Mapping[str, str]) -> None:
    """Warn where training goes on with other versions than wrote its checkpoint."""
    now = versions()
    other = [f"{name} {was} (now {now[name]})" for name, was in began.items() if now.get(name, was) != was]
    if other:
        warnings.warn(
            f"The checkpoint was written with {', '.join(other)}: training goes on from it, but its bits may differ "
            "from those of training that never stopped.",
            RuntimeWarning,
            stacklevel=3,
        )


def check_alike(client: Any, workers: list[str]) -> None:
    """Warn where workers differ, from each other or from this process, in what bits depend on.

    Raises
    ------
    InputError
        Where workers lack the compiled kernels that this process chooses.
    """
    compare(facts(), client.run(facts, workers=workers))


def compare(here: Mapping[str, str], there: Mapping[str, Mapping[str, str]]) -> None:
    """Warn of what differs between this process and workers, once; raise InputError where some cannot compute.

    The kernels run on workers only, so the driver's processor does not matter.
    """
    without = [worker for worker, found in there.items() if found["compiled"] != "True"]
    if without and here["compiled"] == "True":
        raise InputError(
            f"{len(without)} of {len(there)} workers ({without[0]} ...) have no compiled kernels: install Numba there, "
            "or set DASKCONV_JIT=0 for this script too."
        )
    differing = []
    for name in (*_PACKAGES, "python", "processor"):
        values = {found[name] for found in there.values()} | ({here[name]} if name != "processor" else set())
        if len(values) > 1:
            differing.append(f"{name} ({' and '.join(sorted(values))})")
    if differing:
        warnings.warn(
            f"Workers differ in {', '.join(differing)}: the same seed may give other bits on other numbers of them.",
            RuntimeWarning,
            stacklevel=2,
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
