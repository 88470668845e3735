"""Network: a DAG of layers, and how a block of images runs through it and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskconv.errors import InputError
from daskconv.graph.choose import check_method, check_precision
from daskconv.graph.tuning import Tuned
from daskconv.graph.tuning_file import load_table
from daskconv.nn import passes
from daskconv.nn.blocks import block_images, images_at_once
from daskconv.nn.fuse import Tail, tails
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape

INPUT = "input"


@dataclass(frozen=True)
class Node:
    """A layer of a network, its name, and the names of the nodes (or "input") it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...] = (INPUT,)


@dataclass(frozen=True)
class Network:
    """Layers in an order in which each comes after those it reads; the last one's output is the network's.

    Parameters
    ----------
    nodes : tuple of Node
    name : str
        Shown in summaries and saved with models.

    Examples
    --------
    >>> from daskconv import Add, Conv2D, Network, Node, ReLU
    >>> net = Network((
    ...     Node("conv", Conv2D(3, 3, padding="same")),
    ...     Node("relu", ReLU(), ("conv",)),
    ...     Node("sum", Add(), ("relu", "input")),
    ... ))
    >>> net.output_shape((8, 8, 3))
    (8, 8, 3)
    """

    nodes: tuple[Node, ...]
    name: str = "network"

    def __post_init__(self) -> None:
        known = {INPUT}
        if not self.nodes:
            raise InputError("The network has no layers: give at least one.")
        for node in self.nodes:
            if node.name in known:
                raise InputError(f"Two nodes are called {node.name!r}: give each its own name.")
            missing = [name for name in node.inputs if name not in known]
            if missing or not node.inputs:
                raise InputError(
                    f"Node {node.name!r} reads {list(node.inputs)}, but only {sorted(known)} come before it: "
                    "list nodes after those they read."
                )
            known.add(node.name)

    def shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the output shape of each node, and of "input"; raise InputError where a layer does not fit."""
        shapes: dict[str, Any] = {INPUT: tuple(input_shape)}
        for node in self.nodes:
            try:
                shapes[node.name] = node.layer.output_shape(passes.input_of(node, shapes))
            except InputError as error:
                raise InputError(f"Layer {node.name!r}: {error}") from None
        return shapes

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the network's output for one image."""
        return self.shapes(input_shape)[self.nodes[-1].name]

    def weight_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shape of each parameter, by its name "node.weight"."""
        shapes = self.shapes(input_shape)
        return {
            f"{node.name}.{weight}": shape
            for node in self.nodes
            for weight, (shape, _) in node.layer.weights(passes.input_of(node, shapes)).items()
        }

    def statistic_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shape of each running statistic, by its name "node.statistic"."""
        return {name: array.shape for name, array in self.init_statistics(input_shape).items()}

    def init_statistics(self, input_shape: Shape, dtype: DTypeLike = np.float32) -> Arrays:
        """Return the running statistics before training; a Model's ``state``.

        Examples
        --------
        >>> from daskconv import BatchNorm, Conv2D
        >>> Sequential([Conv2D(2, 3), BatchNorm()]).init_statistics((5, 5, 1))["batchnorm1.variance"]
        array([1., 1.], dtype=float32)
        """
        shapes, nothing = self.shapes(input_shape), np.random.default_rng(0)
        return {
            f"{node.name}.{name}": initializer.draw(nothing, shape).astype(dtype)
            for node in self.nodes
            for name, (shape, initializer) in node.layer.statistics(passes.input_of(node, shapes)).items()
        }

    def follow(self, running: Arrays, batch: Arrays) -> Arrays:
        """Return the running statistics after a batch with these means over its shards; others stay as they are."""
        layers = {node.name: node.layer for node in self.nodes}
        return {
            name: layers[name.rpartition(".")[0]].follow(array, batch[name]) if name in batch else array
            for name, array in running.items()
        }

    def init(self, seed: int, input_shape: Shape, dtype: DTypeLike = np.float32) -> Arrays:
        """Return initial parameters; each is drawn from its own stream (seed, position).

        Parameters
        ----------
        seed : int
        input_shape : (h, w, c)
            Shape of one image.
        dtype : float32 or float64

        Examples
        --------
        >>> from daskconv import Conv2D, Dense, Flatten
        >>> net = Sequential([Conv2D(4, 3), Flatten(), Dense(2)])
        >>> {name: array.shape for name, array in net.init(0, (5, 5, 1)).items()}
        {'conv1.weight': (3, 3, 1, 4), 'conv1.bias': (4,), 'dense1.weight': (36, 2), 'dense1.bias': (2,)}
        """
        shapes = self.shapes(input_shape)
        params: Arrays = {}
        for position, node in enumerate(self.nodes):
            weights = node.layer.weights(passes.input_of(node, shapes))
            for index, (weight, (shape, initializer)) in enumerate(weights.items()):
                generator = np.random.default_rng([seed, position, index])
                params[f"{node.name}.{weight}"] = initializer.draw(generator, shape).astype(dtype)
        return params

    def flops(self, input_shape: Shape) -> dict[str, int]:
        """Return each node's operations for one image's forward pass."""
        shapes = self.shapes(input_shape)
        return {node.name: node.layer.flops(passes.input_of(node, shapes)) for node in self.nodes}

    def choose_methods(
        self,
        input_shape: Shape,
        method: str | Mapping[str, str],
        precision: str | None = None,
        tuned: Tuned | None = None,
    ) -> dict[str, dict[str, str]]:
        """Return the method of each convolution and pass; a mapping names it by layer, "auto" elsewhere."""
        allowed = check_precision(precision)
        shapes = self.shapes(input_shape)
        by_layer = self._methods_by_layer(method)
        chosen = {}
        for node in self.nodes:
            shape = passes.input_of(node, shapes)
            try:
                chosen[node.name] = dict(
                    node.layer.choose_methods(shape, by_layer[node.name], allowed, tuned)
                )
            except InputError as error:
                raise InputError(f"{node.name}: {error}") from None
        named = set(method) if isinstance(method, Mapping) else set()
        useless = sorted(name for name in named if not chosen[name])
        if useless:
            raise InputError(f"method names {useless}, which are no convolutions: leave them out.")
        return {name: methods for name, methods in chosen.items() if methods}

    def tuned_methods(
        self,
        input_shape: Shape,
        method: str | Mapping[str, str] = "auto",
        precision: str | None = None,
        dtype: str = "float32",
        images: int | None = None,
    ) -> tuple[dict[str, dict[str, str]], str]:
        """Return :meth:`choose_methods` with this machine's tuning table, and the table's hash.

        Parameters
        ----------
        input_shape, method, precision
            As in :meth:`choose_methods`.
        dtype : str
        images : int, optional
            Of a shard, where the choice is for training.
        """
        methods, table = self.choose_methods(input_shape, method, precision), load_table()
        if not table.rows:
            return methods, ""
        if images is None:
            images = block_images(self, input_shape, methods)
        else:
            images = images_at_once(self, input_shape, methods, images)
        tuned = table.at(dtype, images)
        return self.choose_methods(input_shape, method, precision, tuned), table.hash

    def _methods_by_layer(self, method: str | Mapping[str, str]) -> dict[str, str]:
        names = [node.name for node in self.nodes]
        if isinstance(method, str):
            return dict.fromkeys(names, check_method(method))
        unknown = sorted(set(method) - set(names))
        if unknown:
            raise InputError(f"method names the layers {unknown}, but the network has {names}.")
        return {name: check_method(method.get(name, "auto")) for name in names}

    def trainable_names(self, input_shape: Shape, trainable: Sequence[str] | None) -> tuple[str, ...]:
        """Return the parameters that patterns like "dense*" or "*.bias" name; all for None."""
        names = tuple(self.weight_shapes(input_shape))
        if trainable is None:
            return names
        patterns = [trainable] if isinstance(trainable, str) else list(trainable)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(f"trainable={pattern!r} matches no parameter: they are {list(names)}.")
        return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))

    def forward(
        self,
        params: Arrays,
        x: NDArray,
        context: Context,
        methods: Mapping[str, Mapping[str, str]],
        keep: bool = True,
    ) -> tuple[NDArray, dict[str, Any]]:
        """Run a block of images (n, h, w, c) forward; return the output and each node's saved values.

        Without ``keep`` nothing is saved for a backward pass: a value is let go with its last reader.
        """
        values: dict[str, Any] = {INPUT: x}
        run = self._run(x.shape[1:], methods)
        del x
        saved = passes.forward(
            run, passes.by_node(params), passes.by_node(context.statistics), values, context, keep
        )
        return values[self.nodes[-1].name], saved

    def backward(
        self,
        params: Arrays,
        saved: dict[str, Any],
        dy: NDArray,
        context: Context,
        methods: Mapping[str, Mapping[str, str]],
        trainable: Sequence[str],
        grads: Any = None,
    ) -> Any:
        """Run gradients back from ``dy``; return those of the trainable parameters in ``grads``, a dict when not given.

        They are set as soon as they are known. Where ``grads`` holds arrays already, layers may write there.
        """
        grads = {} if grads is None else grads
        learning = passes.by_node({name: name for name in trainable})
        needed = passes.needs_grad(self.nodes, learning)
        run = self._run((), methods)
        flowing = {self.nodes[-1].name: dy}
        passes.backward(run, passes.by_node(params), saved, flowing, context, learning, needed, grads)
        return grads

    def _run(self, input_shape: Shape, methods: passes.Methods) -> passes.Run:
        """Return how the nodes are run; the way back knows the tails from what the way forward saved."""
        found = self.tails(input_shape) if input_shape else {}
        return passes.Run(self.nodes, range(len(self.nodes)), found, methods, {self.nodes[-1].name})

    def tails(self, input_shape: Shape) -> dict[str, Tail]:
        """Return what each layer does at its end, found once a shape."""
        if input_shape not in self._tails_by_shape:
            shapes = self.shapes(input_shape)
            self._tails_by_shape[input_shape] = tails(self.nodes, shapes, {self.nodes[-1].name})
        return self._tails_by_shape[input_shape]

    @cached_property
    def _tails_by_shape(self) -> dict[Shape, dict[str, Tail]]:
        return {}

    def summary(self, input_shape: Shape, *, tuned: bool = False) -> str:
        """Return a table: a row a layer with its output shape, parameters and operations of one image.

        Parameters
        ----------
        input_shape : (h, w, c)
        tuned : bool
            Add the method that "auto" chooses for each convolution, by what ``daskconv tune`` has measured on
            this machine or else by the rule: forward/input_grad/weight_grad where they differ.

        Examples
        --------
        >>> from daskconv import Conv2D, Dense, Flatten
        >>> print(Sequential([Conv2D(4, 3), Flatten(), Dense(2)]).summary((5, 5, 1)))
        network                    input (5, 5, 1)
        layer    kind     output     params  MFLOP
        conv1    Conv2D   (3, 3, 4)      40  0.001
        flatten1 Flatten  (36,)           0  0.000
        dense1   Dense    (2,)           74  0.000
        total                           114  0.001
        """
        shapes, flops = self.shapes(input_shape), self.flops(input_shape)
        counts: Counter[str] = Counter()
        for name, shape in self.weight_shapes(input_shape).items():
            counts[name.rpartition(".")[0]] += prod(shape)
        rows: list[tuple[str, ...]] = [("layer", "kind", "output", "params", "MFLOP")]
        for node in self.nodes:
            mega = f"{flops[node.name] / 1e6:,.3f}"
            kind = type(node.layer).__name__
            rows.append((node.name, kind, str(shapes[node.name]), f"{counts[node.name]:,}", mega))
        rows.append(("total", "", "", f"{sum(counts.values()):,}", f"{sum(flops.values()) / 1e6:,.3f}"))
        if tuned:
            methods = self.tuned_methods(input_shape)[0]
            words = [_in_a_word(methods.get(node.name, {})) for node in self.nodes]
            rows = [(*row, word) for row, word in zip(rows, ["method", *words, ""], strict=True)]
        return aligned(f"{self.name} input {tuple(input_shape)}", rows, right=(3, 4))


