"""``daskconv calibrate`` and ``simulate``: this machine's figures, and steps on machines that nobody here has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daskconv.cli.group import Command
from daskconv.cli.launcher import refuse_launcher
from daskconv.errors import InputError

_COLUMNS = (
    *("plan", "nodes", "batch", "ms_a_step", "images/s", "efficiency_%", "compute_ms", "exchange_ms"),
    *("straggler_ms", "sent_MB", "memory_MB", "fits"),
)
_SHOWN = {
    "peak": ("GFLOP/s", 1e9),
    "memory_bandwidth": ("GB/s", 1e9),
    "disk": ("MB/s", 1e6),
    **dict.fromkeys(("inside_latency", "comm_latency", "message", "comm_message", "segment"), ("us", 1e-6)),
    **dict.fromkeys(("inside_bandwidth", "comm_bandwidth"), ("GB/s", 1e9)),
    **dict.fromkeys(("step", "task", "hop"), ("ms", 1e-3)),
    **dict.fromkeys(("jitter", "crowding"), ("", 1)),
}

machine_option = click.option(
    "--machine", default="here", show_default=True, metavar="NAME|FILE",
    help="here, a file of calibrate, or one that comes with daskconv: environment_a, environment_b, ...",
)  # fmt: skip


@click.command(cls=Command, short_help="Measure this machine for simulate and plan auto.")
@click.argument("nets", nargs=-1, metavar="[NET=HxWxC]...")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where the figures go.  [default: the user's cache]")  # fmt: skip
@click.option("--links/--no-links", default=True, show_default=True, help="Start workers to time messages.")
def calibrate(nets: tuple[str, ...], out: Path | None, links: bool) -> None:
    """Measure this machine: cores, memory, disk, messages, and the layers of some networks.

    \b
    daskconv calibrate
    daskconv calibrate vgg16=224x224x3 resnet20=32x32x3 --out node.json

    Prices of networks that were not measured stand on an analytic guess, and say so. Takes minutes; a machine that is
    busy with other work gives wrong figures.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("calibrate")
    from daskconv.cost.machine import calibrated_path
    from daskconv.launch.calibrate import calibrate as measure

    found = [_net(text) for text in nets] or None
    machine = measure(found, out, links=links, report=lambda text: click.echo(text, err=True))
    for name, (unit, scale) in _SHOWN.items():
        click.echo(f"{name:<17} {getattr(machine, name) / scale:,.3g} {unit}".rstrip())
    click.echo(f"{'layers':<17} {len(machine.kernels)} passes")
    click.echo(f"saved {out or calibrated_path()}")


def _net(text: str) -> tuple[Any, tuple[int, int, int]]:
    from daskconv.nn import zoo

    name, _, shape = text.partition("=")
    sides = shape.split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) for side in sides):
        raise InputError(
            f"NET is {text!r}: give a network of the zoo and its images' shape, such as alexnet=224x224x3."
        )
    return zoo.build(name, 10), (int(sides[0]), int(sides[1]), int(sides[2]))


@click.command(cls=Command, short_help="Simulate training steps on any number of nodes.")
@click.argument("net")
@click.option("--nodes", type=int, default=64, show_default=True, help="The most workers.")
@click.option("--batch", type=int, default=256, show_default=True, help="Images of a step.")
@click.option("--input", "shape", nargs=3, type=click.IntRange(1), default=(224, 224, 3), show_default=True,
              metavar="H W C", help="Shape of one image.")  # fmt: skip
@machine_option
@click.option("--plan", "names", multiple=True, default=("data", "hybrid", "auto"), show_default=True,
              help="data, model, hybrid, spatial or auto; may be given again.")  # fmt: skip
@click.option("--transport", type=click.Choice(["mpi", "dask"]), default="mpi", show_default=True,
              help="What carries the exchanges.")  # fmt: skip
@click.option(
    "--classes", type=click.IntRange(2), default=1000, show_default=True, help="Of NET's last layer."
)
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Draw strong and weak scaling.")  # fmt: skip
def simulate(
    net: str,
    nodes: int,
    batch: int,
    shape: tuple[int, int, int],
    machine: str,
    names: tuple[str, ...],
    transport: str,
    classes: int,
    png: Path | None,
) -> None:
    """Print a table of simulated training steps of NET on 1, 2, 4 ... nodes. Nothing is measured.

    \b
    daskconv simulate alexnet --nodes 64 --batch 256 --machine environment_a
    daskconv simulate vgg16 --nodes 864 --batch 6912 --machine environment_b --png vgg16.png

    Strong scaling shares the batch; weak scaling, in the picture, gives every node as many images as the largest has.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("simulate")
    from daskconv.cost.machine import load_machine
    from daskconv.cost.scaling import counts_to, scaled
    from daskconv.errors import check_count
    from daskconv.nn import zoo
    from daskconv.nn.network import aligned

    network, found = zoo.build(net, classes), load_machine(machine)
    counts = counts_to(check_count(nodes, "nodes"))
    check_count(batch, "batch")
    rows = scaled(network, shape, batch, found, counts, names, transport=transport)
    title = f"Simulated, not measured: {network.name} on {found.name}, batch {batch} of {tuple(shape)}, {transport}"
    cells = [_COLUMNS, *(tuple(_text(row[name]) for name in _COLUMNS) for row in rows)]
    click.echo(aligned(title, cells, right=tuple(range(1, len(_COLUMNS)))))
    click.echo("efficiency: over one node's speed with the same batch")
    click.echo(_guessed(network, shape, batch, found))
    if png:
        weak = scaled(
            network, shape, max(1, batch // nodes), found, counts, names, weak=True, transport=transport
        )
        _draw(png, title, {"strong": rows, "weak": weak})


def _guessed(network: Any, shape: tuple[int, int, int], batch: int, machine: Any) -> str:
    from daskconv.cost.price import price
    from daskconv.cost.trace import Case
    from daskconv.plan.plans import data

    return f"Seconds of layers: {price(Case(network, shape, batch), data(1), machine).basis}."


def _text(cell: Any) -> str:
    return f"{cell:,.2f}" if isinstance(cell, float) else str(cell)


def _draw(path: Path, title: str, groups: dict[str, list[dict[str, Any]]]) -> None:
    try:
        import matplotlib
    except ImportError:
        raise InputError("--png needs matplotlib: pip install 'daskconv[plot]'.") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8))
    for axis, (scaling, rows) in zip(axes, groups.items(), strict=True):
        for plan in dict.fromkeys(row["plan"] for row in rows):
            some = [row for row in rows if row["plan"] == plan]
            axis.plot([row["nodes"] for row in some], [row["images/s"] for row in some], ".-", label=plan)
        axis.set(title=f"{scaling} scaling, simulated", xlabel="nodes", xscale="log", yscale="log")
    axes[0].set(ylabel="images a second")
    axes[1].legend()
    figure.suptitle(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
