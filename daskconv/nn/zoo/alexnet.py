"""AlexNet."""

from __future__ import annotations

from daskconv.nn.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from daskconv.nn.network import Network, Sequential


def alexnet(classes: int = 1000) -> Network:
    """Return AlexNet in one tower, without groups and normalisation (Krizhevsky 2014), for images of 224x224.

    Weights and shapes are those of torchvision's ``alexnet``: 61,100,840 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> alexnet().output_shape((224, 224, 3))
    (1000,)
    """
    return Sequential(
        [
            ("conv1", Conv2D(64, 11, stride=4, padding=2)),
            ReLU(),
            MaxPool2D(3, stride=2),
            ("conv2", Conv2D(192, 5, padding=2)),
            ReLU(),
            MaxPool2D(3, stride=2),
            ("conv3", Conv2D(384, 3, padding=1)),
            ReLU(),
            ("conv4", Conv2D(256, 3, padding=1)),
            ReLU(),
            ("conv5", Conv2D(256, 3, padding=1)),
            ReLU(),
            MaxPool2D(3, stride=2),
            Flatten(),
            Dropout(0.5),
            ("dense1", Dense(4096)),
            ReLU(),
            Dropout(0.5),
            ("dense2", Dense(4096)),
            ReLU(),
            ("dense3", Dense(classes)),
        ],
        name="alexnet",
    )
