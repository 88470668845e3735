"""The ``daskconv`` command: train, evaluate, predict, tune, info. The same lines run under mpiexec."""

from __future__ import annotations

import csv
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from daskconv import __version__
from daskconv.errors import DaskconvError, DataError, InputError, Interrupted
from daskconv.scene.command import predict_file, scene_options

# What the bits depend on: a checkpoint fixes it.
_RESCUE = "daskconv-interrupted.safetensors"
"""Where an interrupted run without --save is kept."""

_GRACE = 1.0  # seconds that the rank which speaks gets to do so

_FIXED = {
    *("net", "optimizer", "lr", "momentum", "weight_decay", "bias_lr", "schedule", "warmup"),
    *(
        "batch_size",
        "normalize",
        "method",
        "precision",
        "plan",
        "shards",
        "seed",
        "augment",
        "from",
        "trainable",
    ),
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="daskconv")
def main_group() -> None:
    """Train and run convolutional neural networks on CPU clusters, from Dask arrays."""


@main_group.command()
@click.option(
    "--data", required=True, help="digits, cifar10, FILE.npz, FOLDER of classes, FILE.zarr or archive."
)
@click.option(
    "--net",
    default="lenet",
    show_default=True,
    help="One of the zoo: lenet, mnist_cnn, cifar10_quick, resnet20, googlenet ...",
)
@click.option("--from", type=click.Path(), help="Fine-tune this model instead, .safetensors or .onnx; its last layer "
              "starts anew where the classes are others.")  # fmt: skip
@click.option(
    "--trainable", multiple=True, metavar="PATTERN", help="Train only these weights, such as 'dense*'."
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs in total.  [default: 10]")
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw", "adagrad", "rmsprop", "lars"]), default="sgd",
              show_default=True)  # fmt: skip
@click.option("--lr", type=click.FloatRange(0), default=0.01, show_default=True, help="Learning rate.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.9, show_default=True,
              help="Of sgd and lars.")  # fmt: skip
@click.option("--weight-decay", type=click.FloatRange(0), help="[default: 0; 0.01 of adamw, 0.0001 of lars]")
@click.option(
    "--bias-lr", type=click.FloatRange(0), default=1.0, show_default=True, help="Factor for biases."
)
@click.option("--schedule", type=click.Choice(["constant", "step", "cosine"]), default="constant", show_default=True,
              help="step: a tenth after four fifths of the epochs.")  # fmt: skip
@click.option(
    "--warmup", type=click.FloatRange(0), default=0.0, show_default=True, help="Epochs of linear rise."
)
@click.option("--normalize", type=click.Choice(["mean_image", "standardize", "unit", "none"]),
              help="Of the images; saved with the model.  [default: what the network is made for]")  # fmt: skip
@click.option("--augment", default="", help="Changes of training images: crop, flip, jitter, with commas.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="auto, direct, lowering, pipelined, implicit, winograd or fft.",
)
@click.option("--precision", help="Of convolutions, fast or exact (no winograd, no fft).  [default: fast]")
@click.option("--plan", default="data", show_default=True, help="How the network is spread: data.")
@click.option(
    "--shards", type=click.IntRange(1), help="Logical shards; not the number of workers.  [default: 4]"
)
@click.option("--transport", default="auto", show_default=True, help="auto, local, dask or mpi.")
@click.option("--workers", type=click.IntRange(1), help="Processes of a local cluster.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each worker.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--save", type=click.Path(), help="Write the trained model here.")
@click.option("--resume", type=click.Path(), help="Go on from a model that was saved by training.")
@click.pass_context
def train(context: click.Context, **options: Any) -> None:
    """Train a network.

    \b
    daskconv train --data digits --epochs 10 --save digits.safetensors
    mpiexec -n 4 daskconv train --data cifar10 --net cifar10_quick --lr 0.001
    daskconv train --data digits --resume digits.safetensors --epochs 20
    """  # noqa: D301 - click keeps lines after a backspace as they are
    from daskconv.launch.start import start

    given = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if {"net", "from"} <= given:
        raise InputError("--net and --from: give one of them, since the model brings its network.")
    with start(_transport(options), workers=options["workers"], threads=options["threads"]):
        _train(options, given)


def _transport(options: dict[str, Any]) -> str:
    """Return the transport; "auto" stays on this process's threads unless workers are asked for."""
    from daskconv.run.mpi import launcher_ranks

    if options["transport"] == "auto" and options["workers"] is None and not launcher_ranks():
        return "local"
    return options["transport"]


def _train(options: dict[str, Any], given: set[str]) -> None:
    from daskconv import datasets
    from daskconv.train.files import check_writable, load_checkpoint

    target = options["save"] or options["resume"]
    check_writable(target or _RESCUE)
    checkpoint = load_checkpoint(options["resume"]) if options["resume"] else None
    if checkpoint is not None:
        fixed = sorted(f"--{name.replace('_', '-')}" for name in given & _FIXED)
        if fixed:
            raise InputError(
                f"{', '.join(fixed)}: the checkpoint fixes these, so leave them out with --resume."
            )
        options |= {"epochs": options["epochs"] or checkpoint.options["epochs"]}
    options["epochs"] = options["epochs"] or 10
    data = datasets.load(options["data"])
    trainer = _trainer(options, data) if checkpoint is None else _resumed(options, checkpoint)
    _fit(trainer, data, options, target)


