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
# The largest that trains well (Goyal et al. 2017).
BATCH = 8192


def main() -> None:
    parser = arguments("Simulate 1 to 4096 nodes.")
    options(parser)
    args = parser.parse_args()
    plot, machine = pyplot() if args.png else None, load_machine("environment_b")
    counts = (1, 64, 4096) if args.quick else tuple(2**i for i in range(13))
    rows: list[dict[str, Any]] = []
    for net in NETS[:1] if args.quick else NETS:
        found = scaled(daskconv.zoo.build(net, 1000), (224, 224, 3), BATCH, machine, counts, PLANS)
        rows += [{"net": net} | row for row in found]
    ends = [end(rows, net, plan) for net in dict.fromkeys(row["net"] for row in rows) for plan in PLANS]
    shown(f"batch {BATCH} on nodes of environment B", rows)
    show("Simulated: where a plan stops scaling", ends)
    kept(args, "thousand_nodes", rows, ends=ends)
    if plot:
        draw(
            plot,
            args.png,
            {net: [r for r in rows if r["net"] == net] for net in dict.fromkeys(r["net"] for r in rows)},
        )


def end(rows: list[dict[str, Any]], net: str, plan: str) -> dict[str, Any]:
    """Return up to how many nodes a plan gains at least a tenth, and which fixed plan is ahead at twice as many."""
    own = sorted(
        (row for row in rows if (row["net"], row["plan"]) == (net, plan)), key=lambda row: row["nodes"]
    )
    stop = own[0]
    for row in own[1:]:
        if row["images/s"] < 1.1 * stop["images/s"]:
            break
        stop = row
    after = [
        row for row in rows if row["net"] == net and row["plan"] != "auto" and row["nodes"] > stop["nodes"]
    ]
    ahead = max(after, key=lambda row: row["images/s"])["plan"] if after else plan
    best = max(
        (row for row in rows if row["net"] == net and row["plan"] == "auto"), key=lambda row: row["images/s"]
    )
    return {
        "net": net,
        "plan": plan,
        "gains_to_nodes": stop["nodes"],
        "images/s_there": stop["images/s"],
        "ahead_beyond": ahead,
        "auto_at_best": best["what"],
    }


if __name__ == "__main__":
    main()
