"""Tuning: time the methods of a network's convolutions on this machine, and keep the fastest in its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.errors import InputError, check_count
from daskconv.graph import conv
from daskconv.graph.choose import PASSES, PRECISIONS, ConvShape, candidates, choose
from daskconv.graph.threads import check_threads, execute, one_thread_each
from daskconv.graph.tuning import Case, Table, Tuned, about
from daskconv.graph.tuning_file import load_table, save_table
from daskconv.nn import zoo
from daskconv.nn.blocks import images_at_once
from daskconv.nn.layers import Conv2D
from daskconv.nn.network import Network, aligned
from daskconv.nn.passes import input_of
from daskconv.plan.plans import DEFAULT_SHARDS

DTYPE = "float32"
ROUNDS = 7
# A method replaces the rule's by this much, so that noise does not flip what is nearly equal.
MARGIN = 1.05
# A method that is this much slower than the best exact one is not timed again.
_HOPELESS = 2.0
# A sample is made as long as this, in seconds, from as many runs as it takes up to a limit.
_SAMPLE, _MOST_RUNS = 0.005, 50


@dataclass(frozen=True)
class TunedPass:
    """What was measured of a layer's pass.

    Attributes
    ----------
    layer, pass_ : str
    rule, method, exact : str
        What the rule chooses, what is chosen now, and what is with precision "exact".
    gain : float
        How many times as fast ``method`` is as the rule's choice.
    milliseconds : tuple of (str, float)
        The median of each method; those that are hopeless ran once.
    """

    layer: str
    pass_: str
    rule: str
    method: str
    exact: str
    gain: float
    milliseconds: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` measured; it prints as a table.

    Attributes
    ----------
    title : str
    passes : tuple of TunedPass
    table : Table
        This machine's table with these measurements.
    path : path or None
        Where it is kept; None where it is not.
    """

    title: str
    passes: tuple[TunedPass, ...]
    table: Table
    path: Path | None

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "pass", "method", "exact", "rule", "gain", "milliseconds")]
        for row in self.passes:
            times = ", ".join(f"{method} {ms:.3g}" for method, ms in row.milliseconds)
            chosen = (row.method, row.exact, row.rule)
            rows.append((row.layer, row.pass_, *chosen, f"{row.gain:.2f}x", times))
        return aligned(self.title, rows, right=(5,))


