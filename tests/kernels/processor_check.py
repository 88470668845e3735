"""Compare generated kernels with the direct ones in float64; run in a process of its own for another processor."""

import sys

import numpy as np

from daskconv.geometry import Window
from daskconv.graph import conv
from daskconv.kernels.tile import registers

# (n, h, w, c, k, kernel, options): wide and ragged channels, borders on all sides, gaps, few channels, groups.
CASES = [
    (2, 9, 23, 19, 37, (3, 3), {"padding": 1}),
    (2, 8, 8, 3, 16, (5, 5), {"padding": 2}),
    (1, 7, 40, 8, 5, (1, 3), {"stride": (1, 2), "padding": ((0, 0), (2, 0)), "dilation": (1, 2)}),
    (1, 12, 12, 6, 8, (3, 2), {"groups": 2, "stride": 3, "padding": 2}),
]

TILED = [
    (2, 9, 11, 19, 37, (3, 3), {"padding": 1}),
    (1, 14, 13, 12, 10, (5, 5), {"padding": 2, "groups": 2}),
]


def worst_error(method: str, cases: dict) -> float:
    """Return the largest error of all, relative to the result, in units of the dtype's precision."""
    worst = 0.0
    for dtype, shapes in cases.items():
        for n, h, w, c, k, kernel, options in shapes:
            window = Window.of(kernel, (h, w), **options)
            generator = np.random.default_rng(0)
            x = generator.standard_normal((n, h, w, c))
            weight = generator.standard_normal((*kernel, c // window.groups, k))
            dy = generator.standard_normal((n, *window.output_size(h, w), k))
            wide = passes(x, weight, dy, window, "direct")
            found = passes(x.astype(dtype), weight.astype(dtype), dy.astype(dtype), window, method)
            for right, result in zip(wide, found, strict=True):
                error = abs(result - right).max() / abs(right).max() / np.finfo(dtype).eps
                worst = max(worst, float(error))
    return worst


def passes(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, window: Window, method: str
) -> list[np.ndarray]:
    return [
        conv.forward(x, weight, None, window, method),
        conv.input_grad(dy, weight, x.shape, window, method),
        conv.weight_grad(x, dy, weight.shape, window, method),
    ]


if __name__ == "__main__":
    # Most of the time goes into compiling: another dtype has the same code.
    cases = {np.float32: CASES, np.float64: CASES[:1]}
    errors = worst_error("implicit", cases), worst_error("winograd", {np.float32: TILED})
    print(registers()[0], *errors, file=sys.stdout)
