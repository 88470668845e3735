"""start(): find or start the workers, cap and pin their threads, say where the page is, and end quietly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import dask

from daskconv.errors import InputError, check_count
from daskconv.graph.threads import check_threads, cores
from daskconv.kernels.jit import importable
from daskconv.launch.affinity import ONE_THREAD_ENVIRON, cap_threads, cores_by_domain, pin, plan_pinning
from daskconv.launch.guard import check_main_guard
from daskconv.launch.page import page_address, page_of, preloaded
from daskconv.launch.port import moved, next_free
from daskconv.launch.quiet import mute, quiet_shutdown, seldom
from daskconv.launch.scratch import scratch_folder
from daskconv.launch.tunnel import tunnel_lines
from daskconv.run.launcher import launcher_ranks
from daskconv.run.present import scheduler_info
from daskconv.run.select import active_client, check_transport

_OPEN = ", NO TLS: whoever reaches its ports can run code as you"


class Shown(NamedTuple):
    """What the first line says of the page: the address that was asked for, the page's token, and a warning."""

    address: str = ":0"
    token: str = ""
    note: str = ""


SHOWN = Shown()


@contextmanager
def start(
    transport: str = "auto",
    *,
    workers: int | None = None,
    threads: int | None = None,
    pinned: bool = True,
    dashboard_address: str = "127.0.0.1:8787",
    dashboard: bool | None = None,
    tls: bool = True,
) -> Iterator[Any]:
    """Start or find the cluster that a script runs on; its first line, wherever it runs.

    Under an MPI launcher (mpiexec, srun) rank 0 becomes the scheduler, ranks from 2 become workers, and
    rank 1 goes on with the script. Elsewhere an active client is used, or else a LocalCluster is started.
    BLAS, numexpr and Numba are capped to one thread on every worker, and one line says what runs where.

    Parameters
    ----------
    transport : {"auto", "local", "dask", "mpi"}
        "local" starts nothing and yields None.
    workers : int, optional
        Processes of a LocalCluster; one for each core, at most 4, when not given.
    threads : int, optional
        Threads of each worker; the cores divided by the workers when not given.
    pinned : bool
        Pin each worker to cores of its own where its host has enough of them.
    dashboard_address : str
        Where the page listens: this host only, unless asked otherwise; at the next free port where this one is in use.
    dashboard : bool, optional
        Whether there is a page on which to watch training. Where a scheduler has a dashboard it is one of its pages,
        unless this or Dask's configuration ``daskconv.dashboard.enabled`` is False; with transport="local" this process
        serves it if this is True.
    tls : bool
        Encrypt all of Dask's connections and refuse whoever has no certificate of this job. False does neither:
        whoever reaches a port of the scheduler or of a worker can run code as you. A client of your own stays as it is.

    Yields
    ------
    distributed.Client or None

    Raises
    ------
    InputError
        With fewer than 3 MPI ranks, without mpi4py under a launcher, or without a main guard.

    Examples
    --------
    >>> import daskconv
    >>> with daskconv.start(transport="local") as client:
    ...     print(client)
    daskconv: local, 1 process x ... page: none
    None
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None:
            check_count(value, name)
    check_transport(transport)
    ranks, note = launcher_ranks(), "" if tls else _OPEN
    starts_nothing = transport == "local" or ranks or transport == "mpi" or active_client() is not None
    if workers is not None and starts_nothing:
        raise InputError(
            f"workers is {workers} but daskconv starts workers for a local cluster only: leave it out with "
            "transport='local' and with a client of your own; under mpiexec the ranks less 2 are workers."
        )
    with ExitStack() as stack:
        if threads:
            stack.enter_context(dask.config.set({"daskconv.threads": threads}))
        if dashboard is not None:
            stack.enter_context(dask.config.set({"daskconv.dashboard.enabled": dashboard}))
        if transport == "local":
            page = stack.enter_context(_local_page(dashboard_address))
            _say_local(ranks, page + moved(page, dashboard_address))
            yield None
        elif ranks or transport == "mpi":
            from daskconv.launch.mpi import mpi_client

            client, token = stack.enter_context(mpi_client(ranks, dashboard_address, tls))
            yield stack.enter_context(
                prepared(
                    client,
                    "mpi" if transport == "auto" else transport,
                    threads,
                    pinned,
                    Shown(dashboard_address, token, note),
                )
            )
        elif (client := active_client()) is not None:
            yield stack.enter_context(prepared(client, "dask", threads, pinned=False))
        else:
            client, token = stack.enter_context(_local_cluster(workers, threads, dashboard_address, tls))
            shown = Shown(dashboard_address, token, note)
            yield stack.enter_context(prepared(client, "dask", threads, pinned, shown))


@contextmanager
def _local_page(dashboard_address: str) -> Iterator[str]:
    """Serve the page from this process where that is asked for, and yield its address."""
    if not dask.config.get("daskconv.dashboard.enabled"):
        yield "none"
        return
    from daskconv.dashboard.local import serving

    with serving(int(dashboard_address.rpartition(":")[2])) as address:
        yield address


def _say_local(ranks: int, page: str) -> None:
    if ranks > 1:
        raise InputError(
            f"transport='local' under a launcher of {ranks} ranks would run {ranks} times: use transport='mpi', "
            "or start the script without the launcher."
        )
    count = dask.config.get("daskconv.threads") or len(cores())
    print(f"daskconv: local, 1 process x {_plural(count, 'thread')}, page: {page}", flush=True)


@contextmanager
def _local_cluster(
    workers: int | None, threads: int | None, dashboard_address: str, tls: bool
) -> Iterator[tuple[Any, str]]:
    """Yield a client of processes on this host, which listen on its loopback alone, and the page's token."""
    from distributed import Client, LocalCluster

    from daskconv.launch import gate
    from daskconv.launch.tls import configured, temporary

    check_main_guard()
    count = workers or max(1, min(4, len(cores()) // (threads or 1)))
    environ = dask.config.get("distributed.nanny.pre-spawn-environ", {}) | ONE_THREAD_ENVIRON
    token = gate.token()
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environ} | seldom() | gate.preloaded(token)),
        quiet_shutdown(),
        preloaded(),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=next_free(dashboard_address),
            security=temporary() if tls and not configured() else None,
            local_directory=scratch_folder(),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client, token


