"""Strong and weak scaling of data, model, hybrid and spatial parallelism, over MPI.

Strong: the same batch on more and more workers. Weak: as many images to each worker, however many there are. A run of
every plan on all workers, then on half of them, down to one. Without mpiexec the script starts itself on this machine's
cores; on a cluster it is started like any other job:

mpiexec -n 34 python workflows/scaling.py --net alexnet --batch 256 --png scaling.png

The slides' environment A, which nobody here has, is simulated beside it: 64 nodes, batch 256 of 3x120x160, data against
hybrid parallelism.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from _measure import arguments, machine, mpiexec, pyplot, show, show_machine, write_json
from _simulated import shown
from _training import opened_transport, random_images

import daskconv
from daskconv import Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D, ReLU, Sequential, plans
from daskconv.cost.machine import load_machine
from daskconv.cost.scaling import scaled
from daskconv.graph.threads import cores
from daskconv.run.launcher import launcher_ranks


def wide_head() -> daskconv.Network:
    """Return the CIFAR-10 net's convolutions before dense layers as wide as AlexNet's."""
    nodes = daskconv.zoo.cifar10_quick().nodes
    features: list[Any] = [
        (node.name, node.layer) for node in nodes if not isinstance(node.layer, Dense | Flatten)
    ]
    head: list[Any] = [("flat", Flatten()), ("wide1", Dense(4096)), ("wide1/relu", ReLU())]
    head += [("wide2", Dense(4096)), ("wide2/relu", ReLU()), ("scores", Dense(10))]
    return Sequential([*features, *head], "wide_head")


def full_hd() -> daskconv.Network:
    """Return a net for photographs of 1080x1920."""
    layers: list[Any] = []
    for filters in (16, 32, 64):
        layers += [Conv2D(filters, 3, stride=2, padding=1), ReLU(), Conv2D(filters, 3, padding=1), ReLU()]
    return Sequential([*layers, MaxPool2D(2), GlobalAvgPool2D(), Dense(10)], "full_hd")


# A net, its images, the batch on one worker or of all, and the steps of a run.
CASES = {
    "cifar10_quick": (daskconv.zoo.cifar10_quick, (32, 32, 3), 96, 12),
    "wide_head": (wide_head, (32, 32, 3), 96, 6),
    "full_hd": (full_hd, (1080, 1920, 3), 4, 2),
    "alexnet": (daskconv.zoo.alexnet, (224, 224, 3), 64, 2),
}
QUICK = {"cifar10_quick": (16, 2), "wide_head": (16, 2), "full_hd": (2, 1), "alexnet": (4, 1)}


def parse() -> argparse.Namespace:
    parser = arguments("Measure strong and weak scaling over MPI.")
    parser.add_argument("--net", choices=CASES, default="cifar10_quick")
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--batch", type=int, help="images of a step, on one worker in weak scaling")
    parser.add_argument("--steps", type=int, help="steps of a run")
    parser.add_argument("--rounds", type=int, default=3, help="runs after one that is not counted")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the speed by workers")
    args = parser.parse_args()
    batch, steps = QUICK[args.net] if args.quick else CASES[args.net][2:]
    args.batch, args.steps = args.batch or batch, args.steps or steps
    args.rounds = 1 if args.quick else args.rounds
    return args


PLANS = {
    "data": plans.data,
    "model": plans.model,
    "hybrid": plans.hybrid,
    "spatial": lambda shards: plans.spatial(h=shards),
}


def main() -> None:
    args = parse()
    if not launcher_ranks():
        sys.exit(launched(args.threads))
    plot = pyplot() if args.png else None
    with daskconv.start("mpi", threads=args.threads) as client:
        rows = measure(args, client)
    show(
        f"{args.net}, medians of {args.rounds} runs of {args.steps} steps",
        [{name: value for name, value in row.items() if name != "each"} for row in rows],
        [
            "speedup: images a second over one worker's. compute, exchange and idle are shares of all workers' time: "
            "exchange is what the worker that waits least waits, idle what others wait besides."
        ],
    )
    slides = environment_a(args.quick)
    shown("environment A, batch 256 of 3x120x160", slides, [_SLIDES])
    facts = machine(args.threads)
    show_machine(facts)
    write_json(args.json, {"machine": facts, "scaling": rows, "environment_a_simulated": slides})
    if plot:
        draw(plot, args.png, rows, slides)


_SLIDES = "The slides: data parallel scales further than hybrid to 64 nodes."


def environment_a(quick: bool) -> list[dict[str, Any]]:
    """Return simulated steps of data and hybrid plans on the slides' nodes."""
    figures, counts = load_machine("environment_a"), (1, 64) if quick else (1, 2, 4, 8, 16, 32, 64)
    rows = []
    for net in ("googlenet", "alexnet"):
        network = daskconv.zoo.build(net, 1000)
        found = scaled(network, (120, 160, 3), 256, figures, counts, ("data", "hybrid", "auto"))
        rows += [{"net": net} | row for row in found]
    return rows


