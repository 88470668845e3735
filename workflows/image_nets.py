"""Accuracy of two networks that branch: ResNet-20 on CIFAR-10, and a small GoogLeNet on larger photographs.

python workflows/image_nets.py resnet20 --data cifar10.npz --png resnet20.png
python workflows/image_nets.py inception --data caltech10.npz --png inception.png
mpiexec -n 4 python workflows/image_nets.py resnet20 --data cifar10.npz
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _measure import arguments, machine, pyplot, show, show_machine, write_json

import daskconv
from daskconv import BatchNorm, Concat, Conv2D, Dense, Dropout, GlobalAvgPool2D, MaxPool2D, ReLU
from daskconv.graph.threads import available_threads
from daskconv.nn.zoo.graph import Graph

# Filters: 1x1, before and of 3x3, before and of 5x5, after the pool.
MODULES = [
    (16, 24, 32, 8, 16, 16),
    (32, 32, 48, 8, 16, 16),
    (48, 48, 96, 12, 32, 32),
    (64, 64, 128, 16, 48, 32),
]


def inception(classes: int) -> daskconv.Network:
    """Return a network of GoogLeNet's modules with batch norm, for images of about 120x160."""
    graph = Graph()

    def conv(name: str, filters: int, kernel: int, *inputs: str, stride: int = 1) -> str:
        layer = Conv2D(filters, kernel, stride=stride, padding=kernel // 2, bias=False)
        graph.add(f"{name}/norm", BatchNorm(), graph.add(name, layer, *inputs))
        return graph.add(f"{name}/relu", ReLU())

    conv("conv1", 32, 7, stride=2)
    graph.add("pool1", MaxPool2D(3, stride=2, ceil_mode=True))
    conv("conv2", 64, 3)
    for number, (one, three_reduce, three, five_reduce, five, pooled) in enumerate(MODULES, 1):
        if number in (1, 3):
            graph.add(f"pool{number + 1}", MaxPool2D(3, stride=2, ceil_mode=True))
        x, name = graph.last, f"module{number}"
        branches = [
            conv(f"{name}/1x1", one, 1, x),
            conv(f"{name}/3x3", three, 3, conv(f"{name}/3x3/reduce", three_reduce, 1, x)),
            conv(f"{name}/5x5", five, 5, conv(f"{name}/5x5/reduce", five_reduce, 1, x)),
            conv(
                f"{name}/pool/1x1", pooled, 1, graph.add(f"{name}/pool", MaxPool2D(3, stride=1, padding=1), x)
            ),
        ]
        graph.add(name, Concat(), *branches)
    graph.add("mean", GlobalAvgPool2D())
    graph.add("drop", Dropout(0.3))
    graph.add("dense", Dense(classes))
    return graph.network("inception")


@dataclass(frozen=True)
class Case:
    """A network and its recipe: half an epoch of warm-up, then half a cosine down to 0."""

    network: Callable[[int], daskconv.Network]
    epochs: int
    batch: int
    rate: float
    decay: float
    augment: tuple[daskconv.Augmentation, ...]
    goal: float  # test accuracy, %


CASES = {
    "resnet20": Case(
        daskconv.zoo.resnet20, 12, 128, 0.1, 5e-4, (daskconv.RandomCrop(4), daskconv.RandomFlip()), 78
    ),
    "inception": Case(
        inception, 40, 32, 0.05, 5e-4, (daskconv.RandomCrop(8, "edge"), daskconv.RandomFlip()), 55
    ),
}


def parse() -> argparse.Namespace:
    parser = arguments(
        "Train a network on images; print its accuracy by epoch, and on its own training images."
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", required=True, help='an .npz file with x_train ..., a folder, or "cifar10"')
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transport", default="auto", choices=["auto", "local", "dask", "mpi"])
    parser.add_argument("--threads", type=int, help="of each worker")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the trained model here")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the accuracy by epoch")
    return parser.parse_args()


def main() -> None:
    args = parse()
    case = CASES[args.case]
    with daskconv.start(args.transport, threads=args.threads):
        plot = pyplot() if args.png else None
        data = daskconv.datasets.load(args.data)
        if args.quick:
            case = replace(case, epochs=1)
            data = replace(data, x_train=data.x_train[:256], y_train=data.y_train[:256])
            data = replace(data, x_test=data.x_test[:100], y_test=data.y_test[:100])
        print(data, flush=True)
        trainer, epochs = train(case, data, args)
        rows = report(args.case, case, trainer, data, epochs)
        facts = machine(args.threads or available_threads()) | {
            "transport": trainer.transport,
            "seed": args.seed,
        }
        show_machine(facts)
        write_json(args.json, {"machine": facts, "case": args.case, "epochs": rows})
        if args.save:
            trainer.save(args.save)
        if plot:
            draw(plot, args.png, args.case, case, rows)


def train(
    case: Case, data: daskconv.datasets.Dataset, args: argparse.Namespace
) -> tuple[daskconv.Trainer, int]:
    classes, epochs = int(data.y_train.max()) + 1, args.epochs or case.epochs
    trainer = daskconv.Trainer(
        case.network(classes),
        optimizer=daskconv.SGD(
            daskconv.WarmUp(0.5, daskconv.CosineRate(case.rate, epochs)),
            momentum=0.9,
            weight_decay=case.decay,
        ),
        preprocess="standardize",
        augment=case.augment,
        transport=args.transport,
        threads=args.threads,
        seed=args.seed,
    )
    validation = (data.x_test, data.y_test)
    trainer.fit(data.x_train, data.y_train, epochs=epochs, batch_size=case.batch, validation_data=validation)
    return trainer, epochs


def report(
    name: str, case: Case, trainer: daskconv.Trainer, data: daskconv.datasets.Dataset, epochs: int
) -> list[dict[str, Any]]:
    history = trainer.history
    rows = [
        {
            "epoch": str(epoch + 1),
            "loss": history["loss"][epoch],
            "training, %": 100 * history["accuracy"][epoch],
            "test, %": 100 * history["val_accuracy"][epoch],
        }
        for epoch in range(epochs)
    ]
    own = 100 * trainer.evaluate(data.x_train, data.y_train)["accuracy"]
    final = rows[-1]["test, %"]
    show(f"Accuracy of {name}; while training, of images that were augmented", rows, [
        f"After training: {final:.1f} % of the test images (goal {case.goal} %), {own:.1f} % of the training images "
        "as they are."
    ])  # fmt: skip
    return rows


def draw(plot: Any, path: Path, name: str, case: Case, rows: list[dict[str, Any]]) -> None:
    figure, axes = plot.subplots(figsize=(7, 4.5), layout="constrained")
    epochs = [int(row["epoch"]) for row in rows]
    axes.plot(epochs, [row["training, %"] for row in rows], label="training images, augmented")
    axes.plot(epochs, [row["test, %"] for row in rows], label="test images")
    axes.axhline(case.goal, color="0.7", linestyle=":", label=f"goal, {case.goal} %")
    axes.set(xlabel="epoch", ylabel="accuracy, %", title=name)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
