"""The control plane at size: hundreds of Dask workers, or dozens of MPI ranks, take real steps with next to no kernels.

A dense net of 40 weights, one image and one shard a worker: what is left of a step is what daskconv, Dask and MPI do
around it. Each size runs in processes of its own: a scheduler, the script, and workers of one thread, 25 to a process
(Dask, over TCP) or a rank each (mpiexec). On one machine all of them share its cores, so times are those of everybody's
work together; what holds elsewhere are the messages, the scheduler's memory, and that no step passes through it.

python workflows/control_plane.py --csv control_plane.csv --png control_plane.png
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep, time
from typing import Any

from _measure import arguments, machine, mpiexec, pyplot, show, show_machine, write_csv, write_json
from _training import opened_transport, random_images

import daskconv
from daskconv import Dense, Flatten, Sequential, plans
from daskconv.run.watch import resident_bytes

SIZES = {"dask": (2, 8, 32, 128, 200, 500), "mpi": (2, 8, 32)}
QUICK = {"dask": (12,), "mpi": (6,)}
# What is timed is one task a worker: at most as many steps as the dask transport gives it.
STEPS, ROUNDS, SECONDS = 50, 10, 30.0
TOGETHER = 25
# Hundreds of workers start at once on a few cores: nobody is given up for being late.
OPTIONS = {f"DASK_DISTRIBUTED__COMM__TIMEOUTS__{name}": "300s" for name in ("CONNECT", "TCP")}
# Each worker's profiler looks at all threads of its process, 100 times a second.
OPTIONS["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"


def parse() -> argparse.Namespace:
    parser = arguments("Run steps of hundreds of workers.")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the time of a step by workers")
    parser.add_argument("--dask", type=int, nargs="*", metavar="WORKERS", help="sizes of Dask clusters")
    parser.add_argument("--mpi", type=int, nargs="*", metavar="WORKERS", help="sizes of MPI jobs")
    parser.add_argument("--together", type=int, default=TOGETHER, help="Dask workers of a process")
    for own in ("--one", "--serve"):
        parser.add_argument(own, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.serve:
        asyncio.run(serve(args.serve, args.size))
    elif args.one == "dask":
        with dask_cluster(args.size, args.together) as client:
            print(json.dumps(measured(client, args)))
    elif args.one == "mpi":
        with daskconv.start("mpi", threads=1, dashboard=False) as client:
            print(json.dumps(measured(client, args)))
    else:
        tables(args)


def tables(args: argparse.Namespace) -> None:
    """Measure all sizes, each in fresh processes, and show them."""
    plot = pyplot() if args.png else None
    given = {"dask": args.dask, "mpi": args.mpi}
    chosen = given if any(size is not None for size in given.values()) else QUICK if args.quick else SIZES
    rows = [fresh(args, name, size) for name, sizes in chosen.items() for size in sizes or ()]
    show(
        "A step with next to no kernels, all workers on this machine",
        rows,
        [
            "start: until the scheduler has all workers; open: until they hold the program; task: an epoch of one "
            "step, nearly all of it starting and ending a worker's long task; a step: of a task of up to 50.",
            "cpu, messages and kB are a worker's in a step; grown: what the scheduler's memory grew by in all steps; "
            "transitions: what it had to do for a step of all workers.",
        ],
    )
    facts = machine(1)
    show_machine(facts)
    write_json(args.json, {"machine": facts, "sizes": rows})
    write_csv(args.csv, rows)
    if plot:
        draw(plot, args.png, rows)


def fresh(args: argparse.Namespace, name: str, size: int) -> dict[str, Any]:
    """Return the figures of one size, from processes of its own."""
    command = [sys.executable, __file__, "--one", name, "--size", str(size), "--started", str(time())]
    command += ["--together", str(args.together)] + ["--quick"] * args.quick
    if name == "mpi":
        command = [mpiexec(), "-n", str(size + 2), *command]
    options: dict[str, Any] = {"capture_output": True, "text": True, "env": os.environ | OPTIONS}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{size} workers of {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def dask_cluster(size: int, together: int) -> Iterator[Any]:
    """Yield a client of a scheduler and of light workers, in processes of their own."""
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "scheduler.json")
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", file]
        command += ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        started = [subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=folder)]
        for first in range(0, size, together):
            count = str(min(together, size - first))
            own = [sys.executable, __file__, "--serve", file, "--size", count]
            started.append(subprocess.Popen(own, stderr=subprocess.DEVNULL, cwd=folder))
        try:
            with Client(scheduler_file=file, timeout=300) as client:
                client.wait_for_workers(size, timeout=600)
                with daskconv.start(threads=1, dashboard=False):
                    yield client
                client.shutdown()
        finally:
            for process in started:
                process.terminate()
                process.wait()


async def serve(file: str, count: int) -> None:
    """Be some of a scheduler's workers until it ends."""
    from distributed import Worker

    # Their threads hand each other the interpreter at every message.
    sys.setswitchinterval(1e-4)
    options: dict[str, Any] = {"nthreads": 1, "dashboard": False, "memory_limit": 0, "host": "127.0.0.1"}
    workers = await asyncio.gather(*(Worker(scheduler_file=file, **options) for _ in range(count)))
    await asyncio.gather(*(worker.finished() for worker in workers))


