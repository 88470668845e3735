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


@dataclass(frozen=True)
class PolynomialRate(Schedule):
    """From ``rate`` down to ``final`` over ``epochs``, as a power of what is left; 1 is a straight line.

    Examples
    --------
    >>> PolynomialRate(0.4, epochs=10, power=2).at(5)
    0.1
    """

    rate: float
    epochs: float
    power: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check("The learning rate", self.rate)
        _check("PolynomialRate's final rate", self.final)
        _check("PolynomialRate's power", self.power)
        _check("PolynomialRate's epochs", self.epochs, above_zero=True)

    def at(self, epoch: float) -> float:
        """Return the rate on the curve, or ``final`` after it."""
        left = 1 - min(epoch / self.epochs, 1.0)
        return self.final + (self.rate - self.final) * left**self.power


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up to ``rate`` in a share of the epochs, and one down to next to nothing (Smith and Topin 2018).

    Parameters
    ----------
    rate : float
        The highest.
    epochs : float
        Of the whole cycle.
    rise : float
        Share of the epochs in which the rate rises.
    start, end : float
        ``rate`` is so many times the first one, and the first one so many times the last.

    Examples
    --------
    >>> cycle = OneCycle(1.0, epochs=10)
    >>> [round(cycle.at(epoch), 6) for epoch in (0, 3, 10)]
    [0.04, 1.0, 4e-06]
    """

    rate: float
    epochs: float
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        _check("The learning rate", self.rate)
        _check("OneCycle's epochs", self.epochs, above_zero=True)
        if not 0 < self.rise < 1:
            raise InputError(f"OneCycle's rise is {self.rise}: give a share above 0 and below 1.")
        for name, value in (("start", self.start), ("end", self.end)):
            _check(f"OneCycle's {name}", value, above_zero=True)

    def at(self, epoch: float) -> float:
        """Return the rate on the way up, on the way down, or after it."""
        first, top = self.rate / self.start, self.epochs * self.rise
        if epoch < top:
            return self.rate + (first - self.rate) * (1 + cos(pi * epoch / top)) / 2
        done = min((epoch - top) / (self.epochs - top), 1.0)
        return first / self.end + (self.rate - first / self.end) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class Chain(Schedule):
    """Schedules one after the other, each with its own epoch 0.

    Parameters
    ----------
    parts : sequence of (epochs, Schedule)
        The last one goes on for ever.

    Examples
    --------
    >>> chain = Chain(((5, ConstantRate(0.1)), (10, PolynomialRate(0.1, epochs=10))))
    >>> chain.at(4), chain.at(10)
    (0.1, 0.05)
    """

    parts: tuple[tuple[float, Schedule], ...]

    def __post_init__(self) -> None:
        parts = tuple((epochs, part) for epochs, part in self.parts)
        object.__setattr__(self, "parts", parts)
        if not parts or not all(isinstance(part, Schedule) for _, part in parts):
            raise InputError(f"Chain has parts {self.parts}: give pairs (epochs, schedule), at least one.")
        for epochs, _ in parts:
            _check("Chain's epochs", epochs, above_zero=True)

    def at(self, epoch: float) -> float:
        """Return the rate of the part that the epoch lies in."""
        for epochs, part in self.parts[:-1]:
            if epoch < epochs:
                return part.at(epoch)
            epoch -= epochs
        return self.parts[-1][1].at(epoch)


def resolve_schedule(rate: float | Schedule) -> Schedule:
    """Return the schedule that was given, or a constant one for a number."""
    if isinstance(rate, Schedule):
        return rate
    if not isinstance(rate, int | float) or not rate >= 0:
        raise InputError(
            f"The learning rate is {rate!r}: give a number of at least 0 or a daskconv.Schedule."
        )
    return ConstantRate(float(rate))
