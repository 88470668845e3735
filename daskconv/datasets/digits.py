"""The handwritten digits of UCI and scikit-learn, shipped with the library: real data without a download."""

from __future__ import annotations

from pathlib import Path

from daskconv.datasets.dataset import Dataset
from daskconv.datasets.npz import from_npz


def digits() -> Dataset:
    """Read 1,797 handwritten digits of 8 x 8 pixels, uint8 grey values 0 to 16; all are in the training part.

    The images are the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak
    (1998), UCI Machine Learning Repository, CC BY 4.0, as scikit-learn distributes it; see digits.txt beside
    this file.

    Examples
    --------
    >>> from daskconv.datasets import digits
    >>> digits()
    Dataset(train 1797 x 8 x 8 x 1 uint8, no test, 10 classes)
    """
    return from_npz(Path(__file__).with_name("digits.npz"))
