"""Commands that run in one process refuse to be launched as several."""

from __future__ import annotations

from daskconv.errors import InputError


def refuse_launcher(command: str) -> None:
    """Raise InputError where a launcher started several processes."""
    from daskconv.run.launcher import launcher_ranks

    if launcher_ranks() > 1:
        raise InputError(f"{command} runs in one process, on its threads: start it without mpiexec or srun.")