def _trainer(options: dict[str, Any], data: Any) -> Any:
    from daskconv.train.trainer import Trainer

    net, preprocess = _network(options, data)
    return Trainer(
        net,
        optimizer=_optimizer(options),
        plan=options["plan"],
        transport=_transport(options),
        method=options["method"],
        precision=options["precision"],
        seed=options["seed"],
        shards=options["shards"],
        preprocess=options["normalize"] or preprocess,
        augment=[name.strip() for name in options["augment"].split(",") if name.strip()],
        trainable=options["trainable"] or None,
        class_names=data.class_names,
        threads=options["threads"],
    )


def _network(options: dict[str, Any], data: Any) -> tuple[Any, str | None]:
    """Return the zoo's network, or the model to fine-tune, and the normalisation of new images."""
    from daskconv.nn import zoo
    from daskconv.nn.losses import first_output
    from daskconv.train.files import load
    from daskconv.train.onnx_files import load_onnx

    source, names = options["from"], data.class_names
    classes = len(names) or int(data.y_train.max()) + 1
    if source is None:
        return zoo.build(options["net"], classes), zoo.PREPROCESS[options["net"]]
    model = load_onnx(source) if Path(source).suffix == ".onnx" else load(source)
    outputs = first_output(model.network.output_shape(data.x_train.shape[1:]))[-1]
    if outputs != classes or (model.class_names and names and model.class_names != names):
        model = model.with_head(classes, class_names=names, seed=options["seed"])
    return model, None


def _optimizer(options: dict[str, Any]) -> Any:
    from daskconv.train import optim

    kinds = (optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad, optim.RMSprop, optim.LARS)
    kind = {kind.__name__.lower(): kind for kind in kinds}[options["optimizer"]]
    chosen: dict[str, Any] = {"multipliers": {"*.bias": options["bias_lr"]}}
    if kind in (optim.SGD, optim.LARS):
        chosen["momentum"] = options["momentum"]
    if options["weight_decay"] is not None:
        chosen["weight_decay"] = options["weight_decay"]
    return kind(_schedule(options), **chosen)


def _schedule(options: dict[str, Any]) -> Any:
    from daskconv.train.schedule import ConstantRate, CosineRate, StepRate, WarmUp

    rate, epochs = options["lr"], options["epochs"]
    schedule = {
        "constant": ConstantRate(rate),
        "step": StepRate(rate, (0.8 * epochs,)),
        "cosine": CosineRate(rate, epochs),
    }[options["schedule"]]
    return WarmUp(options["warmup"], schedule) if options["warmup"] else schedule


def _resumed(options: dict[str, Any], checkpoint: Any) -> Any:
    from daskconv.train.trainer import Trainer

    saved = checkpoint.options
    trainer = Trainer(
        checkpoint.model.network,
        loss=saved["loss"],
        optimizer=saved["optimizer"],
        transport=_transport(options),
        method=saved["method"],
        precision=saved["precision"],
        seed=saved["seed"],
        shards=saved["shards"],
        augment=saved.get("augment", ()),
        clip_norm=saved.get("clip_norm"),
        accumulate=saved.get("accumulate", 1),
        average=saved.get("average"),
        metrics=saved["metrics"],
        trainable=saved["trainable"],
        class_names=checkpoint.model.class_names,
        threads=options["threads"],
    )
    return trainer.resume(checkpoint)


def _fit(trainer: Any, data: Any, options: dict[str, Any], target: str | None) -> None:
    validation = None if data.x_test is None else (data.x_test, data.y_test)
    before = trainer.position
    try:
        trainer.fit(
            data.x_train,
            data.y_train,
            epochs=options["epochs"],
            batch_size=trainer.batch_size or options["batch_size"],
            validation_data=validation,
        )
    except Interrupted as stopped:
        path = target or _RESCUE
        trainer.save(path)
        again = shlex.join(["daskconv", "train", "--data", options["data"], "--resume", path])
        click.echo(f"{stopped} Go on with: {again}")
        sys.exit(128 + int(stopped.signal or signal.SIGINT))
    except Exception:
        if target and trainer.position is not before:
            trainer.save(target)
            click.echo(f"The weights from before the failure are in {target}.", err=True)
        raise
    if validation is not None:
        click.echo(f"test accuracy {trainer.history['val_accuracy'][-1]:.2%} of {len(data.y_test):,} images")
    if target:
        trainer.save(target)
        click.echo(f"saved {target}")


@main_group.command()
@click.argument("model", type=click.Path())
@click.argument("data")
@click.option("--threads", type=click.IntRange(1), help="Threads of this process.")
def evaluate(model: str, data: str, threads: int | None) -> None:
    """Print loss and accuracy of MODEL on DATA: its test images, or all where it has none."""
    _refuse_launcher("evaluate")
    from daskconv import datasets
    from daskconv.train.files import load
    from daskconv.train.trainer import Trainer

    loaded = load(model)
    images, targets = _held_out(datasets.load(data))
    results = Trainer(loaded, transport="local", threads=threads).evaluate(images, targets)
    click.echo(f"loss {results['loss']:.4f}  accuracy {results['accuracy']:.2%} of {len(targets):,} images")


