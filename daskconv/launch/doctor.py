"""Short checks of what a job needs of a host: each says what it found, and what to do where it is not well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskconv.errors import DaskconvError

_SECONDS = 60
_LEAST_FREE = 2 * 2**30
_SLOW_SYNC, _SKEW = 1.0, 1.0  # seconds


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check : str
    well : bool
    said : str
    remedy : str
        What to do where it is not well.
    """

    check: str
    well: bool
    said: str
    remedy: str = ""

    def __str__(self) -> str:
        fix = f"\n         fix: {self.remedy}" if self.remedy and not self.well else ""
        return f"{'ok' if self.well else 'NOT OK':<8} {self.check:<8} {self.said}{fix}"


def examine(*without: str) -> Iterator[Finding]:
    """Run the checks of this host, one after the other; a check that breaks is a finding, too."""
    for name, check in CHECKS.items():
        if name in without:
            continue
        try:
            yield check()
        except DaskconvError as error:
            yield Finding(name, False, str(error))
        except Exception as error:
            yield Finding(name, False, f"{type(error).__name__}: {error}", "report this, with daskconv info")


def _kernels() -> Finding:
    from daskconv.kernels.jit import enabled, importable

    well = importable() and enabled()
    said = "Numba compiles kernels" if well else "everything runs on plain NumPy, several times slower"
    return Finding("kernels", well, said, "unset DASKCONV_JIT, or reinstall numba")


def _threads() -> Finding:
    """Compare cores with what a container or a batch system grants, and with what BLAS would start."""
    from daskconv.graph.threads import cores

    mine, granted = len(cores()), _granted()
    said = f"{mine} cores for this process, of {os.cpu_count()}"
    if granted < mine:
        remedy = f"daskconv.threads={max(1, int(granted))}, or ask for whole cores"
        return Finding("threads", False, f"{said}, but only {granted:g} of them are granted (cgroup)", remedy)
    if mine == 1 and (os.cpu_count() or 1) > 1:
        return Finding(
            "threads", False, said, "leave binding to daskconv: mpiexec --bind-to none, srun --cpu-bind=none"
        )
    return Finding("threads", True, said)


def _granted() -> float:
    """Return the cores that a cgroup grants; infinite where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return float("inf")


def _tls() -> Finding:
    """Make credentials and start a cluster in this process that uses them."""
    from distributed import Client, LocalCluster

    from daskconv.launch.quiet import quiet_shutdown
    from daskconv.launch.tls import configured, temporary

    security = None if configured() else temporary()
    with (
        quiet_shutdown(),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, security=security,
            protocol="tls://", host="127.0.0.1",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        answer = client.submit(sum, (1, 2)).result(timeout=_SECONDS)
    whose = "a job's own certificates" if security else "the site's certificates"
    return Finding(
        "tls", answer == 3, f"scheduler, worker and client met with {whose}", "reinstall cryptography"
    )


def _disk() -> Finding:
    """Try the scratch folder: private, roomy, and quick to say that data is written."""
    from daskconv.launch.scratch import scratch_folder

    folder = scratch_folder()
    free = shutil.disk_usage(folder).free
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        took = time.perf_counter() - started
    said = f"{folder} is private, {free / 1e9:.0f} GB free, 1 MB is safe after {1e3 * took:.0f} ms"
    remedy = "set temporary-directory in Dask's configuration to a roomy folder on a disk of this host"
    return Finding("disk", free >= _LEAST_FREE and took < _SLOW_SYNC, said, remedy)


def _memory() -> Finding:
    from distributed.system import MEMORY_LIMIT

    from daskconv.scene.memory import in_words

    well = MEMORY_LIMIT >= 2e9
    return Finding(
        "memory", well, f"{in_words(MEMORY_LIMIT)} for this process", "a worker needs at least 2 GB"
    )


def _clock() -> Finding:
    """Compare this host's clock with that of the file system, which other hosts set where it is shared."""
    from daskconv.graph.tuning_file import cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x")
        file.flush()
        skew = os.stat(file.name).st_mtime - time.time()
    remedy = "have the clocks set by NTP or chrony: certificates and resumed files go by them"
    said = f"{abs(skew):.1f} s beside that of {folder}"
    return Finding("clock", abs(skew) < _SKEW + 1, said, remedy)


def _mpi() -> Finding:
    """Start two ranks with the mpiexec beside this Python, or else that on PATH."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return Finding(
            "mpi",
            False,
            f"mpi4py cannot be used ({error})",
            "pip install 'daskconv[mpich]', or [mpi] for a site's",
        )
    library = MPI.Get_library_version().split("\n")[0].strip("\x00 ")
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        return Finding(
            "mpi", False, f"{library} does not take calls of several threads", "use an MPI built with them"
        )
    launcher = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    if launcher is None:
        return Finding(
            "mpi", False, f"{library}, but there is no mpiexec", "load the site's MPI, or use srun"
        )
    script = "import os; from mpi4py import MPI; c = MPI.COMM_WORLD; "
    script += r"os.write(1, f'{c.size} {c.allreduce(c.rank)}\n'.encode())"  # a line in one piece
    out = subprocess.run(
        [launcher, "-n", "2", sys.executable, "-c", script],
        capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if out.stdout.split() == ["2", "1", "2", "1"]:
        return Finding("mpi", True, f"{library}, two ranks met with {launcher}")
    said = (
        "each rank sees itself alone"
        if "1 0" in out.stdout
        else (out.stderr.strip().splitlines() or ["no answer"])[-1]
    )
    return Finding(
        "mpi", False, f"{library}, {launcher}: {said}", "use the mpiexec of the MPI that mpi4py is built with"
    )


CHECKS: dict[str, Callable[[], Finding]] = {
    "kernels": _kernels,
    "threads": _threads,
    "tls": _tls,
    "disk": _disk,
    "memory": _memory,
    "clock": _clock,
    "mpi": _mpi,
}


def examine_ranks() -> list[Finding]:
    """Run what can be told inside of an MPI job, on every rank; return all findings on rank 0, elsewhere nothing."""
    from mpi4py import MPI

    comm: Any = MPI.COMM_WORLD
    here = MPI.Get_processor_name()
    own = list(examine("tls", "mpi"))  # an MPI job within one is no more to be had than a second cluster
    comm.Barrier()
    told = comm.gather((here, time.time(), own), root=0)
    if comm.rank:
        return []
    times = [when for _, when, _ in told]
    remedy = "have the hosts' clocks set by NTP or chrony: a job's certificate is valid from when it is made"
    found = [
        Finding("clocks", max(times) - min(times) < _SKEW, f"{max(times) - min(times):.2f} s apart", remedy)
    ]
    hosts = {host: some for host, _, some in told}
    found += [
        Finding(f.check, f.well, f"{host}: {f.said}", f.remedy) for host, some in hosts.items() for f in some
    ]
    return found
