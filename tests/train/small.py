"""A network and images that train in a tenth of a second, and what the tests ask of results."""

from hashlib import md5

import dask.array as da
import numpy as np
import pytest

from daskconv import SGD, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU, Sequential, Trainer
from daskconv.datasets import load
from daskconv.errors import InputError

DIGITS = load("digits")
X, Y = DIGITS.x_train[:230], DIGITS.y_train[:230]
STEPS = 5  # of an epoch of X with the batch size of `fit`

TINY = Sequential(
    [
        Conv2D(6, 3, padding=1),
        ReLU(),
        MaxPool2D(2),
        Conv2D(8, 3),
        ReLU(),
        Flatten(),
        Dropout(0.1),
        Dense(10),
    ],
    name="tiny",
)


def trainer(net=TINY, **options):
    defaults = {"optimizer": SGD(0.05, momentum=0.9), "preprocess": "standardize"}
    return Trainer(net, **{**defaults, "transport": "local", "threads": 1, **options})


def fit(trainer, x=X, y=Y, **options):
    """Train, and return the trainer."""
    trainer.fit(x, y, **{"batch_size": 50, "progress": False, **options})
    return trainer


def digests(arrays):
    """What stands for the bits of each array."""
    return {name: f"{array.dtype} {md5(array.tobytes()).hexdigest()}" for name, array in arrays.items()}


def bits(trainer_or_model):
    """What stands for the bits of each parameter."""
    return digests(getattr(trainer_or_model, "model", trainer_or_model).params)


def figures(history):
    """The history without what a clock measured."""
    timed = ("seconds", "images_per_second")
    return [{name: value for name, value in logs.items() if name not in timed} for logs in history.epochs]


def refuse(match, function, *args, error=InputError, **kwargs):
    """The call raises `error` with one sentence that matches."""
    with pytest.raises(error, match=match) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


LOADED = []  # where each chunk starts that `counted` arrays have read, in order


def note(block, starts):
    LOADED.append(int(starts.flat[0]))
    return block


def counted(x, chunks):
    """A Dask array that notes in LOADED what is read; cleared first."""
    LOADED.clear()
    starts = da.from_array(np.arange(len(x))[:, None, None, None], ((chunks[0]), 1, 1, 1))
    return da.map_blocks(note, da.from_array(x, chunks), starts, dtype=x.dtype, meta=x[:0])