@main_group.command()
@click.argument("model", type=click.Path())
@click.argument("data")
@click.option("--out", type=click.Path(), required=True,
              help="FILE.csv (a line an image), FILE.npz (scores), or FILE.zarr (a scene's map).")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Threads of this process, or of each worker.")
@scene_options
def predict(model: str, data: str, out: str, threads: int | None, **scene: Any) -> None:
    """Write what MODEL says of each image of DATA, or of all of a scene.

    DATA is a data set as in train (its test images, or all where it has none) or images alone as FILE.npy. With
    --out FILE.zarr it is the Zarr store of a scene of any size, (y, x, c) or (c, y, x).
    """
    if Path(out).suffix == ".zarr":
        _predict_scene(model, data, out, scene | {"threads": threads})
        return
    if unfit := [f"--{name}" for name, value in scene.items() if value]:
        raise InputError(f"{', '.join(unfit)}: these are for scenes, whose --out is a FILE.zarr.")
    _refuse_launcher("predict")
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
    else:
        _write_csv(out, softmax(scores), loaded.class_names)
    click.echo(f"wrote {len(scores):,} predictions to {out}")


def _predict_scene(model: str, path: str, out: str, options: dict[str, Any]) -> None:
    from daskconv.launch.start import start
    from daskconv.run.mpi import launcher_ranks
    from daskconv.train.files import load

    transport = "dask" if options["workers"] or launcher_ranks() else "local"
    with start(transport, workers=options["workers"], threads=options["threads"]):
        predict_file(load(model), path, out, options)


def _refuse_launcher(command: str) -> None:
    from daskconv.run.mpi import launcher_ranks

    if launcher_ranks() > 1:
        raise InputError(f"{command} runs in one process, on its threads: start it without mpiexec or srun.")


def _write_csv(out: str, probabilities: Any, names: tuple[str, ...]) -> None:
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "name", "probability"])
        for image, row in enumerate(probabilities):
            best = int(row.argmax())
            writer.writerow([image, best, names[best] if names else "", f"{row[best]:.6f}"])


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


@main_group.command()
@click.argument("net")
@click.option("--input", "shape", nargs=3, type=click.IntRange(1), metavar="H W C",
              help="Shape of one image.  [default: what a saved model was trained on]")  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), default=100, show_default=True, help="Of the training to come."
)
@click.option(
    "--shards", type=click.IntRange(1), default=4, show_default=True, help="Of the training to come."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
              help="Blocks that run side by side while a method is timed.")  # fmt: skip
def tune(net: str, shape: tuple[int, int, int] | None, batch: int, shards: int, threads: int) -> None:
    """Time the methods of NET's convolutions here; auto chooses by that from now on.

    NET is the name of a network as in train, or a saved model. The fastest methods are kept in the user's cache
    (DASKCONV_CACHE), for this processor and this version. Training that is resumed keeps its own.
    """
    _refuse_launcher("tune")
    from daskconv.nn import zoo
    from daskconv.plan.tune import tune as tune_network
    from daskconv.train.files import load

    model = None if net in zoo.ZOO or not Path(net).is_file() else load(net)
    network = zoo.build(net, 10) if model is None else model.network
    shape = shape or (model and model.input_shape) or None  # type: ignore[assignment]
    if shape is None:
        raise InputError(f"The shape of an image is not known of {net}: give it as --input H W C.")
    with _reporting() as report:
        tuning = tune_network(network, shape, batch=batch, shards=shards, threads=threads, report=report)
    click.echo(tuning)
    if tuning.path:
        click.echo(f"saved {tuning.path}, table {tuning.table.hash}")


@contextmanager
def _reporting() -> Iterator[Callable[[int, int, str], None]]:
    """Show how far it is on standard error: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total, name: click.echo(f"{done + 1}/{total} {name}", err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn()]
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task("tune", total=None)
        yield lambda done, total, name: progress.update(task, total=total, completed=done, description=name)


@main_group.command()
def info() -> None:
    """Print versions, processor, BLAS, threads, tuning and MPI, for a bug report."""
    from daskconv.launch.info import facts

    for name, fact in facts().items():
        click.echo(f"{name:<12} {fact}")


def main() -> None:
    """Run the command; one sentence and exit code 2 for what the user can mend."""
    from daskconv.run.mpi import launcher_rank, launcher_ranks

    # Every rank reads the same line: one of them complains, the first where there are too few for a script's rank.
    ranks = launcher_ranks()
    silent = ranks > 1 and launcher_rank() not in (None, 1 if ranks > 2 else 0)
    if silent:
        click.exceptions.UsageError.show = lambda self, file=None: None  # type: ignore[method-assign]
    try:
        main_group(prog_name="daskconv")
    except DaskconvError as error:
        if silent:
            # Its own end would end the launcher's job before the rank that speaks has spoken.
            time.sleep(_GRACE)
        else:
            print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
