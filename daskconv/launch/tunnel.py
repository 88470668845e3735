"""How to reach the page of a batch job from elsewhere: it listens on the loopback of the scheduler's host alone."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

import dask

# What batch systems say: the job's number, and the host that it was sent from.
_BATCH = {"SLURM_JOB_ID": "SLURM_SUBMIT_HOST", "PBS_JOBID": "PBS_O_HOST", "PJM_JOBID": "PJM_O_HOST"}


def tunnel_lines(client: Any) -> list[str]:
    """Return the lines that lead to the page, in a batch job and where ``daskconv.login`` names a host."""
    login = login_host(os.environ)
    port = client.scheduler_info()["services"].get("dashboard")
    if login is None or not port:
        return []
    return lines_to(client.run_on_scheduler(socket.gethostname), port, login, getpass.getuser())


def login_host(environ: Mapping[str, str]) -> str | None:
    """Return the host that a user logs in to; None where nobody has to.

    Examples
    --------
    >>> login_host({"SLURM_JOB_ID": "17", "SLURM_SUBMIT_HOST": "login2"})
    'login2'
    >>> login_host({"PBS_JOBID": "17.pbs"})
    'LOGIN-HOST'
    """
    if configured := dask.config.get("daskconv.login"):
        return str(configured)
    return next((environ.get(host) or "LOGIN-HOST" for job, host in _BATCH.items() if job in environ), None)


def lines_to(host: str, port: int, login: str, user: str) -> list[str]:
    """Return how to reach a port of a host's loopback.

    Examples
    --------
    >>> for line in lines_to("node7", 8787, "login2", "ann"):
    ...     print(line)
    the page from your machine: ssh -N -J ann@login2 -L 8787:127.0.0.1:8787 ann@node7, then open the address above
    the page in JupyterLab: ssh -N -L 8787:127.0.0.1:8787 node7 in a terminal, then open .../proxy/8787/ in its place
    """
    forward = f"-L {port}:127.0.0.1:{port}"
    return [
        f"the page from your machine: ssh -N -J {user}@{login} {forward} {user}@{host}, then open the address above",
        f"the page in JupyterLab: ssh -N {forward} {host} in a terminal, then open .../proxy/{port}/ in its place",
    ]
