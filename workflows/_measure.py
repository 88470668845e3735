"""Measuring: runs that alternate in one process, facts about the machine, tables, JSON and pictures."""

import argparse
import csv
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from math import comb
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

from rich.console import Console
from rich.table import Table

from daskconv.kernels import jit

PACKAGES = ("daskconv", "numpy", "scipy", "numba", "numexpr", "dask", "distributed", "torch")
# OpenMP's threads keep cores busy for so long after a call, which would slow down another library's.
_SETTLE = 0.01
# Cores that share a cache hand a number over in some 25 nanoseconds, others in 150 or more.
_SHARED_NS = 100
SIMD = ("avx512f", "avx2", "sse4_2")

# A log has no width: what is written there must not be folded at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every workflow has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser


def machine(threads: Any) -> dict[str, Any]:
    """Return what a figure's reader has to know of the machine."""
    return {
        "cpu": _cpu("model name") or platform.machine(),
        "simd": next((name for name in SIMD if name in _cpu("flags").split()), "other"),
        "cores": len(os.sched_getaffinity(0)),
        "cores_others_used": round(_others_cores(), 2),
        **_apart(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "threads": threads,
    }


def _apart() -> dict[str, int]:
    """Return how long a number goes from core to core, where that can be told."""
    if not jit.enabled():
        return {}
    from _cores import hand_over_ns

    took = hand_over_ns()
    return {} if took is None else {"core_to_core_ns": took}


def _busy_seconds() -> float:
    """Return the core seconds that Linux has spent on anything since it started, 0 where it does not say."""
    path = Path("/proc/stat")
    fields = path.read_text().split(maxsplit=9)[1:9] if path.exists() else ["0"] * 8
    ticks = [int(field) for field in fields]  # user, nice, system, idle, iowait, irq, softirq, steal
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Return the core seconds of this process and of all that it started and that have ended."""
    return sum(os.times()[:4])


_STARTED = perf_counter(), _busy_seconds(), _own_seconds()


def _others_cores() -> float:
    """Return how many cores other processes kept busy, on average since this one began."""
    wall, busy, own = _STARTED
    others = (_busy_seconds() - busy) - (_own_seconds() - own)
    return max(0.0, others / (perf_counter() - wall))


def _cpu(field: str) -> str:
    """Return what Linux says of the first core, "" where it says nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def alternate(
    runs: Mapping[str, Callable[[], Any]], rounds: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Return the seconds of each run in each round; a round calls all of them, and every other one backwards.

    Neighbours in time see the same machine, so ratios within a round hold where times between rounds do not.
    With ``warm_up`` a call that is not timed comes just before each: it finds the cores free, and leaves threads
    awake and caches warm, as one call of a library leaves them for the next.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    if warm_up:
        for run in runs.values():
            run()
    for turn in range(rounds):
        for name in list(runs) if turn % 2 == 0 else reversed(runs):
            if warm_up:
                sleep(_SETTLE)
                runs[name]()
            started = perf_counter()
            runs[name]()
            times[name].append(perf_counter() - started)
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and the range."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median(values), "low": low, "high": high, "min": min(values), "max": max(values)}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median whatever the distribution: order statistics, the range for few values."""
    ordered, n = sorted(values), len(values)
    outside, tail = 0, 0.0
    while (tail := tail + comb(n, outside) / 2**n) <= 0.025:
        outside += 1
    cut = max(outside - 1, 0)
    return ordered[cut], ordered[-1 - cut]


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Return the median and the spread of the ratios round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def grown(job: Callable[..., Callable[[], Any]], *args: Any) -> tuple[float, float]:
    """Return by how many MB resident memory grows while something runs: at most, and at its end.

    ``job(*args)`` gets ready and returns what is to run, in a process of its own: what a fork inherits is there before.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_grown_here, job, *args).result()


def _grown_here(job: Callable[..., Callable[[], Any]], *args: Any) -> tuple[float, float]:
    run = job(*args)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    result = run()
    grew = (_resident("VmHWM") - before) / 1e6, (_resident("VmRSS") - before) / 1e6
    del result
    return grew


def _resident(what: str) -> int:
    """Return bytes that Linux says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


def show(title: str, rows: Sequence[Mapping[str, Any]], notes: Iterable[str] = ()) -> None:
    """Print rows as a table, numbers to the right, and what has to be said below it."""
    table = Table(title=title, title_justify="left")
    for name, cell in rows[0].items():
        table.add_column(name.replace("_", " "), justify="left" if isinstance(cell, str) else "right")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.1f}" if abs(cell) >= 20 else f"{cell:.2f}"
    return str(cell)


def show_machine(facts: Mapping[str, Any]) -> None:
    """Print the machine's facts on a line."""
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), soft_wrap=True)
    if facts.get("cores_others_used", 0) > 0.1:
        console.print(
            "The machine was busy with other processes: measure again when it is quiet, above all where "
            "threads fill all cores, since one late thread holds up the others.",
            soft_wrap=True,
        )
    if facts.get("core_to_core_ns", 0) > _SHARED_NS:
        console.print(
            "The first two cores share no cache: threads that read what another one wrote are slower than on "
            "neighbouring cores, above all those of pipelined.",
            soft_wrap=True,
        )


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write all figures, where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with a line of names above them, where a file was asked for."""
    if path is not None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def mpiexec() -> str:
    """Return the mpiexec beside this Python, or else the one on PATH."""
    return shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"


def pyplot() -> Any:
    """Return matplotlib.pyplot, drawing to files; end with a sentence where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--png needs matplotlib: pip install 'daskconv[plot]'.") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
