"""Augmentation: training images changed at random, each epoch anew, before they are normalised.

Random numbers are counted by (seed, epoch, image, place in the list of augmentations): an image meets the same change
on every transport and any number of workers. It is done by the thread that reads a block of images, ahead of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels.colors import jitter
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
class RandomCrop(Augmentation):
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

    def __call__(self, images: NDArray, draws: NDArray[np.float64]) -> NDArray:
        """Return a part of each padded image."""
        sides = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), sides, sides, (0, 0)), self.mode)  # type: ignore[call-overload]
        _, h, w, _ = images.shape
        out = np.empty_like(images)
        for image, whole, (top, left) in zip(
            out, padded, (draws * (2 * self.padding + 1)).astype(int), strict=True
        ):
            image[...] = whole[top : top + h, left : left + w]
        return out


@dataclass(frozen=True)
class RandomFlip(Augmentation):
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

    def __call__(self, images: NDArray, draws: NDArray[np.float64]) -> NDArray:
        """Return the images, some of them mirrored."""
        out, chosen = images.copy(), draws[:, 0] < self.rate
        out[chosen] = images[chosen, :, ::-1]
        return out


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


def augmented(
    images: NDArray, augment: Sequence[Augmentation], seed: int, epoch: int, numbers: NDArray[np.int64]
) -> NDArray:
    """Return images after all augmentations; ``numbers`` are those of the images in the data set."""
    shape = images.shape
    for stream, change in enumerate(augment):
        images = change(images, uniform(seed, epoch, numbers, stream, change.draws))
    if images.shape != shape:
        raise InputError(
            f"The augmentations make images {images.shape} of {shape}: they have to keep the shape."
        )
    return images