def Sequential(layers: Sequence[Layer | tuple[str, Layer]], name: str = "network") -> Network:
    """Return a Network in which each layer reads the one before.

    Parameters
    ----------
    layers : sequence of Layer or (name, Layer)
        Layers without a name are called by their kind and count: conv1, maxpool1, conv2 ...
    name : str

    Examples
    --------
    >>> from daskconv import Conv2D, ReLU
    >>> [node.name for node in Sequential([Conv2D(4, 3), ReLU(), Conv2D(4, 3)]).nodes]
    ['conv1', 'relu1', 'conv2']
    """
    nodes: list[Node] = []
    counts: Counter[str] = Counter()
    for item in layers:
        if isinstance(item, Layer):
            kind = type(item).__name__.removesuffix("2D").lower()
            counts[kind] += 1
            item = (f"{kind}{counts[kind]}", item)
        elif not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Layer)):
            raise InputError(f"layers holds {item!r}: give layers, or pairs (name, layer).")
        nodes.append(Node(item[0], item[1], (nodes[-1].name if nodes else INPUT,)))
    return Network(tuple(nodes), name)


def _in_a_word(methods: Mapping[str, str]) -> str:
    """Return the method of all passes, or that of each where they differ."""
    return "/".join(methods.values() if len(set(methods.values())) > 1 else set(methods.values()))


def aligned(title: str, rows: Sequence[tuple[str, ...]], right: Sequence[int]) -> str:
    """Return a title and rows of text in columns; those numbered in ``right`` end at one edge."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        " ".join(
            cell.rjust(width + 1) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([title, *lines])
