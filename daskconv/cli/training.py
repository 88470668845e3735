"""``daskconv train``: a run from its options, or from a checkpoint, to a saved model."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import click

from daskconv.cli.callbacks import beside, callbacks, say_best
from daskconv.cli.config import given
from daskconv.cli.group import Command
from daskconv.cli.launcher import tls_option
from daskconv.cli.page import dashboard_option, page_options
from daskconv.cli.parts import (
    SCHEDULES,
    figures,
    loss_option,
    network,
    optimizer,
    plan_option,
    resolved_loss,
    shards_option,
)
from daskconv.cli.report import recorded, run_options
from daskconv.errors import InputError, Interrupted

_RESCUE = "daskconv-interrupted.safetensors"
"""Where an interrupted run without --save is kept."""

_FREE = {
    "data",
    "epochs",
    "transport",
    "workers",
    "threads",
    "tls",
    "skip_damaged",
    "save",
    "resume",
    "dashboard",
    "wait_workers",
}
_FREE |= {"patience", "monitor", "save_best", "run", "report", "performance_report"}
_FREE |= {"checkpoint", "checkpoint_steps", "checkpoint_minutes", "checkpoint_keep"}
"""What may be given with --resume: all else decides the bits, and the checkpoint fixes it."""


@click.command(cls=Command)
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
@loss_option
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
              help="Share of the target that is spread over all classes, of softmax_cross_entropy.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Epochs in total.  [default: 10]")
@click.option(
    "--batch-size", type=click.IntRange(1), default=100, show_default=True, help="Images of a step."
)
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw", "adagrad", "rmsprop", "lars"]), default="sgd",
              show_default=True, help="How weights follow their gradients.")  # fmt: skip
@click.option("--lr", type=click.FloatRange(0), default=0.01, show_default=True, help="Learning rate.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.9, show_default=True,
              help="Of sgd and lars.")  # fmt: skip
@click.option("--weight-decay", type=click.FloatRange(0), help="How much each step shrinks the weights.  "
              "[default: 0; 0.01 of adamw, 0.0001 of lars]")  # fmt: skip
@click.option(
    "--bias-lr", type=click.FloatRange(0), default=1.0, show_default=True, help="Factor for biases."
)
@click.option("--schedule", type=click.Choice(SCHEDULES), default="constant", show_default=True,
              help="step: a tenth after four fifths of the epochs; one-cycle: up to --lr and down again.")  # fmt: skip
@click.option(
    "--warmup", type=click.FloatRange(0), default=0.0, show_default=True, help="Epochs of linear rise."
)
@click.option(
    "--clip-norm", type=click.FloatRange(0, min_open=True), help="Largest norm of a step's gradient."
)
@click.option(
    "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches to one step."
)
@click.option("--average", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="Share that each step keeps of running means of the weights, such as 0.999; --save writes them "
              "beside the model, as NAME-average.")  # fmt: skip
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
@plan_option
@shards_option
@click.option("--transport", default="auto", show_default=True, help="auto, local, dask or mpi.")
@click.option("--workers", type=click.IntRange(1), help="Processes of a local cluster.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each worker.")
@click.option(
    "--skip-damaged",
    is_flag=True,
    help="Of a folder: leave out images that cannot be read, and say how many.",
)
@tls_option
@dashboard_option
@click.option("--wait-workers", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="How long to wait where there is no worker, yet or any more.  [default: 300]")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, shuffling and dropout."
)
@click.option(
    "--patience", type=click.IntRange(1), help="Stop after so many epochs that were no better than the best."
)
@click.option("--monitor", metavar="NAME", help="What is better: loss, accuracy, val_loss or val_accuracy.  "
              "[default: val_loss, or loss]")  # fmt: skip
@click.option(
    "--save-best", is_flag=True, help="Write the best epoch's model, too, beside --save, as NAME-best."
)
@run_options
@click.option("--save", type=click.Path(), help="Write the trained model here.")
@click.option(
    "--checkpoint", type=click.Path(), help="Write checkpoints to this folder, beside the training."
)
@click.option("--checkpoint-steps", type=click.IntRange(1), help="Steps from one checkpoint to the next.")
@click.option("--checkpoint-minutes", type=click.FloatRange(0, min_open=True),
              help="Minutes from one to the next.  [default: 10 where no steps are given]")  # fmt: skip
@click.option("--checkpoint-keep", type=click.IntRange(1), default=3, show_default=True,
              help="How many of the newest stay, beside the best.")  # fmt: skip
@click.option("--resume", type=click.Path(), help="Go on from a file that training saved, or from the newest "
              "checkpoint of a folder, and write there.")  # fmt: skip
@click.pass_context
def train(context: click.Context, **options: Any) -> None:
    """Train a network.

    \b
    daskconv train --data digits --epochs 10 --save digits.safetensors
    mpiexec -n 4 daskconv train --data cifar10 --net cifar10_quick --lr 0.001
    daskconv train --data digits --resume digits.safetensors --epochs 20
    daskconv train --data cifar10 --checkpoint runs/1 --checkpoint-minutes 5
    daskconv train --data cifar10 --resume runs/1
    daskconv train --config train.yaml --lr 0.1 --report

    The run's metrics lie beside the model, in NAME-run, for daskconv report. SIGTERM, SIGUSR1 and
    Ctrl-C end the step that runs, save, print the line that goes on, and exit with 143, 138 and 130.
    """  # noqa: D301 - click keeps lines after a backspace as they are
    import dask

    from daskconv.launch.start import start

    asked = given(context)
    if {"net", "from"} <= asked:
        raise InputError("--net and --from: give one of them, since the model brings its network.")
    settings = {"daskconv.profile": True} if options["performance_report"] else {}
    if options["wait_workers"] is not None:
        settings["daskconv.wait-workers"] = options["wait_workers"]
    page = page_options(options["dashboard"])
    with (
        dask.config.set(settings),
        start(
            _transport(options),
            workers=options["workers"],
            threads=options["threads"],
            tls=options["tls"],
            **page,
        ),
    ):
        _train(options, asked)


def _transport(options: dict[str, Any]) -> str:
    """Return the transport; "auto" stays on this process's threads unless workers are asked for."""
    from daskconv.run.launcher import launcher_ranks

    if options["transport"] == "auto" and options["workers"] is None and not launcher_ranks():
        return "local"
    return options["transport"]


