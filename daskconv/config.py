"""The defaults of ``daskconv.yaml`` in Dask's configuration, from the moment that daskconv is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dask.config
import yaml


def defaults() -> dict[str, Any]:
    """Return what ``daskconv.yaml`` holds.

    Examples
    --------
    >>> defaults()["daskconv"]["precision"]
    'fast'
    """
    return yaml.safe_load(Path(__file__).with_name("daskconv.yaml").read_text())


def install() -> None:
    """Make the defaults part of Dask's configuration; what its files and the environment say goes before them."""
    dask.config.update_defaults(defaults())


def changed() -> dict[str, Any]:
    """Return the keys under ``daskconv`` that are not at their defaults, unknown ones too.

    Examples
    --------
    >>> with dask.config.set({"daskconv.input.ahead": 2}):
    ...     changed()["daskconv.input.ahead"]
    2
    """
    usual = dict(_flat(defaults()))
    now = dict(_flat({"daskconv": dask.config.get("daskconv", {})}))
    return {key: value for key, value in now.items() if key not in usual or value != usual[key]}


def known() -> set[str]:
    """Return every key that daskconv looks up."""
    return {key for key, _ in _flat(defaults())}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}".replace("_", "-"), value
