"""A script that test_store.py starts, kills and starts again: a prediction that tells of each run of the network."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import numpy as np
import zarr

import daskconv
from daskconv import Conv2D, Layer
from daskconv.errors import DaskconvError


@dataclass(frozen=True)
class Told(Layer):
    """Appends a line to a file each time it runs, and takes its time."""

    file: str = ""
    is_pointwise = True

    def forward(self, params, x, context):
        with open(self.file, "a") as file:
            file.write(f"{os.getpid()}\n")
        sleep(0.05)
        return x, None


def main(folder, *options):
    net = daskconv.Sequential([Told(str(Path(folder, "runs.txt"))), Conv2D(2, 3, padding=1)])
    model = daskconv.Model(net, net.init(0, (64, 64, 1)))
    scene = zarr.open_array(Path(folder, "scene.zarr"), mode="r")
    chosen = dict.fromkeys(options, True)
    daskconv.store(model.predict(scene, tile=1024), Path(folder, "out.zarr"), **chosen)


def write_scene(folder, rows=3072, columns=5000):
    pixels = np.random.default_rng(0).integers(0, 255, (rows, columns, 1), np.uint8)
    pixels[:1100, :1100] = 0
    # Zarr would leave out chunks of zeros, and chunks that are not there are refused.
    whole = {"write_empty_chunks": True}
    zarr.create_array(Path(folder, "scene.zarr"), data=pixels, chunks=(500, 700, 1), config=whole)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DaskconvError as error:
        sys.exit(str(error))