def _train(options: dict[str, Any], asked: set[str]) -> None:
    from daskconv import datasets
    from daskconv.train.files import check_writable, load_checkpoint

    checkpoints = _checkpoints(options)
    target = options["save"] or (None if checkpoints else options["resume"])
    if target or not checkpoints:
        check_writable(target or _RESCUE)
    checkpoint = load_checkpoint(options["resume"]) if options["resume"] else None
    if checkpoint is not None:
        fixed = sorted(f"--{name.replace('_', '-')}" for name in asked - _FREE)
        if fixed:
            raise InputError(
                f"{', '.join(fixed)}: the checkpoint fixes these, so leave them out with --resume."
            )
        options |= {"epochs": options["epochs"] or checkpoint.options["epochs"]}
    options["epochs"] = options["epochs"] or 10
    data = datasets.load(options["data"], mapped=True, skip_damaged=options["skip_damaged"])
    trainer = _trainer(options, data) if checkpoint is None else _resumed(options, checkpoint)
    # A run that writes checkpoints, and no model, has its folder beside those.
    with recorded(options, target or (str(checkpoints.folder) if checkpoints else None)):
        _fit(trainer, data, options, target, checkpoints)


def _checkpoints(options: dict[str, Any]) -> Any:
    """Return where, when and how many checkpoints are written; None where nobody asked for any."""
    from daskconv.train.checkpoints.spec import Checkpoints

    resumed = options["resume"] if options["resume"] and Path(options["resume"]).is_dir() else None
    folder = options["checkpoint"] or resumed
    if folder is None:
        if options["checkpoint_steps"] or options["checkpoint_minutes"]:
            raise InputError("--checkpoint-steps and --checkpoint-minutes need --checkpoint FOLDER: give it.")
        return None
    return Checkpoints(
        folder, options["checkpoint_steps"], options["checkpoint_minutes"], options["checkpoint_keep"]
    )


def _trainer(options: dict[str, Any], data: Any) -> Any:
    from daskconv.train.trainer import Trainer

    loss = resolved_loss(options)
    net, names, preprocess = network(options, data, loss)
    return Trainer(
        net,
        loss=loss,
        optimizer=optimizer(options),
        plan=options["plan"],
        transport=_transport(options),
        method=options["method"],
        precision=options["precision"],
        seed=options["seed"],
        shards=options["shards"],
        preprocess=options["normalize"] or preprocess,
        augment=[name.strip() for name in options["augment"].split(",") if name.strip()],
        trainable=options["trainable"] or None,
        clip_norm=options["clip_norm"],
        accumulate=options["accumulate"],
        average=options["average"],
        class_names=names,
        threads=options["threads"],
    )


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
        plan=saved.get("plan", "data"),
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


def _fit(trainer: Any, data: Any, options: dict[str, Any], target: str | None, checkpoints: Any) -> None:
    validation = None if data.x_test is None else (data.x_test, data.y_test)
    before, watching = trainer.position, callbacks(options, target)
    try:
        trainer.fit(
            data.x_train,
            data.y_train,
            epochs=options["epochs"],
            batch_size=trainer.batch_size or options["batch_size"],
            validation_data=validation,
            callbacks=watching,
            checkpoint=checkpoints,
        )
    except Interrupted as stopped:
        path = str(checkpoints.folder) if checkpoints else target or _RESCUE
        if not checkpoints:
            trainer.save(path)
        again = ["daskconv", "train", "--data", options["data"], "--resume", path, *_kept(options)]
        click.echo(f"{stopped} Go on with: {shlex.join(again)}")
        sys.exit(128 + int(stopped.signal or signal.SIGINT))
    except Exception:
        if target and trainer.position is not before:
            trainer.save(target)
            click.echo(f"The weights from before the failure are in {target}.", err=True)
        raise
    say_best(trainer, options, watching)
    if validation is not None:
        click.echo(f"test {figures(trainer.history.epochs[-1], 'val_')} of {len(data.y_test):,} images")
    if target:
        _save(trainer, target)


def _kept(options: dict[str, Any]) -> list[str]:
    """Return the words for options that no checkpoint holds, and that a resumed run has to be given again."""
    words = list[str]()
    for name in ("patience", "monitor", "save_best", "run", "report"):
        if value := options[name]:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def _save(trainer: Any, target: str) -> None:
    trainer.save(target)
    click.echo(f"saved {target}")
    if trainer.average is not None:
        path = beside(target, "average")
        trainer.averaged_model.save(path)
        click.echo(f"saved {path}, the running means")
