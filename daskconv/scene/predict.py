"""Predict: a network's map of a scene, tile by tile, at once or as a lazy Dask array."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.base import tokenize
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.geometry import as_pair
from daskconv.graph.threads import available_threads
from daskconv.scene.choose import Model, Plan, channels_of, plan_scene
from daskconv.scene.labels import labelled
from daskconv.scene.memory import in_words, memory_limit, run_bytes
from daskconv.scene.read import Part, Scene, axes_of_labels, pieces, read_scene, region
from daskconv.scene.run import in_order, run_blocks, run_chunk, run_region


def is_scene(model: Model, images: Any, tile: Any, stride: Any) -> bool:
    """Tell scenes from images predicted whole: these have four axes, no tile or stride, and fit into memory."""
    if stride is not None or not (isinstance(tile, str) and tile == "auto") or np.ndim(images) in (2, 3):
        return True
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or not all(size > 0 for size in shape):  # of unknown size, perhaps
        return False
    labelled_axes = axes_of_labels(images) if hasattr(images, "dims") else None
    at = [labelled_axes.find(axis) for axis in "yxc"] if labelled_axes else [1, 2, 3]
    image = tuple(shape[i] for i in at)
    try:
        if len(model.network.output_shape(image)) != 3:
            return False
        needed = run_bytes(model.network, image, {}, 1)
    except InputError:
        return False
    lazy = hasattr(images, "dask") or hasattr(getattr(images, "data", None), "dask")
    return labelled_axes is not None or needed > memory_limit(lazy).total


def predict_scene(
    model: Model,
    scene: Any,
    *,
    tile: Any = "auto",
    batch: Any = "auto",
    overlap: Any = "exact",
    stride: Any = None,
    precision: str | None = None,
) -> Any:
    """Return the map of a scene, as :meth:`daskconv.Model.predict` does."""
    if overlap != "exact":
        raise InputError(f'overlap is {overlap!r}: "exact" is the only one.')
    channels = channels_of(model)
    found = read_scene(scene, lambda c: channels in (None, c), channels)
    steps = None if stride is None else as_pair(stride, "stride")
    plan = plan_scene(model, found, tile, batch, steps, precision)
    result = _lazily(plan, found) if found.is_dask or found.is_stored else _at_once(plan, found)
    return result if found.labels is None else labelled(result, found, plan, model.class_names)


def _at_once(plan: Plan, scene: Scene) -> NDArray:
    """Return the map of a scene in memory, computed on this process's threads."""
    tiling, runner = plan.tiling, plan.runner
    shape = (scene.shape[0], *tiling.size, tiling.outputs)
    size, room = prod(shape) * runner.dtype.itemsize, memory_limit(lazy=False).total
    if size > room:
        raise InputError(
            f"The result of {shape} needs {in_words(size)} in this process, which has {in_words(room)} for it: give "
            "the scene as a Dask array, and store what it gives."
        )
    whole = np.empty(shape, runner.dtype)
    threads = available_threads()
    for n, rows, columns in product(range(len(whole)), tiling.rows, tiling.columns):
        pixels = region(scene.array, scene.axes, n, rows.pixels, columns.pixels)
        part = Part.of(pixels, rows.pixels, columns.pixels)
        chunk = run_chunk(runner, part, rows, columns, n, threads)
        whole[n, slice(*rows.outputs), slice(*columns.outputs)] = chunk
    if "n" not in scene.axes:
        return np.ascontiguousarray(in_order(whole[0], scene.axes))
    axes = scene.axes if "c" in scene.axes else f"{scene.axes}c"
    return np.ascontiguousarray(whole.transpose(["nyxc".index(axis) for axis in axes]))


def _lazily(plan: Plan, scene: Scene) -> Any:
    """Return the map as a Dask array: one task a chunk, and one that holds the network."""
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    tiling, axes = plan.tiling, scene.axes if "c" in scene.axes else f"{scene.axes}c"
    source = scene.array.name if scene.is_dask else tokenize(scene.array)
    name = f"predict-{plan.token}-{tokenize(source, axes, tiling.rows, tiling.columns)}"
    runner = DataNode(f"network-{plan.token}-{tokenize(name)}", plan.runner)
    layer: dict[Any, Any] = {runner.key: runner}
    if not scene.is_dask:
        stored = DataNode(f"scene-{tokenize(name)}", scene.array)
        layer[stored.key] = stored
    down = [_Place(i, strip, scene, "y") for i, strip in enumerate(tiling.rows)]
    across = [_Place(i, strip, scene, "x") for i, strip in enumerate(tiling.columns)]
    for n, row, column in product(range(scene.shape[0]), down, across):
        index = {"n": n, "y": row.number, "x": column.number, "c": 0}
        key = (name, *(index[axis] for axis in axes))
        if scene.is_dask:
            layer[key] = _task_of_blocks(key, runner.key, scene, n, row, column)
        else:
            layer[key] = Task(
                key, run_region, TaskRef(runner.key), TaskRef(stored.key), n, row.strip, column.strip
            )
    graph = HighLevelGraph.from_collections(name, layer, [scene.array] if scene.is_dask else [])
    sizes = {
        "n": (1,) * scene.shape[0],
        "y": tuple(strip.size for strip in tiling.rows),
        "x": tuple(strip.size for strip in tiling.columns),
        "c": (tiling.outputs,),
    }
    chunks = tuple(sizes[axis] for axis in axes)
    return da.Array(graph, name, chunks, meta=np.empty((0,) * len(axes), plan.runner.dtype))


class _Place:
    """A strip, its number, and the chunks of a Dask array that hold its pixels."""

    def __init__(self, number: int, strip: Any, scene: Scene, axis: str) -> None:
        self.number, self.strip = number, strip
        if scene.is_dask:
            self.pieces = pieces(scene.array.chunks[scene.axes.index(axis)], *strip.pixels)


def _task_of_blocks(key: Any, runner: Any, scene: Scene, n: int, row: _Place, column: _Place) -> Task:
    """Return the task of a chunk that reads the chunks of a Dask array."""
    chunks = dict(zip(scene.axes, scene.array.chunks, strict=True))
    sides = {"y": row.pieces, "x": column.pieces}
    if "n" in chunks:
        sides["n"] = pieces(chunks["n"], n, n + 1)
    if "c" in chunks:
        sides["c"] = pieces(chunks["c"], 0, sum(chunks["c"]))
    ordered = tuple(sides[axis] for axis in scene.axes)
    numbers = product(*([number for number, _, _ in side] for side in ordered))
    blocks = (TaskRef((scene.array.name, *place)) for place in numbers)
    return Task(key, run_blocks, TaskRef(runner), ordered, n, row.strip, column.strip, *blocks)
