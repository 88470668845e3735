"""Read a pickle of NumPy arrays without running anything in it.

A pickle names the functions it wants called. Here the few names that an array needs stand for inert records,
any other name is refused, and the arrays are built from the records afterwards by `array`.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, ClassVar

import numpy as np


class _Record:
    """Keeps what a pickle passes to NumPy's constructors, and does nothing with it."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Latin1(_Record):
    """Stands for _codecs.encode, by which Python 3 writes bytes into old pickle protocols."""

    def __new__(cls, text: str, codec: str) -> bytes:  # type: ignore[misc]
        return text.encode("latin1")


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Record,
    ("numpy._core.multiarray", "_reconstruct"): _Record,
    ("numpy", "ndarray"): _Record,
    ("numpy", "dtype"): _Record,
    ("_codecs", "encode"): _Latin1,
}
NUMBERS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")

# What makes a buffer of any size that the file names; no array of a CIFAR-10 needs it.
_SIZED = {pickle.BYTEARRAY8[0], pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0]}


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler: that in C takes the numbers in a file for sizes of what it allocates."""

    dispatch: ClassVar = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code not in _SIZED
    }

    def find_class(self, module: str, name: str) -> type:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_dict(blob: bytes) -> dict[str, Any]:
    """Read a pickled dict with text keys; its arrays are records still.

    Raises
    ------
    ValueError
        The pickle is damaged, holds no dict, or asks for anything but plain values and arrays.
    """
    try:
        # Python 2 wrote the raw bytes of arrays as text: latin1 keeps each byte.
        value = _Unpickler(io.BytesIO(blob), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(str(error) or type(error).__name__) from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a dict")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): item for key, item in value.items()}


def array(value: Any) -> np.ndarray[Any, Any]:
    """Build an integer array from a list of integers or from the record of a pickled array.

    Raises
    ------
    ValueError
        It is neither, or its bytes do not fit its shape.
    """
    if isinstance(value, list):
        return np.array(value)
    try:
        _, shape, dtype, fortran, raw = value.state
        code, order = dtype.args[0], dtype.state[1]
        if code not in NUMBERS or order not in ("<", ">", "|", "="):
            raise ValueError(f"an array of type {code!r}")
        raw = raw.encode("latin1") if isinstance(raw, str) else memoryview(raw)
        return np.frombuffer(raw, order + code).reshape(shape, order="F" if fortran else "C")
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError("no array where one is expected") from error
