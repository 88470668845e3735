"""From the arrays of a file to a Dataset: the checks that all readers share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskconv.datasets.dataset import Dataset
from daskconv.errors import DataError

if TYPE_CHECKING:
    from daskconv.datasets.dataset import Images, Labels

KEYS = ("x_train", "y_train", "x_test", "y_test", "x", "y")
MOST_CLASSES = 100_000


def assemble(source: Path, arrays: Mapping[str, Any], class_names: Any = None) -> Dataset:
    """Check the arrays read from `source` and join them into a Dataset.

    Parameters
    ----------
    source : Path
        Where the arrays came from; errors name it.
    arrays : mapping
        x_train and y_train (or x and y), and x_test and y_test where there is a test part.
    class_names : sequence of str, optional
        The class numbers themselves where None.

    Raises
    ------
    DataError
        An array is missing, or does not have the shape, dtype or values of images and labels.
    """
    end = "" if "x" in arrays and "x_train" not in arrays else "_train"
    x_train, y_train = _part(source, arrays, end)
    x_test, y_test = None, None
    if "x_test" in arrays or "y_test" in arrays:
        x_test, y_test = _part(source, arrays, "_test")
        _same_kind(source, x_train, x_test)
    most = max(int(y.max()) for y in (y_train, y_test) if y is not None)
    return Dataset(x_train, y_train, x_test, y_test, _names(source, class_names, most))


def because(error: BaseException) -> str:
    """Say in one line what went wrong in someone else's code."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _part(source: Path, arrays: Mapping[str, Any], end: str) -> tuple[Images, Labels]:
    missing = [name + end for name in "xy" if name + end not in arrays]
    if missing:
        raise DataError(
            f"{source} holds no {' and no '.join(missing)}: give it arrays x_train and y_train, "
            "and x_test and y_test for a test part"
        )
    x = _images(source, "x" + end, arrays["x" + end])
    return x, _labels(source, "y" + end, arrays["y" + end], len(x))


def _images(source: Path, name: str, x: Any) -> Images:
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape:
        raise DataError(
            f"{name} of {source} has shape {tuple(x.shape)}: "
            "give images as (n, h, w, c) or (n, h, w), none of them 0"
        )
    if x.dtype != np.uint8 and not (x.dtype.kind == "f" and x.dtype.itemsize <= 8):
        raise DataError(
            f"{name} of {source} is {x.dtype}: give uint8 or float images, as x.astype('float32')"
        )
    if not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    # Kernels walk memory in the order n h w c; files may hold a transposed array.
    return np.require(x, requirements="C") if isinstance(x, np.ndarray) else x


def _labels(source: Path, name: str, y: Any, images: int) -> Labels:
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{name} of {source} has shape {y.shape}: give one class number an image, shape (n,)")
    if y.dtype.kind not in "iu":
        raise DataError(f"{name} of {source} is {y.dtype}: give integer class numbers, as y.astype('int64')")
    if len(y) != images:
        raise DataError(
            f"{source} holds {images} images but {len(y)} labels in {name}: give one label an image"
        )
    if y.min() < 0:
        raise DataError(f"{name} of {source} holds the label {y.min()}: number the classes from 0")
    if y.max() >= MOST_CLASSES:
        raise DataError(f"{name} of {source} holds the label {y.max()}: number the classes 0, 1, 2, ...")
    return y.astype(np.int64)


def _same_kind(source: Path, train: Images, test: Images) -> None:
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise DataError(
            f"{source} holds training images {train.shape[1:]} {train.dtype} but test images "
            f"{test.shape[1:]} {test.dtype}: give both the same size and dtype"
        )


def _names(source: Path, names: Any, most: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(label) for label in range(most + 1))
    try:
        texts = np.asarray(names).astype(str)
    except ValueError as error:
        raise DataError(
            f"the class names of {source} are no texts ({because(error)}): store them as str"
        ) from error
    if texts.ndim != 1 or len(texts) <= most:
        raise DataError(
            f"{source} has labels up to {most} but class names of shape {texts.shape}: "
            f"give a list of {most + 1} names or more"
        )
    return tuple(str(text) for text in texts)
