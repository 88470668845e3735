"""Optimisers: frozen specs; their state is a dict of arrays that travels with the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels.step import Adaptive, Rates, adaptive_step, momentum_step
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
class _Rated(Optimizer):
    """An optimiser with a learning rate, and factors on it by name."""

    learning_rate: float | Schedule

    def _check(self, **numbers: float) -> None:
        """Resolve the multipliers; refuse numbers below 0."""
        resolve_schedule(self.learning_rate)
        multipliers = dict(getattr(self, "multipliers", ()))
        object.__setattr__(self, "multipliers", tuple(multipliers.items()))
        for name, value in (numbers | multipliers).items():
            if not (isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}: give at least 0.")

    def _check_shares(self, **numbers: float) -> None:
        for name, value in numbers.items():
            if not 0 <= value < 1:
                raise InputError(f"{name} is {value}: give at least 0 and below 1.")

    def _check_epsilon(self, epsilon: float) -> None:
        """Refuse what is 0 in single precision: it would divide gradients of 0 by 0."""
        with np.errstate(over="ignore"):
            single = np.float32(epsilon)
        if not (isfinite(single) and single > 0):
            raise InputError(
                f"epsilon is {epsilon}: give a number above 0 in single precision, such as 1e-8."
            )

    def rate(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``."""
        return resolve_schedule(self.learning_rate).at(epoch)

    def multiplier(self, name: str) -> float:
        """Return the factor on the learning rate of one parameter."""
        pairs = dict(getattr(self, "multipliers", ())).items()
        return next((factor for pattern, factor in pairs if fnmatchcase(name, pattern)), 1.0)


@dataclass(frozen=True)
class SGD(_Rated):
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

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    multipliers: Multipliers = ()

    def __post_init__(self) -> None:
        self._check_shares(momentum=self.momentum)
        self._check(weight_decay=self.weight_decay)
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0.")

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step: a velocity of zeros for each parameter."""
        return {f"velocity.{name}": np.zeros_like(array) for name, array in params.items()}

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its velocity in place, from ``scale * gradient``."""
        rates = Rates(scale, self.momentum, self.weight_decay, rate * self.multiplier(name))
        momentum_step(param, slots[f"velocity.{name}"], gradient, rates, self.nesterov)


@dataclass(frozen=True)
class Adam(_Rated):
    """Steps scaled by running means of the gradient and of its square (Kingma and Ba 2015), in PyTorch's form.

    Parameters
    ----------
    learning_rate : float or Schedule
    beta1, beta2 : float
        Shares that the means keep.
    epsilon : float
    weight_decay : float
        Added to the gradient, times the weight.
    multipliers : mapping of pattern to float
        As in :class:`SGD`.

    Examples
    --------
    >>> Adam(1e-3).rate(0)
    0.001
    """

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    multipliers: Multipliers = ()

    def __post_init__(self) -> None:
        self._check_shares(beta1=self.beta1, beta2=self.beta2)
        self._check(weight_decay=self.weight_decay)
        self._check_epsilon(self.epsilon)

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step: two means and a count of steps for each parameter."""
        means = {f"mean.{name}": np.zeros_like(array) for name, array in params.items()}
        squares = {f"square.{name}": np.zeros_like(array) for name, array in params.items()}
        return means | squares | {f"steps.{name}": np.zeros(1) for name in params}

    def _decays(self, rate: float) -> tuple[float, float]:
        """Return what is added to the gradient, and what the weight is multiplied with."""
        return self.weight_decay, 1.0

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its slots in place, from ``scale * gradient``."""
        rate *= self.multiplier(name)
        slots[f"steps.{name}"] += 1
        steps = float(slots[f"steps.{name}"][0])
        decay, shrink = self._decays(rate)
        numbers = Adaptive(
            scale,
            decay,
            self.beta1,
            self.beta2,
            1 - self.beta2,
            rate / (1 - self.beta1**steps),
            1 / (1 - self.beta2**steps),
            self.epsilon,
            shrink,
        )
        adaptive_step(param, slots[f"mean.{name}"], slots[f"square.{name}"], gradient, numbers)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam whose weights shrink by rate * decay, apart from the gradient (Loshchilov and Hutter 2019)."""

    weight_decay: float = 1e-2

    def _decays(self, rate: float) -> tuple[float, float]:
        return 0.0, 1 - rate * self.weight_decay


@dataclass(frozen=True)
class Adagrad(_Rated):
    """Steps over the root of all squares so far (Duchi et al. 2011), in PyTorch's form."""

    learning_rate: float | Schedule = 1e-2
    epsilon: float = 1e-10
    weight_decay: float = 0.0
    multipliers: Multipliers = ()

    def __post_init__(self) -> None:
        self._check(weight_decay=self.weight_decay)
        self._check_epsilon(self.epsilon)

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step: a sum of squares for each parameter."""
        return {f"square.{name}": np.zeros_like(array) for name, array in params.items()}

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its slot in place, from ``scale * gradient``."""
        rate *= self.multiplier(name)
        numbers = Adaptive(scale, self.weight_decay, 0.0, 1.0, 1.0, rate, 1.0, self.epsilon, 1.0)
        adaptive_step(param, None, slots[f"square.{name}"], gradient, numbers)


