"""The three methods on the three convolutions of the slides' CIFAR-10 net, forward and backward.

The slides: pipelined is at most 1.64x faster than plain lowering, and slower for backward on one CPU.

    python workflows/conv_methods.py --png conv_methods.png
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from _layers import CIFAR, Layer
from _measure import alternate, arguments, machine, pyplot, ratios, show, show_machine, write_json

from daskconv.graph import conv
from daskconv.graph.threads import available_threads, check_threads, one_thread_each
from daskconv.timeline import overlap, record

METHODS = ("direct", "lowering", "pipelined")  # those of the slides
SLIDES_BEST = 1.64


def parse() -> argparse.Namespace:
    parser = arguments("Time direct, lowering and pipelined on the three convolutions of cifar10_quick.")
    parser.add_argument("--threads", type=int, default=available_threads(), help="the most threads to use")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw GFLOP/s at 1 and at most threads")
    return parser.parse_args()


def main() -> None:
    args = parse()
    plot = pyplot() if args.png else None
    batch, rounds = (20, 3) if args.quick else (100, 9)
    # Threads are daskconv's own; BLAS keeps to one in each, for every method alike.
    with one_thread_each():
        rows = [
            measure(layer, way, run, flops, threads, rounds)
            for threads in range(1, check_threads(args.threads) + 1)
            for layer in CIFAR
            for way, run, flops in passes(replace(layer, batch=batch))
        ]
    facts = machine(f"1 to {args.threads}") | {"batch": batch, "rounds": rounds}
    show("GFLOP/s, medians", rows, notes(rows))
    show_machine(facts)
    figures = {"rows": rows, "best_speed_up": best(rows)["speed_up"], "slides_best_speed_up": SLIDES_BEST}
    write_json(args.json, {"machine": facts, **figures})
    if plot:
        draw(plot, args.png, rows)


def passes(layer: Layer) -> list[tuple[str, Callable[[str, int], Any], int]]:
    """Return the passes of a layer: a name, a function of method and threads, and its nominal operations."""
    x, w, dy = layer.arrays()
    window = layer.window

    def forward(method: str, threads: int) -> None:
        conv.forward(x, w, None, window, method, threads)

    def weight_grad(method: str, threads: int) -> None:
        conv.weight_grad(x, dy, w.shape, window, method, threads)

    def backward(method: str, threads: int) -> None:
        weight_grad(method, threads)
        conv.input_grad(dy, w, x.shape, window, method, threads)

    found = [("P", forward, layer.flops), ("BP", backward, 2 * layer.flops)]
    return found if layer.c > 3 else [*found, ("BP weights", weight_grad, layer.flops)]


def measure(
    layer: Layer, way: str, run: Callable[[str, int], Any], flops: int, threads: int, rounds: int
) -> dict[str, Any]:
    times = alternate({method: partial(run, method, threads) for method in METHODS}, rounds)
    speed_up = ratios(times["lowering"], times["pipelined"])
    with record() as spans:
        run("pipelined", threads)
    return {
        "layer": layer.name,
        "pass": way,
        "threads": threads,
        **{method: flops / median(seconds) / 1e9 for method, seconds in times.items()},
        "speed_up": speed_up["median"],
        "quartiles": f"{speed_up['low']:.2f} to {speed_up['high']:.2f}",
        "overlap": overlap(spans),
    }


def best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: row["speed_up"])


def notes(rows: list[dict[str, Any]]) -> list[str]:
    top, slower = best(rows), sum(row["speed_up"] < 1 for row in rows)
    where = f"{top['layer']} {top['pass']}, threads: {top['threads']}"
    return [
        "P is the forward pass, BP both gradients; training needs BP weights of conv1 only.",
        "speed up: the time of lowering over that of pipelined, round by round.",
        "overlap: the share of the pipeline's lowering that ran beside a product, 0 to 1; 0 on one thread.",
        f"Pipelined is at most {top['speed_up']:.2f}x as fast as lowering ({where}); "
        f"the slides' at most {SLIDES_BEST}x on 8-core CPUs.",
        f"Pipelined is slower in {slower} of {len(rows)} rows; the slides' for backward on one CPU.",
    ]


def draw(plot: Any, path: Path, rows: list[dict[str, Any]]) -> None:
    counts = sorted({1, max(row["threads"] for row in rows)})
    figure, panels = plot.subplots(
        1, len(counts), figsize=(6 * len(counts), 4.5), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, threads in zip(panels[0], counts, strict=True):
        shown = [row for row in rows if row["threads"] == threads]
        for i, method in enumerate(METHODS):
            places = [at + 0.27 * (i - 1) for at in range(len(shown))]
            axes.bar(places, [row[method] for row in shown], 0.27, label=method)
        labels = [f"{row['layer']}\n{row['pass']}" for row in shown]
        axes.set_xticks(range(len(shown)), labels)
        axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}")
    panels[0][0].set_ylabel("GFLOP/s")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
