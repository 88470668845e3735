"""Numba where it works, plain NumPy where it does not: no kernel knows more of that than this room."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any

from daskconv.errors import InputError
from daskconv.private import check_own, make_private

_VARIABLE = "DASKCONV_JIT"


def njit(*, otherwise: Callable[..., Any] | None = None, **options: Any) -> Callable[[Callable], Any]:
    """Compile a kernel with Numba; where that does not work, it becomes ``otherwise``.

    Parameters
    ----------
    otherwise : function, optional
        The kernel's twin in :mod:`daskconv.kernels.plain`. Kernels that only compiled ones call need none.
    **options
        Of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not importable():
            return otherwise or function
        import numba

        with _cache_of(function):
            compiled = numba.njit(**options)(function)
        if otherwise is None:
            return compiled

        @wraps(function)
        def call(*args: Any) -> Any:
            return (compiled if enabled() else otherwise)(*args)

        return call

    return decorate


def intrinsic(function: Callable[..., Any]) -> Any:
    """Let compiled kernels call what the function writes in LLVM's language."""
    if not importable():
        return function
    from numba.extending import intrinsic as of_numba

    return of_numba(function)


def importable() -> bool:
    """Return whether this process imports Numba: it does not where DASKCONV_JIT is 0, or where that fails."""
    return not _missing()


@cache
def enabled() -> bool:
    """Return whether kernels are compiled; the first call compiles a function, and warns where Numba fails."""
    value = os.environ.get(_VARIABLE) or "1"
    if value not in ("0", "1"):
        raise InputError(f"{_VARIABLE} is {value!r}: give 0 (plain NumPy) or 1 (kernels compiled by Numba).")
    failure = _missing() or _cannot_compile()
    if failure and not _switched_off():
        warnings.warn(
            f"Numba fails here ({failure}), so daskconv runs on plain NumPy, which is slower: repair Numba, "
            f"or set {_VARIABLE}=0 to do without it.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not failure


def refusal(method: str) -> str:
    """Return the sentence that refuses a method which needs compiled kernels."""
    if _switched_off():
        why, remedy = f"which {_VARIABLE}=0 switches off", ", or unset it"
    else:
        why, remedy = f"and Numba fails here ({_missing() or _cannot_compile()})", ""
    return f"method {method!r} needs compiled kernels, {why}: choose lowering or pipelined{remedy}."


def _switched_off() -> bool:
    return os.environ.get(_VARIABLE) == "0"


@cache
def _missing() -> str:
    """Return why this process does without Numba, or nothing."""
    if _switched_off():
        return f"{_VARIABLE} is 0"
    try:
        import llvmlite.ir  # noqa: F401
        import numba

        _probe(numba)  # raises where there is no room for its cache
    except Exception as error:  # whatever a broken installation raises
        return _in_one_line(error)
    return "NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else ""  # type: ignore[attr-defined]


@cache
def _cannot_compile() -> str:
    """Return why Numba, which was imported, compiles nothing, or nothing."""
    import numba

    try:
        _probe(numba)(1)
    except Exception as error:
        return _in_one_line(error)
    return ""


def _probe(numba: Any) -> Any:
    with _cache_of(_next):
        return numba.njit(nogil=True, cache=True)(_next)


@contextmanager
def _cache_of(function: Callable[..., Any]) -> Iterator[None]:
    """Have Numba keep what it compiles of a function where only this user writes: its cache is made of pickles.

    That is the folder beside the function's file where it is so, else one in the user's own cache; or one in the folder
    that Numba was told to take (NUMBA_CACHE_DIR), if that is the user's.
    """
    from numba import config

    told: str = config.CACHE_DIR  # type: ignore[attr-defined]
    config.CACHE_DIR = _cache_folder(told, function.__code__.co_filename)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        config.CACHE_DIR = told  # type: ignore[attr-defined]


@cache
def _cache_folder(told: str, file: str) -> str:
    """Return the folder for what is compiled of a file's functions; "" is the one beside it."""
    if not told and _is_own(Path(file).parent / "__pycache__"):
        return ""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "daskconv"
    folder = (Path(told) if told and _is_own(Path(told)) else usual) / "numba"
    make_private(folder)
    return str(folder)


def _is_own(folder: Path) -> bool:
    """Return whether a folder can be made or is there, is this user's, and nobody else may write to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_own(os.stat(folder))
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _next(number):  # type: ignore[no-untyped-def]
    return number + 1


def _in_one_line(error: Exception) -> str:
    said = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
