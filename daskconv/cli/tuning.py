"""``daskconv tune`` and ``daskconv info``: this machine's measurements and facts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from daskconv.cli.launcher import refuse_launcher
from daskconv.errors import InputError


@click.command()
@click.argument("net")
@click.option("--input", "shape", nargs=3, type=click.IntRange(1), metavar="H W C",
              help="Shape of one image.  [default: what a saved model was trained on]")  # fmt: skip
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

    NET is the name of a network as in train, or a saved model. The fastest methods are kept in the user's cache
    (DASKCONV_CACHE), for this processor and this version. Training that is resumed keeps its own.
    """
    refuse_launcher("tune")
    from daskconv.nn import zoo
    from daskconv.plan.tune import tune as tune_network
    from daskconv.train.files import load

    model = None if net in zoo.ZOO or not Path(net).is_file() else load(net)
    network = zoo.build(net, 10) if model is None else model.network
    shape = shape or (model and model.input_shape) or None  # type: ignore[assignment]
    if shape is None:
        raise InputError(f"The shape of an image is not known of {net}: give it as --input H W C.")
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


@click.command()
def info() -> None:
    """Print versions, processor, BLAS, threads, tuning and MPI, for a bug report."""
    from daskconv.launch.info import facts

    for name, fact in facts().items():
        click.echo(f"{name:<12} {fact}")
