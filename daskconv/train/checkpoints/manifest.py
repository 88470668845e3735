"""The manifest: what a checkpoint holds, as JSON that vouches for its files and for itself."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from daskconv.errors import DataError
from daskconv.train.durable import write_file

MANIFEST = "manifest.json"
FORMAT = 1


def write_manifest(folder: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint's manifest, the last of its files."""
    write_file(folder / MANIFEST, _text(contents).encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a manifest says; raise DataError where any byte of it has changed, or it is another folder's."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        contents = json.loads(content)["contents"]
        unchanged = _text(contents).encode() == content
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is damaged or no manifest") from None
    if not unchanged:
        raise DataError(f"{path} has other contents than it says itself")
    if contents["format"] != FORMAT:
        raise DataError(f"{path} has format {contents['format']}, which this version does not read")
    if contents["name"] != folder.name:
        raise DataError(f"{path} belongs to {contents['name']}")
    if any(Path(name).name != name for name in contents["files"]):
        raise DataError(f"{path} names files outside of its folder")
    return contents


def _text(contents: dict[str, Any]) -> str:
    """Return the one way to write these contents, with their own checksum."""
    digest = sha256(json.dumps(contents).encode()).hexdigest()
    return json.dumps({"contents": contents, "sha256": digest}, indent=1)
