"""``daskconv bench``: a minute's check of how fast training is on this machine."""

from __future__ import annotations

import click

from daskconv.cli.group import Command
from daskconv.cli.launcher import refuse_launcher
from daskconv.cli.parts import input_option, named_network

_NET, _SHAPE = "cifar10_quick", (32, 32, 3)


@click.command(cls=Command, short_help="Time a training step on this machine.")
@click.argument("net", default=_NET)
@input_option
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True, help="Images of a step.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.  [default: its cores]")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Steps of each method.")
def bench(net: str, shape: tuple[int, int, int] | None, batch: int, threads: int | None, rounds: int) -> None:
    """Time a training step of NET here, cifar10_quick when not given.

    \b
    daskconv bench
    daskconv bench googlenet --input 224 224 3 --batch 16 --threads 8

    What auto chooses, pipelined and plain lowering take turns, step by step, so that the ratios hold on a machine that
    others use, too. A last line says what auto does on one thread.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("bench")
    from daskconv.graph.threads import available_threads
    from daskconv.launch.info import facts
    from daskconv.train.speed import compare_methods

    network, shape = named_network(net, shape or (_SHAPE if net == _NET else None))
    threads = threads or available_threads()
    click.echo(compare_methods(network, shape, batch=batch, threads=threads, rounds=rounds))
    click.echo(f"on {facts()['cpu']}")
