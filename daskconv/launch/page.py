"""The page of a job: who shows it, at which address, and whether anything is collected for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import dask

_PRELOAD = "daskconv.dashboard.preload"


def page_wanted() -> bool:
    """Return whether a page is shown: not where Dask's configuration says ``daskconv.dashboard.enabled: false``."""
    return dask.config.get("daskconv.dashboard.enabled") is not False


@contextmanager
def preloaded() -> Iterator[None]:
    """Let schedulers that start while the context is open have the page from the beginning."""
    before = dask.config.get("distributed.scheduler.preload", None) or []
    before = [before] if isinstance(before, str) else list(before)
    with dask.config.set({"distributed.scheduler.preload": [*before, *[_PRELOAD] * page_wanted()]}):
        yield


@contextmanager
def page_of(client: Any) -> Iterator[str]:
    """Yield the path of the page that the client's scheduler shows; steps are watched where it is daskconv's own."""
    path = None
    if page_wanted() and client.scheduler_info().get("services", {}).get("dashboard"):
        path = _path(client)
        if path is None:
            warnings.warn(
                "The scheduler's process has no Bokeh, or no daskconv: install them there to watch training on a "
                "page; it goes on without.",
                RuntimeWarning,
                stacklevel=2,
            )
    if path is None:
        yield "/status"
        return
    with dask.config.set({"daskconv.dashboard.enabled": True}):
        yield path


def _path(client: Any) -> str | None:
    """Return where the scheduler shows the page, which is added where it was started without the preload."""
    from daskconv.dashboard.plugin import PagePlugin, page_path

    try:
        path = client.run_on_scheduler(page_path)
        if path is None:
            client.register_plugin(PagePlugin())
            path = client.run_on_scheduler(page_path)
    except Exception:
        # Whatever keeps a foreign scheduler from showing the page must not keep anybody from training.
        return None
    return path


def page_address(info: dict[str, Any], path: str = "/status", token: str = "") -> str:
    """Return the address of a page of the scheduler, with its token; on another host, with how to get there.

    Parameters
    ----------
    info : dict
        ``client.scheduler_info()``.
    path : str
    token : str
    """
    port = info.get("services", {}).get("dashboard")
    if not port:
        return "none"
    host = info["address"].rpartition("://")[2].rpartition(":")[0]
    here = {"", "127.0.0.1", "localhost", *_own_addresses()}  # none where the scheduler is in this process
    tunnel = "" if host in here else f" after ssh -L {port}:127.0.0.1:{port} {host}"
    return f"http://127.0.0.1:{port}{path}{f'?token={quote(token)}' if token else ''}{tunnel}"


def _own_addresses() -> set[str]:
    from distributed.utils import get_ip

    return {get_ip()}
