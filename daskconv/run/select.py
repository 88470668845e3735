"""Which transport runs, and with which client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskconv.errors import InputError
from daskconv.graph.threads import available_threads, check_threads
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, TrainState
from daskconv.run.launcher import launcher_ranks
from daskconv.run.local import LocalTransport
from daskconv.run.local_shards import LocalShards
from daskconv.run.mpi import MPITransport
from daskconv.run.present import scheduler_info
from daskconv.run.transport import Transport
from daskconv.run.watch import NOBODY, Asked

TRANSPORTS = ("local", "dask", "mpi")


def check_transport(transport: str) -> None:
    """Raise InputError that lists the transports where the name is none of them."""
    if transport not in ("auto", *TRANSPORTS):
        raise InputError(f"transport is {transport!r}: choose one of auto, {', '.join(TRANSPORTS)}.")


def select(transport: str, client: Any = None) -> tuple[str, Any]:
    """Return the transport's name and its client; "auto" is mpi in an MPI job, dask with a client, else local.

    Parameters
    ----------
    transport : {"auto", "local", "dask", "mpi"}
    client : distributed.Client, optional
        The active one when not given.
    """
    check_transport(transport)
    if transport == "local":
        return "local", None
    client = client or active_client()
    in_job = launcher_ranks() > 1
    if client is None and (in_job or transport != "auto"):
        raise InputError(
            f"transport={transport!r} needs a Dask client: begin the script with daskconv.start(), or give client=."
        )
    if transport == "auto":
        transport = "local" if client is None else "mpi" if in_job else "dask"
    return transport, client


def open_transport(
    name: str,
    client: Any,
    program: Program,
    state: TrainState,
    data: Mapping[str, Data],
    threads: int | None,
    asked: Asked = NOBODY,
) -> Transport:
    """Return the transport, which holds the data, and the state as its own: it may change that in place.

    It tells of its steps what was ``asked``.
    """
    if name == "local":
        local = LocalShards if program.split else LocalTransport
        return local(program, state, data, check_threads(threads or available_threads()), asked)
    from daskconv.run.dask import DaskTransport

    kind = MPITransport if name == "mpi" else DaskTransport
    return kind(program, state, data, client, threads or worker_threads(client), asked)


def worker_threads(client: Any) -> int:
    """Return the threads of each worker: configured, else what the workers have."""
    import dask

    threads = dask.config.get("daskconv.threads")
    if threads:
        return check_threads(threads)
    workers = scheduler_info(client)["workers"].values()
    return min((worker["nthreads"] for worker in workers), default=1)


def active_client() -> Any:
    """Return the client that is active in this process, or None."""
    from distributed import Client

    try:
        return Client.current(allow_global=True)
    except ValueError:
        return None
