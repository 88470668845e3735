"""Few images a node: what daskconv does to stay fast, before and after.

Measured: a step of 1, 2, 4 and 8 images on this machine's threads, where blocks wait for threads to be free (before),
and where threads without a block share the convolutions of the others (after, to the same bits). Simulated: 64 nodes of
environment A with as few images each, data parallel, and with the plan, buckets and levels of sums that auto chooses.

python workflows/small_batch.py --csv small_batch.csv --png small_batch.png
"""

from collections.abc import Callable
from statistics import median
from typing import Any
from unittest.mock import patch

from _measure import alternate, arguments, pyplot, show
from _simulated import kept, options, shown
from _training import opened_transport, random_images

import daskconv
from daskconv import plans
from daskconv.cost.machine import load_machine
from daskconv.cost.scaling import scaled
from daskconv.graph.threads import cores
from daskconv.plan.program import Program

NETS = {"cifar10_quick": 32, "resnet18": 224, "vgg16": 224}
SIMULATED = ("alexnet", "vgg16", "googlenet", "resnet50")
BATCHES = (1, 2, 4, 8)
NODES, STEPS = 64, 3


def main() -> None:
    parser = arguments("Time and simulate steps of few images a node.")
    options(parser)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    plot, threads = pyplot() if args.png else None, len(cores())
    nets = ["cifar10_quick"] if args.quick else list(NETS)
    batches = BATCHES[:2] if args.quick else BATCHES
    measured = [
        timed(net, batch, threads, 2 if args.quick else args.rounds) for net in nets for batch in batches
    ]
    show(f"Measured: images of a step on {threads} threads", measured)
    machine, rows = load_machine("environment_a"), []
    for net in SIMULATED[: 1 if args.quick else None]:
        for batch in batches:
            network = daskconv.zoo.build(net, 1000)
            found = scaled(network, (224, 224, 3), batch * NODES, machine, (NODES,), ("data", "auto"))
            rows += [{"net": net, "images_a_node": batch} | row for row in found]
    shown(f"{NODES} nodes of environment A", rows, more=("what",))
    kept(args, "small_batch", rows, measured=measured)
    if plot:
        draw(plot, args.png, measured, rows)


def timed(net: str, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of a step whose images are one block, without and with threads that share it."""
    x, y = random_images(batch * STEPS, (NETS[net], NETS[net], 3), 10)
    opened = opened_transport(
        daskconv.zoo.build(net, 10), x, y, batch, threads, "local", None, plan=plans.data(1)
    )
    epochs = iter(range(10_000))

    def run(shared: bool) -> Callable[[], Any]:
        def steps() -> None:
            with patch.object(Program, "spread_threads", Program.spread_threads if shared else alone):
                opened.run_epoch(next(epochs), lambda: False)

        return steps

    times = alternate({"before": run(False), "after": run(True)}, rounds)
    ratio = median(a / b for a, b in zip(times["before"], times["after"], strict=True))
    before, after = (1e3 * median(times[name]) / STEPS for name in ("before", "after"))
    return {"net": net, "images_a_node": batch, "before_ms": before, "after_ms": after, "speedup": ratio}


def alone(program: Program, spans: Any, indices: Any, threads: int) -> int:
    """Return that each block has one thread, as it was before."""
    return 1


def draw(plot: Any, path: Any, measured: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    figure, axes = plot.subplots(1, 2, figsize=(9, 3.8))
    for net in dict.fromkeys(row["net"] for row in measured):
        some = [row for row in measured if row["net"] == net]
        axes[0].plot(
            [row["images_a_node"] for row in some], [row["speedup"] for row in some], ".-", label=net
        )
    axes[0].set(title="measured: threads share a block", ylabel="times as fast", xlabel="images a node")
    for net in dict.fromkeys(row["net"] for row in rows):
        pairs = [
            [row for row in rows if (row["net"], row["plan"]) == (net, plan)] for plan in ("data", "auto")
        ]
        gains = [auto["images/s"] / data["images/s"] for data, auto in zip(*pairs, strict=True)]
        axes[1].plot([row["images_a_node"] for row in pairs[0]], gains, ".-", label=net)
    axes[1].set(title=f"simulated: auto over data, {NODES} nodes", xlabel="images a node")
    for axis in axes:
        axis.set(xscale="log")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
