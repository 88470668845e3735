"""Accuracy: train the slides' CIFAR-10 net by its recipe, on any transport, once for each seed.

The same seed ends in the same SHA-256 on every transport and number of workers.

    python workflows/cifar10_quick.py --data cifar10.npz --transport local
    mpiexec -n 4 python workflows/cifar10_quick.py --data cifar10.npz
"""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _measure import arguments, machine, pyplot, show, show_machine, write_json

import daskconv
from daskconv.graph.threads import available_threads
from daskconv.run.select import select

# Test accuracy in % after each epoch, PyTorch 2.13 float32, one seed, CIFAR-10 stored as JPEG.
REFERENCE = [54.9, 60.7, 63.9, 67.6, 68.0, 69.8, 70.6, 71.1, 74.3, 74.4]


def parse() -> argparse.Namespace:
    parser = arguments(
        "Train the slides' CIFAR-10 net; print its test accuracy and the digest of its weights."
    )
    parser.add_argument("--data", default="cifar10", help='an .npz file with x_train ..., or "cifar10"')
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--transport", default="auto", choices=["auto", "local", "dask", "mpi"])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int, help="of each worker")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the accuracy by epoch")
    return parser.parse_args()


def main() -> None:
    args = parse()
    # Under mpiexec only the script's own rank gets into this block.
    with daskconv.start(args.transport, workers=args.workers, threads=args.threads):
        plot = pyplot() if args.png else None
        data = load(args)
        runs = [train(args, data, seed) for seed in args.seeds]
        figures = report(args, runs)
        write_json(args.json, figures)
        if plot:
            draw(plot, args.png, runs)


def load(args: argparse.Namespace) -> daskconv.datasets.Dataset:
    data = daskconv.datasets.load(args.data)
    if args.quick:
        args.seeds, args.epochs = args.seeds[:1], 1
        train, test = slice(2000), slice(1000)
        data = replace(
            data,
            x_train=data.x_train[train],
            y_train=data.y_train[train],
            x_test=data.x_test[test],
            y_test=data.y_test[test],
        )
    print(data, flush=True)
    return data


def recipe(args: argparse.Namespace, seed: int) -> daskconv.Trainer:
    """Caffe's recipe: biases learn twice as fast; after four fifths of the epochs the rate is a tenth."""
    rate = daskconv.StepRate(1e-3, boundaries=(0.8 * args.epochs,), factor=0.1)
    return daskconv.Trainer(
        daskconv.zoo.cifar10_quick(),
        optimizer=daskconv.SGD(rate, momentum=0.9, weight_decay=4e-3, multipliers={"*.bias": 2.0}),
        preprocess="mean_image",
        transport=args.transport,
        threads=args.threads,
        seed=seed,
    )


def train(args: argparse.Namespace, data: daskconv.datasets.Dataset, seed: int) -> dict[str, Any]:
    print(f"seed {seed}", flush=True)
    trainer = recipe(args, seed)
    history = trainer.fit(
        data.x_train,
        data.y_train,
        epochs=args.epochs,
        batch_size=args.batch_size,
        validation_data=(data.x_test, data.y_test),
    )
    result = {
        "seed": seed,
        "accuracy": [round(100 * value, 2) for value in history["val_accuracy"]],
        "loss": history["loss"],
        "images_per_second": median(history["images_per_second"]),
        "sha256": digest(trainer.model.params),
        "shard_owners": trainer.shard_owners,
    }
    print(f"sha256 {result['sha256']}\nshards {result['shard_owners']}", flush=True)
    return result


def digest(params: dict[str, np.ndarray]) -> str:
    """SHA-256 of all tensors' bytes, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(params):
        total.update(np.ascontiguousarray(params[name]).tobytes())
    return total.hexdigest()


def report(args: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "epoch": str(epoch + 1),
            **{f"seed {run['seed']}": run["accuracy"][epoch] for run in runs},
            "reference": f"{REFERENCE[epoch]}" if epoch < len(REFERENCE) else "-",
        }
        for epoch in range(args.epochs)
    ]
    final = median(run["accuracy"][-1] for run in runs)
    facts = machine(args.threads or available_threads())
    facts |= {
        "transport": select(args.transport)[0],
        "workers": max(len(run["shard_owners"]) for run in runs),
    }
    verdict = f"Median accuracy of {len(runs)} seed(s): {final:.1f} %; PyTorch: {REFERENCE[-1]} % (one seed)."
    show("Test accuracy, %", rows, [verdict])
    show_machine(facts)
    return {"machine": facts, "runs": runs, "median_accuracy": final, "reference": REFERENCE}


def draw(plot: Any, path: Path, runs: list[dict[str, Any]]) -> None:
    figure, axes = plot.subplots(figsize=(7, 4.5), layout="constrained")
    for run in runs:
        axes.plot(range(1, len(run["accuracy"]) + 1), run["accuracy"], label=f"daskconv, seed {run['seed']}")
    axes.plot(range(1, len(REFERENCE) + 1), REFERENCE, "k.", label="PyTorch, one seed")
    axes.set(xlabel="epoch", ylabel="test accuracy, %", title="cifar10_quick")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
