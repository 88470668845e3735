"""The ranks of an MPI job as a Dask cluster: 0 is the scheduler, 1 the script, the others are workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daskconv.errors import DaskconvError, InputError, Interrupted, WorkerError
from daskconv.launch.handover import SCRIPT, HandOver, hand_over
from daskconv.run.present import scheduler_info

# Seconds that ranks get to end by themselves, before the job is aborted: after a failure, and after success.
_GRACE, _PATIENCE = 10.0, 60.0


@contextmanager
def mpi_client(ranks: int, dashboard_address: str, tls: bool) -> Iterator[tuple[Any, str]]:
    """Yield a client and the page's token on rank 1; the other ranks serve until it is done, and exit here."""
    if not ranks:
        raise InputError(
            "transport='mpi' needs an MPI launcher: start the script with mpiexec -n 3 or more, or srun."
        )
    try:
        import dask_mpi
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"An MPI launcher started this script, but dask-mpi or mpi4py cannot be used ({error}): "
            "pip install daskconv[mpi] for the site's MPI, or daskconv[mpich]."
        ) from None
    comm = MPI.COMM_WORLD
    _check_size(comm, ranks)
    neighbours = comm.Split_type(MPI.COMM_TYPE_SHARED).size
    given = hand_over(comm, tls)
    if comm.rank != SCRIPT:
        # The launcher hands Ctrl-C, SIGTERM and SIGUSR1 to every rank; the script's rank alone decides.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        _serve(dask_mpi, comm, neighbours, dashboard_address, given)
    dask_mpi.initialize(exit=False)
    yield from _script(comm, given)


def _check_size(comm: Any, ranks: int) -> None:
    if comm.size >= 3:
        return
    if comm.size == 1 and ranks > 1:
        raise InputError(
            f"The launcher has {ranks} ranks but mpi4py sees 1: the launcher and mpi4py belong to different MPIs; "
            "use the mpiexec of the MPI that mpi4py runs on."
        )
    if comm.rank == 0:
        raise InputError(
            f"The launcher started {comm.size} ranks but at least 3 are needed (scheduler, script, workers): "
            "use mpiexec -n 4."
        )
    sys.exit(2)


def _serve(dask_mpi: Any, comm: Any, neighbours: int, dashboard_address: str, given: HandOver) -> None:
    """Be the scheduler or a worker until the script is done, then exit; ``neighbours`` ranks share this host."""
    import dask

    from daskconv.launch.affinity import cap_threads, host_memory
    from daskconv.launch.page import preloaded
    from daskconv.launch.port import next_free
    from daskconv.launch.quiet import mute, seldom
    from daskconv.launch.sockets import loopback_interface

    cap_threads()
    mute()
    dask.config.set(given.config() | seldom())
    with preloaded():
        dask_mpi.initialize(
            interface=loopback_interface() if neighbours == comm.size else None,
            protocol=given.protocol,
            nthreads=1,
            local_directory=given.scratch,
            memory_limit=host_memory() // neighbours,
            dashboard_address=next_free(dashboard_address),
            worker_class="distributed.Worker",
            worker_options={"dashboard_address": "127.0.0.1:0"},
            exit=False,
        )
    while any(thread.name.startswith("Dask-Default-Threads") for thread in threading.enumerate()):
        # A task still waits for a peer. MPI's own end would crash on that; the script's rank aborts the job.
        time.sleep(0.1)
    _leave(comm)
    sys.exit(0)


def _script(comm: Any, given: HandOver) -> Iterator[tuple[Any, str]]:
    from distributed import Client

    from daskconv.launch.quiet import quiet_shutdown

    with quiet_shutdown():
        client = Client(security=given.security)
        try:
            _wait_for_workers(client, comm.size - 2)
            yield client, given.token
        except BaseException as error:
            _say(error)
            _end(client, comm, _GRACE)
            raise SystemExit(_code(error)) from None
        _end(client, comm, _PATIENCE)


def _wait_for_workers(client: Any, count: int) -> None:
    from daskconv.run.patience import for_workers

    try:
        client.wait_for_workers(count, timeout=for_workers())
    except TimeoutError:
        here = len(scheduler_info(client)["workers"])
        raise WorkerError(
            f"{here} of {count} workers came in {for_workers():g} s (daskconv.wait-workers): look whether the ranks' "
            "hosts can reach each other, or wait longer."
        ) from None


def _end(client: Any, comm: Any, seconds: float) -> None:
    """Close the cluster and wait for the other ranks; abort the job where one does not come in time."""
    _abort_after(seconds, comm)
    client.shutdown()
    client.close()
    _leave(comm)


def _leave(comm: Any) -> None:
    """Wait, without spinning, until all ranks are about to end."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.01)


def _say(error: BaseException) -> None:
    """Print one sentence for what daskconv says, the traceback for everything else."""
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr, flush=True)
    elif isinstance(error, DaskconvError):
        print(f"Error: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)


def _code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    if isinstance(error, Interrupted) and error.signal is not None:
        return 128 + error.signal
    return 2 if isinstance(error, DaskconvError) else 1


def _abort_after(seconds: float, comm: Any) -> None:
    """Abort the job unless this process has ended by then: a peer may wait for one that failed."""

    def abort() -> None:
        time.sleep(seconds)
        print("The other ranks did not end in time: the job is aborted.", file=sys.stderr, flush=True)
        comm.Abort(1)
        os._exit(1)

    threading.Thread(target=abort, daemon=True).start()
