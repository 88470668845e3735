"""Shards: the files that hold a checkpoint's arrays, whole or in pieces, and what its manifest says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import DataError
from daskconv.plan.boxes import Box, intersect, shape_of, slices, whole
from daskconv.train.durable import write_file


class Piece(NamedTuple):
    """A part of an array, or all of it.

    Attributes
    ----------
    array : str
    box : Box
    values : array
    """

    array: str
    box: Box
    values: NDArray


def whole_pieces(arrays: Mapping[str, NDArray]) -> list[Piece]:
    """Return arrays as one piece each."""
    return [Piece(name, whole(array.shape), array) for name, array in arrays.items()]


def write_shard(path: Path, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Write a new file of pieces; return what the manifest says of it."""
    from safetensors.numpy import save

    content = save({f"{i}/{p.array}": np.ascontiguousarray(p.values) for i, p in enumerate(pieces)})
    write_file(path, content)
    return {
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "pieces": [[piece.array, [list(side) for side in piece.box]] for piece in pieces],
    }


def read_shard(path: Path, entry: Mapping[str, Any]) -> list[Piece]:
    """Return a shard's pieces; raise DataError unless it is, byte by byte, what the manifest says."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if path.stat().st_size != entry["bytes"]:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes instead of {entry['bytes']:,}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if sha256(content).hexdigest() != entry["sha256"]:
        raise DataError(f"{path} has other contents than its manifest says")
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file ({error})") from None
    boxes = [(name, tuple((start, stop) for start, stop in box)) for name, box in entry["pieces"]]
    return [Piece(name, box, arrays[f"{i}/{name}"]) for i, (name, box) in enumerate(boxes)]


def shapes_of(arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    """Return what the manifest says of arrays."""
    return {
        name: {"dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in sorted(arrays.items())
    }


def assembled(shapes: Mapping[str, Any], pieces: Iterable[Piece]) -> dict[str, NDArray]:
    """Return whole arrays; raise DataError where pieces are missing, overlap or are of other arrays."""
    by_name: dict[str, list[Piece]] = {name: [] for name in shapes}
    for piece in pieces:
        if piece.array not in by_name:
            raise DataError(f"a file holds {piece.array}, which the manifest does not know")
        by_name[piece.array].append(piece)
    return {name: _joined(name, shapes[name], parts) for name, parts in by_name.items()}


def _joined(name: str, expected: Mapping[str, Any], parts: Sequence[Piece]) -> NDArray:
    shape, dtype = tuple(expected["shape"]), np.dtype(expected["dtype"])
    for part in parts:
        if part.values.dtype != dtype or part.values.shape != shape_of(part.box, None):
            raise DataError(f"{name} has a piece {part.values.dtype}{part.values.shape} at {part.box}")
    held = sum(part.values.size for part in parts)
    inside = all(intersect(part.box, whole(shape)) == part.box for part in parts if part.values.size)
    apart = all(intersect(one.box, other.box) is None for one, other in combinations(parts, 2))
    if held != prod(shape) or not inside or not apart:
        raise DataError(f"{name} of shape {shape} is not whole: the files hold {held:,} of its values")
    array = np.empty(shape, dtype)
    for part in parts:
        array[slices(part.box, whole(shape), None)] = part.values
    return array