@contextmanager
def prepared(
    client: Any, transport: str, threads: int | None, pinned: bool, shown: Shown = SHOWN
) -> Iterator[Any]:
    """Cap and pin the client's workers, print the one line, and yield the client."""
    from daskconv.run.losses import wait_for_a_worker, worker_addresses

    wait_for_a_worker(client)
    _check_kernels(client.run(importable))
    client.run(cap_threads)
    client.run(mute)
    info = scheduler_info(client)
    allowed = client.run(cores_by_domain)
    workers = {
        address: {"host": info["workers"][address]["host"], "cores": allowed[address]}
        for address in worker_addresses(client)
    }
    count = threads or dask.config.get("daskconv.threads") or _share_of_cores(workers)
    pins = plan_pinning(workers, count) if pinned else {}
    for address, to in pins.items():
        client.run(pin, to, workers=[address])
    where = " | ".join(_ranges(to) for to in pins.values()) if len(pins) <= 8 else "each its own cores"
    with dask.config.set({"daskconv.threads": count}), page_of(client) as path:
        page = page_address(info, path, shown.token)
        page += f"{moved(page, shown.address)}{shown.note}"
        print(
            f"daskconv: {transport}, {_plural(len(workers), 'worker')} x {_plural(count, 'thread')}, "
            f"{'pinned to cores ' + where if pins else 'not pinned'}, page: {page}",
            flush=True,
        )
        for line in tunnel_lines(client):
            print(line, flush=True)
        yield client


def _check_kernels(importable_at: dict[str, bool]) -> None:
    """Raise InputError where this process would choose methods that some workers have not compiled."""
    without = [address for address, there in importable_at.items() if not there]
    if without and importable():
        raise InputError(
            f"{_plural(len(without), 'worker')} of {len(importable_at)} ({without[0]} ...) have no compiled "
            "kernels: set DASKCONV_JIT=0 for this script too, or unset it there and repair Numba."
        )


def _share_of_cores(workers: dict[str, dict[str, Any]]) -> int:
    hosts = [worker["host"] for worker in workers.values()]
    return check_threads(
        max(1, min(len(worker["cores"]) // hosts.count(worker["host"]) for worker in workers.values()))
    )


def _ranges(numbers: list[int]) -> str:
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
