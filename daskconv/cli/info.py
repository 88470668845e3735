"""``daskconv info``: this machine's facts, and what a job opens."""

from __future__ import annotations

import click

from daskconv.cli.group import Command
from daskconv.cli.launcher import tls_option


@click.command(cls=Command, short_help="Print facts of this machine, for a bug report.")
@tls_option
def info(tls: bool) -> None:
    """Print versions, processor, BLAS, threads, tuning, cache, configuration and MPI, for a bug report.

    Under a launcher, as in mpiexec -n 4 daskconv info, it starts a job and lists every socket that the job opens, too.
    """
    from daskconv.launch.info import facts
    from daskconv.run.launcher import launcher_ranks

    lines = [f"{name:<13} {fact}" for name, fact in facts().items()]
    if launcher_ranks() > 1:
        lines += _sockets(tls)
    click.echo("\n".join(lines))


def _sockets(tls: bool) -> list[str]:
    """Return a table of the sockets of the job that this launcher has started; on the script's rank alone."""
    from daskconv.launch.sockets import TITLE, job_sockets
    from daskconv.launch.start import start

    with start(tls=tls) as client:
        return [TITLE, *map(str, job_sockets(client))]
