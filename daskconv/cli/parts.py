"""What commands make of their options: networks, and of those of ``train`` the loss, optimiser and schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daskconv.errors import InputError

LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error")
SCHEDULES = ("constant", "step", "cosine", "linear", "one-cycle")

loss_option = click.option("--loss", type=click.Choice(LOSSES), default=LOSSES[0], show_default=True,
                           help="What is minimised; the last two take labels as numbers, of one output.")  # fmt: skip


input_option = click.option("--input", "shape", nargs=3, type=click.IntRange(1), metavar="H W C",
                            help="Shape of one image.  [default: what a saved model was trained on]")  # fmt: skip
plan_option = click.option(
    "--plan",
    default="data",
    show_default=True,
    help="How the work is split: data, model, hybrid or hybrid,slices=8, auto, or n=2,h=2.",
)
shards_option = click.option(
    "--shards", type=click.IntRange(1), help="Logical shards; not the number of workers.  [default: 4]"
)


def named_network(net: str, shape: tuple[int, int, int] | None) -> tuple[Any, tuple[int, int, int]]:
    """Return a network of the zoo, or that of a saved model, and the shape of an image."""
    from daskconv.nn import zoo
    from daskconv.train.files import load

    model = None if net in zoo.ZOO or not Path(net).is_file() else load(net)
    network = zoo.build(net, 10) if model is None else model.network
    shape = shape or (model and model.input_shape) or None  # type: ignore[assignment]
    if shape is None:
        raise InputError(f"The shape of an image is not known of {net}: give it as --input H W C.")
    return network, shape


def resolved_loss(options: dict[str, Any]) -> Any:
    """Return the loss, with smoothed labels where they are wanted."""
    from daskconv.nn.losses import SoftmaxCrossEntropy, resolve_loss

    name, smoothing = options["loss"], options["label_smoothing"]
    if not smoothing:
        return resolve_loss(name)
    if name != LOSSES[0]:
        raise InputError(f"--label-smoothing is for {LOSSES[0]} and --loss is {name}: leave one of them out.")
    return SoftmaxCrossEntropy(label_smoothing=smoothing)


def network(options: dict[str, Any], data: Any, loss: Any) -> tuple[Any, tuple[str, ...], str | None]:
    """Return the zoo's network, or the model to fine-tune; the names of classes; the normalisation of new images."""
    from daskconv.nn import zoo
    from daskconv.nn.losses import first_output, takes_values
    from daskconv.train.files import load
    from daskconv.train.onnx_files import load_onnx

    source, names = options["from"], data.class_names
    classes = len(names) or int(data.y_train.max()) + 1
    if takes_values(loss):
        names, classes = (), 1
    if source is None:
        return zoo.build(options["net"], classes), names, zoo.PREPROCESS[options["net"]]
    model = load_onnx(source) if Path(source).suffix == ".onnx" else load(source)
    model = model.without_auxiliary()
    outputs = first_output(model.network.output_shape(data.x_train.shape[1:]))[-1]
    if outputs != classes or (model.class_names and names and model.class_names != names):
        model = model.with_head(classes, class_names=names, seed=options["seed"])
    return model, names, None


def optimizer(options: dict[str, Any]) -> Any:
    """Return the optimiser with its schedule."""
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
    from daskconv.train.schedule import ConstantRate, CosineRate, OneCycle, PolynomialRate, StepRate, WarmUp

    rate, epochs = options["lr"], options["epochs"]
    schedule = {
        "constant": ConstantRate(rate),
        "step": StepRate(rate, (0.8 * epochs,)),
        "cosine": CosineRate(rate, epochs),
        "linear": PolynomialRate(rate, epochs),
        "one-cycle": OneCycle(rate, epochs),
    }[options["schedule"]]
    return WarmUp(options["warmup"], schedule) if options["warmup"] else schedule


def figures(results: dict[str, Any], prefix: str = "") -> str:
    """Return the accuracy, or the loss where there is none, as words."""
    if f"{prefix}accuracy" in results:
        return f"accuracy {results[f'{prefix}accuracy']:.2%}"
    return f"loss {results[f'{prefix}loss']:.4f}"
