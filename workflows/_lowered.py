"""The forward pass by lowering in other ways: the pipeline's tiles without its overlap, and PyTorch's unfold."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from _layers import Layer
from dask._task_spec import Task

from daskconv.geometry import forward_correlation
from daskconv.graph.pipeline import Weights, weights_of
from daskconv.graph.threads import execute
from daskconv.graph.tiles import Range, Work, pipelined_tiles
from daskconv.kernels.lowering import correlate_rows, lower, weight_matrices
from daskconv.kernels.scratch import scratch


def serial_tiles(
    layer: Layer, x: np.ndarray, w: np.ndarray, threads: int, blas: bool = False
) -> Callable[[], Any]:
    """Return a function that lowers and multiplies each of the pipeline's tiles in one task, by its kernel or by BLAS.

    By BLAS it shows over plain lowering what small tiles gain; by the pipeline's kernel what that gains over BLAS; and
    the pipeline over it what overlap gains.
    """
    correlation = forward_correlation(layer.window, layer.size, layer.size)
    p, q = correlation.size
    rows, depth = len(x) * p * q, layer.kernel**2 * layer.c
    tiles = pipelined_tiles(rows, Work(2 * depth * layer.k, depth * x.itemsize))
    longest = max(stop - start for start, stop in tiles)

    def multiply(weights: Weights, tile: Range, out: np.ndarray) -> None:
        buffer = scratch("lowered", (len(out), depth), x.dtype)
        lower(x, correlation, tile, (0, layer.c), buffer)
        for columns, part in weights.parts[0]:
            weights.multiply(buffer, part, None, columns, out)

    def run() -> None:
        out = np.empty((rows, layer.k), x.dtype)
        if blas:
            matrices = weight_matrices(w, correlation, 1, transposed=False)
            call: tuple = (correlate_rows, x, matrices, None, correlation)
        else:
            weights = weights_of(w, correlation, 1, longest, transposed=False)
            call = (multiply, weights)
        tasks = (Task(tile, *call, tile, out[slice(*tile)]) for tile in tiles)
        execute({task.key: task for task in tasks}, [], threads)

    return run


def torch_unfold(layer: Layer, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
    """Return a function that calls PyTorch's unfold and matmul, as the textbook's convolution does."""
    import torch

    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    matrix = torch.from_numpy(w).permute(3, 2, 0, 1).reshape(layer.k, -1).contiguous()
    options = {"kernel_size": layer.kernel, "padding": layer.kernel // 2, "stride": layer.stride}
    unfold = partial(torch.nn.functional.unfold, images, **options)
    return lambda: torch.matmul(matrix, unfold())
