"""Preload of a scheduler: ``dask scheduler --preload daskconv.dashboard.preload`` has the page from the beginning."""

from __future__ import annotations

from typing import Any

from daskconv.dashboard.plugin import PagePlugin, documents

try:
    # The dashboard is built of these after preloads are imported: the page becomes one of its own.
    from distributed.dashboard.scheduler import applications
except ImportError:
    pass  # without Bokeh the scheduler has no dashboard; whoever trains is told so
else:
    applications.update(documents())


def dask_setup(scheduler: Any) -> None:
    """Begin to listen, and show the page in the navigation bar."""
    plugin = PagePlugin()
    scheduler.add_plugin(plugin, name=plugin.name, idempotent=True)
    plugin.begin(scheduler)
