"""Networks that people know by name."""

from __future__ import annotations

from collections.abc import Callable

from daskconv.errors import InputError
from daskconv.nn.network import Network
from daskconv.nn.zoo.alexnet import alexnet
from daskconv.nn.zoo.googlenet import googlenet
from daskconv.nn.zoo.resnet import resnet18, resnet20, resnet50, resnet56, resnet152
from daskconv.nn.zoo.small import cifar10_quick, lenet, mnist_cnn
from daskconv.nn.zoo.squeezenet import squeezenet
from daskconv.nn.zoo.unet import unet
from daskconv.nn.zoo.vgg import vgg11, vgg16, vgg19

__all__ = [
    "PREPROCESS",
    "ZOO",
    "alexnet",
    "build",
    "cifar10_quick",
    "googlenet",
    "lenet",
    "mnist_cnn",
    "resnet18",
    "resnet20",
    "resnet50",
    "resnet56",
    "resnet152",
    "squeezenet",
    "unet",
    "vgg11",
    "vgg16",
    "vgg19",
]

ZOO: dict[str, Callable[[int], Network]] = {
    "alexnet": alexnet,
    "cifar10_quick": cifar10_quick,
    "googlenet": googlenet,
    "lenet": lenet,
    "mnist_cnn": mnist_cnn,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "resnet56": resnet56,
    "resnet152": resnet152,
    "squeezenet": squeezenet,
    "unet": unet,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "vgg19": vgg19,
}

PREPROCESS = dict.fromkeys(ZOO, "standardize") | {"cifar10_quick": "mean_image"}
"""The normalisation that each network's initial weights are made for."""


def build(name: str, classes: int) -> Network:
    """Return the zoo's network of a name, or raise InputError that lists the names."""
    if name not in ZOO:
        raise InputError(f"net is {name!r}: choose one of {', '.join(ZOO)}.")
    return ZOO[name](classes)
