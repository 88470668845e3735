"""Choose: the tiles of a scene, how many run at once, and whether that fits into memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from math import ceil, isqrt, prod
from typing import Any, Protocol

import numpy as np
from dask.base import tokenize

from daskconv.errors import InputError, check_count
from daskconv.geometry import as_pair
from daskconv.graph.choose import check_precision
from daskconv.nn.even import evened
from daskconv.nn.layers import BatchNorm, Conv2D, ConvTranspose2D, PReLU
from daskconv.nn.layers.base import Arrays, Shape
from daskconv.nn.network import INPUT, Network
from daskconv.scene.field import Field, field_of
from daskconv.scene.memory import Limit, in_words, memory_limit, run_bytes
from daskconv.scene.read import Scene
from daskconv.scene.run import Runner
from daskconv.scene.tiling import Tiling, dense_tiling, sliding_tiling

Pair = tuple[int, int]

# Sides among which "auto" chooses; and about how long the side of a chunk of the result is.
_SIDES = (2048, 1536, 1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32)
_CHUNK = 1024
# Chunks of a small scene for each task that runs at once, and the side of the least that is worth a task.
_CHUNKS_EACH, _LEAST = 4, 256
# Layers whose outputs do not stay in cache, or in memory that the allocator keeps, take so much longer.
_CACHED, _SLOWER = 24_000_000, 1.25
# Operations below which one run is not worth its calls of Python.
_WORTH = 2_000_000_000


class Model(Protocol):
    """What a scene needs of a model."""

    network: Network
    params: Arrays
    state: Arrays
    preprocess: Any
    class_names: tuple[str, ...]
    input_shape: Shape

    def predictor(self, input_shape: Shape, *, precision: str | None = None) -> Any:
        """Return the network made ready for images of one shape."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """How a scene is predicted.

    Attributes
    ----------
    tiling : Tiling
    runner : Runner
    token : str
        Of the model and what else the result depends on but the scene.
    centres : ((float, float), (float, float))
        Along rows and columns: where in the scene the first output lies, and the distance to the next.
    """

    tiling: Tiling
    runner: Runner
    token: str
    centres: tuple[tuple[float, float], tuple[float, float]]


def channels_of(model: Model) -> int | None:
    """Return the channels that a network reads, where its weights or its input's shape tell."""
    raw = {INPUT}
    arrays = model.params | model.state
    for node in model.network.nodes:
        if not raw.intersection(node.inputs):
            continue
        own = {
            name.rpartition(".")[2]: a for name, a in arrays.items() if name.rpartition(".")[0] == node.name
        }
        if isinstance(node.layer, Conv2D) and "weight" in own:
            return own["weight"].shape[2] * node.layer.groups
        if isinstance(node.layer, ConvTranspose2D) and "weight" in own:
            return own["weight"].shape[3]
        if isinstance(node.layer, BatchNorm | PReLU) and own:
            return next(iter(own.values())).shape[0]
        if node.layer.is_pointwise or node.layer.reach((64, 64, 1)) is not None:
            raw.add(node.name)
    return model.input_shape[2] if len(model.input_shape) == 3 else None


def plan_scene(
    model: Model, scene: Scene, tile: Any, batch: Any, stride: Pair | None, precision: str | None
) -> Plan:
    """Return how a scene is predicted; raise InputError where it does not fit the network, or a tile memory."""
    if batch != "auto":
        check_count(batch, "batch")
    limit = memory_limit(scene.is_dask or scene.is_stored)
    if stride is not None:
        return _slide(model, scene, tile, batch, stride, precision, limit)
    _check_preprocess(model)
    field = field_of(model.network, scene.shape[1:])
    side = None if isinstance(tile, str) and tile == "auto" else as_pair(tile, "tile")
    network = field.network
    if check_precision(precision) == "exact":
        network = evened(network, field.shape)
    sides = [side] if side else _sides(field)
    tried = []
    for one in sides:
        tiling = dense_tiling(field, one, _group(one, batch, _chunk(scene, limit)))
        cost = _Cost(network, tiling, scene, batch, limit)
        tried.append((cost, tiling))
    fitting = [(cost, tiling) for cost, tiling in tried if cost.bytes <= limit.a_task]
    if not fitting:
        raise _too_large(field, scene, batch, limit, min(tried, key=lambda pair: pair[0].bytes)[0], side)
    cost, tiling = min(fitting, key=lambda pair: pair[0].work)
    total = field.total(0), field.total(1)
    centres = [(float(reach.first + reach.last) / 2, float(reach.step)) for reach in total]
    runner = _runner(replace_network(model, field.network), tiling, scene, cost.batch, limit, precision)
    return Plan(tiling, runner, _token(model, runner, precision), (centres[0], centres[1]))


