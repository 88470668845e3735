"""``daskconv evaluate`` and ``daskconv predict``: what a saved model says of images."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from daskconv.cli.group import Command
from daskconv.cli.launcher import refuse_launcher, tls_option
from daskconv.cli.parts import figures, loss_option
from daskconv.cli.scene import predict_scene, scene_options
from daskconv.errors import DataError, InputError


@click.command(cls=Command, short_help="Print a model's loss and accuracy.")
@click.argument("model", type=click.Path())
@click.argument("data")
@loss_option
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
def evaluate(model: str, data: str, loss: str, threads: int | None) -> None:
    """Print loss and accuracy of MODEL on DATA: its test images, or all where it has none.

    \b
    daskconv evaluate digits.safetensors digits
    daskconv evaluate landcover.safetensors FOLDER --threads 8
    """  # noqa: D301 - click keeps lines after a backspace as they are
    refuse_launcher("evaluate")
    from daskconv import datasets
    from daskconv.train.files import load
    from daskconv.train.trainer import Trainer

    loaded = load(model)
    images, targets = _held_out(datasets.load(data))
    results = Trainer(loaded, loss=loss, transport="local", threads=threads).evaluate(images, targets)
    accuracy = f"  {figures(results)}" if "accuracy" in results else ""
    click.echo(f"loss {results['loss']:.4f}{accuracy} of {len(targets):,} images")


@click.command(cls=Command, short_help="Write what a model says of images or a scene.")
@click.argument("model", type=click.Path())
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    help="FILE.csv (a line an image), FILE.npz (scores), or FILE.zarr (a scene's map).",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of this process, or of each worker.")
@tls_option
@scene_options
def predict(model: str, data: str, out: str, threads: int | None, tls: bool, **scene: Any) -> None:
    """Write what MODEL says of each image of DATA, or of all of a scene.

    \b
    daskconv predict digits.safetensors digits --out predictions.csv
    daskconv predict landcover.safetensors scene.zarr --out map.zarr --resume

    DATA is a data set as in train (its test images, or all where it has none) or images alone as FILE.npy. Of a
    model with one output the line has its value. With --out FILE.zarr it is the Zarr store of a scene of any size,
    (y, x, c) or (c, y, x).
    """  # noqa: D301 - click keeps lines after a backspace as they are
    if Path(out).suffix == ".zarr":
        predict_scene(model, data, out, scene | {"threads": threads, "tls": tls})
        return
    if unfit := [f"--{name.replace('_', '-')}" for name, value in scene.items() if value]:
        raise InputError(f"{', '.join(unfit)}: these are for scenes, whose --out is a FILE.zarr.")
    refuse_launcher("predict")
    import dask
    import numpy as np

    from daskconv.nn.losses import softmax
    from daskconv.train.files import check_writable, load

    if Path(out).suffix not in (".csv", ".npz"):
        raise InputError(f"--out is {out}: give a file that ends in .csv or .npz.")
    check_writable(out)
    loaded = load(model)
    with dask.config.set({"daskconv.threads": threads} if threads else {}):
        scores = np.asarray(loaded.predict(_images(data)))
    if Path(out).suffix == ".npz":
        np.savez(out, scores=scores, classes=scores.argmax(1), class_names=np.array(loaded.class_names))
    elif scores.shape[1:] == (1,):
        _write_csv(out, ["image", "value"], ([i, f"{value:.6f}"] for i, value in enumerate(scores[:, 0])))
    else:
        _write_csv(out, ["image", "class", "name", "probability"], _best(softmax(scores), loaded.class_names))
    click.echo(f"wrote {len(scores):,} predictions to {out}")


def _write_csv(out: str, header: list[str], rows: Iterable[list[Any]]) -> None:
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _best(probabilities: Any, names: tuple[str, ...]) -> Iterator[list[Any]]:
    for image, row in enumerate(probabilities):
        best = int(row.argmax())
        yield [image, best, names[best] if names else "", f"{row[best]:.6f}"]


def _held_out(data: Any) -> tuple[Any, Any]:
    if data.x_test is None:
        return data.x_train, data.y_train
    return data.x_test, data.y_test


def _images(path: str) -> Any:
    import numpy as np

    from daskconv import datasets

    if Path(path).suffix != ".npy":
        return _held_out(datasets.load(path))[0]
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an array ({error}).") from None
