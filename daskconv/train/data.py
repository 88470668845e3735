"""Data: the images a trainer reads, checked while setting up and shuffled by (seed, epoch) alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import dask
import dask.local
import numpy as np
from numpy.typing import NDArray

from daskconv.errors import DataError, InputError
from daskconv.nn.losses import Loss, check_targets, first_output
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network
from daskconv.train.augment import Augmentation, augmented
from daskconv.train.normalize import Normalize

Indices = NDArray[np.int64]

# Chunks of a Dask array that a process keeps: those of the window it shuffles in.
_WINDOW_CHUNKS = 8


class ArrayData:
    """Images and targets in memory, or in a Dask array that is read chunk by chunk.

    Parameters
    ----------
    x : array (n, h, w, c)
        uint8 or float; NumPy, or Dask chunked along n in any way.
    y : array (n, ...)
        Targets; classes (n,) or values.
    weight : array (n,), optional
        Weight of each image; 1 when not given.
    normalize : Normalize, optional
    batch_size, seed : int
        How :meth:`batches` cuts and shuffles.
    augment : sequence of Augmentation
        Done to raw images, while training.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        weight: Any = None,
        *,
        normalize: Normalize | None = None,
        batch_size: int = 1,
        seed: int = 0,
        augment: Sequence[Augmentation] = (),
        name: str = "x",
    ) -> None:
        x, y = as_images(x, name), as_array(y)
        if len(y) != len(x):
            raise InputError(
                f"{name} has {len(x)} images but there are {len(y)} targets: give one for each image."
            )
        self.images = (
            _Chunks(x, name) if hasattr(x, "dask") and not _persisted(x) else _InMemory(as_array(x), name)
        )
        self.shape = image_shape(x)
        self.y = y
        self.weight = _weights(weight, len(x))
        self.normalize = normalize
        self.batch_size, self.seed, self.augment = batch_size, seed, tuple(augment)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Indices, epoch: int | None = None) -> tuple[NDArray, NDArray, NDArray]:
        """Return normalised images, targets and weights; augmented ones for an epoch of training."""
        x = self.images.take(indices)
        if epoch is not None and self.augment:
            x = augmented(x, self.augment, self.seed, epoch, indices)
        if self.normalize is not None:
            x = self.normalize(x)
        elif x.dtype != np.float32:
            x = x.astype(np.float32)
        return x, self.y[indices], self.weight[indices]

    def batches(self, epoch: int) -> list[Indices]:
        """Return the image numbers of each step; the last batch may be short."""
        order = shuffled(len(self), self.seed, epoch, self.images.edges)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


def checked_data(
    network: Network,
    loss: Loss,
    x: Any,
    y: Any,
    name: str,
    shape: tuple[int, ...] | None = None,
    metrics: Sequence[Metric] = (),
    **options: Any,
) -> ArrayData:
    """Return data that a network, its loss and metrics can take; ``shape`` is that of the images it has to have."""
    x, y = as_images(x, name), as_array(y)
    if shape not in (None, image_shape(x)):
        raise InputError(f"{name} has images {image_shape(x)} but the network is for {shape}.")
    output, targets = network.output_shape(image_shape(x)), name.replace("x", "y")
    check_targets(loss, y, output, targets)
    for metric in metrics:
        metric.check(y, first_output(output), targets)
    return ArrayData(x, y, name=name, **options)


class _InMemory:
    edges: Sequence[int] | None = None

    def __init__(self, x: NDArray, name: str) -> None:
        if np.issubdtype(x.dtype, np.floating):
            for start in range(0, len(x), 1024):
                check_finite(x[start : start + 1024], name, start)
        self.x, self.name = x, name

    def take(self, indices: Indices) -> NDArray:
        return self.x[indices]


