"""The plan that is chosen for five networks, and how they scale with it; simulated on environment B.

python workflows/networks.py --csv networks.csv --png networks.png
"""

from _measure import arguments, pyplot
from _simulated import draw, kept, options, shown

import daskconv
from daskconv.cost.machine import load_machine
from daskconv.cost.scaling import scaled

NETS = {"cifar10_quick": 32, "alexnet": 224, "vgg16": 224, "googlenet": 224, "resnet152": 224}
BATCH = 2048


def main() -> None:
    parser = arguments("Simulate five networks.")
    options(parser)
    args = parser.parse_args()
    plot, machine = pyplot() if args.png else None, load_machine("environment_b")
    counts = (1, 64) if args.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 864)
    rows = []
    for net, size in list(NETS.items())[: 2 if args.quick else None]:
        network = daskconv.zoo.build(net, 10 if size == 32 else 1000)
        found = scaled(network, (size, size, 3), BATCH, machine, counts, ("data", "auto"))
        data = {row["nodes"]: row["images/s"] for row in found if row["plan"] == "data"}
        rows += [{"net": net} | row | {"over_data": row["images/s"] / data[row["nodes"]]} for row in found]
    chosen = [row for row in rows if row["plan"] == "auto"]
    shown(f"the chosen plans, batch {BATCH} on nodes of environment B", chosen, more=("over_data", "what"))
    kept(args, "networks", rows)
    if plot:
        draw(plot, args.png, {"plan auto": chosen}, by="net")


if __name__ == "__main__":
    main()
