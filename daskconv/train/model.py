"""Model: a network with its parameters, its normalisation and its classes; what is saved, loaded and predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.graph.threads import available_threads, execute, one_thread_each
from daskconv.nn.blocks import block_images
from daskconv.nn.layers.base import Arrays, Context, Shape
from daskconv.nn.network import Network
from daskconv.train.data import as_images, check_finite
from daskconv.train.normalize import Normalize


@dataclass(eq=False)
class Model:
    """A network that can predict.

    Attributes
    ----------
    network : Network
    params : dict of array
        By name, such as "conv1.weight".
    state : dict of array
        Running statistics; empty for networks without any.
    preprocess : Normalize, optional
        Applied to raw images, so that a saved model predicts from them.
    class_names : tuple of str
        May be empty.
    input_shape : (h, w, c)
        The images it was trained on; empty where that is not known.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> net = daskconv.zoo.lenet()
    >>> model = daskconv.Model(net, net.init(0, (8, 8, 1)))
    >>> model.predict(np.zeros((3, 8, 8, 1), np.uint8)).shape
    (3, 10)
    """

    network: Network
    params: Arrays
    state: Arrays = field(default_factory=dict)
    preprocess: Normalize | None = None
    class_names: tuple[str, ...] = ()
    input_shape: Shape = ()

    def predict(self, images: Any, *, precision: str | None = None) -> Any:
        """Return the network's output for raw images.

        Parameters
        ----------
        images : array (n, h, w, c)
            uint8 or float. NumPy gives NumPy, computed on this process's threads; a Dask array,
            chunked along n in any way, gives a lazy Dask array.
        precision : {"fast", "exact"}, optional
            Of convolutions, as in :func:`daskconv.conv2d`.

        Returns
        -------
        array (n, ...)
            Scores before the softmax for a classifier.

        Raises
        ------
        InputError
            Where the images do not fit the network.
        """
        images = as_images(images, "images")
        self.check_images(tuple(int(size) for size in images.shape[1:]))
        plan = self.plan(images.shape[1:], precision)
        if hasattr(images, "dask"):
            return self._predict_lazily(images, plan)
        graph = {
            ("predict", i): Task(
                ("predict", i), predict_block, self, plan, images[start : start + plan.block], start
            )
            for i, start in enumerate(range(0, len(images), plan.block))
        }
        with one_thread_each():
            return np.concatenate(execute(graph, list(graph), available_threads()))

    def check_images(self, shape: Shape) -> None:
        """Raise InputError unless images of this shape (h, w, c) fit the parameters and the running statistics."""
        arrays = self.params | self.state
        expected_shapes = self.network.weight_shapes(shape) | self.network.statistic_shapes(shape)
        for name, expected in expected_shapes.items():
            if name not in arrays:
                raise InputError(f"The model has no {name}: it has {sorted(arrays)}.")
            found = arrays[name].shape
            if found != expected:
                trained = f", it was trained on {tuple(self.input_shape)}" if self.input_shape else ""
                raise InputError(
                    f"Images of {shape} need {name} of shape {expected} but the model's is {found}{trained}: "
                    "resize or crop the images."
                )

    def _predict_lazily(self, images: Any, plan: PredictPlan) -> Any:
        import dask.array as da
        from dask import delayed

        images = images.rechunk({1: -1, 2: -1, 3: -1})
        shape = self.network.output_shape(images.shape[1:])
        dtype = np.result_type(*self.params.values()) if self.params else np.dtype(np.float32)
        return da.map_blocks(
            predict_chunk,
            images,
            model=delayed(self),
            plan=plan,
            dtype=dtype,
            drop_axis=[1, 2, 3],
            new_axis=list(range(1, 1 + len(shape))),
            chunks=(images.chunks[0], *((size,) for size in shape)),
            meta=np.empty((0,) * (1 + len(shape)), dtype),
        )

    def plan(self, shape: Shape, precision: str | None = None) -> PredictPlan:
        """Return the methods and the block size for images of this shape (h, w, c)."""
        methods, _ = self.network.tuned_methods(shape, "auto", precision)
        # A forward pass keeps nothing for a backward pass, so its blocks may be larger.
        return PredictPlan(methods, 4 * block_images(self.network, shape, methods))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to one safetensors file; the file at ``path`` is replaced only once it is whole."""
        from daskconv.train.files import write_model

        write_model(path, self)


@dataclass(frozen=True)
class PredictPlan:
    """How a forward pass runs: the method of each convolution, and the images of a block."""

    methods: dict[str, dict[str, str]]
    block: int


def predict_block(
    model: Model, plan: PredictPlan, images: NDArray, start: int, name: str = "images"
) -> NDArray:
    """Return the output for one block; ``name`` and its first image's number are for error messages."""
    if np.issubdtype(images.dtype, np.floating):
        check_finite(images, name, start)
    x = images.astype(np.float32) if model.preprocess is None else model.preprocess(images)
    return model.network.forward(model.params, x, Context(statistics=model.state), plan.methods)[0]


def predict_chunk(images: NDArray, *, model: Model, plan: PredictPlan) -> NDArray:
    """Return the output for one chunk of a Dask array, block by block on this thread."""
    with one_thread_each():
        starts = range(0, len(images), plan.block)
        return np.concatenate(
            [predict_block(model, plan, images[i : i + plan.block], i, "a chunk's images") for i in starts]
        )
