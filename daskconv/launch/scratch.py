"""The folder in which workers keep what does not fit into memory: this user's alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import dask

from daskconv.errors import InputError
from daskconv.private import make_private


def scratch_folder() -> str:
    """Return the private scratch folder of this user on this host: ``daskconv-UID`` where temporary files go.

    Raises
    ------
    InputError
        Where it belongs to another user, who may have put it there, cannot be made, or could be replaced by others.
    """
    folder = Path(dask.config.get("temporary-directory", None) or tempfile.gettempdir())
    folder = folder.expanduser().absolute() / f"daskconv-{os.geteuid()}"
    try:
        make_private(folder)
        mode = os.stat(folder.parent).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(f"others may replace it, {folder.parent} lacks the sticky bit")
    except OSError as error:
        raise InputError(
            f"The scratch folder {folder} cannot be used ({error.strerror or error}): remove it, or set "
            "temporary-directory in Dask's configuration to a folder of your own."
        ) from None
    return str(folder)
