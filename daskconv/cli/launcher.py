"""How commands start their processes: those that run in one refuse to be launched as several."""

from __future__ import annotations

import click

from daskconv.errors import InputError

tls_option = click.option("--tls/--no-tls", default=True, show_default=True,
                          help="--no-tls: Dask's connections are neither encrypted nor asked for a certificate, and "
                          "whoever reaches a port of the job can run code as you.")  # fmt: skip


def refuse_launcher(command: str) -> None:
    """Raise InputError where a launcher started several processes."""
    from daskconv.run.launcher import launcher_ranks

    if launcher_ranks() > 1:
        raise InputError(f"{command} runs in one process, on its threads: start it without mpiexec or srun.")
