"""Targets: what they have to be for a loss or a metric, checked before anything is trained."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError


def check_classes(y: NDArray, output: tuple[int, ...], name: str, ignored: int | None = None) -> None:
    """Raise InputError unless y (n, ...) holds a class for each of an image's outputs but their last axis, the scores.

    Parameters
    ----------
    y : array (n,) or, for classes of pixels, (n, h, w)
    output : shape
        The network's, (classes,) or (h, w, classes).
    name : str
        What y is called.
    ignored : int, optional
        A number that stands for no class.
    """
    if y.ndim == 1 and len(output) != 1:
        raise InputError(
            f"The network's output is {output} but classes need one score each: end it with Flatten() "
            "and Dense(classes), or give a class for each pixel."
        )
    if y.shape[1:] != output[:-1] or not np.issubdtype(y.dtype, np.integer):
        shape = ", ".join(["n", *map(str, output[:-1])]) + ("," if len(output) == 1 else "")
        raise InputError(f"{name} is {y.dtype} of shape {y.shape}: give class numbers ({shape}) as integers.")
    classes = output[-1]
    wrong = (y < 0) | (y >= classes)
    if ignored is not None:
        wrong &= y != ignored
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{name}[{', '.join(map(str, first))}] is {y[first]}: the network has {classes} outputs, so classes go "
            f"from 0 to {classes - 1}."
        )


def check_values(y: NDArray, output: tuple[int, ...], name: str) -> None:
    """Raise InputError unless y (n, ...) are finite numbers, as many for each image as the network's output has."""
    if y.dtype.kind not in "iufb" or y[0].size != prod(output):
        raise InputError(
            f"{name} is {y.dtype} of shape {y.shape}: give numbers (n, ...) of which each image has {output}."
        )
    bad = ~np.isfinite(y.reshape(len(y), -1)).all(axis=1)
    if bad.any():
        raise InputError(f"{name}[{int(bad.argmax())}] is not finite: remove or mend it.")


def check_shares(y: NDArray, output: tuple[int, ...], name: str) -> None:
    """Raise InputError unless y (n, ...) are numbers from 0 to 1, as many for each image as the output has."""
    check_values(y, output, name)
    bad = ((y < 0) | (y > 1)).reshape(len(y), -1).any(axis=1)
    if bad.any():
        raise InputError(
            f"{name}[{int(bad.argmax())}] is not between 0 and 1: give the probability of each output."
        )
