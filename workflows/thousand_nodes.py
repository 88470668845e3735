"""Beyond the slides' 864 nodes, simulated: where each plan stops scaling to 4096, and which one takes over.

python workflows/thousand_nodes.py --csv thousand_nodes.csv --png thousand_nodes.png
"""

from typing import Any

from _measure import arguments, pyplot, show
from _simulated import draw, kept, options, shown

import daskconv
from daskconv.cost.machine import load_machine
from daskconv.cost.scaling import scaled

NETS = ("alexnet", "vgg16", "googlenet", "resnet50")
PLANS = ("data", "model", "hybrid", "spatial", "auto")
# The largest that trains well (Goyal et al. 2017), and the slides' on 64 nodes.
BATCHES = (8192, 256)


def main() -> None:
    parser = arguments("Simulate 1 to 4096 nodes.")
    options(parser)
    args = parser.parse_args()
    plot, machine = pyplot() if args.png else None, load_machine("environment_b")
    counts = (1, 64, 4096) if args.quick else tuple(2**i for i in range(13))
    rows: list[dict[str, Any]] = []
    cases = [(net, batch) for batch in BATCHES for net in NETS]
    for net, batch in cases[:1] if args.quick else cases:
        found = scaled(daskconv.zoo.build(net, 1000), (224, 224, 3), batch, machine, counts, PLANS)
        rows += [{"net": net} | row for row in found]
    groups = {
        f"{net}, batch {batch}": [row for row in rows if (row["net"], row["batch"]) == (net, batch)]
        for net, batch in dict.fromkeys((row["net"], row["batch"]) for row in rows)
    }
    ends = [end(group, plan) for group in groups.values() for plan in PLANS]
    shown("nodes of environment B", rows)
    show("Simulated: where a plan stops scaling, and which fixed plan is ahead at twice as many nodes", ends)
    kept(args, "thousand_nodes", rows, ends=ends)
    if plot:
        draw(plot, args.png, groups)


def end(rows: list[dict[str, Any]], plan: str) -> dict[str, Any]:
    """Return up to how many nodes a plan gains at least a tenth, and which fixed plan is ahead at twice as many."""
    own = sorted((row for row in rows if row["plan"] == plan), key=lambda row: row["nodes"])
    stop = own[0]
    for row in own[1:]:
        if row["images/s"] < 1.1 * stop["images/s"]:
            break
        stop = row
    after = [row for row in rows if row["plan"] != "auto" and row["nodes"] == 2 * stop["nodes"]]
    best = max((row for row in rows if row["plan"] == "auto"), key=lambda row: row["images/s"])
    return {
        "net": stop["net"],
        "batch": stop["batch"],
        "plan": plan,
        "gains_to_nodes": stop["nodes"],
        "images/s_there": stop["images/s"],
        "ahead_at_twice": max(after, key=lambda row: row["images/s"])["plan"] if after else "not simulated",
        "auto_at_best": best["what"],
    }


if __name__ == "__main__":
    main()
