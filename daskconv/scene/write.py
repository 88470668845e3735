"""Write: the chunks of a Dask array that a Zarr array does not hold yet, on whatever scheduler is at work."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask._task_spec import Task, TaskRef, cull
from dask.base import get_scheduler, tokenize
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from daskconv.errors import WorkerError
from daskconv.scene.progress import counting
from daskconv.scene.told import Tiles, telling


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
    missing, total = list(files.values()), int(np.prod(data.numblocks))
    if not missing:
        with counting(total, total, progress):
            return
    graph, keys = _graph(data, str(folder), missing)
    from distributed import Client

    get = get_scheduler(collections=[data])
    client = getattr(get, "__self__", None)
    client = client if isinstance(client, Client) else None
    done = sorted(set(np.ndindex(data.numblocks)) - set(missing))
    name = folder.name.removesuffix(".partial")
    told = telling(name, data.numblocks, done, [data.name, keys[0][0]], client)
    with counting(total, len(done), progress) as advance, told as tiles:
        if client is None:
            _run(graph, keys, get or dask.threaded.get, advance, tiles, data.name)
        else:
            _run_on(client, graph, keys, advance, tiles)


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


def _run(
    graph: dict[Any, Any], keys: list[Any], get: Any, advance: Callable[[], None], tiles: Tiles, made: str
) -> None:
    """Run the graph with a scheduler's ``get``, and tell of each chunk of ``made`` that runs, and that is written."""
    from dask.callbacks import Callback

    wanted = set(keys)

    def before(key: Any, *_: Any) -> None:
        if isinstance(key, tuple) and key[0] == made:
            tiles.runs(key[1:])

    def after(key: Any, *_: Any) -> None:
        if key in wanted:
            advance()
            tiles.done(key[1:])

    with Callback(pretask=before, posttask=after):
        if get is dask.threaded.get and dask.config.get("pool", None) is None:
            # Dask's own threads go on with their chunks after a failure; of these all have ended when it is heard of.
            with ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT) as pool:
                get(graph, keys, pool=pool)
        else:
            get(graph, keys)


def _run_on(
    client: Any, graph: dict[Any, Any], keys: list[Any], advance: Callable[[], None], tiles: Tiles
) -> None:
    from distributed import KilledWorker, as_completed

    futures = client.get(graph, keys, sync=False)
    try:
        for future in as_completed(futures):
            future.result()
            advance()
            tiles.done(future.key[1:])
    except KilledWorker as error:
        raise WorkerError(
            f"Workers died of a chunk ({error}): what is complete stays, so go on with resume, and workers of "
            "more memory or a smaller tile.".replace("\n", " ")
        ) from None
    finally:
        client.cancel(futures)