def launched(threads: int) -> int:
    """Run this script under mpiexec, with a worker for each core."""
    ranks = str(max(2, len(cores()) // threads) + 2)
    command = [mpiexec(), "-n", ranks, sys.executable, *sys.argv]
    return subprocess.run(command, env=os.environ, check=False).returncode


def measure(args: argparse.Namespace, client: Any) -> list[dict[str, Any]]:
    rows = []
    shards = workers = len(addresses(client))
    while True:
        for plan in args.plans:
            for scaling in ("strong", "weak"):
                rows.append(run(args, client, scaling, plan, PLANS[plan](shards), workers))
        if workers == 1:
            break
        workers //= 2
        client.retire_workers(addresses(client)[workers:])
    for row in rows:
        alone = next(
            other["images/s"]
            for other in rows
            if other["workers"] == 1 and (other["scaling"], other["plan"]) == (row["scaling"], row["plan"])
        )
        row["speedup"] = row["images/s"] / alone
        row["efficiency_%"] = 100 * row["speedup"] / row["workers"]
    return sorted(rows, key=lambda row: (row["scaling"], row["plan"], row["workers"]))


def addresses(client: Any) -> list[str]:
    return list(client.scheduler_info(n_workers=-1)["workers"])


def run(
    args: argparse.Namespace, client: Any, scaling: str, name: str, plan: Any, workers: int
) -> dict[str, Any]:
    """Return the figures of one plan on the workers that are there."""
    network, shape = CASES[args.net][0](), CASES[args.net][1]
    batch = args.batch * (workers if scaling == "weak" else 1)
    x, y = random_images(batch * args.steps, shape, 10)
    transport = opened_transport(network, x, y, batch, args.threads, "mpi", client, plan=plan)
    seconds, waits, before = [], [], sent(transport)
    try:
        transport.run_epoch(0, lambda: False)
        sent_once = sent(transport) - before
        for epoch in range(1, args.rounds + 1):
            waited, started = transport.waited(), perf_counter()
            transport.run_epoch(epoch, lambda: False)
            seconds.append(perf_counter() - started)
            waits.append([now - then for now, then in zip(transport.waited(), waited, strict=True)])
    finally:
        transport.close()
    middle = sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
    took, waited = seconds[middle], waits[middle]
    exchange = min(waited)
    each = [{"compute": took - w, "exchange": exchange, "idle": w - exchange} for w in waited]
    shares = {
        f"{kind}_%": 100 * sum(worker[kind] for worker in each) / (took * len(each))
        for kind in ("compute", "exchange", "idle")
    }
    facts = {"scaling": scaling, "plan": name, "workers": workers, "batch": batch}
    speed = batch * args.steps / median(seconds)
    return facts | {"images/s": speed} | shares | {"MB_a_step": sent_once / args.steps / 1e6, "each": each}


def sent(transport: Any) -> int:
    return sum(nbytes for _, nbytes in transport.traffic().values())


def draw(plot: Any, path: Path, rows: list[dict[str, Any]], slides: list[dict[str, Any]]) -> None:
    figure, axes = plot.subplots(1, 4, figsize=(16, 3.6))
    for axis, scaling in zip(axes, ("strong", "weak"), strict=False):
        for plan in dict.fromkeys(row["plan"] for row in rows):
            some = [row for row in rows if (row["scaling"], row["plan"]) == (scaling, plan)]
            axis.plot([row["workers"] for row in some], [row["speedup"] for row in some], "o-", label=plan)
        most = max(row["workers"] for row in rows)
        axis.plot([1, most], [1, most], "k:", label="ideal")
        axis.set(title=f"{scaling} scaling", xlabel="workers", xscale="log", yscale="log")
        axis.set_xticks(workers := sorted({row["workers"] for row in rows}), workers)
        axis.minorticks_off()
    for axis, net in zip(axes[2:], ("googlenet", "alexnet"), strict=True):
        for plan in dict.fromkeys(row["plan"] for row in slides):
            some = [row for row in slides if (row["net"], row["plan"]) == (net, plan)]
            axis.plot([row["nodes"] for row in some], [row["speedup"] for row in some], ".-", label=plan)
        axis.plot([1, 64], [1, 64], "k:", label="ideal")
        axis.set(title=f"environment A simulated, {net}", xlabel="nodes", xscale="log", yscale="log")
    axes[3].legend()
    axes[0].set(ylabel="speedup over one worker")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
