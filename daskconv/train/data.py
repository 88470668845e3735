"""Data: the images a trainer reads, checked while setting up and shuffled by (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.layout import even_parts
from daskconv.nn.losses import Loss, check_targets, first_output
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network
from daskconv.plan.boxes import Box, whole
from daskconv.train.augment import Augmentation, augmented
from daskconv.train.images import Chunks, Images, Indices, InMemory, as_images, configured_ahead, image_shape
from daskconv.train.mapped import Mapped, place_of
from daskconv.train.normalize import Normalize

# Chunks of a shard whose images are shuffled together: the most, and the fewest where chunks are large; and the bytes
# of all shards' chunks up to which there are more than that. These are no configuration: the bits depend on them.
_WINDOW_CHUNKS, _FEWEST, _WINDOW_BYTES = 8, 2, 512 * 2**20


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
    batch_size, seed, shards : int
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
        shards: int = 1,
        augment: Sequence[Augmentation] = (),
        name: str = "x",
    ) -> None:
        x, y = as_images(x, name), as_array(y)
        if len(y) != len(x):
            raise InputError(
                f"{name} has {len(x)} images but there are {len(y)} targets: give one for each image."
            )
        self.images = _images(x, name)
        self.shape = image_shape(x)
        self.y = y
        self.weight = _weights(weight, len(x))
        self.normalize = normalize
        self.batch_size, self.seed, self.shards, self.augment = batch_size, seed, shards, tuple(augment)
        self.ahead, self.count = configured_ahead(), self.images.count

    def __len__(self) -> int:
        return len(self.y)

    def take(
        self, indices: Indices, epoch: int | None = None, box: Box | None = None
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Return normalised images, or a box of each, targets and weights; augmented ones for an epoch of training."""
        x, normalize = self.images.take(indices), self.normalize
        if epoch is not None and self.augment:
            x = augmented(x, self.augment, self.seed, epoch, indices)
        if box is not None and box != whole(x.shape[1:]):
            x = np.ascontiguousarray(x[(slice(None), *(slice(*side) for side in box))])
            normalize = normalize and normalize.part(box)
        if normalize is not None:
            x = normalize(x)
        elif x.dtype != np.float32:
            x = x.astype(np.float32)
        return x, self.y[indices], self.weight[indices]

    @property
    def _window(self) -> int:
        """The chunks of a shard whose images are shuffled together."""
        largest = max(np.diff(self.images.edges or [0, 1]).tolist()) * self.images.image_bytes * self.shards
        return max(_FEWEST, min(_WINDOW_CHUNKS, _WINDOW_BYTES // largest))

    def chunks(self, indices: Sequence[Indices]) -> dict[int, Any]:
        """Return the futures of the chunks of some images, where a cluster holds these."""
        return self.images.chunks(indices)

    def hold(self, by: Hashable, chunks: Mapping[int, NDArray]) -> None:
        """Take the chunks that a task was given to read from, until it is given others for the same purpose."""
        self.images.hold(by, chunks)

    def batches(self, epoch: int) -> list[Indices]:
        """Return the image numbers of each step, shard after shard; the last batch may be short."""
        starts = range(0, len(self), self.batch_size)
        edges = self.images.edges
        if edges is None:
            order = shuffled(len(self), self.seed, epoch)
            return [order[start : start + self.batch_size] for start in starts]
        sizes = np.diff(
            [even_parts(min(self.batch_size, len(self) - at), self.shards) for at in starts], axis=2
        )[..., 0]
        order = shuffled(len(self), self.seed, epoch, edges, sizes.sum(axis=0).tolist(), self._window)
        # A run of the order for each shard, and a part of each run for each step.
        parts = np.split(order, np.cumsum(sizes.T.ravel())[:-1])
        return [np.concatenate(parts[step :: len(sizes)]) for step in range(len(sizes))]


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


def _images(x: Any, name: str) -> Images:
    if not hasattr(x, "dask"):
        place = place_of(x)
        return InMemory(x, name) if place is None else Mapped(x, name, place)
    from daskconv.train.remote import OnCluster, on_cluster

    return OnCluster(x, name) if on_cluster(x) else Chunks(x, name)


def shuffled(
    images: int,
    seed: int,
    epoch: int,
    edges: Sequence[int] | None = None,
    runs: Sequence[int] | None = None,
    window: int = _WINDOW_CHUNKS,
) -> Indices:
    """Return image numbers in the order of an epoch, the same wherever it is computed.

    Images of a chunked array are shuffled by permuting its chunks, cutting these into a run for each shard, and
    permuting the images inside windows of a few chunks of a run: so a chunk is read once an epoch, by the
    worker that has the shard, and those in which a run ends and another begins by two.

    Parameters
    ----------
    images, seed, epoch : int
    edges : sequence of int, optional
        Where chunks start, and the end of the last.
    runs : sequence of int, optional
        Images of each run, which follow each other in the result; one run when not given.
    window : int
        Chunks of a run that are permuted together.

    Examples
    --------
    >>> sorted(shuffled(5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    if edges is None:
        return generator.permutation(images)
    runs = runs or [images]
    order = generator.permutation(len(edges) - 1)
    line = np.concatenate([np.arange(edges[chunk], edges[chunk + 1]) for chunk in order])
    ends = np.cumsum(np.diff(edges)[order])
    cuts: list[int] = []
    for stop, size in zip(np.cumsum(runs).tolist(), runs, strict=True):
        inside = ends[(ends > stop - size) & (ends < stop)]
        cuts += [*inside[window - 1 :: window].tolist(), stop]
    return np.concatenate([generator.permutation(images) for images in np.split(line, cuts[:-1])])


def as_array(y: Any) -> NDArray:
    """Return targets in memory."""
    return np.asarray(y.compute() if hasattr(y, "dask") else y)


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
