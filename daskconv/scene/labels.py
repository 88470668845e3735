"""Labels: an xarray.DataArray of a result, with the scene's dims, coordinates and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.scene.choose import Plan
from daskconv.scene.read import Scene


def labelled(result: Any, scene: Scene, plan: Plan, class_names: tuple[str, ...]) -> Any:
    """Return the result as a DataArray.

    Coordinates along rows and columns are those of the outputs' centres; the channels' are the classes.
    """
    import xarray

    labels = scene.labels
    dims = dict(zip(scene.axes, labels.dims, strict=True))
    channel = dims.get("c", "c")
    places = {
        dims[axis]: _places(size, outputs, *centre)
        for axis, size, outputs, centre in zip(
            "yx", scene.shape[1:3], plan.tiling.size, plan.centres, strict=True
        )
    }
    coords: dict[Any, Any] = {}
    for name, coord in labels.coords.items():
        moved = None if channel in coord.dims else _moved(coord, places)
        if moved is not None:
            coords[name] = (coord.dims, moved, coord.attrs)
    if len(class_names) == plan.tiling.outputs:
        coords[channel] = ((channel,), np.array(class_names), {})
    names = labels.dims if "c" in dims else (*labels.dims, channel)
    found = xarray.DataArray(result, coords=coords, dims=names, attrs=labels.attrs)
    # xarray calls an array without a name as Dask does, which says nothing.
    found.name = None if labels.name == getattr(labels.data, "name", None) else labels.name
    return found


def _places(size: int, outputs: int, first: float, step: float) -> NDArray[np.float64] | None:
    """Return where in the scene each output lies; None where that is at each pixel."""
    if outputs == size and step == 1:
        return None
    return first + step * np.arange(outputs, dtype=np.float64)


def _moved(coord: Any, places: dict[Any, NDArray[np.float64] | None]) -> Any:
    """Return a coordinate's values at the outputs; None where they cannot be told."""
    moved = [dim for dim in coord.dims if places.get(dim) is not None]
    if not moved:
        return coord.variable.data  # a lazy one stays so
    at = places[moved[0]]
    assert at is not None
    if len(coord.dims) > 1:
        return None
    if coord.dtype.kind in "iuf" and coord.size > 1:
        return _between(coord.values.astype(np.float64), at)
    whole = at.astype(np.int64)
    inside = (at == whole).all() and whole[0] >= 0 and whole[-1] < coord.size
    return coord.values[whole] if inside else None


def _between(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values between those of pixels; past the ends they go on in the same steps."""
    low = np.clip(np.floor(at).astype(np.int64), 0, len(values) - 2)
    return values[low] + (at - low) * (values[low + 1] - values[low])
