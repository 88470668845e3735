"""``daskconv plan``: the plan that the cost model chooses, with the reasons, or what another one sends and holds."""

from __future__ import annotations

from typing import Any

import click

from daskconv.cli.launcher import refuse_launcher
from daskconv.cli.simulation import machine_option


def chosen(
    network: Any, shape: tuple[int, int, int], batch: int, nodes: int, machine: str, transport: str
) -> str:
    """Return the tables of the chosen plan."""
    from daskconv.cost.choose import choose_plan
    from daskconv.cost.machine import load_machine
    from daskconv.cost.simulate import check_fits
    from daskconv.cost.trace import Case
    from daskconv.errors import check_count

    case = Case(network, shape, check_count(batch, "batch"))
    choice = choose_plan(case, load_machine(machine), check_count(nodes, "nodes"), transport)
    assert choice.best.run is not None
    check_fits(choice.best.run)
    return str(choice)


@click.command(short_help="Choose a plan, or price one.")
@click.argument("net")
@click.option(
    "--plan", "name", default="auto", show_default=True, help="auto, data, model, hybrid or n=2,h=2."
)
@click.option(
    "--nodes", type=int, default=64, show_default=True, help="Workers; shards of a plan that is not auto."
)
@click.option("--batch", type=int, default=256, show_default=True, help="Images of a step.")
@click.option("--input", "shape", nargs=3, type=click.IntRange(1), default=(224, 224, 3), show_default=True,
              metavar="H W C", help="Shape of one image.")  # fmt: skip
@machine_option
@click.option("--transport", type=click.Choice(["mpi", "dask"]), default="mpi", show_default=True)
@click.option("--classes", type=click.IntRange(2), default=1000, show_default=True)
def plan(
    net: str,
    name: str,
    nodes: int,
    batch: int,
    shape: tuple[int, int, int],
    machine: str,
    transport: str,
    classes: int,
) -> None:
    """Print the plan that the cost model chooses for NET, what it was compared with, and why.

    \b
    daskconv plan alexnet --nodes 64 --batch 256 --machine environment_a
    daskconv plan alexnet --plan hybrid --nodes 4 --batch 128

    With another plan than auto: a row a layer, its layout, and what is sent and held.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("plan")
    from daskconv.nn import zoo
    from daskconv.plan.plans import AUTO, PLANS, resolve_plan

    network = zoo.build(net, classes)
    if name == AUTO:
        click.echo(chosen(network, shape, batch, nodes, machine, transport))
    else:
        found = resolve_plan(name, nodes if name in PLANS else None)
        click.echo(found.describe(network, shape, batch))
