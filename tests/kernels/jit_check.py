"""What every kernel, layer and pass computes, for comparison with and without compiled kernels; writes an npz."""

import sys
import warnings

import numpy as np

from daskconv import (
    SGD,
    Add,
    AvgPool2D,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Network,
    Node,
    ReLU,
    Trainer,
)
from daskconv.geometry import Window
from daskconv.kernels import pool
from daskconv.kernels.reduce import sum_rows
from reference import Case, run_passes

CASES = {
    "plain": Case(n=3, image=(9, 8), channels=5, filters=7, padding="same", dtype="float32"),
    "strided": Case(image=(9, 11), kernel=(3, 4), stride=(2, 3), padding=((3, 0), (1, 2)), dilation=(1, 2)),
    "grouped": Case(groups=3, stride=2, padding=1, data_format="NCHW"),
    "depthwise": Case(n=2, channels=1, filters=1, groups=6, kernel=(3, 3), padding=1, bias=True),
    "depthwise, no bias": Case(channels=1, filters=1, groups=6, stride=2, bias=False, dtype="float32"),
    "multiplied depthwise": Case(channels=1, filters=2, groups=4),
    "1x1": Case(channels=6, filters=4, kernel=(1, 1)),
}

# Every layer; depthwise and strided convolutions among them.
NET = Network(
    (
        Node("conv", Conv2D(6, 3, padding=1)),
        Node("relu", ReLU(), ("conv",)),
        Node("depthwise", Conv2D(6, 3, padding=1, groups=6), ("relu",)),
        Node("add", Add(), ("relu", "depthwise")),
        Node("max", MaxPool2D(3, stride=2, ceil_mode=True), ("add",)),
        Node("wide", Conv2D(4, 2, groups=2, padding="same"), ("max",)),
        Node("beside", Concat(), ("max", "wide")),
        Node("avg", AvgPool2D(2), ("beside",)),
        Node("strided", Conv2D(8, 2, stride=2, padding=1), ("avg",)),
        Node("flat", Flatten(), ("strided",)),
        Node("drop", Dropout(0.2), ("flat",)),
        Node("dense", Dense(10), ("drop",)),
    ),
    name="every_layer",
)


def results() -> dict[str, np.ndarray]:
    """Return all results by name; pooled integers, so that many pixels tie."""
    found = {}
    for name, case in CASES.items():
        found |= {f"{name} {key}": array for key, array in run_passes(case, "auto").items()}
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (3, 9, 10, 5)).astype(np.float32)
    window = Window.of((3, 2), (9, 10), stride=2, padding=1, ceil_mode=True)
    maxima, winner = pool.max_pool(x, window)
    found |= {"maxima": maxima, "winner": winner, "means": pool.avg_pool(x, window, True)}
    found["max grad"] = pool.max_pool_grad(maxima + 1, winner, window, x.shape)
    found["avg grad"] = pool.avg_pool_grad(maxima + 1, window, False, x.shape)
    found["sums"] = sum_rows(rng.standard_normal((500, 7)).astype(np.float32))
    x, y = rng.integers(0, 9, (40, 12, 12, 2)).astype(np.float32), rng.integers(0, 10, 40)
    trainer = Trainer(
        NET, optimizer=SGD(0.01, momentum=0.9), transport="local", threads=2, preprocess="standardize"
    )
    trainer.fit(x, y, batch_size=10, epochs=2, progress=False)
    return found | {f"trained {name}": array for name, array in trainer.model.params.items()}


def main() -> None:
    """Save the results, and print how many warnings there were and what was imported."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.savez(sys.argv[1], **results())
    said = [str(warning.message) for warning in caught if "Numba" in str(warning.message)]
    print(len(said), *sorted({"numba", "llvmlite"} & set(sys.modules)), *said, sep="\n")


if __name__ == "__main__":
    main()
