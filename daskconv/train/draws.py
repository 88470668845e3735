"""Random numbers that are counted, not drawn in turn: each has its place, whoever asks for it and when."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, epoch: int, images: NDArray[np.int64], stream: int, count: int) -> NDArray[np.float64]:
    """Return ``count`` numbers from 0 to below 1 for each image, (images, count).

    They are a hash of (seed, epoch, image, stream, number), by the finaliser of SplitMix64 (Steele, Lea and Flood
    2014): an image meets the same numbers on any worker, in any block.

    Examples
    --------
    >>> both = uniform(0, 1, np.array([5, 9]), stream=0, count=2)
    >>> (both[1] == uniform(0, 1, np.array([9]), stream=0, count=2)[0]).all()
    np.True_
    """
    with np.errstate(over="ignore"):
        state = _mixed(np.uint64(seed) + _GOLDEN)
        for number in (
            np.uint64(epoch),
            np.uint64(stream),
            images.astype(np.uint64)[:, None],
            _numbers(count),
        ):
            state = _mixed((state ^ number) + _GOLDEN)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _numbers(count: int) -> NDArray[np.uint64]:
    return np.arange(count, dtype=np.uint64)


def _mixed(z: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
