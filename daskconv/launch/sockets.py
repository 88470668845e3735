"""Every socket that a job has opened: where it listens, who may reach it, and what answers there."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import Any

from daskconv.run.present import scheduler_info

LOOPBACK = ("127.", "::1", "::ffff:127.")
_LAUNCHERS = ("mpiexec", "mpirun", "hydra", "orted", "prted", "prterun", "srun", "slurmstepd")
_ROW = "{:<16} {:>8} {:<22} {:<12} {}"

TITLE = _ROW.format("host", "process", "listens on", "open to", "what answers")


@dataclass(frozen=True, order=True)
class Listener:
    """A socket that waits for connections.

    Attributes
    ----------
    host : str
    process : int
        Its id.
    address : str
        Of an interface; "0.0.0.0" and "::" are all of them.
    port : int
    what : str
    """

    host: str
    process: int
    address: str
    port: int
    what: str = "other"

    @property
    def reach(self) -> str:
        """Who gets as far as this socket."""
        return "this host" if self.address.startswith(LOOPBACK) else "the network"

    def __str__(self) -> str:
        place = f"{self.address}:{self.port}"
        return _ROW.format(self.host, self.process, place, self.reach, self.what)


def loopback_interface() -> str | None:
    """Return the name of the interface of 127.0.0.1, for jobs on one host alone; None where there is none."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == "127.0.0.1" for entry in addresses):
            return name
    return None


def listening(mpi: bool = False) -> list[Listener]:
    """Return the sockets on which this process waits for connections; under MPI those of its launcher, too."""
    import psutil

    here = psutil.Process()
    found = _of(here, "MPI" if mpi else "other")
    if mpi:
        for parent in here.parents():
            if parent.name().partition(".")[0].startswith(_LAUNCHERS):
                found += _of(parent, "MPI launcher")
    return found


def _of(process: Any, what: str) -> list[Listener]:
    import psutil

    host = socket.gethostname()
    try:
        connections = getattr(process, "net_connections", process.connections)(kind="inet")
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return []
    return [
        Listener(host, process.pid, link.laddr.ip, link.laddr.port, what)
        for link in connections
        if link.status == psutil.CONN_LISTEN
    ]


def job_sockets(client: Any) -> list[Listener]:
    """Return every socket of a cluster's scheduler, workers and their nannies, of this process, and of MPI.

    Parameters
    ----------
    client : distributed.Client
    """
    from daskconv.run.launcher import launcher_ranks

    mpi = launcher_ranks() > 0
    found = {entry for some in client.run(listening, mpi).values() for entry in some}
    found |= {*client.run_on_scheduler(listening, mpi), *listening(mpi)}
    known = _known(client)
    return sorted(replace(entry, what=known.get((entry.host, entry.port), entry.what)) for entry in found)


def _known(client: Any) -> dict[tuple[str, int], str]:
    """Return what Dask's own sockets are, by host and port."""
    names = client.run(socket.gethostname) | {None: client.run_on_scheduler(socket.gethostname)}
    info = scheduler_info(client)
    secured = "TLS" if info["address"].startswith("tls") else "no TLS"
    known = {(names[None], _port(info["address"])): f"Dask scheduler, {secured}"}
    if "dashboard" in info.get("services", {}):
        known[names[None], info["services"]["dashboard"]] = "page"
    for address, worker in info["workers"].items():
        host = names[address]
        known[host, _port(address)] = f"Dask worker, {secured}"
        if worker.get("nanny"):
            known[host, _port(worker["nanny"])] = f"Dask nanny, {secured}"
        if "dashboard" in worker.get("services", {}):
            known[host, worker["services"]["dashboard"]] = "worker's health and metrics"
    return known


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
