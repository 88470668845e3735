"""Model files: safetensors, with everything that is not an array as JSON in the header. Loading runs no code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import DaskconvError, DataError
from daskconv.layout import Layout
from daskconv.nn.initializers import Initializer
from daskconv.nn.layers.base import Layer
from daskconv.nn.losses import SPECS
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network, Node
from daskconv.nn.specs import from_plain, kinds_of, to_plain
from daskconv.plan.plans import Plan
from daskconv.plan.tasks import Position, TrainState
from daskconv.run.alike import versions
from daskconv.train.augment import Augmentation
from daskconv.train.durable import write_whole
from daskconv.train.model import Model
from daskconv.train.normalize import Normalize
from daskconv.train.optim import Optimizer
from daskconv.train.schedule import Schedule

FORMAT = 2
Path_ = str | PathLike[str]


@dataclass(eq=False)
class Checkpoint:
    """A model, and where and how its training stood.

    Attributes
    ----------
    model : Model
    state : TrainState
    history : list of dict
        The logs of the finished epochs.
    options : dict
        What has to stay as it was for the same bits: optimizer, loss, batch size, seed, shards, methods ...
    versions : dict of str
        Of whatever else the bits depend on, where it was written.
    """

    model: Model
    state: TrainState
    history: list[dict[str, Any]]
    options: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions)


def write_model(path: Path_, model: Model) -> None:
    """Write a model."""
    _write(path, _model_arrays(model), {"model": _model_header(model)})


def write_checkpoint(path: Path_, checkpoint: Checkpoint) -> None:
    """Write a model with its training's state; the file loads as a model too."""
    _write(path, arrays_of(checkpoint), header_of(checkpoint))


def arrays_of(checkpoint: Checkpoint) -> dict[str, NDArray]:
    """Return all arrays of a checkpoint, by the names that they have in files."""
    arrays = _model_arrays(checkpoint.model)
    return arrays | {f"slots/{name}": array for name, array in checkpoint.state.slots.items()}


def header_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return as JSON what a checkpoint holds beside its arrays."""
    position = checkpoint.state.position
    training = {
        "steps": checkpoint.state.steps,
        "epoch": position.epoch,
        "step": position.step,
        "sums": position.sums.tolist(),
        "history": to_plain(checkpoint.history),
        "options": to_plain(checkpoint.options),
    }
    return {
        "model": _model_header(checkpoint.model),
        "training": training,
        "versions": checkpoint.versions,
    }


def load(path: Path_) -> Model:
    """Return the model of a file that :meth:`Model.save` or training wrote, or of a folder's newest checkpoint.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    DataError
        Where the file is missing, damaged, or holds layers that are not defined here.
    """
    if Path(path).is_dir():
        return load_checkpoint(path).model
    arrays, header = _read(path)
    return _model_of(path, arrays, header)


def load_checkpoint(path: Path_) -> Checkpoint:
    """Return the checkpoint of a file, or the newest of a folder that verifies; raise DataError where there is none."""
    if Path(path).is_dir():
        from daskconv.train.checkpoints.folder import read_newest

        return read_newest(path)
    arrays, header = _read(path)
    if "training" not in header:
        _model_of(path, arrays, header)
        raise DataError(
            f"{path} holds a model but no training to go on with: train from it with net=load(path)."
        )
    return checkpoint_of(path, arrays, header)


def checkpoint_of(path: Path_, arrays: dict[str, NDArray], header: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint that a file's arrays and header make up."""
    model = _model_of(path, arrays, header)
    try:
        training = header["training"]
        sums = np.array(training["sums"], np.float64)
        position = Position(training["epoch"], training["step"], sums)
        slots = _section(arrays, "slots")
        state = TrainState(dict(model.params), slots, position, training["steps"], dict(model.state))
        options = from_plain_options(training["options"])
        written_by = {name: str(version) for name, version in header.get("versions", {}).items()}
        return Checkpoint(model, state, training["history"], options, written_by)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no complete checkpoint ({error!r}): use an earlier one.") from None


def from_plain_options(plain: dict[str, Any]) -> dict[str, Any]:
    """Return saved options with their specs restored."""
    kinds = kinds_of(Augmentation, *SPECS, Optimizer, Schedule, Metric, Plan, Layout)

    def restore(value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value:
            return {name: restore(item) for name, item in value.items()}
        return from_plain(value, kinds)

    return {name: restore(value) for name, value in plain.items()}


def _model_header(model: Model) -> dict[str, Any]:
    return {
        "network": to_plain(model.network),
        "input_shape": list(model.input_shape),
        "class_names": list(model.class_names),
    }


def _model_arrays(model: Model) -> dict[str, NDArray]:
    arrays = {f"params/{name}": array for name, array in model.params.items()}
    arrays |= {f"state/{name}": array for name, array in model.state.items()}
    if model.preprocess is not None:
        arrays |= {"preprocess/mean": model.preprocess.mean, "preprocess/scale": model.preprocess.scale}
    return arrays


def _model_of(path: Path_, arrays: dict[str, NDArray], header: dict[str, Any]) -> Model:
    try:
        plain = header["model"]
        network = from_plain(plain["network"], kinds_of(Layer, Initializer, Network, Node))
        input_shape = tuple(plain["input_shape"])
        model = Model(
            network,
            _section(arrays, "params"),
            _section(arrays, "state"),
            Normalize(**fitted) if (fitted := _section(arrays, "preprocess")) else None,
            tuple(plain["class_names"]),
            input_shape,
        )
        expected, arrays = {}, model.params | model.state
        if input_shape:
            expected = network.weight_shapes(input_shape) | network.statistic_shapes(input_shape)
    except DaskconvError:
        raise
    except Exception as error:  # a header may say anything, and layers complain in many ways
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path} is no daskconv model ({said}).") from None
    for name, shape in expected.items():
        if name not in arrays or arrays[name].shape != shape:
            found = arrays[name].shape if name in arrays else "nothing"
            raise DataError(f"{path}: {name} should have shape {shape} but the file holds {found}.")
        if not np.isfinite(arrays[name]).all():
            raise DataError(f"{path}: {name} holds values that are not finite.")
    return model


def _section(arrays: dict[str, NDArray], section: str) -> dict[str, NDArray]:
    prefix = f"{section}/"
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _write(path: Path_, arrays: dict[str, NDArray], header: dict[str, Any]) -> None:
    """Write arrays with a header."""
    from safetensors.numpy import save

    from daskconv import __version__

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = _signed({"format": FORMAT, "version": __version__, **header}, arrays)
    write_whole(path, save(arrays, {"daskconv": text}))


def _signed(header: dict[str, Any], arrays: dict[str, NDArray]) -> str:
    """Return the header as text, with a checksum of itself and of the arrays."""
    digest = sha256(json.dumps(header).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return json.dumps({**header, "sha256": digest.hexdigest()})


def check_writable(path: Path_) -> None:
    """Raise DataError now where a model could not be written to ``path`` after hours of training."""
    target = Path(path)
    if target.is_dir():
        raise DataError(f"{target} is a folder: give a file's name.")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise DataError(f"{target.parent} is no folder that can be written to: make it, or save elsewhere.")


def _read(path: Path_) -> tuple[dict[str, NDArray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise DataError(f"{path} is no file: give a model that daskconv saved.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["daskconv"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is damaged or no daskconv model ({error}).") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(
            f"{path} has a format that this version does not read: use the version that wrote it."
        )
    header.pop("sha256", None)
    if metadata["daskconv"] != _signed(header, arrays):
        raise DataError(f"{path} is damaged: it has other contents than were written to it.")
    return arrays, header
