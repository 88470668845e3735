"""Normalize: how raw pixels become the network's input; it is saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numexpr
import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError

KINDS = ("mean_image", "standardize", "unit", "none")


@dataclass(frozen=True, eq=False)
class Normalize:
    """``(float32(pixel) - mean) * scale``, computed by numexpr.

    Attributes
    ----------
    mean, scale : array of float32
        Broadcast against an image (h, w, c).

    Examples
    --------
    >>> Normalize.unit()(np.full((1, 1, 1, 1), 255, np.uint8)).item()
    1.0
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __call__(self, images: NDArray) -> NDArray[np.float32]:
        """Return normalised images (n, h, w, c) as float32."""
        images = images if images.dtype == np.float32 else images.astype(np.float32)
        values = {"x": images, "mean": self.mean, "scale": self.scale}
        return numexpr.evaluate("(x - mean) * scale", local_dict=values, global_dict={})

    def part(self, box: Sequence[tuple[int, int]]) -> Normalize:
        """Return the normalisation of a part of the images: a range along each of h, w, c."""
        parts = []
        for array in (self.mean, self.scale):
            sides = list(box)[len(box) - array.ndim :]
            cut = (
                slice(*side) if size > 1 else slice(None)
                for size, side in zip(array.shape, sides, strict=True)
            )
            parts.append(array[tuple(cut)])
        return Normalize(*parts)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless images of this shape (h, w, c) can be normalised."""
        for name, array in (("mean", self.mean), ("scale", self.scale)):
            axes = zip(array.shape[::-1], shape[::-1], strict=False)
            if array.ndim > len(shape) or not all(size in (1, wanted) for size, wanted in axes):
                raise InputError(
                    f"Images of {tuple(shape)} do not fit the normalisation, whose {name} has the shape {array.shape}: "
                    "resize or crop the images, or give another preprocess."
                )

    @classmethod
    def unit(cls) -> Normalize:
        """Return the scaling of bytes to 0 .. 1."""
        return cls(np.zeros(1, np.float32), np.full(1, 1 / 255, np.float32))

    @classmethod
    def imagenet(cls) -> Normalize:
        """Return that of torchvision's weights, for bytes: mean 0 and standard deviation 1 of ImageNet's channels."""
        mean = 255 * np.array([0.485, 0.456, 0.406])
        scale = 1 / (255 * np.array([0.229, 0.224, 0.225]))
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    @classmethod
    def mean_image(cls, images: Any) -> Normalize:
        """Return the subtraction of the training set's mean image: a mean for each pixel and channel."""
        mean = _compute(images.mean(axis=0, dtype=np.float64))
        return cls(mean.astype(np.float32), np.ones(1, np.float32))

    @classmethod
    def standardize(cls, images: Any) -> Normalize:
        """Return the shift to mean 0 and standard deviation 1 of each channel."""
        means = _compute(images.mean(axis=(0, 1, 2), dtype=np.float64))
        deviations = _compute(images.std(axis=(0, 1, 2), dtype=np.float64))
        return cls(means.astype(np.float32), (1 / np.maximum(deviations, 1e-7)).astype(np.float32))

    @classmethod
    def of(cls, kind: str | Normalize | None, images: Any) -> Normalize | None:
        """Return the normalisation of a name, fitted to ``images``, or the one that was given."""
        if isinstance(kind, Normalize):
            return kind
        if kind not in (None, *KINDS):
            raise InputError(f"normalisation is {kind!r}: choose one of {', '.join(KINDS)}.")
        if kind in (None, "none"):
            return None
        return cls.unit() if kind == "unit" else getattr(cls, kind)(images)


def _compute(array: Any) -> NDArray:
    return array.compute() if hasattr(array, "compute") else array
