"""The cost model against measured steps of this machine: time, bytes and memory, and the plan that it chooses.

For one network after the other, in each round, the machine is calibrated on its own; then steps are timed under
mpiexec, for plans, transports, numbers of workers and batch sizes. What a machine does besides changes from minute to
minute: so the workers time the network's layers again, all at once, and their messages, just before and just after the
steps that these predict, errors are those of a round, and their medians are shown. The script starts itself under
mpiexec, where it only times, and writes what it finds (--json):

python workflows/check_costs.py --csv check_costs.csv --png check_costs.png
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from threading import Thread
from time import perf_counter
from typing import Any

from _measure import (
    alternate,
    arguments,
    grown,
    machine,
    mpiexec,
    pyplot,
    ratios,
    show,
    show_machine,
    spread,
    write_csv,
    write_json,
)
from _training import opened_transport, random_images
from scaling import addresses, sent, wide_head

import daskconv
from daskconv import plans
from daskconv.cost.choose import choose_plan
from daskconv.cost.machine import Kernel, Machine, load_machine
from daskconv.cost.price import price
from daskconv.cost.simulate import simulate
from daskconv.cost.trace import Case
from daskconv.kernels import heap
from daskconv.launch.calibrate import calibrate
from daskconv.launch.kernels import measure_kernels
from daskconv.launch.links import messages
from daskconv.launch.parts import with_serial
from daskconv.plan.tasks import CHAIN
from daskconv.run.launcher import launcher_ranks

NETS = {
    "cifar10_quick": (daskconv.zoo.cifar10_quick, (32, 32, 3), (48, 80)),
    "wide_head": (wide_head, (32, 32, 3), (40,)),
    "resnet20": (daskconv.zoo.resnet20, (32, 32, 3), (36,)),
    "vgg11": (daskconv.zoo.vgg11, (32, 32, 3), (28,)),
}
PLANS = {"data": plans.data(2), "hybrid": plans.hybrid(2), "model": plans.model(2)}
# Those of an epoch: what a Dask cluster's workers do from one copy of the state on the driver to the next.
STEPS = CHAIN
# Epochs that are timed, and seconds after which no more are.
_EPOCHS, _SECONDS = 3, 8.0
# The same for plans that take turns.
_TURNS, _TURNS_SECONDS = 5, 30.0


def parse() -> argparse.Namespace:
    parser = arguments("Compare the cost model with measured steps.")
    parser.add_argument(
        "--machine", type=Path, metavar="FILE", help="figures of daskconv calibrate, else made now"
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=3, help="times that it all is calibrated and timed")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw prediction against measurement")
    args = parser.parse_args()
    args.rounds = 1 if args.quick else args.rounds
    args.nets = args.nets[:1] if args.quick else args.nets
    args.steps = 6 if args.quick else STEPS
    return args


def main() -> None:
    args = parse()
    if launcher_ranks():
        timed(args)
        return
    plot = pyplot() if args.png else None
    rounds = [[launched(args, net) for net in args.nets] for _ in range(args.rounds)]
    rows, choices, memory = (
        middle_rows([[row for part in parts for row in part[key]] for parts in rounds])
        for key in ("steps", "choices", "memory")
    )
    summary = summarised(rows, memory)
    show("Predicted and measured steps", rows)
    show("Plan auto beside fixed plans, mpi, 2 workers; ms a step", choices)
    show("Growth of a process by a step, 1 worker, 1 thread", memory)
    show("Errors of predictions, medians", [summary])
    facts = machine(1)
    show_machine(facts)
    write_json(
        args.json, {"machine": facts, "steps": rows, "choices": choices, "memory": memory, "errors": summary}
    )
    write_csv(args.csv, rows)
    if plot:
        draw(plot, args.png, rows)


def launched(args: argparse.Namespace, net: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is measured of a network, by this script under mpiexec with 2 workers."""
    with TemporaryDirectory() as folder:
        figures, found = args.machine or Path(folder) / "machine.json", Path(folder) / "found.json"
        if args.machine is None:
            nets = [(NETS[net][0](), NETS[net][1])]
            calibrate(nets, figures, report=lambda text: print(f"calibrating: {text}", flush=True))
        command = [mpiexec(), "-n", "4", sys.executable, __file__, "--nets", net]
        options = ["--machine", str(figures), "--json", str(found)]
        subprocess.run([*command, *options, *["--quick"] * args.quick], check=True)
        return json.loads(found.read_text())


