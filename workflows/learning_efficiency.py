"""Learning efficiency: epochs and time to a fixed accuracy against batch size, really trained on CIFAR-10.

The learning rate grows with the batch (linear scaling, Goyal et al. 2017) after a warm-up; from some size on LARS (You
et al. 2017) takes over, with its own rate. A batch that never gets there is shown as such. Combined with simulated step
times, the epochs give the time to that accuracy against nodes of environment B.

python workflows/learning_efficiency.py --data cifar10.npz --csv learning_efficiency.csv --png learning_efficiency.png
"""

import argparse
from pathlib import Path
from time import process_time
from typing import Any

from _measure import arguments, machine, pyplot, show, show_machine, write_csv, write_json

import daskconv
from daskconv.cost.machine import load_machine
from daskconv.cost.scaling import scaled

BATCHES = (100, 400, 1600, 3200, 6400)
NODES = (1, 4, 16, 64, 256, 864)
# The rate of a batch of 100, and the batch from which on LARS is used.
RATE, LARS_RATE, LARS_FROM = 0.001, 2.0, 3200
# Beyond this batch accuracy is lost whatever the rate (Goyal et al. 2017).
LARGEST = 8192
NEVER = "not reached"


def parse() -> argparse.Namespace:
    parser = arguments("Train with batches of several sizes towards the same accuracy.")
    parser.add_argument("--data", required=True, help="cifar10, or an .npz with its arrays")
    parser.add_argument("--net", default="cifar10_quick")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--accuracy", type=float, default=0.70, help="of the test images, to be reached")
    parser.add_argument("--epochs", type=int, default=40, help="the most epochs")
    parser.add_argument(
        "--warmup", type=float, default=3.0, help="epochs of the warm-up of batches above the smallest"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw epochs and time to the accuracy")
    args = parser.parse_args()
    if args.quick:
        args.batches, args.epochs, args.accuracy = [25, 50], 2, 0.0
    return args


def main() -> None:
    args = parse()
    plot, data = pyplot() if args.png else None, daskconv.datasets.load(args.data)
    for batch in args.batches:
        if batch > LARGEST:
            print(
                f"Batch {batch} is above {LARGEST}, the largest that is known to train well (Goyal et al. 2017)."
            )
    rows = [trained(args, data, batch) for batch in args.batches]
    times = [row for result in rows for row in on_nodes(args, result, data.x_train.shape, args.quick)]
    shown = [{name: value for name, value in row.items() if name != "accuracies"} for row in rows]
    show(f"{args.net} to {args.accuracy:.0%} of the test images, trained here", shown)
    show("Simulated: the same epochs on nodes of environment B", times)
    facts = machine(args.threads or "all")
    show_machine(facts)
    write_json(args.json, {"machine": facts, "trained": rows, "simulated_times": times})
    write_csv(args.csv, shown)
    if plot:
        draw(plot, args.png, args, rows, times)


def trained(args: argparse.Namespace, data: Any, batch: int) -> dict[str, Any]:
    """Return what it took with one batch size."""
    optimizer, named = optimizer_of(args, batch)
    trainer = daskconv.Trainer(
        args.net, optimizer=optimizer, transport="local", threads=args.threads, seed=args.seed,
        preprocess=daskconv.zoo.PREPROCESS[args.net],
    )  # fmt: skip
    accuracies: list[float] = []
    started, spent = process_time(), []

    def look(trainer: Any, logs: dict[str, Any]) -> None:
        accuracies.append(float(logs["val_accuracy"]))
        spent.append(process_time() - started)
        if accuracies[-1] >= args.accuracy:
            trainer.stop()

    trainer.fit(
        data.x_train, data.y_train, epochs=args.epochs, batch_size=batch, callbacks=[look], progress=False,
        validation_data=(data.x_test, data.y_test),
    )  # fmt: skip
    reached = accuracies[-1] >= args.accuracy
    return {
        "batch": batch,
        "optimizer": named,
        "epochs": len(accuracies) if reached else NEVER,
        "steps": len(accuracies) * -(-len(data.x_train) // batch) if reached else NEVER,
        "core_seconds_here": spent[-1] if reached else NEVER,
        "best_accuracy_%": 100 * max(accuracies),
        "accuracies": accuracies,
    }


def optimizer_of(args: argparse.Namespace, batch: int) -> tuple[Any, str]:
    """Return the optimiser of a batch size, and what it is called."""
    smallest = min(args.batches)
    if batch >= LARS_FROM:
        rate = LARS_RATE * batch / LARS_FROM
        schedule = daskconv.WarmUp(args.warmup, daskconv.ConstantRate(rate))
        return daskconv.LARS(schedule, momentum=0.9, weight_decay=0.004), f"LARS {rate:g}, warm-up"
    rate = RATE * batch / 100
    schedule: Any = daskconv.ConstantRate(rate)
    if batch > smallest:
        schedule = daskconv.WarmUp(args.warmup, schedule)
    kind = "SGD" if batch == smallest else "SGD, warm-up"
    return daskconv.SGD(schedule, momentum=0.9, weight_decay=0.004), f"{kind} {rate:g}"


def on_nodes(
    args: argparse.Namespace, result: dict[str, Any], shape: tuple[int, ...], quick: bool
) -> list[dict[str, Any]]:
    """Return the simulated time to the accuracy on nodes of environment B, by the plan that is chosen."""
    network, figures = daskconv.zoo.build(args.net, 10), load_machine("environment_b")
    counts = [count for count in (NODES[:2] if quick else NODES) if count <= result["batch"]]
    found = scaled(network, shape[1:], result["batch"], figures, counts, ("auto",))
    steps = result["steps"]
    return [
        {
            "batch": result["batch"],
            "nodes": row["nodes"],
            "ms_a_step": row["ms_a_step"],
            "plan": row["what"],
            "seconds_to_accuracy": steps * row["ms_a_step"] / 1e3 if steps != NEVER else NEVER,
        }
        for row in found
    ]


def draw(
    plot: Any, path: Path, args: argparse.Namespace, rows: list[dict[str, Any]], times: list[dict[str, Any]]
) -> None:
    figure, axes = plot.subplots(1, 3, figsize=(13, 3.8))
    for row in rows:
        axes[0].plot(range(1, len(row["accuracies"]) + 1), row["accuracies"], label=f"batch {row['batch']}")
    axes[0].axhline(args.accuracy, color="k", linestyle=":")
    axes[0].set(xlabel="epoch", ylabel="accuracy of the test images")
    axes[0].legend(fontsize=7)
    there = [row for row in rows if row["epochs"] != NEVER]
    axes[1].plot([row["batch"] for row in there], [row["epochs"] for row in there], "o-", label="reached")
    never = [row["batch"] for row in rows if row["epochs"] == NEVER]
    axes[1].plot(never, [args.epochs] * len(never), "rx", label=NEVER)
    axes[1].set(xlabel="batch", ylabel=f"epochs to {args.accuracy:.0%}", xscale="log")
    axes[1].legend(fontsize=7)
    for batch in dict.fromkeys(row["batch"] for row in times if row["seconds_to_accuracy"] != NEVER):
        some = [row for row in times if row["batch"] == batch]
        points = [row["nodes"] for row in some], [row["seconds_to_accuracy"] for row in some]
        axes[2].plot(*points, ".-", label=f"batch {batch}")
    axes[2].set(xlabel="nodes, simulated", ylabel="seconds to the accuracy", xscale="log", yscale="log")
    if axes[2].lines:
        axes[2].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
