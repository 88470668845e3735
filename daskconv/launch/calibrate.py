"""Calibrate: measure this machine for :mod:`daskconv.cost`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from daskconv.cost.machine import Kernel, Machine, calibrated_path, write_machine
from daskconv.cost.work import Work, method_of, works_of
from daskconv.errors import InputError
from daskconv.graph.choose import PASSES
from daskconv.graph.threads import cores, one_thread_each
from daskconv.graph.tuning import processor_name
from daskconv.launch.kernels import measure_kernels, with_crowding
from daskconv.launch.parts import segment_seconds, with_serial
from daskconv.nn import zoo
from daskconv.nn.layers import Conv2D, Dense
from daskconv.nn.network import Network
from daskconv.plan.tasks import TrainState, block_partial
from daskconv.train.data import ArrayData
from daskconv.train.trainer import Trainer

Net = tuple[Network, tuple[int, int, int]]

NETS = (("cifar10_quick", (32, 32, 3)), ("alexnet", (224, 224, 3)), ("resnet20", (32, 32, 3)))
_SECONDS = 4.0
_SWEPT, _FILE = 64_000_000, 256_000_000
_MEASURED = "measured by daskconv calibrate on "


def calibrate(
    nets: Sequence[Net] | None = None,
    path: Path | None = None,
    *,
    links: bool = True,
    report: Callable[[str], Any] = lambda text: None,
) -> Machine:
    """Measure this machine and write its figures to a file.

    Parameters
    ----------
    nets : sequence of (Network, (h, w, c)), optional
        Whose layers are timed: prices of these stand on measurements, those of others on the analytic guess.
    path : path, optional
        ``machine.json`` in the user's cache when not given.
    links : bool
        Start workers, over MPI where there is an ``mpiexec`` and on Dask, to time messages; else guess them.
    report : function
        Called with what is measured next.

    Returns
    -------
    Machine
    """
    found = [(zoo.build(name, 10), shape) for name, shape in NETS] if nets is None else list(nets)
    count = len(cores())
    report("peak and memory")
    with one_thread_each():
        figures: dict[str, Any] = {"peak": count * _peak(), "memory_bandwidth": _bandwidth(count)}
    figures |= {"hosts": 1, "cores": count, "workers_per_host": count, "memory": _memory(), "disk": _disk()}
    kernels: dict[tuple[str, str], Kernel] = {}
    for network, shape in found:
        report(f"layers of {network.name} on {shape}")
        measured = with_serial(measure_kernels(network, shape), network, shape)
        measured = with_crowding(measured, network, shape, count)
        kernels |= {(kernel.layer, kernel.pass_): kernel for kernel in measured}
    figures["segment"] = segment_seconds()
    report("workers side by side")
    figures["jitter"], figures["crowding"] = side_by_side(count)
    figures |= _links(report) if links else _guessed_links(figures["memory_bandwidth"])
    shares = _shares(found, kernels, figures["peak"] / count)
    where = f"{_MEASURED}{count} cores of {processor_name()}"
    sources = dict.fromkeys([*figures, *shares], where)
    machine = Machine("here", **figures, shares=shares, kernels=tuple(kernels.values()), sources=sources)
    write_machine(machine, path or calibrated_path())
    return machine


def _peak() -> float:
    """Return the operations a second of a core in a large matrix product."""
    a = np.ones((1024, 1024), np.float32)
    out = np.empty_like(a)
    return 2 * 1024**3 / min(_timed(lambda: np.matmul(a, a, out=out)) for _ in range(10))


def _bandwidth(threads: int) -> float:
    """Return the bytes a second that copies read and write, on all cores at once."""
    pairs = [(np.ones(_SWEPT // 8), np.ones(_SWEPT // 8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def copy_all() -> None:
            list(pool.map(lambda pair: np.copyto(*pair), pairs))

        return 2 * _SWEPT * threads / min(_timed(copy_all) for _ in range(10))


def _memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _disk() -> float:
    """Return the bytes a second of reading a file that is not in memory any more."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with path.open("wb") as file:
            file.write(bytes(_FILE))
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return _FILE / _timed(path.read_bytes)


def _timed(function: Callable[[], Any]) -> float:
    started = perf_counter()
    function()
    return perf_counter() - started


