"""Learning-rate schedules: the rate as a function of the epoch, fractions included."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, isfinite, pi

from daskconv.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """A custom schedule subclasses this, as a frozen dataclass."""

    def at(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``, counted from 0 and in fractions."""
        raise NotImplementedError


def _check(name: str, value: float, *, above_zero: bool = False) -> None:
    """Raise InputError unless the value is a finite number of at least 0, or above it."""
    if not (isinstance(value, int | float) and isfinite(value) and (value > 0 if above_zero else value >= 0)):
        raise InputError(f"{name} is {value!r}: give a number {'above' if above_zero else 'of at least'} 0.")


@dataclass(frozen=True)
class ConstantRate(Schedule):
    """The same rate always."""

    rate: float

    def __post_init__(self) -> None:
        _check("The learning rate", self.rate)

    def at(self, epoch: float) -> float:
        """Return the rate."""
        return self.rate


@dataclass(frozen=True)
class StepRate(Schedule):
    """``rate``, times ``factor`` at each epoch of ``boundaries``.

    Examples
    --------
    >>> schedule = StepRate(1e-3, boundaries=(8,), factor=0.1)
    >>> schedule.at(7.99), round(schedule.at(8), 6)
    (0.001, 0.0001)
    """

    rate: float
    boundaries: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check("The learning rate", self.rate)
        _check("StepRate's factor", self.factor)

    def at(self, epoch: float) -> float:
        """Return the rate of the step that the epoch lies in."""
        return self.rate * self.factor ** sum(epoch >= boundary for boundary in self.boundaries)


@dataclass(frozen=True)
class CosineRate(Schedule):
    """Half a cosine from ``rate`` down to ``final`` over ``epochs`` (Loshchilov and Hutter 2017).

    Examples
    --------
    >>> CosineRate(0.2, epochs=10).at(5)
    0.1
    """

    rate: float
    epochs: float
    final: float = 0.0

    def __post_init__(self) -> None:
        _check("The learning rate", self.rate)
        _check("CosineRate's final rate", self.final)
        _check("CosineRate's epochs", self.epochs, above_zero=True)

    def at(self, epoch: float) -> float:
        """Return the rate on the cosine, or ``final`` after it."""
        done = min(epoch / self.epochs, 1.0)
        return self.final + (self.rate - self.final) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Rise linearly over ``epochs`` to where ``then`` is, and follow it (Goyal et al. 2017).

    Examples
    --------
    >>> WarmUp(5, ConstantRate(0.5)).at(1)
    0.1
    """

    epochs: float
    then: Schedule

    def __post_init__(self) -> None:
        _check("WarmUp's epochs", self.epochs)

    def at(self, epoch: float) -> float:
        """Return the share of ``then``'s rate that is reached."""
        share = min(epoch / self.epochs, 1.0) if self.epochs else 1.0
        return self.then.at(epoch) * share


def resolve_schedule(rate: float | Schedule) -> Schedule:
    """Return the schedule that was given, or a constant one for a number."""
    if isinstance(rate, Schedule):
        return rate
    if not isinstance(rate, int | float) or not rate >= 0:
        raise InputError(
            f"The learning rate is {rate!r}: give a number of at least 0 or a daskconv.Schedule."
        )
    return ConstantRate(float(rate))
