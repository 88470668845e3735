"""The page of a job: who shows it, at which address, and whether anything is collected for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask

_PRELOAD = "daskconv.dashboard.preload"


def page_wanted() -> bool:
    """Return whether a page is shown: not where Dask's configuration says ``daskconv.dashboard.enabled: false``."""
    return dask.config.get("daskconv.dashboard.enabled", None) is not False


@contextmanager
def preloaded() -> Iterator[None]:
    """Let schedulers that start while the context is open have the page from the beginning."""
    before = dask.config.get("distributed.scheduler.preload", None) or []
    before = [before] if isinstance(before, str) else list(before)
    with dask.config.set({"distributed.scheduler.preload": [*before, *[_PRELOAD] * page_wanted()]}):
        yield


@contextmanager
def page_of(client: Any) -> Iterator[str]:
    """Yield the name of the page that the client's scheduler shows; steps are watched where it is daskconv's own."""
    if not page_wanted():
        yield "status"
        return
    if not _has_page(client):
        _add_page(client)
    if not _has_page(client):
        warnings.warn(
            "The scheduler's process has no Bokeh, or no daskconv: install them there to see how training goes; "
            "it goes on without.",
            stacklevel=5,
        )
        yield "status"
        return
    with dask.config.set({"daskconv.dashboard.enabled": True}):
        yield "daskconv"


def _has_page(client: Any) -> bool:
    from daskconv.dashboard.plugin import has_page

    try:
        return client.run_on_scheduler(has_page)
    except ImportError:  # daskconv is not installed there
        return False


def _add_page(client: Any) -> None:
    """Add the page to a scheduler that was started without the preload."""
    from daskconv.dashboard.plugin import PagePlugin

    try:
        client.register_plugin(PagePlugin())
    except Exception as error:
        # Whatever keeps a foreign scheduler from showing the page must not keep anybody from training.
        warnings.warn(
            f"The scheduler does not take the page ({type(error).__name__}: {error}).", stacklevel=6
        )


def page_address(info: dict[str, Any], name: str = "status") -> str:
    """Return the address of a page of the scheduler; on another host, with how to get there.

    Parameters
    ----------
    info : dict
        ``client.scheduler_info()``.
    name : {"daskconv", "status"}
    """
    port = info.get("services", {}).get("dashboard")
    if not port:
        return "none"
    host = info["address"].rpartition("://")[2].rpartition(":")[0]
    here = {"127.0.0.1", "localhost", *_own_addresses()}
    tunnel = "" if host in here else f" after ssh -L {port}:127.0.0.1:{port} {host}"
    return f"http://127.0.0.1:{port}/{name}{tunnel}"


def _own_addresses() -> set[str]:
    from distributed.utils import get_ip

    return {get_ip()}
