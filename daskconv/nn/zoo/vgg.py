"""VGG: 3x3 convolutions all the way (Simonyan and Zisserman 2015)."""

from __future__ import annotations

from daskconv.nn.layers import Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D, ReLU
from daskconv.nn.network import Network, Sequential

_WIDTHS = (64, 128, 256, 512, 512)


def vgg11(classes: int = 1000) -> Network:
    """Return VGG-11, configuration A of the paper, for images of 224x224: 132,863,336 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> vgg11().output_shape((224, 224, 3))
    (1000,)
    """
    return _vgg("vgg11", (1, 1, 2, 2, 2), classes)


def vgg16(classes: int = 1000) -> Network:
    """Return VGG-16, configuration D of the paper, for images of 224x224: 138,357,544 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> sum(isinstance(node.layer, Conv2D) for node in vgg16().nodes)
    13
    """
    return _vgg("vgg16", (2, 2, 3, 3, 3), classes)


def vgg19(classes: int = 1000) -> Network:
    """Return VGG-19, configuration E of the paper, for images of 224x224: 143,667,240 parameters for 1000 classes.

    Parameters
    ----------
    classes : int

    Examples
    --------
    >>> sum(isinstance(node.layer, Conv2D) for node in vgg19().nodes)
    16
    """
    return _vgg("vgg19", (2, 2, 4, 4, 4), classes)


def _vgg(name: str, depths: tuple[int, ...], classes: int) -> Network:
    layers: list[Layer | tuple[str, Layer]] = []
    for stage, (depth, width) in enumerate(zip(depths, _WIDTHS, strict=True), 1):
        for number in range(1, depth + 1):
            layers += [(f"conv{stage}_{number}", Conv2D(width, 3, padding=1)), ReLU()]
        layers.append((f"pool{stage}", MaxPool2D(2)))
    layers.append(Flatten())
    for number in (1, 2):
        layers += [(f"dense{number}", Dense(4096)), ReLU(), Dropout(0.5)]
    return Sequential([*layers, ("dense3", Dense(classes))], name=name)
