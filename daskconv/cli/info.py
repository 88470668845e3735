"""``daskconv info``: this machine's facts."""

from __future__ import annotations

import click

from daskconv.cli.group import Command


@click.command(cls=Command, short_help="Print facts of this machine, for a bug report.")
def info() -> None:
    """Print versions, processor, BLAS, threads, tuning, cache, configuration and MPI, for a bug report."""
    from daskconv.launch.info import facts

    for name, fact in facts().items():
        click.echo(f"{name:<13} {fact}")
