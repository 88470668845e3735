"""The callbacks of ``daskconv train``: ``--patience`` and ``--save-best``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from daskconv.errors import InputError


def beside(path: str, what: str) -> Path:
    """Return where else than in ``path`` something of the same run is kept.

    Examples
    --------
    >>> str(beside("models/digits.safetensors", "best"))
    'models/digits-best.safetensors'
    """
    return Path(path).with_stem(f"{Path(path).stem}-{what}")


def callbacks(options: dict[str, Any], target: str | None) -> list[Any]:
    """Return the callbacks that the options ask for; ``target`` is where the model will be saved."""
    from daskconv.train.callbacks import EarlyStopping, ModelCheckpoint

    monitor, found = options["monitor"], list[Any]()
    if monitor and not (options["patience"] or options["save_best"]):
        raise InputError("--monitor is for --patience and --save-best: give one of them, or leave it out.")
    if options["patience"]:
        found.append(EarlyStopping(monitor=monitor, patience=options["patience"]))
    if options["save_best"]:
        if target is None:
            raise InputError("--save-best writes beside --save: give that, too.")
        found.append(ModelCheckpoint(monitor=monitor, path=beside(target, "best")))
    return found


def say_best(trainer: Any, options: dict[str, Any], found: Sequence[Any]) -> None:
    """Say which epoch was the best where somebody asked for it, and whether training ended early."""
    if not found:
        return
    epochs = trainer.history.epochs
    best = epochs[found[0].best(epochs)]
    name = found[0].name(epochs)
    early = "stopped early: " if len(epochs) < options["epochs"] else ""
    click.echo(f"{early}{name} was best in epoch {best['epoch']}, {best[name]:.4f}")
    for callback in found:
        if hasattr(callback, "path"):
            click.echo(f"saved {callback.path}, of that epoch")
