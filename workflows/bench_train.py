"""Whole training steps beside PyTorch: the same net, weights, batches and threads, in alternating runs; and memory.

python workflows/bench_train.py --threads 1 2
python workflows/bench_train.py --nets vgg11 --steps 2
python workflows/bench_train.py --nets cifar10_quick --epoch --data cifar10.npz
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from _measure import alternate, arguments, grown, machine, ratios, show, show_machine, write_json
from _torch import TorchNetwork, torch
from _training import DECAY, MOMENTUM, RATE, laps, local_run, random_images

import daskconv
from daskconv.graph.threads import available_threads
from daskconv.kernels import lowering

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EPOCH_IMAGES = 50_000
# Filters of the 3x3 convolutions; None is max pooling by 2.
VGG11 = (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None)


@dataclass(frozen=True)
class Case:
    """A net, its images and how many a step has."""

    network: Callable[[], daskconv.Network]
    input_shape: tuple[int, int, int]
    batch: int

    def module(self) -> TorchNetwork:
        """Return the net in PyTorch, with the same weights."""
        return TorchNetwork(self.network(), self.input_shape)


def vgg11() -> daskconv.Network:
    """Return VGG-11 (Simonyan and Zisserman 2015) for 32x32 images: its convolutions, and one dense layer."""
    # The first weights are small, as pixels of 0 to 255 are large: the loss would leave the floats in a few steps.
    init: daskconv.Initializer = daskconv.Normal(4e-3)
    layers: list[daskconv.Layer] = []
    for filters in VGG11:
        if filters:
            layers += [daskconv.Conv2D(filters, 3, padding=1, weight_init=init), daskconv.ReLU()]
            init = daskconv.HeNormal()
        else:
            layers.append(daskconv.MaxPool2D(2))
    return daskconv.Sequential([*layers, daskconv.Flatten(), daskconv.Dense(10)], name="vgg11")


CASES = {
    "cifar10_quick": Case(daskconv.zoo.cifar10_quick, (32, 32, 3), 100),
    "vgg11": Case(vgg11, (32, 32, 3), 128),
    "resnet20": Case(daskconv.zoo.resnet20, (32, 32, 3), 128),
    "googlenet": Case(daskconv.zoo.googlenet, (224, 224, 3), 16),
    "resnet18": Case(daskconv.zoo.resnet18, (224, 224, 3), 16),
}


def parse() -> argparse.Namespace:
    parser = arguments("Time training steps of daskconv and PyTorch.")
    everything = sorted({1, available_threads()})
    parser.add_argument("--threads", type=int, nargs="+", default=everything, help="such as: 1 2")
    parser.add_argument("--nets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, help="paired runs; 7, or 3 with --quick")
    parser.add_argument("--steps", type=int, help="training steps of a run; 20, or 4 with --quick")
    parser.add_argument("--batch", type=int, help="images of a step; else each net's own")
    parser.add_argument("--epoch", action="store_true", help=f"also time an epoch of {EPOCH_IMAGES:,} images")
    parser.add_argument("--data", metavar="FILE", help="the epoch's images, an .npz file; else random ones")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 7)
    args.steps = args.steps or (4 if args.quick else 20)
    return args


def main() -> None:
    args = parse()
    if args.batch:
        CASES.update({name: replace(case, batch=args.batch) for name, case in CASES.items()})
    figures: dict[str, list] = {"rows": [], "memory": [], "epochs": [], "profiles": []}
    for name in args.nets:
        for part, rows in compare(args, name, CASES[name]).items():
            figures[part] += rows
    print("ratio: the time of daskconv over that of PyTorch in its better layout, round by round.")
    facts = machine(" and ".join(map(str, args.threads))) | {"rounds": args.rounds, "steps": args.steps}
    show_machine(facts)
    write_json(args.json, {"machine": facts} | {part: rows for part, rows in figures.items() if rows})


def compare(args: argparse.Namespace, name: str, case: Case) -> dict[str, list]:
    x, y = random_images(args.steps * case.batch, case.input_shape, 10)
    check_same(case, x[: case.batch])
    rows = [steps_row(name, x, y, threads, args.rounds) for threads in args.threads]
    show(f"A training step of {name}, batch {case.batch}; medians of {args.rounds} rounds", rows)
    memory = [memory_row(name, threads) for threads in args.threads]
    show("By how much resident memory grows in two steps, model and all: at most, and at their end", memory)
    parts = profile(name, x, y, args.rounds)
    show("Where daskconv's time goes on 1 thread; share in %", parts)
    found = {"rows": rows, "memory": memory, "profiles": parts}
    if args.epoch:
        images = epoch_images(args.data, case)
        found["epochs"] = [epoch_row(name, *images, threads) for threads in args.threads]
        show(f"One epoch of {len(images[0]):,} images, one run", found["epochs"])
    return found


def steps_row(name: str, x: np.ndarray, y: np.ndarray, threads: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds a step, and the ratio to PyTorch in the layout that is faster here."""
    steps = -(-len(x) // CASES[name].batch)
    times = alternate(contestants(CASES[name], x, y, threads), rounds)
    better = min(LAYOUTS, key=lambda layout: median(times[layout]))
    ratio = ratios(times["daskconv"], times[better])
    return {
        "net": name,
        "threads": threads,
        **{f"{side}_ms": 1000 * median(seconds) / steps for side, seconds in times.items()},
        "better_layout": better,
        "ratio": ratio["median"],
        "quartiles": f"{ratio['low']:.2f} to {ratio['high']:.2f}",
        "range": f"{ratio['min']:.2f} to {ratio['max']:.2f}",
    }


def epoch_row(name: str, x: np.ndarray, y: np.ndarray, threads: int) -> dict[str, Any]:
    times = alternate(contestants(CASES[name], x, y, threads), 1, warm_up=False)
    better = min(times[layout][0] for layout in LAYOUTS)
    row: dict[str, Any] = {"net": name, "threads": threads}
    row |= {f"{side}_s": seconds[0] for side, seconds in times.items()}
    return row | {"ratio": times["daskconv"][0] / better}


def epoch_images(data: str | None, case: Case) -> tuple[np.ndarray, np.ndarray]:
    if data is None:
        return random_images(EPOCH_IMAGES, case.input_shape, 10)
    found = daskconv.datasets.load(data)
    return found.x_train[:EPOCH_IMAGES], found.y_train[:EPOCH_IMAGES]


def contestants(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> dict[str, Callable[[], Any]]:
    """Return a function for each side that trains one epoch of x.

    daskconv caps BLAS to one thread only while it runs, and PyTorch's pool sleeps meanwhile.
    """
    torch.set_num_threads(threads)
    return {side: contestant(case, x, y, side, threads) for side in ("daskconv", *LAYOUTS)}


def contestant(case: Case, x: np.ndarray, y: np.ndarray, side: str, threads: int) -> Callable[[], Any]:
    if side == "daskconv":
        return local_run(case.network(), x, y, case.batch, threads)
    return torch_run(case, x, y, side)


def torch_run(case: Case, x: np.ndarray, y: np.ndarray, layout: str) -> Callable[[], Any]:
    """Return PyTorch's epoch: images wait as uint8, in the layout that its convolutions read."""
    module = case.module()
    module = module.to(memory_format=LAYOUTS[layout])
    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=LAYOUTS[layout])
    mean = torch.from_numpy(x.mean(0, dtype=np.float64).astype(np.float32)).permute(2, 0, 1)
    optimizer = torch.optim.SGD(module.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    return partial(torch_epoch, module, optimizer, images, mean, torch.from_numpy(y), case.batch)


def torch_epoch(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    mean: torch.Tensor,
    y: torch.Tensor,
    batch: int,
) -> float:
    total = 0.0
    for indices in torch.randperm(len(images)).split(batch):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(images[indices].float().sub_(mean)), y[indices])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(indices)
    return total / len(images)


def memory_row(name: str, threads: int) -> dict[str, Any]:
    row: dict[str, Any] = {"net": name, "threads": threads}
    for side in ("daskconv", *LAYOUTS):
        row[f"{side}_peak_MB"], row[f"{side}_end_MB"] = grown(memory_job, CASES[name], side, threads)
    return row


def memory_job(case: Case, side: str, threads: int) -> Callable[[], Any]:
    """Return what trains a side's model for two steps; its library has trained a small one before."""
    torch.set_num_threads(threads)
    small = CASES["resnet20"]
    x, y = random_images(16, small.input_shape, 10)
    contestant(replace(small, batch=8), x, y, side, threads)()
    x, y = random_images(2 * case.batch, case.input_shape, 10)
    return partial(_trained, case, x, y, side, threads)


def _trained(case: Case, x: np.ndarray, y: np.ndarray, side: str, threads: int) -> Callable[[], Any]:
    run = contestant(case, x, y, side, threads)
    run()
    return run  # a model is in memory as long as it is trained


def check_same(case: Case, x: np.ndarray) -> None:
    """End where the two nets make different scores of the same weights: they would not be one net."""
    network, module = case.network(), case.module().eval()
    params, methods = (
        network.init(0, case.input_shape),
        network.choose_methods(case.input_shape, "auto", "exact"),
    )
    images = x[:4].astype(np.float32) - 128
    context = daskconv.Context(statistics=network.init_statistics(case.input_shape))
    ours, _ = network.forward(params, images, context, methods)
    with torch.no_grad():
        theirs = module(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    error = abs(ours - theirs).max() / abs(theirs).max()
    if not error < 1e-4:
        raise SystemExit(f"The nets differ: from the same weights, scores are {error:.1e} apart.")


def profile(name: str, x: np.ndarray, y: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each part of daskconv's step, from extra runs on one thread with a stopwatch."""
    case = CASES[name]
    inside = ((lowering, "lower", "lowering"), (np, "matmul", "product"))
    found = laps(case.network(), x, y, case.batch, 1, rounds, lambda node, _: _part(node), inside)
    parts = {part: median(lap[part] for lap in found) for part in found[0]}
    total = sum(parts.values())
    rows = [{"net": name, "part": part, "ms": ms, "share": 100 * ms / total} for part, ms in parts.items()]
    return sorted(rows, key=lambda row: -row["ms"])


def _part(node: daskconv.Node) -> str:
    if isinstance(node.layer, daskconv.Conv2D):
        return "rest of convolutions"
    if isinstance(node.layer, daskconv.MaxPool2D | daskconv.AvgPool2D | daskconv.GlobalAvgPool2D):
        return "pooling"
    if isinstance(node.layer, daskconv.BatchNorm | daskconv.LRN):
        return "normalisation"
    return "rest of dense" if isinstance(node.layer, daskconv.Dense) else "pointwise"


if __name__ == "__main__":
    main()
