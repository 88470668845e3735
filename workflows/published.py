"""Published scaling, predicted: the model is given what the sources say of the machines, and no curve.

It is not blind: the published values were known to who wrote it. No figure of a machine was fitted to them, but the
first predictions counted what the GPUs of a server add up among themselves on the server's network link, and that error
was mended after they were seen (Inception V3 94, ResNet-101 77, VGG-16 27, ResNet-50 56 %; they are in the history).
A GPU's layers are scaled to the published speed of one GPU; those of the Xeon nodes stand on the analytic guess,
without Winograd, which that system did not have.

python workflows/published.py --csv published.csv --png published.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _measure import arguments, machine, pyplot, show, show_machine, write_csv, write_json
from _published import at_speed, inception_v3, resnet101

import daskconv
from daskconv import Layout, plans
from daskconv.cost.machine import Machine, load_machine
from daskconv.cost.price import price
from daskconv.cost.simulate import Simulated, simulate
from daskconv.cost.trace import Case
from daskconv.nn.layers import Conv2D, Dense


@dataclass(frozen=True)
class Curve:
    """A published run: a network on devices of a machine, over a baseline of fewer devices.

    Attributes
    ----------
    speed : float
        Images a second of one device, as published; 0 where layers are priced by the analytic guess.
    published : float
        The efficiency, in percent; read after the predictions were made.
    weak : bool
        Whether ``batch`` is that of a device.
    """

    source: str
    machine: str
    net: str
    size: int
    batch: int
    devices: int
    over: int
    speed: float
    speed_source: str
    published: float
    published_source: str
    weak: bool = True
    plan: str = "data"


_TF = "TensorFlow, Benchmarks (2017): 1 P100 of a DGX-1, synthetic data, batch 64"
_BETWEEN = f"{_TF}; between ResNet-50 (219) and ResNet-152 (91.8) by operations"
_BACK = "Goyal et al. 2017, section 4: 120 ms of back-propagation for 32 images, and half of that forward"
_GUESS = "the analytic guess"
_HOROVOD = 90, "Sergeev and Del Balso 2018, section 5"
_VGG = 68, _HOROVOD[1]
_GOYAL = 90, "Goyal et al. 2017, abstract"
_DAS = "Das et al. 2016, abstract: 90 times as fast on 128 nodes, 53 times on 64"
_XEON = "Das et al. 2016", "das", "vgg11", 224
CURVES = (
    Curve("Horovod", "horovod", "inception_v3", 299, 64, 512, 1, 142.0, _TF, *_HOROVOD),
    Curve("Horovod", "horovod", "resnet101", 224, 64, 512, 1, 129.0, _BETWEEN, *_HOROVOD),
    Curve("Horovod", "horovod", "vgg16", 224, 64, 512, 1, 154.0, _TF, *_VGG),
    Curve("Goyal et al. 2017", "goyal", "resnet50", 224, 32, 256, 8, 32 / 0.180, _BACK, *_GOYAL),
    Curve(*_XEON, 512, 128, 1, 0.0, _GUESS, 100 * 90 / 128, _DAS, False, "hybrid"),
    Curve(*_XEON, 256, 64, 1, 0.0, _GUESS, 100 * 53 / 64, _DAS, False, "hybrid"),
)
NETS = {"inception_v3": inception_v3, "resnet101": resnet101}
_FUSED = 64_000_000
_NOTES = (
    "GPUs: no figure of their jitter was known, so the model has none; nor has it the input, or what TCP and NCCL lose "
    "below the line rate. Predictions are high by what these cost.",
    "Xeon nodes: 4 images share 32 cores. The model counts a node's cores as one processor and does not see what "
    "layers lose when they are cut so finely: the two misses.",
)


def parse() -> argparse.Namespace:
    parser = arguments("Predict published scaling.")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw predicted efficiency by devices")
    return parser.parse_args()


def main() -> None:
    args = parse()
    plot = pyplot() if args.png else None
    curves = CURVES[-1:] if args.quick else CURVES
    lines = [line(curve, _counts(curve, args.quick)) for curve in curves]
    rows = [row(curve, found) for curve, found in zip(curves, lines, strict=True)]
    show("Scaling efficiency, simulated from published figures of the machines", rows, _NOTES)
    facts = machine(1)
    show_machine(facts)
    write_json(args.json, {"machine": facts, "published": rows})
    write_csv(args.csv, rows)
    if plot:
        draw(plot, args.png, curves, lines)


def _counts(curve: Curve, quick: bool) -> list[int]:
    every = [curve.over * 2**i for i in range(20) if curve.over * 2**i <= curve.devices]
    return [every[0], every[-1]] if quick else every


def row(curve: Curve, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last = found[-1]
    return {
        "source": curve.source,
        "net": curve.net,
        "plan": last["plan"],
        "devices": curve.devices,
        "over": curve.over,
        "batch": last["batch"],
        "one_device_images/s": last["alone"],
        "predicted_%": last["efficiency_%"],
        "published_%": float(curve.published),
        "difference": last["efficiency_%"] - curve.published,
        "compute_ms": last["compute_ms"],
        "exchange_ms": last["exchange_ms"],
        "straggler_ms": last["straggler_ms"],
    }


def line(curve: Curve, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the predicted steps of a curve by devices."""
    net = NETS[curve.net]() if curve.net in NETS else daskconv.zoo.build(curve.net, 1000)
    shape, figures = (curve.size, curve.size, 3), load_machine(curve.machine)
    one = Case(net, shape, curve.batch)
    if curve.speed:
        figures = at_speed(figures, one, curve.speed)
    rows: list[dict[str, Any]] = []
    for count in counts:
        case = Case(net, shape, curve.batch * count) if curve.weak else one
        run, plan = best(case, figures, count, curve.plan)
        speed = run.images_per_second / count
        rows.append(
            {
                "devices": count,
                "plan": plan,
                "batch": case.batch,
                "speed": speed,
                "alone": curve.speed or rows[0]["speed"] if rows else curve.speed or speed,
                "efficiency_%": 100 * speed / (rows[0]["speed"] if rows else speed),
                "compute_ms": 1e3 * run.compute,
                "exchange_ms": 1e3 * run.exchange,
                "straggler_ms": 1e3 * run.straggler,
            }
        )
    return rows


