"""Single convolutions beside PyTorch: every method, forward and both gradients, in alternating runs.

The layers are the 3 of the slides' CIFAR-10 net, the 20 spatial ones of GoogLeNet, 1x1 layers of GoogLeNet
and ResNet-50, kernels from 7x7 to 31x31, and ten random shapes that nobody tuned for.

``--unfold`` adds PyTorch's unfold and matmul, the plain lowering of another library.

    python workflows/bench_layers.py --methods auto lowering --threads 1 --png layers.png
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from math import exp, log
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from _layers import CIFAR, GOOGLENET, LARGE, POINTWISE, Layer, random_layers
from _lowered import torch_unfold
from _measure import alternate, arguments, interval, machine, pyplot, show, show_machine, write_json

from daskconv.errors import InputError
from daskconv.graph import conv
from daskconv.graph.choose import METHODS, PASSES, choose
from daskconv.graph.threads import available_threads, one_thread_each
from daskconv.kernels.tile import VECTORS, add_tile, tiles_of

try:
    import torch
except ImportError:
    raise SystemExit("bench_layers.py compares with PyTorch: pip install 'daskconv[bench]'.") from None

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def parse() -> argparse.Namespace:
    parser = arguments("Time the methods of single convolutions beside PyTorch.")
    parser.add_argument("--threads", type=int, default=available_threads(), help="of both libraries")
    parser.add_argument("--methods", nargs="+", default=["auto", *METHODS], choices=["auto", *METHODS])
    parser.add_argument("--unfold", action="store_true", help="PyTorch's unfold + matmul too, forward only")
    parser.add_argument("--layers", nargs="+", default=[""], help="parts of their names, such as cifar 3x3")
    parser.add_argument("--rounds", type=int, help="paired runs; 7, or 2 with --quick")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the ratios to PyTorch")
    return parser.parse_args()


def main() -> None:
    args = parse()
    plot = pyplot() if args.png else None
    everything = CIFAR + GOOGLENET + POINTWISE + LARGE + random_layers()
    layers = [layer for layer in everything if any(part in layer.name for part in args.layers)]
    if not layers:
        raise SystemExit(f"No layer is called like {args.layers}: they are {[x.name for x in everything]}.")
    layers = [Layer("quick", 8, 8, 8, 3, batch=2)] if args.quick else layers
    rounds = args.rounds or (2 if args.quick else 7)
    torch.set_num_threads(args.threads)
    with one_thread_each():
        rows: list[dict[str, Any]] = []
        for layer in layers:
            # The clock changes over minutes: a layer's ceiling is the better of those just before and after it.
            before = ceiling()
            found = measure(layer, args.methods, args.threads, rounds, args.unfold)
            top = max(before, ceiling()) * args.threads
            rows += [row | {"ceiling": top, "ceiling_share": row[args.methods[0]] / top} for row in found]
    facts = machine(args.threads) | {"rounds": rounds}
    show(f"GFLOP/s with {args.threads} threads, medians of {rounds} rounds", rows, notes(rows, args.methods))
    show_machine(facts)
    write_json(args.json, {"machine": facts, "rows": rows})
    if plot:
        draw(plot, args.png, rows, args.methods)


def measure(
    layer: Layer, methods: Sequence[str], threads: int, rounds: int, unfold: bool
) -> list[dict[str, Any]]:
    """Return a row for each pass of a layer."""
    x, w, dy = layer.arrays()
    theirs = {name: torch_passes(layer, x, w, dy, layout) for name, layout in LAYOUTS.items()}
    rows = []
    for name, ours in our_passes(layer, x, w, dy, threads).items():
        real = {m: real_method(m, layer, name) for m in methods}
        if not real[methods[0]]:
            continue
        runs: dict[str, Callable[[], Any]] = {m: partial(ours, real[m]) for m in methods if real[m]}
        runs |= {layout: theirs[layout][name] for layout in LAYOUTS}
        runs |= {"unfold": torch_unfold(layer, x, w)} if unfold and name == "forward" else {}
        times = alternate(runs, rounds)
        better = min(LAYOUTS, key=lambda layout: median(times[layout]))
        paired = [peer / own for peer, own in zip(times[better], times[methods[0]], strict=True)]
        low, high = interval(paired)
        rows.append(
            {
                "layer": layer.name,
                "pass": name,
                **{m: speed(layer, times.get(m)) for m in methods},
                "PyTorch": speed(layer, times[better]),
                "layout": better,
                **({"unfold_+_matmul": speed(layer, times.get("unfold"))} if unfold else {}),
                "ratio": median(paired),
                "low": low,
                "high": high,
            }
        )
    return rows


def real_method(method: str, layer: Layer, pass_: str) -> str | None:
    """Return what a method is for a pass of a layer, None where it cannot do it."""
    try:
        return choose(method, layer.shape, pass_=pass_)
    except InputError:
        return None


def speed(layer: Layer, seconds: Sequence[float] | None) -> float | str:
    return layer.flops / median(seconds) / 1e9 if seconds else "-"


def our_passes(
    layer: Layer, x: np.ndarray, w: np.ndarray, dy: np.ndarray, threads: int
) -> dict[str, Callable[[str], Any]]:
    window, inner = layer.window, None if threads == 1 else threads
    runs: tuple[Callable[[str], Any], ...] = (
        lambda method: conv.forward(x, w, None, window, method, inner),
        lambda method: conv.input_grad(dy, w, x.shape, window, method, inner),
        lambda method: conv.weight_grad(x, dy, w.shape, window, method, inner),
    )
    return dict(zip(PASSES, runs, strict=True))


def torch_passes(
    layer: Layer, x: np.ndarray, w: np.ndarray, dy: np.ndarray, layout: torch.memory_format
) -> dict[str, Callable[[], Any]]:
    """Return the passes of PyTorch; each gradient alone."""
    images, gradient = (
        torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in (x, dy)
    )
    weights = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=layout)
    stride, pad = [layer.stride] * 2, [layer.kernel // 2] * 2

    def backward(mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            gradient, images, weights, [layer.k], stride, pad, [1, 1], False, [0, 0], 1, mask
        )

    return {
        "forward": lambda: torch.nn.functional.conv2d(images, weights, None, stride, pad),
        "input_grad": lambda: backward([True, False, False]),
        "weight_grad": lambda: backward([False, True, False]),
    }


def ceiling() -> float:
    """Return the GFLOP/s of one core: the largest tile, over operands that never move."""
    tiles = tiles_of(np.float32)
    rows, width = tiles.double, VECTORS * tiles.lanes
    operands = [np.zeros(rows * width, np.float32) for _ in range(4)]
    addresses = tuple(array.ctypes.data for array in operands)
    rounds, best = 200_000, float("inf")
    for _ in range(9):
        started = perf_counter()
        add_tile(tiles, (rows, VECTORS, 1), addresses, (1, width), (1, 1, rounds), (0, 0, 0), (0, 0, 0), 1)
        best = min(best, perf_counter() - started)
    return 2 * rows * width * rounds / best / 1e9


def notes(rows: list[dict[str, Any]], methods: Sequence[str]) -> list[str]:
    means = ", ".join(
        f"{name} {geometric_mean([r['ratio'] for r in rows if r['pass'] == name]):.2f}" for name in PASSES
    )
    losing = [f"{row['layer']} {row['pass']} ({row['ratio']:.2f})" for row in rows if row["high"] < 0.9]
    return [
        f"ratio: the time of PyTorch, in the layout that is faster here, over that of {methods[0]}, round by round.",
        f"Geometric means of the ratio: {means}, all {geometric_mean([row['ratio'] for row in rows]):.2f}.",
        "low, high: the 95 % interval of the ratio's median; the whole range where there are fewer than 6 rounds.",
        f"Whole interval below 0.9: {', '.join(losing) or 'none'}.",
        f"ceiling share: {methods[0]} over what the cores can multiply and add, in nominal operations.",
    ]


def geometric_mean(values: Sequence[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def draw(plot: Any, path: Path, rows: list[dict[str, Any]], methods: Sequence[str]) -> None:
    names = list(dict.fromkeys(row["layer"] for row in rows))
    figure, axes = plot.subplots(figsize=(max(6.0, 0.42 * len(names)), 4.8), layout="constrained")
    for i, name in enumerate(PASSES):
        shown = [row for row in rows if row["pass"] == name]
        places = [names.index(row["layer"]) + 0.27 * (i - 1) for row in shown]
        axes.bar(places, [row["ratio"] for row in shown], 0.27, label=name.replace("_", " "))
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel(f"speed of {methods[0]} over PyTorch's")
    axes.set_xlim(-0.6, len(names) - 0.4)
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
