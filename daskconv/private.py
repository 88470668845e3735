"""Folders and files of this user that nobody else may write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def check_own(found: os.stat_result) -> None:
    """Raise PermissionError unless a file or folder is this user's and others may not write to it."""
    if found.st_uid != os.geteuid():
        raise PermissionError("it belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("others may write to it")


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter; one of this user's that is there is closed to others.

    Raises
    ------
    OSError
        Where it cannot be made, is a link or no folder, or belongs to another user.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError("it is no folder")
    if found.st_uid != os.geteuid():
        raise PermissionError("it belongs to another user")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(folder, 0o700)
