"""Callbacks of ``Trainer.fit``: what is done after each epoch. Any function of (trainer, logs) is one.

They look at the trainer's history alone, which checkpoints hold: a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from daskconv.errors import InputError, check_count

if TYPE_CHECKING:
    from daskconv.train.trainer import Trainer

MODES = ("auto", "min", "max")


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """Which figure of an epoch is watched, and when it is better than the best so far.

    Attributes
    ----------
    monitor : str, optional
        Its name in the trainer's history, such as "val_accuracy"; the validation's loss when not given, or the
        training's where there is none.
    mode : {"auto", "min", "max"}
        Whether the lowest or the highest is the best; "auto": the lowest of a loss, the highest of any other.
    min_delta : float
        By how much a better one has to be better.
    """

    monitor: str | None = None
    mode: str = "auto"
    min_delta: float = 0.0

    def check(self, names: Sequence[str]) -> None:
        """Raise InputError where an epoch has no figure of this name."""
        if self.mode not in MODES:
            raise InputError(f"mode is {self.mode!r}: choose one of {', '.join(MODES)}.")
        if self.min_delta < 0:
            raise InputError(f"min_delta is {self.min_delta}: give a number of at least 0.")
        if self.monitor is not None and self.monitor not in names:
            raise InputError(f"monitor is {self.monitor!r}, but an epoch has {', '.join(names)}.")

    def name(self, epochs: Sequence[dict[str, Any]]) -> str:
        """Return the name of the figure."""
        return self.monitor or ("val_loss" if "val_loss" in epochs[-1] else "loss")

    def best(self, epochs: Sequence[dict[str, Any]]) -> int:
        """Return the place of the best epoch so far; epochs without the figure, or with NaN, are no better.

        Examples
        --------
        >>> Monitor(monitor="loss", min_delta=0.1).best([{"loss": 1.0}, {"loss": 0.5}, {"loss": 0.45}])
        1
        """
        name = self.name(epochs)
        highest = self.mode == "max" or (self.mode == "auto" and not name.endswith("loss"))
        better: Callable[[float, float], bool] = operator.gt if highest else operator.lt
        delta = self.min_delta if highest else -self.min_delta
        found, best = -1, None
        for place, logs in enumerate(epochs):
            value = logs.get(name)
            if value is not None and value == value and (best is None or better(value, best + delta)):
                found, best = place, value
        return found


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Monitor):
    """End training once so many epochs in a row were no better than the best.

    Attributes
    ----------
    patience : int

    Examples
    --------
    >>> import daskconv
    >>> digits = daskconv.datasets.load("digits")
    >>> trainer = daskconv.Trainer("lenet", optimizer=daskconv.SGD(0.0))  # learns nothing
    >>> stop = daskconv.EarlyStopping(patience=2, min_delta=0.001)
    >>> history = trainer.fit(
    ...     digits.x_train[:60], digits.y_train[:60], epochs=9, batch_size=60, callbacks=[stop], progress=False
    ... )
    >>> len(history.epochs)
    3
    """

    patience: int = 5

    def check(self, names: Sequence[str]) -> None:
        """Raise InputError where the patience is no count, too."""
        check_count(self.patience, "patience")
        super().check(names)

    def __call__(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Stop where no epoch of the last ones was better."""
        epochs = trainer.history.epochs
        if len(epochs) - 1 - self.best(epochs) >= self.patience:
            trainer.stop()


@dataclass(frozen=True, kw_only=True)
class ModelCheckpoint(Monitor):
    """Write the model, and all that training needs to go on, whenever an epoch is the best so far.

    Attributes
    ----------
    path : str or path
        A file, which is replaced as a whole.

    Examples
    --------
    >>> best = ModelCheckpoint(path="best.safetensors", monitor="val_accuracy")
    """

    path: str | PathLike[str] = field()

    def check(self, names: Sequence[str]) -> None:
        """Raise InputError where the file cannot be written, too."""
        from daskconv.train.files import check_writable

        check_writable(self.path)
        super().check(names)

    def __call__(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Write where this epoch is the best."""
        epochs = trainer.history.epochs
        if self.best(epochs) == len(epochs) - 1:
            trainer.save(self.path)


@dataclass(frozen=True)
class LearningRateLogger:
    """Say each epoch's learning rate: that of its first step.

    Attributes
    ----------
    write : function
        Takes the line; ``print`` when not given, ``logging.getLogger("mine").info`` ...

    Examples
    --------
    >>> import daskconv
    >>> logger = LearningRateLogger()
    >>> logger(daskconv.Trainer("lenet"), {"epoch": 3, "learning_rate": 0.01})
    epoch 3  learning rate 0.01
    """

    write: Callable[[str], Any] = print

    def __call__(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Write the line."""
        self.write(f"epoch {logs['epoch']}  learning rate {logs['learning_rate']:.4g}")