@dataclass(frozen=True)
class RMSprop(_Rated):
    """Steps over the root of a running mean of squares (Tieleman and Hinton 2012), in PyTorch's form."""

    learning_rate: float | Schedule = 1e-2
    alpha: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    multipliers: Multipliers = ()

    def __post_init__(self) -> None:
        self._check_shares(alpha=self.alpha)
        self._check(weight_decay=self.weight_decay)
        self._check_epsilon(self.epsilon)

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step: a mean square for each parameter."""
        return {f"square.{name}": np.zeros_like(array) for name, array in params.items()}

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its slot in place, from ``scale * gradient``."""
        rate *= self.multiplier(name)
        numbers = Adaptive(
            scale, self.weight_decay, 0.0, self.alpha, 1 - self.alpha, rate, 1.0, self.epsilon, 1.0
        )
        adaptive_step(param, None, slots[f"square.{name}"], gradient, numbers)


@dataclass(frozen=True)
class LARS(_Rated):
    """SGD whose rate follows the norms of each layer's weight and gradient (You et al. 2017), for large batches.

    ``local = trust * |w| / (|g| + weight_decay * |w|)``, then ``velocity = momentum * velocity + rate * local * (g +
    weight_decay * w)`` and ``w -= velocity``. Parameters of one axis (biases, batch norms) move as in SGD.

    Parameters
    ----------
    learning_rate : float or Schedule
    momentum, weight_decay, trust : float
    multipliers : mapping of pattern to float
        As in :class:`SGD`.
    """

    whole_layers: ClassVar[bool] = True
    """A part of a weight cannot be moved without the rest."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    trust: float = 1e-3
    multipliers: Multipliers = ()

    def __post_init__(self) -> None:
        self._check_shares(momentum=self.momentum)
        self._check(weight_decay=self.weight_decay, trust=self.trust)

    def init(self, params: Arrays) -> Arrays:
        """Return the state before the first step: a velocity of zeros for each parameter."""
        return {f"velocity.{name}": np.zeros_like(array) for name, array in params.items()}

    def step(
        self, name: str, param: NDArray, gradient: NDArray, slots: Arrays, rate: float, scale: float
    ) -> None:
        """Update one parameter and its velocity in place, from ``scale * gradient``."""
        rate *= self.multiplier(name)
        local, decay = 1.0, 0.0
        if param.ndim > 1:
            weight, pull = (
                float(np.linalg.norm(array.reshape(-1).astype(np.float64))) for array in (param, gradient)
            )
            decay, below = self.weight_decay, scale * pull + self.weight_decay * weight
            local = self.trust * weight / below if weight > 0 and below > 0 else 1.0
        # The velocity holds the rate of each step in it, so the move itself has the rate 1.
        rates = Rates(scale * rate * local, self.momentum, decay * rate * local, 1.0)
        momentum_step(param, slots[f"velocity.{name}"], gradient, rates)
