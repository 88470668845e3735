"""``--dashboard``: watch a run on a page in the browser."""

from __future__ import annotations

from typing import Any

import click

_PORT = 8787

dashboard_option = click.option(
    "--dashboard",
    is_flag=False,
    flag_value=_PORT,
    type=click.IntRange(0, 65535),
    metavar="[PORT]",
    help=f"Watch the run on http://127.0.0.1:PORT/daskconv, {_PORT} when no port is given; 0 for no page. Workers of a "
    "cluster and of mpiexec have a page without being asked.",
)
"""A port, or no value for the usual one."""


def page_options(port: int | None) -> dict[str, Any]:
    """Return what :func:`daskconv.start` is told of a page."""
    if port is None:
        return {}
    return (
        {"dashboard": False} if port == 0 else {"dashboard": True, "dashboard_address": f"127.0.0.1:{port}"}
    )
