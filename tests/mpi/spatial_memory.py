"""Run under mpiexec: train on images of 1080x1920 under a plan; print what each worker's memory grew by, in bytes."""

import json
import sys
from pathlib import Path

import zarr

import daskconv
from daskconv import Conv2D, Dense, GlobalAvgPool2D, MaxPool2D, ReLU, Sequential, plans

PLANS = {"whole": plans.data(1, synchronize=True), "spatial": plans.spatial(h=4)}


def network() -> daskconv.Network:
    """Return a net whose activations are large beside an image."""
    layers = []
    for filters in (16, 32, 64):
        layers += [Conv2D(filters, 3, padding=1), ReLU(), Conv2D(filters, 3, padding=1), ReLU(), MaxPool2D(2)]
    return Sequential([*layers, GlobalAvgPool2D(), Dense(10)])


def memory(name: str) -> int:
    """Return VmRSS, now, or VmHWM, at its most, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget_the_most() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def fit(plan: str, folder: str, size: int) -> float:
    images = zarr.open(f"{folder}/{size}.zarr", mode="r")
    trainer = daskconv.Trainer(network(), plan=PLANS[plan], preprocess="unit", threads=1)
    history = trainer.fit(images["x_train"], images["y_train"][:], epochs=2, batch_size=4, progress=False)
    return history.epochs[-1]["loss"]


def main(plan: str, folder: str) -> None:
    with daskconv.start(threads=1) as client:
        # Everything that a step needs is imported, and compiled kernels are loaded.
        fit(plan, folder, 64)
        client.run(forget_the_most)
        before = client.run(memory, "VmRSS")
        loss = fit(plan, folder, 1080)
        most = client.run(memory, "VmHWM")
        grown = [most[worker] - before[worker] for worker in most]
        print(json.dumps({"grown": grown, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
