"""Read an ONNX file or bytes: damaged ones, other versions and stray external data are refused before anything runs."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from daskconv.errors import DataError, InputError

OPSETS = (7, 28)
"""The first and the last version of ONNX's operators whose meaning is known here."""


def import_onnx() -> Any:
    """Return the onnx package; raise InputError where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise InputError("ONNX files need the onnx package: pip install 'daskconv[onnx]'.") from None
    return onnx


def read_model(source: str | PathLike[str] | bytes) -> Any:
    """Return the checked model of a file's path or content, with its external data, as onnx.ModelProto.

    Raises
    ------
    DataError
        Where the file is missing or damaged, or its external data is missing or lies outside of the model's folder.
    InputError
        Where the operators' version is not known.
    """
    onnx = import_onnx()
    name = "The ONNX model" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise DataError(f"{name} is no file: give an ONNX model.")
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own exception, whose module differs between versions
        raise DataError(f"{name} is damaged or no ONNX model ({type(error).__name__}).") from None
    if not model.graph.node and not model.graph.output:
        raise DataError(f"{name} is damaged or no ONNX model (it has no graph).")
    _check_opset(model, name)
    _load_external(onnx, model, None if isinstance(source, bytes) else Path(source).parent, name)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise DataError(f"{name} is no valid ONNX model: {_first_line(error)}") from None
    return model


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _check_opset(model: Any, name: str) -> None:
    version = opset_of(model)
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise InputError(
            f"{name} has operators of opset {version}: versions {OPSETS[0]} to {OPSETS[1]} are supported, so export "
            "it with one of them."
        )


def _load_external(onnx: Any, model: Any, folder: Path | None, name: str) -> None:
    """Read weights that lie in other files, inside of the model's folder only."""
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if folder is None:
            raise DataError(
                f"{name} keeps {tensor.name!r} in the file {location!r}: give the model's path, not bytes."
            )
        root, file = folder.resolve(), (folder / location).resolve()
        if not location or not file.is_relative_to(root):
            raise DataError(
                f"{name} keeps {tensor.name!r} in {location!r}, outside of its folder: it is not read."
            )
        if not file.is_file():
            raise DataError(
                f"{name} keeps {tensor.name!r} in {location!r}, which is missing: put it beside the model."
            )
    if external:
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except Exception as error:
            raise DataError(f"The external data of {name} cannot be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
