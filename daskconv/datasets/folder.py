"""A folder of image files, one folder a class, as lazy Dask arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskconv.datasets.assemble import assemble, because
from daskconv.datasets.dataset import Dataset
from daskconv.errors import DataError, InputError

if TYPE_CHECKING:
    import dask.array as da

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
IMAGES_PER_CHUNK = 64
MOST_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs
HEADER_THREADS = 16

Size = tuple[int, int]


def image_folder(
    path: str | os.PathLike[str],
    *,
    size: Size | None = None,
    test: float | None = None,
    skip_damaged: bool = False,
) -> Dataset:
    """Read a folder of images, one folder a class, lazily: each chunk of 64 images is one task.

    Parameters
    ----------
    path : str or path
        A folder of class folders, whose sorted names become the class names; or a folder with train/ and
        test/ (where there is none, val/), each of them such a folder. Files other than png, jpg, bmp, tiff
        and webp are passed over. Workers read the files, so the path must mean the same to them.
    size : (h, w), optional
        Resize every image to this; without it all images must have one size.
    test : float, optional
        Hold out this fraction as the test part; see `Dataset.split`.
    skip_damaged : bool
        Decode every image once now, leave out those that cannot be read, and warn with their number.

    Returns
    -------
    Dataset
        Images are Dask arrays, (n, h, w, 3), uint8: grey and palette images become RGB, transparency is
        dropped.

    Raises
    ------
    DataError
        A class has no images, an image cannot be read, is huge or has more than 8 bits, or the sizes differ.
        A file whose header is good and whose pixels are damaged raises it when the pixels are read.
    InputError
        Pillow is not installed, or `size` is no size.

    Examples
    --------
    >>> import os, tempfile
    >>> from PIL import Image
    >>> from daskconv.datasets import image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         os.mkdir(os.path.join(folder, name))
    ...         Image.new("RGB", (8, 6)).save(os.path.join(folder, name, "1.png"))
    ...     image_folder(folder)
    Dataset(train 2 x 6 x 8 x 3 uint8, no test, 2 classes)
    """
    _require_pillow()
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"size={size} is no image size: give (h, w), such as (64, 64)")
    root = Path(path).expanduser().absolute()
    parts = _parts(root)
    if skip_damaged:
        parts = {end: _readable(root, part) for end, part in parts.items()}
    names = list(parts["train"])
    size = _one_size([file for part in parts.values() for files in part.values() for file in files], size)
    arrays: dict[str, Any] = {}
    for end, part in parts.items():
        arrays[f"x_{end}"] = _lazy([file for files in part.values() for file in files], size)
        arrays[f"y_{end}"] = np.repeat([names.index(name) for name in part], [len(f) for f in part.values()])
    dataset = assemble(root, arrays, names)
    return dataset if test is None else dataset.split(test)


def read_images(files: Sequence[str], size: Size) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode image files into one (n, h, w, 3) uint8 array, resized where the size differs: one task."""
    from PIL import Image

    height, width = size
    out = np.empty((len(files), height, width, 3), np.uint8)
    for i, file in enumerate(files):
        try:
            with Image.open(file) as image:
                pixels = image.convert("RGB")
        except Exception as error:  # Pillow's decoders raise anything on damaged files
            raise DataError(
                f"image {file} cannot be read ({because(error)}): replace or remove it"
            ) from error
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height))
        out[i] = np.asarray(pixels)
    return out


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise InputError("image_folder needs Pillow: pip install daskconv[io]") from error


def _parts(root: Path) -> dict[str, dict[str, list[str]]]:
    try:
        parts = {end: _class_files(folder) for end, folder in _splits(root).items()}
    except OSError as error:
        raise DataError(
            f"{root} cannot be listed ({because(error)}): ask for the right to read it"
        ) from error
    unknown = sorted(parts.get("test", {}).keys() - parts["train"].keys())
    if unknown:
        raise DataError(f"class {unknown[0]!r} in {root} is tested but not trained: add it to train/")
    return parts


