"""Layer: what every layer, built in or a user's own, consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.graph.choose import PASSES
from daskconv.graph.tuning import Tuned
from daskconv.kernels.epilogue import NOTHING, Epilogue
from daskconv.nn.initializers import Initializer
from daskconv.nn.reach import POINTWISE, Reach

Shape = tuple[int, ...]
Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Context:
    """What a layer may know of the pass it takes part in.

    Attributes
    ----------
    training : bool
        Dropout drops only then; a frozen layer is told that it is not.
    methods : mapping
        The convolution method of each pass: forward, input_grad, weight_grad.
    threads : int
        Threads inside one block: those of the pipeline, or of all convolutions.
    spread : bool
        Whether all convolutions are cut for the threads, as is worth it where there are few blocks.
    images : array of int64, (n,)
        Number of each image of the block in the data set; with ``seed``, ``epoch`` and ``layer`` it
        counts random numbers, so that they do not depend on where a block is computed.
    needs_input_grad, needs_weight_grad : bool
        False where nobody reads that gradient; ``backward`` may leave it out.
    grads : mapping
        Where ``backward`` may write the gradient of a weight, by the weight's name, before it returns it.
    statistics : dict of array
        The layer's running statistics; of the whole network, by "layer.name", where a pass begins.
    batch_statistics : dict of array
        Where ``forward`` puts those of the images at hand while training.
    epilogue : Epilogue
        What a layer that ``fuses`` does to its output at the end.
    frozen : set of str
        Layers whose running statistics are used and kept while training, since none of their weights is trained.
    """

    training: bool = False
    methods: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(PASSES, "lowering"))
    threads: int = 1
    images: NDArray[np.int64] | None = None
    seed: int = 0
    epoch: int = 0
    layer: int = 0
    needs_input_grad: bool = True
    needs_weight_grad: bool = True
    grads: Mapping[str, NDArray] = field(default_factory=dict)
    statistics: Arrays = field(default_factory=dict)
    batch_statistics: Arrays = field(default_factory=dict)
    epilogue: Epilogue = NOTHING
    spread: bool = False
    frozen: frozenset[str] = frozenset()

    def at(self, layer: int, methods: Mapping[str, str], name: str = "", **needs: Any) -> Context:
        """Return the same pass at one layer; ``dataclasses.replace`` would take longer than a small layer."""
        return Context(
            self.training and name not in self.frozen,
            methods,
            self.threads,
            self.images,
            self.seed,
            self.epoch,
            layer,
            spread=self.spread,
            **needs,
        )

    def tile_threads(self, method: str) -> int | None:
        """Return the threads of a convolution: inside a block most often only the pipeline has any."""
        return self.threads if method == "pipelined" or self.spread else None


@dataclass(frozen=True)
class Layer:
    """A frozen spec: hyper-parameters only, no arrays.

    A custom layer subclasses this, is a frozen dataclass too, and gives ``output_shape``, ``forward``
    and ``backward``; :func:`daskconv.check_gradient` compares the pair with finite differences.
    Shapes are those of one image, without n. A layer with several inputs gets a tuple of arrays
    and of shapes, and returns a tuple of gradients.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import daskconv
    >>> @dataclass(frozen=True)
    ... class Square(daskconv.Layer):
    ...     def forward(self, params, x, context):
    ...         return x * x, x
    ...     def backward(self, params, saved, dy, context):
    ...         return 2 * saved * dy, {}
    >>> daskconv.check_gradient(Square(), (3, 3, 2)) < 1e-6
    True
    """

    fuses: ClassVar[bool] = False
    """Whether ``forward`` heeds the context's epilogue."""
    stage: ClassVar[str] = "other"
    """What a timeline calls the layer's work: "product" where that is a matrix product."""
    is_constant: ClassVar[bool] = False
    """Whether the output is one for all images, with n = 1."""
    is_pointwise: ClassVar[bool] = False
    """Whether an output pixel depends on the same pixel of the inputs alone; what ``reach`` goes by."""

    def __post_init__(self) -> None:
        """Turn lists into tuples: a spec has to be hashable."""
        for spec in fields(self):
            object.__setattr__(self, spec.name, _frozen(getattr(self, spec.name)))

    def output_shape(self, shape: Any) -> Shape:
        """Return the output's shape; raise InputError where the input does not fit. Same as the input's here."""
        return shape

    def weights(self, shape: Any) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return the shape and the initialiser of each weight; none here."""
        return {}

    def statistics(self, shape: Any) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return the shape and the first value of each running statistic; none here."""
        return {}

    def follow(self, running: NDArray, batch: NDArray) -> NDArray:
        """Return a running statistic after a batch with this mean over its shards."""
        raise NotImplementedError

    def flops(self, shape: Any) -> int:
        """Return the operations of one image's forward pass; 0 where memory is what counts."""
        return 0

    def reach(self, shape: Any) -> tuple[Reach, Reach] | None:
        """Return which rows and which columns of images of this shape an output reads; None for all of them."""
        return POINTWISE if self.is_pointwise else None

    def at_size(self, shape: Any) -> Layer:
        """Return the layer with whatever it takes from the images' size written out, as "same" padding is."""
        return self

    def stage_of(self, method: str | None) -> str:
        """Return what a timeline calls the layer's own work with a method, or without one."""
        if method is None:
            return self.stage
        return {"lowering": "other", "pipelined": "wait"}.get(method, "convolve")

    def choose_methods(
        self, shape: Any, method: str, precision: str, tuned: Tuned | None = None
    ) -> Mapping[str, str]:
        """Return the convolution method of each pass; empty for layers without one."""
        return {}

    def forward(self, params: Arrays, x: Any, context: Context) -> tuple[NDArray, Any]:
        """Return the output (n, ...) and whatever ``backward`` needs."""
        raise NotImplementedError

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient by the input and by each weight, from the gradient by the output."""
        raise NotImplementedError


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
