"""Small networks for small images: the CIFAR-10 net of the slides, LeNet, and the MNIST examples' net."""

from __future__ import annotations

from daskconv.nn.initializers import Normal
from daskconv.nn.layers import AvgPool2D, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from daskconv.nn.network import Network, Sequential


def cifar10_quick(classes: int = 10) -> Network:
    """Return the three-convolution CIFAR-10 net of Caffe's examples, the one of the slides.

    Pooling rounds up as Caffe's does and averages over real pixels at the border; weights start normal
    with the standard deviations of Caffe's recipe.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> net = cifar10_quick()
    >>> sum(array.size for array in net.init(0, (32, 32, 3)).values())
    145578
    """

    def average() -> AvgPool2D:
        return AvgPool2D(3, stride=2, ceil_mode=True, count_include_pad=False)

    return Sequential(
        [
            Conv2D(32, 5, padding=2, weight_init=Normal(1e-4)),
            MaxPool2D(3, stride=2, ceil_mode=True),
            ReLU(),
            Conv2D(32, 5, padding=2, weight_init=Normal(1e-2)),
            ReLU(),
            average(),
            Conv2D(64, 5, padding=2, weight_init=Normal(1e-2)),
            ReLU(),
            average(),
            Flatten(),
            Dense(64, weight_init=Normal(1e-1)),
            Dense(classes, weight_init=Normal(1e-1)),
        ],
        name="cifar10_quick",
    )


def lenet(classes: int = 10) -> Network:
    """Return Caffe's LeNet for handwritten digits, with padded convolutions so that small images fit too.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> lenet().output_shape((8, 8, 1))
    (10,)
    """
    return Sequential(
        [
            Conv2D(20, 5, padding=2),
            MaxPool2D(2, ceil_mode=True),
            Conv2D(50, 5, padding=2),
            MaxPool2D(2, ceil_mode=True),
            Flatten(),
            Dense(500),
            ReLU(),
            Dense(classes),
        ],
        name="lenet",
    )


def mnist_cnn(classes: int = 10) -> Network:
    """Return the small net of the MNIST examples of Keras and PyTorch: two 3x3 convolutions and dropout.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> mnist_cnn().output_shape((8, 8, 1))
    (10,)
    """
    return Sequential(
        [
            Conv2D(32, 3, padding="same"),
            ReLU(),
            Conv2D(64, 3, padding="same"),
            ReLU(),
            MaxPool2D(2, ceil_mode=True),
            Dropout(0.25),
            Flatten(),
            Dense(128),
            ReLU(),
            Dropout(0.5),
            Dense(classes),
        ],
        name="mnist_cnn",
    )