def middle_rows(rounds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of all rounds as one each: medians of the figures, and every word that was said."""
    rows = []
    for same in zip(*rounds, strict=True):
        values = {name: [row[name] for row in same] for name in same[0]}
        rows.append(
            {
                name: median(some) if isinstance(some[0], float) else joined(some)
                for name, some in values.items()
            }
        )
        if "measured_ms" in values:
            found = spread(values["measured_ms"])
            rows[-1]["spread_%"] = 100 * (found["high"] - found["low"]) / found["median"]
    return rows


def joined(values: list[Any]) -> Any:
    """Return a value that rounds agree on, or all of them."""
    return values[0] if len(set(values)) == 1 else " / ".join(map(str, dict.fromkeys(values)))


def timed(args: argparse.Namespace) -> None:
    """Time steps on the workers of this job, and write what was found."""
    figures = load_machine(args.machine)
    with daskconv.start("mpi", threads=1) as client:
        choices = [choice(args, client, figures, name) for name in args.nets]
        rows = measure(args, client, figures)
    memory = [memory_row(name, figures) for name in args.nets]
    write_json(args.json, {"steps": rows, "choices": choices, "memory": memory})


def measure(args: argparse.Namespace, client: Any, figures: Machine) -> list[dict[str, Any]]:
    rows = []
    for workers in (2, 1):
        if workers == 1:
            client.retire_workers(addresses(client)[1:])
        for name in args.nets:
            for batch in NETS[name][2][: 1 if args.quick else None]:
                for plan in PLANS if name in ("cifar10_quick", "wide_head") else ("data",):
                    for transport in ("mpi", "dask") if plan == "data" or workers == 2 else ("mpi",):
                        rows.append(row(args, client, figures, name, batch, plan, transport, workers))
    return rows


def row(
    args: argparse.Namespace,
    client: Any,
    figures: Machine,
    name: str,
    batch: int,
    plan: str,
    transport: str,
    workers: int,
) -> dict[str, Any]:
    print(f"timing: {name}, batch {batch}, {plan}, {transport}, {workers} workers", flush=True)
    network, shape = NETS[name][0](), NETS[name][1]
    x, y = random_images(batch * args.steps, shape, 10)
    opened = opened_transport(network, x, y, batch, 1, transport, client, plan=PLANS[plan])
    counted, now = 0, partial(machine_now, client, figures, name, plan, transport)
    try:
        opened.run_epoch(0, lambda: False)
        before, machines = sent(opened) if transport == "mpi" else 0, [now()]
        times = timed_epochs(opened)
        machines.append(now())
        if transport == "mpi":
            counted = (sent(opened) - before) // (args.steps * len(times))
    finally:
        opened.close()
    case = Case(network, shape, batch)
    runs = [simulate(price(case, PLANS[plan], each, workers, transport)) for each in machines]
    predicted, seconds = mean(run.seconds for run in runs), median(times) / args.steps
    return {
        "net": name,
        "batch": batch,
        "plan": plan,
        "transport": transport,
        "workers": workers,
        "predicted_ms": 1e3 * predicted,
        "measured_ms": 1e3 * seconds,
        "error_%": 100 * (predicted / seconds - 1),
        "predicted_bytes": runs[0].cost.sent if transport == "mpi" else 0.0,
        "sent_bytes": float(counted),
    }


def timed_epochs(opened: Any) -> list[float]:
    """Return the seconds of some epochs: of short ones more, since a disturbance spoils them all."""
    times: list[float] = []
    while len(times) < _EPOCHS and sum(times) < _SECONDS:
        started = perf_counter()
        opened.run_epoch(1 + len(times), lambda: False)
        times.append(perf_counter() - started)
    return times


def machine_now(client: Any, figures: Machine, name: str, plan: str, transport: str) -> Machine:
    """Return the machine with what layers, and messages between two workers, take now."""
    links = messages(client, transport) if len(addresses(client)) > 1 else {}
    return replace(figures, kernels=timed_kernels(client, name, plan), **links)


def timed_kernels(client: Any, name: str, plan: str) -> tuple[Kernel, ...]:
    """Return what layers take a worker now, while all do the same; parts of them too, where a plan has any."""
    make, shape, _ = NETS[name]
    futures = [
        client.submit(_kernels, make, shape, plan != "data", workers=[worker], pure=False)
        for worker in addresses(client)
    ]
    return tuple(
        replace(
            one[0],
            seconds=mean(kernel.seconds for kernel in one),
            each=mean(kernel.each for kernel in one),
            serial=mean(kernel.serial for kernel in one),
            crowding=1.0,
        )
        for one in zip(*client.gather(futures), strict=True)
    )


def _kernels(make: Callable[[], Any], shape: tuple[int, int, int], parts: bool) -> list[Kernel]:
    kernels = measure_kernels(make(), shape)
    return with_serial(kernels, make(), shape) if parts else kernels


def choice(args: argparse.Namespace, client: Any, figures: Machine, name: str) -> dict[str, Any]:
    """Return what steps of the plan that is chosen take beside those of fixed plans, in turns."""
    print(f"timing: {name}, plan auto beside fixed plans", flush=True)
    network, shape, (batch, *_) = NETS[name][0](), *NETS[name][1:]
    chosen = choose_plan(Case(network, shape, batch), figures, 2, "mpi").best
    x, y = random_images(batch * args.steps, shape, 10)
    sides = {
        plan: opened_transport(network, x, y, batch, 1, "mpi", client, plan=each)
        for plan, each in {**PLANS, "auto": chosen.plan}.items()
    }
    epochs, started = count(), perf_counter()
    runs = {
        side: partial(lambda opened: opened.run_epoch(next(epochs), lambda: False), opened)
        for side, opened in sides.items()
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    try:
        while not times["auto"] or (
            len(times["auto"]) < _TURNS and perf_counter() - started < _TURNS_SECONDS
        ):
            for side, seconds in alternate(runs, rounds=1).items():
                times[side] += seconds
    finally:
        for opened in sides.values():
            opened.close()
    found = {plan: 1e3 * median(seconds) / args.steps for plan, seconds in times.items()}
    best = min(PLANS, key=lambda plan: found[plan])
    return {
        "net": name,
        "batch": batch,
        "chosen": chosen.plan.name,
        **found,
        "best": best,
        "auto_over_best": ratios(times["auto"], times[best])["median"],
    }


def memory_row(name: str, figures: Machine) -> dict[str, Any]:
    network, shape, (batch, *_) = NETS[name][0](), *NETS[name][1:]
    batch *= 8
    cost = price(Case(network, shape, batch), plans.data(1), figures, 1, "local")
    most = max(1.0, grown(memory_job, name, batch)[0])
    return {
        "net": name,
        "batch": batch,
        "predicted_MB": cost.memory / 1e6,
        "measured_MB": most,
        "error_%": 100 * (cost.memory / 1e6 / most - 1),
    }


def memory_job(name: str, batch: int) -> Callable[[], Any]:
    """Return steps of a network, with libraries and compiled kernels in memory already."""
    network, shape = NETS[name][0](), NETS[name][1]

    def train(batch: int, x: Any, y: Any) -> None:
        opened = opened_transport(network, x, y, batch, 1, "local", None, plan=plans.data(1))
        opened.run_epoch(0, lambda: False)
        opened.close()

    # What kernels work in is a thread's: it ends with this one.
    first = Thread(target=train, args=(8, *random_images(8, shape, 10)))
    first.start()
    first.join()
    heap.release()
    return partial(train, batch, *random_images(2 * batch, shape, 10))


def summarised(rows: list[dict[str, Any]], memory: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of the errors' sizes, and how many predictions are within 10 % or twice the spread."""

    def middle(some: list[dict[str, Any]]) -> float:
        return median(abs(row["error_%"]) for row in some)

    within = [abs(row["error_%"]) <= max(10, 2 * row["spread_%"]) for row in rows]
    carried = [row for row in rows if row["sent_bytes"]]
    return {
        "all_%": middle(rows),
        "data_%": middle([row for row in rows if row["plan"] == "data"]),
        "split_%": middle([row for row in rows if row["plan"] != "data"]),
        "mpi_%": middle([row for row in rows if row["transport"] == "mpi"]),
        "dask_%": middle([row for row in rows if row["transport"] == "dask"]),
        "within_10_%_or_twice_the_spread": f"{sum(within)} of {len(within)}",
        "memory_%": middle(memory),
        "bytes_worst_%": max(100 * abs(row["predicted_bytes"] / row["sent_bytes"] - 1) for row in carried),
    }


def draw(plot: Any, path: Path, rows: list[dict[str, Any]]) -> None:
    figure, axis = plot.subplots(figsize=(5, 4.6))
    for transport, mark in (("mpi", "o"), ("dask", "s")):
        for workers, colour in ((1, "tab:blue"), (2, "tab:orange")):
            some = [row for row in rows if (row["transport"], row["workers"]) == (transport, workers)]
            points = [row["measured_ms"] for row in some], [row["predicted_ms"] for row in some]
            axis.plot(
                *points, mark, color=colour, label=f"{transport}, {workers} worker{'s' * (workers > 1)}"
            )
    ends = [min(row["measured_ms"] for row in rows), max(row["measured_ms"] for row in rows)]
    axis.plot(ends, ends, "k:", label="equal")
    axis.set(xlabel="measured ms a step", ylabel="predicted ms a step", xscale="log", yscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
