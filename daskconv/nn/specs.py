"""Specs as plain data: what a network is made of, written to and read from JSON. No code is ever loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from daskconv.errors import DataError, InputError


def to_plain(spec: Any) -> Any:
    """Return dicts, lists, numbers and strings for a frozen dataclass; its class goes by name, as "kind".

    Examples
    --------
    >>> from daskconv.nn.initializers import Normal
    >>> to_plain(Normal(0.1))
    {'kind': 'Normal', 'std': 0.1}
    """
    if is_dataclass(spec) and not isinstance(spec, type):
        named = {field.name: to_plain(getattr(spec, field.name)) for field in fields(spec)}
        return {"kind": type(spec).__name__, **named}
    if isinstance(spec, list | tuple):
        return [to_plain(item) for item in spec]
    if isinstance(spec, Mapping):
        return {str(name): to_plain(item) for name, item in spec.items()}
    if spec is None or isinstance(spec, bool | int | float | str):
        return spec
    if hasattr(spec, "tolist"):
        return spec.tolist()
    raise InputError(f"{spec!r} cannot be saved: specs hold numbers, strings, tuples and other specs only.")


def from_plain(plain: Any, kinds: Mapping[str, type]) -> Any:
    """Return the specs of plain data; ``kinds`` are the classes that may appear.

    Examples
    --------
    >>> from daskconv.nn.initializers import Initializer
    >>> from_plain({"kind": "Normal", "std": 0.1}, kinds_of(Initializer))
    Normal(std=0.1)
    """
    if isinstance(plain, list):
        return tuple(from_plain(item, kinds) for item in plain)
    if not isinstance(plain, dict):
        return plain
    name = str(plain.get("kind"))
    if name not in kinds:
        raise DataError(
            f"The file holds a {name!r}, which is unknown here: import what defines it before loading."
        )
    values = {field: from_plain(item, kinds) for field, item in plain.items() if field != "kind"}
    known = {field.name for field in fields(kinds[name])}
    if not values.keys() <= known:
        raise DataError(
            f"The file's {name} has the options {sorted(values.keys() - known)}, which are unknown here."
        )
    return kinds[name](**values)


def kinds_of(*bases: type) -> dict[str, type]:
    """Return these classes and all their subclasses, by name: a user's own are found once they are defined."""
    kinds: dict[str, type] = {}
    for base in bases:
        kinds |= {base.__name__: base} | kinds_of(*base.__subclasses__())
    return kinds
