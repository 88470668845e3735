"""Images: where they lie and how a worker reads some of them, counted in images and bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any

import dask
import dask.local
import numpy as np
from dask.optimization import cull
from dask.utils import parse_bytes
from numpy.typing import NDArray

from daskconv.errors import DataError, InputError
from daskconv.plan.input import InputCount

Indices = NDArray[np.int64]

CACHE = "1 GiB"
"""Bytes of chunks that a process keeps, where ``daskconv.input.cache`` does not say it."""


class Images:
    """Images (n, h, w, c) that lie somewhere.

    Attributes
    ----------
    edges : sequence of int or None
        Where chunks start, and the end of the last, if reading one image reads its chunk.
    image_bytes : int
    """

    edges: Sequence[int] | None = None
    image_bytes: int
    count: InputCount

    def take(self, indices: Indices) -> NDArray:
        """Return some images, as they were stored."""
        raise NotImplementedError

    def chunks(self, indices: Sequence[Indices]) -> dict[int, Any]:
        """Return the futures of the chunks of some images, where a cluster holds these."""
        return {}

    def hold(self, by: Hashable, chunks: Mapping[int, NDArray]) -> None:
        """Take the chunks that a task was given to read from, until it is given others for the same purpose."""

    def keep_at_most(self, nbytes: int) -> None:
        """Keep no more bytes of what was read before."""


class InMemory(Images):
    """Images of this process's memory."""

    def __init__(self, x: NDArray, name: str) -> None:
        if np.issubdtype(x.dtype, np.floating):
            for start in range(0, len(x), 1024):
                check_finite(x[start : start + 1024], name, start)
        self.x, self.count, self.image_bytes = x, InputCount(), x[0].nbytes

    def take(self, indices: Indices) -> NDArray:
        """Return some images."""
        images = self.x[indices]
        self.count.add(len(images), images.nbytes)
        return images


class Chunks(Images):
    """A Dask array whose chunks a process computes on the thread that needs them, and keeps as far as its cache goes.

    Parameters
    ----------
    x : Dask array (n, h, w, c)
        What travels to workers is its graph: each opens the files that this names, and reads what it needs.
    name : str
    """

    edges: Sequence[int]

    def __init__(self, x: Any, name: str) -> None:
        x = x.rechunk({1: -1, 2: -1, 3: -1})
        self.edges = [0, *np.cumsum(x.chunks[0]).tolist()]
        self.shape, self.dtype, self.name = x.shape[1:], x.dtype, name
        self.image_bytes = x[0].nbytes
        (optimized,) = dask.optimize(x)
        self.graph = dict(optimized.__dask_graph__())
        self.keys = [optimized.__dask_keys__()[i][0][0][0] for i in range(len(x.chunks[0]))]
        self.count, self.cache = InputCount(), Cache(cache_bytes())
        if np.issubdtype(x.dtype, np.floating):
            raise_not_finite(x, name)

    def take(self, indices: Indices) -> NDArray:
        """Return some images."""
        return images_of_chunks(indices, self.edges, self._chunk, (self.shape, self.dtype))

    def _chunk(self, chunk: int) -> NDArray:
        return self.cache.get(chunk, self._read)

    def _read(self, chunk: int) -> NDArray:
        # Dask puts all it is given in order first: of 1500 chunks' tasks that takes longer than most reads.
        own, _ = cull(self.graph, [self.keys[chunk]])
        block = np.asarray(dask.local.get_sync(own, self.keys[chunk]))
        if np.issubdtype(block.dtype, np.floating):
            check_finite(block, self.name, self.edges[chunk])
        self.count.add(len(block), block.nbytes)
        return block

    def keep_at_most(self, nbytes: int) -> None:
        """Keep no more bytes of chunks, but for the newest one."""
        self.cache.nbytes = min(self.cache.nbytes, nbytes)


def images_of_chunks(
    indices: Indices, edges: Sequence[int], read: Callable[[int], NDArray], kind: tuple[tuple[int, ...], Any]
) -> NDArray:
    """Return images from their chunks; ``kind`` is the shape and the dtype of one."""
    out = np.empty((len(indices), *kind[0]), kind[1])
    owners = np.searchsorted(edges, indices, side="right") - 1
    for chunk in np.unique(owners).tolist():
        mine = owners == chunk
        out[mine] = read(chunk)[indices[mine] - edges[chunk]]
    return out