def _slide(
    model: Model, scene: Scene, tile: Any, batch: Any, stride: Pair, precision: str | None, limit: Limit
) -> Plan:
    """Return the plan of a window that is slid over a scene."""
    if tile != "auto":
        raise InputError(
            f"tile is {tile!r}, but with stride= the tiles are the network's windows: leave it out."
        )
    if len(model.input_shape) != 3:
        raise InputError("The model does not say which images it is for: set model.input_shape = (h, w, c).")
    h, w, c = model.input_shape
    if scene.shape[1] < h or scene.shape[2] < w:
        raise InputError(
            f"The scene has {scene.shape[1]} x {scene.shape[2]} pixels, fewer than the network's window of {h} x {w}: "
            "give a larger scene."
        )
    output = model.network.output_shape((h, w, c))
    if not isinstance(output[0], int) or prod(output[:-1]) != 1:
        raise InputError(
            f"The network gives {output} of each window, not one row of scores: leave stride out for a map."
        )
    chunk = _chunk(scene, limit)
    group = max(1, min(chunk // stride[0], 64)), max(1, min(chunk // stride[1], 64))
    tiling = sliding_tiling(scene.shape[1:], (h, w), stride, group, output[-1])
    cost = _Cost(model.network, tiling, scene, batch, limit)
    if cost.bytes > limit.a_task:
        raise InputError(
            f"Windows of {h} x {w} need {in_words(cost.bytes)} {limit.whose}, which has {in_words(limit.a_task)}: "
            "give it more memory."
        )
    runner = _runner(model, tiling, scene, cost.batch, limit, precision)
    centres = ((h - 1) / 2, float(stride[0])), ((w - 1) / 2, float(stride[1]))
    return Plan(tiling, runner, _token(model, runner, precision), centres)


def _check_preprocess(model: Model) -> None:
    mean = getattr(model.preprocess, "mean", None)
    if mean is not None and max(mean.shape[:-1][-2:], default=1) > 1:
        raise InputError(
            f"The model subtracts a mean image of {mean.shape}, which a scene has not: train it with "
            'preprocess="standardize" or "unit", or slide its window with stride=.'
        )


def _sides(field: Field) -> list[Pair]:
    """Return the tiles that "auto" chooses from: multiples of the stride, none much larger than the scene."""
    h, w = field.shape[:2]
    down = field.stride
    largest = max(h + -h % down[0], w + -w % down[1])
    sides = [side for side in _SIDES if side < largest] + ([largest] if largest <= _SIDES[0] else [])
    return list({(side + -side % down[0], side + -side % down[1]): None for side in sides or [_SIDES[-1]]})


def _chunk(scene: Scene, limit: Limit) -> int:
    """Return about how long the side of a chunk is: small scenes are cut so that every task at once has some."""
    pixels = prod(scene.shape[:3]) // (_CHUNKS_EACH * limit.at_once if limit.at_once > 1 else 1)
    return min(_CHUNK, max(_LEAST, isqrt(pixels)))


def _group(tile: Pair, batch: Any, chunk: int) -> Pair:
    """Return how many tiles a chunk has along rows and columns: about a square that is worth a task."""
    rows = 1 if batch == "auto" else isqrt(batch - 1) + 1
    columns = 1 if batch == "auto" else ceil(batch / rows)
    return max(rows, chunk // tile[0], 1), max(columns, chunk // tile[1], 1)


class _Cost:
    """What a tiling takes: bytes of a task, tiles at once, and operations of the whole scene, weighed.

    A task holds the pixels around its chunk, its part of the result, and the activations of the tiles that run.
    """

    def __init__(self, network: Network, tiling: Tiling, scene: Scene, batch: Any, limit: Limit) -> None:
        window = tiling.windows[-1]
        one = run_bytes(network, window, {}, 1) + prod(window) * 8
        largest = max(prod(shape) for shape in network.shapes(window).values())
        flops = sum(network.flops(window).values())
        rows, columns = tiling.rows[0], tiling.columns[0]
        tiles = len(rows.cuts) * len(columns.cuts)
        self.fixed = self._pixels(tiling, scene) + rows.size * columns.size * tiling.outputs * 4
        at_once = min(limit.threads, tiles)
        room = max(0, limit.a_task - self.fixed) // (one * at_once)
        worth = min(
            ceil(_WORTH / max(flops, 1)), max(1, _CACHED // (4 * largest)), ceil(tiles / at_once), 256
        )
        self.batch = int(max(1, min(worth, room))) if batch == "auto" else batch
        # Fewer batches than threads run one after the other, all threads on each.
        at_once = at_once if ceil(tiles / self.batch) >= limit.threads else 1
        self.bytes = self.fixed + one * self.batch * at_once
        slower = _SLOWER if 4 * largest * self.batch > _CACHED else 1
        self.work = (flops + 50_000_000) * tiling.tiles * slower

    @staticmethod
    def _pixels(tiling: Tiling, scene: Scene) -> int:
        """Return the bytes of a chunk's pixels, and of the Dask's or Zarr's chunks that they come from."""
        sides = [
            max(b - a for a, b in (strip.pixels for strip in side)) for side in (tiling.rows, tiling.columns)
        ]
        size = np.dtype(scene.array.dtype).itemsize * scene.shape[3]
        if not (scene.is_dask or scene.is_stored):
            return prod(sides) * size
        chunks = dict(zip(scene.axes, map(np.max, scene.array.chunks), strict=True))
        covered = [
            min(side + 2 * int(chunks[axis]), whole)
            for axis, side, whole in zip("yx", sides, scene.shape[1:3], strict=True)
        ]
        return (prod(sides) + prod(covered) * int(chunks.get("n", 1))) * size


def _too_large(
    field: Field, scene: Scene, batch: Any, limit: Limit, cost: _Cost, side: Pair | None
) -> InputError:
    """Return the error of a tile that does not fit, with the largest that does."""
    if side is not None:
        for one in _sides(field):
            tiling = dense_tiling(field, one, _group(one, batch, _chunk(scene, limit)))
            if (
                prod(one) < prod(side)
                and _Cost(field.network, tiling, scene, batch, limit).bytes <= limit.a_task
            ):
                name = side[0] if side[0] == side[1] else side
                return InputError(
                    f"tile {name} needs {in_words(cost.bytes)} {limit.whose}, which has {in_words(limit.a_task)}: use "
                    f"tile={max(one)}."
                )
    return InputError(
        f"The smallest tile needs {in_words(cost.bytes)} {limit.whose}, which has {in_words(limit.a_task)} for it: "
        "give it more memory, the scene smaller chunks, or use a smaller batch."
    )


def replace_network(model: Model, network: Network) -> Model:
    """Return the model with another network of the same parameters."""
    assert is_dataclass(model)
    return replace(model, network=network)


def _runner(
    model: Model, tiling: Tiling, scene: Scene, batch: int, limit: Limit, precision: str | None
) -> Runner:
    """Return what the tasks share: one choice of methods for all shapes, so that all tiles are summed alike."""
    ready = model.predictor(tiling.windows[-1], precision=precision)
    by_shape = {shape: replace(ready, input_shape=shape) for shape in tiling.windows}
    return Runner(by_shape, batch, limit.threads, scene.axes, tiling.outputs, ready.dtype)


def _token(model: Model, runner: Runner, precision: str | None) -> str:
    """Return a token of what a result depends on, the scene and its tiles aside."""
    normal = model.preprocess
    pixels = None if normal is None else (normal.mean, normal.scale)
    arrays: Mapping[str, Any] = model.params | model.state
    methods = next(iter(runner.ready.values())).methods
    return tokenize(repr(model.network), sorted(arrays.items()), pixels, check_precision(precision), methods)[
        :12
    ]
