"""Where the tuning table is kept: a private file in the user's cache, shared by all processes of a machine."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask

from daskconv.errors import InputError
from daskconv.graph.tuning import Table, made_for, table_name
from daskconv.private import check_own, make_private

FORMAT = 1
_MOST_BYTES = 2**24
_PATIENCE = 10.0  # seconds until a lock that nobody returns is passed over
# Opening a link or a pipe that somebody else put there must neither follow nor wait.
_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def load_table() -> Table:
    """Return this machine's table, read once a process; an empty one where there is none or it is no good."""
    try:
        path = _path()
    except RuntimeError:  # a user without a home, as in some containers
        return Table()
    return _read_once(path)


def save_table(table: Table) -> Path | None:
    """Put the rows of a table into this machine's file, beside those that are there.

    Returns
    -------
    path or None
        None where the file cannot be written, after one warning.
    """
    try:
        path = _path()
        make_private(path.parent)
        with _locked(path.parent / ".lock"):
            _replace(path, _known(path).merged(table))
    except (OSError, RuntimeError) as error:
        _warn(
            f"The tuning table cannot be kept in {_told()} ({_why(error)}): "
            "set DASKCONV_CACHE to a folder of your own."
        )
        return None
    _read_once.cache_clear()
    return path


def cache_folder() -> Path:
    """Return daskconv's folder in the user's cache: DASKCONV_CACHE, Dask's ``daskconv.cache``, or the usual place."""
    given = os.environ.get("DASKCONV_CACHE") or dask.config.get("daskconv.cache")
    if given:
        return Path(given).expanduser()
    usual = os.environ.get("XDG_CACHE_HOME")
    return Path(usual or os.path.expanduser("~/.cache")) / "daskconv"


def _path() -> Path:
    return cache_folder() / "tuning" / table_name()


@cache
def _read_once(path: Path) -> Table:
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return Table()
    except _DAMAGED as error:
        _warn(
            f"The tuning cache {path} is ignored ({_why(error)}), so methods are chosen by the rule: "
            "run daskconv tune again, or remove the file."
        )
        return Table()


def _known(path: Path) -> Table:
    """Return what the file holds; nothing where it is damaged, so that it is replaced."""
    try:
        return _read(path)
    except _DAMAGED:
        return Table()


def _read(path: Path) -> Table:
    check_own(os.lstat(path.parent))
    with open(os.open(path, os.O_RDONLY | _CAREFULLY), "rb") as file:
        found = os.fstat(file.fileno())
        check_own(found)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise InputError("it is no file of a table")
        plain = json.loads(file.read())
    if plain["format"] != FORMAT or plain["made_for"] != made_for():
        raise InputError("it was made for another version or processor")
    return Table.from_plain(plain["rows"])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time read, merge and replace; where locks do not work, the last one to write wins."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        yield
    finally:
        os.close(handle)


def _replace(path: Path, table: Table) -> None:
    """Write a whole file beside ``path``, then put it in its place: readers see the old one or the new one."""
    plain: dict[str, Any] = {"format": FORMAT, "made_for": made_for(), "rows": table.to_plain()}
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, 0o600)
        with open(handle, "w") as file:
            json.dump(plain, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _why(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if type(error) is InputError else f"it is damaged, {type(error).__name__}"


def _told() -> str:
    try:
        return str(_path().parent)
    except RuntimeError:
        return "the user's cache"


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=3)
