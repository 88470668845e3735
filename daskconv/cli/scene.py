"""``daskconv predict MODEL scene.zarr --out out.zarr``: the map of a scene."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from daskconv.cli.page import dashboard_option, page_options
from daskconv.errors import DataError

_SIZE = click.IntRange(1)
_OPTIONS = (
    click.option("--tile", type=_SIZE, help="Of a scene: rows and columns of a tile.  [default: by memory]"),
    click.option("--batch", type=_SIZE, help="Of a scene: tiles that run at once.  [default: by memory]"),
    click.option(
        "--stride", type=_SIZE, help="Of a scene: slide the network's window, so many pixels a step."
    ),
    click.option(
        "--fill-missing", is_flag=True, help="Of a scene in Zarr: chunks that are not there are zeros."
    ),
    click.option("--precision", help="Of convolutions, fast or exact.  [default: fast]"),
    click.option(
        "--resume", is_flag=True, help="Finish a FILE.zarr that was begun: only missing chunks are computed."
    ),
    click.option("--overwrite", is_flag=True, help="Replace FILE.zarr."),
    click.option("--workers", type=_SIZE, help="Of a scene: processes of a local cluster."),
    dashboard_option,
)


def scene_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that scenes have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def predict_scene(model: str, path: str, out: str, options: dict[str, Any]) -> None:
    """Write the map of a scene, on this process's threads, or on workers where some are asked for."""
    from daskconv.launch.start import start
    from daskconv.run.launcher import launcher_ranks
    from daskconv.train.files import load

    transport = "dask" if options["workers"] or launcher_ranks() else "local"
    page = page_options(options["dashboard"])
    with start(transport, workers=options["workers"], threads=options["threads"], tls=options["tls"], **page):
        predict_file(load(model), path, out, options)


def predict_file(model: Any, path: str, out: str, options: dict[str, Any]) -> None:
    """Write the map of the scene in a Zarr store to another one.

    Parameters
    ----------
    model : Model
    path : str
        Of an array, or of a group that xarray reads.
    out : str
    options : dict
        By the names of :func:`scene_options`, and the threads of this process.
    """
    import dask

    from daskconv.scene.store import store

    scene, threads = open_scene(path, fill_missing=options["fill_missing"]), options["threads"]
    chosen = {name: options[name] for name in ("tile", "batch") if options[name]}
    try:
        with dask.config.set({"num_workers": threads} if threads else {}):
            result = model.predict(scene, stride=options["stride"], precision=options["precision"], **chosen)
            stored = store(result, out, resume=options["resume"], overwrite=options["overwrite"])
    except KeyboardInterrupt:
        again = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
        click.echo(
            f"Stopped: what is complete stays. Go on with: {shlex.join(['daskconv', *again, '--resume'])}"
        )
        sys.exit(130)
    click.echo(f"wrote {' x '.join(f'{size:,}' for size in stored.shape)} scores to {out}")


def open_scene(path: str, *, fill_missing: bool = False) -> Any:
    """Return the Zarr array at a path, or of a group that xarray reads its only variable with rows and columns.

    Of an array chunks that are not there are refused, or zeros with ``fill_missing``.
    """
    import dask.array as da
    import zarr

    if not Path(path).exists():
        raise DataError(f"{path} does not exist: give a scene's Zarr store.")
    try:
        found: Any = zarr.open(path, mode="r")
    except Exception as error:  # as many kinds as there are ways to damage a store
        raise DataError(
            f"{path} is no Zarr store ({error}): give one of a scene.".replace("\n", " ")
        ) from None
    if isinstance(found, zarr.Array):
        return da.from_zarr(found) if fill_missing else found
    import xarray

    group = xarray.open_dataset(path, engine="zarr", chunks={})
    names = [str(name) for name, array in group.data_vars.items() if array.ndim > 1]
    if len(names) != 1:
        raise DataError(
            f"{path} holds {len(names)} arrays {sorted(names)}: give the path of one, {path}/NAME."
        )
    return group[names[0]]
