"""The parts of a run, from the options of ``daskconv train``: network, optimiser, schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def network(options: dict[str, Any], data: Any) -> tuple[Any, str | None]:
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
    from daskconv.train.schedule import ConstantRate, CosineRate, StepRate, WarmUp

    rate, epochs = options["lr"], options["epochs"]
    schedule = {
        "constant": ConstantRate(rate),
        "step": StepRate(rate, (0.8 * epochs,)),
        "cosine": CosineRate(rate, epochs),
    }[options["schedule"]]
    return WarmUp(options["warmup"], schedule) if options["warmup"] else schedule
