"""History: what each epoch of training came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """The figures of each epoch.

    Examples
    --------
    >>> History([{"epoch": 1, "loss": 0.5}])["loss"]
    [0.5]
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[Any]:
        return [logs[name] for logs in self.epochs]
