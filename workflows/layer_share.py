"""Where a training step's time goes, layer by layer; the slides found 84 % of it in convolutions.

python workflows/layer_share.py --png layer_share.png
"""

import argparse
from pathlib import Path
from statistics import median
from typing import Any

from _measure import arguments, machine, pyplot, show, show_machine, write_json
from _training import laps, random_images

import daskconv
from daskconv.nn.layers import Conv2D

SLIDES = 84.0
BATCH = 100


def parse() -> argparse.Namespace:
    parser = arguments("Time each layer's forward and backward pass in training steps of cifar10_quick.")
    parser.add_argument(
        "--threads", type=int, default=1, help="shares are cleanest with 1, as it is by default"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the shares")
    return parser.parse_args()


def main() -> None:
    args = parse()
    plot = pyplot() if args.png else None
    network = daskconv.zoo.cifar10_quick()
    times = measure(network, args.threads, *((2, 2) if args.quick else (10, 7)))
    layers, others = shares(network, times)
    convolutions = sum(row["share"] for row in layers if row["kind"] == Conv2D.__name__)
    facts = machine(args.threads) | {"batch": BATCH}
    report(layers, others, convolutions, sum(times.values()))
    show_machine(facts)
    figures = {"layers": layers, "others": others, "convolutions": convolutions, "slides": SLIDES}
    write_json(args.json, {"machine": facts, **figures})
    if plot:
        draw(plot, args.png, layers, others, convolutions)


def measure(network: daskconv.Network, threads: int, steps: int, rounds: int) -> dict[Any, float]:
    """Return the median milliseconds of (layer, pass), "loss", "data", "update" and "rest" in a step."""
    x, y = random_images(steps * BATCH, (32, 32, 3), 10)
    found = laps(network, x, y, BATCH, threads, rounds, lambda node, way: (node.name, way))
    return {key: median(lap[key] for lap in found) for key in found[0]}


def shares(network: daskconv.Network, times: dict[Any, float]) -> tuple[list[dict], list[dict]]:
    """Return a row for each layer, and one for everything else a step does."""
    total = sum(times.values())
    layers = []
    for node in network.nodes:
        forward, backward = times[node.name, "forward"], times[node.name, "backward"]
        kind = type(node.layer).__name__
        share = 100 * (forward + backward) / total
        layers.append(
            {"layer": node.name, "kind": kind, "forward_ms": forward, "backward_ms": backward, "share": share}
        )
    others = [
        {"part": part, "ms": times[part], "share": 100 * times[part] / total}
        for part in ("loss", "data", "update", "rest")
    ]
    return layers, others


def report(layers: list[dict], others: list[dict], convolutions: float, total: float) -> None:
    rest = [
        {
            "layer": row["part"],
            "kind": "-",
            "forward_ms": f"{row['ms']:.2f}",
            "backward_ms": "-",
            "share": row["share"],
        }
        for row in others
    ]
    notes = [
        f"Convolutions take {convolutions:.1f} % of a step; the slides' {SLIDES:.0f} %.",
        f"A step takes {total:.0f} ms of the threads' time. conv1 has no input gradient in training.",
        "rest: sums of gradients, tasks, the network's own bookkeeping.",
    ]
    show(f"A training step of cifar10_quick, batch {BATCH}; share in %", layers + rest, notes)


def draw(plot: Any, path: Path, layers: list[dict], others: list[dict], convolutions: float) -> None:
    total = sum(row["forward_ms"] + row["backward_ms"] for row in layers) + sum(row["ms"] for row in others)
    names = [row["layer"] for row in layers] + [row["part"] for row in others]
    forward = [100 * row["forward_ms"] / total for row in layers] + [0.0] * len(others)
    backward = [100 * row["backward_ms"] / total for row in layers] + [0.0] * len(others)
    figure, axes = plot.subplots(figsize=(7, 5), layout="constrained")
    axes.barh(names, forward, label="forward")
    axes.barh(names, backward, left=forward, label="backward")
    axes.barh(names[len(layers) :], [row["share"] for row in others], label="other")
    axes.invert_yaxis()
    axes.set(xlabel="share of a training step, %")
    axes.set_title(f"Convolutions: {convolutions:.0f} % (slides: {SLIDES:.0f} %)")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
