"""``daskconv plan``: what a plan makes of a network, before anything runs."""

from __future__ import annotations

import click

from daskconv.cli.choice import chosen
from daskconv.cli.group import Command
from daskconv.cli.launcher import refuse_launcher
from daskconv.cli.parts import input_option, named_network, plan_option, shards_option
from daskconv.cli.simulation import machine_option


@click.command(cls=Command, short_help="Print what a step consists of under a plan.")
@click.argument("net")
@input_option
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True, help="Images of a step.")
@plan_option
@shards_option
@click.option("--nodes", type=int, default=4, show_default=True, help="Workers that plan auto is chosen for.")
@machine_option
def plan(
    net: str,
    shape: tuple[int, int, int] | None,
    batch: int,
    shards: int | None,
    plan: str,
    nodes: int,
    machine: str,
) -> None:
    """Print what a training step of NET consists of under a plan, and what travels.

    \b
    daskconv plan alexnet --input 224 224 3 --batch 128 --plan hybrid
    daskconv plan unet --input 512 512 3 --batch 8 --plan n=2,h=2
    daskconv plan digits.safetensors --shards 8
    daskconv plan alexnet --input 224 224 3 --batch 256 --plan auto --nodes 64 --machine environment_a

    NET is the name of a network as in train, or a saved model. First a row a layer: its layout, and what is sent and
    held; then the Program: segments that a shard computes by itself, exchanges between them, and methods. Of
    plan auto: what the cost model chooses for so many nodes of a machine, what it was compared with, and why.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("plan")
    from daskconv.plan.plans import AUTO
    from daskconv.train.trainer import Trainer

    network, shape = named_network(net, shape)
    if plan == AUTO:
        click.echo(chosen(network, shape, batch, nodes, machine, shards))
        return
    trainer = Trainer(network, plan=plan, shards=shards)
    program = trainer.program(shape, batch)
    click.echo(trainer.plan.describe(network, shape, batch))
    click.echo()
    click.echo(program)