class Cache:
    """The chunks that were used last, up to so many bytes; a chunk that several threads want is read by one of them.

    A copy in another process begins empty.

    Examples
    --------
    >>> cache = Cache(nbytes=100)
    >>> cache.get(3, np.ones), cache.get(3, None)
    (array([1., 1., 1.]), array([1., 1., 1.]))
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.lock = nbytes, Lock()
        self.held: OrderedDict[int, Future[NDArray]] = OrderedDict()

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        return Cache, (self.nbytes,)

    def get(self, number: int, read: Callable[[int], NDArray]) -> NDArray:
        """Return a chunk, which ``read(number)`` reads where it is not held."""
        with self.lock:
            chunk = self.held.get(number)
            mine = chunk is None
            if chunk is None:
                chunk = self.held[number] = Future()
            self.held.move_to_end(number)
        if mine:
            try:
                chunk.set_result(read(number))
            except BaseException as error:
                with self.lock:
                    del self.held[number]
                chunk.set_exception(error)
            with self.lock:
                self._shrink()
        return chunk.result()

    def _shrink(self) -> None:
        """Let go of the chunks that were not used for longest, but of the newest and of those that are being read."""
        sizes = {number: chunk.result().nbytes for number, chunk in self.held.items() if chunk.done()}
        excess = sum(sizes.values()) - self.nbytes
        for number in list(sizes)[:-1]:
            if excess <= 0:
                return
            del self.held[number]
            excess -= sizes[number]


def cache_bytes() -> int:
    """Return the configured bytes of a process's cache of chunks."""
    given = dask.config.get("daskconv.input.cache")
    try:
        nbytes = int(parse_bytes(given))
    except (ValueError, TypeError, AttributeError):
        nbytes = -1
    if nbytes < 0:
        raise InputError(f"daskconv.input.cache is {given!r}: give a size such as '{CACHE}'.")
    return nbytes


def configured_ahead() -> int:
    """Return the configured steps whose images a worker reads before they are needed."""
    given = dask.config.get("daskconv.input.ahead")
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 8:
        raise InputError(f"daskconv.input.ahead is {given!r}: give a number of steps from 0 to 8.")
    return given


def as_images(x: Any, name: str) -> Any:
    """Return images (n, h, w, c) as NumPy or Dask; raise InputError where they are something else."""
    x = x.data if hasattr(x, "dims") else x  # xarray
    if type(x).__module__.partition(".")[0] == "zarr":
        from daskconv.datasets.zarr_store import lazy_array

        x = lazy_array(x, name) if len(x.shape) == 4 else x
    x = x if hasattr(x, "dask") else np.asarray(x)
    if x.ndim != 4:
        raise InputError(f"{name} has shape {x.shape}: give images (n, h, w, c); a grey image has c = 1.")
    if any(np.isnan(size) for size in x.shape):
        raise InputError(f"{name} has chunks of unknown size: call compute_chunk_sizes() first.")
    if not len(x):
        raise InputError(f"{name} holds no images: give at least one.")
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"{name} is {x.dtype}: convert images to uint8 or float32.")
    return x


def image_shape(x: Any) -> tuple[int, int, int]:
    """Return (h, w, c) of images (n, h, w, c)."""
    h, w, c = (int(size) for size in x.shape[1:])
    return h, w, c


def check_finite(block: NDArray, name: str, start: int) -> None:
    """Raise DataError that names the first image with a pixel that is NaN or infinite, as float32 too."""
    bad = _not_finite(block)
    if bad.any():
        raise DataError(
            f"{name}[{start + int(bad.argmax())}] has pixels that are not finite: remove or mend it."
        )


def raise_not_finite(x: Any, name: str) -> None:
    """Look through all chunks of a Dask array: a bad pixel must not end the run after hours."""
    bad = x.map_blocks(_not_finite, dtype=bool, drop_axis=[1, 2, 3], meta=np.empty(0, bool)).compute()
    if bad.any():
        raise DataError(f"{name}[{int(bad.argmax())}] has pixels that are not finite: remove or mend it.")


def _not_finite(block: NDArray) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        finite = np.isfinite(block.astype(np.float32, copy=False))
    return np.logical_not(finite.all(axis=(1, 2, 3)))
