"""The slides' GoogLeNet table again: pipelined over plain lowering on its 20 convolutions that are not 1x1.

The slides, batch 32: 2.04x as fast at best, 0.03x at worst, and slower on 13 of the 20; the worst are the
7x7 maps, whose weights are more than their images.

    python workflows/googlenet_layers.py --csv googlenet_layers.csv --png googlenet_layers.png
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from _layers import GOOGLENET, Layer
from _lowered import serial_tiles
from _measure import (
    alternate,
    arguments,
    machine,
    pyplot,
    ratios,
    show,
    show_machine,
    write_csv,
    write_json,
)

from daskconv.graph import conv
from daskconv.graph.choose import choose
from daskconv.graph.threads import available_threads, check_threads, one_thread_each

SLIDES = {"best": 2.04, "worst": 0.03, "slower": 13}
METHODS = ("lowering", "pipelined", "auto")


def parse() -> argparse.Namespace:
    parser = arguments(
        "Time pipelined and plain lowering, forward, on the spatial convolutions of GoogLeNet."
    )
    parser.add_argument("--threads", type=int, default=available_threads(), help="of every method")
    parser.add_argument("--rounds", type=int, help="runs in turns; 7, or 2 with --quick")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the table here, sizes in elements too"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the speed-ups")
    return parser.parse_args()


def main() -> None:
    args = parse()
    plot = pyplot() if args.png else None
    batch, rounds = (1, args.rounds or 2) if args.quick else (32, args.rounds or 7)
    layers = [replace(layer, name=layer.name.removeprefix("googlenet/"), batch=batch) for layer in GOOGLENET]
    # Threads are daskconv's own; BLAS keeps to one in each, for every method alike.
    with one_thread_each():
        rows = [sizes(layer) | measure(layer, check_threads(args.threads), rounds) for layer in layers]
    facts = machine(args.threads) | {"batch": batch, "rounds": rounds}
    hidden = [name for name in rows[0] if name.endswith(("_elements", "_gflops", "auto_quartiles"))]
    shown = [{name: cell for name, cell in row.items() if name not in hidden} for row in rows]
    show(
        f"Forward over plain lowering with {args.threads} threads, medians of {rounds} rounds",
        shown,
        notes(rows),
    )
    show_machine(facts)
    write_csv(args.csv, rows)
    write_json(args.json, {"machine": facts, "rows": rows, "pipelined": summary(rows), "slides": SLIDES})
    if plot:
        draw(plot, args.png, rows)


def sizes(layer: Layer) -> dict[str, Any]:
    """Return a row's sizes: lowered is output pixels by taps and channels, as the product reads it."""
    p, q = layer.window.output_size(layer.size, layer.size)
    pixels, depth = layer.batch * p * q, layer.kernel**2 * layer.c
    shapes = {
        "input": (layer.batch, layer.size, layer.size, layer.c),
        "lowered": (pixels, depth),
        "weight": (depth, layer.k),
        "output": (layer.batch, p, q, layer.k),
    }
    row: dict[str, Any] = {"layer": layer.name, "kernel": f"{layer.kernel}x{layer.kernel}"}
    row |= {name: "x".join(map(str, shape)) for name, shape in shapes.items()}
    return row | {f"{name}_elements": prod(shape) for name, shape in shapes.items()}


def measure(layer: Layer, threads: int, rounds: int) -> dict[str, Any]:
    """Return a row's speeds: each method's, and of pipelined and auto over lowering, round by round."""
    x, w, _ = layer.arrays()
    runs = {method: run(layer, x, w, method, threads) for method in METHODS}
    serial = {"BLAS tiles": serial_tiles(layer, x, w, threads, blas=True)}
    serial["serial tiles"] = serial_tiles(layer, x, w, threads)
    times = alternate(runs | serial, rounds)
    pipelined, auto = (ratios(times["lowering"], times[method]) for method in METHODS[1:])
    return {
        **{
            f"{method.replace(' ', '_')}_gflops": layer.flops / median(seconds) / 1e9
            for method, seconds in times.items()
        },
        "pipelined": pipelined["median"],
        "quartiles": f"{pipelined['low']:.2f} to {pipelined['high']:.2f}",
        "blocking": ratios(times["lowering"], times["BLAS tiles"])["median"],
        "micro-kernel": ratios(times["BLAS tiles"], times["serial tiles"])["median"],
        "overlap": ratios(times["serial tiles"], times["pipelined"])["median"],
        "auto": auto["median"],
        "auto_quartiles": f"{auto['low']:.2f} to {auto['high']:.2f}",
    }


def run(layer: Layer, x: Any, w: Any, method: str, threads: int) -> Callable[[], Any]:
    real = choose(method, layer.shape)
    return partial(conv.forward, x, w, None, layer.window, real, threads)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the slides say of all layers together."""
    speed_ups = [row["pipelined"] for row in rows]
    return {"best": max(speed_ups), "worst": min(speed_ups), "slower": sum(x < 1 for x in speed_ups)}


def notes(rows: list[dict[str, Any]]) -> list[str]:
    def sentence(found: dict[str, Any]) -> str:
        return f"{found['worst']:.2f}x to {found['best']:.2f}x, slower on {found['slower']} of {len(rows)} layers"

    return [
        "pipelined, auto: the time of plain lowering over theirs, round by round.",
        "pipelined = blocking x micro-kernel x overlap: its tiles one after the other on each thread, by BLAS, over "
        "plain lowering; the same by the micro-kernel over those; and the pipeline over these.",
        f"pipelined: {sentence(summary(rows))}. The slides: {sentence(SLIDES)}.",
    ]


def draw(plot: Any, path: Path, rows: list[dict[str, Any]]) -> None:
    figure, axes = plot.subplots(figsize=(9, 4.8), layout="constrained")
    for i, method in enumerate(METHODS[1:]):
        places = [at + 0.4 * (i - 0.5) for at in range(len(rows))]
        axes.bar(places, [row[method] for row in rows], 0.4, label=method)
    axes.axhline(1, color="black", linewidth=1)
    for name in ("best", "worst"):
        axes.axhline(SLIDES[name], color="gray", linestyle="--", linewidth=1)
        axes.annotate(
            f"slides' {name}: {SLIDES[name]}", (0, SLIDES[name]), (0, 2), textcoords="offset points"
        )
    axes.set_xticks(range(len(rows)), [row["layer"] for row in rows], rotation=60, ha="right")
    axes.set_ylabel("speed over plain lowering")
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
