"""The layers; forward and gradient stand side by side in one class."""

from daskconv.nn.layers.base import Context, Layer
from daskconv.nn.layers.batch_norm import BatchNorm
from daskconv.nn.layers.conv import Conv2D, Dense
from daskconv.nn.layers.pointwise import Add, Concat, Dropout, Flatten, ReLU
from daskconv.nn.layers.pool import AvgPool2D, MaxPool2D

__all__ = [
    "Add",
    "AvgPool2D",
    "BatchNorm",
    "Concat",
    "Context",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "MaxPool2D",
    "ReLU",
]
