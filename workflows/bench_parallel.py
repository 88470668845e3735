"""Data parallel training on 2 workers of 1 thread beside PyTorch's DDP (gloo, 2 processes of 1 thread).

The same nets, weights and total batches, in turns; every side runs in its own processes, which wait while the others
are at it. "alone" is the mpi transport's Program with its exchanges left out: two single workers at the same time. No
side encrypts, but "tls": the dask transport as daskconv.start sets it up when nobody says otherwise.

python workflows/bench_parallel.py --nets cifar10_quick vgg11
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from _measure import arguments, machine, ratios, show, show_machine, write_json

import daskconv

HERE = Path(__file__).parent
LAYOUTS = ("contiguous", "channels_last")
WORKERS = 2
DDP = "ddp "


@dataclass(frozen=True)
class Case:
    """A net, its images, how many all workers together take in a step, and the steps of a run."""

    network: Callable[[], daskconv.Network]
    input_shape: tuple[int, int, int]
    batch: int
    steps: int


def vgg11() -> daskconv.Network:
    from bench_train import vgg11

    return vgg11()


CASES = {
    "cifar10_quick": Case(daskconv.zoo.cifar10_quick, (32, 32, 3), 100, 100),
    "vgg11": Case(vgg11, (32, 32, 3), 128, 10),
    "alexnet": Case(daskconv.zoo.alexnet, (224, 224, 3), 64, 4),
}


def parse() -> argparse.Namespace:
    parser = arguments("Time data parallel training on 2 workers beside PyTorch's DDP.")
    parser.add_argument("--nets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--threads", type=int, default=1, help="of each worker, and of each of DDP's processes"
    )
    parser.add_argument("--rounds", type=int, help="paired runs; 5, or 2 with --quick")
    parser.add_argument("--steps", type=int, help="steps of a run; each net's own, or 3 with --quick")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.steps = args.steps or (3 if args.quick else None)
    return args


def main() -> None:
    args = parse()
    if args.serve:
        SIDES[args.serve](args)
        return
    if find_spec("torch") is None:
        raise SystemExit("This compares with PyTorch: pip install 'daskconv[bench]'.")
    rows = [row(args, name) for name in args.nets]
    title = f"Images a second with {WORKERS} workers; medians of {args.rounds} rounds, ratios round by round"
    show(title, rows)
    print(
        "over_ddp: against DDP in its better layout. efficiency: of mpi against two workers that exchange nothing."
    )
    facts = machine(args.threads) | {"rounds": args.rounds}
    show_machine(facts)
    write_json(args.json, {"machine": facts, "rows": rows})


def row(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return one net's figures: every side in turn, forwards and backwards."""
    with tempfile.TemporaryDirectory() as folder, Listener(family="AF_UNIX", authkey=KEY) as listener:
        sides = Sides(args, name, listener, folder)
        try:
            names = ["mpi", "alone", "dask", "tls", *(DDP + layout for layout in LAYOUTS)]
            for side in names:
                sides.run(side)
            times: dict[str, list[float]] = {side: [] for side in names}
            for turn in range(args.rounds):
                for side in names if turn % 2 == 0 else reversed(names):
                    times[side].append(sides.run(side))
        finally:
            sides.close()
    return figures(args, name, times)


