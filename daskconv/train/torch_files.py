"""Models from files of torchvision's and timm's weights."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from numpy.typing import NDArray

from daskconv.errors import DataError, InputError
from daskconv.nn.zoo.torch_names import from_torch
from daskconv.train.model import Model
from daskconv.train.normalize import Normalize

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of torch.save begin."""


def load_torch(
    path: str | PathLike[str],
    net: str,
    *,
    input_shape: Sequence[int] = (224, 224, 3),
    class_names: Sequence[str] = (),
    preprocess: Normalize | str | None = "imagenet",
) -> Model:
    """Return one of the zoo's networks with the weights of a safetensors file of torchvision's or timm's.

    ===========================================  ==========================================================
    here                                         there
    ===========================================  ==========================================================
    alexnet, vgg11, vgg16, vgg19: layer N        features.N; after Flatten classifier.N, counted from 0
    vgg's dense1, dense2, dense3                 timm: pre_logits.fc1, pre_logits.fc2, head.fc
    resnet18, resnet50, resnet152: conv1, dense  conv1, fc
    S/B/convN, S/B/shortcut                      layer(S-1).(B-1).convN, layer(S-1).(B-1).downsample.0
    .../convN/norm, .../shortcut/norm            bnN, downsample.1
    squeezenet: conv1, conv10                    features.0, classifier.1 (squeezenet1_1)
    fireF/squeeze and so on                      features.(F+1).squeeze; F+2 from fire4, F+3 from fire6 on
    convolution (r, s, c, k)                     (k, c, r, s)
    dense (features, units)                      (units, features), which after Flatten lie c, h, w there
    norm's scale, offset, mean, variance         weight, bias, running_mean, running_var
    ===========================================  ==========================================================

    torchvision's GoogLeNet and the VGGs with batch norm are other networks than the zoo's, and are refused.

    Parameters
    ----------
    path : str or path
        A safetensors file; one of ``torch.save`` is a pickle, which may run code, and is not read. In Python with
        PyTorch ``safetensors.torch.save_file(module.state_dict(), path)`` writes such a file.
    net : str
        The name of the network in :mod:`daskconv.zoo`; the number of classes is the file's.
    input_shape : (h, w, c)
        AlexNet and VGG are for 224x224 alone.
    class_names : sequence of str
    preprocess : str, Normalize or None
        "imagenet" is that of torchvision's weights, :meth:`Normalize.imagenet`, for images of bytes, 0 to 255. Some of
        timm's have another; None is for images that are normalised before.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        Where torchvision has no such network, or another one.
    DataError
        Where the file is missing or damaged, is a pickle, or holds the weights of another network.
    """
    arrays = _read(Path(path))
    shape = tuple(int(size) for size in input_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"input_shape is {shape}: give (h, w, c), each at least 1.")
    network, params, state = from_torch(arrays, net, shape, str(path))
    return Model(network, params, state, _fitted(preprocess), tuple(class_names), shape)


def _fitted(preprocess: Normalize | str | None) -> Normalize | None:
    if isinstance(preprocess, str):
        if preprocess != "imagenet":
            raise InputError(f"preprocess is {preprocess!r}: give 'imagenet', a Normalize or None.")
        return Normalize.imagenet()
    return preprocess


def _read(path: Path) -> dict[str, NDArray]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"{path} is no file: give a safetensors file of weights.")
    with open(path, "rb") as file:
        if file.read(4).startswith(_PICKLES):
            raise DataError(
                f"{path} is a pickle, which may run code, and is not read: convert it where PyTorch is, by "
                'safetensors.torch.save_file(torch.load(path, weights_only=True), "weights.safetensors").'
            )
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged, no safetensors file, or of a type that NumPy lacks ({error})."
        ) from None
