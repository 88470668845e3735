"""``daskconv tune``: this machine's measurements."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from daskconv.cli.group import Command
from daskconv.cli.launcher import refuse_launcher
from daskconv.cli.parts import input_option, named_network


@click.command(cls=Command, short_help="Time convolutions here, for auto to go by.")
@click.argument("net")
@input_option
@click.option(
    "--batch", type=click.IntRange(1), default=100, show_default=True, help="Of the training to come."
)
@click.option(
    "--shards", type=click.IntRange(1), default=4, show_default=True, help="Of the training to come."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
              help="Blocks that run side by side while a method is timed.")  # fmt: skip
def tune(net: str, shape: tuple[int, int, int] | None, batch: int, shards: int, threads: int) -> None:
    """Time the methods of NET's convolutions here; auto chooses by that from now on.

    \b
    daskconv tune cifar10_quick --input 32 32 3 --batch 100
    daskconv tune digits.safetensors --threads 2

    NET is the name of a network as in train, or a saved model. The fastest methods are kept in the user's cache
    (DASKCONV_CACHE), for this processor and this version. Training that is resumed keeps its own.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("tune")
    from daskconv.plan.tune import tune as tune_network

    network, shape = named_network(net, shape)
    with _reporting() as report:
        tuning = tune_network(network, shape, batch=batch, shards=shards, threads=threads, report=report)
    click.echo(tuning)
    if tuning.path:
        click.echo(f"saved {tuning.path}, table {tuning.table.hash}")


@contextmanager
def _reporting() -> Iterator[Callable[[int, int, str], None]]:
    """Show how far it is on standard error: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total, name: click.echo(f"{done + 1}/{total} {name}", err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn()]
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task("tune", total=None)
        yield lambda done, total, name: progress.update(task, total=total, completed=done, description=name)