def side_by_side(count: int) -> tuple[float, float]:
    """Return the jitter of a process that computes the same again, and how much longer it takes when all do."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        list(pool.map(computes, [0.5] * count))
        alone = pool.submit(computes, _SECONDS).result()
        together = list(pool.map(computes, [_SECONDS] * count))
    low, middle, high = quantiles(alone, n=4)
    # Of a normal distribution the quartiles are 1.35 standard deviations apart.
    jitter = (high - low) / 1.35 / middle
    return jitter, max(1.0, median(t for times in together for t in times) / middle)


def computes(seconds: float) -> list[float]:
    """Return the seconds of each of the blocks of the CIFAR-10 net, on one thread, that fit in some seconds."""
    program = Trainer("cifar10_quick").program((32, 32, 3), 96)
    data = ArrayData(np.zeros((24, 32, 32, 3), np.float32), np.zeros(24, np.int64), batch_size=24)
    state, images = TrainState(program.network.init(0, (32, 32, 3)), {}), np.arange(24)
    times = list[float]()
    with one_thread_each():
        started = perf_counter()
        while perf_counter() - started < seconds or len(times) < 4:
            times.append(_timed(lambda: block_partial(program, state, data, images, 0, 1)))
    return times[1:]


def _links(report: Callable[[str], Any]) -> dict[str, float]:
    """Return what messages cost, over MPI where there is an mpiexec."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    report("messages of Dask")
    dask = _measured([sys.executable, "-m", "daskconv.launch.links", "dask"])
    if mpiexec is None:
        mpi = {"message": 2e-5, "step": 2e-3}
        for where in ("inside", "across"):
            mpi |= {f"{where}_latency": 1e-4, f"{where}_bandwidth": dask["comm_bandwidth"]}
    else:
        report("messages of MPI")
        mpi = _measured([mpiexec, "-n", "4", sys.executable, "-m", "daskconv.launch.links", "mpi"])
    return dask | mpi


def _guessed_links(memory_bandwidth: float) -> dict[str, float]:
    names = ("inside_bandwidth", "across_bandwidth", "comm_bandwidth")
    seconds = {"inside_latency": 1e-4, "across_latency": 1e-4, "message": 2e-5, "step": 2e-3}
    dask = {"comm_latency": 2e-3, "comm_message": 3e-4, "task": 5e-4, "hop": 2e-2}
    return dict.fromkeys(names, memory_bandwidth / 4) | seconds | dask


def _measured(command: list[str]) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode or not path.exists():
            lines = done.stderr.strip().splitlines() or ["no word"]
            raise InputError(
                f"Messages could not be timed ({lines[-1]}): run daskconv info, or calibrate without --links."
            )
        return json.loads(path.read_text())


def _shares(nets: Sequence[Net], kernels: dict[tuple[str, str], Kernel], peak: float) -> dict[str, float]:
    """Return the share of a core's peak that each method reaches in each pass, the median over the layers."""
    found: dict[str, list[tuple[float, int]]] = {}
    for network, shape in nets:
        methods = network.tuned_methods(shape, "auto", images=64)[0]
        for work in works_of(network, shape, methods):
            for name, share in _reached(work, kernels, peak):
                found.setdefault(name, []).append((share, work.flops))
    shares = {name: _weighted_median(pairs) for name, pairs in sorted(found.items())}
    return shares | {"other": median(shares.values()) if shares else 0.5}


def _reached(work: Work, kernels: dict[tuple[str, str], Kernel], peak: float) -> list[tuple[str, float]]:
    if not isinstance(work.node.layer, Conv2D | Dense):
        return []
    back = [pass_ for pass_ in PASSES[1:] if pass_ == "weight_grad" or work.sends_back]
    rows = []
    for pass_, names in (("forward", ["forward"]), ("backward", back)):
        kernel = kernels[work.label, pass_]
        if kernel.each > 0:
            share = work.flops * len(names) / kernel.each / peak
            rows += [(f"{method_of(work, name)} {name}", share) for name in names]
    return rows


def _weighted_median(pairs: list[tuple[float, int]]) -> float:
    """Return the share that half of the operations reach."""
    values, weights = (np.array(column, float) for column in zip(*sorted(pairs), strict=True))
    return float(values[int(np.searchsorted(np.cumsum(weights), weights.sum() / 2))])