class _Chunks:
    """A Dask array whose chunks a process computes on its own thread and keeps while it needs them."""

    def __init__(self, x: Any, name: str) -> None:
        x = x.rechunk({1: -1, 2: -1, 3: -1})
        self.edges = [0, *np.cumsum(x.chunks[0]).tolist()]
        self.shape, self.dtype, self.name = x.shape[1:], x.dtype, name
        (optimized,) = dask.optimize(x)
        self.graph = dict(optimized.__dask_graph__())
        self.keys = [optimized.__dask_keys__()[i][0][0][0] for i in range(len(x.chunks[0]))]
        if np.issubdtype(x.dtype, np.floating):
            # One pass over all chunks now: a bad one must not end the run after hours.
            bad = x.map_blocks(_not_finite, dtype=bool, drop_axis=[1, 2, 3], meta=np.empty(0, bool)).compute()
            if bad.any():
                raise DataError(
                    f"{name}[{int(bad.argmax())}] has pixels that are not finite: remove or mend it."
                )
        self._reset()

    def _reset(self) -> None:
        self.cache: OrderedDict[int, NDArray] = OrderedDict()
        self.lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("cache", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def take(self, indices: Indices) -> NDArray:
        out = np.empty((len(indices), *self.shape), self.dtype)
        owners = np.searchsorted(self.edges, indices, side="right") - 1
        for chunk in np.unique(owners):
            mine = owners == chunk
            out[mine] = self._chunk(int(chunk))[indices[mine] - self.edges[chunk]]
        return out

    def _chunk(self, number: int) -> NDArray:
        with self.lock:
            if number not in self.cache:
                block = np.asarray(dask.local.get_sync(self.graph, self.keys[number]))
                if np.issubdtype(block.dtype, np.floating):
                    check_finite(block, self.name, self.edges[number])
                self.cache[number] = block
                if len(self.cache) > 2 * _WINDOW_CHUNKS:
                    self.cache.popitem(last=False)
            self.cache.move_to_end(number)
            return self.cache[number]


def _persisted(x: Any) -> bool:
    """Return whether a Dask array's chunks are futures: a task on a worker could not wait for those."""
    from distributed import Future

    nodes = dict(x.__dask_graph__()).values()
    return any(isinstance(getattr(node, "value", node), Future) for node in nodes)


def shuffled(images: int, seed: int, epoch: int, edges: Sequence[int] | None = None) -> Indices:
    """Return image numbers in the order of an epoch, the same wherever it is computed.

    Images of a chunked array are shuffled by permuting its chunks, then the images inside windows of
    a few chunks, so that a chunk is read once an epoch.

    Parameters
    ----------
    images, seed, epoch : int
    edges : sequence of int, optional
        Where chunks start, and the end of the last.

    Examples
    --------
    >>> sorted(shuffled(5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    if edges is None:
        return generator.permutation(images)
    order = generator.permutation(len(edges) - 1)
    windows = [order[start : start + _WINDOW_CHUNKS] for start in range(0, len(order), _WINDOW_CHUNKS)]
    return np.concatenate(
        [
            generator.permutation(np.concatenate([np.arange(edges[c], edges[c + 1]) for c in window]))
            for window in windows
        ]
    )


def as_images(x: Any, name: str) -> Any:
    """Return images (n, h, w, c) as NumPy or Dask; raise InputError where they are something else."""
    x = x.data if hasattr(x, "dims") else x  # xarray
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


def as_array(y: Any) -> NDArray:
    """Return targets in memory."""
    return np.asarray(y.compute() if hasattr(y, "dask") else y)


def check_finite(block: NDArray, name: str, start: int) -> None:
    """Raise DataError that names the first image with a pixel that is NaN or infinite, as float32 too."""
    bad = _not_finite(block)
    if bad.any():
        raise DataError(
            f"{name}[{start + int(bad.argmax())}] has pixels that are not finite: remove or mend it."
        )


def _not_finite(block: NDArray) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        finite = np.isfinite(block.astype(np.float32, copy=False))
    return np.logical_not(finite.all(axis=(1, 2, 3)))


def _weights(weight: Any, images: int) -> NDArray[np.float32]:
    if weight is None:
        return np.ones(images, np.float32)
    weight = as_array(weight).astype(np.float32)
    if weight.shape != (images,) or not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise InputError(
            f"sample_weight has shape {weight.shape}: give one finite weight of at least 0 for each of the "
            f"{images} images, not all 0."
        )
    return weight
