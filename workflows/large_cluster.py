"""The slides' large cluster, simulated: 864 nodes of 2 x 16-core SPARC64 XIfx, batch 6912 and 864.

The slides' curves are linear to 864 nodes; their values are lost, so only the trend is compared.

python workflows/large_cluster.py --csv large_cluster.csv --png large_cluster.png
"""

from _measure import arguments, pyplot
from _simulated import draw, kept, options, shown

import daskconv
from daskconv.cost.machine import load_machine
from daskconv.cost.scaling import scaled

# Images, batch, and networks: AlexNet's dense layers do not take images of 1080x1920.
CASES = (
    ((120, 160, 3), 6912, ("googlenet", "alexnet")),
    ((120, 160, 3), 864, ("googlenet", "alexnet")),
    ((1080, 1920, 3), 864, ("googlenet",)),
    ((1080, 1920, 3), 6912, ("googlenet",)),
)
COUNTS = (1, 4, 16, 32, 54, 108, 216, 432, 864)


def main() -> None:
    parser = arguments("Simulate the slides' environment B.")
    options(parser)
    args = parser.parse_args()
    plot, machine = pyplot() if args.png else None, load_machine("environment_b")
    rows, panels = [], {}
    for shape, batch, nets in CASES[:2] if args.quick else CASES:
        for net in nets:
            network = daskconv.zoo.build(net, 1000)
            counts = (1, 864) if args.quick else COUNTS
            found = scaled(network, shape, batch, machine, counts, ("data", "hybrid", "auto"))
            size = f"{shape[2]}x{shape[0]}x{shape[1]}"
            slides = "linear" if (shape[0], batch) in ((120, 6912), (1080, 864)) else "not shown"
            found = [{"net": net, "images": size, "slides_data": slides} | row for row in found]
            rows += found
            panels[f"{net}, batch {batch} of {size}"] = found
    shown(f"environment B, {machine.cores} cores a node", rows, more=("images", "slides_data", "fits"))
    kept(args, "large_cluster", rows)
    if plot:
        draw(plot, args.png, panels)


if __name__ == "__main__":
    main()
