"""Write: the chunks of a Dask array that a Zarr array does not hold yet, on whatever scheduler is at work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask._task_spec import Task, TaskRef, cull
from dask.base import get_scheduler, tokenize
from numpy.typing import NDArray

from daskconv.errors import WorkerError
from daskconv.scene.progress import counting


def write_chunks(data: Any, target: Any, progress: bool) -> None:
    """Compute the chunks that have no file, and write each from the task that made it.

    Parameters
    ----------
    data : dask.array.Array
    target : zarr.Array
        On disk, in chunks of the same size.
    progress : bool
    """
    folder = Path(target.store.root) / target.path
    files = {target.metadata.encode_chunk_key(place): place for place in np.ndindex(data.numblocks)}
    for name in _names(folder):
        if name in files:
            del files[name]
        elif name.endswith(".partial"):
            (folder / name).unlink()  # of a write that was killed
    total = int(np.prod(data.numblocks))
    with counting(total, total - len(files), progress) as advance:
        if files:
            _run(*_graph(data, str(folder), list(files.values())), get_scheduler(collections=[data]), advance)


def _names(folder: Path) -> set[str]:
    """Return all files below a folder, by one walk: look-ups are slow on parallel file systems."""
    return {
        os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
        for parent, _, names in os.walk(folder)
        for name in names
    }


def _graph(data: Any, folder: str, places: list[tuple[int, ...]]) -> tuple[dict[Any, Any], list[Any]]:
    """Return the graph that writes some chunks, and its keys."""
    (data,) = dask.optimize(data)
    name = f"store-{tokenize(data.name, folder)}"
    starts = [np.cumsum([0, *sizes]) for sizes in data.chunks]
    graph: dict[Any, Any] = dict(data.__dask_graph__())
    keys: list[Any] = []
    for place in places:
        keys.append(key := (name, *place))
        where = tuple((int(at[i]), int(at[i + 1])) for at, i in zip(starts, place, strict=True))
        graph[key] = Task(key, write_chunk, folder, where, TaskRef((data.name, *place)))
    return cull(graph, keys), keys


def write_chunk(folder: str, where: tuple[tuple[int, int], ...], chunk: NDArray) -> None:
    """Write one chunk; its file appears when it is whole, and also where all its values are zero."""
    import zarr

    array = zarr.open_array(folder, mode="r+").with_config({"write_empty_chunks": True})
    array[tuple(slice(*side) for side in where)] = chunk


def _run(graph: dict[Any, Any], keys: list[Any], get: Any, advance: Callable[[], None]) -> None:
    """Run the graph with a scheduler's ``get``, and tell of each chunk that is written."""
    from dask.callbacks import Callback
    from distributed import Client

    client = getattr(get, "__self__", None)
    if isinstance(client, Client):
        _run_on(client, graph, keys, advance)
        return
    wanted = set(keys)
    with Callback(posttask=lambda key, *_: advance() if key in wanted else None):
        (get or dask.threaded.get)(graph, keys)


def _run_on(client: Any, graph: dict[Any, Any], keys: list[Any], advance: Callable[[], None]) -> None:
    from distributed import KilledWorker, as_completed

    futures = client.get(graph, keys, sync=False)
    try:
        for future in as_completed(futures):
            future.result()
            advance()
    except KilledWorker as error:
        raise WorkerError(
            f"Workers died of a chunk ({error}): what is complete stays, so go on with resume, and workers of "
            "more memory or a smaller tile.".replace("\n", " ")
        ) from None
    finally:
        client.cancel(futures)
