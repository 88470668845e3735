"""daskconv: convolutional neural networks on CPU clusters, from Dask arrays.

Names are loaded when they are first used, so that ``import daskconv`` costs little more than Dask's configuration.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from daskconv.config import install

if TYPE_CHECKING:
    from daskconv import datasets, errors, onnx_backend
    from daskconv.dashboard.report import recording
    from daskconv.geometry import Window
    from daskconv.graph.arrays import conv2d, conv2d_input_grad, conv2d_weight_grad
    from daskconv.graph.convolve import convolve, correlate
    from daskconv.launch.start import start
    from daskconv.layout import Layout
    from daskconv.nn import losses, zoo
    from daskconv.nn.gradcheck import check_gradient
    from daskconv.nn.initializers import Constant, GlorotUniform, HeNormal, Initializer, Normal
    from daskconv.nn.layers import (
        ELU,
        LRN,
        Add,
        AvgPool2D,
        BatchNorm,
        ChannelShuffle,
        Clip,
        Concat,
        Context,
        Conv2D,
        ConvTranspose2D,
        Dense,
        Divide,
        Dropout,
        Flatten,
        GlobalAvgPool2D,
        GlobalMaxPool2D,
        HardSigmoid,
        HardSwish,
        Layer,
        LeakyReLU,
        LogSoftmax,
        LpPool2D,
        MatMul,
        MaxPool2D,
        Mean,
        Multiply,
        Outputs,
        Pad,
        Parameter,
        PReLU,
        ReLU,
        Reshape,
        Resize,
        Sigmoid,
        Slice,
        Softmax,
        Subtract,
        Tanh,
        Transpose,
        Upsample,
    )
    from daskconv.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, WeightedLosses
    from daskconv.nn.metrics import Accuracy, ConfusionMatrix, Metric
    from daskconv.nn.network import Network, Node, Sequential
    from daskconv.plan import plans
    from daskconv.plan.program import Program
    from daskconv.plan.tune import tune
    from daskconv.scene.store import store
    from daskconv.train.augment import Augmentation, ColorJitter, RandomCrop, RandomFlip
    from daskconv.train.callbacks import EarlyStopping, LearningRateLogger, ModelCheckpoint
    from daskconv.train.checkpoints.spec import Checkpoints
    from daskconv.train.estimators import ConvNetClassifier, ConvNetRegressor
    from daskconv.train.files import load
    from daskconv.train.history import History
    from daskconv.train.model import Model
    from daskconv.train.normalize import Normalize
    from daskconv.train.onnx_files import load_onnx, save_onnx
    from daskconv.train.optim import LARS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
    from daskconv.train.schedule import (
        Chain,
        ConstantRate,
        CosineRate,
        OneCycle,
        PolynomialRate,
        Schedule,
        StepRate,
        WarmUp,
    )
    from daskconv.train.torch_files import load_torch
    from daskconv.train.trainer import Trainer

__version__ = "0.1.0"
install()

_ROOMS = {
    "dashboard.report": ["recording"],
    "geometry": ["Window"],
    "graph.arrays": ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"],
    "graph.convolve": ["convolve", "correlate"],
    "launch.start": ["start"],
    "layout": ["Layout"],
    "nn.gradcheck": ["check_gradient"],
    "nn.initializers": ["Constant", "GlorotUniform", "HeNormal", "Initializer", "Normal"],
    "nn.layers": [
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
        "ELU",
        "Flatten",
        "GlobalAvgPool2D",
        "GlobalMaxPool2D",
        "HardSigmoid",
        "HardSwish",
        "LRN",
        "Layer",
        "LeakyReLU",
        "LogSoftmax",
        "LpPool2D",
        "MaxPool2D",
        "MatMul",
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
    ],
    "nn.losses": ["BinaryCrossEntropy", "SoftmaxCrossEntropy", "WeightedLosses"],
    "nn.metrics": ["Accuracy", "ConfusionMatrix", "Metric"],
    "nn.network": ["Network", "Node", "Sequential"],
    "plan.program": ["Program"],
    "plan.tune": ["tune"],
    "scene.store": ["store"],
    "train.augment": ["Augmentation", "ColorJitter", "RandomCrop", "RandomFlip"],
    "train.callbacks": ["EarlyStopping", "LearningRateLogger", "ModelCheckpoint"],
    "train.checkpoints.spec": ["Checkpoints"],
    "train.estimators": ["ConvNetClassifier", "ConvNetRegressor"],
    "train.files": ["load"],
    "train.history": ["History"],
    "train.model": ["Model"],
    "train.onnx_files": ["load_onnx", "save_onnx"],
    "train.normalize": ["Normalize"],
    "train.optim": ["LARS", "SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"],
    "train.schedule": [
        "Chain",
        "ConstantRate",
        "CosineRate",
        "OneCycle",
        "PolynomialRate",
        "Schedule",
        "StepRate",
        "WarmUp",
    ],
    "train.torch_files": ["load_torch"],
    "train.trainer": ["Trainer"],
}
_MODULES = {
    "datasets": "datasets",
    "errors": "errors",
    "losses": "nn.losses",
    "onnx_backend": "onnx_backend",
    "plans": "plan.plans",
    "zoo": "nn.zoo",
}
_OWNER = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "ELU",
    "LARS",
    "LRN",
    "SGD",
    "Accuracy",
    "Adagrad",
    "Adam",
    "AdamW",
    "Add",
    "Augmentation",
    "AvgPool2D",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Chain",
    "ChannelShuffle",
    "Checkpoints",
    "Clip",
    "ColorJitter",
    "Concat",
    "ConfusionMatrix",
    "Constant",
    "ConstantRate",
    "Context",
    "Conv2D",
    "ConvNetClassifier",
    "ConvNetRegressor",
    "ConvTranspose2D",
    "CosineRate",
    "Dense",
    "Divide",
    "Dropout",
    "EarlyStopping",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlorotUniform",
    "HardSigmoid",
    "HardSwish",
    "HeNormal",
    "History",
    "Initializer",
    "Layer",
    "Layout",
    "LeakyReLU",
    "LearningRateLogger",
    "LogSoftmax",
    "LpPool2D",
    "MatMul",
    "MaxPool2D",
    "Mean",
    "Metric",
    "Model",
    "ModelCheckpoint",
    "Multiply",
    "Network",
    "Node",
    "Normal",
    "Normalize",
    "OneCycle",
    "Optimizer",
    "Outputs",
    "PReLU",
    "Pad",
    "Parameter",
    "PolynomialRate",
    "Program",
    "RMSprop",
    "RandomCrop",
    "RandomFlip",
    "ReLU",
    "Reshape",
    "Resize",
    "Schedule",
    "Sequential",
    "Sigmoid",
    "Slice",
    "Softmax",
    "SoftmaxCrossEntropy",
    "StepRate",
    "Subtract",
    "Tanh",
    "Trainer",
    "Transpose",
    "Upsample",
    "WarmUp",
    "WeightedLosses",
    "Window",
    "check_gradient",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "convolve",
    "correlate",
    "datasets",
    "errors",
    "load",
    "load_onnx",
    "load_torch",
    "losses",
    "onnx_backend",
    "plans",
    "recording",
    "save_onnx",
    "start",
    "store",
    "tune",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"daskconv.{_MODULES[name]}")
    if name not in _OWNER:
        raise AttributeError(f"module 'daskconv' has no attribute {name!r}")
    return getattr(import_module(f"daskconv.{_OWNER[name]}"), name)


def __dir__() -> list[str]:
    return __all__