def _splits(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give a folder with one folder of images a class")
    held_out = [root / name for name in ("test", "val") if (root / name).is_dir()]
    if held_out and (root / "train").is_dir():
        return {"train": root / "train", "test": held_out[0]}
    return {"train": root}


def _class_files(folder: Path) -> dict[str, list[str]]:
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    files = {name: _image_files(folder / name) for name in names}
    empty = [name for name in names if not files[name]]
    if not names or len(empty) == len(names):
        raise DataError(f"{folder} holds no images: give a folder with one folder of images a class")
    if empty:
        raise DataError(f"class {empty[0]!r} in {folder} has no images: add some or remove its folder")
    return files


def _image_files(folder: Path) -> list[str]:
    # Names that start with a dot are left by desktops and archivers, and are no images.
    entries = (e for e in os.scandir(folder) if not e.name.startswith(".") and e.is_file())
    return sorted(e.path for e in entries if os.path.splitext(e.name)[1].lower() in SUFFIXES)


def _readable(root: Path, part: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the files of each class that can be decoded; warn where some cannot."""
    files = [file for some in part.values() for file in some]
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        damaged = {file for file, good in zip(files, pool.map(_decodes, files), strict=True) if not good}
    if not damaged:
        return part
    left = {name: [file for file in some if file not in damaged] for name, some in part.items()}
    if empty := [name for name, some in left.items() if not some]:
        raise DataError(
            f"class {empty[0]!r} in {root} has no image that can be read: replace or remove its images"
        )
    first = ", ".join(sorted(damaged)[:3])
    warnings.warn(
        f"{len(damaged)} of {len(files)} images cannot be read and are left out: {first}"
        f"{' ...' if len(damaged) > 3 else ''}",
        RuntimeWarning,
        stacklevel=3,
    )
    return left


def _decodes(file: str) -> bool:
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.load()
    except Image.DecompressionBombError:
        return True  # it may be whole, and is refused in its own words
    except Exception:  # Pillow's decoders raise anything on damaged files
        return False
    return True


def _one_size(files: list[str], wanted: Size | None) -> Size:
    from PIL import Image

    # _header refuses such images in its own words.
    with warnings.catch_warnings(), ThreadPoolExecutor(HEADER_THREADS) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        sizes = list(pool.map(_header, files))
    if wanted is not None:
        return wanted
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise DataError(
                f"{files[0]} is {sizes[0][0]} x {sizes[0][1]} and {file} is {size[0]} x {size[1]} (h x w): "
                "give size=(h, w) to resize them all"
            )
    return sizes[0]


def _header(file: str) -> Size:
    from PIL import Image

    try:
        with Image.open(file) as image:
            (width, height), mode = image.size, image.mode
    except Image.DecompressionBombError as error:
        raise DataError(f"image {file} has more than {MOST_PIXELS} pixels: cut it into tiles") from error
    except Exception as error:  # Pillow's parsers raise anything on damaged files
        raise DataError(f"image {file} cannot be read ({because(error)}): replace or remove it") from error
    if width * height > MOST_PIXELS:
        raise DataError(f"image {file} has more than {MOST_PIXELS} pixels: cut it into tiles")
    if mode[0] in "IF":  # Pillow would clip these to 255 on the way to RGB
        raise DataError(
            f"image {file} has more than 8 bits a channel: convert it, or store the images in Zarr"
        )
    return height, width


def _lazy(files: list[str], size: Size) -> da.Array:
    import dask.array as da
    from dask.delayed import delayed

    read = delayed(read_images)
    chunks = []
    for start in range(0, len(files), IMAGES_PER_CHUNK):
        part = files[start : start + IMAGES_PER_CHUNK]
        chunks.append(da.from_delayed(read(part, size), (len(part), *size, 3), dtype=np.uint8))
    return da.concatenate(chunks)
