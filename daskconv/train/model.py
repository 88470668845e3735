"""Model: a network with its parameters, its normalisation and its classes; what is saved, loaded and predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

from daskconv.errors import InputError, check_count
from daskconv.graph.choose import check_precision
from daskconv.nn.blocks import block_images
from daskconv.nn.even import evened
from daskconv.nn.fuse import fold_batch_norm
from daskconv.nn.head import heads, replace_head, without_auxiliary
from daskconv.nn.layers.base import Arrays, Shape
from daskconv.nn.network import Network
from daskconv.train.checks import check_seed
from daskconv.train.images import as_images, image_shape
from daskconv.train.normalize import Normalize
from daskconv.train.predictor import Predictor


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

    def predict(
        self,
        images: Any,
        *,
        precision: str | None = None,
        tile: int | tuple[int, int] | str = "auto",
        batch: int | str = "auto",
        overlap: str = "exact",
        stride: int | tuple[int, int] | None = None,
    ) -> Any:
        """Return the network's output for raw images, or its map of a scene of any size.

        **Images** (n, h, w, c) are predicted whole, each for itself.

        **A scene** (y, x, c) or (c, y, x) may be far larger than memory: it is cut into tiles that overlap by as much
        as the network looks at, so that the result is that of the whole scene, seams included. A stack (n, y, x, c)
        of them is treated so where ``tile`` or ``stride`` is given, or where one image run whole would not fit into
        memory. An xarray.DataArray tells by the names of its dims how its axes lie.

        Parameters
        ----------
        images : array
            uint8 or float, of a scene also int8, uint16 or int16. NumPy gives NumPy, computed on this process's
            threads; a Dask array, chunked in any way, and a Zarr array give a lazy Dask array; a DataArray of a scene
            gives a DataArray with its dims, coordinates and attributes.
        precision : {"fast", "exact"}, optional
            Of convolutions, as in :func:`daskconv.conv2d`.
        tile : int, (int, int) or "auto"
            Of a scene: rows and columns of a tile, what it looks at around it not counted. "auto" goes by the
            network's reach and by the memory of a worker.
        batch : int or "auto"
            Of a scene: tiles that run through the network at once.
        overlap : "exact"
            Tiles overlap by the whole receptive field.
        stride : int or (int, int), optional
            Of a scene: slide the network's window, ``input_shape``, over it, a window every so many pixels, as
            classifiers need; the result has one output for each window.

        Returns
        -------
        array (n, ...), or of a scene (p, q, k) with axes in the scene's order
            Scores before the softmax for a classifier.

        Raises
        ------
        InputError
            Where the images do not fit the network, or a tile does not fit into memory.
        DataError
            Where pixels are not finite; of a lazy result when it is computed.

        Examples
        --------
        >>> import numpy as np, daskconv
        >>> net = daskconv.zoo.unet(3, width=4, depth=2)
        >>> model = daskconv.Model(net, net.init(0, (32, 32, 1)))
        >>> scene = np.random.default_rng(0).random((64, 96, 1), np.float32)
        >>> whole, tiled = model.predict(scene[None])[0], model.predict(scene, tile=32)
        >>> tiled.shape, bool(abs(tiled - whole).max() < 1e-4 * abs(whole).max())
        ((64, 96, 3), True)
        """
        from daskconv.scene.predict import is_scene, predict_scene

        if is_scene(self, images, tile, stride):
            return predict_scene(
                self, images, tile=tile, batch=batch, overlap=overlap, stride=stride, precision=precision
            )
        images = as_images(images, "images")
        return self.predictor(image_shape(images), precision=precision).predict(images)

    def predictor(self, input_shape: Shape, *, precision: str | None = None) -> Predictor:
        """Return what predicts for images of one shape, again and again: made ready once, whatever it takes.

        Parameters
        ----------
        input_shape : (h, w, c)
        precision : {"fast", "exact"}, optional

        Examples
        --------
        >>> import numpy as np, daskconv
        >>> net = daskconv.zoo.lenet()
        >>> predictor = daskconv.Model(net, net.init(0, (8, 8, 1))).predictor((8, 8, 1))
        >>> predictor.predict(np.zeros((3, 8, 8, 1), np.uint8)).shape
        (3, 10)
        """
        shape = tuple(int(size) for size in input_shape)
        if (lean := self.without_auxiliary()) is not self:
            return lean.predictor(shape, precision=precision)
        self.check_images(shape)
        methods, _ = self.network.tuned_methods(shape, "auto", precision)
        # A forward pass keeps nothing for a backward pass, so its blocks may be larger.
        block = 4 * block_images(self.network, shape, methods)
        network, params = fold_batch_norm(self.network, self.params, self.state)
        if check_precision(precision) == "exact":
            network = evened(network, shape)
        names = {node.name for node in network.nodes}
        left = {name: a for name, a in self.state.items() if name.rpartition(".")[0] in names}
        return Predictor(network, params, left, self.preprocess, shape, methods, block)

    def check_images(self, shape: Shape) -> None:
        """Raise InputError unless images of this shape (h, w, c) fit the arrays and the normalisation."""
        if self.preprocess is not None:
            self.preprocess.check(shape)
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

    @property
    def heads(self) -> tuple[str, ...]:
        """The layer that makes the scores, such as ("dense",); several where the network has several outputs."""
        return heads(self.network)

    def with_head(
        self, classes: int | None = None, *, class_names: Sequence[str] = (), seed: int = 0
    ) -> Model:
        """Return this model for other classes: its last layer starts anew, all others stay as they are (fine-tuning).

        The last layer is a Dense, or a Conv2D of kernel 1 as in SqueezeNet; a softmax or a sigmoid after it is left
        out, since losses take the scores before it. This model does not change.

        Parameters
        ----------
        classes : int, optional
            As many as there are ``class_names`` when not given.
        class_names : sequence of str
        seed : int
            Of the new weights.

        Raises
        ------
        InputError
            Where the network does not end in such a layer.

        Examples
        --------
        >>> import daskconv
        >>> net = daskconv.zoo.lenet()
        >>> model = daskconv.Model(net, net.init(0, (8, 8, 1)), input_shape=(8, 8, 1))
        >>> tuned = model.with_head(class_names=["cat", "dog"])
        >>> tuned.heads, tuned.network.output_shape((8, 8, 1))
        (('dense2',), (2,))
        """
        names = tuple(class_names)
        classes = check_count(len(names) if classes is None else classes, "classes")
        if names and len(names) != classes:
            raise InputError(
                f"classes is {classes} but there are {len(names)} class_names: give one for each."
            )
        network, params = replace_head(self.network, self.params, classes, check_seed(seed))
        if self.input_shape:
            network.output_shape(self.input_shape)
        return replace(self, network=network, params=params, class_names=names)

    def without_auxiliary(self) -> Model:
        """Return this model without the outputs that are for training alone, as GoogLeNet's auxiliary heads are.

        It predicts the same, since predictions leave them out anyway, and its file is smaller.

        Examples
        --------
        >>> import daskconv
        >>> net = daskconv.zoo.googlenet(10, auxiliary=True)
        >>> model = daskconv.Model(net, net.init(0, (80, 80, 3)))
        >>> len(model.params), len(model.without_auxiliary().params)
        (128, 116)
        """
        network = without_auxiliary(self.network)
        if network is self.network:
            return self
        names = {node.name for node in network.nodes}
        params, state = (
            {name: array for name, array in arrays.items() if name.rpartition(".")[0] in names}
            for arrays in (self.params, self.state)
        )
        return replace(self, network=network, params=params, state=state)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to one safetensors file; the file at ``path`` is replaced only once it is whole."""
        from daskconv.train.files import write_model

        write_model(path, self)