def tune(
    net: Network | str,
    input_shape: tuple[int, int, int],
    *,
    batch: int = 100,
    shards: int = DEFAULT_SHARDS,
    threads: int = 1,
    save: bool = True,
    report: Callable[[int, int, str], Any] | None = None,
) -> Tuning:
    """Time every method of each convolution of a network, and let "auto" choose by that on this machine from now on.

    Each method of a pass runs over one block of images, in turns with the others; one that is at least 5 % faster than
    the rule's choice, by the median of the rounds, replaces it. Programs that are made afterwards hold the new
    choices and the table's hash: running them times nothing. A Program that was made before, and a training that
    is resumed, keep their methods.

    Parameters
    ----------
    net : Network or str
        A network, or the name of one in :mod:`daskconv.zoo`.
    input_shape : (h, w, c)
        Shape of one image.
    batch, shards : int
        Of the training to come: they bound the images of a block.
    threads : int
        Blocks that run side by side while one method is timed, as they do in training.
    save : bool
        Write to the user's cache; otherwise only measure.
    report : function, optional
        Called as ``report(done, all, name)`` before each pass.

    Returns
    -------
    Tuning
        Its ``str`` is a table.

    Raises
    ------
    InputError
        Where the shape does not fit the network or it has no convolutions.

    Examples
    --------
    >>> import daskconv
    >>> net = daskconv.Sequential([daskconv.Conv2D(4, 3), daskconv.Flatten(), daskconv.Dense(2)])
    >>> tuning = daskconv.tune(net, (6, 6, 2), batch=4, save=False)
    >>> [row.pass_ for row in tuning.passes]
    ['forward', 'input_grad', 'weight_grad']
    """
    network = zoo.build(net, 10) if isinstance(net, str) else net
    if not isinstance(network, Network):
        raise InputError(f"net is {net!r}: give a Network or the name of a net in the zoo.")
    check_threads(threads)
    shard = -(-check_count(batch, "batch") // check_count(shards, "shards"))
    layers = _convolutions(network, input_shape)
    if not layers:
        raise InputError(f"{network.name} has no Conv2D layer: there is nothing to tune.")
    images = images_at_once(network, input_shape, {}, shard)
    work = list(dict.fromkeys((shape, pass_) for shape in layers.values() for pass_ in PASSES))
    measured = {}
    with one_thread_each():
        for done, (shape, pass_) in enumerate(work):
            first = next(name for name, other in layers.items() if other == shape)
            if report:
                report(done, len(work), f"{first} {pass_}")
            measured[shape, pass_] = _measure(shape, pass_, images, threads)
    passes = tuple(
        _choice(name, shape, pass_, measured[shape, pass_])
        for name, shape in layers.items()
        for pass_ in PASSES
    )
    title = f"{network.name} input {tuple(input_shape)}, blocks of {images} images, threads {threads}"
    return _kept(title, passes, _table(passes, layers, images), save)


def gains_of(
    network: Network,
    input_shape: tuple[int, int, int],
    methods: Mapping[str, Mapping[str, str]],
    tuned: Tuned,
) -> dict[str, dict[str, float]]:
    """Return how many times as fast as lowering the methods of each layer's passes were, where that was measured."""
    return {
        name: {
            pass_: gain
            for pass_, method in methods[name].items()
            if (gain := tuned.gain(shape, pass_, method)) is not None
        }
        for name, shape in _convolutions(network, input_shape).items()
        if name in methods
    }


def _kept(title: str, passes: tuple[TunedPass, ...], table: Table, save: bool) -> Tuning:
    path = save_table(table) if save else None
    return Tuning(title, passes, load_table() if path else load_table().merged(table), path)


def _convolutions(network: Network, input_shape: tuple[int, int, int]) -> dict[str, ConvShape]:
    shapes = network.shapes(input_shape)
    return {
        node.name: node.layer.conv_shape(input_of(node, shapes))
        for node in network.nodes
        if isinstance(node.layer, Conv2D)
    }


def _measure(shape: ConvShape, pass_: str, images: int, threads: int) -> dict[str, list[float]]:
    """Return the seconds of each method's runs, round by round; one run for the hopeless."""
    blocks = [_operands(shape, images, seed) for seed in range(threads)]
    rules = {choose("auto", shape, precision, pass_) for precision in PRECISIONS}
    methods = candidates(shape, "fast")
    runs = {method: partial(_side_by_side, pass_, blocks, shape, method) for method in methods}
    for run in runs.values():
        run()  # compiles, and fills buffers
    first = {method: min(_seconds(run, 1), _seconds(run, 1)) for method, run in runs.items()}
    enough = _HOPELESS * min(first[method] for method in candidates(shape, "exact"))
    hopeful = [method for method in runs if method in rules or first[method] <= enough]
    counts = {m: max(1, min(_MOST_RUNS, round(_SAMPLE / max(first[m], 1e-9)))) for m in hopeful}
    times: dict[str, list[float]] = {method: [] for method in hopeful}
    for number in range(ROUNDS if len(hopeful) > 1 else 1):
        turn = number % len(hopeful)
        for method in hopeful[turn:] + hopeful[:turn]:
            times[method].append(_seconds(runs[method], counts[method]))
    return {method: times.get(method, [first[method]]) for method in runs}


def _seconds(run: Callable[[], Any], count: int) -> float:
    started = perf_counter()
    for _ in range(count):
        run()
    return (perf_counter() - started) / count


def _side_by_side(pass_: str, blocks: Sequence[tuple], shape: ConvShape, method: str) -> None:
    if len(blocks) == 1:
        _run(pass_, blocks[0], shape, method)
        return
    graph = {i: Task(i, _run, pass_, block, shape, method) for i, block in enumerate(blocks)}
    execute(graph, list(graph), len(blocks))


def _operands(shape: ConvShape, images: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return images, weights and a gradient by the output."""
    generator = np.random.default_rng(seed)
    size = shape.window.output_size(*shape.image)
    sizes = [(images, *shape.image, shape.c), (*shape.window.kernel, shape.channels[0], shape.k)]
    x, w, dy = (generator.standard_normal(s, np.dtype(DTYPE)) for s in [*sizes, (images, *size, shape.k)])
    return x, w, dy


def _run(pass_: str, operands: tuple[NDArray, NDArray, NDArray], shape: ConvShape, method: str) -> None:
    x, w, dy = operands
    if pass_ == "forward":
        conv.forward(x, w, None, shape.window, method)
    elif pass_ == "input_grad":
        conv.input_grad(dy, w, x.shape, shape.window, method)
    else:
        conv.weight_grad(x, dy, w.shape, shape.window, method)


def _choice(layer: str, shape: ConvShape, pass_: str, times: Mapping[str, list[float]]) -> TunedPass:
    rule, exact_rule = (choose("auto", shape, precision, pass_) for precision in PRECISIONS)
    method, gain = _winner(times, rule, candidates(shape, "fast"))
    exact, _ = _winner(times, exact_rule, candidates(shape, "exact"))
    milliseconds = tuple((name, 1e3 * median(runs)) for name, runs in times.items())
    return TunedPass(layer, pass_, rule, method, exact, gain, milliseconds)


def _winner(times: Mapping[str, list[float]], rule: str, allowed: Sequence[str]) -> tuple[str, float]:
    """Return the fastest method and its gain over the rule's, which it has to beat clearly."""
    gains = {
        method: median(ours / theirs for ours, theirs in zip(times[rule], times[method], strict=False))
        for method in allowed
    }
    best = max(gains, key=lambda method: gains[method])
    return (best, gains[best]) if gains[best] >= MARGIN else (rule, 1.0)


def _table(passes: Sequence[TunedPass], layers: Mapping[str, ConvShape], images: int) -> Table:
    methods, gains = {}, {}
    for row in passes:
        times = dict(row.milliseconds)
        for precision, method in zip(PRECISIONS, (row.method, row.exact), strict=True):
            case = Case(layers[row.layer], row.pass_, DTYPE, about(images), precision)
            methods[case] = method
            if "lowering" in times:
                gains[case] = times["lowering"] / times[method]
    return Table.of(methods, gains)
