"""Predictor: a model made ready for images of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.graph.threads import available_threads, execute, one_thread_each
from daskconv.nn.layers import Outputs
from daskconv.nn.layers.base import Arrays, Context, Shape
from daskconv.nn.network import Network
from daskconv.train.images import as_images, check_finite, image_shape
from daskconv.train.normalize import Normalize


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network for inference alone: batch norms are part of the convolutions before them, methods are chosen.

    :meth:`daskconv.Model.predictor` makes one; what changes in the model later does not change it.

    Attributes
    ----------
    network : Network
    params, statistics : dict of array
    preprocess : Normalize, optional
    input_shape : (h, w, c)
    methods : dict
        The method of each convolution.
    block : int
        Images that one thread takes through the network at once.
    """

    network: Network
    params: Arrays
    statistics: Arrays
    preprocess: Normalize | None
    input_shape: Shape
    methods: dict[str, dict[str, str]]
    block: int

    def predict(self, images: Any) -> Any:
        """Return the network's output (n, ...) for raw images (n, h, w, c), as :meth:`daskconv.Model.predict` does."""
        images = as_images(images, "images")
        if image_shape(images) != self.input_shape:
            raise InputError(
                f"The images are {image_shape(images)} but this predictor is for {self.input_shape}: "
                "make one for that shape."
            )
        if hasattr(images, "dask"):
            return self._predict_lazily(images)
        starts, threads = range(0, len(images), self.block), available_threads()
        with one_thread_each():
            if len(starts) < threads:
                # Too few blocks for the threads: all of them share each convolution, which changes no bits.
                return joined(
                    [predict_block(self, images[i : i + self.block], i, threads=threads) for i in starts]
                )
            graph = {
                ("predict", i): Task(("predict", i), predict_block, self, images[i : i + self.block], i)
                for i in starts
            }
            return joined(execute(graph, list(graph), threads))

    def run(self, images: NDArray, threads: int = 1) -> Any:
        """Return the output for one block of raw images in memory; several threads share each convolution."""
        context = Context(statistics=self.statistics, threads=threads, spread=threads > 1)
        ready = [
            images.astype(np.float32, copy=False) if self.preprocess is None else self.preprocess(images)
        ]
        del images  # so that nothing but the network's first layer holds on to them
        return self.network.forward(self.params, ready.pop(), context, self.methods, keep=False)[0]

    @property
    def dtype(self) -> np.dtype:
        """The output's."""
        return np.result_type(*self.params.values()) if self.params else np.dtype(np.float32)

    def _predict_lazily(self, images: Any) -> Any:
        import dask.array as da
        from dask import delayed

        if isinstance(self.network.nodes[-1].layer, Outputs):
            raise InputError("The network has several outputs: compute the images first, x.compute().")
        images = images.rechunk({1: -1, 2: -1, 3: -1})
        shape = self.network.output_shape(self.input_shape)
        return da.map_blocks(
            predict_chunk,
            images,
            predictor=delayed(self),
            dtype=self.dtype,
            drop_axis=[1, 2, 3],
            new_axis=list(range(1, 1 + len(shape))),
            chunks=(images.chunks[0], *((size,) for size in shape)),
            meta=np.empty((0,) * (1 + len(shape)), self.dtype),
        )


def predict_block(
    predictor: Predictor, images: NDArray, start: int, name: str = "images", threads: int = 1
) -> NDArray:
    """Return the output for one block; ``name`` and its first image's number are for error messages."""
    if np.issubdtype(images.dtype, np.floating):
        check_finite(images, name, start)
    return predictor.run(images, threads)


def predict_chunk(images: NDArray, *, predictor: Predictor) -> NDArray:
    """Return the output for one chunk of a Dask array, block by block on this thread."""
    with one_thread_each():
        starts = range(0, len(images), predictor.block)
        return joined(
            [predict_block(predictor, images[i : i + predictor.block], i, "a chunk's images") for i in starts]
        )


def joined(blocks: list[Any]) -> Any:
    """Return the outputs of blocks as those of all images; a tuple where the network has several."""
    if isinstance(blocks[0], tuple):
        return tuple(map(np.concatenate, zip(*blocks, strict=True)))
    return np.concatenate(blocks)
