"""Models from ONNX files, and into them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from daskconv.errors import DaskconvError, DataError, InputError
from daskconv.nn.onnx.read import read_model
from daskconv.nn.onnx.values import IMAGES, Value
from daskconv.train.durable import write_whole
from daskconv.train.model import Model


def load_onnx(
    source: str | PathLike[str] | bytes,
    *,
    input_shape: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
) -> Model:
    """Return the model of an ONNX file, for any number of images, whatever number it was exported for.

    It trains, predicts and is saved as any other model. Images are channels last here, (n, h, w, c), and so is an
    output that is images; everything else is as in the file. Loading runs no code from it. Where shapes in the file
    name the number of images that it was exported for, any number is meant; what computes with that number is refused.

    Parameters
    ----------
    source : str, path or bytes
        The file, or its content. Weights in other files have to lie in its folder.
    input_shape : (h, w, c), optional
        Of the images, where the file leaves that open.
    class_names : sequence of str

    Returns
    -------
    Model

    Raises
    ------
    DataError
        Where the file is missing or damaged, its weights are missing or not finite.
    InputError
        Where it has operators, attributes or versions that are not supported, or joins different images.

    Examples
    --------
    >>> import numpy as np, daskconv
    >>> net = daskconv.zoo.lenet()
    >>> model = daskconv.Model(net, net.init(0, (8, 8, 1)), input_shape=(8, 8, 1))
    >>> daskconv.load_onnx(daskconv.save_onnx(model)).predict(np.zeros((3, 8, 8, 1), np.uint8)).shape
    (3, 10)
    """
    model = read_model(source)
    given = None if input_shape is None else tuple(input_shape)
    try:
        return _translated(model, given, tuple(class_names))
    except DaskconvError:
        raise
    except Exception as error:  # a file that passes ONNX's own check may still contradict itself anywhere
        name = "The ONNX model" if isinstance(source, bytes) else str(source)
        said = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name} cannot be translated ({type(error).__name__}: {said}): it contradicts itself, export it anew."
        ) from error


def _translated(model: Any, given: tuple[int, ...] | None, class_names: tuple[str, ...]) -> Model:
    from daskconv.nn.onnx.load import image_input, initializers, load

    name, shape, batch = image_input(model, given)
    h, w, c = shape
    loaded = load(model, {name: (IMAGES, c, h, w)}, initializers(model), batch=batch)
    if not all(isinstance(output, Value) for output in loaded.outputs):
        raise InputError("The ONNX model has an output that does not depend on its images: leave that out.")
    return Model(loaded.network, loaded.params, loaded.state, None, class_names, shape)


def save_onnx(model: Model, path: str | PathLike[str] | None = None) -> bytes:
    """Write a model as an ONNX file that PyTorch's, onnxruntime's and other users can run; return its content.

    The input "images" is float32 (n, c, h, w), channels first, for any n; the values are raw ones, as
    :meth:`Model.predict` takes them, since the normalisation is part of the graph. An output that is images has
    channels first too. Operators are those of opset 19.

    Parameters
    ----------
    model : Model
        Trained or loaded; its ``input_shape`` has to be known.
    path : str or path, optional
        Where to write the file; nothing is written when not given.

    Returns
    -------
    bytes

    Raises
    ------
    InputError
        Where the model has layers that cannot be written, or its images' shape is not known.
    DataError
        Where the file cannot be written.
    """
    if not model.input_shape:
        raise InputError("The model does not know the shape of its images: give it input_shape=(h, w, c).")
    from daskconv.nn.onnx.write import write

    model = model.without_auxiliary()
    model.check_images(model.input_shape)
    fitted = None if model.preprocess is None else (model.preprocess.mean, model.preprocess.scale)
    content = write(model.network, model.params, model.state, model.input_shape, fitted)
    if path is not None:
        write_whole(path, content)
    return content