def figures(args: argparse.Namespace, name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    case = CASES[name]
    better = min((DDP + layout for layout in LAYOUTS), key=lambda side: median(times[side]))
    images = case.batch * (args.steps or case.steps)
    found: dict[str, Any] = {"net": name, "batch": case.batch}
    found |= {side: images / median(seconds) for side, seconds in times.items()}
    for side in ("mpi", "dask"):
        ratio = ratios(times[better], times[side])
        found[f"{side}_over_ddp"] = ratio["median"]
        found[f"{side}_range"] = f"{ratio['min']:.2f} to {ratio['max']:.2f}"
    tls = ratios(times["dask"], times["tls"])
    found["tls_over_dask"] = tls["median"]
    found["tls_range"] = f"{tls['min']:.2f} to {tls['max']:.2f}"
    efficiency = ratios(times["alone"], times["mpi"])
    found["efficiency_%"] = 100 * efficiency["median"]
    found["efficiency_range"] = f"{100 * efficiency['min']:.0f} to {100 * efficiency['max']:.0f}"
    found["exposed_%"] = 100 - 100 * efficiency["median"]
    return found


# What lets the sides' processes in, and nobody else.
KEY = os.environ.setdefault("BENCH_PARALLEL_KEY", secrets.token_hex()).encode()


class Sides:
    """The processes of all sides of one net; each runs when it is told to."""

    def __init__(self, args: argparse.Namespace, name: str, listener: Listener, folder: str) -> None:
        self.processes: list[subprocess.Popen] = []
        self.links: dict[str, Connection] = {}
        path = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        steps = ["--steps", str(args.steps or CASES[name].steps)]
        options = ["--nets", name, "--threads", str(args.threads), *steps, "--address", str(listener.address)]
        script = [sys.executable, str(HERE / "bench_parallel.py"), *options]
        os.environ["BENCH_PARALLEL_STORE"] = path["BENCH_PARALLEL_STORE"] = str(Path(folder) / "store")
        mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
        started = {
            "mpi": [[mpiexec, "-n", str(WORKERS + 2), *script, "--serve", "mpi"]],
            "dask": [[*script, "--serve", "dask"]],
            "tls": [[*script, "--serve", "tls"]],
            "ddp": [[*script, "--serve", "ddp", "--rank", str(rank)] for rank in range(WORKERS)],
        }
        for side, commands in started.items():
            for command in commands:
                quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
                self.processes.append(subprocess.Popen(command, env=path, **quiet))
            self.links[side] = listener.accept()

    def run(self, side: str) -> float:
        """Return the seconds of one epoch."""
        family = "ddp" if side.startswith(DDP) else "mpi" if side == "alone" else side
        self.links[family].send(side.removeprefix(DDP))
        return self.links[family].recv()

    def close(self) -> None:
        for link in self.links.values():
            link.send(None)
            link.close()
        for process in self.processes:
            process.wait()


def serve(address: str, runs: dict[str, Callable[[], Any]]) -> None:
    """Run what the parent asks for until it has enough."""
    with Client(address, authkey=KEY) as link:
        while (name := link.recv()) is not None:
            started = perf_counter()
            runs[name]()
            link.send(perf_counter() - started)


def serve_daskconv(args: argparse.Namespace) -> None:
    """Be the driver of 2 workers, under mpiexec or with a local cluster."""
    import dask

    transport = "mpi" if args.serve == "mpi" else "dask"
    options: dict[str, Any] = {
        "threads": args.threads,
        "dashboard_address": "127.0.0.1:0",
        "tls": args.serve == "tls",
    }
    if transport == "dask":
        options["workers"] = WORKERS
    with daskconv.start(transport, **options) as client:
        runs = {args.serve: run_of(args, client, transport)}
        if transport == "mpi":
            with dask.config.set({"daskconv.mpi.exchanges": False}):
                runs["alone"] = run_of(args, client, transport)
        serve(args.address, runs)


def run_of(args: argparse.Namespace, client: Any, transport: str) -> Callable[[], Any]:
    """Return a function that trains one more epoch, as Trainer.fit does but without setting up anew."""
    from _training import training

    case = CASES[args.nets[0]]
    images = random_case(case, args.steps)
    return training(case.network(), *images, case.batch, args.threads, transport, client)


def random_case(case: Case, steps: int) -> tuple[np.ndarray, np.ndarray]:
    from _training import random_images

    return random_images(steps * case.batch, case.input_shape, 10)


def serve_ddp(args: argparse.Namespace) -> None:
    """Be one of DDP's processes: the first one listens to the parent, and tells the others."""
    import torch
    from torch import distributed

    torch.set_num_threads(args.threads)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= WORKERS * args.threads:
        os.sched_setaffinity(0, cores[args.rank * args.threads : (args.rank + 1) * args.threads])
    store = "file://" + os.environ["BENCH_PARALLEL_STORE"]
    distributed.init_process_group("gloo", init_method=store, rank=args.rank, world_size=WORKERS)
    runs = {layout: ddp_run(args, layout) for layout in LAYOUTS}

    def together(name: str | None) -> None:
        told = [name]
        distributed.broadcast_object_list(told)
        if told[0] is not None:
            runs[told[0]]()

    if args.rank == 0:
        serve(args.address, {layout: lambda layout=layout: together(layout) for layout in LAYOUTS})
        together(None)
    else:
        told = [""]
        while told[0] is not None:
            distributed.broadcast_object_list(told)
            if told[0] is not None:
                runs[told[0]]()
    distributed.destroy_process_group()


def ddp_run(args: argparse.Namespace, layout: str) -> Callable[[], Any]:
    """Return one process's epoch: of every batch it takes its part, as DistributedSampler does."""
    import torch
    from _torch import TorchNetwork
    from _training import DECAY, MOMENTUM, RATE
    from torch.nn.parallel import DistributedDataParallel

    case = CASES[args.nets[0]]
    form = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    x, y = random_case(case, args.steps)
    module = TorchNetwork(case.network(), case.input_shape).to(memory_format=form)
    parallel = DistributedDataParallel(module, gradient_as_bucket_view=True)
    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form)
    targets = torch.from_numpy(y)
    mean = torch.from_numpy(x.mean(0, dtype=np.float64).astype(np.float32)).permute(2, 0, 1)
    optimizer = torch.optim.SGD(parallel.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    epochs, mine = count(), case.batch // WORKERS

    def epoch() -> float:
        total, draw = 0.0, torch.Generator().manual_seed(next(epochs))
        for batch in torch.randperm(len(images), generator=draw).split(case.batch):
            indices = batch[args.rank * mine : (args.rank + 1) * mine]
            optimizer.zero_grad()
            scores = parallel(images[indices].float().sub_(mean))
            loss = torch.nn.functional.cross_entropy(scores, targets[indices])
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total

    return epoch


SIDES = {"mpi": serve_daskconv, "dask": serve_daskconv, "tls": serve_daskconv, "ddp": serve_ddp}

if __name__ == "__main__":
    main()
