"""Dataset: labelled images in a training part and perhaps a test part, and the split between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from daskconv.errors import InputError

if TYPE_CHECKING:
    import dask.array as da

    Images: TypeAlias = np.ndarray[Any, Any] | da.Array
    Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images.

    Parameters
    ----------
    x_train, x_test : NumPy or Dask array, (n, h, w, c), uint8 or float
        Images; `x_test` is None where there is no test part.
    y_train, y_test : NumPy array, (n,), int64
        Class numbers, which index `class_names`.
    class_names : tuple of str

    Examples
    --------
    >>> from daskconv.datasets import digits
    >>> digits().split(test=0.2, seed=0)
    Dataset(train 1438 x 8 x 8 x 1 uint8, test 359, 10 classes)
    """

    x_train: Images
    y_train: Labels
    x_test: Images | None
    y_test: Labels | None
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        shape = " x ".join(str(size) for size in self.x_train.shape)
        test = "no test" if self.y_test is None else f"test {len(self.y_test)}"
        return f"Dataset(train {shape} {self.x_train.dtype}, {test}, {len(self.class_names)} classes)"

    def split(self, test: float = 0.2, seed: int = 0) -> Dataset:
        """Hold out a part of the training images as the test part, the same fraction of every class.

        Parameters
        ----------
        test : float
            The fraction to hold out, between 0 and 1; rounded to whole images class by class.
        seed : int
            The same seed picks the same images. Both parts keep the order of the images.

        Raises
        ------
        InputError
            A test part exists already, or a class would be left without images in one of the two parts.

        Examples
        --------
        >>> import numpy as np
        >>> from daskconv.datasets import Dataset
        >>> y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> whole = Dataset(np.zeros((8, 4, 4, 1), "uint8"), y, None, None, ("cat", "dog"))
        >>> whole.split(test=0.25).y_test
        array([0, 1])
        """
        if self.x_test is not None:
            raise InputError(f"{self!r} has a test part already: use it, or join the two before splitting")
        if not 0 < test < 1:
            raise InputError(f"test={test} is no fraction: give a number between 0 and 1, such as 0.2")
        if seed < 0:
            raise InputError(f"seed={seed} is negative: give 0 or a positive integer")
        held = self._held_out(test, np.random.default_rng(seed))
        train, rest = np.flatnonzero(~held), np.flatnonzero(held)
        return replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_train[rest],
            y_test=self.y_train[rest],
        )

    def _held_out(self, test: float, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.bool_]]:
        held = np.zeros(len(self.y_train), dtype=bool)
        for label in np.unique(self.y_train):
            members = np.flatnonzero(self.y_train == label)
            count = int(len(members) * test + 0.5)
            if not 0 < count < len(members):
                raise InputError(
                    f"class {self.class_names[label]!r} has {len(members)} images, of which test={test} "
                    f"would hold out {count}: give it more images or choose another fraction"
                )
            held[random.permutation(members)[:count]] = True
        return held
