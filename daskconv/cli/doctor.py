"""``daskconv doctor``: what is not well on this machine, and what to do."""

from __future__ import annotations

import sys

import click

from daskconv.cli.group import Command


@click.command(cls=Command, short_help="Check this machine, and say what to fix.")
def doctor() -> None:
    """Check this machine in half a minute: kernels, threads, TLS, disk, memory, clock and MPI; say what to fix.

    Under a launcher, as in mpiexec -n 4 daskconv doctor, every host is checked, and their clocks are compared. The exit
    code is 1 where something is not well.
    """
    from daskconv.launch.doctor import examine, examine_ranks
    from daskconv.run.launcher import launcher_ranks

    well = True
    for finding in examine_ranks() if launcher_ranks() > 1 else examine():
        click.echo(finding)
        well = well and finding.well
    sys.exit(0 if well else 1)
