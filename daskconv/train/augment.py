"""Augmentation: training images changed at random, each epoch anew, before they are normalised.

Random numbers are counted by (seed, epoch, image, place in the list of augmentations): an image meets the same change
on every transport and any number of workers. It is done by the thread that reads a block of images, ahead of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels.colors import jitter
from daskconv.kernels.rearrange import NOWHERE, rearrange
from daskconv.train.draws import uniform


@dataclass(frozen=True)
class Augmentation:
    """A custom augmentation subclasses this, as a frozen dataclass.

    Attributes
    ----------
    draws : int
        How many random numbers an image needs.
    """

    @property
    def draws(self) -> int:
        """How many random numbers an image needs."""
        return 1

    def __call__(self, images: NDArray, draws: NDArray[np.float64]) -> NDArray:
        """Return changed images of the same shape (n, h, w, c), from numbers (n, draws) of at least 0 and below 1."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Moved(Augmentation):
    """An augmentation that moves pixels: those next to each other in a list take one pass over memory together."""

    def sources(
        self, h: int, w: int, draws: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the row (n, h) and the column (n, w) that each pixel comes from; below 0 it becomes 0."""
        raise NotImplementedError

    def __call__(self, images: NDArray, draws: NDArray[np.float64]) -> NDArray:
        """Return the images with their pixels in other places."""
        _, h, w, _ = images.shape
        return rearrange(images, *self.sources(h, w, draws))


@dataclass(frozen=True)
class RandomCrop(_Moved):
    """Pad an image on all sides and cut one of its size out of that (He et al. 2016 for CIFAR, with 4 pixels).

    Parameters
    ----------
    padding : int
        Pixels.
    mode : {"constant", "reflect", "edge"}
        What the border holds: zeros, the image mirrored, or its outermost pixels.

    Examples
    --------
    >>> RandomCrop(1)(np.ones((1, 2, 2, 1)), np.array([[0.0, 0.5]]))[0, :, :, 0].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """

    padding: int = 4
    mode: str = "constant"

    def __post_init__(self) -> None:
        if not isinstance(self.padding, int) or self.padding < 1:
            raise InputError(f"RandomCrop has padding {self.padding!r}: give at least 1 pixel.")
        if self.mode not in ("constant", "reflect", "edge"):
            raise InputError(f"RandomCrop has mode {self.mode!r}: choose constant, reflect or edge.")

    @property
    def draws(self) -> int:
        """A row and a column."""
        return 2

    def sources(
        self, h: int, w: int, draws: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows and columns of a part of each padded image."""
        start = (draws * (2 * self.padding + 1)).astype(np.int64)
        rows, columns = (
            _padded(size, self.padding, self.mode)[first[:, None] + np.arange(size)]
            for size, first in zip((h, w), start.T, strict=True)
        )
        return rows, columns


@cache
def _padded(size: int, padding: int, mode: str) -> NDArray[np.int64]:
    """Return where the pixels of a padded line come from; nobody may change it."""
    options = {"constant_values": NOWHERE} if mode == "constant" else {}
    return np.pad(np.arange(size), padding, mode, **options)  # type: ignore[call-overload]


@dataclass(frozen=True)
class RandomFlip(_Moved):
    """Mirror a share of the images, left to right.

    Examples
    --------
    >>> RandomFlip(1.0)(np.array([[[[1], [2]]]]), np.zeros((1, 1))).ravel().tolist()
    [2, 1]
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise InputError(f"RandomFlip has rate {self.rate}: give a share from 0 to 1.")

    def sources(
        self, h: int, w: int, draws: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows, and the columns from right to left for some images."""
        columns = np.where(draws[:, :1] < self.rate, np.arange(w)[::-1], np.arange(w))
        return np.broadcast_to(np.arange(h), (len(draws), h)), columns


@dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Change brightness, contrast and saturation, in this order, by factors from ``1 - x`` to ``1 + x``.

    Contrast is the distance to the image's mean grey, saturation that to each pixel's grey. Bytes stay between 0 and
    255; images of other numbers are not limited.

    Parameters
    ----------
    brightness, contrast, saturation : float
        From 0 to 1.

    Examples
    --------
    >>> ColorJitter(brightness=0.5)(np.full((1, 1, 1, 1), 100.0), np.array([[0.5, 0.0, 0.0]])).item()
    100.0
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= strength <= 1 for strength in self._strengths):
            raise InputError(f"ColorJitter has strengths {self._strengths}: give numbers from 0 to 1.")

    @property
    def _strengths(self) -> tuple[float, float, float]:
        return self.brightness, self.contrast, self.saturation

    @property
    def draws(self) -> int:
        """A factor each."""
        return 3

    def __call__(self, images: NDArray, draws: NDArray[np.float64]) -> NDArray:
        """Return the images as float32 with other colours."""
        factors = (1 + (2 * draws - 1) * self._strengths).astype(np.float32)
        return jitter(images, factors, self.contrast > 0, self.saturation > 0)


AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": RandomCrop(),
    "flip": RandomFlip(),
    "jitter": ColorJitter(0.4, 0.4, 0.4),
}


def resolve_augmentations(augment: Sequence[str | Augmentation]) -> tuple[Augmentation, ...]:
    """Return the augmentations of the names, and those given as they are."""
    for item in augment:
        if not isinstance(item, Augmentation) and item not in AUGMENTATIONS:
            raise InputError(
                f"augment holds {item!r}: choose from {', '.join(AUGMENTATIONS)} or give a daskconv.Augmentation."
            )
    return tuple(AUGMENTATIONS[item] if isinstance(item, str) else item for item in augment)


def _only_moves(change: Augmentation) -> bool:
    """Return whether an augmentation does no more than its ``sources`` say; a subclass may do so."""
    return isinstance(change, _Moved) and type(change).__call__ is _Moved.__call__


def _sources_together(
    drawn: Sequence[tuple[Any, NDArray[np.float64]]], h: int, w: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where pixels come from after several moves, the first one first."""
    first, *others = (change.sources(h, w, draws) for change, draws in drawn)
    rows, columns = first
    for sources in others:
        rows, columns = (
            np.where(now < 0, NOWHERE, np.take_along_axis(before, now, 1))
            for before, now in zip((rows, columns), sources, strict=True)
        )
    return rows, columns


def augmented(
    images: NDArray, augment: Sequence[Augmentation], seed: int, epoch: int, numbers: NDArray[np.int64]
) -> NDArray:
    """Return images after all augmentations; ``numbers`` are those of the images in the data set."""
    shape = images.shape
    for moved, group in groupby(enumerate(augment), lambda item: _only_moves(item[1])):
        drawn = [(change, uniform(seed, epoch, numbers, at, change.draws)) for at, change in group]
        if moved:
            h, w = images.shape[1:3]
            images = rearrange(images, *_sources_together(drawn, h, w))
            continue
        for change, draws in drawn:
            images = change(images, draws)
    if images.shape != shape:
        raise InputError(
            f"The augmentations make images {images.shape} of {shape}: they have to keep the shape."
        )
    return images