def best(case: Case, figures: Machine, count: int, plan: str) -> tuple[Simulated, str]:
    """Return the data parallel step, or the shortest of hybrid ones whose dense layers are in groups of nodes."""
    if plan == "data" or count == 1:
        return simulate(price(case, plans.data(count), figures, bucket=_FUSED)), "data"
    runs = []
    for parts in (2**i for i in range(count.bit_length()) if count % 2**i == 0):
        split = mixture(case, count, parts)
        runs.append(
            (
                simulate(price(case, split, figures)),
                f"hybrid, dense n={count // parts}, k={parts}",
            )
        )
    return min(runs, key=lambda pair: pair[0].seconds)


def mixture(case: Case, count: int, parts: int) -> plans.Plan:
    """Return the plan of Das et al.: convolutions data parallel, dense layers in groups of ``parts`` nodes."""
    layers = []
    for node in case.network.nodes:
        if isinstance(node.layer, Conv2D):
            layers.append((node.name, Layout(n=count)))
        elif isinstance(node.layer, Dense):
            layers.append((node.name, Layout(n=count // parts, k=parts)))
    return replace(plans.data(count), name="hybrid", layers=tuple(layers))


def draw(plot: Any, path: Path, curves: Sequence[Curve], lines: Sequence[Sequence[dict[str, Any]]]) -> None:
    figure, axis = plot.subplots(figsize=(6.5, 4))
    for curve, found in zip(curves, lines, strict=True):
        points = [row["devices"] for row in found], [row["efficiency_%"] for row in found]
        (drawn,) = axis.plot(*points, ".-", label=f"{curve.net}, {curve.source}, batch {curve.batch}")
        axis.plot([curve.devices], [curve.published], "x", color=drawn.get_color())
    axis.set(
        xlabel="devices", ylabel="efficiency, %: simulated, and x published", xscale="log", ylim=(0, 105)
    )
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