def measured(client: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a run on all of a client's workers, one shard each."""
    start, size = time() - args.started, args.size
    net = Sequential([Flatten(), Dense(8)], "tiny")
    x, y = random_images(STEPS * size, (2, 2, 1), 8)
    began = perf_counter()
    transport = opened_transport(net, x, y, size, 1, args.one, client, plan=plans.data(size))
    opened = perf_counter() - began
    first, _ = epoch(transport, client, 0, 1)
    task, tasks = epoch(transport, client, 1, 1)
    steps = max(2, min(3 if args.quick else STEPS, int(SECONDS / task)))
    epoch(transport, client, 2, steps)
    counted, before, used = client.run_on_scheduler(resident_bytes), traffic(transport), used_seconds(client)
    times, more, ended = [], 0, perf_counter() + SECONDS
    while not times or (perf_counter() < ended and len(times) < (2 if args.quick else ROUNDS)):
        seconds, handled = epoch(transport, client, 3 + len(times), steps)
        times.append(seconds)
        more += handled - tasks
    done, used = steps * len(times), used_seconds(client) - used
    grown = client.run_on_scheduler(resident_bytes) - counted
    messages, nbytes = (now - then for now, then in zip(traffic(transport), before, strict=True))
    transport.close()
    step = median(times) / steps
    return {
        "transport": args.one,
        "workers": size,
        "start_s": start,
        "open_s": opened,
        "first_step_s": first,
        "task_s": task,
        "ms_a_step": 1e3 * step,
        "steps/s": 1 / step,
        "cpu_ms": 1e3 * used / done / size,
        "messages": messages / done / size,
        "kB": nbytes / done / size / 1e3,
        "steps": done,
        "scheduler_MB": counted / 1e6,
        "grown_MB": grown / 1e6,
        "transitions_a_step": more / (done - len(times)),
    }


def epoch(transport: Any, client: Any, number: int, steps: int) -> tuple[float, int]:
    """Return the seconds of some steps, and how many transitions of tasks the scheduler made for them."""
    before, began = transitions(client), perf_counter()
    transport.run_epoch(number, lambda: False, steps)
    return perf_counter() - began, transitions(client) - before


def transitions(client: Any) -> int:
    """Return the scheduler's transitions once it has forgotten what nobody wants any more."""
    now, before = client.run_on_scheduler(_transitions), -1
    while now != before:
        sleep(0.1)
        now, before = client.run_on_scheduler(_transitions), now
    return now


def _transitions(dask_scheduler: Any) -> int:
    return dask_scheduler.transition_counter


def used_seconds(client: Any) -> float:
    """Return the processor seconds that all processes of workers have spent."""
    return sum(dict(client.run(_used_seconds).values()).values())


def _used_seconds() -> tuple[int, float]:
    return os.getpid(), process_time()


def traffic(transport: Any) -> tuple[int, int]:
    """Return the messages and bytes that all workers have sent so far."""
    sent = list(transport.traffic().values())
    return sum(count for count, _ in sent), sum(nbytes for _, nbytes in sent)


def draw(plot: Any, path: Path, rows: list[dict[str, Any]]) -> None:
    figure, axes = plot.subplots(1, 3, figsize=(12, 3.4))
    for axis, name, label in zip(
        axes,
        ("ms_a_step", "messages", "scheduler_MB"),
        ("ms a step", "messages a worker and step", "scheduler, MB"),
        strict=True,
    ):
        for transport in dict.fromkeys(row["transport"] for row in rows):
            some = [row for row in rows if row["transport"] == transport]
            axis.plot([row["workers"] for row in some], [row[name] for row in some], "o-", label=transport)
        axis.set(xlabel="workers", xscale="log", title=label)
        axis.legend()
    axes[0].set(yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
