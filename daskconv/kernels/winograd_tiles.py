"""Which convolutions Winograd's tiles compute, and what that costs; nothing here is compiled."""

from __future__ import annotations

from daskconv.geometry import Correlation, Window

KERNELS = {3: (2, 4, 5, 6), 5: (2, 3, 4)}
"""Kernel sizes, and the sizes of output tiles that float32 is precise enough for."""


def fits(window: Window) -> bool:
    """Return whether tiles can compute a convolution and its gradients: square, of stride and dilation 1."""
    rows, cols = window.kernel
    return rows == cols and rows in KERNELS and window.stride == window.dilation == (1, 1)


def tile_size(correlation: Correlation) -> int:
    """Return the m of the tiles that need the fewest multiplications."""
    r = len(correlation.rows)
    return min(KERNELS[r], key=lambda m: (count_tiles(correlation, m) * (m + r - 1) ** 2, m))


def count_tiles(correlation: Correlation, m: int) -> int:
    """Return the tiles of one image."""
    p, q = correlation.size
    return -(-p // m) * -(-q // m)


def count_points(correlation: Correlation) -> int:
    """Return the points of one image's tiles: its multiplications for a channel and a filter."""
    m, r = tile_size(correlation), len(correlation.rows)
    return count_tiles(correlation, m) * (m + r - 1) ** 2
