"""Weight initialisers: frozen specs that draw an array from a generator."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Initializer:
    """How a weight starts; its last axis is the output, all others are summed over."""

    def draw(self, generator: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return the initial values of a weight of this shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Initializer):
    """Every element has one value.

    Examples
    --------
    >>> Constant(2.0).draw(np.random.default_rng(0), (2,))
    array([2., 2.])
    """

    value: float = 0.0

    def draw(self, generator: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return the constant."""
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Normal(Initializer):
    """Normally distributed with mean 0 and standard deviation ``std``."""

    std: float = 0.01

    def draw(self, generator: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return normal draws."""
        return generator.standard_normal(shape) * self.std


@dataclass(frozen=True)
class HeNormal(Initializer):
    """Normal with variance 2 / fan-in, for layers followed by ReLU (He et al. 2015)."""

    def draw(self, generator: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return normal draws scaled by the inputs that one output sums."""
        return generator.standard_normal(shape) * sqrt(2 / prod(shape[:-1]))


@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """Uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio 2010), Caffe's and Keras's "xavier"."""

    def draw(self, generator: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return uniform draws scaled by inputs and outputs; the window counts on both sides."""
        window = prod(shape[:-2])
        limit = sqrt(6 / (window * (shape[-2] + shape[-1])))
        return generator.uniform(-limit, limit, shape)
