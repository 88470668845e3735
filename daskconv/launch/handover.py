"""What the ranks of an MPI job agree on before it is a cluster: keys, the page's token, clocks, scratch folders.

The keys are made on rank 0 and travel by MPI, to no file that others see. MPI's own traffic is the site's network and
is not encrypted, this hand-over included.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

from daskconv.errors import InputError
from daskconv.launch import gate, tls
from daskconv.launch.scratch import scratch_folder

SCRIPT = 1
"""The rank of the script; it speaks for all."""

# A certificate is valid from when it was made on. Seconds that a host whose clock is behind waits for that.
_MOST_BEHIND = 10.0


@dataclass(frozen=True)
class HandOver:
    """What a rank has been given.

    Attributes
    ----------
    security : distributed.Security or None
        Nothing where there is no TLS, and where the site's configuration has certificates.
    encrypted : bool
    token : str
        Of the page; may be empty.
    scratch : str
        This user's folder on this rank's host.
    """

    security: Any
    encrypted: bool
    token: str
    scratch: str = ""

    @property
    def protocol(self) -> str | None:
        """What scheduler and workers speak; Dask's own choice where it is None."""
        return tls.PROTOCOL if self.encrypted else None

    def config(self) -> dict[str, Any]:
        """Return what a scheduler's or worker's Dask configuration has to hold."""
        return gate.preloaded(self.token) | (tls.as_config(self.security) if self.security else {})


def hand_over(comm: Any, encrypted: bool) -> HandOver:
    """Return what this rank gets; all ranks call it together.

    Raises
    ------
    InputError
        On the script's rank, where any rank has a problem. The other ranks exit with code 2.
    """
    made, now = comm.bcast(_make(encrypted) if comm.rank == 0 else None, root=0)
    if isinstance(made, str):
        _agree(comm, made)
    scratch, problem = "", ""
    try:
        _await_clock(comm.rank, now - time.time() if encrypted else 0.0)
        scratch = scratch_folder()
    except InputError as error:
        problem = str(error)
    _agree(comm, problem)
    security, encrypted, token = made
    return HandOver(security, encrypted, token, scratch)


def _make(encrypted: bool) -> tuple[Any, float]:
    """Return what rank 0 hands out, or a sentence, and the time."""
    try:
        security = tls.temporary() if encrypted and not tls.configured() else None
    except InputError as error:
        return str(error), time.time()
    return (security, encrypted, gate.token()), time.time()


def _await_clock(rank: int, behind: float) -> None:
    """Wait until this host's clock has reached the time at which the certificate was made."""
    if behind > _MOST_BEHIND:
        raise InputError(
            f"The clock of rank {rank}'s host is {behind:.0f} s behind that of rank 0's, so the job's certificate is "
            "not valid there yet: have the clocks set by NTP or chrony, or start with --no-tls (tls=False)."
        )
    time.sleep(max(0.0, behind))


def _agree(comm: Any, problem: str) -> None:
    """Let the script's rank raise the first problem of any rank; the other ranks exit then."""
    problems = [said for said in comm.allgather(problem) if said]
    if problems and comm.rank == SCRIPT:
        raise InputError(problems[0])
    if problems:
        sys.exit(2)
