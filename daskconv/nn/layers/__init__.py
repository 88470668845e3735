"""The layers; forward and gradient stand side by side in one class."""

from daskconv.nn.layers.activations import (
    ELU,
    Clip,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from daskconv.nn.layers.base import Context, Layer
from daskconv.nn.layers.batch_norm import BatchNorm
from daskconv.nn.layers.conv import Conv2D, Dense
from daskconv.nn.layers.conv_transpose import ConvTranspose2D
from daskconv.nn.layers.dropout import Dropout
from daskconv.nn.layers.lrn import LRN
from daskconv.nn.layers.matmul import MatMul
from daskconv.nn.layers.merge import Add, Concat, Divide, Multiply, Outputs, Subtract
from daskconv.nn.layers.pool import AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, LpPool2D, MaxPool2D, Mean
from daskconv.nn.layers.resize import Resize, Upsample
from daskconv.nn.layers.shape import ChannelShuffle, Flatten, Pad, Parameter, Reshape, Slice, Transpose

__all__ = [
    "ELU",
    "LRN",
    "Add",
    "AvgPool2D",
    "BatchNorm",
    "ChannelShuffle",
    "Clip",
    "Concat",
    "Context",
    "Conv2D",
    "ConvTranspose2D",
    "Dense",
    "Divide",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "HardSigmoid",
    "HardSwish",
    "Layer",
    "LeakyReLU",
    "LogSoftmax",
    "LpPool2D",
    "MatMul",
    "MaxPool2D",
    "Mean",
    "Multiply",
    "Outputs",
    "PReLU",
    "Pad",
    "Parameter",
    "ReLU",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Subtract",
    "Tanh",
    "Transpose",
    "Upsample",
]
