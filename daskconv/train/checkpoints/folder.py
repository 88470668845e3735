"""A folder of checkpoints: each is a folder of its own, which gets its name when all of it is on the disk.

Whatever ends a process, a name like ``step-000000150`` belongs to a whole checkpoint; what is being written, or
removed, begins with a dot.
"""

from __future__ import annotations

import os
import shutil
import warnings
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

from daskconv.errors import DataError
from daskconv.train.checkpoints.manifest import read_manifest, write_manifest
from daskconv.train.checkpoints.shard import Piece, assembled, read_shard
from daskconv.train.durable import sync_folder
from daskconv.train.files import Checkpoint, checkpoint_of

_STEP, _PART, _OLD, _DAMAGED = "step-", ".part-", ".old-", "damaged-"


def name_of(steps: int) -> str:
    """Return the name of the checkpoint after so many steps."""
    return f"{_STEP}{steps:09d}"


def steps_of(name: str) -> int:
    """Return after how many steps a checkpoint was taken."""
    return int(name.removeprefix(_STEP))


def names(folder: str | PathLike[str]) -> list[str]:
    """Return the checkpoints of a folder, the newest first."""
    entries = os.listdir(folder) if Path(folder).is_dir() else []
    found = [name for name in entries if name.startswith(_STEP) and name.removeprefix(_STEP).isdigit()]
    return sorted(found, key=steps_of, reverse=True)


def begin(folder: Path, name: str) -> Path:
    """Return a new folder for a checkpoint's files."""
    part = folder / f"{_PART}{name}-{uuid4().hex[:8]}"
    os.mkdir(part)
    return part


def finish(part: Path, contents: dict[str, Any]) -> None:
    """Write the manifest, and give the checkpoint its name."""
    write_manifest(part, contents)
    sync_folder(part)
    target = part.parent / contents["name"]
    if target.exists():
        # Training went on from before it, so it did not verify; what somebody may want to look at stays.
        os.rename(target, part.parent / f"{_DAMAGED}{target.name}-{uuid4().hex[:8]}")
    os.rename(part, target)
    sync_folder(part.parent)


def give_up(part: Path) -> None:
    """Remove what there is of a checkpoint that cannot be written."""
    shutil.rmtree(part, ignore_errors=True)


def prune(folder: Path, keep: set[str]) -> None:
    """Remove all checkpoints but some."""
    for name in set(names(folder)) - keep:
        old = folder / f"{_OLD}{name}-{uuid4().hex[:8]}"
        os.rename(folder / name, old)
        shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half written, or half removed."""
    for name in os.listdir(folder):
        if name.startswith((_PART, _OLD)):
            shutil.rmtree(folder / name, ignore_errors=True)


def figures(folder: Path) -> dict[str, dict[str, float]]:
    """Return the figures of the epochs that checkpoints ended with, as far as their manifests can be read."""
    found = {}
    for name in names(folder):
        try:
            found[name] = read_manifest(folder / name)["figures"]
        except DataError:
            continue
    return found


def read(path: Path) -> Checkpoint:
    """Return one checkpoint; raise DataError, with the name of the file, unless all of it is what was written."""
    try:
        contents = read_manifest(path)
        pieces: list[Piece] = []
        for name, entry in contents["files"].items():
            pieces += read_shard(path / name, entry)
        return checkpoint_of(path, assembled(contents["arrays"], pieces), contents)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no complete checkpoint ({error!r})") from None


def read_newest(folder: str | PathLike[str]) -> Checkpoint:
    """Return the newest checkpoint that verifies; a warning names each newer one, and what is wrong with it.

    Raises
    ------
    DataError
        Where none does.
    """
    refused: list[str] = []
    for name in names(folder):
        try:
            checkpoint = read(Path(folder) / name)
        except DataError as error:
            refused.append(str(error).rstrip("."))
            continue
        if refused:
            sentence = (
                f"{'; '.join(refused)}: this is not used, training falls back to {Path(folder) / name}."
            )
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)
        return checkpoint
    if refused:
        raise DataError(f"{folder} holds no checkpoint that verifies: {'; '.join(refused)}.")
    raise DataError(f"{folder} holds no checkpoint: give the folder that training wrote to, or a file.")
