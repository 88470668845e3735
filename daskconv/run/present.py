"""Who is there: what the scheduler says of itself and of its workers, now."""

from __future__ import annotations

from typing import Any


def scheduler_info(client: Any) -> dict[str, Any]:
    """Return what the scheduler says of itself and, under "workers", of each worker by its address.

    What a client's own ``scheduler_info`` returns may be another answer, without workers: it asks for that every 2 s.

    Raises
    ------
    OSError
        Where there is no answer.
    """
    if client.scheduler is None:
        raise OSError("the client is closed")
    return client.sync(client.scheduler.identity, n_workers=-1)
