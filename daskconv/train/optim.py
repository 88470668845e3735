"""Optimisers: frozen specs; their state is a dict of arrays that travels with the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels.step import Rates, momentum_step
from daskconv.train.schedule import Schedule, resolve_schedule

Arrays = dict[str, NDArray]
Multipliers = Mapping[str, float] | tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Optimizer:
    """A custom optimiser subclasses this, as a frozen dataclass."""

    def rate(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``, counted from 0 and in fractions."""
        raise NotImplementedError

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step, by names of its own."""
        raise NotImplementedError

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its slots in place, from ``scale * gradient``."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay, in PyTorch's form.

    ``velocity = momentum * velocity + gradient + weight_decay * weight``, then
    ``weight -= rate * velocity``. numexpr computes both in place.

    Parameters
    ----------
    learning_rate : float or Schedule
    momentum : float
    weight_decay : float
        Of weights and biases alike.
    nesterov : bool
    multipliers : mapping of pattern to float
        Factors on the learning rate of the parameters whose name matches, the first match counts:
        ``{"*.bias": 2.0}`` doubles the biases' rate.

    Examples
    --------
    >>> SGD(1e-3, momentum=0.9, multipliers={"*.bias": 2.0}).multiplier("conv1.bias")
    2.0
    """

    learning_rate: float | Schedule
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    multipliers: Multipliers = ()

    def __post_init__(self) -> None:
        resolve_schedule(self.learning_rate)
        if isinstance(self.multipliers, Mapping):
            object.__setattr__(self, "multipliers", tuple(self.multipliers.items()))
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}: give at least 0 and below 1.")
        for name, value in (("weight_decay", self.weight_decay), *dict(self.multipliers).items()):
            if not (isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}: give at least 0.")
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0.")

    def rate(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``."""
        return resolve_schedule(self.learning_rate).at(epoch)

    def multiplier(self, name: str) -> float:
        """Return the factor on the learning rate of one parameter."""
        pairs = dict(self.multipliers).items()
        return next((factor for pattern, factor in pairs if fnmatchcase(name, pattern)), 1.0)

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step: a velocity of zeros for each parameter."""
        return {f"velocity.{name}": np.zeros_like(array) for name, array in params.items()}

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its velocity in place, from ``scale * gradient``."""
        rates = Rates(scale, self.momentum, self.weight_decay, rate * self.multiplier(name))
        momentum_step(param, slots[f"velocity.{name}"], gradient, rates, self.nesterov)
